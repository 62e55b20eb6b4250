//! Latencies, and the figures made of them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram of latencies in nanoseconds, to three digits, up to a minute.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// Longest latency told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

impl Latencies {
    /// An empty one. All its memory is taken here.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .expect("these bounds are within the histogram's");
        Self { histogram }
    }

    /// Records one.
    pub fn record(&mut self, latency: Duration) {
        self.record_ns(u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX));
    }

    /// Records one in nanoseconds.
    pub fn record_ns(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns);
    }

    /// Records one so many times.
    pub fn record_many(&mut self, latency: Duration, count: u64) {
        self.histogram
            .saturating_record_n(u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX), count);
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.histogram += &other.histogram;
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that a share of all (0 to 1) stayed under, in microseconds.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64 / 1e3
    }

    /// The longest, in microseconds.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        self.histogram.max() as f64 / 1e3
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// The middle of some figures; of an even number, the mean of both middle ones. `NaN` of none.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// How far figures lie apart: largest less smallest, over the median.
#[must_use]
pub fn spread(figures: &[f64]) -> f64 {
    let largest = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let smallest = figures.iter().copied().fold(f64::INFINITY, f64::min);
    (largest - smallest) / median(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_medians_are_where_they_should_be() {
        let mut latencies = Latencies::new();
        for us in 1..=1000 {
            latencies.record(Duration::from_micros(us));
        }
        assert!((latencies.quantile_us(0.5) - 500.0).abs() < 1.0);
        assert!((latencies.quantile_us(0.999) - 999.0).abs() < 2.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread(&[1.0, 2.0, 3.0]), 1.0);
    }
}
