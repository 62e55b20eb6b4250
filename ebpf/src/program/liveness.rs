//! The dead-man's switch, and the flows that stick to the companion socket.
//!
//! A worker that died needs no heartbeat: its socket leaves the map. The heartbeat finds the one that is stopped
//! or stuck. Its clients' new requests go to the companion socket; the connections it holds wait for it.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::{info, warn};
use core::ptr;
use dataplane_ebpf::layout::{QueueSlot, STALE_NS, STICKY_TCP_NS, STICKY_UDP_NS};
use dataplane_ebpf::packet::{Packet, Transport};
use dataplane_ebpf::verdict::Verdict;

use super::maps;

const LOG_WARN: u32 = 2;
const LOG_INFO: u32 = 3;
const NS_PER_MS: u64 = 1_000_000;

/// Who serves the queue a packet came in on.
pub(super) enum Liveness {
    /// Nobody.
    Nobody,
    /// A worker that has not beaten for [`STALE_NS`].
    Stale { slot: *mut QueueSlot, now_ns: u64 },
    /// A worker that beats.
    Alive { slot: *mut QueueSlot, now_ns: u64 },
}

impl Liveness {
    #[inline(always)]
    pub(super) fn of(context: &XdpContext) -> Self {
        let queue = context.rx_queue_index();
        let Some(slot) = maps::queue(queue) else { return Self::Nobody };
        // SAFETY: the slot is the map's memory. User space writes the heartbeat at any time, as one aligned word.
        let heartbeat_ns = unsafe { ptr::read_volatile(&raw const (*slot).heartbeat_ns) };
        if heartbeat_ns == 0 {
            return Self::Nobody;
        }
        // The coarse clock is CLOCK_MONOTONIC as of the last tick: exact enough for a limit of a second, and far
        // cheaper than reading the hardware for each packet.
        // SAFETY: the helper takes nothing and cannot fail.
        let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
        // A beat may be newer than the last tick.
        let age_ns = now_ns.saturating_sub(heartbeat_ns);
        if age_ns > STALE_NS {
            if !maps::has_socket(queue) {
                return Self::Nobody;
            }
            turned_stale(context, slot, age_ns);
            return Self::Stale { slot, now_ns };
        }
        came_back(context, slot);
        Self::Alive { slot, now_ns }
    }
}

/// The verdict on a packet for a stale worker.
#[inline(always)]
pub(super) fn decide_stale(slot: *mut QueueSlot, now_ns: u64, packet: &Packet) -> Verdict {
    match packet.transport {
        Transport::Udp(_) => {
            stick(slot, now_ns, packet);
            Verdict::Stale
        }
        // One that sticks already is no new connection, whatever it says: see `decide_alive`.
        Transport::Tcp(_) if maps::sticks(packet, now_ns) => stays(slot, now_ns, packet),
        Transport::Tcp(header) if header.flags.opens() => {
            stick(slot, now_ns, packet);
            Verdict::StaleSyn
        }
        Transport::Tcp(_) => Verdict::StaleSegment,
    }
}

/// The verdict on a packet for a worker that is alive.
#[inline(always)]
pub(super) fn decide_alive(slot: *mut QueueSlot, now_ns: u64, packet: &Packet) -> Verdict {
    // SAFETY: the map's memory; of the program's own fields the queue's NAPI is the only writer.
    let until_ns = unsafe { ptr::read_volatile(sticky_until_ns(slot, packet)) };
    if now_ns >= until_ns || !maps::sticks(packet, now_ns) {
        return Verdict::Redirected;
    }
    stays(slot, now_ns, packet)
}

/// The verdict on a packet of a flow that sticks. A segment makes its connection stay on; a SYN or RST, which
/// anybody can forge, changes nothing either way: the companion socket has the connection's state and knows what to
/// make of them. A datagram prolongs nothing, for its flow is to come back.
#[inline(always)]
fn stays(slot: *mut QueueSlot, now_ns: u64, packet: &Packet) -> Verdict {
    if let Transport::Tcp(header) = packet.transport {
        if !header.flags.opens() && !header.flags.resets() {
            stick(slot, now_ns, packet);
        }
    }
    Verdict::Sticky
}

/// Makes the packet's flow stick from now on, and notes that there is one.
#[inline(always)]
fn stick(slot: *mut QueueSlot, now_ns: u64, packet: &Packet) {
    let until_ns = now_ns
        + match packet.transport {
            Transport::Udp(_) => STICKY_UDP_NS,
            Transport::Tcp(_) => STICKY_TCP_NS,
        };
    maps::stick(packet, until_ns);
    // SAFETY: the map's memory; of the program's own fields the queue's NAPI is the only writer.
    unsafe { ptr::write_volatile(sticky_until_ns(slot, packet), until_ns) };
}

/// Until when flows of the packet's protocol may stick: past that, none has to be looked for.
#[inline(always)]
fn sticky_until_ns(slot: *mut QueueSlot, packet: &Packet) -> *mut u64 {
    // SAFETY: both are fields of the slot that the pointer is of, and are not read here.
    unsafe {
        match packet.transport {
            Transport::Udp(_) => &raw mut (*slot).sticky_udp_until_ns,
            Transport::Tcp(_) => &raw mut (*slot).sticky_tcp_until_ns,
        }
    }
}

/// Remembers, and says once, that the worker turned stale.
#[inline(always)]
fn turned_stale(context: &XdpContext, slot: *mut QueueSlot, age_ns: u64) {
    // SAFETY: the map's memory; of the program's own fields the queue's NAPI is the only writer.
    unsafe {
        if ptr::read_volatile(&raw const (*slot).stale) != 0 {
            return;
        }
        ptr::write_volatile(&raw mut (*slot).stale, 1);
        let episodes = ptr::read_volatile(&raw const (*slot).stale_episodes);
        ptr::write_volatile(&raw mut (*slot).stale_episodes, episodes + 1);
    }
    if maps::log_level() >= LOG_WARN {
        warn!(
            context,
            "interface {} queue {}: the worker has not beaten for {} ms; its packets go to the kernel",
            context.ingress_ifindex(),
            context.rx_queue_index(),
            age_ns / NS_PER_MS,
        );
    }
}

/// Remembers, and says once, that a stale worker came back.
#[inline(always)]
fn came_back(context: &XdpContext, slot: *mut QueueSlot) {
    // SAFETY: as in `turned_stale`.
    unsafe {
        if ptr::read_volatile(&raw const (*slot).stale) == 0 {
            return;
        }
        ptr::write_volatile(&raw mut (*slot).stale, 0);
    }
    if maps::log_level() >= LOG_INFO {
        info!(
            context,
            "interface {} queue {}: the worker is back",
            context.ingress_ifindex(),
            context.rx_queue_index(),
        );
    }
}
