//! The headers of a reply: those of its request with the ends exchanged, so that no route, neighbour or VLAN has to
//! be looked up. The path a packet came by is the path its reply takes.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{PROTOCOL_UDP, Sum, pseudo_header, udp_field};
use crate::limits::FRAME_BYTES;

/// Bytes of the longest link header: Ethernet and two VLAN tags.
const LINK_BYTES_MAX: usize = 14 + 2 * 4;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
/// Time to live and hop limit of what we send (RFC 1700).
const HOPS: u8 = 64;

/// What is needed to write replies to one datagram.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHeaders {
    /// Ethernet header with VLAN tags, its addresses already exchanged.
    link: [u8; LINK_BYTES_MAX],
    link_bytes: usize,
    /// Our end.
    source: SocketAddr,
    /// The client's end.
    destination: SocketAddr,
}

impl ReplyHeaders {
    /// From the request's link header (Ethernet and up to two VLAN tags), and its two ends, both of one family.
    ///
    /// # Panics
    /// When the link header is not 14, 18 or 22 bytes long: the parser gives no other.
    #[must_use]
    pub fn to_request(request_link: &[u8], client: SocketAddr, local: SocketAddr) -> Self {
        let link_bytes = request_link.len();
        assert!((14..=LINK_BYTES_MAX).contains(&link_bytes), "a link header of {link_bytes} bytes");
        let mut link = [0; LINK_BYTES_MAX];
        link[..6].copy_from_slice(&request_link[6..12]);
        link[6..12].copy_from_slice(&request_link[..6]);
        link[12..link_bytes].copy_from_slice(&request_link[12..]);
        Self { link, link_bytes, source: local, destination: client }
    }

    /// Bytes of all headers together.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        let network = if self.source.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
        self.link_bytes + network + UDP_BYTES
    }

    /// Largest payload that fits a frame behind these headers, and a link of this MTU, which counts all but the
    /// link header.
    #[must_use]
    pub const fn payload_bytes_max(&self, mtu_bytes: usize) -> usize {
        let frame = FRAME_BYTES - self.bytes();
        let link = mtu_bytes.saturating_sub(self.bytes() - self.link_bytes);
        if frame < link { frame } else { link }
    }

    /// Writes a whole packet whose payload is `parts` in order; returns its length, `None` when `out` is too
    /// short for it.
    #[must_use]
    pub fn write(&self, out: &mut [u8], parts: &[&[u8]]) -> Option<usize> {
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let total = self.bytes() + payload_bytes;
        let out = out.get_mut(..total)?;
        let udp_bytes = u16::try_from(UDP_BYTES + payload_bytes).ok()?;

        let (link, network) = out.split_at_mut(self.link_bytes);
        link.copy_from_slice(&self.link[..self.link_bytes]);
        let udp = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (header, udp) = network.split_at_mut(IPV4_BYTES);
                let total_bytes = u16::try_from(IPV4_BYTES + usize::from(udp_bytes)).ok()?;
                header[0] = 0x45;
                header[1] = 0;
                header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
                // Identification is meaningless in an atomic datagram (RFC 6864): zero, with "don't fragment".
                header[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
                header[8] = HOPS;
                header[9] = PROTOCOL_UDP;
                header[10..12].copy_from_slice(&[0, 0]);
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                let checksum = Sum::default().bytes(header).finish();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                udp
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (header, udp) = network.split_at_mut(IPV6_BYTES);
                header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
                header[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
                header[6] = PROTOCOL_UDP;
                header[7] = HOPS;
                header[8..24].copy_from_slice(&source.octets());
                header[24..40].copy_from_slice(&destination.octets());
                udp
            }
            _ => return None,
        };

        let (header, payload) = udp.split_at_mut(UDP_BYTES);
        header[..2].copy_from_slice(&self.source.port().to_be_bytes());
        header[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        header[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
        header[6..8].copy_from_slice(&[0, 0]);
        let mut rest = payload;
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        let checksum = pseudo_header(self.source.ip(), self.destination.ip(), udp_bytes).bytes(udp).finish();
        udp[6..8].copy_from_slice(&udp_field(checksum).to_be_bytes());
        Some(total)
    }
}
