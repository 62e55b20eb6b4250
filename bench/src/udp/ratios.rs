//! This daemon against the others. Systems take turns within a pass, so what else the machine did hits all of them:
//! a ratio is taken within each pass, and told with its median and its range.

use serde::Serialize;

use super::row::{Row, Sample};
use super::settings::Stage;
use super::systems::System;
use crate::latency::median;
use crate::verdict::{BOTH_SIDES, Target, Verdict};
use crate::workload::Operation;

/// Requests a second of GET at saturation, over raw reflection: what is to be reached.
const GET_OVER_REFLECT_MIN: f64 = 0.80;
/// The same over memcached.
const GET_OVER_MEMCACHED_MIN: f64 = 3.0;
/// Unloaded median latency over memcached's: not more than this.
const P50_OVER_MEMCACHED_MAX: f64 = 0.6;

/// Medians; `null` when a system was left out, or the setting was not measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// GET at saturation: requests a second over raw reflection's, each at the number of requests under way that is its
    /// best.
    pub get_over_reflect: Option<f64>,
    /// The same over memcached's.
    pub get_over_memcached: Option<f64>,
    /// One GET at a time: median latency over memcached's, with servers that poll as long as the daemon does by
    /// default, or as was asked for.
    pub p50_over_memcached: Option<f64>,
    /// The same with servers that sleep at once.
    pub p50_over_memcached_without_spin: Option<f64>,
}

/// The same with what they were made of.
#[derive(Clone, Debug, Serialize)]
pub struct Details {
    /// See [`Ratios::get_over_reflect`].
    pub get_over_reflect: Option<Ratio>,
    /// See [`Ratios::get_over_memcached`].
    pub get_over_memcached: Option<Ratio>,
    /// See [`Ratios::p50_over_memcached`].
    pub p50_over_memcached: Option<Ratio>,
    /// See [`Ratios::p50_over_memcached_without_spin`].
    pub p50_over_memcached_without_spin: Option<Ratio>,
}

/// One ratio, pass by pass.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// What is divided by what.
    pub name: &'static str,
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// Each pass, in order.
    pub passes: Vec<f64>,
    /// Requests under way: the daemon's, and the other's.
    pub outstanding: [usize; 2],
    /// What is to be reached.
    pub target: Target,
    /// Whether it is.
    pub verdict: Verdict,
    /// Why that is undecided.
    pub undecided: Option<String>,
}

impl Details {
    pub(super) fn new(samples: &[Sample]) -> Self {
        let rate = |sample: &Sample| sample.measured.outcome.rate();
        let p50 = |sample: &Sample| sample.measured.outcome.latencies.quantile_us(0.5);
        let against = |other, stage, figure: fn(&Sample) -> f64, target, name| {
            Ratio::new(samples, other, stage, figure, target, name)
        };
        let least = Target::AtLeast;
        let most = Target::AtMost(P50_OVER_MEMCACHED_MAX);
        Self {
            get_over_reflect: against(
                System::Reflect,
                Stage::Saturating,
                rate,
                least(GET_OVER_REFLECT_MIN),
                "GET at saturation over raw reflection",
            ),
            get_over_memcached: against(
                System::Memcached,
                Stage::Saturating,
                rate,
                least(GET_OVER_MEMCACHED_MIN),
                "GET at saturation over memcached",
            ),
            p50_over_memcached: against(
                System::Memcached,
                Stage::Unloaded,
                p50,
                most,
                "unloaded p50 over memcached",
            ),
            p50_over_memcached_without_spin: against(
                System::Memcached,
                Stage::UnloadedWithoutSpin,
                p50,
                most,
                "the same, nobody polling before it sleeps",
            ),
        }
    }

    pub(super) fn medians(&self) -> Ratios {
        let of = |ratio: &Option<Ratio>| ratio.as_ref().map(|ratio| ratio.median);
        Ratios {
            get_over_reflect: of(&self.get_over_reflect),
            get_over_memcached: of(&self.get_over_memcached),
            p50_over_memcached: of(&self.p50_over_memcached),
            p50_over_memcached_without_spin: of(&self.p50_over_memcached_without_spin),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Ratio> {
        [
            &self.get_over_reflect,
            &self.get_over_memcached,
            &self.p50_over_memcached,
            &self.p50_over_memcached_without_spin,
        ]
        .into_iter()
        .flatten()
    }
}

impl Ratio {
    fn new(
        samples: &[Sample],
        other: System,
        stage: Stage,
        figure: fn(&Sample) -> f64,
        target: Target,
        name: &'static str,
    ) -> Option<Self> {
        let (ours, ours_at) = best(samples, System::Dataplane, stage)?;
        let (theirs, theirs_at) = best(samples, other, stage)?;
        let passes: Vec<f64> = ours
            .iter()
            .filter_map(|our| {
                let their = theirs.iter().find(|their| their.pass == our.pass)?;
                Some(figure(our) / figure(their))
            })
            .collect();
        let bounded = [Row::new(&ours), Row::new(&theirs)]
            .iter()
            .find_map(|row| Some(format!("{} at {}: {}", row.system, row.outstanding, row.notes().first()?)));
        let verdict = Verdict::of(&passes, target, bounded.is_some());
        Some(Self {
            name,
            median: median(&passes),
            min: passes.iter().copied().fold(f64::INFINITY, f64::min),
            max: passes.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            passes,
            outstanding: [ours_at, theirs_at],
            target,
            verdict,
            undecided: (verdict == Verdict::Undecided)
                .then(|| bounded.unwrap_or_else(|| BOTH_SIDES.to_owned())),
        })
    }
}

/// A system's samples of GET at the number of requests under way whose median rate is its best, and that number.
fn best(samples: &[Sample], system: System, stage: Stage) -> Option<(Vec<&Sample>, usize)> {
    let of_system: Vec<&Sample> = samples
        .iter()
        .filter(|sample| (sample.system, sample.stage, sample.operation) == (system, stage, Operation::Get))
        .collect();
    let mut levels: Vec<usize> = of_system.iter().map(|sample| sample.outstanding).collect();
    levels.sort_unstable();
    levels.dedup();
    let at = |level: usize| -> Vec<&Sample> {
        of_system.iter().copied().filter(|sample| sample.outstanding == level).collect()
    };
    let rate = |level: usize| -> f64 {
        median(&at(level).iter().map(|sample| sample.measured.outcome.rate()).collect::<Vec<_>>())
    };
    let level = levels.into_iter().max_by(|&one, &other| rate(one).total_cmp(&rate(other)))?;
    Some((at(level), level))
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, median, min, max, passes, outstanding: [ours, theirs], target, verdict, undecided } =
            self;
        let verdict = verdict.told(undecided.as_deref());
        write!(
            f,
            "{name}: {median:.2} ({min:.2} to {max:.2} in {} passes; {ours} and {theirs} under way; to reach: {target}; \
             {verdict})",
            passes.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    /// A pass in which the daemon and the reflector had these rates at 64 and 256.
    fn pass(number: usize, ours: [f64; 2], theirs: [f64; 2]) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (system, rates) in [(System::Dataplane, ours), (System::Reflect, theirs)] {
            for (outstanding, rate) in [64, 256].into_iter().zip(rates) {
                samples.push(sample(number, system, outstanding, rate));
            }
        }
        samples
    }

    fn over_reflect(samples: &[Sample]) -> Ratio {
        Details::new(samples).get_over_reflect.expect("both are there")
    }

    #[test]
    fn a_ratio_is_of_one_pass_and_of_each_systems_best() {
        // The second pass is half as fast for everybody: a quotient of medians would mix the two.
        let mut samples = pass(0, [800.0, 900.0], [1000.0, 950.0]);
        samples.extend(pass(1, [400.0, 450.0], [500.0, 475.0]));
        let ratio = over_reflect(&samples);
        assert_eq!(ratio.outstanding, [256, 64]);
        assert!(ratio.passes.iter().all(|pass| (pass - 0.9).abs() < 1e-9), "{ratio:?}");
        assert_eq!(ratio.verdict, Verdict::Reached);
        assert!(Details::new(&samples).get_over_memcached.is_none(), "it was left out");
    }

    #[test]
    fn what_lies_on_both_sides_of_its_target_is_undecided() {
        let mut samples = pass(0, [790.0, 1.0], [1000.0, 1.0]);
        samples.extend(pass(1, [810.0, 1.0], [1000.0, 1.0]));
        let ratio = over_reflect(&samples);
        assert_eq!(ratio.verdict, Verdict::Undecided);
        assert!(ratio.to_string().contains("0.79 to 0.81 in 2 passes"), "{ratio}");
        assert_eq!(over_reflect(&samples[..4]).verdict, Verdict::NotReached);
    }

    #[test]
    fn a_row_that_is_a_bound_decides_nothing() {
        let mut samples = pass(0, [900.0, 1.0], [1000.0, 1.0]);
        for sample in &mut samples {
            sample.measured.server_busy = Some(0.9);
        }
        let ratio = over_reflect(&samples);
        assert_eq!(ratio.verdict, Verdict::Undecided);
        assert!(ratio.to_string().contains("generator-bound"), "{ratio}");
    }
}
