//! The test bed: network namespaces, veth pairs and child processes, for tests, the demo and the benchmarks.
//!
//! Everything here is a guard: dropping it takes away what it made. Names of namespaces and directories carry
//! the process id, so that what a killed run left behind is found and swept by the next one; and
//! [`signals::catch`] lets a program leave by its guards on Ctrl-C too.
//!
//! | module | what it owns |
//! |---|---|
//! | [`requirements`] | what this host lacks, and the cure |
//! | [`namespace`] | a network namespace, and running things in it |
//! | [`veth`] | two namespaces joined by a veth pair |
//! | [`ethtool`] | offloads of an interface (`SIOCETHTOOL`) |
//! | [`napi`] | threaded NAPI, pinned to a core |
//! | [`counters`] | the kernel's UDP counters of a namespace |
//! | [`wire`] | a wire between two namespaces that loses frames |
//! | `bpf` | BPF programs assembled by hand, and their maps |
//! | [`redirect`] | the smallest XDP program that feeds an AF_XDP socket |
//! | [`child`] | a child process that never outlives its guard |
//! | [`daemon`] | the daemon itself, in a namespace |
//! | [`cpu`] | pinning, and CPU time by `schedstat` |
//! | [`signals`] | Ctrl-C and SIGTERM as a flag |

mod bpf;
pub mod child;
pub mod counters;
pub mod cpu;
pub mod daemon;
mod directory;
pub mod ethtool;
pub mod namespace;
pub mod napi;
pub mod redirect;
pub mod requirements;
pub mod signals;
pub mod veth;
pub mod wire;

pub use child::ChildGuard;
pub use counters::UdpCounters;
pub use daemon::Daemon;
pub use directory::TemporaryDirectory;
pub use namespace::Namespace;
pub use veth::{VethEnd, VethPair};
pub use wire::Wire;

use std::time::{Duration, Instant};

/// Why the test bed could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TestbedError {
    /// The host lacks something; the text says what, and what to do.
    #[error("{0}")]
    Missing(String),
    /// A command failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// The kernel or the file system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {waited:?}{detail}")]
    Deadline {
        /// The condition.
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// What is known about why, starting with its own separator.
        detail: String,
    },
    /// A child process ended though it was still needed.
    #[error("{name} ended ({status}){output}")]
    Died {
        /// The program.
        name: String,
        /// How it ended.
        status: String,
        /// Its last words, starting with their own separator.
        output: String,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl TestbedError {
    /// For `map_err`: names what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Waits until `condition` gives a value. Looks again every millisecond: what is waited for happens in other
/// processes and gives no notice.
///
/// # Errors
/// [`TestbedError::Deadline`] after `limit`, [`TestbedError::Interrupted`] on a signal, or the condition's own.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, TestbedError>,
) -> Result<T, TestbedError> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if signals::caught() {
            return Err(TestbedError::Interrupted);
        }
        if start.elapsed() > limit {
            return Err(TestbedError::Deadline {
                what: what.to_owned(),
                waited: limit,
                detail: String::new(),
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
