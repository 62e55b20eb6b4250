//! What an interface says of itself, asked by `ioctl` (`netdevice(7)`): of the network namespace that the calling
//! thread, or the socket asked through, is in.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::syscall::check;

/// Whether an interface carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It does.
    Up,
    /// It is set down, or has no carrier. Sockets stay bound, and go on by themselves once it is up again.
    Down,
}

/// A request about this interface, with nothing else in it.
fn request_for(interface: &str) -> io::Result<libc::ifreq> {
    let mut name = [0 as c_char; libc::IFNAMSIZ];
    // One byte stays zero, as the end of the name.
    if interface.is_empty() || interface.len() >= name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    Ok(libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 } })
}

/// Any socket will do to ask through.
pub(super) fn any_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `SIOCETHTOOL` on an interface of the calling thread's network namespace.
///
/// # Safety
/// `command` must be the `repr(C)` struct, of integers, that its own first word, the ethtool command, has the
/// kernel read and write.
pub(super) unsafe fn ethtool<T>(interface: &str, command: &mut T) -> io::Result<()> {
    let socket = any_socket()?;
    let mut request = request_for(interface)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    // SAFETY: the request names a struct of the size its command says, by the caller's promise; both outlive
    // the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) }).map(drop)
}

/// Bytes of the longest packet, without its link header, that the interface carries; asked through an
/// ordinary socket of its network namespace.
pub(super) fn mtu_bytes(socket: BorrowedFd<'_>, interface: &str) -> io::Result<usize> {
    let mut request = request_for(interface)?;
    // SAFETY: SIOCGIFMTU reads the name and writes `ifru_mtu`, both within the request, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) })?;
    // SAFETY: the kernel has just written this member, and any bits of it are an integer.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(io::Error::other)
}

/// How the link of an interface of the calling thread's network namespace stands.
///
/// # Errors
/// The kernel's; `ENODEV` when there is no such interface.
pub fn link_of(interface: &str) -> io::Result<Link> {
    let socket = any_socket()?;
    let mut request = request_for(interface)?;
    // SAFETY: SIOCGIFFLAGS reads the name and writes `ifru_flags`, both within the request, which outlives the
    // call.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) })?;
    // SAFETY: the kernel has just written this member, and any bits of it are an integer.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    // `IFF_RUNNING` is "operational" (RFC 2863), which an interface whose driver does not tell counts as, too.
    let carries = flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0;
    Ok(if carries { Link::Up } else { Link::Down })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_says_what_it_is() {
        let socket = any_socket().expect("a socket");
        let mtu = mtu_bytes(socket.as_fd(), "lo").expect("every namespace has one");
        assert!(mtu >= 1280, "{mtu}");
        for name in ["no-such-nic", "a-name-of-seventeen", ""] {
            assert_eq!(link_of(name).expect_err(name).raw_os_error(), Some(libc::ENODEV), "{name}");
        }
    }
}
