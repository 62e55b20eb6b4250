//! The suite's result, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::plan::{Case, Extent, Stage, many};
use super::provenance::Provenance;
use super::ratios::{Ratio, Ratios, ratios};
use super::row::{Row, Sample};
use super::systems::System;
use crate::streams::Dialect;

/// What latencies are, and are not.
const LATENCY: &str =
    "closed loop, coordinated omission not corrected; equal load: open loop, from when a request was due";

/// The suite's result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One for each system, protocol and load.
    pub rows: Vec<Row>,
    /// This daemon against the best peer.
    pub ratios: Ratios,
    /// The same, pass by pass, and some more.
    pub ratio_details: Vec<Ratio>,
    /// What the latencies are.
    pub latency: &'static str,
    /// Machine, versions, parameters.
    #[serde(flatten)]
    pub provenance: Provenance,
}

impl Report {
    pub(super) fn new(samples: &[Sample], provenance: Provenance) -> Self {
        let connections = samples.iter().map(|sample| sample.case.connections).max();
        let ratio_details = ratios(samples, connections.unwrap_or(many(Extent::All)));
        let stages = [Stage::Unloaded, Stage::Saturating, Stage::EqualLoad, Stage::Stock];
        Self {
            rows: stages.into_iter().flat_map(|stage| rows(samples, stage)).collect(),
            ratios: Ratios::of(&ratio_details),
            ratio_details,
            latency: LATENCY,
            provenance,
        }
    }

    /// What makes the figures worthless; nothing when all is well. A target that is missed is none.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let bad = self.rows.iter().filter(|row| row.missing > 0 || row.replies == 0);
        bad.map(|row| {
            let Row { system, protocol, op, connections, pipeline, missing, replies, .. } = row;
            format!(
                "{system} {protocol} {op} at {connections} x {pipeline}: {missing} replies missing, {replies} there"
            )
        })
        .collect()
    }
}

/// The rows of a stage: load by load, the systems beside each other.
fn rows(samples: &[Sample], stage: Stage) -> Vec<Row> {
    let mut cases: Vec<Case> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.stage == stage) {
        if !cases.contains(&sample.case) {
            cases.push(sample.case);
        }
    }
    let mut rows = Vec::new();
    for case in &cases {
        for system in System::ALL {
            for dialect in [Dialect::Memcached, Dialect::Resp] {
                let of_row: Vec<&Sample> =
                    samples.iter().filter(|sample| sample.is_of(stage, system, dialect, case)).collect();
                if !of_row.is_empty() {
                    rows.push(Row::new(&of_row));
                }
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
        let mut stage = "";
        for row in &self.rows {
            if row.stage != stage {
                stage = row.stage;
                heading(f, stage)?;
            }
            figures(f, row)?;
        }
        writeln!(f)?;
        for ratio in &self.ratio_details {
            writeln!(f, "{ratio}")?;
        }
        write!(
            f,
            "\nLatencies: {LATENCY}. conns x pipe: open connections, and requests under way on each, at most; (n): on all \
             of them together; server cpu-s: seconds of the server's threads, of the thread that runs its NAPI and of its \
             core's ksoftirqd; server, gen.: share of their cores, the generator's polling for replies taken out; where: of the server's core, in %: NAPI, the server's \
             threads in user space and in the kernel (what they send runs the other end's NAPI as well), others. \
             not saturated: the server's core was less than 95 % busy, the rate is a lower bound; generator-bound: the \
             generator was 95 % busy instead; disturbed: over 10 % of the server's core was somebody else's"
        )
    }
}

fn heading(f: &mut fmt::Formatter<'_>, stage: &str) -> fmt::Result {
    let told = match stage {
        "unloaded" => {
            "one request under way, each server polling before it sleeps; the generator's core runs its NAPI"
        }
        "equal load" => "the same rate for all: half of the best peer's peak, sent whatever the replies do",
        "redis-benchmark" => "redis-benchmark over the kernel's sockets: what users see",
        _ => "as fast as the server's core can",
    };
    writeln!(
        f,
        "\n{stage}: {told}\n{:<9} {:<9} {:<3} {:>5} {:>14} {:>9} {:>7} {:>12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>5} \
         {:>16}",
        "system",
        "protocol",
        "op",
        "value",
        "conns x pipe",
        "req/s",
        "spread",
        "/server cpu-s",
        "p50 us",
        "p99 us",
        "p99.9",
        "gap99.9",
        "gap max",
        "server",
        "gen.",
        "where n/u/s/o"
    )
}

fn figures(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    let or_none = |figure: Option<f64>, digits: usize| {
        figure.map_or("-".to_owned(), |figure| format!("{figure:.digits$}"))
    };
    let mut load = format!("{} x {}", row.connections, row.pipeline);
    if row.under_way < row.connections * row.pipeline {
        load += &format!(" ({})", row.under_way);
    }
    let place = &row.place;
    let shares = [place.napi, place.server_user, place.server_system, place.other];
    writeln!(
        f,
        "{:<9} {:<9} {:<3} {:>5} {load:>14} {:>9.0} {:>6.1}% {:>12} {:>8.1} {:>8.1} {:>8} {:>8.1} {:>8.1} {:>6} {:>5} \
         {:>16}  {}",
        row.system,
        row.protocol,
        row.op,
        row.value_bytes,
        row.rps,
        row.rps_spread * 100.0,
        or_none(row.rps_per_server_cpu_s, 0),
        row.p50_us,
        row.p99_us,
        or_none(row.p999_us, 1),
        row.gap_p999_us,
        row.gap_max_us,
        percent(row.server_busy),
        percent(row.generator_working.unwrap_or(row.generator_busy)),
        shares.map(|share| format!("{:.0}", share * 100.0)).join("/"),
        row.notes().join(", "),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::plan::BASE;
    use super::super::rig::{Losses, Times};
    use super::super::row::Figures;
    use super::*;
    use crate::hiccup::Gaps;
    use crate::host::clocks::Where;

    /// A second with this rate and a busy server.
    pub(in super::super) fn sample(
        pass: usize,
        stage: Stage,
        system: System,
        dialect: Dialect,
        case: Case,
        rate: f64,
    ) -> Sample {
        let figures = Figures {
            replies: rate as u64,
            rate,
            p50_us: 100.0,
            p99_us: 200.0,
            p999_us: Some(300.0),
            missing: 0,
            worked: Some(0.5),
        };
        let place = Where { napi: 0.4, server_user: 0.1, server_system: 0.5, ..Where::default() };
        let times = Times { server_cpu_s: 1.0, server_busy: 1.0, generator_busy: 1.0, cpu_s: 2.0, place };
        Sample {
            pass,
            stage,
            system,
            dialect,
            case,
            offered: None,
            figures,
            times,
            losses: Losses::default(),
            gaps: Gaps::default(),
        }
    }

    fn report(samples: &[Sample]) -> Report {
        Report::new(samples, Provenance::default())
    }

    fn ours() -> Sample {
        sample(0, Stage::Saturating, System::Bypass, Dialect::Memcached, BASE, 1000.0)
    }

    #[test]
    fn json_has_the_keys_that_were_promised() {
        let json = serde_json::to_value(report(&[ours()])).expect("written");
        for key in
            "system protocol op connections pipeline rps rps_per_server_cpu_s p50_us p99_us p999_us where"
                .split(' ')
        {
            assert!(!json["rows"][0][key].is_null(), "{key}: {json}");
        }
        for key in
            ["per_cpu_over_best_peer", "p999_over_best_peer", "kernel_over_best_peer", "cost_10k_over_100"]
        {
            assert!(json["ratios"][key].is_null(), "there is nothing to compare with: {json}");
            assert!(json["ratios"].get(key).is_some(), "{key}: {json}");
        }
        for key in ["machine", "commit", "parameters", "versions", "af_xdp_mode", "latency", "unavailable"] {
            assert!(json.get(key).is_some(), "{key}: {json}");
        }
    }

    #[test]
    fn what_a_reader_has_to_know_is_told() {
        let mut sample = ours();
        assert!(!report(&[ours()]).to_string().contains("  not saturated"));
        sample.times.server_busy = 0.94;
        sample.times.place.other = 0.3;
        sample.losses.link = 7;
        let text = report(std::slice::from_ref(&sample)).to_string();
        assert!(text.contains("  not saturated, disturbed, dropped 7 + 0, sent again 0"), "{text}");
        sample.figures.worked = Some(0.97);
        assert!(report(&[sample]).to_string().contains("  generator-bound, disturbed"));
        let mut late = ours();
        late.offered = Some(2000.0);
        assert!(report(&[late]).to_string().contains("behind the load"));
    }

    #[test]
    fn missing_replies_spoil_the_figures() {
        assert_eq!(report(&[ours()]).problems(), Vec::<String>::new());
        let mut missing = ours();
        missing.figures.missing = 1;
        assert_eq!(report(&[missing]).problems().len(), 1);
    }
}
