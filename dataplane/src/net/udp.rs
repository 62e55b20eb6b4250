//! UDP (RFC 768) out of frames: the steering program's own parser run again over what arrived, then the checksums
//! it leaves to user space.

use std::net::{IpAddr, SocketAddr};

use dataplane_ebpf::packet::{self, IpVersion, Packet, Transport};

use super::checksum::{Sum, pseudo_header};
use super::reply::ReplyHeaders;
use crate::config::ChecksumPolicy;
use crate::metrics::DropReason;

/// A datagram in the frame it came in.
#[derive(Clone, Copy, Debug)]
pub struct UdpDatagram<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// Where it was sent to.
    pub destination: SocketAddr,
    /// Its payload.
    pub payload: &'a [u8],
    /// Ethernet header and VLAN tags.
    link: &'a [u8],
}

impl UdpDatagram<'_> {
    /// Headers for replies to it.
    #[inline]
    #[must_use]
    pub fn reply_headers(&self) -> ReplyHeaders {
        ReplyHeaders::to_request(self.link, self.source, self.destination)
    }
}

/// Parses and verifies one packet.
///
/// # Errors
/// The reason to drop it: it is no whole UDP datagram from one host to one host, or a checksum is wrong.
#[inline]
pub fn receive(packet: &[u8], policy: ChecksumPolicy) -> Result<UdpDatagram<'_>, DropReason> {
    let parsed = packet::parse(packet).map_err(|_| DropReason::Malformed)?;
    verify(packet, &parsed, policy)
}

/// Verifies one packet that was parsed.
///
/// # Errors
/// As [`receive`].
#[inline]
pub fn verify<'a>(
    packet: &'a [u8],
    parsed: &Packet,
    policy: ChecksumPolicy,
) -> Result<UdpDatagram<'a>, DropReason> {
    let Transport::Udp(header) = parsed.transport else { return Err(DropReason::Malformed) };
    let source = SocketAddr::new(parsed.source.to_ip(), header.source_port);
    let destination = SocketAddr::new(parsed.destination.to_ip(), header.destination_port);
    let v4 = parsed.version == IpVersion::V4;
    // IPv4-mapped addresses are for sockets, never for the wire (RFC 6890): from there they would pass for IPv4.
    if source.is_ipv4() != v4 || destination.is_ipv4() != v4 {
        return Err(DropReason::Malformed);
    }
    // A reply goes to exactly one host, from an address of ours: neither end may be a group.
    let link_groups = parsed.is_link_multicast() || parsed.source_mac[0] & 1 != 0;
    if link_groups || !is_host(source.ip()) || !is_host(destination.ip()) || source.port() == 0 {
        return Err(DropReason::Malformed);
    }
    if v4 {
        let header = &packet[parsed.network_offset..parsed.transport_offset];
        if Sum::default().bytes(header).finish() != 0 {
            return Err(DropReason::Ipv4Checksum);
        }
    }
    let udp = &packet[parsed.transport_offset..][..usize::from(header.length)];
    if !checksum_passes(source.ip(), destination.ip(), udp, header.checksum, policy) {
        return Err(DropReason::UdpChecksum);
    }
    Ok(UdpDatagram {
        source,
        destination,
        payload: &packet[parsed.payload_offset..][..parsed.payload_bytes],
        link: &packet[..parsed.network_offset],
    })
}

fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(broadcast || address.is_multicast() || address.is_unspecified())
}

#[inline]
fn checksum_passes(
    source: IpAddr,
    destination: IpAddr,
    udp: &[u8],
    checksum: u16,
    policy: ChecksumPolicy,
) -> bool {
    if checksum == 0 {
        // No checksum: legal over IPv4 (RFC 768), not over IPv6 (RFC 8200 section 8.1).
        return source.is_ipv4();
    }
    let udp_bytes = u16::try_from(udp.len()).expect("the length came from a 16-bit field");
    let pseudo = pseudo_header(source, destination, udp_bytes);
    if pseudo.bytes(udp).finish() == 0 {
        return true;
    }
    // What `CHECKSUM_PARTIAL` leaves in the field (Linux include/linux/skbuff.h).
    policy == ChecksumPolicy::PartialOk && checksum == pseudo.folded()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    const LINK_V6_TAGGED: [u8; 22] =
        [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 0x86, 0xdd];

    fn packet(link: &[u8], client: &str, server: &str, payload: &[u8]) -> Vec<u8> {
        let client = client.parse().expect("an address");
        let server = server.parse().expect("an address");
        // A request is a reply with its ends exchanged.
        let headers = ReplyHeaders::to_request(link, server, client);
        let mut packet = vec![0; 4_096];
        let length = headers.write(&mut packet, &[payload]).expect("it fits");
        packet.truncate(length);
        packet
    }

    fn v4(payload: &[u8]) -> Vec<u8> {
        packet(&LINK, "10.0.0.2:4000", "10.0.0.1:11211", payload)
    }

    fn v6(payload: &[u8]) -> Vec<u8> {
        packet(&LINK_V6_TAGGED, "[fd00::2]:4000", "[fd00::1]:11211", payload)
    }

    #[test]
    fn what_was_written_is_read_back() {
        for packet in [v4(b"hello"), v6(b"hello"), v4(b""), v6(b"odd")] {
            let datagram = receive(&packet, ChecksumPolicy::Verify).expect("a whole datagram");
            assert_eq!(datagram.source.port(), 4000);
            assert_eq!(datagram.destination.port(), 11211);
            assert_eq!(datagram.source.is_ipv4(), datagram.destination.is_ipv4());
        }
        assert_eq!(
            receive(&v6(b"odd"), ChecksumPolicy::Verify).map(|datagram| datagram.payload),
            Ok(&b"odd"[..])
        );
    }

    #[test]
    fn a_reply_goes_back_the_way_its_request_came() {
        let request = v6(b"ping");
        let datagram = receive(&request, ChecksumPolicy::Verify).expect("a whole datagram");
        let mut reply = vec![0; 4_096];
        let length = datagram.reply_headers().write(&mut reply, &[b"po", b"ng"]).expect("it fits");
        assert_eq!(reply[..6], request[6..12]);
        assert_eq!(reply[6..12], request[..6]);
        assert_eq!(reply[12..22], request[12..22], "VLAN tags stay");
        let back = receive(&reply[..length], ChecksumPolicy::Verify).expect("a whole datagram");
        assert_eq!((back.source, back.destination), (datagram.destination, datagram.source));
        assert_eq!(back.payload, b"pong");
    }

    #[test]
    fn a_zero_checksum_is_legal_over_ipv4_alone() {
        let mut packet = v4(b"hello");
        packet[40..42].fill(0);
        assert!(receive(&packet, ChecksumPolicy::Verify).is_ok());
        let mut packet = v6(b"hello");
        packet[68..70].fill(0);
        assert_eq!(receive(&packet, ChecksumPolicy::Verify).err(), Some(DropReason::UdpChecksum));
    }

    #[test]
    fn an_unfinished_checksum_passes_only_where_it_was_allowed() {
        let mut packet = v4(b"hello");
        let (source, destination) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 1]));
        let partial = pseudo_header(source, destination, 13).folded();
        packet[40..42].copy_from_slice(&partial.to_be_bytes());
        assert_eq!(receive(&packet, ChecksumPolicy::Verify).err(), Some(DropReason::UdpChecksum));
        assert!(receive(&packet, ChecksumPolicy::PartialOk).is_ok());
    }

    #[test]
    fn an_ipv4_mapped_source_does_not_pass_for_ipv4() {
        let packet = packet(&LINK_V6_TAGGED, "[::ffff:10.0.0.2]:4000", "[fd00::1]:11211", b"hello");
        assert_eq!(receive(&packet, ChecksumPolicy::PartialOk).err(), Some(DropReason::Malformed));
    }

    #[test]
    fn groups_and_port_zero_get_no_reply() {
        for (client, server) in [
            ("10.0.0.2:0", "10.0.0.1:11211"),
            ("224.0.0.1:4000", "10.0.0.1:11211"),
            ("10.0.0.2:4000", "255.255.255.255:11211"),
            ("0.0.0.0:4000", "10.0.0.1:11211"),
        ] {
            let packet = packet(&LINK, client, server, b"hello");
            assert_eq!(
                receive(&packet, ChecksumPolicy::Verify).err(),
                Some(DropReason::Malformed),
                "{client}"
            );
        }
        for mac in [0..6, 6..12] {
            let mut broadcast = v4(b"hello");
            broadcast[mac].fill(0xff);
            assert_eq!(receive(&broadcast, ChecksumPolicy::Verify).err(), Some(DropReason::Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_single_flipped_bit_behind_the_link_header_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            place in any::<proptest::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut packet = v4(&payload);
            let place = 14 + place.index(packet.len() - 14);
            packet[place] ^= 1 << bit;
            // The checksum field itself may become zero, which means "none".
            prop_assume!(packet[40..42] != [0, 0]);
            prop_assert!(receive(&packet, ChecksumPolicy::Verify).is_err());
        }

        #[test]
        fn garbage_never_panics(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = receive(&packet, ChecksumPolicy::PartialOk);
        }

        #[test]
        fn a_packet_cut_anywhere_is_refused(cut in 0usize..47) {
            prop_assert!(receive(&v4(b"hello")[..cut], ChecksumPolicy::Verify).is_err());
        }
    }
}
