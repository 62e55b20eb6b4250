//! How many queues an interface has (`ETHTOOL_GCHANNELS`, `include/uapi/linux/ethtool.h`).
//!
//! By `ioctl` and not from `/sys/class/net`, which shows the network namespace it was mounted in, not the
//! caller's.

use std::io;

use super::device;

const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// Queues an interface has now, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCounts {
    /// Queues that receive, numbered from 0.
    pub receive: u32,
    /// Queues that transmit, numbered from 0.
    pub transmit: u32,
}

impl QueueCounts {
    /// Those of an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` where the driver does not say, `ENODEV` when there is no such interface.
    pub fn read(interface: &str) -> io::Result<Self> {
        let mut channels = EthtoolChannels { command: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
        // SAFETY: the command in the struct fills in a struct of exactly this layout.
        unsafe { device::ethtool(interface, &mut channels) }?;
        let combined = channels.combined_count;
        Ok(Self {
            receive: channels.rx_count.saturating_add(combined),
            transmit: channels.tx_count.saturating_add(combined),
        })
    }

    /// Queues that an AF_XDP socket can both receive from and send to, numbered from 0: it sends by the
    /// transmit queue of its own number. The kernel counts the same way when it guards queues with sockets
    /// (`ethnl_set_channels`).
    #[must_use]
    pub fn usable(self) -> u32 {
        self.receive.min(self.transmit)
    }

    /// Queues that the kernel lets a socket bind to (`xsk_reg_pool_at_qid`), though some only go one way.
    pub(super) fn bindable(self) -> u32 {
        self.receive.max(self.transmit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_goes_only_one_way_is_of_no_use() {
        for (receive, transmit, usable, bindable) in [(4, 4, 4, 4), (2, 1, 1, 2), (1, 8, 1, 8)] {
            let counts = QueueCounts { receive, transmit };
            assert_eq!((counts.usable(), counts.bindable()), (usable, bindable), "{counts:?}");
        }
    }

    #[test]
    fn what_is_no_interface_has_no_queues() {
        for name in ["no-such-nic", "a-name-of-seventeen", ""] {
            let error = QueueCounts::read(name).expect_err(name);
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
        }
        assert!(QueueCounts::read("lo").is_err(), "the loopback driver does not say");
    }
}
