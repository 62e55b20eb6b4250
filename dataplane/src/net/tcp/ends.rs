//! What names a flow (its two ends) and what its frames start with (the link header).

use std::net::SocketAddr;

use dataplane_ebpf::address::Address;

/// Bytes of the longest link header: Ethernet and two VLAN tags.
pub(super) const LINK_BYTES_MAX: usize = 14 + 2 * 4;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Both ends of a flow, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Our address.
    pub local: Address,
    /// The peer's address, of the same family.
    pub peer: Address,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub peer_port: u16,
}

impl Ends {
    /// Bytes of [`Ends::octets`].
    pub(super) const BYTES: usize = 36;

    /// From socket addresses.
    #[must_use]
    pub fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            local: local.ip().into(),
            peer: peer.ip().into(),
            local_port: local.port(),
            peer_port: peer.port(),
        }
    }

    /// Our end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local.to_ip(), self.local_port)
    }

    /// The peer's end.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer.to_ip(), self.peer_port)
    }

    /// True for IPv4.
    #[inline]
    pub(super) fn is_v4(&self) -> bool {
        self.local.octets()[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    }

    /// What hashes are taken of.
    #[inline]
    pub(super) fn octets(&self) -> [u8; Self::BYTES] {
        let mut octets = [0; Self::BYTES];
        octets[..16].copy_from_slice(&self.local.octets());
        octets[16..32].copy_from_slice(&self.peer.octets());
        octets[32..34].copy_from_slice(&self.local_port.to_be_bytes());
        octets[34..].copy_from_slice(&self.peer_port.to_be_bytes());
        octets
    }
}

/// Ethernet header and VLAN tags of what we send to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    octets: [u8; LINK_BYTES_MAX],
    bytes: u8,
}

impl Link {
    /// No link yet.
    pub(super) const NONE: Self = Self { octets: [0; LINK_BYTES_MAX], bytes: 0 };

    /// From a whole header to send with; `None` unless it is 14, 18 or 22 bytes and announces this family.
    pub(super) fn new(header: &[u8], v4: bool) -> Option<Self> {
        let ethertype = if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        if !matches!(header.len(), 14 | 18 | LINK_BYTES_MAX) || !header.ends_with(&ethertype) {
            return None;
        }
        let mut octets = [0; LINK_BYTES_MAX];
        octets[..header.len()].copy_from_slice(header);
        Some(Self { octets, bytes: header.len() as u8 })
    }

    /// The header of an answer: that of what came, with its addresses exchanged. The path a frame came by is the
    /// path its answer takes. The parser lets through no header that is longer than the longest.
    #[inline]
    pub(super) fn answering(header: &[u8]) -> Self {
        let mut octets = [0; LINK_BYTES_MAX];
        octets[..header.len()].copy_from_slice(header);
        octets[..6].copy_from_slice(&header[6..12]);
        octets[6..12].copy_from_slice(&header[..6]);
        Self { octets, bytes: header.len() as u8 }
    }

    /// The header.
    #[inline]
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_both_families_come_back() {
        for (local, peer) in [("10.0.0.1:80", "10.0.0.2:4000"), ("[fd00::1]:80", "[fd00::2]:4000")] {
            let (local, peer) = (local.parse().expect("an address"), peer.parse().expect("an address"));
            let ends = Ends::new(local, peer);
            assert_eq!((ends.local(), ends.peer(), ends.is_v4()), (local, peer, local.is_ipv4()));
        }
    }

    #[test]
    fn an_answer_keeps_the_tags_and_exchanges_the_addresses() {
        let header = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x81, 0, 0, 7, 0x08, 0];
        let link = Link::answering(&header);
        assert_eq!(link.octets(), [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0x81, 0, 0, 7, 0x08, 0]);
        assert_eq!(Link::new(link.octets(), true), Some(link));
        assert_eq!(Link::new(link.octets(), false), None, "the wrong family");
        assert_eq!(Link::new(&header[..16], true), None, "half a tag");
    }
}
