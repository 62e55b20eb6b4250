//! One AF_XDP socket: made, given its memory and rings, bound, woken, asked.

use std::ffi::c_int;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::config::BusyPollConfig;
use crate::limits::FRAME_BYTES;
use crate::port::{PortError, Umem};

use super::device;
use super::doorbell::Rang;
use super::ring::{Consumer, Descriptor, Layout, Producer};
use super::syscall::{self, PlainData};

/// Longest wait for the kernel to free a queue whose socket has just been closed. It does so from a work
/// queue, once the last packet in flight is gone.
const QUEUE_FREE_WAIT: Duration = Duration::from_secs(1);
/// Pause between two looks.
const QUEUE_FREE_PAUSE: Duration = Duration::from_millis(2);

/// What the kernel counts for a socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XskStatistics {
    /// Packets dropped for other reasons than a full RX ring: no free frame, or too long for one.
    pub receive_dropped: u64,
    /// Packets dropped because the RX ring was full: the worker is too slow.
    pub receive_ring_full: u64,
    /// Times the kernel looked for a frame in an empty fill ring.
    pub fill_ring_empty: u64,
    /// Addresses in the fill ring that the kernel refused; zero unless there is a bug.
    pub fill_invalid: u64,
    /// Descriptors in the TX ring that the kernel refused; zero unless there is a bug.
    pub transmit_invalid: u64,
    /// Times the kernel looked for a packet in an empty TX ring.
    pub transmit_ring_empty: u64,
}

/// The rings of one socket.
pub(super) struct Rings {
    pub(super) receive: Consumer<Descriptor>,
    pub(super) transmit: Producer<Descriptor>,
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
}

/// One AF_XDP socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    /// An ordinary socket of the same network namespace: an AF_XDP socket answers no `ioctl`.
    inquiries: OwnedFd,
    interface: String,
    queue: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    pub(super) fn new(interface: &str, queue: u32) -> io::Result<Self> {
        let (fd, inquiries) = (syscall::socket()?, device::any_socket()?);
        Ok(Self { fd, inquiries, interface: interface.to_owned(), queue })
    }

    /// With any other descriptor in its place, for tests without a NIC.
    #[cfg(test)]
    pub(super) fn stand_in(fd: OwnedFd) -> Self {
        let inquiries = device::any_socket().expect("a socket");
        Self { fd, inquiries, interface: "stand-in".to_owned(), queue: 0 }
    }

    /// Turns the socket's own calls into polls of the queue's NAPI, which then leaves its interrupts off
    /// (`Documentation/networking/napi.rst`).
    pub(super) fn prefer_busy_poll(&self, busy_poll: BusyPollConfig) -> io::Result<()> {
        let as_option = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        self.set(libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1i32)?;
        self.set(libc::SOL_SOCKET, libc::SO_BUSY_POLL, &as_option(busy_poll.duration_us))?;
        self.set(libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &as_option(busy_poll.budget))
    }

    /// Registers a UMEM. The kernel locks its pages until the socket is gone, whatever becomes of the
    /// mapping.
    pub(super) fn register(&self, umem: &Umem) -> io::Result<()> {
        let registration = libc::xdp_umem_reg {
            addr: umem.base().addr().get() as u64,
            len: umem.bytes() as u64,
            chunk_size: FRAME_BYTES as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
    }

    /// Makes the four rings, and maps them.
    pub(super) fn make_rings(&self, entries: u32) -> io::Result<Rings> {
        for ring in
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
        {
            self.set(libc::SOL_XDP, ring, &entries)?;
        }
        let offsets: libc::xdp_mmap_offsets =
            syscall::get_option(self.as_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        let receive = layout(offsets.rx)?;
        let transmit = layout(offsets.tx)?;
        let fill = layout(offsets.fr)?;
        let completion = layout(offsets.cr)?;
        let misfit = || io::Error::other("the kernel's ring offsets do not fit its rings");
        let map = |offset: u64, bytes: Option<usize>| {
            syscall::map_ring(self.as_fd(), offset, bytes.ok_or_else(misfit)?)
        };
        let receive_map = map(libc::XDP_PGOFF_RX_RING as u64, receive.bytes::<Descriptor>(entries))?;
        let transmit_map = map(libc::XDP_PGOFF_TX_RING as u64, transmit.bytes::<Descriptor>(entries))?;
        let fill_map = map(libc::XDP_UMEM_PGOFF_FILL_RING, fill.bytes::<u64>(entries))?;
        let completion_map = map(libc::XDP_UMEM_PGOFF_COMPLETION_RING, completion.bytes::<u64>(entries))?;
        Ok(Rings {
            receive: Consumer::new(receive_map, receive, entries).ok_or_else(misfit)?,
            transmit: Producer::new(transmit_map, transmit, entries).ok_or_else(misfit)?,
            fill: Producer::new(fill_map, fill, entries).ok_or_else(misfit)?,
            completion: Consumer::new(completion_map, completion, entries).ok_or_else(misfit)?,
        })
    }

    /// Lets one doorbell send a whole TX ring in copy mode. Returns how many packets one doorbell sends.
    pub(super) fn raise_transmit_limits(&self, entries: u32) -> u32 {
        /// What a doorbell sends where nobody raised it (`TX_BATCH_SIZE`, `net/xdp/xsk.c`).
        const DEFAULT_BUDGET: u32 = 32;
        // In copy mode each packet in flight is a socket buffer charged to the socket; the default limit
        // holds fewer than a ring. Both are improvements that an older kernel, or a process without
        // CAP_NET_ADMIN, does without: `flush` copes.
        let bytes = i32::try_from(entries as usize * 2 * FRAME_BYTES).unwrap_or(i32::MAX);
        if self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
            let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
        }
        match self.set(libc::SOL_XDP, syscall::XDP_MAX_TX_SKB_BUDGET, &entries) {
            Ok(()) => entries,
            Err(_) => DEFAULT_BUDGET,
        }
    }

    /// Binds to the queue; waits a little while it belongs to a socket that may be on its way out.
    pub(super) fn bind(&self, interface_index: u32, flags: u16) -> io::Result<()> {
        let deadline = Instant::now() + QUEUE_FREE_WAIT;
        loop {
            match syscall::bind(self.as_fd(), interface_index, self.queue, flags) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(QUEUE_FREE_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// True when the bound socket got zero-copy.
    pub(super) fn zero_copy(&self) -> io::Result<bool> {
        let options: libc::xdp_options = syscall::get_option(self.as_fd(), libc::SOL_XDP, libc::XDP_OPTIONS)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    pub(super) fn statistics(&self) -> io::Result<XskStatistics> {
        let counts: libc::xdp_statistics =
            syscall::get_option(self.as_fd(), libc::SOL_XDP, libc::XDP_STATISTICS)?;
        Ok(XskStatistics {
            receive_dropped: counts.rx_dropped,
            receive_ring_full: counts.rx_ring_full,
            fill_ring_empty: counts.rx_fill_ring_empty_descs,
            fill_invalid: counts.rx_invalid_descs,
            transmit_invalid: counts.tx_invalid_descs,
            transmit_ring_empty: counts.tx_ring_empty_descs,
        })
    }

    /// The NAPI that busy polling drives, once a packet has arrived from it.
    fn napi_id(&self) -> io::Result<Option<NonZeroU32>> {
        syscall::get_option(self.as_fd(), libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID).map(NonZeroU32::new)
    }

    /// Says so when packets have arrived, but from no NAPI that busy polling could drive.
    #[cold]
    pub(super) fn warn_unless_polled(&self) {
        if let Ok(None) = self.napi_id() {
            tracing::warn!(
                interface = self.interface,
                queue = self.queue,
                "busy_poll only costs system calls here: the interface's packets come from no NAPI that can be polled \
                 (as on a veth pair); take busy_poll out of its configuration"
            );
        }
    }

    /// MTU of its interface.
    pub(super) fn mtu_bytes(&self) -> io::Result<usize> {
        device::mtu_bytes(self.inquiries.as_fd(), &self.interface)
    }

    /// Rings the transmit doorbell.
    #[inline]
    pub(super) fn wake_transmit(&self) -> Result<Rang, PortError> {
        syscall::wake_transmit(self.as_fd()).map_or_else(|error| self.judge(error), |()| Ok(Rang::Done))
    }

    /// Rings the receive doorbell.
    #[inline]
    pub(super) fn wake_receive(&self) -> Result<(), PortError> {
        syscall::wake_receive(self.as_fd()).or_else(|error| self.judge(error).map(drop))
    }

    /// Tells "not all of it now" from "not any more".
    fn judge(&self, error: io::Error) -> Result<Rang, PortError> {
        match error.raw_os_error() {
            // The doorbell's budget is spent; the device's or the completion ring is full.
            Some(libc::EAGAIN) => Ok(Rang::Again),
            // The device's ring is full; no memory for a buffer just now; a signal came first. What was not
            // sent is still queued.
            Some(libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Ok(Rang::Done),
            _ => Err(self.down(error)),
        }
    }

    #[cold]
    fn down(&self, reason: io::Error) -> PortError {
        PortError::Down { interface: self.interface.clone(), queue: self.queue, reason }
    }

    #[cold]
    pub(super) fn corrupt(&self, ring: &'static str, detail: impl std::fmt::Display) -> PortError {
        PortError::Corrupt {
            interface: self.interface.clone(),
            queue: self.queue,
            ring,
            detail: detail.to_string(),
        }
    }

    fn set<T: PlainData>(&self, level: c_int, name: c_int, value: &T) -> io::Result<()> {
        syscall::set_option(self.as_fd(), level, name, value)
    }
}

fn layout(offset: libc::xdp_ring_offset) -> io::Result<Layout> {
    let at = |value: u64| usize::try_from(value).map_err(io::Error::other);
    Ok(Layout {
        producer: at(offset.producer)?,
        consumer: at(offset.consumer)?,
        flags: at(offset.flags)?,
        entries: at(offset.desc)?,
    })
}
