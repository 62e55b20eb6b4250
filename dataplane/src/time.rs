//! Time as the request path sees it: read once a poll by whoever drives the worker, then handed down.
//!
//! Nothing below the worker reads a clock, so a simulation can drive the same code with a clock of its own.

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const NS_PER_MS: u64 = 1_000_000;
/// Milliseconds in a second.
pub const MS_PER_S: u64 = 1_000;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// `CLOCK_MONOTONIC`, in nanoseconds: intervals, rate limits, heartbeats. The XDP program reads the same clock
    /// (`bpf_ktime_get_ns`).
    pub monotonic_ns: u64,
    /// Time since the Unix epoch, in milliseconds: expiry of items, which must outlive a restart.
    pub unix_ms: u64,
}

impl Now {
    /// Reads both clocks. Only what drives a worker calls this; see the module's text.
    #[must_use]
    pub fn read() -> Self {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let real = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Self {
            monotonic_ns: unsigned(monotonic.tv_sec) * NS_PER_S + unsigned(monotonic.tv_nsec),
            unix_ms: unsigned(real.tv_sec) * MS_PER_S + unsigned(real.tv_nsec) / NS_PER_MS,
        }
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        self.unix_ms / MS_PER_S
    }
}

/// A clock set before the epoch is read as the epoch.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// When an item ceases to be: an absolute time, so that it survives a restart and a replica unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// Milliseconds since the Unix epoch; [`Expiry::NEVER`] compares later than every other.
    unix_ms: u64,
}

impl Expiry {
    /// The item stays until it is deleted or evicted.
    pub const NEVER: Self = Self { unix_ms: u64::MAX };

    /// Expires at this time, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn at_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms }
    }

    /// Milliseconds since the Unix epoch; `u64::MAX` is never.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.unix_ms
    }

    /// True from the very millisecond named on.
    #[must_use]
    pub const fn has_passed(self, now: Now) -> bool {
        self.unix_ms != u64::MAX && self.unix_ms <= now.unix_ms
    }

    /// Whole seconds left, rounded up; `None` for [`Expiry::NEVER`].
    #[must_use]
    pub fn remaining_s(self, now: Now) -> Option<u64> {
        (self != Self::NEVER).then(|| self.unix_ms.saturating_sub(now.unix_ms).div_ceil(MS_PER_S))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_takes_effect_at_the_named_millisecond() {
        let at = Expiry::at_unix_ms(5_000);
        assert!(!at.has_passed(Now { monotonic_ns: 0, unix_ms: 4_999 }));
        assert!(at.has_passed(Now { monotonic_ns: 0, unix_ms: 5_000 }));
        assert!(!Expiry::NEVER.has_passed(Now { monotonic_ns: 0, unix_ms: u64::MAX }));
    }

    #[test]
    fn remaining_seconds_round_up() {
        let now = Now { monotonic_ns: 0, unix_ms: 1_000 };
        assert_eq!(Expiry::at_unix_ms(1_001).remaining_s(now), Some(1));
        assert_eq!(Expiry::at_unix_ms(3_000).remaining_s(now), Some(2));
        assert_eq!(Expiry::NEVER.remaining_s(now), None);
    }
}
