//! The machine's own gaps: how long a core that has nothing else to do is taken away from a thread that does
//! nothing but read the clock. Latencies below these say nothing about what is measured.
//!
//! With as many cores as the measured system needs there is none to spare, so the gaps are measured in slots of
//! their own between the others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use dataplane::testbed::{cpu, signals};

use crate::latency::Latencies;

/// Two readings of the clock further apart than this are a gap.
const GAP_MIN: Duration = Duration::from_micros(1);

/// Gaps seen.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    /// One entry for each microsecond watched: how long the gap around it was (0 where there was none). So its
    /// quantiles are what a request that comes at any moment meets.
    by_time: Latencies,
}

impl Gaps {
    /// Watches some cores at the same time for a while; a caught signal ends it early.
    ///
    /// # Errors
    /// When a core cannot be used.
    pub fn watch(cores: &[usize], length: Duration) -> Result<Self> {
        let mut all = Self::default();
        let watched: Vec<Result<Self>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                cores.iter().map(|&core| scope.spawn(move || Self::watch_core(core, length))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a watching thread panicked"))?)
                .collect()
        });
        for gaps in watched {
            all.by_time.add(&gaps.context("watch a core's gaps")?.by_time);
        }
        Ok(all)
    }

    /// Adds another watch.
    pub fn add(&mut self, other: &Self) {
        self.by_time.add(&other.by_time);
    }

    /// The gap that a moment chosen at random lies in, in microseconds, for a share of all moments.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.by_time.quantile_us(share)
    }

    /// The longest, in microseconds.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        self.by_time.max_us()
    }

    fn watch_core(core: usize, length: Duration) -> Result<Self> {
        cpu::pin_this_thread(core)?;
        let mut gaps = Self::default();
        let start = Instant::now();
        let mut last = start;
        let mut lost = Duration::ZERO;
        while last - start < length && !signals::caught() {
            let now = Instant::now();
            let gap = now - last;
            if gap >= GAP_MIN {
                gaps.by_time.record_many(gap, gap.as_micros() as u64);
                lost += gap;
            }
            last = now;
        }
        let free = (last - start).saturating_sub(lost);
        gaps.by_time.record_many(Duration::ZERO, free.as_micros() as u64);
        Ok(gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_microsecond_watched_is_accounted_for() {
        let cores = cpu::usable_cores();
        let gaps = Gaps::watch(&cores[..1], Duration::from_millis(20)).expect("watched");
        let watched_us = gaps.by_time.count();
        assert!((19_000..200_000).contains(&watched_us), "{watched_us}");
        assert!(gaps.quantile_us(0.5) <= gaps.max_us());
    }
}
