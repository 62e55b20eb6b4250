//! This daemon against the best peer. Systems take turns within a pass, so what else the machine did hits all of them: a
//! ratio is taken within each pass, and told with its median and its range.
//!
//! Of this daemon's two protocols the one is taken that the best peer speaks: like is compared with like.

use serde::Serialize;

use super::plan::{BASE, Case, FEW, Stage};
use super::row::{Row, Sample};
use super::systems::System;
use crate::latency::median;
use crate::streams::Dialect;
use crate::verdict::{BOTH_SIDES, Target, Verdict};

/// Past the kernel: requests a server CPU-second over the best peer's, at least.
const PER_CPU_MIN: Target = Target::AtLeast(2.0);
/// Past the kernel: 99.9th percentile at equal load over the best peer's, at most.
const P999_MAX: Target = Target::AtMost(0.5);
/// Over the kernel's sockets: requests a server CPU-second over the best peer's, at least.
const KERNEL_MIN: Target = Target::AtLeast(1.0);
/// What a request costs with most connections over what it costs with few, at most.
const MANY_MAX: Target = Target::AtMost(1.5);

/// Medians; `null` when a system was left out or could not be run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// GET, 32-byte values, 50 connections, unpipelined: requests a second of the server's CPU, past the kernel, over the
    /// best peer's.
    pub per_cpu_over_best_peer: Option<f64>,
    /// The same load at half of the best peer's peak, sent whatever the replies do: 99.9th percentile over that of the
    /// peer for which it is least.
    pub p999_over_best_peer: Option<f64>,
    /// As the first, over the kernel's sockets.
    pub kernel_over_best_peer: Option<f64>,
    /// GET past the kernel, 100 requests under way, each on the connection that has been silent longest: CPU time a request
    /// with 10 000 connections over that with 100.
    pub cost_10k_over_100: Option<f64>,
}

/// One ratio, pass by pass.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// Its key among the medians, or `None` for one that has no target.
    pub key: Option<&'static str>,
    /// What is divided by what.
    pub name: String,
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// Each pass, in order.
    pub passes: Vec<f64>,
    /// What is to be reached, if anything is.
    pub target: Option<Target>,
    /// Whether it is.
    pub verdict: Option<Verdict>,
    /// Why that is undecided.
    pub undecided: Option<String>,
}

/// What is compared.
#[derive(Clone, Copy)]
struct Side<'a> {
    samples: &'a [Sample],
    stage: Stage,
    system: System,
    dialect: Dialect,
    case: Case,
}

impl<'a> Side<'a> {
    fn samples(&self) -> Vec<&'a Sample> {
        let Self { samples, stage, system, dialect, case } = self;
        samples.iter().filter(|sample| sample.is_of(*stage, *system, *dialect, case)).collect()
    }

    fn name(&self) -> String {
        if self.system.is_peer() {
            self.system.name().to_owned()
        } else {
            format!("{} {}", self.system.name(), self.dialect.name())
        }
    }
}

const PER_CPU: &str = "per_cpu_over_best_peer";
const P999: &str = "p999_over_best_peer";
const KERNEL: &str = "kernel_over_best_peer";
const MANY: &str = "cost_10k_over_100";

/// All ratios that the samples allow; `many` is how many connections were most.
pub(super) fn ratios(samples: &[Sample], many: usize) -> Vec<Ratio> {
    let side = |stage, system, dialect, case| Side { samples, stage, system, dialect, case };
    let per_cpu: fn(&Sample) -> f64 = Sample::per_server_cpu_s;
    let p999: fn(&Sample) -> f64 = |sample| sample.figures.p999_us.unwrap_or(f64::NAN);
    let cost: fn(&Sample) -> f64 = |sample| sample.per_server_cpu_s().recip();
    let mut all = Vec::new();

    let saturating = |system, dialect| side(Stage::Saturating, system, dialect, BASE);
    if let Some(peer) = best(samples, Stage::Saturating, |sample| -per_cpu(sample)) {
        let what = "requests a server CPU-second at 50 connections";
        for (key, system, target) in
            [(PER_CPU, System::Bypass, PER_CPU_MIN), (KERNEL, System::Kernel, KERNEL_MIN)]
        {
            let ours = saturating(system, peer.dialect);
            all.extend(Ratio::new(Some((key, target)), what, ours, peer, per_cpu));
            for other in peers(samples, Stage::Saturating).filter(|other| other.system != peer.system) {
                all.extend(Ratio::new(None, what, saturating(system, other.dialect), other, per_cpu));
            }
        }
    }
    if let Some(peer) = best(samples, Stage::EqualLoad, p999) {
        let what = "p99.9 at half of the best peer's peak";
        let ours = |system| side(Stage::EqualLoad, system, peer.dialect, BASE);
        all.extend(Ratio::new(Some((P999, P999_MAX)), what, ours(System::Bypass), peer, p999));
        all.extend(Ratio::new(None, what, ours(System::Kernel), peer, p999));
    }
    for dialect in [Dialect::Memcached, Dialect::Resp] {
        let at = |connections, under_way| {
            side(Stage::Saturating, System::Bypass, dialect, Case { connections, under_way, ..BASE })
        };
        let what = format!("CPU time a request with {many} connections over that with {FEW}");
        let under_way = format!("{what}, {FEW} requests under way");
        // The first that is told has the target; both protocols have one TCP.
        let aim = (dialect == Dialect::Memcached).then_some((MANY, MANY_MAX));
        all.extend(Ratio::new(aim, &under_way, at(many, Some(FEW)), at(FEW, None), cost));
        let each = format!("{what}, one request under way on each");
        all.extend(Ratio::new(None, &each, at(many, None), at(FEW, None), cost));
    }
    all
}

impl Ratios {
    pub(super) fn of(ratios: &[Ratio]) -> Self {
        let of = |key| ratios.iter().find(|ratio| ratio.key == Some(key)).map(|ratio| ratio.median);
        Self {
            per_cpu_over_best_peer: of(PER_CPU),
            p999_over_best_peer: of(P999),
            kernel_over_best_peer: of(KERNEL),
            cost_10k_over_100: of(MANY),
        }
    }
}

/// Peers that were measured in a stage.
fn peers(samples: &[Sample], stage: Stage) -> impl Iterator<Item = Side<'_>> {
    let peers = System::ALL.into_iter().filter(|system| system.is_peer());
    peers
        .flat_map(move |system| {
            let sides = system.dialects().iter();
            sides.map(move |&dialect| Side { samples, stage, system, dialect, case: BASE })
        })
        .filter(|side| !side.samples().is_empty())
}

/// The peer whose median of a figure is least.
fn best(samples: &[Sample], stage: Stage, figure: impl Fn(&Sample) -> f64) -> Option<Side<'_>> {
    let of = |side: &Side<'_>| median(&side.samples().into_iter().map(&figure).collect::<Vec<_>>());
    peers(samples, stage).min_by(|one, other| of(one).total_cmp(&of(other)))
}

impl Ratio {
    fn new(
        aim: Option<(&'static str, Target)>,
        what: &str,
        our_side: Side<'_>,
        their_side: Side<'_>,
        figure: fn(&Sample) -> f64,
    ) -> Option<Self> {
        let (ours, theirs) = (our_side.samples(), their_side.samples());
        if ours.is_empty() || theirs.is_empty() {
            return None;
        }
        let passes: Vec<f64> = ours
            .iter()
            .filter_map(|our| {
                let their = theirs.iter().find(|their| their.pass == our.pass)?;
                Some(figure(our) / figure(their))
            })
            .collect();
        let noted = |side: &Side<'_>, samples: &[&Sample]| -> Option<String> {
            let row = Row::new(samples);
            let bounded = row.is_lower_bound() || row.disturbed || row.missing > 0;
            bounded.then(|| format!("{}: {}", side.name(), row.notes().join(", ")))
        };
        let bounded = noted(&our_side, &ours).or_else(|| noted(&their_side, &theirs));
        let target = aim.map(|(_, target)| target);
        let verdict = target.map(|target| Verdict::of(&passes, target, bounded.is_some()));
        let undecided =
            (verdict == Some(Verdict::Undecided)).then(|| bounded.unwrap_or(BOTH_SIDES.to_owned()));
        let name = if our_side.system == their_side.system {
            format!("{what}, {}", our_side.name())
        } else {
            format!("{what}, {} over {}", our_side.name(), their_side.name())
        };
        Some(Self {
            key: aim.map(|(key, _)| key),
            name,
            median: median(&passes),
            min: passes.iter().copied().fold(f64::INFINITY, f64::min),
            max: passes.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            passes,
            target,
            verdict,
            undecided,
        })
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, median, min, max, passes, target, verdict, undecided, .. } = self;
        write!(f, "{name}: {median:.2} ({min:.2} to {max:.2} in {} passes", passes.len())?;
        if let (Some(target), Some(verdict)) = (target, verdict) {
            write!(f, "; to reach: {target}; {}", verdict.told(undecided.as_deref()))?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    fn pass(number: usize, rates: [f64; 4]) -> Vec<Sample> {
        let [memcached, redis, ours, ours_resp] = rates;
        vec![
            sample(number, Stage::Saturating, System::Memcached, Dialect::Memcached, BASE, memcached),
            sample(number, Stage::Saturating, System::Redis, Dialect::Resp, BASE, redis),
            sample(number, Stage::Saturating, System::Bypass, Dialect::Memcached, BASE, ours),
            sample(number, Stage::Saturating, System::Bypass, Dialect::Resp, BASE, ours_resp),
        ]
    }

    #[test]
    fn the_best_peer_is_met_in_its_own_words_pass_by_pass() {
        let mut samples = pass(0, [100.0, 120.0, 999.0, 300.0]);
        // Everybody is half as fast: a quotient of medians would mix the passes.
        samples.extend(pass(1, [50.0, 60.0, 500.0, 150.0]));
        let all = ratios(&samples, 10_000);
        let ratio = all.iter().find(|ratio| ratio.key == Some(PER_CPU)).expect("both are there");
        assert!(ratio.passes.iter().all(|pass| (pass - 2.5).abs() < 1e-9), "{ratio:?}");
        assert_eq!(ratio.verdict, Some(Verdict::Reached));
        let medians = Ratios::of(&all);
        assert!(medians.per_cpu_over_best_peer.is_some() && medians.kernel_over_best_peer.is_none());
        assert!(all.iter().any(|ratio| ratio.key.is_none() && ratio.name.contains("over memcached")));
    }

    #[test]
    fn cost_is_the_inverse_of_the_rate() {
        let of = |connections, under_way, rate| {
            let case = Case { connections, under_way, ..BASE };
            sample(0, Stage::Saturating, System::Bypass, Dialect::Memcached, case, rate)
        };
        let all = ratios(&[of(10_000, Some(FEW), 100.0), of(FEW, None, 150.0)], 10_000);
        let cost = Ratios::of(&all).cost_10k_over_100.expect("both are there");
        assert!((cost - 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_row_that_is_a_bound_decides_nothing() {
        let mut samples = pass(0, [100.0, 120.0, 999.0, 300.0]);
        for sample in &mut samples {
            sample.times.server_busy = 0.9;
        }
        let all = ratios(&samples, 10_000);
        assert_eq!(all[0].verdict, Some(Verdict::Undecided));
        assert!(all[0].to_string().contains("not saturated"), "{}", all[0]);
    }
}
