//! The five-tuple of a packet, which is the key under which a verdict sticks to a flow.

use crate::address::Address;
use crate::packet::Packet;

/// IP protocol number of TCP (RFC 9293).
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;

/// Both ends of a flow, as its packets arrive: the source is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub source: Address,
    /// Ours.
    pub destination: Address,
    /// The client's port, in host byte order.
    pub source_port: u16,
    /// Ours.
    pub destination_port: u16,
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub protocol: u8,
    /// The kernel hashes keys as bytes: padding is spelt out and always zero.
    _padding: [u8; 3],
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The flow a packet belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn of(packet: &Packet) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            source_port: packet.transport.source_port(),
            destination_port: packet.transport.destination_port(),
            protocol: packet.transport.protocol(),
            _padding: [0; 3],
        }
    }
}
