//! What others count: the systems themselves, the kernel's drop counters, the core's idle states. It is asked for
//! before and after a run and not at the edges of its measured part, since asking takes time on the generator's core.

use std::time::Instant;

use anyhow::Result;
use dataplane::testbed::{UdpCounters, VethPair};
use serde::Serialize;

use super::systems::{Counters, Running};
use crate::host::{awake, link};

/// Packets that somebody counted as dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// By veth, either end, either direction: a ring was full.
    pub link: u64,
    /// By the server's kernel UDP stack: a socket's buffer was full.
    pub kernel_udp: u64,
    /// By the daemon, for any reason.
    pub daemon: u64,
}

impl Drops {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.link + self.kernel_udp + self.daemon
    }
}

/// What others count, at one moment.
pub(super) struct Survey {
    at: Instant,
    halted_us: Option<u64>,
    counters: Counters,
    drops: Drops,
}

/// Shares of the time between two surveys, and what was dropped in it.
pub(super) struct Around {
    pub(super) spun: Option<f64>,
    pub(super) halted: Option<f64>,
    /// Busy, idle and asleep.
    pub(super) worker: Option<[f64; 3]>,
    pub(super) drops: Drops,
}

impl Survey {
    /// Asks all of them.
    pub(super) fn make(running: &mut Running, pair: &VethPair, server_core: usize) -> Result<Self> {
        let counters = running.counters(&pair.right)?;
        let link = link::drops(&pair.left, &pair.left_end.interface)?
            + link::drops(&pair.right, &pair.right_end.interface)?;
        let kernel_udp = UdpCounters::read(&pair.right)?.in_errors;
        Ok(Self {
            at: Instant::now(),
            halted_us: awake::halted_us(server_core),
            counters,
            drops: Drops { link, kernel_udp, daemon: counters.drops },
        })
    }

    pub(super) fn since(&self, first: &Self) -> Around {
        let wall_ns = (self.at - first.at).as_nanos() as f64;
        let share = |now_ns: u64, then_ns: u64| now_ns.saturating_sub(then_ns) as f64 / wall_ns;
        let both = |now: Option<u64>, then: Option<u64>| Some((now?, then?));
        let spun = both(self.counters.spun_ns, first.counters.spun_ns);
        let halted = both(self.halted_us, first.halted_us);
        let worker = self.counters.worker.zip(first.counters.worker);
        Around {
            spun: spun.map(|(now, then)| share(now, then)),
            halted: halted.map(|(now, then)| share(now * 1_000, then * 1_000)),
            worker: worker.map(|(now, then)| {
                let (busy, idle) = (share(now.busy_ns, then.busy_ns), share(now.idle_ns, then.idle_ns));
                [busy, idle, (1.0 - busy - idle).max(0.0)]
            }),
            drops: Drops {
                link: self.drops.link.saturating_sub(first.drops.link),
                kernel_udp: self.drops.kernel_udp.saturating_sub(first.drops.kernel_udp),
                daemon: self.drops.daemon.saturating_sub(first.drops.daemon),
            },
        }
    }
}
