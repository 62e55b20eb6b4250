//! Which sources a listener answers. The XDP program drops the others first; this is the same rule once more in
//! user space, for what comes another way (an ordinary socket) or past an outdated map.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks, as sorted ranges that do not touch: one binary search a look-up, however many networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AllowList {
    /// The set of these networks. None of them means nobody.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
            }
        }
        Self { v4: merge(v4), v6: merge(v6) }
    }

    /// True when the source is in one of the networks. An IPv4-mapped IPv6 address is IPv6: no honest packet carries
    /// one, so it borrows nothing from an IPv4 network.
    #[inline]
    #[must_use]
    pub fn contains(&self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }
}

#[inline]
fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after.checked_sub(1).is_some_and(|index| address <= ranges[index].1)
}

/// Sorts ranges and joins those that overlap.
fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn bounds_are_inside_and_neighbours_outside() {
        let list = AllowList::new(&[network("10.1.0.0/16"), network("fd00::/8")]);
        for (source, allowed) in [
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.0.255.255", false),
            ("10.2.0.0", false),
            ("fd00::1", true),
            ("fe00::", false),
            ("::ffff:10.1.2.3", false),
        ] {
            assert_eq!(list.contains(source.parse().expect("an address")), allowed, "{source}");
        }
    }

    #[test]
    fn an_empty_list_allows_nobody() {
        assert!(!AllowList::default().contains(IpAddr::from([127, 0, 0, 1])));
    }

    proptest! {
        #[test]
        fn agrees_with_asking_each_network(
            networks in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            probes in proptest::collection::vec(any::<u32>(), 1..50),
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .map(|(bits, length)| IpNet::new(IpAddr::V4(bits.into()), length).expect("a prefix of at most 32"))
                .collect();
            let list = AllowList::new(&networks);
            let edges = networks.iter().flat_map(|network| [network.network(), network.broadcast()]);
            for address in probes.into_iter().map(|bits| IpAddr::V4(bits.into())).chain(edges) {
                prop_assert_eq!(list.contains(address), networks.iter().any(|network| network.contains(&address)));
            }
        }
    }
}
