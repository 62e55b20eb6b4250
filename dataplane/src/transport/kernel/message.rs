//! The addresses of datagrams as the kernel writes them: a `sockaddr` for the peer, and a control message for our own
//! (`IP_PKTINFO`, ip(7); RFC 3542 section 6 for IPv6). Both ways over plain bytes, which need not be aligned.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the longest address.
pub const NAME_BYTES_MAX: usize = size_of::<libc::sockaddr_in6>();
/// Bytes of the longest control message, padding included.
pub const CONTROL_BYTES_MAX: usize = control_space(size_of::<libc::in6_pktinfo>());

/// Where a control message's data begins (`CMSG_DATA`).
const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

/// `CMSG_SPACE`: each message is padded to whole words.
const fn control_space(data: usize) -> usize {
    HEADER_BYTES + data.next_multiple_of(size_of::<usize>())
}

const _: () = {
    assert!(HEADER_BYTES.is_multiple_of(size_of::<usize>()));
    // The layouts below are written out by hand.
    assert!(offset_of!(libc::sockaddr_in, sin_port) == 2 && offset_of!(libc::sockaddr_in6, sin6_port) == 2);
    assert!(offset_of!(libc::sockaddr_in, sin_addr) == 4 && offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
    assert!(offset_of!(libc::sockaddr_in6, sin6_scope_id) == 24);
};

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The address in a `sockaddr`; `None` when it is of another family, or cut short.
#[must_use]
pub fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(array(name, 2)?);
    match i32::from(u16::from_ne_bytes(array(name, 0)?)) {
        libc::AF_INET => Some(SocketAddrV4::new(array::<4>(name, 4)?.into(), port).into()),
        libc::AF_INET6 => {
            let scope = u32::from_ne_bytes(array(name, 24)?);
            Some(SocketAddrV6::new(array::<16>(name, 8)?.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

/// Writes the address as a `sockaddr`; returns its length in bytes.
pub fn write_name(address: SocketAddr, name: &mut [u8; NAME_BYTES_MAX]) -> usize {
    name.fill(0);
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&address.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[8..24].copy_from_slice(&address.ip().octets());
            name[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
            size_of::<libc::sockaddr_in6>()
        }
    }
}

/// Our address that a datagram was sent to, from the first control message; `None` when it was not sent to one host.
/// For a link-local one the scope names the interface.
#[must_use]
pub fn read_destination(control: &[u8], port: u16) -> Option<SocketAddr> {
    let level = i32::from_ne_bytes(array(control, offset_of!(libc::cmsghdr, cmsg_level))?);
    let kind = i32::from_ne_bytes(array(control, offset_of!(libc::cmsghdr, cmsg_type))?);
    let data = control.get(HEADER_BYTES..)?;
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let ours: [u8; 4] = array(data, offset_of!(libc::in_pktinfo, ipi_spec_dst))?;
            let sent_to: [u8; 4] = array(data, offset_of!(libc::in_pktinfo, ipi_addr))?;
            // The kernel answers a broadcast or multicast datagram from another address than it was sent to.
            (ours == sent_to).then(|| SocketAddr::new(Ipv4Addr::from(sent_to).into(), port))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let ip = Ipv6Addr::from(array::<16>(data, offset_of!(libc::in6_pktinfo, ipi6_addr))?);
            let interface = u32::from_ne_bytes(array(data, offset_of!(libc::in6_pktinfo, ipi6_ifindex))?);
            let scope = if ip.is_unicast_link_local() { interface } else { 0 };
            (!ip.is_multicast()).then_some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

/// Writes the control message that has a datagram leave from this address; returns its length in bytes.
pub fn write_source(local: SocketAddr, control: &mut [u8; CONTROL_BYTES_MAX]) -> usize {
    control.fill(0);
    let (level, kind, data) = match local {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>()),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>()),
    };
    control[..size_of::<usize>()].copy_from_slice(&(HEADER_BYTES + data).to_ne_bytes());
    let mut put = |at: usize, bytes: &[u8]| control[at..at + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(libc::cmsghdr, cmsg_level), &level.to_ne_bytes());
    put(offset_of!(libc::cmsghdr, cmsg_type), &kind.to_ne_bytes());
    match local.ip() {
        IpAddr::V4(ip) => put(HEADER_BYTES + offset_of!(libc::in_pktinfo, ipi_spec_dst), &ip.octets()),
        IpAddr::V6(ip) => put(HEADER_BYTES + offset_of!(libc::in6_pktinfo, ipi6_addr), &ip.octets()),
    }
    if let SocketAddr::V6(local) = local {
        let interface = HEADER_BYTES + offset_of!(libc::in6_pktinfo, ipi6_ifindex);
        put(interface, &local.scope_id().to_ne_bytes());
    }
    control_space(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        for address in ["192.0.2.7:11211", "[2001:db8::7]:6379", "[fe80::1%3]:9"] {
            let address: SocketAddr = address.parse().expect("an address");
            let mut name = [0xFF; NAME_BYTES_MAX];
            let length = write_name(address, &mut name);
            assert_eq!(read_name(&name[..length]), Some(address));
            for short in 0..length {
                // An IPv4 address is whole before the padding behind it.
                let whole = address.is_ipv4() && short >= 8;
                assert_eq!(read_name(&name[..short]).is_some(), whole, "{short} bytes of {address}");
            }
        }
        assert_eq!(read_name(&[0xFF; NAME_BYTES_MAX]), None);
    }

    #[test]
    fn a_destination_is_read_from_the_control_message_or_not_at_all() {
        let mut control = [0; CONTROL_BYTES_MAX];
        let local: SocketAddr = "192.0.2.7:9".parse().expect("an address");
        let length = write_source(local, &mut control);
        // What the kernel fills in for one host: both addresses are the same.
        let sent_to = HEADER_BYTES + offset_of!(libc::in_pktinfo, ipi_addr);
        assert_eq!(read_destination(&control[..length], 9), None, "sent to another address: broadcast");
        control[sent_to..sent_to + 4].copy_from_slice(&[192, 0, 2, 7]);
        assert_eq!(read_destination(&control[..length], 9), Some(local));
        let local: SocketAddr = "[fe80::1%3]:9".parse().expect("an address");
        let length = write_source(local, &mut control);
        assert_eq!(read_destination(&control[..length], 9), Some(local));
        for short in 0..HEADER_BYTES + size_of::<libc::in6_pktinfo>() {
            assert_eq!(read_destination(&control[..short], 9), None, "{short} bytes");
        }
        let multicast: SocketAddr = "[ff02::1]:9".parse().expect("an address");
        let length = write_source(multicast, &mut control);
        assert_eq!(read_destination(&control[..length], 9), None);
    }
}
