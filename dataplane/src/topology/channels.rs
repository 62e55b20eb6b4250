//! How many queues a NIC has each way, asked of its driver.
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
struct EthtoolChannels {
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

/// Queues an interface has each way, both numbered from 0. A queue that goes both ways counts in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueCounts {
    pub(super) receive: u32,
    pub(super) transmit: u32,
}

impl QueueCounts {
    /// Those of an interface of this thread's network namespace; `None` when its driver does not say.
    pub(super) fn read(name: &str) -> Option<Self> {
        let channels = ask(name)?;
        let receive = channels.rx.checked_add(channels.combined)?;
        let transmit = channels.tx.checked_add(channels.combined)?;
        (receive > 0).then_some(Self { receive, transmit })
    }

    /// Queues that go both ways: an AF_XDP socket sends by the TX queue of its own number, and where there is none the
    /// kernel drops what it sends by copy.
    pub(super) fn usable(self) -> u32 {
        self.receive.min(self.transmit)
    }
}

fn ask(name: &str) -> Option<EthtoolChannels> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    let mut channels = EthtoolChannels { command: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
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
    // both live on this stack until the call returns, and `EthtoolChannels` has the kernel's layout.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, std::ptr::from_mut(&mut request)) };
    (result == 0).then_some(channels)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_interface_has_no_queues() {
        assert_eq!(super::QueueCounts::read("no-such-nic"), None);
        assert_eq!(super::QueueCounts::read("a-name-of-seventeen"), None);
        assert_eq!(super::QueueCounts::read("lo"), None, "the loopback driver does not say");
    }
}
