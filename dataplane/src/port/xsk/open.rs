//! [`open`]: the order in which an AF_XDP socket comes to life, and what it got.

use std::io;
use std::sync::Arc;

use caps::Capability;

use crate::config::CopyMode;
use crate::port::{Frame, QueueOwner, Umem};

use super::custody::Custody;
use super::doorbell::Doorbell;
use super::error::not_permitted;
use super::queue::Common;
use super::socket::Socket;
use super::{QueueCounts, XskConfig, XskError, XskPort, XskQueue, link, syscall};

/// A bound AF_XDP socket.
#[derive(Debug)]
pub struct Opened {
    /// Receives and sends.
    pub port: XskPort,
    /// Keeps the kernel supplied with frames. To be polled as often as the port.
    pub queue: XskQueue,
    /// What was obtained.
    pub report: XskReport,
}

/// What an AF_XDP socket obtained of what it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XskReport {
    /// The kernel confirmed zero-copy (`XDP_OPTIONS`); else it copies.
    pub zero_copy: bool,
    /// The socket was bound with wake-up flags: doorbells are rung only when they are wanted.
    pub need_wakeup: bool,
    /// The UMEM lies in huge pages.
    pub huge_pages: bool,
    /// The socket asks for busy polling. Whether there is a NAPI to poll shows with the first packet, and is
    /// then said in the log.
    pub busy_poll: bool,
    /// Packets one doorbell sends in copy mode.
    pub transmit_budget: u32,
}

impl XskReport {
    /// `zero-copy` or `copy`, as `status` has it.
    #[must_use]
    pub fn copy_mode(&self) -> &'static str {
        if self.zero_copy { "zero-copy" } else { "copy" }
    }
}

/// Opens an AF_XDP socket on a queue. Packets arrive once it is in the XSKMAP of the interface's XDP program.
///
/// Takes up to a second while the kernel still cleans up after an earlier socket on the same queue.
///
/// # Errors
/// [`XskError`], which names the fact and the cure.
pub fn open(config: &XskConfig) -> Result<Opened, XskError> {
    config.validate()?;
    let interface_index = syscall::interface_index(&config.interface)
        .map_err(|source| kernel_error(config, "find the interface", source))?;
    // Where the driver does not say, the kernel's answer to the bind has to do.
    if let Ok(counts) = QueueCounts::read(&config.interface) {
        check_queue(config, counts)?;
    }
    let socket = make_socket(config)?;
    let (umem, frames) = Umem::allocate(config.frames as usize, config.placement())?;
    let custody = Custody::of(&umem);
    let common = Arc::new(Common { socket, umem: Arc::new(umem), custody });
    bring_up(config, interface_index, common, frames)
}

/// The kernel binds to a queue that only receives, and then says nothing of the packets it does not send
/// (`__xsk_generic_xmit`).
fn check_queue(config: &XskConfig, counts: QueueCounts) -> Result<(), XskError> {
    let (interface, queue) = (config.interface.clone(), config.queue);
    if queue >= counts.bindable() {
        return Err(no_such_queue(config, Some(counts.bindable())));
    }
    if queue >= counts.usable() {
        return Err(XskError::OneWayQueue { interface, queue, counts });
    }
    Ok(())
}

fn make_socket(config: &XskConfig) -> Result<Socket, XskError> {
    let socket =
        Socket::new(&config.interface, config.queue).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                not_permitted("make an AF_XDP socket", Capability::CAP_NET_RAW)
            }
            Some(libc::EAFNOSUPPORT | libc::ESOCKTNOSUPPORT) => XskError::NoKernelSupport,
            _ => kernel_error(config, "make an AF_XDP socket", source),
        })?;
    if let Some(busy_poll) = config.busy_poll {
        socket.prefer_busy_poll(busy_poll).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => not_permitted("set busy polling", Capability::CAP_NET_ADMIN),
            _ => kernel_error(config, "set busy polling (Linux 5.11 or newer)", source),
        })?;
    }
    Ok(socket)
}

/// Memory, rings, frames to receive into, bind: in this order, so that the very first packet finds a frame.
fn bring_up(
    config: &XskConfig,
    interface_index: u32,
    common: Arc<Common>,
    frames: Vec<Frame>,
) -> Result<Opened, XskError> {
    let socket = &common.socket;
    socket.register(&common.umem).map_err(|source| match source.raw_os_error() {
        // The kernel says ENOBUFS for "more pages than RLIMIT_MEMLOCK" (`xdp_umem_account_pages`).
        Some(libc::ENOBUFS) => XskError::LockedMemory { bytes: common.umem.bytes() },
        Some(libc::EPERM) => not_permitted("lock a UMEM", Capability::CAP_IPC_LOCK),
        _ => kernel_error(config, "register the UMEM", source),
    })?;
    let rings = socket
        .make_rings(config.ring_entries)
        .map_err(|source| kernel_error(config, "make the rings", source))?;
    let transmit_budget = socket.raise_transmit_limits(config.ring_entries);

    let reply_frames = config.reply_frames();
    let (port_end, owner_end) = link::link(config.supply_frames() as usize, frames.len());
    let mut queue =
        XskQueue::new(rings.fill, rings.completion, frames, reply_frames, owner_end, Arc::clone(&common));
    queue.poll().map_err(|error| kernel_error(config, "stock the fill ring", io::Error::other(error)))?;

    socket.bind(interface_index, bind_flags(config)).map_err(|source| bind_error(config, source))?;
    let zero_copy =
        socket.zero_copy().map_err(|source| kernel_error(config, "read the copy mode", source))?;
    let doorbell = Doorbell { zero_copy, busy_poll: config.busy_poll.is_some(), budget: transmit_budget };
    let report = XskReport {
        zero_copy,
        need_wakeup: true,
        huge_pages: common.umem.huge_pages(),
        busy_poll: doorbell.busy_poll,
        transmit_budget,
    };
    let port = XskPort::new(rings.receive, rings.transmit, port_end, doorbell, common);
    Ok(Opened { port, queue, report })
}

/// Neither `XDP_COPY` nor `XDP_ZEROCOPY` is the kernel's own way to say "zero-copy if it can be".
fn bind_flags(config: &XskConfig) -> u16 {
    let mode = match config.copy {
        // A generic program hands over copies, yet the kernel would bind the queue zero-copy, and nothing
        // would arrive.
        CopyMode::Auto if config.generic_xdp => libc::XDP_COPY,
        CopyMode::Auto => 0,
        CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
        CopyMode::Copy => libc::XDP_COPY,
    };
    mode | libc::XDP_USE_NEED_WAKEUP
}

fn no_such_queue(config: &XskConfig, queues: Option<u32>) -> XskError {
    XskError::NoSuchQueue { interface: config.interface.clone(), queue: config.queue, queues }
}

/// Reads the operator's fact out of the kernel's answer to the bind.
fn bind_error(config: &XskConfig, source: io::Error) -> XskError {
    let interface = config.interface.clone();
    let queue = config.queue;
    match source.raw_os_error() {
        Some(libc::EBUSY) => XskError::QueueBusy { interface, queue },
        Some(libc::EPERM) => not_permitted("bind an AF_XDP socket to the interface", Capability::CAP_NET_RAW),
        Some(libc::ENODEV) => XskError::NoSuchInterface { interface },
        _ if config.copy == CopyMode::ZeroCopy => XskError::ZeroCopyUnavailable { interface, queue, source },
        // With flags and sizes checked, a queue out of range is what is left (`xsk_reg_pool_at_qid`).
        Some(libc::EINVAL) => no_such_queue(config, None),
        _ => kernel_error(config, "bind an AF_XDP socket", source),
    }
}

fn kernel_error(config: &XskConfig, operation: &'static str, source: io::Error) -> XskError {
    let XskConfig { interface, queue, .. } = config;
    match source.raw_os_error() {
        Some(libc::ENODEV) => XskError::NoSuchInterface { interface: interface.clone() },
        _ => XskError::Kernel { interface: interface.clone(), queue: *queue, operation, source },
    }
}
