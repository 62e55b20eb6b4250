//! What others count: the systems themselves, the kernel's drop counters, the core's idle states. It is asked for
//! before and after a run and not at the edges of its measured part, since asking takes time on the generator's core.

use std::time::Instant;

use anyhow::{Context, Result};
use dataplane::testbed::{Namespace, UdpCounters, VethPair};
use serde::Serialize;

use super::awake;
use super::systems::{Counters, Running};

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
        let link = link_drops(&pair.left, &pair.left_end.interface)?
            + link_drops(&pair.right, &pair.right_end.interface)?;
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

/// Packets an interface dropped, in both directions (proc_pid_net(5), `/proc/net/dev`).
fn link_drops(namespace: &Namespace, interface: &str) -> Result<u64> {
    let path = "/proc/thread-self/net/dev";
    let text =
        namespace.run(|| std::fs::read_to_string(path))?.with_context(|| format!("cannot read {path}"))?;
    drops_in(&text, interface).with_context(|| format!("{path} does not say what {interface} dropped"))
}

fn drops_in(text: &str, interface: &str) -> Option<u64> {
    let fields =
        text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let fields: Vec<u64> = fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // Received: bytes, packets, errs, drop, fifo, frame, compressed, multicast; sent: the same up to drop.
    Some(fields.get(3)? + fields.get(11)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_dropped_is_its_own() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop ...\n\
                    dpr1-1: 10 2 0 3 0 0 0 0 20 4 0 5 0 0 0 0\n dpr1-10: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(drops_in(text, "dpr1-1"), Some(8));
        assert_eq!(drops_in(text, "lo"), None);
    }
}
