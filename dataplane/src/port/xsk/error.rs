//! Why an AF_XDP socket cannot be had: each error names the fact and what to do about it.

use std::io;

use caps::{CapSet, Capability};

use crate::port::UmemError;

use super::QueueCounts;
use super::config::{FRAMES_MIN, RING_ENTRIES_MAX, RING_ENTRIES_MIN};

/// Why an AF_XDP socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// Rings have sizes the kernel can mask with.
    #[error("ring_entries = {entries}: give a power of two from {RING_ENTRIES_MIN} to {RING_ENTRIES_MAX}")]
    RingEntries {
        /// Descriptors asked for.
        entries: u32,
    },
    /// Too few frames to receive a batch and answer it.
    #[error("frames = {frames}: give at least {FRAMES_MIN}")]
    TooFewFrames {
        /// Frames asked for.
        frames: u32,
    },
    /// Generic XDP hands over copies by its nature.
    #[error(
        "{interface}: zero-copy needs native XDP, and generic was chosen; choose one of the two differently"
    )]
    GenericZeroCopy {
        /// Interface name.
        interface: String,
    },
    /// No interface of that name.
    #[error("there is no interface {interface:?} in this network namespace; `ip link` lists those there are")]
    NoSuchInterface {
        /// Interface name.
        interface: String,
    },
    /// The interface has no such queue.
    #[error(
        "{interface} has no queue {queue}{}; `ethtool -L {interface}` changes how many there are",
        queues.map_or_else(String::new, |queues| format!(": it has {queues}, counted from 0"))
    )]
    NoSuchQueue {
        /// Interface name.
        interface: String,
        /// Queue asked for.
        queue: u32,
        /// Queues it has, where the driver says.
        queues: Option<u32>,
    },
    /// The queue receives or transmits, but not both.
    #[error(
        "{interface} queue {queue} goes only one way: the interface has {receive} receive and {transmit} transmit \
         queues, and an AF_XDP socket sends by the transmit queue of its own number; give it as many of each \
         (`ethtool -L {interface} rx {usable} tx {usable}`), or serve only queues below {usable}",
        receive = counts.receive, transmit = counts.transmit, usable = counts.usable()
    )]
    OneWayQueue {
        /// Interface name.
        interface: String,
        /// Queue asked for.
        queue: u32,
        /// Queues it has.
        counts: QueueCounts,
    },
    /// Another socket has the queue.
    #[error(
        "{interface} queue {queue} already belongs to another AF_XDP socket; `lsof -nP | grep 'protocol: XDP'` lists \
         the processes that have one: stop that process, or choose another queue"
    )]
    QueueBusy {
        /// Interface name.
        interface: String,
        /// Queue asked for.
        queue: u32,
    },
    /// Zero-copy was required and the driver has none.
    #[error(
        "{interface} queue {queue} cannot do zero-copy ({source}): its driver lacks it, or is set up in a way that \
         rules it out (MTU, queue counts, LRO); set copy to \"auto\" or \"copy\""
    )]
    ZeroCopyUnavailable {
        /// Interface name.
        interface: String,
        /// Queue asked for.
        queue: u32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The process may not.
    #[error("not permitted to {operation}: {explanation}")]
    NotPermitted {
        /// What was tried.
        operation: &'static str,
        /// Which capability is missing.
        explanation: String,
    },
    /// The kernel locks UMEM pages, and the limit on that is too low.
    #[error(
        "the kernel may not lock {bytes} bytes for a UMEM: RLIMIT_MEMLOCK is too low; give the process \
         CAP_IPC_LOCK, or raise the limit (`ulimit -l`, or LimitMEMLOCK= in its systemd unit)"
    )]
    LockedMemory {
        /// Bytes of the UMEM.
        bytes: usize,
    },
    /// The kernel was built without AF_XDP.
    #[error("this kernel has no AF_XDP sockets: it needs CONFIG_XDP_SOCKETS, and Linux 5.4 or newer")]
    NoKernelSupport,
    /// No UMEM.
    #[error(transparent)]
    Umem(#[from] UmemError),
    /// Anything else the kernel said no to.
    #[error("cannot {operation} on {interface} queue {queue}: {source}")]
    Kernel {
        /// Interface name.
        interface: String,
        /// Queue asked for.
        queue: u32,
        /// What was tried.
        operation: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Names the capability whose lack explains an EPERM.
pub(super) fn not_permitted(operation: &'static str, needed: Capability) -> XskError {
    let explanation = match caps::has_cap(None, CapSet::Effective, needed) {
        Ok(false) => format!("the process lacks {needed}; run it as root, or give it that capability"),
        Ok(true) => format!(
            "the process has {needed} but not over this network namespace, or a security module (SELinux, AppArmor, \
             seccomp, a container runtime) forbids it"
        ),
        Err(error) => format!("it takes {needed} (whether the process has it cannot be read: {error})"),
    };
    XskError::NotPermitted { operation, explanation }
}
