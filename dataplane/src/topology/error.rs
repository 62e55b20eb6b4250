//! Why a host cannot be read, and why no plan can be made for it.

use std::fmt;
use std::path::PathBuf;

/// Why the host's cores or NICs cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// hwloc gave no topology.
    #[error("cannot read this host's topology: {0}")]
    Hwloc(String),
    /// The kernel did not say which cores this process may use.
    #[error("cannot read which cores this process may run on: {0}")]
    Affinity(std::io::Error),
    /// The kernel's list of NICs cannot be read.
    #[error("cannot read {path}: {source}")]
    Sysfs {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// One reason why no plan can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The NIC is not there.
    #[error("there is no interface {name}; this host has {}", list(known))]
    NoInterface {
        /// The name in the configuration.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The NIC has fewer queues.
    #[error(
        "{interface} has no queue {queue}: it has {count}, counted from 0; to add some: \
         ethtool -L {interface} combined {}", queue + 1
    )]
    NoQueue {
        /// The NIC.
        interface: String,
        /// The queue in the configuration.
        queue: u32,
        /// Queues it has.
        count: u32,
    },
    /// The queue has no partner to send by.
    #[error(
        "{interface}: queue {queue} only receives, and a reply leaves by the queue its request came in on; the first \
         {count} do both (ethtool -L {interface} rx {count} tx {count} keeps packets off the others)"
    )]
    ReceiveOnly {
        /// The NIC.
        interface: String,
        /// The queue in the configuration.
        queue: u32,
        /// Queues that do both.
        count: u32,
    },
    /// More queues than one XDP program feeds.
    #[error(
        "{count} queues are more than the {max} one daemon serves; name those to serve in interface.queues"
    )]
    TooManyQueues {
        /// Queues there are.
        count: usize,
        /// Queues there may be.
        max: usize,
    },
    /// The core is not there.
    #[error("{key}: there is no core {core}; this host has {}", ranges(known))]
    NoCore {
        /// The key that names it.
        key: &'static str,
        /// The core.
        core: usize,
        /// Those there are.
        known: Vec<usize>,
    },
    /// The core is offline, or a cgroup or affinity mask keeps this process off it.
    #[error("{key}: core {core} is offline or not this process's to use; it may use {}", ranges(usable))]
    CoreNotUsable {
        /// The key that names it.
        key: &'static str,
        /// The core.
        core: usize,
        /// Those it may use.
        usable: Vec<usize>,
    },
    /// More workers were named than there are queues to feed them.
    #[error(
        "workers.cores names {cores} cores, but only {queues} queues are served: a worker without a queue would \
         get no packet; name fewer cores or add queues (ethtool -L)"
    )]
    WorkersWithoutQueue {
        /// Cores named.
        cores: usize,
        /// Queues there are.
        queues: usize,
    },
    /// The housekeeping cores leave no core for a worker.
    #[error("daemon.housekeeping_cores takes every core this process may use; leave one for a worker")]
    NoCoreLeft,
}

/// Every reason why no plan can be made. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanErrors(pub Vec<PlanError>);

impl fmt::Display for PlanErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanErrors {}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Sorted core numbers as the kernel writes them: `0-3,8`.
pub(super) fn ranges(cores: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => parts.push((core, core)),
        }
    }
    let write = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.into_iter().map(write).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cores_are_written_as_the_kernel_writes_them() {
        assert_eq!(super::ranges(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(super::ranges(&[5]), "5");
        assert_eq!(super::ranges(&[]), "none");
    }
}
