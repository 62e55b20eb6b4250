//! TCP segments (RFC 9293 section 3.1) out of frames and into them. What arrives is hostile until every length and
//! checksum has been looked at; what is written goes straight into the frame it is sent in.

use dataplane_ebpf::packet::{self, IpVersion, TcpFlags, Transport};

use super::ends::{Ends, Link};
use super::options::{Options, OptionsOut};
use super::sequence::Sequence;
use crate::config::ChecksumPolicy;
use crate::net::checksum::Sum;

/// Bytes of an IPv4 header as we write it.
pub(super) const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub(super) const IPV6_BYTES: usize = 40;
/// Bytes of a TCP header without options.
pub(super) const TCP_BYTES: usize = 20;
const PROTOCOL_TCP: u8 = 6;
/// Time to live and hop limit of what we send (RFC 1700).
const HOPS: u8 = 64;

/// More than one bit of [`TcpFlags`] at once.
pub(super) const FIN: u8 = TcpFlags::FIN;
pub(super) const SYN: u8 = TcpFlags::SYN;
pub(super) const RST: u8 = TcpFlags::RST;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = TcpFlags::ACK;

/// Why a frame is no segment for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// No whole TCP segment from one host to another, or options that contradict their lengths.
    Malformed,
    /// The checksum of the IPv4 header is wrong.
    Ipv4Checksum,
    /// The checksum of the segment is wrong.
    TcpChecksum,
}

/// A segment in the frame it came in.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Whose it is; the peer sent it.
    pub ends: Ends,
    /// Its first sequence number.
    pub sequence: Sequence,
    /// The next one its sender expects, when [`TcpFlags::ACK`] is set.
    pub acknowledgement: Sequence,
    /// Control bits.
    pub flags: TcpFlags,
    /// The window as it stands there, unscaled.
    pub window: u16,
    /// Its options.
    pub options: Options,
    /// Its data.
    pub payload: &'a [u8],
    /// Ethernet header and VLAN tags.
    pub(super) link: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Parses and verifies one frame.
    ///
    /// # Errors
    /// Why it is to be dropped.
    #[inline]
    pub fn parse(frame: &'a [u8], policy: ChecksumPolicy) -> Result<Self, Unusable> {
        let parsed = packet::parse(frame).map_err(|_| Unusable::Malformed)?;
        let Transport::Tcp(header) = parsed.transport else { return Err(Unusable::Malformed) };
        let ends = Ends {
            local: parsed.destination,
            peer: parsed.source,
            local_port: header.destination_port,
            peer_port: header.source_port,
        };
        let v4 = parsed.version == IpVersion::V4;
        // IPv4-mapped addresses are for sockets, never for the wire (RFC 6890): from there they would pass for
        // IPv4. And TCP knows no groups (RFC 9293 section 3.9.2.3), of Ethernet neither: the source is answered.
        let mapped = |octets: [u8; 16]| octets[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        if !v4 && (mapped(ends.local.octets()) || mapped(ends.peer.octets()))
            || (parsed.destination_mac[0] | parsed.source_mac[0]) & 1 != 0
            || !is_host(ends.local.octets(), v4)
            || !is_host(ends.peer.octets(), v4)
            || ends.peer_port == 0
            || ends.local_port == 0
        {
            return Err(Unusable::Malformed);
        }
        if v4 && Sum::default().bytes(&frame[parsed.network_offset..parsed.transport_offset]).finish() != 0 {
            return Err(Unusable::Ipv4Checksum);
        }
        let tcp = &frame[parsed.transport_offset..parsed.payload_offset + parsed.payload_bytes];
        let pseudo = pseudo_header(&ends, tcp.len());
        if pseudo.bytes(tcp).finish() != 0
            // What `CHECKSUM_PARTIAL` leaves in the field (Linux include/linux/skbuff.h).
            && !(policy == ChecksumPolicy::PartialOk && tcp[16..18] == pseudo.folded().to_be_bytes())
        {
            return Err(Unusable::TcpChecksum);
        }
        let (header_octets, payload) = tcp.split_at(parsed.payload_offset - parsed.transport_offset);
        let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        Ok(Self {
            ends,
            sequence: Sequence(word(4)),
            acknowledgement: Sequence(word(8)),
            flags: header.flags,
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            options: Options::parse(&header_octets[TCP_BYTES..]).ok_or(Unusable::Malformed)?,
            payload,
            link: &frame[..parsed.network_offset],
        })
    }

    /// True when any of these control bits is set.
    #[inline]
    pub(super) const fn has(&self, bits: u8) -> bool {
        self.flags.bits() & bits != 0
    }

    /// Sequence numbers it takes: its data, SYN and FIN.
    #[inline]
    pub(super) fn length(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// True for an address that one host may have: neither a group, nor everybody, nor nobody.
fn is_host(octets: [u8; 16], v4: bool) -> bool {
    if v4 {
        let address = [octets[12], octets[13], octets[14], octets[15]];
        !(address[0] & 0xf0 == 0xe0 || address == [0; 4] || address == [0xff; 4])
    } else {
        octets[0] != 0xff && octets != [0; 16]
    }
}

/// The sum over the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1). The prefix of a mapped address adds
/// 0xffff, which in one's complement is nothing: both families sum alike.
#[inline]
fn pseudo_header(ends: &Ends, tcp_bytes: usize) -> Sum {
    // Whole words in the machine's order, swapped once at the end (RFC 1071 section 2B).
    let half = |octets: [u8; 16], at: usize| {
        let word = u64::from_ne_bytes(octets[at..at + 8].try_into().expect("half of an address"));
        (word & 0xffff_ffff) + (word >> 32)
    };
    let (local, peer) = (ends.local.octets(), ends.peer.octets());
    let sum = half(local, 0) + half(local, 8) + half(peer, 0) + half(peer, 8);
    // Eight words of 32 bits: two folds leave 16 bits and a carry.
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // The length came from a 16-bit field, or fits a frame.
    Sum::default().word(u16::from(PROTOCOL_TCP)).word(tcp_bytes as u16).word(u16::from_be(sum as u16))
}

/// What a segment to be sent says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    pub(super) sequence: Sequence,
    pub(super) acknowledgement: Sequence,
    pub(super) flags: u8,
    /// As it stands in the header, already scaled down.
    pub(super) window: u16,
    pub(super) options: &'a OptionsOut,
}

/// Writes a whole frame to the peer; `fill` writes the payload. Returns the frame's length, 0 when `out` is too
/// short for it.
#[inline]
pub(super) fn write(
    out: &mut [u8],
    link: &Link,
    ends: &Ends,
    header: &Header<'_>,
    payload_bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) -> usize {
    let link = link.octets();
    let options = header.options.octets();
    let v4 = ends.is_v4();
    let network_bytes = if v4 { IPV4_BYTES } else { IPV6_BYTES };
    let tcp_bytes = TCP_BYTES + options.len() + payload_bytes;
    let total = link.len() + network_bytes + tcp_bytes;
    let Some(out) = out.get_mut(..total) else { return 0 };
    let (start, rest) = out.split_at_mut(link.len());
    start.copy_from_slice(link);
    let (network, tcp) = rest.split_at_mut(network_bytes);
    let (source, destination) = (ends.local.octets(), ends.peer.octets());
    if v4 {
        network[..2].copy_from_slice(&[0x45, 0]);
        network[2..4].copy_from_slice(&((IPV4_BYTES + tcp_bytes) as u16).to_be_bytes());
        // Identification is meaningless in an atomic datagram (RFC 6864): zero, with "don't fragment", which path
        // MTU discovery needs (RFC 1191 section 3).
        network[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        network[8..12].copy_from_slice(&[HOPS, PROTOCOL_TCP, 0, 0]);
        network[12..16].copy_from_slice(&source[12..]);
        network[16..20].copy_from_slice(&destination[12..]);
        let checksum = Sum::default().bytes(network).finish();
        network[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        network[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        network[4..6].copy_from_slice(&(tcp_bytes as u16).to_be_bytes());
        network[6..8].copy_from_slice(&[PROTOCOL_TCP, HOPS]);
        network[8..24].copy_from_slice(&source);
        network[24..40].copy_from_slice(&destination);
    }
    tcp[..2].copy_from_slice(&ends.local_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&ends.peer_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&header.sequence.0.to_be_bytes());
    let acknowledgement = if header.flags & ACK == 0 { 0 } else { header.acknowledgement.0 };
    tcp[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    tcp[12] = (((TCP_BYTES + options.len()) / 4) << 4) as u8;
    tcp[13] = header.flags;
    tcp[14..16].copy_from_slice(&header.window.to_be_bytes());
    tcp[16..20].fill(0);
    tcp[TCP_BYTES..TCP_BYTES + options.len()].copy_from_slice(options);
    fill(&mut tcp[TCP_BYTES + options.len()..]);
    let checksum = pseudo_header(ends, tcp_bytes).bytes(tcp).finish();
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::tcp::options::{Block, Timestamps};

    const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    const LINK_V6_TAGGED: [u8; 22] =
        [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 0x86, 0xdd];

    fn frame(v4: bool, header: &Header<'_>, payload: &[u8]) -> Vec<u8> {
        let (link, local, peer) = if v4 {
            (&LINK[..], "10.0.0.1:80", "10.0.0.2:4000")
        } else {
            (&LINK_V6_TAGGED[..], "[fd00::1]:80", "[fd00::2]:4000")
        };
        let ends = Ends::new(local.parse().expect("an address"), peer.parse().expect("an address"));
        let link = Link::new(link, v4).expect("a link header");
        let mut out = vec![0; 4_096];
        let bytes =
            write(&mut out, &link, &ends, header, payload.len(), |room| room.copy_from_slice(payload));
        out.truncate(bytes);
        out
    }

    fn header(options: &OptionsOut) -> Header<'_> {
        Header { sequence: Sequence(7), acknowledgement: Sequence(9), flags: ACK | PSH, window: 500, options }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let blocks = [Block::new(10, 20), Block::new(30, 40)];
        let options = OptionsOut::default().timestamps(Timestamps { value: 1, echo: 2 }).sack(&blocks);
        for v4 in [true, false] {
            for payload in [&b"hello"[..], b"", b"even"] {
                let frame = frame(v4, &header(&options), payload);
                let segment = Segment::parse(&frame, ChecksumPolicy::Verify).expect("a whole segment");
                assert_eq!(segment.ends.peer().port(), 80, "the sender is the receiver's peer");
                assert_eq!(segment.ends.local().is_ipv4(), v4);
                assert_eq!((segment.sequence, segment.acknowledgement), (Sequence(7), Sequence(9)));
                assert_eq!((segment.flags.bits(), segment.window), (ACK | PSH, 500));
                assert_eq!(segment.payload, payload);
                assert_eq!(segment.options.timestamps, Some(Timestamps { value: 1, echo: 2 }));
                assert_eq!(segment.options.sack(), blocks);
            }
        }
    }

    #[test]
    fn an_unfinished_checksum_passes_only_where_it_was_allowed() {
        let mut frame = frame(true, &header(&OptionsOut::default()), b"hello");
        let ends = Segment::parse(&frame, ChecksumPolicy::Verify).expect("a whole segment").ends;
        frame[14 + 20 + 16..][..2].copy_from_slice(&pseudo_header(&ends, 25).folded().to_be_bytes());
        assert_eq!(Segment::parse(&frame, ChecksumPolicy::Verify).err(), Some(Unusable::TcpChecksum));
        assert!(Segment::parse(&frame, ChecksumPolicy::PartialOk).is_ok());
    }

    #[test]
    fn a_frame_too_short_for_it_is_not_written() {
        let ends = Ends::new("10.0.0.1:80".parse().expect("one"), "10.0.0.2:1".parse().expect("one"));
        let link = Link::new(&LINK, true).expect("a link header");
        let bytes = write(&mut [0; 53], &link, &ends, &header(&OptionsOut::default()), 0, |_| ());
        assert_eq!(bytes, 0);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_behind_the_link_header_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            place in any::<proptest::sample::Index>(),
            bit in 0u8..8,
            v4 in any::<bool>(),
        ) {
            let mut frame = frame(v4, &header(&OptionsOut::default()), &payload);
            // Version, traffic class and flow label of IPv6 and its hop limit are under no checksum.
            let start = if v4 { 14 } else { 22 + 8 };
            let place = start + place.index(frame.len() - start);
            frame[place] ^= 1 << bit;
            prop_assert!(Segment::parse(&frame, ChecksumPolicy::Verify).is_err());
        }

        #[test]
        fn garbage_and_cut_frames_never_panic(
            garbage in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0usize..100,
        ) {
            let _ = Segment::parse(&garbage, ChecksumPolicy::PartialOk);
            let frame = frame(true, &header(&OptionsOut::default()), b"hello");
            prop_assert_eq!(Segment::parse(&frame[..cut.min(frame.len())], ChecksumPolicy::Verify).is_ok(), cut >= frame.len());
        }
    }
}
