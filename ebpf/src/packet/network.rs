//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::{Reader, Unparsed};
use crate::address::Address;

/// Shortest IPv4 header: one without options.
const IPV4_BYTES_MIN: usize = 20;
const IPV6_BYTES: usize = 40;

/// `MF` flag and fragment offset: either makes a fragment of the packet.
const IPV4_FRAGMENT_MASK: u16 = 0x3fff;

const NEXT_HEADER_HOP_BY_HOP: u8 = 0;
const NEXT_HEADER_ROUTING: u8 = 43;
const NEXT_HEADER_FRAGMENT: u8 = 44;
const NEXT_HEADER_AUTHENTICATION: u8 = 51;
const NEXT_HEADER_DESTINATION_OPTIONS: u8 = 60;
const NEXT_HEADER_MOBILITY: u8 = 135;
const NEXT_HEADER_HOST_IDENTITY: u8 = 139;
const NEXT_HEADER_SHIM6: u8 = 140;

/// Version of the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What the rest of the parser needs of a network header.
pub(super) struct Network {
    pub(super) version: IpVersion,
    /// Header and payload, in bytes.
    pub(super) bytes: usize,
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) protocol: u8,
    pub(super) payload_offset: usize,
    pub(super) payload_bytes: usize,
}

#[inline(always)]
pub(super) fn ipv4<R: Reader + ?Sized>(reader: &R, offset: usize) -> Result<Network, Unparsed> {
    let header: [u8; IPV4_BYTES_MIN] = reader.read(offset).ok_or(Unparsed::Truncated)?;
    let [version_and_length, _, length_0, length_1, _, _, fragment_0, fragment_1, _, protocol, ..] = header;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    if version_and_length >> 4 != 4 {
        return Err(Unparsed::Malformed);
    }
    let header_bytes = usize::from(version_and_length & 0x0f) * 4;
    let bytes = usize::from(u16::from_be_bytes([length_0, length_1]));
    if header_bytes < IPV4_BYTES_MIN || bytes < header_bytes {
        return Err(Unparsed::Malformed);
    }
    if !reader.has_bytes(offset + bytes) {
        return Err(Unparsed::Truncated);
    }
    if u16::from_be_bytes([fragment_0, fragment_1]) & IPV4_FRAGMENT_MASK != 0 {
        return Err(Unparsed::Fragment);
    }
    Ok(Network {
        version: IpVersion::V4,
        bytes,
        source: Address::from_v4([s0, s1, s2, s3]),
        destination: Address::from_v4([d0, d1, d2, d3]),
        protocol,
        payload_offset: offset + header_bytes,
        payload_bytes: bytes - header_bytes,
    })
}

#[inline(always)]
pub(super) fn ipv6<R: Reader + ?Sized>(reader: &R, offset: usize) -> Result<Network, Unparsed> {
    let [version, _, _, _, length_0, length_1, next_header, _]: [u8; 8] =
        reader.read(offset).ok_or(Unparsed::Truncated)?;
    let source = reader.read(offset + 8).ok_or(Unparsed::Truncated)?;
    let destination = reader.read(offset + 24).ok_or(Unparsed::Truncated)?;
    if version >> 4 != 6 {
        return Err(Unparsed::Malformed);
    }
    let payload_bytes = usize::from(u16::from_be_bytes([length_0, length_1]));
    if !reader.has_bytes(offset + IPV6_BYTES + payload_bytes) {
        return Err(Unparsed::Truncated);
    }
    match next_header {
        NEXT_HEADER_FRAGMENT => return Err(Unparsed::Fragment),
        NEXT_HEADER_HOP_BY_HOP
        | NEXT_HEADER_ROUTING
        | NEXT_HEADER_AUTHENTICATION
        | NEXT_HEADER_DESTINATION_OPTIONS
        | NEXT_HEADER_MOBILITY
        | NEXT_HEADER_HOST_IDENTITY
        | NEXT_HEADER_SHIM6 => return Err(Unparsed::Ipv6Extension),
        _ => {}
    }
    Ok(Network {
        version: IpVersion::V6,
        bytes: IPV6_BYTES + payload_bytes,
        source: Address::from_v6(source),
        destination: Address::from_v6(destination),
        protocol: next_header,
        payload_offset: offset + IPV6_BYTES,
        payload_bytes,
    })
}
