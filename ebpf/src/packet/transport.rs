//! UDP (RFC 768) and TCP (RFC 9293) headers.

use super::network::Network;
use super::{Reader, Unparsed};
use crate::flow::{PROTOCOL_TCP, PROTOCOL_UDP};

/// Bytes of a UDP header.
const UDP_BYTES: usize = 8;
/// Shortest TCP header: one without options.
const TCP_BYTES_MIN: usize = 20;

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Source port, in host byte order.
    pub source_port: u16,
    /// Destination port, in host byte order.
    pub destination_port: u16,
    /// Header and payload, in bytes; at least 8, and no more than the network packet holds.
    pub length: u16,
    /// The checksum as it stands there: 0 is none, which IPv4 alone allows.
    pub checksum: u16,
}

/// What steering needs of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port, in host byte order.
    pub source_port: u16,
    /// Destination port, in host byte order.
    pub destination_port: u16,
    /// Control bits.
    pub flags: TcpFlags,
}

/// TCP control bits (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;

    /// From the header's byte.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The header's byte.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// True for the first segment of a connection: SYN, and neither ACK nor RST.
    #[inline(always)]
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST) == Self::SYN
    }

    /// True for a reset.
    #[inline(always)]
    #[must_use]
    pub const fn resets(self) -> bool {
        self.0 & Self::RST != 0
    }
}

/// The transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp(UdpHeader),
    /// TCP.
    Tcp(TcpHeader),
}

impl Transport {
    /// Source port, in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        match self {
            Self::Udp(header) => header.source_port,
            Self::Tcp(header) => header.source_port,
        }
    }

    /// Destination port, in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        match self {
            Self::Udp(header) => header.destination_port,
            Self::Tcp(header) => header.destination_port,
        }
    }

    /// IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match self {
            Self::Udp(_) => PROTOCOL_UDP,
            Self::Tcp(_) => PROTOCOL_TCP,
        }
    }
}

/// A transport header, and how the network payload divides.
pub(super) struct Parsed {
    pub(super) header: Transport,
    pub(super) header_bytes: usize,
    pub(super) payload_bytes: usize,
}

#[inline(always)]
pub(super) fn transport<R: Reader + ?Sized>(reader: &R, network: &Network) -> Result<Parsed, Unparsed> {
    match network.protocol {
        PROTOCOL_UDP => udp(reader, network),
        PROTOCOL_TCP => tcp(reader, network),
        _ => Err(Unparsed::OtherProtocol),
    }
}

#[inline(always)]
fn udp<R: Reader + ?Sized>(reader: &R, network: &Network) -> Result<Parsed, Unparsed> {
    if network.payload_bytes < UDP_BYTES {
        return Err(Unparsed::Malformed);
    }
    let [s0, s1, d0, d1, l0, l1, c0, c1] = reader.read(network.payload_offset).ok_or(Unparsed::Truncated)?;
    let length = u16::from_be_bytes([l0, l1]);
    // Shorter than the network packet is legal (the rest is not the datagram's); zero stands for a jumbogram
    // (RFC 2675), which cannot be one here.
    if usize::from(length) < UDP_BYTES || usize::from(length) > network.payload_bytes {
        return Err(Unparsed::Malformed);
    }
    Ok(Parsed {
        header: Transport::Udp(UdpHeader {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            length,
            checksum: u16::from_be_bytes([c0, c1]),
        }),
        header_bytes: UDP_BYTES,
        payload_bytes: usize::from(length) - UDP_BYTES,
    })
}

#[inline(always)]
fn tcp<R: Reader + ?Sized>(reader: &R, network: &Network) -> Result<Parsed, Unparsed> {
    let [s0, s1, d0, d1]: [u8; 4] = reader.read(network.payload_offset).ok_or(Unparsed::Truncated)?;
    let [offset, flags]: [u8; 2] = reader.read(network.payload_offset + 12).ok_or(Unparsed::Truncated)?;
    let header_bytes = usize::from(offset >> 4) * 4;
    if header_bytes < TCP_BYTES_MIN || header_bytes > network.payload_bytes {
        return Err(Unparsed::Malformed);
    }
    Ok(Parsed {
        header: Transport::Tcp(TcpHeader {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            flags: TcpFlags::from_bits(flags),
        }),
        header_bytes,
        payload_bytes: network.payload_bytes - header_bytes,
    })
}
