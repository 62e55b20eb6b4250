//! Allow-lists: which sources are served, and what counts as a limit.
//!
//! UDP sources can be forged, so a service open to the world is an amplifier for whoever forges a victim's
//! address (memcached's record was 1.7 Tbit/s, in 2018). A list that lets in half the public addresses or more
//! is no limit, however it is split into networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv6 addresses that are given out at all (`2000::/3`, IANA's global unicast space).
const GLOBAL_IPV6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// The networks that are not routed on the internet: RFC 1918, RFC 4193, loopback and link-local.
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
    let networks = IpNet::aggregate(&networks.to_vec());
    let mut v4_addresses = 0u64;
    let mut v6_addresses = 0u128;
    for network in &networks {
        match network {
            IpNet::V4(network) => v4_addresses += 1u64 << (32 - network.prefix_len()),
            IpNet::V6(network) if network.contains(&GLOBAL_IPV6) => v6_addresses = u128::MAX,
            IpNet::V6(network) if GLOBAL_IPV6.contains(network) => {
                v6_addresses = v6_addresses.saturating_add(1u128 << (128 - network.prefix_len()));
            }
            IpNet::V6(_) => {}
        }
    }
    let open = match (v4_addresses >= 1 << 31, v6_addresses >= 1 << 124) {
        (true, true) => "IPv4 and IPv6",
        (true, false) => "IPv4",
        (false, true) => "IPv6",
        (false, false) => return None,
    };
    Some(format!(
        "lets in half of all {open} addresses or more: UDP sources can be forged, so the service would amplify \
         attacks on others; name the networks of your clients"
    ))
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
    fn the_whole_space_is_no_limit_however_it_is_split() {
        for open in [
            &["0.0.0.0/0"][..],
            &["::/0"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["0.0.0.0/2", "64.0.0.0/2", "10.0.0.0/8"],
            &["::/1", "8000::/1"],
            &["2000::/3"],
            &["2000::/4"],
            &["10.0.0.0/8", "0.0.0.0/0", "::/0"],
        ] {
            assert!(too_wide(&networks(open)).is_some(), "{open:?}");
        }
        assert_eq!(too_wide(&networks(&["64.0.0.0/2", "10.0.0.0/8", "2400::/12"])), None);
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
            ("300.0.0.0/8", "10.0.0.0/8"),
            ("everyone", "10.0.0.0/8"),
        ] {
            let error = parse_network(text).expect_err(text);
            assert!(error.contains(&format!("write it like {right}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_a_half_is_found(halvings in 0u8..12) {
            let parts: Vec<IpNet> = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 1)
                .subnets(1 + halvings).expect("longer prefixes").map(IpNet::V4).collect();
            prop_assert!(too_wide(&parts).is_some());
            prop_assert!(too_wide(&parts[1..]).is_none());
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f.:/]{0,20}|.{0,20}") {
            let _ = parse_network(&text);
        }
    }
}
