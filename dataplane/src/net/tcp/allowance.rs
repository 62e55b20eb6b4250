//! How often something may be done: so often in a second, a tenth of that at once (a token bucket, kept as the one time
//! at which it will be full again).

use crate::time::NS_PER_S;

/// An allowance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    interval_ns: u64,
    at_once: u64,
    full_ns: u64,
}

impl Allowance {
    /// So many in a second, which must be more than 0.
    pub(super) fn new(per_s: u32) -> Self {
        let per_s = u64::from(per_s);
        Self { interval_ns: NS_PER_S / per_s, at_once: (per_s / 10).max(1), full_ns: 0 }
    }

    /// Takes one; false when there is none left.
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        let full_ns = self.full_ns.max(now_ns) + self.interval_ns;
        let may = full_ns - now_ns <= self.at_once * self.interval_ns;
        if may {
            self.full_ns = full_ns;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_goes_at_once_and_a_second_brings_the_rest() {
        let mut allowance = Allowance::new(100);
        let start_ns = 7 * NS_PER_S;
        let taken = |allowance: &mut Allowance, now_ns| (0..1_000).filter(|_| allowance.take(now_ns)).count();
        assert_eq!(taken(&mut allowance, start_ns), 10);
        let over_a_second: usize =
            (1..=1_000).map(|ms| taken(&mut allowance, start_ns + ms * NS_PER_S / 1_000)).sum();
        assert_eq!(over_a_second, 100);
        assert_eq!(taken(&mut allowance, start_ns + 60 * NS_PER_S), 10, "no more are saved up");
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let mut allowance = Allowance::new(1);
        assert!(allowance.take(NS_PER_S));
        assert!(!allowance.take(2 * NS_PER_S - 1));
        assert!(allowance.take(2 * NS_PER_S));
    }
}
