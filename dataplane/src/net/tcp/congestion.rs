//! How much may be under way: CUBIC (RFC 9438), with NewReno (RFC 5681) beneath it and in its place where it is
//! configured. During recovery the window follows what is delivered (proportional rate reduction, RFC 6937), so that
//! neither a burst nor a silence follows a loss.

/// How the window grows when there is no loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681.
    NewReno,
}

/// CUBIC's constant, in segments per cubic second, and what a loss multiplies the window by (RFC 9438 section 4.6,
/// section 5). NewReno halves.
const CUBIC_C: f32 = 0.4;
const CUBIC_BETA: f32 = 0.7;
const RENO_BETA: f32 = 0.5;
/// Growth of CUBIC's estimate of what NewReno would do, in segments a round trip (RFC 9438 section 4.3).
const CUBIC_ALPHA: f32 = 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA);
const NS_PER_S: f32 = 1e9;

/// The window of one flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Congestion {
    algorithm: Algorithm,
    /// The window, in bytes.
    window: u32,
    /// Below this the window doubles each round trip, in bytes.
    threshold: u32,
    /// Largest payload of a segment, in bytes.
    segment: u32,
    /// Bytes acknowledged and not yet turned into growth.
    credit: u32,
    /// The window before the last loss, in segments, and how fast to get back there.
    plateau: f32,
    reno_estimate: f32,
    /// The window at the last loss, in segments.
    window_prior: f32,
    /// Seconds from the start of the epoch to the plateau.
    rise_s: f32,
    /// When growth after the last loss began; 0 before.
    epoch_ns: u64,
    reduction: Option<Reduction>,
}

/// Bytes counted during a recovery.
#[derive(Clone, Copy, Debug)]
struct Reduction {
    flight: u32,
    delivered: u32,
    sent: u32,
}

/// What a loss changes, as it was before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    window: u32,
    threshold: u32,
}

/// RFC 6928: ten segments, and no more bytes than that of a common Ethernet.
pub(super) const fn initial_window(segment: u32) -> u32 {
    let floor = if 2 * segment > 14_600 { 2 * segment } else { 14_600 };
    if 10 * segment < floor { 10 * segment } else { floor }
}

impl Congestion {
    pub(super) const fn new(algorithm: Algorithm, segment: u32) -> Self {
        Self {
            algorithm,
            window: initial_window(segment),
            threshold: u32::MAX,
            segment,
            credit: 0,
            plateau: 0.0,
            reno_estimate: 0.0,
            window_prior: 0.0,
            rise_s: 0.0,
            epoch_ns: 0,
            reduction: None,
        }
    }

    /// Bytes that may be under way.
    #[inline]
    pub(super) const fn window(&self) -> u32 {
        self.window
    }

    /// The path takes smaller segments than was thought; the window in segments stays (RFC 8201 section 5.4).
    pub(super) fn set_segment(&mut self, segment: u32) {
        if segment < self.segment {
            self.window = (u64::from(self.window) * u64::from(segment) / u64::from(self.segment)) as u32;
        }
        self.segment = segment;
        self.window = self.window.max(segment);
    }

    /// New data was acknowledged outside a recovery. `limited` says that the window was what held us back: a
    /// window that was not used is not grown (RFC 9438 section 5.8).
    pub(super) fn acknowledged(&mut self, now_ns: u64, bytes: u32, limited: bool, round_trip_ns: u64) {
        if !limited {
            // The epoch stands still meanwhile, or the window would leap when the sender wakes.
            self.epoch_ns = 0;
            return;
        }
        if self.window < self.threshold {
            // RFC 5681 section 3.1; what was acknowledged at once may be a whole window (RFC 9438 section 4.10).
            self.window = self.window.saturating_add(bytes.min(2 * self.segment)).min(1 << 30);
            return;
        }
        let segments = self.window as f32 / self.segment as f32;
        let per_window = match self.algorithm {
            Algorithm::NewReno => 1.0,
            Algorithm::Cubic => self.cubic(now_ns, bytes, segments, round_trip_ns),
        };
        // `per_window` segments of growth for a window's worth of acknowledged bytes.
        let growth = per_window * bytes as f32 * (self.segment as f32 / self.window as f32);
        let credit = self.credit as f32 + growth;
        self.credit = credit as u32;
        if self.credit >= self.segment {
            let whole = self.credit / self.segment * self.segment;
            self.window = self.window.saturating_add(whole).min(1 << 30);
            self.credit -= whole;
        }
    }

    /// Growth in segments for each window acknowledged (RFC 9438 section 4.2 to 4.5).
    fn cubic(&mut self, now_ns: u64, bytes: u32, segments: f32, round_trip_ns: u64) -> f32 {
        if self.epoch_ns == 0 {
            self.epoch_ns = now_ns.max(1);
            self.reno_estimate = segments;
            self.rise_s =
                if segments < self.plateau { ((self.plateau - segments) / CUBIC_C).cbrt() } else { 0.0 };
            self.plateau = self.plateau.max(segments);
        }
        let alpha = if self.reno_estimate >= self.window_prior { 1.0 } else { CUBIC_ALPHA };
        self.reno_estimate += alpha * bytes as f32 / self.window as f32;
        let at_s = now_ns.saturating_sub(self.epoch_ns).saturating_add(round_trip_ns) as f32 / NS_PER_S;
        let target = (CUBIC_C * (at_s - self.rise_s).powi(3) + self.plateau).clamp(segments, 1.5 * segments);
        (target - segments).max(self.reno_estimate - segments).max(0.0)
    }

    /// A loss was found while this much was under way: recovery begins.
    pub(super) fn lost(&mut self, flight: u32) {
        self.reduce();
        self.reduction = Some(Reduction { flight: flight.max(1), delivered: 0, sent: 0 });
    }

    /// Sets threshold and plateau for a window that proved too large.
    fn reduce(&mut self) {
        let segments = self.window as f32 / self.segment as f32;
        let beta = match self.algorithm {
            Algorithm::Cubic => CUBIC_BETA,
            Algorithm::NewReno => RENO_BETA,
        };
        // Fast convergence (RFC 9438 section 4.7): who loses below his last plateau makes room for others.
        self.plateau = if segments < self.plateau { segments * (1.0 + beta) / 2.0 } else { segments };
        self.window_prior = segments;
        self.threshold = ((self.window as f32 * beta) as u32).max(2 * self.segment);
        self.epoch_ns = 0;
        self.credit = 0;
    }

    /// An acknowledgement during recovery delivered this much and leaves this much under way (RFC 6937 section 3.1,
    /// with its slow-start bound).
    pub(super) fn recovering(&mut self, delivered: u32, under_way: u32) {
        let Some(reduction) = &mut self.reduction else { return };
        reduction.delivered = reduction.delivered.saturating_add(delivered);
        let budget = if under_way > self.threshold {
            let allowed = u64::from(reduction.delivered) * u64::from(self.threshold);
            (allowed.div_ceil(u64::from(reduction.flight)) as u32).saturating_sub(reduction.sent)
        } else {
            let bound = reduction.delivered.saturating_sub(reduction.sent).max(delivered) + self.segment;
            (self.threshold - under_way).min(bound)
        };
        // The first retransmission goes out at once.
        let budget = if reduction.sent == 0 { budget.max(self.segment) } else { budget };
        self.window = under_way + budget;
    }

    /// Bytes were sent.
    #[inline]
    pub(super) fn sent(&mut self, bytes: u32) {
        if let Some(reduction) = &mut self.reduction {
            reduction.sent = reduction.sent.saturating_add(bytes);
        }
    }

    /// Everything that was under way when the loss was found is acknowledged.
    pub(super) fn recovered(&mut self) {
        if self.reduction.take().is_some() {
            self.window = self.threshold.max(self.segment);
        }
    }

    /// A time-out: start again from one segment (RFC 5681 section 3.1). Only the first in a row lowers the
    /// threshold.
    pub(super) fn timed_out(&mut self, first: bool) {
        if first {
            self.reduce();
        }
        self.reduction = None;
        self.window = self.segment;
    }

    /// What to [`Congestion::restore`] when it proves that nothing was lost.
    pub(super) const fn before(&self) -> Before {
        Before { window: self.window, threshold: self.threshold }
    }

    /// Nothing was lost after all.
    pub(super) fn restore(&mut self, before: Before) {
        (self.window, self.threshold, self.reduction) = (before.window, before.threshold, None);
    }

    /// Nothing was sent for a time-out: the window says nothing about the path any more (RFC 5681 section 4.1).
    pub(super) fn idle(&mut self) {
        self.window = self.window.min(initial_window(self.segment));
        self.epoch_ns = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1_000;
    const TRIP_NS: u64 = 100_000_000;

    /// Acknowledges a whole window each round trip, segment by segment.
    fn rounds(congestion: &mut Congestion, from_ns: u64, rounds: u64) {
        for round in 0..rounds {
            for _ in 0..congestion.window() / MSS {
                congestion.acknowledged(from_ns + round * TRIP_NS, MSS, true, TRIP_NS);
            }
        }
    }

    #[test]
    fn the_initial_window_is_that_of_rfc_6928() {
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(1_460), 14_600);
        assert_eq!(initial_window(8_900), 17_800);
    }

    #[test]
    fn slow_start_doubles_each_round_trip() {
        let mut congestion = Congestion::new(Algorithm::Cubic, MSS);
        rounds(&mut congestion, 1, 3);
        assert_eq!(congestion.window(), 80 * MSS);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut congestion = Congestion::new(Algorithm::Cubic, MSS);
        congestion.acknowledged(1, MSS, false, TRIP_NS);
        assert_eq!(congestion.window(), 10 * MSS);
    }

    #[test]
    fn cubic_comes_back_to_its_plateau_and_then_goes_beyond() {
        let mut congestion = Congestion::new(Algorithm::Cubic, MSS);
        congestion.window = 100 * MSS;
        congestion.lost(100 * MSS);
        congestion.recovered();
        assert_eq!(congestion.window(), 70 * MSS);
        // K = cbrt(30 / 0.4) = 4.2 s.
        rounds(&mut congestion, 1, 30);
        assert!((90 * MSS..=101 * MSS).contains(&congestion.window()), "{}", congestion.window());
        rounds(&mut congestion, 1 + 30 * TRIP_NS, 60);
        assert!(congestion.window() > 115 * MSS, "{}", congestion.window());
    }

    #[test]
    fn newreno_adds_a_segment_each_round_trip() {
        let mut congestion = Congestion::new(Algorithm::NewReno, MSS);
        congestion.window = 20 * MSS;
        congestion.lost(20 * MSS);
        congestion.recovered();
        rounds(&mut congestion, 1, 5);
        assert!((14 * MSS..=15 * MSS).contains(&congestion.window()), "{}", congestion.window());
    }

    #[test]
    fn recovery_sends_in_proportion_to_what_is_delivered() {
        let mut congestion = Congestion::new(Algorithm::NewReno, MSS);
        congestion.window = 20 * MSS;
        congestion.lost(20 * MSS);
        let (mut under_way, mut sent) = (17 * MSS, 0);
        for _ in 0..17 {
            under_way -= MSS;
            congestion.recovering(MSS, under_way);
            while under_way + MSS <= congestion.window() {
                under_way += MSS;
                sent += MSS;
                congestion.sent(MSS);
            }
        }
        assert!((8 * MSS..=11 * MSS).contains(&under_way), "{under_way}");
        assert!(sent >= 8 * MSS, "{sent}");
    }

    #[test]
    fn a_time_out_starts_again_from_one_segment() {
        let mut congestion = Congestion::new(Algorithm::Cubic, MSS);
        congestion.timed_out(true);
        congestion.timed_out(false);
        assert_eq!((congestion.window(), congestion.threshold), (MSS, 7 * MSS));
        rounds(&mut congestion, 1, 2);
        assert_eq!(congestion.window(), 4 * MSS);
    }
}
