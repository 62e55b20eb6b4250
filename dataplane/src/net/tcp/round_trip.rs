//! How long a round trip takes, and when to stop waiting for one: RFC 6298, and the least round trip that RACK asks
//! for (RFC 8985 section 6.2).

/// An estimate, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    smoothed_ns: u64,
    variation_ns: u64,
    least_ns: u64,
    /// When the least was seen: an old one gives way, for routes change.
    least_at_ns: u64,
    timeout_ns: u64,
    /// Time-outs in a row: each doubles the wait.
    backoff: u8,
}

/// A time-out grows no further than this (RFC 6298 section 2.5 allows a bound of 60 s or more).
const TIMEOUT_NS_MAX: u64 = 60 * 1_000_000_000;
/// How long the least round trip is remembered.
const LEAST_LIFE_NS: u64 = 300 * 1_000_000_000;
/// The variation counts for at least this much: the grain of the timers.
const GRAIN_NS: u64 = 1 << 18;

impl RoundTrip {
    /// Nothing measured yet.
    pub(super) const fn new(initial_timeout_ns: u64) -> Self {
        Self {
            smoothed_ns: 0,
            variation_ns: 0,
            least_ns: u64::MAX,
            least_at_ns: 0,
            timeout_ns: initial_timeout_ns,
            backoff: 0,
        }
    }

    /// Takes one measurement, of a segment that was sent once (Karn's rule, RFC 6298 section 3).
    /// The time-out is at least `margin_ns_min` longer than a round trip: RFC 6298 asks for a whole second in all,
    /// for the sake of peers that keep their acknowledgements back; here that is learnt of each peer.
    pub(super) fn sample(&mut self, now_ns: u64, sample_ns: u64, margin_ns_min: u64) {
        let sample_ns = sample_ns.max(1);
        if sample_ns <= self.least_ns || now_ns.saturating_sub(self.least_at_ns) > LEAST_LIFE_NS {
            (self.least_ns, self.least_at_ns) = (sample_ns, now_ns);
        }
        if self.smoothed_ns == 0 {
            (self.smoothed_ns, self.variation_ns) = (sample_ns, sample_ns / 2);
        } else {
            let difference_ns = self.smoothed_ns.abs_diff(sample_ns);
            self.variation_ns = (3 * self.variation_ns + difference_ns) / 4;
            self.smoothed_ns = (7 * self.smoothed_ns + sample_ns) / 8;
        }
        let timeout_ns = self.smoothed_ns + (4 * self.variation_ns).max(margin_ns_min).max(GRAIN_NS);
        self.timeout_ns = timeout_ns.min(TIMEOUT_NS_MAX);
        self.backoff = 0;
    }

    /// The peer turned out to keep its acknowledgements back for longer. Until there is a measurement, which there is none of
    /// while everything is sent twice, a time-out is this much longer than a round trip.
    pub(super) fn widen(&mut self, margin_ns_min: u64) {
        self.timeout_ns = self.timeout_ns.max(self.smoothed_ns + margin_ns_min).min(TIMEOUT_NS_MAX);
    }

    /// The time-out in force, backed off.
    pub(super) fn timeout_ns(&self) -> u64 {
        (self.timeout_ns << self.backoff.min(20)).min(TIMEOUT_NS_MAX)
    }

    /// One more time-out without an answer (RFC 6298 section 5.5).
    pub(super) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The peer answers again: what is lost on the way back is no reason to wait longer.
    pub(super) fn answered(&mut self) {
        self.backoff = 0;
    }

    /// The smoothed round trip; `None` before the first measurement.
    pub(super) const fn smoothed_ns(&self) -> Option<u64> {
        if self.smoothed_ns == 0 { None } else { Some(self.smoothed_ns) }
    }

    /// The least round trip seen lately; `u64::MAX` before the first.
    pub(super) const fn least_ns(&self) -> u64 {
        self.least_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_first_sample_sets_three_times_itself_and_a_steady_one_closes_in() {
        let mut trip = RoundTrip::new(1_000 * MS);
        assert_eq!((trip.timeout_ns(), trip.smoothed_ns()), (1_000 * MS, None));
        trip.sample(0, 100 * MS, 5 * MS);
        assert_eq!((trip.timeout_ns(), trip.smoothed_ns()), (300 * MS, Some(100 * MS)));
        for _ in 0..100 {
            trip.sample(0, 100 * MS, 5 * MS);
        }
        assert!((105 * MS..106 * MS).contains(&trip.timeout_ns()), "{}", trip.timeout_ns());
        assert_eq!(trip.least_ns(), 100 * MS);
    }

    #[test]
    fn a_short_round_trip_keeps_its_margin() {
        let mut trip = RoundTrip::new(1_000 * MS);
        trip.sample(0, 3_000, 5 * MS);
        assert_eq!(trip.timeout_ns(), 5 * MS + 3_000);
    }

    #[test]
    fn a_slow_peer_widens_the_time_out_until_the_next_measurement() {
        let mut trip = RoundTrip::new(1_000 * MS);
        trip.sample(0, MS, 20 * MS);
        trip.widen(80 * MS);
        assert_eq!(trip.timeout_ns(), 81 * MS);
        trip.widen(40 * MS);
        assert_eq!(trip.timeout_ns(), 81 * MS);
        trip.sample(0, MS, 20 * MS);
        assert_eq!(trip.timeout_ns(), 21 * MS);
    }

    #[test]
    fn time_outs_double_up_to_a_bound_until_an_answer() {
        let mut trip = RoundTrip::new(1_000 * MS);
        trip.sample(0, MS, 20 * MS);
        trip.back_off();
        trip.back_off();
        assert_eq!(trip.timeout_ns(), 84 * MS);
        for _ in 0..300 {
            trip.back_off();
        }
        assert_eq!(trip.timeout_ns(), TIMEOUT_NS_MAX);
        trip.answered();
        assert_eq!(trip.timeout_ns(), 21 * MS);
    }

    #[test]
    fn an_old_least_gives_way() {
        let mut trip = RoundTrip::new(1_000 * MS);
        trip.sample(0, MS, MS);
        trip.sample(1, 2 * MS, MS);
        assert_eq!(trip.least_ns(), MS);
        trip.sample(LEAST_LIFE_NS + 1, 2 * MS, MS);
        assert_eq!(trip.least_ns(), 2 * MS);
    }
}
