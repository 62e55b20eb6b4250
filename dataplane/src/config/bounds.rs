//! The least and the most each value may be. What follows from another part's limit is written as that.

use std::ops::RangeInclusive;

use dataplane_ebpf::layout::{SERVICES_MAX, SOURCES_MAX};

use crate::limits::{
    BATCH_FRAMES, FRAME_BYTES, ITEM_BYTES_MAX, MEMCACHED_DATAGRAM_BYTES_MAX, QUEUES_MAX, REPLY_BYTES_MAX,
};

/// Bytes of an interface name without its final zero (`IFNAMSIZ`, Linux `include/uapi/linux/if.h`).
pub(super) const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Core numbers (Linux `NR_CPUS_RANGE_END` on x86-64).
pub(super) const CORE: RangeInclusive<u64> = 0..=8191;

/// Queue numbers.
pub(super) const QUEUE: RangeInclusive<u64> = 0..=(QUEUES_MAX as u64 - 1);

/// Descriptors in a ring: at least one batch, and no more than keeps a ring's memory within 2 MiB.
pub(super) const RING_ENTRIES: RangeInclusive<u64> = BATCH_FRAMES as u64..=65_536;

/// Frames of a UMEM for each descriptor of a ring: the fill and the TX ring may both be full at once.
pub(super) const FRAMES_PER_RING_ENTRY_MIN: u32 = 2;

/// Frames of a UMEM: the largest is 16 GiB.
pub(super) const FRAMES: RangeInclusive<u64> = 2 * BATCH_FRAMES as u64..=(16 << 30) / FRAME_BYTES as u64;

/// `SO_BUSY_POLL`, in microseconds: a second is longer than any use of it.
pub(super) const BUSY_POLL_DURATION_US: RangeInclusive<u64> = 1..=1_000_000;

/// `SO_BUSY_POLL_BUDGET` (Linux `net/core/sock.c` takes at most `U16_MAX`).
pub(super) const BUSY_POLL_BUDGET: RangeInclusive<u64> = 1..=u16::MAX as u64;

/// Microseconds of spinning before sleep.
pub(super) const SPIN_US: RangeInclusive<u64> = 0..=1_000_000;

/// Bytes of a worker's table.
pub(super) const TABLE_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 44;

/// Bytes of the largest item: one that a single datagram can carry, up to the largest key and value.
pub(super) const ITEM_BYTES: RangeInclusive<u64> = 1 << 10..=ITEM_BYTES_MAX as u64;

/// Mean bytes of an item, which the table's index is sized by.
pub(super) const EXPECTED_ITEM_BYTES: RangeInclusive<u64> = 16..=1 << 20;

/// Largest items a table must have room for: with fewer, one store may evict nearly all the rest.
pub(super) const ITEMS_PER_TABLE_MIN: u64 = 8;

/// Ports.
pub(super) const PORT: RangeInclusive<u64> = 1..=u16::MAX as u64;

/// Bytes of one request's reply: from one datagram up.
pub(super) const REPLY_BYTES: RangeInclusive<u64> =
    MEMCACHED_DATAGRAM_BYTES_MAX as u64..=REPLY_BYTES_MAX as u64;

/// TCP connections of one queue.
pub(super) const CONNECTIONS: RangeInclusive<u64> = 1..=1 << 20;

/// Seconds before an idle connection is closed: 0 is never, a year is the most.
pub(super) const IDLE_S: RangeInclusive<u64> = 0..=365 * 24 * 3600;

/// Seconds a request may take: 0 is for ever, a day is the most.
pub(super) const REQUEST_S: RangeInclusive<u64> = 0..=24 * 3600;

/// Requests a second, and at once, of one source.
pub(super) const RATE: RangeInclusive<u64> = 1..=1_000_000_000;

/// Bytes of a service's name.
pub(super) const SERVICE_NAME_BYTES_MAX: usize = 64;

/// Networks in the allow-lists of all listeners: what the XDP program's map holds.
pub(super) const NETWORKS_MAX: usize = SOURCES_MAX as usize;

/// Addresses of all listeners: what the XDP program's map holds.
pub(super) const ADDRESSES_MAX: usize = SERVICES_MAX as usize;
