//! What a host needs for the test bed, each with what to do when it lacks.

use std::io;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::TestbedError;

/// Something this host lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is.
    pub what: String,
    /// The command or step that mends it.
    pub cure: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "missing: {}\n   cure: {}", self.what, self.cure)
    }
}

/// Everything this host lacks for namespaces, veth and AF_XDP, all at once.
#[must_use]
pub fn missing() -> Vec<Missing> {
    let mut missing = Vec::new();
    missing.extend(root());
    missing.extend(iproute2());
    missing.extend(af_xdp());
    missing.extend(kernel_options());
    missing
}

/// All of [`missing`] as one error.
///
/// # Errors
/// [`TestbedError::Missing`] with one paragraph for each thing.
pub fn check() -> Result<(), TestbedError> {
    as_error(&missing())
}

/// What namespaces alone need: root and iproute2.
pub(crate) fn check_namespaces() -> Result<(), TestbedError> {
    as_error(&root().into_iter().chain(iproute2()).collect::<Vec<_>>())
}

/// Lets this process, and those it starts from now on, have so many files open at once.
///
/// # Errors
/// [`TestbedError::Missing`] when the limit is lower and may not be raised.
pub fn open_files(wanted: u64) -> Result<(), TestbedError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No limit is none.
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|error| {
        TestbedError::Missing(
            Missing {
                what: format!("{wanted} files open at once: {error}"),
                cure: format!("ulimit -n {wanted}, or LimitNOFILE="),
            }
            .to_string(),
        )
    })
}

fn as_error(missing: &[Missing]) -> Result<(), TestbedError> {
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing.iter().map(Missing::to_string).collect();
    Err(TestbedError::Missing(lines.join("\n")))
}

fn root() -> Option<Missing> {
    let root = rustix::process::geteuid().is_root();
    (!root).then(|| Missing {
        what: "root: network namespaces, XDP and AF_XDP need it".to_owned(),
        // Debian's and Ubuntu's sudo resets PATH (`secure_path`) even with -E.
        cure:
            "run the same command behind `sudo -E env \"PATH=$PATH\"`, which keeps the Rust toolchain in PATH"
                .to_owned(),
    })
}

fn iproute2() -> Option<Missing> {
    let found = Command::new("ip").arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).status();
    found
        .is_err()
        .then(|| Missing { what: "the command `ip`".to_owned(), cure: "apt-get install iproute2".to_owned() })
}

fn af_xdp() -> Option<Missing> {
    let Err(error) = rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None) else { return None };
    // Without root the socket is refused, which says nothing of the kernel.
    (error == rustix::io::Errno::AFNOSUPPORT).then(|| Missing {
        what: "AF_XDP sockets in this kernel (CONFIG_XDP_SOCKETS)".to_owned(),
        cure: "boot a kernel built with CONFIG_XDP_SOCKETS=y, as those of Debian and Ubuntu are".to_owned(),
    })
}

/// Options that cannot be probed without side effects, read from the kernel's own configuration where it is
/// published; where it is not, the first use says so.
fn kernel_options() -> Vec<Missing> {
    let Some(config) = kernel_config() else { return Vec::new() };
    ["CONFIG_VETH", "CONFIG_NET_NS", "CONFIG_BPF_SYSCALL"]
        .into_iter()
        .filter(|option| !has_option(&config, option))
        .map(|option| Missing {
            what: format!("{option} in this kernel"),
            cure: format!("boot a kernel built with {option}=y or =m, as those of Debian and Ubuntu are"),
        })
        .collect()
}

fn has_option(config: &str, option: &str) -> bool {
    config.lines().any(|line| line.strip_prefix(option).is_some_and(|value| value == "=y" || value == "=m"))
}

fn kernel_config() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    if let Ok(text) = std::fs::read_to_string(format!("/boot/config-{}", release.trim())) {
        return Some(text);
    }
    let output = Command::new("gzip").args(["-dc", "/proc/config.gz"]).stderr(Stdio::null()).output();
    output.ok().filter(|output| output.status.success()).and_then(|o| String::from_utf8(o.stdout).ok())
}

/// A program that a test cannot do without.
///
/// # Errors
/// [`TestbedError::Missing`] with the package that has it.
pub fn program(name: &str, package: &str) -> Result<(), TestbedError> {
    let mut command = Command::new(name);
    command.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(TestbedError::Missing(
            Missing { what: format!("the program `{name}`"), cure: format!("apt-get install {package}") }
                .to_string(),
        )),
        _ => Ok(()),
    }
}

/// The distribution's own Python: another one knows nothing of the distribution's modules.
pub const PYTHON: &str = "/usr/bin/python3";

/// A module of [`PYTHON`] that a test cannot do without.
///
/// # Errors
/// [`TestbedError::Missing`] with the package that has it.
pub fn python_module(name: &str, package: &str) -> Result<(), TestbedError> {
    let mut command = Command::new(PYTHON);
    command
        .arg("-c")
        .arg(format!("import {name}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let missing = Missing {
        what: format!("the module `{name}` of {PYTHON}"),
        cure: format!("apt-get install {package}"),
    };
    Err(TestbedError::Missing(missing.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_counts_when_built_in_or_as_a_module() {
        let config = "CONFIG_VETH=m\n# CONFIG_NET_NS is not set\nCONFIG_NET_NS_EXTRA=y\n";
        assert!(has_option(config, "CONFIG_VETH"));
        assert!(!has_option(config, "CONFIG_NET_NS"));
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = program("no-such-program-here", "some-package").expect_err("there is none");
        assert!(error.to_string().contains("apt-get install some-package"), "{error}");
        let error = python_module("no_such_module_here", "some-package").expect_err("there is none");
        assert!(error.to_string().contains("apt-get install some-package"), "{error}");
    }
}
