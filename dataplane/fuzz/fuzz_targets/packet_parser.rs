//! The packet parser on any bytes: it never panics, and whatever it lets through keeps its promises.
#![no_main]

use dataplane_ebpf::flow::FlowKey;
use dataplane_ebpf::packet::{IpVersion, Transport, VLAN_TAGS_MAX, parse};
use dataplane_ebpf::verdict::{Action, Verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let packet = match parse(bytes) {
        Ok(packet) => packet,
        Err(reason) => {
            assert_eq!(Verdict::from(reason).action(), Action::Pass);
            return;
        }
    };
    assert!(packet.vlan_tags() <= VLAN_TAGS_MAX);
    assert!(
        packet.network_offset < packet.transport_offset && packet.transport_offset < packet.payload_offset
    );
    let payload_end = packet.payload_offset + packet.payload_bytes;
    let network_end = packet.network_offset + packet.network_bytes;
    assert!(payload_end <= network_end && network_end <= bytes.len());
    match packet.version {
        IpVersion::V4 => {
            assert!((20..=60).contains(&(packet.transport_offset - packet.network_offset)));
            assert!(packet.source.to_ip().is_ipv4() && packet.destination.to_ip().is_ipv4());
        }
        IpVersion::V6 => assert_eq!(packet.transport_offset - packet.network_offset, 40),
    }
    if let Transport::Udp(header) = packet.transport {
        assert_eq!(
            usize::from(header.length),
            packet.payload_offset - packet.transport_offset + packet.payload_bytes
        );
    }
    assert_eq!(FlowKey::of(&packet).source, packet.source);

    // What follows the packet its headers describe changes nothing; a byte less makes it incomplete.
    assert_eq!(parse(&bytes[..network_end]), Ok(packet));
    assert!(parse(&bytes[..network_end - 1]).is_err());
});
