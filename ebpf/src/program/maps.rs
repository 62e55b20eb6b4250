//! The maps, under the names and with the layouts of `dataplane_ebpf::layout`, and typed access to them.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_action};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::address::Address;
use dataplane_ebpf::flow::FlowKey;
use dataplane_ebpf::layout::{
    FLOWS_MAX, FlowValue, PORTS_MAX, PortValue, QUEUES_MAX, QueueSlot, SERVICES_MAX, SOURCE_ALLOWED,
    SOURCES_MAX, ServiceKey, ServiceValue, Settings, SourceKey,
};
use dataplane_ebpf::packet::{Packet, Transport};
use dataplane_ebpf::verdict::{VERDICTS, Verdict};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
static PORTS: Array<PortValue> = Array::with_max_entries(PORTS_MAX, 0);

#[map]
static SERVICES: HashMap<ServiceKey, ServiceValue> = HashMap::with_max_entries(SERVICES_MAX, 0);

#[map]
static SOURCES: LpmTrie<SourceKey, u8> = LpmTrie::with_max_entries(SOURCES_MAX, 0);

#[map]
static XSKS: XskMap = XskMap::with_max_entries(QUEUES_MAX, 0);

#[map]
static QUEUES: Array<QueueSlot> = Array::with_max_entries(QUEUES_MAX, BPF_F_MMAPABLE);

#[map]
static UDP_FLOWS: Flows = Flows::with_max_entries(FLOWS_MAX, 0);

#[map]
static TCP_FLOWS: Flows = Flows::with_max_entries(FLOWS_MAX, 0);

type Flows = LruHashMap<FlowKey, FlowValue>;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICTS, 0);

/// Counts a verdict on this CPU.
#[inline(always)]
pub(super) fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: the map's own memory for this CPU, and XDP programs of one CPU do not interrupt each other.
        unsafe { *counter += 1 }
    }
}

/// What is served on a port.
#[inline(always)]
pub(super) fn port(port: u16) -> Option<&'static PortValue> {
    PORTS.get(u32::from(port))
}

/// Number of the service under a key.
#[inline(always)]
pub(super) fn service(key: &ServiceKey) -> Option<u32> {
    // SAFETY: entries are preallocated and the value is one word, so that a value replaced meanwhile is read
    // either old or new; user space waits for whoever reads here before it lets the kernel use a replaced entry anew.
    unsafe { SERVICES.get(key) }.map(|value| value.id)
}

/// True when a service's allow-list holds the source.
#[inline(always)]
pub(super) fn source_is_allowed(service: u32, source: Address) -> bool {
    SOURCES
        .get(Key::new(SourceKey::BITS, SourceKey::new(service, source)))
        .is_some_and(|&entry| entry == SOURCE_ALLOWED)
}

/// Level of the program's log.
#[inline(always)]
pub(super) fn log_level() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.log_level)
}

/// The slot of a queue.
#[inline(always)]
pub(super) fn queue(queue: u32) -> Option<*mut QueueSlot> {
    QUEUES.get_ptr_mut(queue)
}

/// True when an AF_XDP socket is registered for the queue.
#[inline(always)]
pub(super) fn has_socket(queue: u32) -> bool {
    XSKS.get(queue).is_some()
}

/// Redirects the packet to its queue's socket; false when there is none.
#[inline(always)]
pub(super) fn redirect(context: &XdpContext) -> bool {
    XSKS.redirect(context.rx_queue_index(), u64::from(xdp_action::XDP_PASS)).is_ok()
}

/// The flows of a packet's protocol.
#[inline(always)]
fn flows(packet: &Packet) -> &'static Flows {
    match packet.transport {
        Transport::Udp(_) => &UDP_FLOWS,
        Transport::Tcp(_) => &TCP_FLOWS,
    }
}

/// True while the packet's flow stays with the companion socket.
#[inline(always)]
pub(super) fn sticks(packet: &Packet, now_ns: u64) -> bool {
    // SAFETY: the value is one word; an entry evicted meanwhile costs one packet the wrong way, no more.
    unsafe { flows(packet).get(FlowKey::of(packet)) }.is_some_and(|value| now_ns < value.until_ns)
}

/// Makes the packet's flow stay with the companion socket. A full map forgets the flow it saw least recently.
#[inline(always)]
pub(super) fn stick(packet: &Packet, until_ns: u64) {
    // It fails only when every entry is being changed by another CPU; the next packet tries again.
    let _ = flows(packet).insert(FlowKey::of(packet), FlowValue { until_ns }, 0);
}
