//! `setup`: installs what is missing. Run again, it does nothing.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::packages::{BENCH, BUILD, DEMO, EBPF_DEBIAN, EBPF_NIGHTLY, Package, TEST, find_program};

/// The versions that are known to work.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
const BPF_LINKER_VERSION: &str = "0.13.0";

/// What a machine is made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Building the daemon.
    Build,
    /// The demo.
    Demo,
    /// The benchmarks.
    Bench,
    /// Building the XDP program.
    Ebpf,
    /// Every test.
    Test,
    /// All of these.
    All,
}

impl Profile {
    fn packages(self) -> Vec<&'static Package> {
        let lists: &[&[Package]] = match self {
            Self::Build => &[BUILD],
            Self::Demo => &[BUILD, DEMO],
            Self::Bench => &[BUILD, DEMO, BENCH],
            Self::Ebpf => &[],
            Self::Test | Self::All => &[BUILD, DEMO, BENCH, TEST],
        };
        lists.iter().copied().flatten().collect()
    }

    const fn with_ebpf(self) -> bool {
        matches!(self, Self::Ebpf | Self::Test | Self::All)
    }

    const fn with_fuzzing(self) -> bool {
        matches!(self, Self::Test | Self::All)
    }
}

/// Installs what `profile` lacks; says nothing when it lacks nothing.
pub(crate) fn run(profile: Profile) -> Result<()> {
    install_packages(&profile.packages())?;
    if profile.with_ebpf() {
        ebpf_toolchain()?;
    }
    if profile.with_fuzzing() && !find_program("cargo-fuzz") {
        let why = "runs the fuzz targets of packet parser and codec";
        cargo_install("cargo-fuzz", why, &["--version", CARGO_FUZZ_VERSION], &[])?;
    }
    Ok(())
}

/// Says so before a long build, not after it.
pub(crate) fn require_root(why: &str) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("procfs names no user")?;
    // Real, effective, saved, file system (proc_pid_status(5)).
    ensure!(uids.split_whitespace().nth(1) == Some("0"), missing_root(why));
    Ok(())
}

/// Debian's and Ubuntu's sudo resets PATH (`secure_path` in sudoers(5)) even with -E, and cargo is then not found.
fn missing_root(why: &str) -> String {
    format!(
        "missing: root, for {why}\n   cure: run the same command behind `sudo -E env \"PATH=$PATH\"`, which keeps the \
         Rust toolchain in PATH"
    )
}

fn install_packages(packages: &[&Package]) -> Result<()> {
    let debian = find_program("apt-get") && find_program("dpkg-query");
    let present = |package: &Package| if debian { is_installed(package.name) } else { package.proof.holds() };
    let mut missing: Vec<&Package> = Vec::new();
    for package in packages {
        if !missing.iter().any(|other| other.name == package.name) && !present(package) {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        missing.iter().map(|package| format!("  {:<14} {}", package.name, package.why)).collect();
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !debian {
        bail!(
            "this distribution has no apt; install these with its own package manager (the names are \
             Debian's), then run the command again:\n{}",
            lines.join("\n")
        );
    }
    eprintln!("installing:\n{}", lines.join("\n"));
    let cure = format!("sudo apt-get install -y {}", names.join(" "));
    // A fresh machine has no package lists, or old ones.
    apt_get(&["update", "-qq"], &cure)?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&names);
    let services: Vec<&str> = SERVICES.iter().copied().filter(|name| names.contains(name)).collect();
    if services.is_empty() {
        return apt_get(&arguments, &cure);
    }
    let quiet = NoServices::enter(Path::new(POLICY))?;
    let installed = apt_get(&arguments, &cure);
    drop(quiet);
    installed?;
    services.into_iter().try_for_each(keep_from_starting)
}

/// Packages whose services are not wanted: tests and measurements run them in namespaces of their own.
const SERVICES: [&str; 2] = ["memcached", "redis-server"];
/// What a package asks before it starts its service (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While this lives, packages that are installed do not start their services.
struct NoServices {
    /// The policy that forbids it, where it is ours to take away.
    ours: Option<PathBuf>,
}

impl NoServices {
    fn enter(policy: &Path) -> Result<Self> {
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(policy);
        match made {
            Ok(mut file) => {
                let ours = Self { ours: Some(policy.to_owned()) };
                // 101: an action that is forbidden.
                file.write_all(b"#!/bin/sh\nexit 101\n")
                    .with_context(|| format!("cannot write {}", policy.display()))?;
                Ok(ours)
            }
            // Whoever made it has a policy already; containers have this very one.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { ours: None }),
            Err(error) => {
                Err(error).with_context(|| format!("cannot make {}; is this root?", policy.display()))
            }
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let Some(policy) = &self.ours else { return };
        if let Err(error) = std::fs::remove_file(policy) {
            let policy = policy.display();
            eprintln!("{policy} stays behind and keeps services from starting; remove it: {error}");
        }
    }
}

/// A service that came with a package just now is not started by the next boot either.
fn keep_from_starting(service: &str) -> Result<()> {
    let (program, arguments): (&str, [&str; 2]) = if find_program("systemctl") {
        ("systemctl", ["disable", service])
    } else {
        ("update-rc.d", [service, "disable"])
    };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    if output.is_ok_and(|output| output.status.success()) {
        eprintln!("its service {service} is disabled: only the program is needed");
    } else {
        eprintln!(
            "the service {service} will be started by the next boot; to keep it from that: {program} {}",
            arguments.join(" ")
        );
    }
    Ok(())
}

fn apt_get(arguments: &[&str], cure: &str) -> Result<()> {
    let output = Command::new("apt-get")
        // A machine that has just been started is often at its own updates.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    bail!("apt-get {} failed:\n{}\nwith root, run: {cure}", arguments.join(" "), said.trim());
}

fn is_installed(name: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", name]).output();
    output.is_ok_and(|output| output.stdout == b"installed")
}

/// True when this distribution's archive has the package.
fn is_offered(name: &str) -> bool {
    // Without apt there is no such command, and nothing is offered.
    let output = Command::new("apt-cache").args(["policy", name]).env("LC_ALL", "C").output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("Candidate:") && !text.contains("Candidate: (none)")
    })
}

/// The compiler and linker of the XDP program: rustup's nightly where it has its library's source already, else the
/// Rust that Debian packages with its source and the LLVM to match, else nightly after all.
fn ebpf_toolchain() -> Result<()> {
    let debian = !has_nightly_source() && (is_installed("rustc-web") || is_offered("rustc-web"));
    if debian {
        install_packages(&EBPF_DEBIAN.iter().collect::<Vec<_>>())?;
    } else {
        install_packages(&EBPF_NIGHTLY.iter().collect::<Vec<_>>())?;
        nightly_with_source()?;
    }
    if find_program("bpf-linker") {
        return Ok(());
    }
    let why = "links the XDP program";
    if debian {
        let features = ["--version", BPF_LINKER_VERSION, "--no-default-features", "--features", "llvm-22"];
        cargo_install("bpf-linker", why, &features, &[("LLVM_PREFIX", "/usr/lib/llvm-22")])
    } else {
        // Nightly's LLVM moves on, and the newest linker goes with it.
        cargo_install("bpf-linker", why, &[], &[])
    }
}

fn has_nightly_source() -> bool {
    let output = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    output.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        output.status.success() && source.is_file()
    })
}

fn nightly_with_source() -> Result<()> {
    if has_nightly_source() {
        return Ok(());
    }
    eprintln!("installing:\n  Rust nightly with rust-src   compiles the XDP program");
    let status = Command::new("rustup")
        .args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"])
        .status()
        .context("cannot run rustup, which is needed to build the XDP program; see https://rustup.rs")?;
    if !status.success() {
        bail!("rustup could not install nightly with rust-src ({status})");
    }
    Ok(())
}

fn cargo_install(name: &str, why: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("building from source, which takes some minutes:\n  {name:<14} {why}");
    let status = cargo::cargo()
        .args(["install", "--locked", name])
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo install")?;
    if !status.success() {
        bail!("cargo install {name} failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_for_missing_root_keeps_the_toolchain() {
        let text = missing_root("the tests");
        assert!(text.contains("for the tests") && text.contains("sudo -E env \"PATH=$PATH\""), "{text}");
    }

    #[test]
    fn services_are_kept_from_starting_and_a_policy_that_was_there_stays() {
        let policy = std::env::temp_dir().join(format!("dp-policy-{}", std::process::id()));
        let quiet = NoServices::enter(&policy).expect("made");
        let status = Command::new("sh").arg(&policy).args(["memcached", "start"]).status().expect("it runs");
        assert_eq!(status.code(), Some(101));
        drop(NoServices::enter(&policy).expect("there is one"));
        assert!(policy.exists(), "somebody else's");
        drop(quiet);
        assert!(!policy.exists());
    }

    #[test]
    fn what_tests_call_is_installed_for_them() {
        let packages = Profile::Test.packages();
        for name in ["iproute2", "memcached", "ethtool", "util-linux", "g++"] {
            assert!(packages.iter().any(|package| package.name == name), "{name}");
        }
    }
}
