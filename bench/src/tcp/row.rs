//! Rows: medians over the passes, with their spread.

use serde::Serialize;

use super::plan::{Case, Stage};
use super::rig::{Losses, Times};
use super::systems::System;
use crate::hiccup::Gaps;
use crate::host::clocks::Where;
use crate::latency::{median, spread};
use crate::streams::{Dialect, Outcome};

/// A core that is less busy than this was not what held the figures down.
const SATURATED: f64 = 0.95;
/// More than this on the server's core that is neither the server nor its NAPI is somebody else's work.
const OTHER_MAX: f64 = 0.10;

/// One measured slot and what it was of.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) pass: usize,
    pub(super) stage: Stage,
    pub(super) system: System,
    pub(super) dialect: Dialect,
    pub(super) case: Case,
    /// Requests a second that were sent whatever the replies did; `None` in a closed loop.
    pub(super) offered: Option<f64>,
    pub(super) figures: Figures,
    pub(super) times: Times,
    pub(super) losses: Losses,
    pub(super) gaps: Gaps,
}

/// What one slot came to, whoever generated it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) replies: u64,
    pub(super) rate: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// `redis-benchmark` does not tell it.
    pub(super) p999_us: Option<f64>,
    pub(super) missing: u64,
    /// Share of the slot in which the generator did not just poll; nobody tells that of `redis-benchmark`.
    pub(super) worked: Option<f64>,
}

impl From<&Outcome> for Figures {
    fn from(outcome: &Outcome) -> Self {
        let quantile = |share| outcome.latencies.quantile_us(share);
        Self {
            replies: outcome.replies,
            rate: outcome.rate(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: Some(quantile(0.999)),
            missing: outcome.missing,
            worked: Some(outcome.worked.as_secs_f64() / outcome.elapsed.as_secs_f64()),
        }
    }
}

impl Sample {
    /// Replies a second of the server's time.
    pub(super) fn per_server_cpu_s(&self) -> f64 {
        self.figures.replies as f64 / self.times.server_cpu_s
    }

    /// True of samples that differ in their passes alone.
    pub(super) fn is_of(&self, stage: Stage, system: System, dialect: Dialect, case: &Case) -> bool {
        (self.stage, self.system, self.dialect, self.case) == (stage, system, dialect, *case)
    }
}

/// Medians over the passes of one system, protocol and load.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which system.
    pub system: &'static str,
    /// In whose words it was asked.
    pub protocol: &'static str,
    /// What the row shows: `unloaded`, `saturating`, `equal load` or `redis-benchmark`.
    pub stage: &'static str,
    /// `get` or `set`.
    pub op: &'static str,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// Requests under way on each connection, at most.
    pub pipeline: usize,
    /// Requests under way on all of them together, at most.
    pub under_way: usize,
    /// Requests a second that were sent whatever the replies did; `None` in a closed loop.
    pub offered_rps: Option<f64>,
    /// Replies a second.
    pub rps: f64,
    /// Least of the passes.
    pub rps_min: f64,
    /// Most of the passes.
    pub rps_max: f64,
    /// How far the passes lie apart: largest less smallest, over the median.
    pub rps_spread: f64,
    /// Replies a second of the server's threads, NAPI included; `None` where the generator's core runs that.
    pub rps_per_server_cpu_s: Option<f64>,
    /// Replies a busy CPU-second, over both cores.
    pub rps_per_cpu_s: f64,
    /// Median latency, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile, in microseconds; `redis-benchmark` does not tell it.
    pub p999_us: Option<f64>,
    /// The machine's own gaps around the slots: what one moment in a thousand lies in, in microseconds.
    pub gap_p999_us: f64,
    /// The longest of those gaps, in microseconds.
    pub gap_max_us: f64,
    /// Share of the time that the server's threads, its NAPI included, took of its core, 0 to 1.
    pub server_busy: f64,
    /// Share of the time the generator's core was busy.
    pub generator_busy: f64,
    /// Share of the time in which the generator had something to do and did not just poll for replies; `None` of
    /// `redis-benchmark`.
    pub generator_working: Option<f64>,
    /// The server had its core busy at least 95 % of the time; otherwise the rate is a lower bound of the system's.
    pub saturated: bool,
    /// It had not, and the generator's core was: more connections or a faster generator would have shown more.
    pub generator_bound: bool,
    /// Somebody else was on the server's core.
    pub disturbed: bool,
    /// Replies counted, over all passes; each was checked to the last byte, and a wrong one ends the run.
    pub replies: u64,
    /// Requests without a reply.
    pub missing: u64,
    /// What was dropped or sent again, over all passes, warm-up included.
    pub losses: Losses,
    /// Where the time of the server's core went.
    #[serde(rename = "where")]
    pub place: Where,
}

impl Row {
    /// Of samples that differ in their passes only, of which there is one at least.
    pub(super) fn new(samples: &[&Sample]) -> Self {
        let Sample { stage, system, dialect, case, .. } = *samples[0];
        let values = |figure: &dyn Fn(&Sample) -> f64| -> Vec<f64> {
            samples.iter().map(|sample| figure(sample)).collect()
        };
        let of = |figure: &dyn Fn(&Sample) -> f64| median(&values(figure));
        // A figure that one pass lacks is none.
        let of_some = |figure: &dyn Fn(&Sample) -> Option<f64>| -> Option<f64> {
            let figures: Option<Vec<f64>> = samples.iter().map(|sample| figure(sample)).collect();
            figures.map(|figures| median(&figures))
        };
        let sum = |count: &dyn Fn(&Sample) -> u64| samples.iter().map(|sample| count(sample)).sum();
        let mut gaps = Gaps::default();
        for sample in samples {
            gaps.add(&sample.gaps);
        }
        let rates = values(&|sample| sample.figures.rate);
        let server_busy = of(&|sample| sample.times.server_busy);
        let generator_busy = of(&|sample| sample.times.generator_busy);
        let generator_working = of_some(&|sample| sample.figures.worked);
        let saturated = server_busy >= SATURATED;
        Self {
            system: system.name(),
            protocol: dialect.name(),
            stage: stage.name(),
            op: case.operation.name(),
            value_bytes: case.value_bytes,
            connections: case.connections,
            pipeline: case.pipeline,
            under_way: case.under_way(),
            offered_rps: of_some(&|sample| sample.offered).map(f64::round),
            rps: median(&rates).round(),
            rps_min: rates.iter().copied().fold(f64::INFINITY, f64::min).round(),
            rps_max: rates.iter().copied().fold(f64::NEG_INFINITY, f64::max).round(),
            rps_spread: spread(&rates),
            rps_per_server_cpu_s: (stage != Stage::Unloaded).then(|| of(&Sample::per_server_cpu_s).round()),
            rps_per_cpu_s: of(&|sample| sample.figures.replies as f64 / sample.times.cpu_s).round(),
            p50_us: of(&|sample| sample.figures.p50_us),
            p99_us: of(&|sample| sample.figures.p99_us),
            p999_us: of_some(&|sample| sample.figures.p999_us),
            gap_p999_us: gaps.quantile_us(0.999),
            gap_max_us: gaps.max_us(),
            server_busy,
            generator_busy,
            generator_working,
            saturated,
            generator_bound: !saturated && generator_working.unwrap_or(generator_busy) >= SATURATED,
            disturbed: of(&|sample| sample.times.place.other) > OTHER_MAX,
            replies: sum(&|sample| sample.figures.replies),
            missing: sum(&|sample| sample.figures.missing),
            losses: Losses {
                link: sum(&|sample| sample.losses.link),
                daemon: sum(&|sample| sample.losses.daemon),
                sent_again: sum(&|sample| sample.losses.sent_again),
            },
            place: Where {
                napi: of(&|sample| sample.times.place.napi),
                server_user: of(&|sample| sample.times.place.server_user),
                server_system: of(&|sample| sample.times.place.server_system),
                other: of(&|sample| sample.times.place.other),
                idle: of(&|sample| sample.times.place.idle),
                ..Where::default()
            },
        }
    }

    /// Meant to be as fast as the server's core can be, and not shown to be.
    pub(super) fn is_lower_bound(&self) -> bool {
        let meant = [Stage::Saturating, Stage::Stock].iter().any(|stage| stage.name() == self.stage);
        meant && !self.saturated
    }

    /// What a reader has to know of it.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.generator_bound {
            notes.push("generator-bound".to_owned());
        } else if self.is_lower_bound() {
            notes.push("not saturated".to_owned());
        }
        if self.disturbed {
            notes.push("disturbed".to_owned());
        }
        if self.offered_rps.is_some_and(|offered| self.rps < 0.98 * offered) {
            notes.push("behind the load".to_owned());
        }
        let Losses { link, daemon, sent_again } = self.losses;
        if link + daemon + sent_again > 0 {
            notes.push(format!("dropped {link} + {daemon}, sent again {sent_again}"));
        }
        notes
    }
}
