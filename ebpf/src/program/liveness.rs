//! The dead-man's switch, and the flows that stick to the companion socket.
//!
//! A worker that died needs no heartbeat: its socket leaves the map. The heartbeat finds the one that is stopped
//! or stuck. Its clients' new requests go to the companion socket; the connections it holds wait for it.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::{info, warn};
use core::ptr;
use dataplane_ebpf::flow::FlowKey;
use dataplane_ebpf::layout::{QueueSlot, STALE_NS, STICKY_UDP_NS};
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
    let flow = FlowKey::of(packet);
    match packet.transport {
        Transport::Udp(_) => {
            let until_ns = now_ns + STICKY_UDP_NS;
            maps::stick(&flow, until_ns);
            // SAFETY: the map's memory; of the program's own fields the queue's NAPI is the only writer.
            unsafe { ptr::write_volatile(&raw mut (*slot).sticky_udp_until_ns, until_ns) };
            Verdict::Stale
        }
        Transport::Tcp(header) => {
            if header.flags.opens() {
                maps::stick(&flow, u64::MAX);
                // SAFETY: as above.
                unsafe { ptr::write_volatile(&raw mut (*slot).sticky_tcp, 1) };
                return Verdict::StaleSyn;
            }
            if maps::flow_until_ns(&flow).is_none() {
                return Verdict::StaleSegment;
            }
            if header.flags.resets() {
                maps::unstick(&flow);
            }
            Verdict::Sticky
        }
    }
}

/// The verdict on a packet for a worker that is alive.
#[inline(always)]
pub(super) fn decide_alive(slot: *mut QueueSlot, now_ns: u64, packet: &Packet) -> Verdict {
    match packet.transport {
        Transport::Udp(_) => {
            // SAFETY: the map's memory; of the program's own fields the queue's NAPI is the only writer.
            let sticky_until_ns = unsafe { ptr::read_volatile(&raw const (*slot).sticky_udp_until_ns) };
            if now_ns >= sticky_until_ns {
                return Verdict::Redirected;
            }
            match maps::flow_until_ns(&FlowKey::of(packet)) {
                Some(until_ns) if now_ns < until_ns => Verdict::Sticky,
                _ => Verdict::Redirected,
            }
        }
        Transport::Tcp(header) => {
            // SAFETY: as above.
            if unsafe { ptr::read_volatile(&raw const (*slot).sticky_tcp) } == 0 {
                return Verdict::Redirected;
            }
            let flow = FlowKey::of(packet);
            if maps::flow_until_ns(&flow).is_none() {
                return Verdict::Redirected;
            }
            if header.flags.opens() {
                maps::unstick(&flow);
                return Verdict::Redirected;
            }
            if header.flags.resets() {
                maps::unstick(&flow);
            }
            Verdict::Sticky
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
