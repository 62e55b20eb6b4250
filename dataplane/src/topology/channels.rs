//! How many queues a NIC has, asked of its driver.
//!
//! sysfs shows the interfaces of the network namespace it was mounted in, which need not be the one this thread is
//! in; an ioctl always asks the latter.

use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `ETHTOOL_GCHANNELS` (Linux `include/uapi/linux/ethtool.h`).
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    rx_max: u32,
    tx_max: u32,
    other_max: u32,
    combined_max: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// RX queues of an interface of this thread's network namespace; `None` when its driver does not say.
pub(super) fn receive_queues(name: &str) -> Option<u32> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: `ifreq` is plain old data, for which zeros are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero, as the end of the name.
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut channels).cast();
    // SAFETY: SIOCETHTOOL reads the `ifreq` and, for this command, writes one `ethtool_channels` where it points:
    // both live on this stack until the call returns, and `Channels` has the kernel's layout.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, std::ptr::from_mut(&mut request)) };
    let queues = channels.rx.checked_add(channels.combined)?;
    (result == 0 && queues > 0).then_some(queues)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_interface_has_no_queues() {
        assert_eq!(super::receive_queues("no-such-nic"), None);
        assert_eq!(super::receive_queues("a-name-of-seventeen"), None);
        assert_eq!(super::receive_queues("lo"), None, "the loopback driver does not say");
    }
}
