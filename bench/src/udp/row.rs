//! Rows: medians over the passes, with their spread.

use serde::Serialize;

use super::rig::Measured;
use super::settings::Stage;
use super::survey::Drops;
use super::systems::System;
use crate::hiccup::Gaps;
use crate::host::clocks::Where;
use crate::latency::{median, spread};
use crate::workload::Operation;

/// A server's core that is less busy than this was not what held the figures down.
const SATURATED: f64 = 0.95;
/// More than this on the server's core that is neither the server nor its NAPI is somebody else's work: the core was
/// busy, but not with what is measured. Interrupts and `ksoftirqd` alone are a few percent.
const OTHER_MAX: f64 = 0.10;
/// With fewer requests under way than this share of what was asked for, a row is not of what it says.
const FILLED: f64 = 0.95;

/// One measured slot and what it was of.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) pass: usize,
    pub(super) stage: Stage,
    pub(super) spin_us: u32,
    pub(super) system: System,
    pub(super) operation: Operation,
    pub(super) outstanding: usize,
    pub(super) measured: Measured,
    pub(super) gaps: Gaps,
}

/// Medians over the passes of one system, operation and number of requests under way.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which system.
    pub system: &'static str,
    /// `get` or `set`.
    pub op: &'static str,
    /// Requests under way, as asked for.
    pub outstanding: usize,
    /// How long the server polls before it sleeps, in microseconds.
    pub spin_us: u32,
    /// Replies a second.
    pub rps: f64,
    /// Least of the passes.
    pub rps_min: f64,
    /// Most of the passes.
    pub rps_max: f64,
    /// How far the passes lie apart: largest less smallest, over the median.
    pub rps_spread: f64,
    /// Replies a busy CPU-second, over both cores.
    pub rps_per_cpu_s: f64,
    /// Median latency, in microseconds.
    pub p50_us: f64,
    /// Its spread over the passes, as that of the rate.
    pub p50_spread: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile, in microseconds.
    pub p999_us: f64,
    /// The machine's own gaps around the slots: what one moment in a thousand lies in, in microseconds.
    pub gap_p999_us: f64,
    /// The longest of those gaps, in microseconds.
    pub gap_max_us: f64,
    /// Share of the time the server's core was busy, 0 to 1: not idle, and not polling for nothing; `None` when that
    /// polling is not counted.
    pub server_busy: Option<f64>,
    /// The same of the generator's core, which polls for its replies.
    pub generator_busy: f64,
    /// Share of the time the server's core was halted; `None` when the kernel does not count that.
    pub server_halted: Option<f64>,
    /// It is not shown that the server's core had no time left: the figure is a lower bound of the system's.
    pub generator_bound: bool,
    /// Requests under way on average, by rate and mean latency.
    pub under_way_mean: f64,
    /// That is less than 95 % of what was asked for: requests were lost, or could not be sent.
    pub under_filled: bool,
    /// Somebody else was on the server's core.
    pub disturbed: bool,
    /// Replies counted, over all passes.
    pub replies: u64,
    /// Replies that were not what they had to be.
    pub wrong: u64,
    /// Requests without a reply.
    pub missing: u64,
    /// Replies after they had been given up.
    pub late: u64,
    /// What was counted as dropped, over all passes, warm-up included: what the missing can be set against.
    pub drops: Drops,
    /// Where the time of the server's core went.
    #[serde(rename = "where")]
    pub place: Where,
}

impl Row {
    /// Of samples that differ in their passes only, of which there is one at least.
    pub(super) fn new(samples: &[&Sample]) -> Self {
        let Sample { system, operation, outstanding, spin_us, .. } = *samples[0];
        let figures = |figure: fn(&Measured) -> f64| -> Vec<f64> {
            samples.iter().map(|sample| figure(&sample.measured)).collect()
        };
        let of = |figure| median(&figures(figure));
        // A figure that one pass lacks is none.
        let of_some = |figure: fn(&Measured) -> Option<f64>| -> Option<f64> {
            let figures: Option<Vec<f64>> = samples.iter().map(|sample| figure(&sample.measured)).collect();
            figures.map(|figures| median(&figures))
        };
        let sum = |count: fn(&Measured) -> u64| samples.iter().map(|sample| count(&sample.measured)).sum();
        let mut gaps = Gaps::default();
        for sample in samples {
            gaps.add(&sample.gaps);
        }
        let rates = figures(|measured| measured.outcome.rate());
        let server_busy = of_some(|measured| measured.server_busy);
        let under_way_mean = of(|measured| measured.outcome.under_way_mean());
        Self {
            system: system.name(),
            op: operation.name(),
            outstanding,
            spin_us,
            rps: median(&rates).round(),
            rps_min: rates.iter().copied().fold(f64::INFINITY, f64::min).round(),
            rps_max: rates.iter().copied().fold(f64::NEG_INFINITY, f64::max).round(),
            rps_spread: spread(&rates),
            rps_per_cpu_s: of(|measured| measured.outcome.replies as f64 / measured.cpu_s).round(),
            p50_us: of(|measured| measured.outcome.latencies.quantile_us(0.5)),
            p50_spread: spread(&figures(|measured| measured.outcome.latencies.quantile_us(0.5))),
            p99_us: of(|measured| measured.outcome.latencies.quantile_us(0.99)),
            p999_us: of(|measured| measured.outcome.latencies.quantile_us(0.999)),
            gap_p999_us: gaps.quantile_us(0.999),
            gap_max_us: gaps.max_us(),
            server_busy,
            generator_busy: of(|measured| measured.generator_busy),
            server_halted: of_some(|measured| measured.server_halted),
            generator_bound: server_busy.is_none_or(|busy| busy < SATURATED),
            under_way_mean,
            under_filled: under_way_mean < FILLED * outstanding as f64,
            disturbed: of(|measured| measured.place.other) > OTHER_MAX,
            replies: sum(|measured| measured.outcome.replies),
            wrong: sum(|measured| measured.outcome.wrong),
            missing: sum(|measured| measured.outcome.missing),
            late: sum(|measured| measured.outcome.late),
            drops: Drops {
                link: sum(|measured| measured.drops.link),
                kernel_udp: sum(|measured| measured.drops.kernel_udp),
                daemon: sum(|measured| measured.drops.daemon),
            },
            place: Where {
                napi: of(|measured| measured.place.napi),
                server_user: of(|measured| measured.place.server_user),
                server_system: of(|measured| measured.place.server_system),
                other: of(|measured| measured.place.other),
                idle: of(|measured| measured.place.idle),
                worker_busy: of_some(|measured| measured.place.worker_busy),
                worker_idle: of_some(|measured| measured.place.worker_idle),
                worker_asleep: of_some(|measured| measured.place.worker_asleep),
                xdp_ns_per_packet: of_some(|measured| measured.place.xdp_ns_per_packet),
            },
        }
    }

    /// What a reader has to know of it. With one request under way neither side is meant to be busy all the time.
    pub(super) fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if self.outstanding > 1 && self.generator_bound {
            notes.push("generator-bound");
        }
        if self.outstanding > 1 && self.under_filled {
            notes.push("under-filled");
        }
        if self.outstanding > 1 && self.disturbed {
            notes.push("disturbed");
        }
        notes
    }
}
