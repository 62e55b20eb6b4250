//! How fast one source may send: the generic cell rate algorithm (ITU-T I.371), one time stamp a source, in a
//! table of fixed size.
//!
//! When a set of the table is full, the source that has been quiet longest gives its place: it has the most credit,
//! so forgetting it changes least. A flood from forged addresses can therefore lift the limit from quiet
//! sources, never impose one on them.

use std::net::{IpAddr, Ipv6Addr};

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use crate::limits::{RATE_LIMITED_SOURCES as SOURCES, RATE_LIMITER_WAYS as WAYS};

const SETS: usize = SOURCES / WAYS;

#[derive(Clone, Copy, Debug)]
struct Slot {
    source: Ipv6Addr,
    /// When the source will have used up none of its burst; the past means full credit.
    arrival_ns: u64,
}

/// A limit for each source address. Each worker has a limiter of its own, since workers share nothing: a source whose
/// ports the NIC spreads over n of them may send n times as much. It is not divided among them, for then a source with
/// one port, and so one worker, could use only a part of its limit.
#[derive(Debug)]
pub struct RateLimiter {
    slots: Box<[Slot]>,
    interval_ns: u64,
    tolerance_ns: u64,
    secrets: RapidSecrets,
}

impl RateLimiter {
    /// `requests_per_s` in the long run, `burst` at once; both at least 1. `seed` keys the table, so that nobody
    /// outside can aim at one set.
    #[must_use]
    pub fn new(requests_per_s: u32, burst: u32, seed: u64) -> Self {
        let interval_ns = crate::time::NS_PER_S / u64::from(requests_per_s.max(1));
        let empty = Slot { source: Ipv6Addr::UNSPECIFIED, arrival_ns: 0 };
        Self {
            slots: vec![empty; SOURCES].into_boxed_slice(),
            interval_ns,
            tolerance_ns: interval_ns * u64::from(burst.max(1) - 1),
            secrets: RapidSecrets::seed(seed),
        }
    }

    /// True when the source is within its limit; that takes one request from its credit.
    pub fn allow(&mut self, source: IpAddr, monotonic_ns: u64) -> bool {
        let source = match source {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let hash = rapidhash_v3_seeded(&source.octets(), &self.secrets);
        let set = hash as usize % SETS * WAYS;
        let ways = &mut self.slots[set..set + WAYS];
        let way = ways.iter().position(|slot| slot.source == source).unwrap_or_else(|| {
            let quietest = (0..WAYS).min_by_key(|&way| ways[way].arrival_ns).expect("a set has ways");
            ways[quietest] = Slot { source, arrival_ns: 0 };
            quietest
        });
        let slot = &mut ways[way];
        let arrival_ns = slot.arrival_ns.max(monotonic_ns);
        if arrival_ns - monotonic_ns > self.tolerance_ns {
            return false;
        }
        slot.arrival_ns = arrival_ns + self.interval_ns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::NS_PER_S;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn allowed(limiter: &mut RateLimiter, source: IpAddr, at_ns: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(limiter.allow(source, at_ns))).sum()
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut limiter = RateLimiter::new(1_000, 10, 7);
        assert_eq!(allowed(&mut limiter, CLIENT, NS_PER_S, 100), 10);
        assert_eq!(allowed(&mut limiter, CLIENT, NS_PER_S + 5_000_000, 100), 5);
        assert_eq!(allowed(&mut limiter, CLIENT, 10 * NS_PER_S, 100), 10);
    }

    #[test]
    fn over_a_second_of_flood_exactly_rate_and_burst_pass() {
        let mut limiter = RateLimiter::new(1_000, 10, 7);
        let passed: u32 =
            (0..100_000u64).map(|step| u32::from(limiter.allow(CLIENT, NS_PER_S + step * 10_000))).sum();
        assert!((1_009..=1_010).contains(&passed), "{passed}");
    }

    #[test]
    fn sources_do_not_share_credit() {
        let mut limiter = RateLimiter::new(1, 1, 7);
        for host in 0..=255 {
            assert!(limiter.allow(IpAddr::from([10, 0, 1, host]), NS_PER_S));
        }
    }

    #[test]
    fn forged_sources_cannot_take_a_quiet_source_its_credit() {
        let mut limiter = RateLimiter::new(10, 1, 7);
        for address in 0..200_000u32 {
            limiter.allow(IpAddr::V4(address.into()), NS_PER_S);
        }
        assert!(limiter.allow(CLIENT, 2 * NS_PER_S));
    }
}
