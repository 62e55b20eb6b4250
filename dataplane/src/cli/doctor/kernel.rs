//! What the kernel can do.

use std::fs;
use std::path::Path;

use dataplane::config::{Attachment, Config, ListenerTransport};
use dataplane::transport::kernel::Kernel;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::report::{Finding, Verdict};

/// Multi-buffer XDP (`xdp.frags`) came with 5.18; everything else that is needed is older.
const VERSION_MIN: (u32, u32) = (5, 18);
/// `BPF_FS_MAGIC` (Linux `include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Where bpffs is by convention.
const BPF_FS: &str = "/sys/fs/bpf";

pub(super) fn examine(config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![version(), af_xdp(), btf(), jit()];
    findings.push(bpffs(config));
    findings.push(io_uring(config));
    findings
}

/// What ordinary sockets are served through.
fn io_uring(config: Option<&Config>) -> Finding {
    let Err(error) = Kernel::probe() else {
        return Finding::good("io_uring", "ordinary sockets can be served");
    };
    let needed = |config: &Config| {
        config.listeners.iter().any(|listener| listener.transport == ListenerTransport::Kernel)
    };
    let verdict = if config.is_some_and(needed) { Verdict::Lacking } else { Verdict::Note };
    Finding::with_command(
        verdict,
        "io_uring",
        error.to_string(),
        Some("sysctl -w kernel.io_uring_disabled=0".to_owned()),
    )
}

fn version() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version >= VERSION_MIN => Finding::good("kernel", format!("Linux {release}")),
        _ => Finding::with_command(
            Verdict::Lacking,
            "kernel",
            format!("Linux {release} is older than {}.{}", VERSION_MIN.0, VERSION_MIN.1),
            distribution_kernel(),
        ),
    }
}

/// The command that installs the distribution's newest kernel, which has all that is needed; `None` on one that is not
/// known here.
fn distribution_kernel() -> Option<String> {
    kernel_package(&fs::read_to_string("/etc/os-release").ok()?)
}

/// The same, by the text of `/etc/os-release`.
fn kernel_package(release: &str) -> Option<String> {
    let value = |key: &str| {
        let mut values = release.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.next().map(|value| value.trim_matches('"'))
    };
    let package = match (value("ID")?, value("VERSION_ID")) {
        ("debian", _) => "linux-image-$(dpkg --print-architecture)".to_owned(),
        ("ubuntu", Some(version)) => format!("linux-image-generic-hwe-{version}"),
        _ => return None,
    };
    Some(format!("apt-get install {package}   # then reboot"))
}

/// Major and minor of a release such as `6.1.0-18-amd64`.
pub(super) fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn af_xdp() -> Finding {
    let family = AddressFamily::from_raw(libc::AF_XDP as libc::sa_family_t);
    match rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => Finding::good("AF_XDP", "a socket can be made"),
        Err(Errno::AFNOSUPPORT) => Finding::with_command(
            Verdict::Lacking,
            "AF_XDP",
            "this kernel was built without CONFIG_XDP_SOCKETS, which those of the distributions have",
            distribution_kernel(),
        ),
        Err(Errno::PERM | Errno::ACCESS) => {
            Finding::note("AF_XDP", "cannot tell without CAP_NET_RAW; run doctor as root")
        }
        Err(error) => Finding::without_command(
            Verdict::Lacking,
            "AF_XDP",
            format!("the kernel gives no socket: {error}"),
        ),
    }
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Finding::good("BTF", "/sys/kernel/btf/vmlinux is there")
    } else {
        Finding::with_command(
            Verdict::Advice,
            "BTF",
            "the kernel has no type information (CONFIG_DEBUG_INFO_BTF): it runs, but bpftool shows map contents as \
             bytes only",
            distribution_kernel(),
        )
    }
}

fn jit() -> Finding {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) if text.trim() == "0" => Finding::advice(
            "BPF JIT",
            "is off: the XDP program is interpreted, at several times the cost a packet",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Finding::good("BPF JIT", "is on"),
        // Network namespaces other than the first do not show it, and kernels with the JIT always on need not.
        Err(_) => Finding::note("BPF JIT", "cannot tell from this network namespace"),
    }
}

fn bpffs(config: Option<&Config>) -> Finding {
    let is_mounted = rustix::fs::statfs(BPF_FS).is_ok_and(|about| about.f_type as u64 == BPF_FS_MAGIC);
    let adopts = config.is_some_and(|config| {
        config.interfaces.iter().any(|interface| interface.attachment == Attachment::Adopted)
    });
    let command = format!("mount -t bpf bpf {BPF_FS}");
    match (is_mounted, adopts) {
        (true, _) => Finding::good("bpffs", format!("is mounted on {BPF_FS}")),
        (false, true) => {
            Finding::lacking("bpffs", "is not mounted: there is nothing to adopt from or pin to", command)
        }
        (false, false) => Finding::note(
            "bpffs",
            format!("is not mounted; attachment = \"adopted\" would need it ({command})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.18"), Some((5, 18)));
        assert_eq!(parse_release("6.18.5+"), Some((6, 18)));
        assert_eq!(parse_release("unknown"), None);
    }

    #[test]
    fn the_kernel_of_the_distribution_is_named() {
        let debian = kernel_package("NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n");
        assert!(debian.expect("is known").contains("linux-image-$(dpkg"));
        let ubuntu = kernel_package("ID=ubuntu\nVERSION_ID=\"22.04\"\nID_LIKE=debian\n");
        assert!(ubuntu.expect("is known").contains("linux-image-generic-hwe-22.04"));
        assert_eq!(kernel_package("ID=other\n"), None);
    }

    #[test]
    fn this_kernel_passes() {
        assert!((VERSION_MIN..).contains(&parse_release("6.18").expect("a release")));
        assert_eq!(version().verdict, Verdict::Good);
    }
}
