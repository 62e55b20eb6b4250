//! Allow-lists: which sources are served, and what counts as a limit.
//!
//! UDP sources can be forged, so a service open to the world is an amplifier for whoever forges a victim's
//! address (memcached's record was 1.7 Tbit/s, in 2018). A limit is a list with few public addresses in it: no single
//! network of them may be wide, and neither may all of them together, however they are split. IPv6 addresses that
//! stand for IPv4 ones (NAT64, 6to4) count as those.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Shortest prefix of a network of public IPv4 addresses: the largest that a registry ever gave to one user.
const IPV4_PREFIX_BITS_MIN: u8 = 8;

/// Shortest prefix of a network of public IPv6 addresses: with a few exceptions, the largest given to one provider.
const IPV6_PREFIX_BITS_MIN: u8 = 20;

/// Most networks of the shortest prefix that a list may come to: under 2 % of the internet.
const IPV4_NETWORKS_MAX: u64 = 4;

/// Most networks of the shortest prefix that a list may come to: about 0.01 % of the space that is given out.
const IPV6_NETWORKS_MAX: u128 = 16;

/// IPv6 ranges whose addresses stand for IPv4 ones, with the number of bits before those.
const STANDING_FOR_IPV4: [(Ipv6Net, u8); 4] = [
    // IPv4-mapped (RFC 4291), NAT64 (RFC 6052), NAT64 with local prefixes (RFC 8215), 6to4 (RFC 3056).
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), 96),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96), 96),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48), 96),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), 16),
];

/// All of IPv4.
const ALL_IPV4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// The private networks, which the internet does not route: RFC 1918, RFC 4193, loopback and IPv6 link-local.
#[must_use]
pub fn private_sources() -> Vec<IpNet> {
    let v4 = |a, b, length| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
    let v6 =
        |first, length| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length));
    vec![
        v4(10, 0, 8),
        v4(172, 16, 12),
        v4(192, 168, 16),
        v4(127, 0, 8),
        v6(0xfc00, 7),
        v6(0xfe80, 10),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ]
}

/// Reads one network; the error says how to write it.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(format!("{text:?} is an address; write it like {}", IpNet::from(address)));
    }
    match text.parse::<IpNet>() {
        // Packets carry it as IPv4, so a list of IPv6 networks would never meet it.
        Ok(IpNet::V6(network)) if STANDING_FOR_IPV4[0].0.contains(&network) => {
            let ipv4: Vec<String> = stood_for(&IpNet::V6(network)).iter().map(ToString::to_string).collect();
            Err(format!("{text:?} is an IPv4 network; write it like {}", ipv4.join(" and ")))
        }
        Ok(network) if network.trunc() == network => Ok(network),
        Ok(network) => {
            Err(format!("{text:?} has bits set behind its prefix; write it like {}", network.trunc()))
        }
        Err(_) => {
            let example = padded(text).unwrap_or_else(|| "10.0.0.0/8 or fd00::/8".to_owned());
            Err(format!("{text:?} is not a network; write it like {example}"))
        }
    }
}

/// `10.0/8` as it was meant.
fn padded(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/')?;
    let mut octets = [0u8; 4];
    let parts: Vec<&str> = address.trim_end_matches('.').split('.').collect();
    if parts.len() > octets.len() {
        return None;
    }
    for (octet, part) in octets.iter_mut().zip(&parts) {
        *octet = part.parse().ok()?;
    }
    let network = Ipv4Net::new(octets.into(), length.parse().ok()?).ok()?;
    Some(network.trunc().to_string())
}

/// Why a list of networks is no limit; `None` when it is one.
pub(super) fn too_wide(networks: &[IpNet]) -> Option<String> {
    const WHY: &str = "UDP sources can be forged, so the service would amplify attacks on others; name the networks \
                       of your clients";
    let unrouted = unrouted();
    let is_unrouted = |network: &IpNet| unrouted.iter().any(|range| range.contains(network));
    let mut reached = Vec::with_capacity(networks.len());
    for network in networks {
        for stood_for in stood_for(network) {
            let bits_min = if is_ipv4(&stood_for) { IPV4_PREFIX_BITS_MIN } else { IPV6_PREFIX_BITS_MIN };
            if stood_for.prefix_len() < bits_min && !is_unrouted(&stood_for) {
                let as_what = if stood_for == *network {
                    String::new()
                } else {
                    format!(" (it stands for {stood_for})")
                };
                return Some(format!(
                    "{network}{as_what} is wider than a /{bits_min} of public addresses: {WHY}"
                ));
            }
            reached.push(stood_for);
        }
    }
    let (mut ipv4, mut ipv6) = (0u64, 0u128);
    for network in IpNet::aggregate(&reached).iter().filter(|network| !is_unrouted(network)) {
        let within = || unrouted.iter().filter(|range| network.contains(*range));
        match network {
            IpNet::V4(_) => ipv4 += addresses(network) as u64 - within().map(addresses).sum::<u128>() as u64,
            IpNet::V6(_) => ipv6 += addresses(network) - within().map(addresses).sum::<u128>(),
        }
    }
    let ipv4_max = IPV4_NETWORKS_MAX << (32 - IPV4_PREFIX_BITS_MIN);
    let ipv6_max = IPV6_NETWORKS_MAX << (128 - IPV6_PREFIX_BITS_MIN);
    let (count, family, bits) = if ipv4 > ipv4_max {
        (u128::from(IPV4_NETWORKS_MAX), "IPv4", IPV4_PREFIX_BITS_MIN)
    } else if ipv6 > ipv6_max {
        (IPV6_NETWORKS_MAX, "IPv6", IPV6_PREFIX_BITS_MIN)
    } else {
        return None;
    };
    Some(format!("lets in more public {family} addresses than {count} networks of /{bits} have: {WHY}"))
}

/// The ranges no packet from the internet comes from: the private ones, carrier-grade NAT (RFC 6598) and IPv4
/// link-local (RFC 3927).
fn unrouted() -> Vec<IpNet> {
    let mut ranges = private_sources();
    ranges.push(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10)));
    ranges.push(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)));
    ranges
}

/// What a reply to a source in this network may reach: the network itself, or the IPv4 networks it stands for.
fn stood_for(network: &IpNet) -> Vec<IpNet> {
    let IpNet::V6(network) = network else { return vec![*network] };
    for (range, bits_before) in STANDING_FOR_IPV4 {
        if range.contains(network) {
            let prefix_bits = network.prefix_len().saturating_sub(bits_before).min(32);
            let address = (network.network().to_bits() >> (128 - 32 - u32::from(bits_before))) as u32;
            let ipv4 = Ipv4Net::new_assert(Ipv4Addr::from_bits(address), prefix_bits).trunc();
            return vec![IpNet::V4(ipv4)];
        }
    }
    let holds_a_range = STANDING_FOR_IPV4.iter().any(|(range, _)| network.contains(range));
    std::iter::once(IpNet::V6(*network)).chain(holds_a_range.then_some(ALL_IPV4)).collect()
}

fn is_ipv4(network: &IpNet) -> bool {
    network.addr().is_ipv4()
}

/// Addresses in a network; one less for all of IPv6.
fn addresses(network: &IpNet) -> u128 {
    1u128.checked_shl(u32::from(network.max_prefix_len() - network.prefix_len())).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn private_ranges_are_a_limit_and_let_in_private_sources_only() {
        assert_eq!(too_wide(&private_sources()), None);
        let allowed = crate::net::allow::AllowList::new(&private_sources());
        for inside in ["10.1.2.3", "172.31.255.255", "192.168.0.1", "127.0.0.1", "fd00::1", "fe80::1", "::1"]
        {
            assert!(allowed.contains(inside.parse().expect("an address")), "{inside}");
        }
        for outside in
            ["11.0.0.0", "172.32.0.0", "8.8.8.8", "0.0.0.0", "::", "2001:db8::1", "::ffff:10.0.0.1"]
        {
            assert!(!allowed.contains(outside.parse().expect("an address")), "{outside}");
        }
    }

    #[test]
    fn much_of_the_internet_is_no_limit_however_it_is_split() {
        for open in [
            &["0.0.0.0/0"][..],
            &["::/0"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["0.0.0.0/2", "128.0.0.0/3", "192.0.0.0/4"],
            &["10.0.0.0/7"],
            &["20.0.0.0/8", "30.0.0.0/8", "40.0.0.0/8", "50.0.0.0/8", "60.0.0.0/24"],
            &["10.0.0.0/8", "0.0.0.0/0", "::/0"],
            &["::/1", "8000::/1"],
            &["2000::/5", "2800::/6", "2c00::/7"],
            &["2400::/12"],
            &["fe00::/8"],
            &["64:ff9b::/96"],
            &["64:ff9b::800:0/103"],
            &["64:ff9b::/32"],
            &["64:ff9b:1::/48"],
            &["2002::/20"],
            &["::ffff:0:0/96"],
        ] {
            let reason = too_wide(&networks(open)).unwrap_or_else(|| panic!("{open:?}"));
            assert!(reason.contains("amplify"), "{reason}");
        }
    }

    #[test]
    fn the_networks_of_a_provider_are_a_limit() {
        for limited in [
            &["8.0.0.0/8", "9.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"][..],
            &["2400::/20", "2001:db8::/32", "64.0.0.0/10"],
            // A provider's /19.
            &["2003::/20", "2003:1000::/20"],
            &["100.64.0.0/10", "169.254.0.0/16", "10.0.0.0/8", "fc00::/7"],
            &["64:ff9b::c000:200/120", "64:ff9b::a00:0/104", "2002:808::/32"],
        ] {
            assert_eq!(too_wide(&networks(limited)), None, "{limited:?}");
        }
    }

    #[test]
    fn what_stands_for_ipv4_is_shown_as_that() {
        let reason = too_wide(&networks(&["64:ff9b::c000:0/100"])).expect("a /4");
        assert!(reason.starts_with("64:ff9b::c000:0/100 (it stands for 192.0.0.0/4) is wider"), "{reason}");
    }

    #[test]
    fn a_network_written_wrongly_is_shown_rightly() {
        for (text, right) in [
            ("10.0.0/8", "10.0.0.0/8"),
            ("10/8", "10.0.0.0/8"),
            ("192.168.1.5", "192.168.1.5/32"),
            ("192.168.1.5/24", "192.168.1.0/24"),
            ("fd00::1/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("300.0.0.0/8", "10.0.0.0/8"),
            ("everyone", "10.0.0.0/8"),
        ] {
            let error = parse_network(text).expect_err(text);
            assert!(error.contains(&format!("write it like {right}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_too_much_is_found(halvings in 0u8..10) {
            let most: Vec<IpNet> = ["4.0.0.0/8", "5.0.0.0/8", "6.0.0.0/8", "7.0.0.0/8"]
                .iter()
                .flat_map(|network| network.parse::<Ipv4Net>().expect("a network").subnets(8 + halvings).expect("longer"))
                .map(IpNet::V4)
                .collect();
            prop_assert!(too_wide(&most).is_none());
            let one_more = networks(&["8.0.0.0/32"]);
            prop_assert!(too_wide(&[most, one_more].concat()).is_some());
        }

        #[test]
        fn any_split_of_too_much_ipv6_is_found(halvings in 0u8..6) {
            let most: Vec<IpNet> = Ipv6Net::new_assert(Ipv6Addr::new(0x2400, 0, 0, 0, 0, 0, 0, 0), 16)
                .subnets(20 + halvings).expect("longer").map(IpNet::V6).collect();
            prop_assert!(too_wide(&most).is_none());
            prop_assert!(too_wide(&[most, networks(&["2a00::/128"])].concat()).is_some());
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f.:/]{0,20}|.{0,20}") {
            let _ = parse_network(&text);
        }
    }
}
