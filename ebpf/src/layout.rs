//! Every map of the program: its name, key, value and size. User space writes these bytes, the program reads them,
//! so nothing here is left to the compiler: `repr(C)`, padding spelt out, sizes asserted.
//!
//! Pinned maps outlive the daemon that made them. Whoever changes a layout, a verdict's number or the meaning of a
//! field raises [`LAYOUT_VERSION`]; a daemon refuses to adopt another version than its own.

use crate::address::Address;

/// Version of all that is below.
pub const LAYOUT_VERSION: u32 = 2;

/// Name of the XDP program.
pub const PROGRAM: &str = "steer";

/// `SETTINGS`: array of one [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// `PORTS`: array of one [`PortValue`] a port: what nearly every packet needs to know, without hashing anything.
pub const PORTS: &str = "PORTS";
/// `SERVICES`: hash of [`ServiceKey`] to [`ServiceValue`]. The program looks here for services on one address only;
/// those on any address stand here too, for user space to read, and in `PORTS`, where the program finds them.
pub const SERVICES: &str = "SERVICES";
/// `SOURCES`: LPM trie of [`SourceKey`] to [`SOURCE_ALLOWED`] or [`SOURCE_DENIED`]: the allow-lists of all services.
pub const SOURCES: &str = "SOURCES";
/// `XSKS`: one AF_XDP socket a queue.
pub const XSKS: &str = "XSKS";
/// `QUEUES`: array of one [`QueueSlot`] a queue, mapped into the workers (`BPF_F_MMAPABLE`).
pub const QUEUES: &str = "QUEUES";
/// `UDP_FLOWS`: LRU hash of [`FlowKey`](crate::flow::FlowKey) to [`FlowValue`]: datagram flows the companion socket has.
pub const UDP_FLOWS: &str = "UDP_FLOWS";
/// `TCP_FLOWS`: the same for connections, in a map of its own: a flood of forged datagrams pushes no connection out.
pub const TCP_FLOWS: &str = "TCP_FLOWS";
/// `COUNTERS`: per-CPU array of `u64`, one a [`Verdict`](crate::verdict::Verdict).
pub const COUNTERS: &str = "COUNTERS";
/// The ring buffer of the program's log. Name and records are aya-log's own.
pub const LOG: &str = "AYA_LOGS";
/// Every map, as a pinned program has them.
pub const MAPS: &[&str] =
    &[SETTINGS, PORTS, SERVICES, SOURCES, XSKS, QUEUES, UDP_FLOWS, TCP_FLOWS, COUNTERS, LOG];

/// Entries of `PORTS`: every port.
pub const PORTS_MAX: u32 = 1 << 16;
/// Queues one program feeds.
pub const QUEUES_MAX: u32 = 256;
/// Entries of `SERVICES`: a service takes one for each of its addresses.
pub const SERVICES_MAX: u32 = 1024;
/// Entries of `SOURCES`, over all services.
pub const SOURCES_MAX: u32 = 16 * 1024;
/// Flows of each protocol that stick to the companion socket; the least recently seen are forgotten first.
pub const FLOWS_MAX: u32 = 16 * 1024;

/// Longest packet that fits a UMEM frame behind its headroom, in bytes from the Ethernet header on.
pub const PACKET_BYTES_MAX: usize = 4096 - 256;

/// A worker whose heartbeat is older than this is passed over.
pub const STALE_NS: u64 = 1_000_000_000;

/// How long datagrams of a flow stay with the companion socket after the last one it got for staleness: longer
/// than what is queued there takes to answer, so that a client's datagrams do not overtake each other.
pub const STICKY_UDP_NS: u64 = 250_000_000;

/// How long a connection stays with the companion socket after its last segment. Nothing else frees it: a SYN, a FIN or a
/// RST is easily forged, and whether its sequence number is right the kernel alone can tell. Whoever holds such
/// connections keeps them alive (`TCP_KEEPIDLE`) more often than this; one that was forgotten all the same is reset by
/// the worker, and its client connects anew.
pub const STICKY_TCP_NS: u64 = 300_000_000_000;

/// Settings of the whole program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// [`LAYOUT_VERSION`] of whoever made the maps. Stays the first field in every version.
    pub layout_version: u32,
    /// Level of the program's log: 0 off, 1 errors, 2 warnings, 3 information, 4 debug.
    pub log_level: u32,
}
const _: () = assert!(size_of::<Settings>() == 8);

/// What is served on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortValue {
    /// Over UDP.
    pub udp: Served,
    /// Over TCP.
    pub tcp: Served,
}
const _: () = assert!(size_of::<PortValue>() == 16);

/// What is served on a port over one protocol. One word, so that it changes in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Served(u64);

impl Served {
    const EXACT: u64 = 1 << 32;

    /// With this number for the service on any address.
    #[must_use]
    pub const fn with_any(self, id: u32) -> Self {
        Self(self.0 & Self::EXACT | id as u64)
    }

    /// With services on one address in `SERVICES`.
    #[must_use]
    pub const fn with_exact(self) -> Self {
        Self(self.0 | Self::EXACT)
    }

    /// Number of the service on any address.
    #[inline(always)]
    #[must_use]
    pub const fn any(self) -> Option<u32> {
        let id = self.0 as u32;
        if id == 0 { None } else { Some(id) }
    }

    /// True when `SERVICES` holds services on this port and one address.
    #[inline(always)]
    #[must_use]
    pub const fn has_exact(self) -> bool {
        self.0 & Self::EXACT != 0
    }
}

/// What a service is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ServiceKey {
    /// Destination address, or [`Address::ANY`].
    pub address: Address,
    /// Destination port, in host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    _padding: u8,
}
const _: () = assert!(size_of::<ServiceKey>() == 20);

impl ServiceKey {
    /// The key of a service.
    #[inline(always)]
    #[must_use]
    pub const fn new(protocol: u8, port: u16, address: Address) -> Self {
        Self { address, port, protocol, _padding: 0 }
    }
}

/// What is known of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceValue {
    /// Number under which its sources stand in `SOURCES`; never 0. A daemon gives each number once, so that no half-made
    /// change lends one service's allow-list to another.
    pub id: u32,
}
const _: () = assert!(size_of::<ServiceValue>() == 4);

/// The longest prefix that holds the source says it is served.
pub const SOURCE_ALLOWED: u8 = 1;
/// The longest prefix that holds the source says it is not: a hole in a shorter prefix.
pub const SOURCE_DENIED: u8 = 0;

/// The part of a `SOURCES` key behind the prefix length. Keys are compared bit by bit from the first byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SourceKey {
    /// The service's number, big-endian.
    pub service: [u8; 4],
    /// Network of the source.
    pub address: Address,
}
const _: () = assert!(size_of::<SourceKey>() == 20);

impl SourceKey {
    /// Bits of the service's number: every prefix is at least as long.
    pub const SERVICE_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::SERVICE_BITS + 128;

    /// The key of an address under a service.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: u32, address: Address) -> Self {
        Self { service: service.to_be_bytes(), address }
    }
}

/// One queue: the worker's heartbeat, and what the program remembers of the queue. The two have different writers
/// and so stand in different cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct QueueSlot {
    /// Written by the worker through the mapping: `CLOCK_MONOTONIC` in nanoseconds; 0 until its first beat.
    pub heartbeat_ns: u64,
    _padding: [u64; 7],
    /// Written by the program: until when `UDP_FLOWS` may hold flows of this queue; 0 is never.
    pub sticky_udp_until_ns: u64,
    /// Written by the program: until when `TCP_FLOWS` may hold connections of this queue; 0 is never.
    pub sticky_tcp_until_ns: u64,
    /// Written by the program: 1 while it finds the worker stale.
    pub stale: u64,
    /// Written by the program: how often the worker turned stale.
    pub stale_episodes: u64,
    _reserved: [u64; 4],
}
const _: () = assert!(size_of::<QueueSlot>() == 128);

impl QueueSlot {
    /// Bytes from the start of a slot to its heartbeat.
    pub const HEARTBEAT_OFFSET: usize = core::mem::offset_of!(Self, heartbeat_ns);
}
const _: () = assert!(QueueSlot::HEARTBEAT_OFFSET.is_multiple_of(8));

/// A flow that the companion socket has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowValue {
    /// Until when it stays there, `CLOCK_MONOTONIC` in nanoseconds.
    pub until_ns: u64,
}
const _: () = assert!(size_of::<FlowValue>() == 8);
