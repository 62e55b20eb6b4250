//! What a router says of a packet of ours that was too large for the next link: ICMP "fragmentation needed" (RFC 1191
//! section 4) and ICMPv6 "packet too big" (RFC 4443 section 3.2). It quotes the start of the packet, by which the flow
//! is found; whether the quote is to be believed, `Stack::packet_too_big` decides.

use dataplane_ebpf::address::Address;

use super::ends::Ends;
use super::sequence::Sequence;

const ICMP_UNREACHABLE: u8 = 3;
const ICMP_FRAGMENTATION_NEEDED: u8 = 4;
const ICMPV6_TOO_BIG: u8 = 2;
const ICMP_BYTES: usize = 8;
const PROTOCOL_TCP: u8 = 6;
/// Ports and sequence number: the least that is quoted (RFC 792).
const QUOTED_TCP_BYTES: usize = 8;

/// A packet of ours was too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// The flow it belongs to, seen from here.
    pub ends: Ends,
    /// Its sequence number.
    pub sequence: Sequence,
    /// The largest packet the next link takes, in bytes; 0 from a router that knows no better (RFC 1191 section 5).
    pub mtu_bytes: usize,
}

impl TooBig {
    /// From an ICMP message of IPv4, header included, whose checksum was verified.
    #[must_use]
    pub fn parse_v4(message: &[u8]) -> Option<Self> {
        let (header, quoted) = message.split_at_checked(ICMP_BYTES)?;
        if header[..2] != [ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED] {
            return None;
        }
        let network_bytes = usize::from(quoted.first()? & 0x0f) * 4;
        let (network, transport) = quoted.split_at_checked(network_bytes)?;
        if network_bytes < 20 || network[0] >> 4 != 4 || network[9] != PROTOCOL_TCP {
            return None;
        }
        let local = Address::from_v4(*network[12..].first_chunk()?);
        let peer = Address::from_v4(*network[16..].first_chunk()?);
        Self::of(local, peer, transport, usize::from(u16::from_be_bytes([header[6], header[7]])))
    }

    /// From an ICMPv6 message, header included, whose checksum was verified.
    #[must_use]
    pub fn parse_v6(message: &[u8]) -> Option<Self> {
        let (header, quoted) = message.split_at_checked(ICMP_BYTES)?;
        let (network, transport) = quoted.split_at_checked(40)?;
        if header[0] != ICMPV6_TOO_BIG || network[0] >> 4 != 6 || network[6] != PROTOCOL_TCP {
            return None;
        }
        let local = Address::from_v6(*network[8..].first_chunk()?);
        let peer = Address::from_v6(*network[24..].first_chunk()?);
        let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        Self::of(local, peer, transport, usize::try_from(mtu).ok()?)
    }

    fn of(local: Address, peer: Address, transport: &[u8], mtu_bytes: usize) -> Option<Self> {
        let [l0, l1, p0, p1, s0, s1, s2, s3] = *transport.first_chunk::<QUOTED_TCP_BYTES>()?;
        let ends = Ends {
            local,
            peer,
            local_port: u16::from_be_bytes([l0, l1]),
            peer_port: u16::from_be_bytes([p0, p1]),
        };
        Some(Self { ends, sequence: Sequence(u32::from_be_bytes([s0, s1, s2, s3])), mtu_bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message with this header about a packet with this network header.
    fn message(header: [u8; 8], network: &[u8]) -> Vec<u8> {
        [&header[..], network, &[0, 80, 0x0f, 0xa0, 1, 2, 3, 4]].concat()
    }

    fn v4() -> Vec<u8> {
        let network = [0x45, 0, 5, 220, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        message([3, 4, 0, 0, 0, 0, 0x05, 0x14], &network)
    }

    fn v6() -> Vec<u8> {
        let mut network = [0u8; 40];
        (network[0], network[6], network[8], network[23], network[24], network[39]) =
            (0x60, 6, 0xfd, 1, 0xfd, 2);
        message([2, 0, 0, 0, 0, 0, 0x05, 0x14], &network)
    }

    #[test]
    fn the_flow_the_number_and_the_size_are_read() {
        for (parsed, local, peer) in [
            (TooBig::parse_v4(&v4()), "10.0.0.1:80", "10.0.0.2:4000"),
            (TooBig::parse_v6(&v6()), "[fd00::1]:80", "[fd00::2]:4000"),
        ] {
            let ends = Ends::new(local.parse().expect("an address"), peer.parse().expect("an address"));
            let expected = TooBig { ends, sequence: Sequence(0x0102_0304), mtu_bytes: 1_300 };
            assert_eq!(parsed, Some(expected));
        }
    }

    #[test]
    fn other_messages_and_other_protocols_are_passed_over() {
        for (place, value) in [(0, 11), (1, 1), (8, 0x65), (8, 0x44), (17, 17)] {
            let mut message = v4();
            message[place] = value;
            assert_eq!(TooBig::parse_v4(&message), None, "byte {place} is {value}");
        }
        assert_eq!(TooBig::parse_v6(&v4()), None);
    }

    proptest! {
        #[test]
        fn cut_messages_and_garbage_never_panic(
            garbage in proptest::collection::vec(any::<u8>(), 0..80), cut in 0usize..56
        ) {
            let _ = (TooBig::parse_v4(&garbage), TooBig::parse_v6(&garbage));
            prop_assert_eq!(TooBig::parse_v4(&v4()[..cut.min(35)]), None);
            prop_assert_eq!(TooBig::parse_v6(&v6()[..cut.min(55)]), None);
        }
    }
}
