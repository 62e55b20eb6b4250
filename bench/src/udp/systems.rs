//! The systems compared, each started on the server's side of the rig.

use anyhow::Result;
use dataplane::testbed::redirect::Redirect;
use dataplane::testbed::{ChildGuard, Daemon, cpu};

use crate::generator::{Expect, Reflector};

/// One of the systems compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// Raw AF_XDP: the same frames turned round in place. What nothing can be faster than.
    Reflect,
    /// This daemon.
    Dataplane,
    /// `memcached -t 1 -U`.
    Memcached,
}

impl System {
    /// Each of them, in the order of the first pass.
    pub const ALL: [Self; 3] = [Self::Reflect, Self::Dataplane, Self::Memcached];

    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reflect => "reflect",
            Self::Dataplane => "dataplane",
            Self::Memcached => "memcached",
        }
    }

    pub(super) const fn expect(self) -> Expect {
        match self {
            Self::Reflect => Expect::Echo,
            Self::Dataplane | Self::Memcached => Expect::Answer,
        }
    }
}

/// A system that runs. Dropping it ends it.
#[derive(Debug)]
pub(super) enum Running {
    /// The reflector's thread, and the XDP program that feeds it.
    Reflect(Reflector, Redirect),
    /// The daemon.
    Dataplane(Daemon),
    /// memcached.
    Memcached(ChildGuard),
}

impl Running {
    pub(super) fn system(&self) -> System {
        match self {
            Self::Reflect(..) => System::Reflect,
            Self::Dataplane(_) => System::Dataplane,
            Self::Memcached(_) => System::Memcached,
        }
    }

    /// CPU time of its threads: those pinned to the server's core, and all others.
    pub(super) fn run_time_ns(&mut self, core: usize) -> Result<ServerTime> {
        let pid = match self {
            Self::Reflect(reflector, _) => {
                let pinned_ns = cpu::thread_run_time_ns(std::process::id(), reflector.thread_id())?;
                return Ok(ServerTime { pinned_ns, other_ns: 0 });
            }
            Self::Dataplane(daemon) => daemon.child().pid(),
            Self::Memcached(child) => child.pid(),
        };
        let all_ns = cpu::run_time_ns(pid)?;
        let mut pinned_ns = 0;
        for thread in cpu::threads_pinned_to(pid, core)? {
            pinned_ns += cpu::thread_run_time_ns(pid, thread)?;
        }
        Ok(ServerTime { pinned_ns, other_ns: all_ns.saturating_sub(pinned_ns) })
    }

    /// What it printed, for an error that needs it.
    pub(super) fn last_words(&mut self) -> String {
        let output = match self {
            Self::Reflect(..) => return String::new(),
            Self::Dataplane(daemon) => daemon.child().output(),
            Self::Memcached(child) => child.output(),
        };
        format!("; it said:\n{}", output.trim_end())
    }

    pub(super) fn stop(self) -> Result<()> {
        match self {
            Self::Reflect(reflector, _redirect) => reflector.stop(),
            Self::Dataplane(daemon) => Ok(daemon.stop().map(|_| ())?),
            Self::Memcached(mut child) => {
                child.kill();
                Ok(())
            }
        }
    }
}

/// CPU time of a server's threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerTime {
    pub(super) pinned_ns: u64,
    pub(super) other_ns: u64,
}
