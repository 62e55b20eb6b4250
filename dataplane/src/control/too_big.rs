//! What routers say of packets of ours that were too large for a link on their way (RFC 1191, RFC 8201). The XDP program
//! leaves ICMP to the kernel, which knows nothing of the connections past it: so the control plane listens in on raw
//! sockets, to these two kinds of message and no other, and passes them on to the workers.
//!
//! Anybody can send such a message. What is passed on is whole, quotes a packet from a port that is served, and comes no
//! more often than `MESSAGES_MAX` in a `PERIOD`; whether it is believed, the connection decides that it names (RFC
//! 5927 section 4.1).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::net::checksum::Sum;
use crate::net::tcp::too_big::TooBig;

/// Messages of one IP version that are read in a [`PERIOD`]: as many as a Linux router sends (`icmp_msgs_per_sec`). More
/// wait in the socket's buffer, and are lost when that is full.
const MESSAGES_MAX: u32 = 100;
/// What the limit counts in.
const PERIOD: Duration = Duration::from_millis(100);
/// Bytes of messages that may wait in each socket.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a message that are read, with its IPv4 header: routers keep to 576 (RFC 1812 section 4.3.2.3) or 1280 (RFC
/// 4443 section 3.2). A longer one of IPv4 has a wrong checksum without its end.
const MESSAGE_BYTES_MAX: usize = 2_048;

/// `ICMP_FILTER` and its level (Linux include/uapi/linux/icmp.h); a set bit keeps a type away.
const ICMP_FILTER: libc::c_int = 1;
const ICMP_UNREACHABLE: u32 = 3;
/// `ICMPV6_FILTER` (Linux include/uapi/linux/icmpv6.h, RFC 3542 section 3.2), at the level of the protocol.
const ICMPV6_FILTER: libc::c_int = 1;
const ICMPV6_TOO_BIG: u32 = 2;

/// IP version of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

/// Listens until the runtime ends, and calls `tell` with what is said of packets from one of these ports.
///
/// # Errors
/// When the kernel gives no raw socket, which takes `CAP_NET_RAW`; one that has no IPv6 is no error.
pub fn listen(
    runtime: &Handle,
    ports: &[u16],
    tell: impl Fn(TooBig) + Clone + Send + 'static,
) -> io::Result<()> {
    for version in [Version::V4, Version::V6] {
        let socket = match open(version) {
            Err(error)
                if version == Version::V6
                    && error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) =>
            {
                continue;
            }
            opened => opened?,
        };
        // Registers with the runtime that is entered, which knows no raw sockets; they are read like these.
        let _entered = runtime.enter();
        let socket = UdpSocket::from_std(socket.into())?;
        runtime.spawn(hear(socket, version, ports.to_vec(), tell.clone()));
    }
    Ok(())
}

async fn hear(socket: UdpSocket, version: Version, ports: Vec<u16>, tell: impl Fn(TooBig)) {
    let mut packet = [0; MESSAGE_BYTES_MAX];
    let mut limit = Limit { start: Instant::now(), count: 0 };
    loop {
        if let Some(pause) = limit.take(Instant::now()) {
            tokio::time::sleep(pause).await;
            continue;
        }
        match socket.recv(&mut packet).await {
            Ok(bytes) => {
                let said = read(version, &packet[..bytes]);
                if let Some(message) = said.filter(|message| ports.contains(&message.ends.local_port)) {
                    tell(message);
                }
            }
            // A message that the kernel found damaged, or an error of the link.
            Err(error) => tracing::debug!(%error, ?version, "a router's message could not be read"),
        }
    }
}

/// How often something may be done.
struct Limit {
    start: Instant,
    count: u32,
}

impl Limit {
    /// One more; when that is too many, how long to wait before asking again.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        if now.duration_since(self.start) >= PERIOD {
            *self = Self { start: now, count: 0 };
        }
        if self.count == MESSAGES_MAX {
            return Some(PERIOD - now.duration_since(self.start));
        }
        self.count += 1;
        None
    }
}

/// What a packet from a raw socket says: over IPv4 it starts with the IP header, and nobody has looked at the checksum of
/// what follows; over IPv6 the kernel has done both (RFC 3542 section 3.1).
fn read(version: Version, packet: &[u8]) -> Option<TooBig> {
    match version {
        Version::V4 => {
            let message = packet.get(usize::from(packet.first()? & 0x0f) * 4..)?;
            let whole = Sum::default().bytes(message).finish() == 0;
            whole.then(|| TooBig::parse_v4(message))?
        }
        Version::V6 => TooBig::parse_v6(packet),
    }
}

fn open(version: Version) -> io::Result<OwnedFd> {
    let (family, protocol) = match version {
        Version::V4 => (AddressFamily::INET, ipproto::ICMP),
        Version::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol))?;
    match version {
        Version::V4 => set_filter(socket.as_fd(), libc::SOL_RAW, ICMP_FILTER, &[!(1 << ICMP_UNREACHABLE)])?,
        Version::V6 => {
            let mut kept_away = [u32::MAX; 8];
            kept_away[0] = !(1 << ICMPV6_TOO_BIG);
            set_filter(socket.as_fd(), libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &kept_away)?;
        }
    }
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
    Ok(socket)
}

fn set_filter(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    kept_away: &[u32],
) -> io::Result<()> {
    let bytes = size_of_val(kept_away) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one slice of integers, which lives until the call returns; the
    // kernel only reads it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, kept_away.as_ptr().cast(), bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with options, from a router, about a segment from port 80.
    fn packet() -> Vec<u8> {
        let mut message = vec![3, 4, 0, 0, 0, 0, 0x05, 0x14];
        message.extend_from_slice(&[0x45, 0, 5, 220, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        message.extend_from_slice(&[0, 80, 0x0f, 0xa0, 1, 2, 3, 4]);
        let checksum = Sum::default().bytes(&message).finish();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = vec![0; 24];
        packet[0] = 0x46;
        packet.extend_from_slice(&message);
        packet
    }

    #[test]
    fn a_message_is_read_behind_its_header_when_its_checksum_is_right() {
        let message = read(Version::V4, &packet()).expect("a whole message");
        assert_eq!((message.ends.local_port, message.mtu_bytes), (80, 1_300));
        for place in 24..packet().len() {
            let mut damaged = packet();
            damaged[place] ^= 4;
            assert_eq!(read(Version::V4, &damaged), None, "byte {place}");
        }
    }

    #[test]
    fn cut_packets_are_passed_over() {
        for bytes in 0..packet().len() {
            assert_eq!(read(Version::V4, &packet()[..bytes]), None);
            assert_eq!(read(Version::V6, &packet()[..bytes]), None);
        }
    }

    #[test]
    fn no_more_are_read_than_the_limit_allows() {
        let start = Instant::now();
        let mut limit = Limit { start, count: 0 };
        for _ in 0..MESSAGES_MAX {
            assert_eq!(limit.take(start + PERIOD / 4), None);
        }
        assert_eq!(limit.take(start + PERIOD / 4), Some(PERIOD * 3 / 4));
        assert_eq!(limit.take(start + PERIOD), None);
    }
}
