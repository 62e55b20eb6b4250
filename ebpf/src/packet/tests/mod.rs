//! The parser over slices: what is built comes back, and nothing else does.

#[allow(unreachable_pub, reason = "the verdict tests of `dataplane` include this file too")]
mod build;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use build::PacketBuilder;
use proptest::prelude::*;

use super::*;

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))
}

fn datagram() -> PacketBuilder {
    PacketBuilder::udp((v4(1), 1000), (v4(2), 2000))
}

fn datagram_v6() -> PacketBuilder {
    PacketBuilder::udp((v6(1), 1000), (v6(2), 2000))
}

fn parsed(packet: &PacketBuilder) -> Result<Packet, Unparsed> {
    parse(packet.build().as_slice())
}

#[test]
fn every_field_of_a_plain_datagram() {
    let packet = parsed(&PacketBuilder { payload: b"abc".to_vec(), padding: 15, ..datagram() });
    assert_eq!(
        packet,
        Ok(Packet {
            destination_mac: [2, 0, 0, 0, 0, 1],
            source_mac: [2, 0, 0, 0, 0, 2],
            version: IpVersion::V4,
            network_offset: 14,
            network_bytes: 31,
            source: v4(1).into(),
            destination: v4(2).into(),
            transport_offset: 34,
            transport: Transport::Udp(UdpHeader {
                source_port: 1000,
                destination_port: 2000,
                length: 11,
                checksum: 0xabcd,
            }),
            payload_offset: 42,
            payload_bytes: 3,
        })
    );
}

#[test]
fn the_payload_of_a_segment_lies_behind_its_options() {
    let segment = PacketBuilder::tcp((v6(1), 1000), (v6(2), 2000), TcpFlags::ACK);
    let packet = parsed(&PacketBuilder { tcp_options: vec![1; 12], payload: b"abc".to_vec(), ..segment });
    let packet = packet.expect("it is whole");
    assert_eq!(packet.transport_offset, 14 + 40);
    assert_eq!((packet.payload_offset, packet.payload_bytes), (14 + 40 + 32, 3));
    let flags = TcpFlags::from_bits(TcpFlags::ACK);
    assert_eq!(
        packet.transport,
        Transport::Tcp(TcpHeader { source_port: 1000, destination_port: 2000, flags })
    );
}

#[test]
fn the_lengths_in_the_headers_are_held_against_each_other_and_the_packet() {
    use Unparsed::{Malformed, Truncated};
    for (what, packet, reason) in [
        ("IPv4 header under 20", PacketBuilder { ip_header_words: Some(4), ..datagram() }, Malformed),
        (
            "IPv4 header beyond the length",
            PacketBuilder { ip_header_words: Some(15), ..datagram() },
            Malformed,
        ),
        ("IPv4 length under the header", PacketBuilder { ip_length: Some(19), ..datagram() }, Malformed),
        ("IPv4 length beyond the packet", PacketBuilder { ip_length: Some(37), ..datagram() }, Truncated),
        ("IPv4 without room for UDP", PacketBuilder { ip_length: Some(27), ..datagram() }, Malformed),
        ("UDP length under the header", PacketBuilder { udp_length: Some(7), ..datagram() }, Malformed),
        ("UDP length beyond IPv4", PacketBuilder { udp_length: Some(17), ..datagram() }, Malformed),
        (
            "UDP length into the padding",
            PacketBuilder { udp_length: Some(17), padding: 9, ..datagram() },
            Malformed,
        ),
        ("IPv6 length beyond the packet", PacketBuilder { ip_length: Some(17), ..datagram_v6() }, Truncated),
        ("IPv6 jumbogram", PacketBuilder { ip_length: Some(0), ..datagram_v6() }, Malformed),
        ("UDP of a jumbogram", PacketBuilder { udp_length: Some(0), ..datagram_v6() }, Malformed),
    ] {
        assert_eq!(parsed(&packet), Err(reason), "{what}");
    }
}

#[test]
fn control_bits_tell_what_a_segment_does() {
    for (bits, opens, resets) in [
        (TcpFlags::SYN, true, false),
        (TcpFlags::SYN | TcpFlags::FIN, true, false),
        (TcpFlags::SYN | TcpFlags::ACK, false, false),
        (TcpFlags::SYN | TcpFlags::RST, false, true),
        (TcpFlags::RST | TcpFlags::ACK, false, true),
        (TcpFlags::ACK, false, false),
        (0, false, false),
    ] {
        let flags = TcpFlags::from_bits(bits);
        assert_eq!((flags.opens(), flags.resets()), (opens, resets), "{bits:#04x}");
    }
}

fn address() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(one, other)| (one.into(), other.into())),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(one, other)| (one.into(), other.into())),
    ]
}

fn words(max: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..=max).prop_flat_map(|words| proptest::collection::vec(any::<u8>(), words * 4))
}

/// A packet that is whole, unfragmented UDP or TCP.
fn valid() -> impl Strategy<Value = PacketBuilder> {
    let link = (
        any::<[u8; 6]>(),
        any::<[u8; 6]>(),
        proptest::collection::vec(prop_oneof![Just(0x8100_u16), Just(0x88a8)], 0..=2),
    );
    let network = (address(), words(10), prop_oneof![Just(0_u16), Just(0x4000), Just(0x8000)]);
    let transport = (prop_oneof![Just(6_u8), Just(17)], any::<(u16, u16)>(), any::<u8>(), words(10));
    let rest = (proptest::collection::vec(any::<u8>(), 0..200), 0..32_usize);
    (link, network, transport, rest).prop_map(
        |(
            (destination_mac, source_mac, vlan_tags),
            ((source, destination), ip_options, ip_fragment),
            (protocol, (source_port, destination_port), tcp_flags, tcp_options),
            (payload, padding),
        )| PacketBuilder {
            destination_mac,
            source_mac,
            vlan_tags,
            ip_options,
            ip_fragment,
            protocol,
            tcp_flags,
            tcp_options,
            payload,
            padding,
            ..PacketBuilder::udp((source, source_port), (destination, destination_port))
        },
    )
}

/// What must hold of whatever the parser lets through.
fn check_invariants(bytes: &[u8], packet: &Packet) {
    assert!(packet.vlan_tags() <= VLAN_TAGS_MAX);
    assert!(packet.network_offset < packet.transport_offset);
    assert!(packet.transport_offset < packet.payload_offset);
    let payload_end = packet.payload_offset + packet.payload_bytes;
    let network_end = packet.network_offset + packet.network_bytes;
    assert!(payload_end <= network_end && network_end <= bytes.len());
    let header_bytes = packet.transport_offset - packet.network_offset;
    match packet.version {
        IpVersion::V4 => assert!((20..=60).contains(&header_bytes)),
        IpVersion::V6 => assert_eq!(header_bytes, 40),
    }
    if let Transport::Udp(header) = packet.transport {
        assert_eq!(usize::from(header.length), 8 + packet.payload_bytes);
    }
}

proptest! {
    #[test]
    fn what_is_built_comes_back(packet in valid()) {
        let bytes = packet.build();
        let parsed = parse(bytes.as_slice()).expect("it is valid");
        check_invariants(&bytes, &parsed);
        prop_assert_eq!(parsed.destination_mac, packet.destination_mac);
        prop_assert_eq!(parsed.source_mac, packet.source_mac);
        prop_assert_eq!(parsed.vlan_tags(), packet.vlan_tags.len());
        // An IPv4-mapped IPv6 address and the IPv4 address are one address by design.
        prop_assert_eq!(parsed.source, Address::from(packet.source));
        prop_assert_eq!(parsed.destination, Address::from(packet.destination));
        prop_assert_eq!(parsed.transport.source_port(), packet.source_port);
        prop_assert_eq!(parsed.transport.destination_port(), packet.destination_port);
        prop_assert_eq!(parsed.transport.protocol(), packet.protocol);
        let payload = &bytes[parsed.payload_offset..parsed.payload_offset + parsed.payload_bytes];
        prop_assert_eq!(payload, packet.payload.as_slice());
        if let Transport::Tcp(header) = parsed.transport {
            prop_assert_eq!(header.flags.bits(), packet.tcp_flags);
        }
    }

    #[test]
    fn cut_short_anywhere_it_is_truncated(packet in valid()) {
        let packet = PacketBuilder { padding: 0, ..packet };
        let bytes = packet.build();
        for length in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..length]), Err(Unparsed::Truncated), "{} bytes", length);
        }
    }

    #[test]
    fn one_flipped_bit_never_breaks_an_invariant(packet in valid(), at in any::<proptest::sample::Index>(), bit in 0..8) {
        let mut bytes = packet.build();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(parsed) = parse(bytes.as_slice()) {
            check_invariants(&bytes, &parsed);
        }
    }

    #[test]
    fn garbage_never_breaks_an_invariant(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        if let Ok(parsed) = parse(bytes.as_slice()) {
            check_invariants(&bytes, &parsed);
        }
    }

    #[test]
    fn garbage_behind_a_plausible_start_never_breaks_an_invariant(
        start in prop_oneof![
            Just(vec![0x08, 0x00, 0x45]),
            Just(vec![0x08, 0x00, 0x4f]),
            Just(vec![0x86, 0xdd, 0x60]),
            Just(vec![0x81, 0x00, 0x00, 0x01, 0x08, 0x00, 0x45]),
            Just(vec![0x88, 0xa8, 0x00, 0x01, 0x81, 0x00, 0x00, 0x02, 0x86, 0xdd, 0x60]),
        ],
        protocol in prop_oneof![Just(6_u8), Just(17), any::<u8>()],
        small_length in 0..128_u8,
        rest in proptest::collection::vec(any::<u8>(), 0..128),
    ) {
        let mut bytes = vec![2; 12];
        let network = 12 + start.len() - 1;
        bytes.extend(start);
        bytes.extend(rest);
        // Past the first checks: a likely protocol, and a length that may fit.
        let fields: [(usize, u8); 4] = [(2, 0), (3, small_length), (4, 0), (9, protocol)];
        for (offset, value) in fields {
            if let Some(byte) = bytes.get_mut(network + offset) {
                *byte = value;
            }
        }
        if let Ok(parsed) = parse(bytes.as_slice()) {
            check_invariants(&bytes, &parsed);
        }
    }

    #[test]
    fn fragments_are_told_apart(packet in valid(), fragment in 1..0x4000_u16) {
        prop_assume!(packet.source.is_ipv4());
        prop_assert_eq!(parsed(&PacketBuilder { ip_fragment: fragment, ..packet }), Err(Unparsed::Fragment));
    }
}
