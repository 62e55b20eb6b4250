//! One datagram in or out of a kernel socket, with the address of ours it was sent to, so that the reply leaves
//! from there (`IP_PKTINFO`, ip(7); RFC 3542 section 6 for IPv6).

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for one control message of either family.
#[repr(C, align(8))]
struct Control([u8; 64]);

const _: () = {
    // SAFETY: computes a length from a length and touches no memory.
    assert!(unsafe { libc::CMSG_SPACE(mem::size_of::<libc::in6_pktinfo>() as u32) } as usize <= 64);
};

/// One datagram received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes of payload.
    pub(crate) length: usize,
    /// Who sent it.
    pub(crate) peer: SocketAddr,
    /// Which of our addresses it was sent to; for a link-local one the scope names the interface.
    pub(crate) local: SocketAddr,
}

/// Has the kernel tell each datagram's destination.
pub(super) fn ask_for_destination(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int; pointer and length describe `on`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives one datagram without waiting. `Ok(None)` is one that is not to be answered: cut short, from nowhere,
/// or sent to a broadcast or multicast address. `port` is the socket's own.
pub(crate) fn receive(socket: BorrowedFd<'_>, port: u16, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut control = Control([0; 64]);
    // SAFETY: a sockaddr_storage is plain old data, for which zeros are a valid value.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as above; null and zero are valid for every field.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: every pointer in `message` is to memory of the length beside it that lives until the call returns
    // and that nothing else refers to; the iovec covers `buffer`, borrowed mutably here.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Ok(None);
    }
    let (Some(peer), Some(local)) = (address_of(&name), destination(&message, port)) else { return Ok(None) };
    Ok((peer.port() != 0).then_some(Received { length, peer, local }))
}

/// Sends one datagram to `peer` from `local` without waiting.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    peer: SocketAddr,
    local: SocketAddr,
) -> io::Result<()> {
    let (name, name_length) = storage_of(peer);
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: plain old data, for which zeros are a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw const name).cast_mut().cast();
    message.msg_namelen = name_length;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    match local {
        SocketAddr::V4(local) => {
            let source = libc::in_addr { s_addr: u32::from_ne_bytes(local.ip().octets()) };
            let information = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, information);
        }
        SocketAddr::V6(local) => {
            let information = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: local.ip().octets() },
                ipi6_ifindex: local.scope_id(),
            };
            put(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, information);
        }
    }
    // SAFETY: every pointer in `message` is to memory of the length beside it that lives until the call returns;
    // sendmsg only reads what they point to, also through those that had to be made mutable for the struct.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes the one control message there is room for.
fn put<T: Copy>(message: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) {
    let length = mem::size_of::<T>() as u32;
    // SAFETY: both compute a length from a length and touch no memory.
    let (space, header_length) = unsafe { (libc::CMSG_SPACE(length), libc::CMSG_LEN(length)) };
    assert!(space as usize <= mem::size_of::<Control>(), "the control buffer holds one message");
    message.msg_controllen = space as _;
    // SAFETY: msg_control points to a `Control`, aligned as a cmsghdr must be, and msg_controllen says that it has
    // room for this header and value, as just asserted; so CMSG_FIRSTHDR is not null and CMSG_DATA is inside.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = header_length as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
}

/// Our address that a datagram was sent to; `None` when it was not sent to one host.
fn destination(message: &libc::msghdr, port: u16) -> Option<SocketAddr> {
    // SAFETY: the kernel has filled msg_control with msg_controllen bytes of control messages, so the first header
    // is null or whole.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    match (header.cmsg_level, header.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: a message of this type carries one in_pktinfo; it may lie unaligned.
            let information = unsafe { libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned() };
            // The kernel answers a broadcast or multicast datagram from another address than it was sent to.
            let unicast = information.ipi_spec_dst.s_addr == information.ipi_addr.s_addr;
            let ip = Ipv4Addr::from(information.ipi_addr.s_addr.to_ne_bytes());
            unicast.then_some(SocketAddr::new(ip.into(), port))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: a message of this type carries one in6_pktinfo; it may lie unaligned.
            let information = unsafe { libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned() };
            let ip = Ipv6Addr::from(information.ipi6_addr.s6_addr);
            let scope = if ip.is_unicast_link_local() { information.ipi6_ifindex } else { 0 };
            (!ip.is_multicast()).then_some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: a sockaddr_storage is at least as large and as aligned as every sockaddr, and the family says
            // that the kernel wrote this one.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn storage_of(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: plain old data, for which zeros are a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(address) => {
            // SAFETY: a sockaddr_storage is at least as large and as aligned as every sockaddr.
            let name = unsafe { &mut *std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = address.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let name = unsafe { &mut *std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = address.port().to_be();
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// Whether a failed receive or send says only that there is nothing more to do now.
pub(super) fn is_would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    /// Receives the one datagram that is on its way over `lo`.
    fn receive_one(socket: &UdpSocket, buffer: &mut [u8]) -> Option<Received> {
        let mut poll = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
        let deadline = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut poll, Some(&deadline)), Ok(1), "a datagram arrives");
        let port = socket.local_addr().expect("it is bound").port();
        receive(socket.as_fd(), port, buffer).expect("there is a datagram")
    }

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.77"), ("[::]:0", "::1")] {
            let server = UdpSocket::bind(any).expect("a free port");
            let port = server.local_addr().expect("it is bound").port();
            let asked = SocketAddr::new(asked.parse().expect("an address"), port);
            ask_for_destination(server.as_fd(), asked.is_ipv6()).expect("the kernel tells destinations");
            let client = UdpSocket::bind((asked.ip(), 0)).expect("a free port");
            client.connect(asked).expect("a connected socket takes replies from this address only");
            client.send(b"question").expect("it is sent");
            let mut buffer = [0; 64];
            let received = receive_one(&server, &mut buffer).expect("it is whole");
            assert_eq!(&buffer[..received.length], b"question");
            assert_eq!(received.local, asked);
            assert_eq!(received.peer, client.local_addr().expect("it is bound"));
            send(server.as_fd(), b"answer", received.peer, received.local).expect("it is sent");
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a deadline");
            let length = client.recv(&mut buffer).expect("the answer arrives");
            assert_eq!(&buffer[..length], b"answer");
        }
    }

    #[test]
    fn what_is_cut_short_or_broadcast_is_not_answered() {
        let server = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        let port = server.local_addr().expect("it is bound").port();
        ask_for_destination(server.as_fd(), false).expect("the kernel tells destinations");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        client.send_to(&[7; 65], ("127.0.0.1", port)).expect("it is sent");
        assert_eq!(receive_one(&server, &mut [0; 64]), None);
        client.set_broadcast(true).expect("broadcasts may be sent");
        client.send_to(b"everyone", ("127.255.255.255", port)).expect("it is sent");
        assert_eq!(receive_one(&server, &mut [0; 64]), None);
        let nothing = receive(server.as_fd(), port, &mut [0; 64]).expect_err("nothing is left");
        assert!(is_would_block(&nothing));
    }
}
