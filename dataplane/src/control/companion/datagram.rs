//! One datagram in or out of a kernel socket, with the address of ours it was sent to, so that the reply leaves
//! from there (`IP_PKTINFO`, ip(7); RFC 3542 section 6 for IPv6).

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::transport::kernel::message::{self, CONTROL_BYTES_MAX, NAME_BYTES_MAX};

/// Room for one control message of either family, aligned as the kernel reads it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES_MAX]);

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
    let (mut name, mut control) = ([0; NAME_BYTES_MAX], Control([0; CONTROL_BYTES_MAX]));
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr is plain old data; null and zero are valid for every field.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = name.len() as libc::socklen_t;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in `message` is to memory of the length beside it that lives until the call returns
    // and that nothing else refers to; the iovec covers `buffer`, borrowed mutably here.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Ok(None);
    }
    let named = name.get(..message.msg_namelen as usize).unwrap_or(&name);
    let told = control.0.get(..message.msg_controllen as usize).unwrap_or(&[]);
    let ends = message::read_name(named).zip(message::read_destination(told, port));
    Ok(ends.filter(|(peer, _)| peer.port() != 0).map(|(peer, local)| Received { length, peer, local }))
}

/// Sends one datagram to `peer` from `local` without waiting.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    peer: SocketAddr,
    local: SocketAddr,
) -> io::Result<()> {
    let (mut name, mut control) = ([0; NAME_BYTES_MAX], Control([0; CONTROL_BYTES_MAX]));
    let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: a msghdr is plain old data; null and zero are valid for every field.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_namelen = message::write_name(peer, &mut name) as libc::socklen_t;
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_controllen = message::write_source(local, &mut control.0) as _;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: every pointer in `message` is to memory of the length beside it that lives until the call returns;
    // sendmsg only reads what they point to, also through those that had to be made mutable for the struct.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
