//! The systems compared, each started on the server's side of the rig.

use anyhow::Result;
use dataplane::testbed::redirect::Redirect;
use dataplane::testbed::{ChildGuard, Daemon, Namespace, cpu};

use crate::generator::{Expect, Reflector};
use crate::host::sysctl::Sysctl;

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
    /// memcached, and the kernel's busy polling where it is on.
    Memcached(ChildGuard, Option<Sysctl>),
}

/// What a system counts by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    /// Nanoseconds of polling without work; `None` where nobody counts them.
    pub(super) spun_ns: Option<u64>,
    /// The daemon's worker by its own clock.
    pub(super) worker: Option<WorkerTime>,
    /// Packets and requests it dropped.
    pub(super) drops: u64,
}

/// Nanoseconds of a worker in polls. It books a sleep when it wakes, so that one from before would count as well:
/// what is left of the time it was asleep.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerTime {
    pub(super) busy_ns: u64,
    pub(super) idle_ns: u64,
}

impl Running {
    pub(super) fn system(&self) -> System {
        match self {
            Self::Reflect(..) => System::Reflect,
            Self::Dataplane(_) => System::Dataplane,
            Self::Memcached(..) => System::Memcached,
        }
    }

    /// Its process, and its threads that are pinned to the server's core.
    pub(super) fn threads(&mut self, core: usize) -> Result<(u32, Vec<u32>)> {
        let process = match self {
            Self::Reflect(reflector, _) => return Ok((std::process::id(), vec![reflector.thread_id()])),
            Self::Dataplane(daemon) => daemon.child().pid(),
            Self::Memcached(child, _) => child.pid(),
        };
        Ok((process, cpu::threads_pinned_to(process, core)?))
    }

    /// What it has counted so far. Not for the measured part of a slot: asking the daemon costs the generator's core.
    pub(super) fn counters(&mut self, namespace: &Namespace) -> Result<Counters> {
        Ok(match self {
            Self::Reflect(reflector, _) => {
                Counters { spun_ns: Some(reflector.spun_ns()), ..Counters::default() }
            }
            Self::Dataplane(daemon) => {
                let workers = daemon.status(namespace)?.workers;
                let sum = |figure: fn(&dataplane::control::status::WorkerStatus) -> u64| {
                    workers.iter().map(figure).sum::<u64>()
                };
                let idle_ns = sum(|worker| worker.idle_ns);
                Counters {
                    spun_ns: Some(idle_ns),
                    worker: Some(WorkerTime { busy_ns: sum(|worker| worker.busy_ns), idle_ns }),
                    drops: sum(|worker| worker.drops.values().sum()),
                }
            }
            // What it polls, the kernel polls for it, and does not count.
            Self::Memcached(_, polling) => {
                Counters { spun_ns: polling.is_none().then_some(0), ..Counters::default() }
            }
        })
    }

    /// How the daemon's XDP program and sockets run: `native, copy`.
    pub(super) fn mode(&mut self, namespace: &Namespace) -> Result<Option<String>> {
        let Self::Dataplane(daemon) = self else { return Ok(None) };
        let status = daemon.status(namespace)?;
        let queue = status.queues.first();
        Ok(queue.map(|queue| format!("{}, {}", queue.xdp_mode, queue.copy_mode)))
    }

    /// What it printed, for an error that needs it.
    pub(super) fn last_words(&mut self) -> String {
        let output = match self {
            Self::Reflect(..) => return String::new(),
            Self::Dataplane(daemon) => daemon.child().output(),
            Self::Memcached(child, _) => child.output(),
        };
        format!("; it said:\n{}", output.trim_end())
    }

    pub(super) fn stop(self) -> Result<()> {
        match self {
            Self::Reflect(reflector, _redirect) => reflector.stop(),
            Self::Dataplane(daemon) => Ok(daemon.stop().map(|_| ())?),
            Self::Memcached(mut child, _polling) => {
                child.kill();
                Ok(())
            }
        }
    }
}
