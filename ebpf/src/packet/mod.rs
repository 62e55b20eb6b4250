//! The packet parser: Ethernet, up to two VLAN tags, IPv4 with options or IPv6, UDP or TCP.
//!
//! It is written against [`Reader`], so that the same code satisfies the kernel's verifier (whose packets are a
//! pair of pointers) and runs over a slice. It never panics and never reads past the packet: whatever cannot be
//! made sense of comes back as an [`Unparsed`] reason. Checksums are left to user space.

mod network;
mod reader;
#[cfg(test)]
mod tests;
mod transport;

pub use network::IpVersion;
pub use reader::Reader;
pub use transport::{TcpFlags, TcpHeader, Transport, UdpHeader};

use crate::address::Address;

/// Bytes of an Ethernet header without tags (IEEE 802.3, clause 3).
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of one VLAN tag (IEEE 802.1Q, clause 9.3).
pub const VLAN_TAG_BYTES: usize = 4;
/// VLAN tags that are looked through: customer and service tag.
pub const VLAN_TAGS_MAX: usize = 2;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_VLAN_SERVICE: u16 = 0x88a8;

/// Why a packet is not a whole UDP datagram or TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// It ends inside one of its headers, or before what they announce.
    Truncated,
    /// A length or version in its headers contradicts another one.
    Malformed,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// More than [`VLAN_TAGS_MAX`] tags.
    VlanDepth,
    /// An IPv4 or IPv6 fragment.
    Fragment,
    /// IPv6 with an extension header other than the fragment header.
    Ipv6Extension,
    /// Neither UDP nor TCP.
    OtherProtocol,
}

impl Unparsed {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Truncated,
        Self::Malformed,
        Self::NotIp,
        Self::VlanDepth,
        Self::Fragment,
        Self::Ipv6Extension,
        Self::OtherProtocol,
    ];
}

/// Headers of a whole, unfragmented UDP datagram or TCP segment. Offsets count bytes from the start of the
/// Ethernet header, and `network_offset < transport_offset < payload_offset <= payload_offset + payload_bytes <=
/// length of the packet` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Version of the network header.
    pub version: IpVersion,
    /// Where the network header starts: the Ethernet header and its VLAN tags are before it.
    pub network_offset: usize,
    /// Bytes from the network header to the end of the packet it describes (IPv4 total length); Ethernet padding
    /// may follow.
    pub network_bytes: usize,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Where the transport header starts.
    pub transport_offset: usize,
    /// The transport header.
    pub transport: Transport,
    /// Where the payload starts.
    pub payload_offset: usize,
    /// Bytes of payload.
    pub payload_bytes: usize,
}

impl Packet {
    /// True when it was sent to a broadcast or multicast MAC address (IEEE 802.3, clause 3.2.3: the I/G bit).
    #[inline(always)]
    #[must_use]
    pub const fn is_link_multicast(&self) -> bool {
        self.destination_mac[0] & 1 != 0
    }

    /// VLAN tags it carries.
    #[inline(always)]
    #[must_use]
    pub const fn vlan_tags(&self) -> usize {
        (self.network_offset - ETHERNET_BYTES) / VLAN_TAG_BYTES
    }
}

/// Parses the headers of one packet.
///
/// # Errors
/// [`Unparsed`] for whatever is not a whole, unfragmented UDP datagram or TCP segment.
// The verifier has to see the whole of it as one function, and what the program does not use has to fall away.
#[inline(always)]
pub fn parse<R: Reader + ?Sized>(reader: &R) -> Result<Packet, Unparsed> {
    let destination_mac = reader.read(0).ok_or(Unparsed::Truncated)?;
    let source_mac = reader.read(6).ok_or(Unparsed::Truncated)?;
    let (ethertype, network_offset) = untag(reader)?;
    let network = match ethertype {
        ETHERTYPE_IPV4 => network::ipv4(reader, network_offset)?,
        ETHERTYPE_IPV6 => network::ipv6(reader, network_offset)?,
        ETHERTYPE_VLAN | ETHERTYPE_VLAN_SERVICE => return Err(Unparsed::VlanDepth),
        _ => return Err(Unparsed::NotIp),
    };
    let transport = transport::transport(reader, &network)?;
    Ok(Packet {
        destination_mac,
        source_mac,
        version: network.version,
        network_offset,
        network_bytes: network.bytes,
        source: network.source,
        destination: network.destination,
        transport_offset: network.payload_offset,
        transport: transport.header,
        payload_offset: network.payload_offset + transport.header_bytes,
        payload_bytes: transport.payload_bytes,
    })
}

/// The ethertype behind the tags, and where its header starts.
#[inline(always)]
fn untag<R: Reader + ?Sized>(reader: &R) -> Result<(u16, usize), Unparsed> {
    const LAST: usize = ETHERNET_BYTES + VLAN_TAGS_MAX * VLAN_TAG_BYTES;
    let mut offset = ETHERNET_BYTES;
    loop {
        let ethertype = u16::from_be_bytes(reader.read(offset - 2).ok_or(Unparsed::Truncated)?);
        let tagged = matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_VLAN_SERVICE);
        if !tagged || offset == LAST {
            return Ok((ethertype, offset));
        }
        offset += VLAN_TAG_BYTES;
    }
}
