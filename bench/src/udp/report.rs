//! Rows and ratios: medians over the passes, with their spread.

use std::fmt;

use serde::Serialize;

use super::LOADS;
use super::rig::Measured;
use super::systems::System;
use crate::hiccup::Gaps;
use crate::latency::{median, spread};
use crate::workload::Operation;

/// A server's core that is less busy than this was not what held the figures down.
const SATURATED: f64 = 0.95;
/// More than one missing reply in so many spoils a row. A few are the rig's own: veth's ring has 256 entries, of
/// which its consumer frees 16 at a time, so that 256 requests under way can overflow it whoever serves them.
const MISSING_SHARE: u64 = 100;
/// Requests a second of GET at saturation, over raw reflection: what is to be reached.
const GET_OVER_REFLECT_MIN: f64 = 0.80;
/// The same over memcached.
const GET_OVER_MEMCACHED_MIN: f64 = 3.0;
/// Unloaded median latency over memcached's: not more than this.
const P50_OVER_MEMCACHED_MAX: f64 = 0.6;

/// One measured slot and what it was of.
#[derive(Debug)]
pub(super) struct Sample {
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
    /// Requests under way.
    pub outstanding: usize,
    /// Replies a second.
    pub rps: f64,
    /// How far the passes lie apart: largest less smallest, over the median.
    pub rps_spread: f64,
    /// Replies a busy CPU-second, over both cores.
    pub rps_per_cpu_s: f64,
    /// Median latency, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile, in microseconds.
    pub p999_us: f64,
    /// The machine's own gaps around the slots: what one moment in a thousand lies in, in microseconds.
    pub gap_p999_us: f64,
    /// The longest of those gaps, in microseconds.
    pub gap_max_us: f64,
    /// Share of the time the server's core was busy, 0 to 1.
    pub server_busy: f64,
    /// The same of the generator's core.
    pub generator_busy: f64,
    /// The server's core had time left: the figure is a lower bound of the system's.
    pub generator_bound: bool,
    /// Replies counted, over all passes.
    pub replies: u64,
    /// Replies that were not what they had to be.
    pub wrong: u64,
    /// Requests without a reply.
    pub missing: u64,
}

/// This daemon against the others; `null` when one was left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// GET at saturation: requests a second over raw reflection's.
    pub get_over_reflect: Option<f64>,
    /// GET at saturation: requests a second over memcached's.
    pub get_over_memcached: Option<f64>,
    /// One GET at a time: median latency over memcached's.
    pub p50_over_memcached: Option<f64>,
}

/// The suite's result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One for each system, operation and number of requests under way.
    pub rows: Vec<Row>,
    /// This daemon against the others.
    pub ratios: Ratios,
}

impl Report {
    pub(super) fn new(samples: &[Sample]) -> Self {
        let mut rows = Vec::new();
        for operation in [Operation::Get, Operation::Set] {
            for outstanding in LOADS.iter().flat_map(|(_, loads)| loads.iter().copied()) {
                for system in System::ALL {
                    let of_row: Vec<&Sample> = samples
                        .iter()
                        .filter(|sample| {
                            (sample.system, sample.operation, sample.outstanding)
                                == (system, operation, outstanding)
                        })
                        .collect();
                    if !of_row.is_empty() {
                        rows.push(Row::new(system, operation, outstanding, &of_row));
                    }
                }
            }
        }
        let [(_, [unloaded, ..]), (_, [.., saturated])] = LOADS else { unreachable!("each has a load") };
        let (unloaded, saturated) = (*unloaded, *saturated);
        let ratios = Ratios {
            get_over_reflect: ratio(&rows, System::Reflect, saturated, |row| row.rps),
            get_over_memcached: ratio(&rows, System::Memcached, saturated, |row| row.rps),
            p50_over_memcached: ratio(&rows, System::Memcached, unloaded, |row| row.p50_us),
        };
        Self { rows, ratios }
    }

    /// What makes the figures worthless; nothing when all is well. A target that is missed is none.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let bad = self.rows.iter().filter(|row| row.wrong > 0 || row.missing > row.replies / MISSING_SHARE);
        bad.map(|row| {
            format!(
                "{} {} at {}: {} replies wrong, {} missing",
                row.system, row.op, row.outstanding, row.wrong, row.missing
            )
        })
        .collect()
    }
}

impl Row {
    fn new(system: System, operation: Operation, outstanding: usize, samples: &[&Sample]) -> Self {
        let figures = |figure: fn(&Measured) -> f64| -> Vec<f64> {
            samples.iter().map(|sample| figure(&sample.measured)).collect()
        };
        let of = |figure| median(&figures(figure));
        let mut gaps = Gaps::default();
        for sample in samples {
            gaps.add(&sample.gaps);
        }
        let rates = figures(|measured| measured.outcome.rate());
        let server_busy = of(|measured| measured.server_busy);
        Self {
            system: system.name(),
            op: operation.name(),
            outstanding,
            rps: median(&rates).round(),
            rps_spread: spread(&rates),
            rps_per_cpu_s: of(|measured| measured.outcome.replies as f64 / measured.cpu_s).round(),
            p50_us: of(|measured| measured.outcome.latencies.quantile_us(0.5)),
            p99_us: of(|measured| measured.outcome.latencies.quantile_us(0.99)),
            p999_us: of(|measured| measured.outcome.latencies.quantile_us(0.999)),
            gap_p999_us: gaps.quantile_us(0.999),
            gap_max_us: gaps.max_us(),
            server_busy,
            generator_busy: of(|measured| measured.generator_busy),
            generator_bound: server_busy < SATURATED,
            replies: samples.iter().map(|sample| sample.measured.outcome.replies).sum(),
            wrong: samples.iter().map(|sample| sample.measured.outcome.wrong).sum(),
            missing: samples.iter().map(|sample| sample.measured.outcome.missing).sum(),
        }
    }
}

fn ratio(rows: &[Row], other: System, outstanding: usize, figure: fn(&Row) -> f64) -> Option<f64> {
    let of = |system: System| {
        let name = system.name();
        rows.iter()
            .find(|row| (row.system, row.op, row.outstanding) == (name, "get", outstanding))
            .map(figure)
    };
    Some(of(System::Dataplane)? / of(other)?)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:<3} {:>4} {:>9} {:>7} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}",
            "system",
            "op",
            "out",
            "req/s",
            "spread",
            "req/cpu-s",
            "p50 us",
            "p99 us",
            "p99.9",
            "gap99.9",
            "gap max",
            "server",
            "gen.",
            "lost"
        )?;
        for row in &self.rows {
            // With one request under way neither side is meant to be busy all the time.
            let note = if row.generator_bound && row.outstanding > 1 { "  generator-bound" } else { "" };
            writeln!(
                f,
                "{:<10} {:<3} {:>4} {:>9.0} {:>6.1}% {:>10.0} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>5.0}% {:>5.0}% {:>6}{note}",
                row.system,
                row.op,
                row.outstanding,
                row.rps,
                row.rps_spread * 100.0,
                row.rps_per_cpu_s,
                row.p50_us,
                row.p99_us,
                row.p999_us,
                row.gap_p999_us,
                row.gap_max_us,
                row.server_busy * 100.0,
                row.generator_busy * 100.0,
                row.missing,
            )?;
        }
        let mut target =
            |name: &str, ratio: Option<f64>, sign: &str, bound: f64, reached: fn(f64, f64) -> bool| {
                let Some(ratio) = ratio else { return Ok(()) };
                let verdict = if reached(ratio, bound) { "reached" } else { "not reached" };
                writeln!(f, "{name}: {ratio:.2} (to reach: {sign} {bound:.2}; {verdict})")
            };
        let Ratios { get_over_reflect, get_over_memcached, p50_over_memcached } = self.ratios;
        let least: fn(f64, f64) -> bool = |ratio, bound| ratio >= bound;
        let most: fn(f64, f64) -> bool = |ratio, bound| ratio <= bound;
        target("GET at saturation over raw reflect", get_over_reflect, ">=", GET_OVER_REFLECT_MIN, least)?;
        target("GET at saturation over memcached", get_over_memcached, ">=", GET_OVER_MEMCACHED_MIN, least)?;
        target("unloaded p50 over memcached", p50_over_memcached, "<=", P50_OVER_MEMCACHED_MAX, most)?;
        write!(
            f,
            "server: share of the server's core that its worker and its NAPI thread were on; gen.: the same of the \
             generator; at 1 under way the sender's core runs the server's NAPI, above that a thread on the server's \
             core does; lost: requests that veth's ring or a socket's buffer had no room for"
        )
    }
}
