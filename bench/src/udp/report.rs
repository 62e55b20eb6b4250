//! The suite's result, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::provenance::Provenance;
use super::ratios::{Details, Ratios};
use super::row::{Row, Sample};
use super::settings::Stage;
use super::systems::System;
use crate::workload::Operation;

/// More than one missing reply in so many spoils a row. A few are the rig's own: veth's ring has 256 entries, of
/// which its consumer frees 16 at a time, so that 256 requests under way can overflow it whoever serves them.
const MISSING_SHARE: u64 = 100;
/// What latencies are, and are not.
const LATENCY: &str = "closed loop; coordinated omission not corrected";

/// The suite's result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One for each system, operation and number of requests under way.
    pub rows: Vec<Row>,
    /// The unloaded rows of GET with servers that sleep at once.
    pub rows_without_spin: Vec<Row>,
    /// This daemon against the others.
    pub ratios: Ratios,
    /// The same, pass by pass.
    pub ratio_details: Details,
    /// What the latencies are.
    pub latency: &'static str,
    /// Machine, versions, parameters.
    #[serde(flatten)]
    pub provenance: Provenance,
}

impl Report {
    pub(super) fn new(samples: &[Sample], provenance: Provenance) -> Self {
        let ratio_details = Details::new(samples);
        let mut rows = rows(samples, Stage::Unloaded);
        rows.extend(self::rows(samples, Stage::Saturating));
        // GET first, then by requests under way; the sort is stable and leaves the systems in their order.
        rows.sort_by_key(|row| (row.op, row.outstanding));
        Self {
            rows,
            rows_without_spin: self::rows(samples, Stage::UnloadedWithoutSpin),
            ratios: ratio_details.medians(),
            ratio_details,
            latency: LATENCY,
            provenance,
        }
    }

    /// What makes the figures worthless; nothing when all is well. A target that is missed is none.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let all = self.rows.iter().chain(&self.rows_without_spin);
        let bad = all.filter(|row| row.wrong > 0 || row.missing > row.replies / MISSING_SHARE);
        bad.map(|row| {
            format!(
                "{} {} at {}: {} replies wrong, {} missing of {} ({} drops were counted)",
                row.system,
                row.op,
                row.outstanding,
                row.wrong,
                row.missing,
                row.replies,
                row.drops.sum()
            )
        })
        .collect()
    }
}

/// The rows of a stage, in order of systems.
fn rows(samples: &[Sample], stage: Stage) -> Vec<Row> {
    let mut kinds: Vec<(Operation, usize)> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.stage == stage) {
        let kind = (sample.operation, sample.outstanding);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut rows = Vec::new();
    for (operation, outstanding) in kinds {
        for system in System::ALL {
            let of_row: Vec<&Sample> = samples
                .iter()
                .filter(|sample| sample.stage == stage && sample.system == system)
                .filter(|sample| (sample.operation, sample.outstanding) == (operation, outstanding))
                .collect();
            if !of_row.is_empty() {
                rows.push(Row::new(&of_row));
            }
        }
    }
    rows
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.provenance)?;
        for warning in self.provenance.warnings() {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(
            f,
            "\n{:<10} {:<3} {:>4} {:>6} {:>9} {:>7} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}",
            "system",
            "op",
            "out",
            "mean",
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
            figures(f, row)?;
        }
        if !self.rows_without_spin.is_empty() {
            writeln!(f, "one request under way, servers that sleep at once:")?;
        }
        for row in &self.rows_without_spin {
            figures(f, row)?;
        }
        writeln!(
            f,
            "\nwhere the time of the server's core went, in % (the worker's by its own clock, preempted or not):\n\
             {:<10} {:<3} {:>4} {:>6} {:>6} {:>6} {:>6} {:>6} {:>20} {:>8} {:>20}",
            "system",
            "op",
            "out",
            "NAPI",
            "user",
            "system",
            "other",
            "idle",
            "worker b/idle/asleep",
            "XDP ns",
            "lost: link/UDP/daemon"
        )?;
        for row in self.rows.iter().filter(|row| row.outstanding > 1) {
            places(f, row)?;
        }
        writeln!(f)?;
        for ratio in self.ratio_details.all() {
            writeln!(f, "{ratio}")?;
        }
        write!(
            f,
            "\nLatencies: {LATENCY}. out, mean: requests under way, asked for and on average; spread: of the passes; \
             server, gen.: share of their cores that was not idle, a server's polling for nothing taken out; at 1 under \
             way the generator's core runs the server's NAPI, above that a thread on the server's core does; lost: \
             requests without a reply, below them who counted a drop (warm-up included). generator-bound: it is not \
             shown that the server's core was 95 % busy; under-filled: less than 95 % of the requests were under way on \
             average; disturbed: over 10 % of the server's core was somebody else's; late: replies after 100 ms, in no other figure"
        )
    }
}

fn figures(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let mut notes: Vec<String> = row.notes().into_iter().map(str::to_owned).collect();
    if row.late > 0 {
        notes.push(format!("{} late", row.late));
    }
    let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0}%", share * 100.0));
    writeln!(
        f,
        "{:<10} {:<3} {:>4} {:>6.1} {:>9.0} {:>6.1}% {:>10.0} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>6} {:>6} {:>6}  {}",
        row.system,
        row.op,
        row.outstanding,
        row.under_way_mean,
        row.rps,
        row.rps_spread * 100.0,
        row.rps_per_cpu_s,
        row.p50_us,
        row.p99_us,
        row.p999_us,
        row.gap_p999_us,
        row.gap_max_us,
        share(row.server_busy),
        share(Some(row.generator_busy)),
        row.missing,
        notes.join(", "),
    )
}

fn places(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let place = &row.place;
    let percent = |share: f64| share * 100.0;
    let worker = match (place.worker_busy, place.worker_idle, place.worker_asleep) {
        (Some(busy), Some(idle), Some(asleep)) => {
            format!("{:.0} / {:.0} / {:.0}", percent(busy), percent(idle), percent(asleep))
        }
        _ => "-".to_owned(),
    };
    let xdp = place.xdp_ns_per_packet.map_or("-".to_owned(), |cost| format!("{cost:.0}"));
    let drops = format!("{} / {} / {}", row.drops.link, row.drops.kernel_udp, row.drops.daemon);
    writeln!(
        f,
        "{:<10} {:<3} {:>4} {:>6.1} {:>6.1} {:>6.1} {:>6.1} {:>6.1} {worker:>20} {xdp:>8} {drops:>20}",
        row.system,
        row.op,
        row.outstanding,
        percent(place.napi),
        percent(place.server_user),
        percent(place.server_system),
        percent(place.other),
        percent(place.idle),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::rig::Measured;
    use super::super::survey::Drops;
    use super::*;
    use crate::generator::Outcome;
    use crate::hiccup::Gaps;
    use crate::host::clocks::Where;
    use crate::latency::Latencies;

    /// A sample of GET at saturation with this rate, that many requests under way and a busy server.
    pub(in super::super) fn sample(pass: usize, system: System, outstanding: usize, rate: f64) -> Sample {
        let replies = rate as u64;
        let latency = Duration::from_secs_f64(outstanding as f64 / rate);
        let mut latencies = Latencies::new();
        latencies.record_many(latency, replies);
        let outcome = Outcome {
            replies,
            elapsed: Duration::from_secs(1),
            latencies,
            latency_sum: latency * replies as u32,
            ..Outcome::default()
        };
        let measured = Measured {
            outcome,
            server_busy: Some(1.0),
            generator_busy: 1.0,
            server_halted: None,
            cpu_s: 2.0,
            place: Where { napi: 0.4, server_user: 0.1, server_system: 0.5, ..Where::default() },
            drops: Drops::default(),
        };
        Sample {
            pass,
            stage: Stage::Saturating,
            spin_us: 0,
            system,
            operation: Operation::Get,
            outstanding,
            measured,
            gaps: Gaps::default(),
        }
    }

    fn report(samples: &[Sample]) -> Report {
        Report::new(samples, Provenance::default())
    }

    #[test]
    fn json_has_the_keys_that_were_promised() {
        let json =
            serde_json::to_value(report(&[sample(0, System::Dataplane, 256, 1000.0)])).expect("written");
        for key in "system op outstanding rps rps_per_cpu_s p50_us p99_us p999_us where".split(' ') {
            assert!(!json["rows"][0][key].is_null(), "{key}: {json}");
        }
        for key in ["get_over_reflect", "get_over_memcached", "p50_over_memcached"] {
            assert!(json["ratios"][key].is_null(), "there is nothing to compare with: {json}");
            assert!(json["ratios"].get(key).is_some(), "{key}: {json}");
        }
        for key in ["machine", "commit", "parameters", "memcached", "af_xdp_mode", "latency"] {
            assert!(json.get(key).is_some(), "{key}: {json}");
        }
    }

    #[test]
    fn a_row_with_too_few_requests_under_way_says_so() {
        let mut samples =
            [sample(0, System::Memcached, 256, 1000.0), sample(1, System::Memcached, 256, 1000.0)];
        assert!(!report(&samples).to_string().contains("  under-filled"));
        for sample in &mut samples {
            sample.measured.outcome.latency_sum /= 2;
        }
        let report = report(&samples);
        assert!(report.rows[0].under_filled && (report.rows[0].under_way_mean - 128.0).abs() < 0.1);
        assert!(report.to_string().contains("  under-filled"), "{report}");
    }

    #[test]
    fn a_server_that_is_not_shown_to_be_busy_is_no_saturated_one() {
        for (busy, bound) in [(Some(0.96), false), (Some(0.94), true), (None, true)] {
            let mut sample = sample(0, System::Dataplane, 64, 1000.0);
            sample.measured.server_busy = busy;
            let report = report(&[sample]);
            assert_eq!(report.rows[0].generator_bound, bound, "{busy:?}");
            assert_eq!(report.to_string().contains("  generator-bound"), bound, "{busy:?}");
        }
    }

    #[test]
    fn a_core_that_somebody_else_was_on_is_told() {
        let mut sample = sample(0, System::Dataplane, 64, 1000.0);
        sample.measured.place.other = 0.3;
        let report = report(&[sample]);
        assert!(report.rows[0].disturbed && report.to_string().contains("  disturbed"), "{report}");
    }

    #[test]
    fn wrong_replies_and_many_missing_ones_spoil_the_figures() {
        let mut wrong = sample(0, System::Dataplane, 64, 1000.0);
        wrong.measured.outcome.wrong = 1;
        let mut missing = sample(0, System::Reflect, 64, 1000.0);
        missing.measured.outcome.missing = 11;
        let mut few = sample(0, System::Memcached, 64, 1000.0);
        few.measured.outcome.missing = 10;
        assert_eq!(report(&[wrong, missing, few]).problems().len(), 2);
    }
}
