//! An independent peer: the kernel's packet socket.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::wait_until;

const ETH_P_ALL_BE: u16 = (libc::ETH_P_ALL as u16).to_be();

pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// On an interface of the calling thread's namespace.
    pub(crate) fn open(interface: &str) -> Self {
        let name = CString::new(interface).expect("no NUL");
        // SAFETY: a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no {interface}");
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(ETH_P_ALL_BE)) };
        assert!(fd >= 0, "{} (needs root)", io::Error::last_os_error());
        // SAFETY: the kernel just made this descriptor for us.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20);
        // SAFETY: integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETH_P_ALL_BE;
        address.sll_ifindex = index as i32;
        // SAFETY: pointer and length are those of `address`.
        let bound =
            unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        socket
    }

    fn set(&self, level: i32, name: i32, value: i32) {
        // SAFETY: pointer and length are those of `value`.
        let result =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        // SAFETY: pointer and length are those of `packet`.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0) };
        assert_eq!(sent, packet.len() as isize, "{}", io::Error::last_os_error());
    }

    /// A packet, if there is one.
    pub(crate) fn try_receive(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0u8; 65536];
        // SAFETY: pointer and length are those of `packet`.
        let length = unsafe {
            libc::recv(self.fd.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), libc::MSG_TRUNC)
        };
        packet.truncate(usize::try_from(length).ok()?);
        Some(packet)
    }

    /// Receives packets until there are so many, and calls `meanwhile` as long as there are too few.
    #[track_caller]
    pub(crate) fn receive(&self, count: usize, mut meanwhile: impl FnMut()) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        wait_until(&format!("{count} packets"), || {
            meanwhile();
            packets.extend(std::iter::from_fn(|| self.try_receive()));
            packets.len() >= count
        });
        packets
    }
}
