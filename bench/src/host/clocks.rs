//! Where the time of both cores goes: readings of the kernel's clocks, and the shares between two of them.

use std::time::Instant;

use anyhow::{Context, Result};
use dataplane::testbed::cpu;
use serde::Serialize;

/// Nanoseconds of a tick of `/proc/stat` and `/proc/PID/stat`: USER_HZ is 100 on every architecture that Rust has
/// for Linux (Linux `include/asm-generic/param.h`).
const TICK_NS: u64 = 10_000_000;

/// Shares of a slot, 0 to 1, of the server's core unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Where {
    /// The thread that runs the server's NAPI: the kernel's side of every packet, XDP program included. 0 where the
    /// sender's core runs it.
    pub napi: f64,
    /// The server's own threads in user space.
    pub server_user: f64,
    /// The same in the kernel: sending, which on veth runs the other end's NAPI as well, receiving, waiting.
    pub server_system: f64,
    /// Interrupts, `ksoftirqd` and whatever else was on that core.
    pub other: f64,
    /// Nothing was.
    pub idle: f64,
    /// The daemon's worker by its own clock, preempted or not: in polls that found work; `None` for others.
    pub worker_busy: Option<f64>,
    /// In polls that found none.
    pub worker_idle: Option<f64>,
    /// Asleep.
    pub worker_asleep: Option<f64>,
    /// Nanoseconds of the daemon's XDP program a packet, from a slot of its own: counting them costs.
    pub xdp_ns_per_packet: Option<f64>,
}

/// Who is read.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) server_core: usize,
    pub(crate) generator_core: usize,
    /// Threads that run the server's NAPI.
    pub(crate) napi: Vec<u32>,
    /// The server's process, and its threads on the server's core.
    pub(crate) server: (u32, Vec<u32>),
}

/// One reading.
#[derive(Debug)]
pub(crate) struct Clocks {
    at: Instant,
    server_idle_ns: u64,
    generator_idle_ns: u64,
    napi_ns: u64,
    server_ns: u64,
    server_ticks: Ticks,
}

/// Ticks of some threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    user: u64,
    system: u64,
}

/// What lies between two readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) shares: Where,
    /// Share of the slot that the generator's core was busy.
    pub(crate) generator_busy: f64,
    /// Busy seconds of both cores.
    pub(crate) cpu_s: f64,
}

impl Clocks {
    /// Reads them now.
    pub(crate) fn read(watched: &Watched) -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let mut clocks = Self {
            at: Instant::now(),
            server_idle_ns: idle_ns(&stat, watched.server_core)?,
            generator_idle_ns: idle_ns(&stat, watched.generator_core)?,
            napi_ns: 0,
            server_ns: 0,
            server_ticks: Ticks::default(),
        };
        for &thread in &watched.napi {
            clocks.napi_ns += cpu::run_time_ns(thread)?;
        }
        let (process, threads) = &watched.server;
        for &thread in threads {
            clocks.server_ns += cpu::thread_run_time_ns(*process, thread)?;
            let path = format!("/proc/{process}/task/{thread}/stat");
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            let ticks = Ticks::of(&text).with_context(|| format!("{path} says {text:?}"))?;
            clocks.server_ticks.user += ticks.user;
            clocks.server_ticks.system += ticks.system;
        }
        Ok(clocks)
    }

    /// Seconds since an earlier reading.
    pub(crate) fn seconds_since(&self, first: &Self) -> f64 {
        (self.at - first.at).as_secs_f64()
    }

    /// What was spent since an earlier reading. A core is busy when it is not idle: with interrupts and `ksoftirqd`,
    /// which no thread's clock has.
    pub(crate) fn since(&self, first: &Self) -> Spent {
        let wall_ns = (self.at - first.at).as_nanos() as f64;
        let share = |now_ns: u64, then_ns: u64| (now_ns.saturating_sub(then_ns) as f64 / wall_ns).min(1.0);
        let idle = share(self.server_idle_ns, first.server_idle_ns);
        let generator_busy = 1.0 - share(self.generator_idle_ns, first.generator_idle_ns);
        let napi = share(self.napi_ns, first.napi_ns);
        let server = share(self.server_ns, first.server_ns);
        let ticks = Ticks {
            user: self.server_ticks.user - first.server_ticks.user,
            system: self.server_ticks.system - first.server_ticks.system,
        };
        let system = server * ticks.system_share();
        let shares = Where {
            napi,
            server_user: server - system,
            server_system: system,
            other: (1.0 - idle - napi - server).max(0.0),
            idle,
            ..Where::default()
        };
        Spent { shares, generator_busy, cpu_s: ((1.0 - idle) + generator_busy) * wall_ns / 1e9 }
    }
}

impl Ticks {
    /// Fields 14 and 15 of proc_pid_stat(5). The name before them may hold anything, brackets too.
    fn of(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
        Some(Self { user: fields.next()?.ok()?, system: fields.next()?.ok()? })
    }

    /// How much of the time was the kernel's; all of it counts as user space where there was no tick.
    fn system_share(self) -> f64 {
        self.system as f64 / (self.user + self.system).max(1) as f64
    }
}

/// Idle time of a core: `idle` and `iowait` of proc_stat(5).
fn idle_ns(stat: &str, core: usize) -> Result<u64> {
    let name = format!("cpu{core}");
    let fields: Option<Vec<u64>> = stat
        .lines()
        .find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '))
        .and_then(|line| line.split_whitespace().map(|field| field.parse().ok()).collect());
    match fields.as_deref() {
        Some([_user, _nice, _system, idle, iowait, ..]) => Ok((idle + iowait) * TICK_NS),
        _ => anyhow::bail!("/proc/stat does not say how long core {core} was idle"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cores_idle_time_is_its_own() {
        let stat = "cpu  9 9 9 9 9\ncpu1 1 2 3 40 5 6 7 8 0 0\ncpu11 1 1 1 1 1 1\nintr 1\n";
        assert_eq!(idle_ns(stat, 1).expect("there"), 45 * TICK_NS);
        idle_ns(stat, 2).expect_err("there is none");
        idle_ns("cpu2 x y z\n", 2).expect_err("no numbers");
    }

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b (c) R 1 1 1 0 -1 4194304 102 0 0 0 17 5 0 0 20 0 1 0";
        assert_eq!(Ticks::of(stat), Some(Ticks { user: 17, system: 5 }));
        assert_eq!(Ticks::of("42 (a) R 1"), None);
    }

    #[test]
    fn the_shares_of_a_core_make_up_the_whole() {
        let at = Instant::now();
        let first = Clocks {
            at,
            server_idle_ns: 0,
            generator_idle_ns: 0,
            napi_ns: 0,
            server_ns: 0,
            server_ticks: Ticks::default(),
        };
        let last = Clocks {
            at: at + Duration::from_secs(1),
            server_idle_ns: 50_000_000,
            generator_idle_ns: 250_000_000,
            napi_ns: 400_000_000,
            server_ns: 500_000_000,
            server_ticks: Ticks { user: 10, system: 30 },
        };
        let Spent { shares, generator_busy, cpu_s } = last.since(&first);
        let Where { napi, server_user, server_system, other, idle, .. } = shares;
        assert!((napi + server_user + server_system + other + idle - 1.0).abs() < 1e-9, "{shares:?}");
        assert!((server_system - 0.375).abs() < 1e-9 && (other - 0.05).abs() < 1e-9, "{shares:?}");
        assert!((generator_busy - 0.75).abs() < 1e-9 && (cpu_s - 1.7).abs() < 1e-9);
    }
}
