//! What can go wrong with steering, in the operator's terms.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use caps::Capability;

use super::AttachedMode;
use super::inspect::Foreign;
use crate::config::DaemonConfig;
use crate::privileges::lacks;

/// Why the XDP program cannot be loaded, attached, adopted or fed.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// The kernel refused for want of privilege.
    #[error("{action} was not permitted: {}", explain_permission(.missing))]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// Capabilities this process lacks.
        missing: Vec<Capability>,
    },
    /// There is no such interface in this network namespace.
    #[error("there is no interface {interface} in this network namespace; `ip link` lists those there are")]
    NoInterface {
        /// Interface name.
        interface: String,
    },
    /// Somebody else's XDP program, or another daemon's, is attached.
    #[error("another XDP program is already attached to {interface}: {foreign}")]
    Foreign {
        /// Interface name.
        interface: String,
        /// Whose.
        foreign: Foreign,
    },
    /// Native mode was asked for and the driver refuses.
    #[error(
        "{interface} cannot run XDP in native mode: {source}; choose mode = \"generic\" or \"auto\", or make its \
         driver fit (lower the MTU, free a queue for each CPU, turn LRO off: `ethtool -K {interface} lro off`)"
    )]
    NativeUnsupported {
        /// Interface name.
        interface: String,
        /// What the driver said.
        source: io::Error,
    },
    /// Neither mode works.
    #[error("the XDP program cannot be attached to {interface}: {source}")]
    Attach {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object cannot be read.
    #[error("the eBPF object {path} (from DATAPLANE_EBPF_OBJECT) cannot be read: {source}")]
    Object {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The object lacks a part.
    #[error(
        "the eBPF object has no {what}; it belongs to another version: rebuild it with `cargo xtask build-ebpf`"
    )]
    Incomplete {
        /// Program or map.
        what: &'static str,
    },
    /// The kernel does not accept the object.
    #[error("the kernel does not accept the XDP program: {}", full_text(.0))]
    Load(#[source] Box<aya::EbpfError>),
    /// The program's verification or loading failed.
    #[error("the kernel does not accept the XDP program: {}", full_text(.0))]
    Program(#[source] Box<aya::programs::ProgramError>),
    /// A map cannot be read or written.
    #[error("map {map} of the XDP program: {}", full_text(.source))]
    Map {
        /// Which.
        map: &'static str,
        /// What the kernel said.
        source: Box<aya::maps::MapError>,
    },
    /// A map cannot be mapped into memory.
    #[error("map {map} of the XDP program cannot be mapped into memory: {source}")]
    Mapping {
        /// Which.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The queue is beyond what the program feeds.
    #[error("queue {queue} is beyond the {limit} queues the XDP program feeds", limit = crate::limits::QUEUES_MAX)]
    NoQueue {
        /// Queue number.
        queue: u32,
    },
    /// A service nobody may use, or everybody by mistake.
    #[error("service {service}: {problem}")]
    Service {
        /// Protocol and port.
        service: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Two rules claim the same address and port.
    #[error("two services claim {protocol} port {port} on {}", .address.map_or("any address".to_owned(), |a| a.to_string()))]
    Duplicate {
        /// Protocol.
        protocol: &'static str,
        /// Port.
        port: u16,
        /// Address; `None` is any.
        address: Option<IpAddr>,
    },
    /// More than a map holds.
    #[error(
        "{wanted} {what} are more than the {limit} the XDP program holds (while they change, old and new count)"
    )]
    TooMany {
        /// Services or sources.
        what: &'static str,
        /// How many it would take.
        wanted: usize,
        /// How many there may be.
        limit: u32,
    },
    /// Nothing is pinned for the interface.
    #[error(
        "no steering program is pinned for {interface} under {directory}; pin one with `{}`, or let the daemon attach \
         its own (attachment = \"owned\")",
        command("load", .interface, .directory)
    )]
    NotLoaded {
        /// Interface name.
        interface: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// One is pinned already.
    #[error(
        "a steering program is pinned for {interface} under {directory} already; `{}` removes it",
        command("unload", .interface, .directory)
    )]
    AlreadyLoaded {
        /// Interface name.
        interface: String,
        /// Where it is pinned.
        directory: PathBuf,
    },
    /// Another process holds what is pinned.
    #[error(
        "another daemon holds the steering program at {path}; stop it first (`fuser -v {path}` names it)"
    )]
    Held {
        /// Where.
        path: PathBuf,
    },
    /// What is pinned was made by another version.
    #[error(
        "the steering program pinned for {interface} under {directory} has map layout {found}, this daemon needs \
         {needed}; replace it: `{}`, then `{}` (its traffic goes to the kernel meanwhile)",
        command("unload", .interface, .directory), command("load", .interface, .directory),
        found = .found.map_or("unknown".to_owned(), |version| version.to_string())
    )]
    Layout {
        /// Interface name.
        interface: String,
        /// Where it is pinned.
        directory: PathBuf,
        /// Version found; `None` when there is none to be read.
        found: Option<u32>,
        /// Version of this daemon.
        needed: u32,
    },
    /// What is pinned no longer belongs to the interface.
    #[error(
        "the steering program pinned for {interface} under {directory} is not attached to it any more: the interface was \
         removed and made again since, or the link detached; `{}`, then `{}`",
        command("unload", .interface, .directory), command("load", .interface, .directory)
    )]
    Detached {
        /// Interface name.
        interface: String,
        /// Where it is pinned.
        directory: PathBuf,
    },
    /// What is pinned runs in another mode than the one that was named.
    #[error(
        "the steering program pinned for {interface} runs in {attached} mode, and mode = \"{wanted}\" was asked for; \
         load it anew: `{}`, then `{} --mode {wanted}`, or choose mode = \"auto\" or \"{attached}\"",
        command("unload", .interface, .directory), command("load", .interface, .directory)
    )]
    ModeDiffers {
        /// Interface name.
        interface: String,
        /// Where it is pinned.
        directory: PathBuf,
        /// How it runs.
        attached: AttachedMode,
        /// How it was to run.
        wanted: AttachedMode,
    },
    /// The name cannot be a folder under the pin directory.
    #[error("{interface:?} is no interface name")]
    BadName {
        /// What was given.
        interface: String,
    },
    /// What would be pinned would go with the command.
    #[error(
        "there is no bpffs at {directory} in this mount namespace, and one mounted here would go with this command, and \
         with it what is pinned; `ip netns exec` does that: enter the network namespace alone, with `nsenter \
         --net=/run/netns/NAME dataplane steer load ...`"
    )]
    PrivateMount {
        /// Where it was to be pinned.
        directory: PathBuf,
    },
    /// A pin, a folder or the mount failed.
    #[error("{action} {path}: {source}")]
    Pin {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel could not be asked.
    #[error("{action} failed: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The program's log cannot be read.
    #[error("the XDP program's log cannot be read: {0}")]
    Log(String),
}

/// The command line that mends something: `dataplane steer load` or `unload`, for an interface pinned there.
pub(super) fn command(action: &str, interface: &str, directory: &Path) -> String {
    let mut line = format!("dataplane steer {action} --interface {interface}");
    if directory != DaemonConfig::default().pin_directory {
        line.push_str(&format!(" --pin-directory {}", directory.display()));
    }
    line
}

/// Capabilities that loading and attaching take (Linux `capabilities(7)`).
const NEEDED: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];

impl SteerError {
    /// A failed call: want of privilege is told apart and explained.
    pub(super) fn kernel(action: &'static str, source: io::Error) -> Self {
        match not_permitted(action, &source) {
            Some(error) => error,
            None => Self::Kernel { action, source },
        }
    }

    /// A failed call on a path.
    pub(super) fn pin(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        match not_permitted(action, &source) {
            Some(error) => error,
            None => Self::Pin { action, path: path.into(), source },
        }
    }

    /// This host's addresses could not be asked for.
    pub(crate) fn addresses(source: io::Error) -> Self {
        Self::Kernel { action: "asking for this host's addresses", source }
    }

    /// A failed map call.
    pub(super) fn map(map: &'static str, source: aya::maps::MapError) -> Self {
        match system_error(&source).and_then(|source| not_permitted("using a map of the XDP program", source))
        {
            Some(error) => error,
            None => Self::Map { map, source: Box::new(source) },
        }
    }
}

impl From<aya::EbpfError> for SteerError {
    fn from(error: aya::EbpfError) -> Self {
        match system_error(&error).and_then(|source| not_permitted("loading the XDP program", source)) {
            Some(error) => error,
            None => Self::Load(Box::new(error)),
        }
    }
}

impl From<aya::programs::ProgramError> for SteerError {
    fn from(error: aya::programs::ProgramError) -> Self {
        match system_error(&error).and_then(|source| not_permitted("loading the XDP program", source)) {
            Some(error) => error,
            None => Self::Program(Box::new(error)),
        }
    }
}

/// What became of loading: whatever went wrong there while a capability is missing, the capability comes first. aya asks
/// the kernel what it can do before it loads anything, and takes "not permitted" for "cannot": the error that follows
/// from that names neither.
pub(super) fn loading<T>(result: Result<T, SteerError>) -> Result<T, SteerError> {
    result.map_err(|error| match missing_capabilities() {
        missing if missing.is_empty() => error,
        missing => SteerError::NotPermitted { action: "loading the XDP program", missing },
    })
}

fn not_permitted(action: &'static str, source: &io::Error) -> Option<SteerError> {
    let missing = missing_capabilities();
    match source.raw_os_error() {
        Some(libc::EPERM) => Some(SteerError::NotPermitted { action, missing }),
        // The verifier's refusal: of a broken program, or of one that only the privileged may load.
        Some(libc::EACCES) if !missing.is_empty() => Some(SteerError::NotPermitted { action, missing }),
        _ => None,
    }
}

/// The system's own error at the bottom of an error.
fn system_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn missing_capabilities() -> Vec<Capability> {
    NEEDED.into_iter().filter(|&needed| lacks(needed)).collect()
}

fn explain_permission(missing: &[Capability]) -> String {
    if missing.is_empty() {
        return "this process has the capabilities it takes, so something else forbids it: a container's seccomp \
                profile, a user namespace, or lockdown (`cat /sys/kernel/security/lockdown`)"
            .to_owned();
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let list = names.join(" and ");
    format!(
        "this process lacks {list}; run it as root, or give its systemd unit `AmbientCapabilities={}`",
        names.join(" ")
    )
}

/// An error with all it was caused by; aya keeps the telling part at the bottom.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_privilege_is_told_apart_from_other_failures() {
        let error = SteerError::kernel("attaching", io::Error::from_raw_os_error(libc::EPERM));
        assert!(matches!(error, SteerError::NotPermitted { .. }), "{error}");
        let error = SteerError::kernel("attaching", io::Error::from_raw_os_error(libc::EINVAL));
        assert!(matches!(error, SteerError::Kernel { .. }), "{error}");
    }

    #[test]
    fn missing_capabilities_are_named() {
        let text = explain_permission(&[Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        assert!(text.contains("CAP_BPF and CAP_NET_ADMIN"), "{text}");
        assert!(text.contains("AmbientCapabilities=CAP_BPF CAP_NET_ADMIN"), "{text}");
        assert!(explain_permission(&[]).contains("lockdown"));
    }
}
