//! Ethernet, IPv4 and UDP headers written and read by hand: one flow between two hosts (RFC 791, RFC 768).

use std::net::Ipv4Addr;

/// Bytes of Ethernet, IPv4 without options, and UDP.
pub const HEADERS_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;
const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;
/// EtherType of IPv4.
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// Version 4, header of five words.
const VERSION_AND_LENGTH: u8 = 0x45;
/// Do not fragment (RFC 791, section 3.1).
const DO_NOT_FRAGMENT: [u8; 2] = [0x40, 0];

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Hardware address.
    pub mac: [u8; 6],
    /// Address.
    pub address: Ipv4Addr,
    /// UDP port.
    pub port: u16,
}

/// What a received frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'f> {
    /// A whole datagram that came back along the flow: its payload.
    Payload(&'f [u8]),
    /// One that came back along the flow with a wrong length or checksum, or without a checksum.
    Damaged,
    /// Anything else: neighbour discovery and its like.
    Foreign,
}

/// Datagrams from one end to the other.
#[derive(Clone, Debug)]
pub struct Flow {
    template: [u8; HEADERS_BYTES],
    local: Endpoint,
    peer: Endpoint,
}

impl Flow {
    /// From `local` to `peer`.
    #[must_use]
    pub fn new(local: Endpoint, peer: Endpoint) -> Self {
        let mut template = [0; HEADERS_BYTES];
        template[..6].copy_from_slice(&peer.mac);
        template[6..12].copy_from_slice(&local.mac);
        template[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        template[14] = VERSION_AND_LENGTH;
        template[20..22].copy_from_slice(&DO_NOT_FRAGMENT);
        template[22] = 64;
        template[23] = UDP;
        template[26..30].copy_from_slice(&local.address.octets());
        template[30..34].copy_from_slice(&peer.address.octets());
        template[34..36].copy_from_slice(&local.port.to_be_bytes());
        template[36..38].copy_from_slice(&peer.port.to_be_bytes());
        Self { template, local, peer }
    }

    /// Writes a whole frame: `payload` gets what lies behind the headers and gives the payload's length. Both
    /// checksums are complete. Returns the frame's length.
    pub fn write(&self, frame: &mut [u8], payload: impl FnOnce(&mut [u8]) -> usize) -> usize {
        frame[..HEADERS_BYTES].copy_from_slice(&self.template);
        let length = payload(&mut frame[HEADERS_BYTES..]);
        let udp_length = (UDP_BYTES + length) as u16;
        frame[16..18].copy_from_slice(&(IPV4_BYTES as u16 + udp_length).to_be_bytes());
        frame[38..40].copy_from_slice(&udp_length.to_be_bytes());
        let header_checksum = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&header_checksum.to_be_bytes());
        let end = HEADERS_BYTES + length;
        // A checksum that comes to zero is sent as its other form: zero says that there is none (RFC 768).
        let checksum = match !fold(udp_sum(&frame[..end])) {
            0 => 0xffff,
            checksum => checksum,
        };
        frame[40..42].copy_from_slice(&checksum.to_be_bytes());
        end
    }

    /// What a received frame is to this flow.
    #[must_use]
    pub fn read<'f>(&self, frame: &'f [u8]) -> Received<'f> {
        let Some(headers) = frame.first_chunk::<HEADERS_BYTES>() else { return Received::Foreign };
        let back = headers[12..14] == ETHERTYPE_IPV4
            && headers[14] == VERSION_AND_LENGTH
            && headers[23] == UDP
            && headers[26..30] == self.peer.address.octets()
            && headers[30..34] == self.local.address.octets()
            && headers[34..36] == self.peer.port.to_be_bytes()
            && headers[36..38] == self.local.port.to_be_bytes();
        if !back {
            return Received::Foreign;
        }
        let total = usize::from(u16::from_be_bytes([headers[16], headers[17]]));
        let udp = usize::from(u16::from_be_bytes([headers[38], headers[39]]));
        if udp < UDP_BYTES || total != IPV4_BYTES + udp {
            return Received::Damaged;
        }
        // A frame may be padded to the least length of Ethernet.
        let Some(packet) = frame.get(..ETHERNET_BYTES + total) else { return Received::Damaged };
        // Legal as it is over IPv4, a reply without a checksum is not taken: it could not be verified.
        let whole = fold(sum(&packet[14..34])) == 0xffff
            && headers[40..42] != [0, 0]
            && fold(udp_sum(packet)) == 0xffff;
        if whole { Received::Payload(&packet[HEADERS_BYTES..]) } else { Received::Damaged }
    }
}

/// Turns a frame round in place: swaps the hardware addresses, the addresses and the ports. Sums do not change, so
/// both checksums stay right. False when it is no UDP over plain IPv4.
pub(super) fn turn_round(frame: &mut [u8]) -> bool {
    let Some(headers) = frame.first_chunk_mut::<HEADERS_BYTES>() else { return false };
    if headers[12..14] != ETHERTYPE_IPV4 || headers[14] != VERSION_AND_LENGTH || headers[23] != UDP {
        return false;
    }
    let (left, right) = headers.split_at_mut(6);
    left.swap_with_slice(&mut right[..6]);
    let (left, right) = headers.split_at_mut(30);
    left[26..].swap_with_slice(&mut right[..4]);
    let (left, right) = headers.split_at_mut(36);
    left[34..].swap_with_slice(&mut right[..2]);
    true
}

/// Sum over pseudo-header, UDP header and payload (RFC 768); all ones when the checksum in it is right.
fn udp_sum(packet: &[u8]) -> u64 {
    let length = (packet.len() - ETHERNET_BYTES - IPV4_BYTES) as u64;
    sum(&packet[26..34]) + u64::from(UDP) + length + sum(&packet[34..])
}

/// Sum of big-endian 16-bit words, the last one padded (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum to 16 bits with the carries added in.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow() -> (Flow, Flow) {
        let local = Endpoint { mac: [2, 0, 0, 0, 0, 1], address: Ipv4Addr::new(10, 77, 0, 1), port: 4000 };
        let peer = Endpoint { mac: [2, 0, 0, 0, 0, 2], address: Ipv4Addr::new(10, 77, 0, 2), port: 11211 };
        (Flow::new(local, peer), Flow::new(peer, local))
    }

    #[test]
    fn the_header_checksum_is_that_of_the_textbook() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
    }

    proptest! {
        #[test]
        fn what_one_end_writes_the_other_reads(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let (there, back) = flow();
            let mut frame = [0; 512];
            let length = there.write(&mut frame, |out| {
                out[..payload.len()].copy_from_slice(&payload);
                payload.len()
            });
            prop_assert_eq!(back.read(&frame[..length]), Received::Payload(payload.as_slice()));
            prop_assert_eq!(there.read(&frame[..length]), Received::Foreign);
            let cut = if payload.is_empty() { Received::Foreign } else { Received::Damaged };
            prop_assert_eq!(back.read(&frame[..length - 1]), cut);

            prop_assert!(turn_round(&mut frame[..length]));
            prop_assert_eq!(there.read(&frame[..length]), Received::Payload(payload.as_slice()));
        }

        #[test]
        fn damage_is_seen(payload in prop::collection::vec(any::<u8>(), 1..64), bit in 0usize..1024) {
            let (there, back) = flow();
            let mut frame = [0; 256];
            let length = there.write(&mut frame, |out| {
                out[..payload.len()].copy_from_slice(&payload);
                payload.len()
            });
            // From the IP header on; the Ethernet addresses are under no checksum.
            let at = 14 + bit / 8 % (length - 14);
            frame[at] ^= 1 << (bit % 8);
            // What tells one flow from another, changed, makes it another's: version, protocol, addresses, ports.
            let foreign = at == 14 || at == 23 || (26..38).contains(&at);
            let expected = if foreign { Received::Foreign } else { Received::Damaged };
            prop_assert_eq!(back.read(&frame[..length]), expected);
        }
    }
}
