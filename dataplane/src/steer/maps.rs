//! The program's maps, typed. They come from the object just loaded, or from the pins of one loaded earlier.

use std::path::Path;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, XskMap};
use aya::{Ebpf, Pod};
use dataplane_ebpf::flow::FlowKey;
use dataplane_ebpf::layout::{
    self, FlowValue, PortValue, QueueSlot, ServiceKey, ServiceValue, Settings, SourceKey,
};

use super::SteerError;

/// A key or value as the kernel has it: plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

/// # Safety
/// `repr(C)`, every byte initialised (no implicit padding), and every bit pattern a value: `layout` asserts sizes
/// that leave no room for implicit padding, and all fields are integers or arrays of them.
macro_rules! plain {
    ($($type:ty),+) => { $(
        // SAFETY: see above.
        unsafe impl Pod for Plain<$type> {}
    )+ };
}
plain!(Settings, PortValue, ServiceKey, ServiceValue, SourceKey, QueueSlot, FlowKey, FlowValue);

/// Flows of one protocol that the companion socket has.
pub(super) type Flows = HashMap<MapData, Plain<FlowKey>, Plain<FlowValue>>;

/// Every map that user space works with, but for the log's, which its reader takes.
pub(super) struct Maps {
    pub(super) settings: Array<MapData, Plain<Settings>>,
    pub(super) ports: Array<MapData, Plain<PortValue>>,
    pub(super) services: HashMap<MapData, Plain<ServiceKey>, Plain<ServiceValue>>,
    pub(super) sources: LpmTrie<MapData, Plain<SourceKey>, u8>,
    pub(super) sockets: XskMap<MapData>,
    pub(super) queues: MapData,
    pub(super) udp_flows: Flows,
    pub(super) tcp_flows: Flows,
    pub(super) counters: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Takes them from a loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, SteerError> {
        Self::collect(|name| object.take_map(name).ok_or(SteerError::Incomplete { what: name }))
    }

    /// Opens them under the pin directory.
    pub(super) fn open(directory: &Path) -> Result<Self, SteerError> {
        Self::collect(|name| {
            let data =
                MapData::from_pin(directory.join(name)).map_err(|source| SteerError::map(name, source))?;
            Map::from_map_data(data).map_err(|source| SteerError::map(name, source))
        })
    }

    fn collect(mut find: impl FnMut(&'static str) -> Result<Map, SteerError>) -> Result<Self, SteerError> {
        Ok(Self {
            settings: typed(layout::SETTINGS, &mut find)?,
            ports: typed(layout::PORTS, &mut find)?,
            services: typed(layout::SERVICES, &mut find)?,
            sources: typed(layout::SOURCES, &mut find)?,
            sockets: typed(layout::XSKS, &mut find)?,
            queues: match find(layout::QUEUES)? {
                Map::Array(data) => data,
                _ => return Err(SteerError::Incomplete { what: layout::QUEUES }),
            },
            udp_flows: typed(layout::UDP_FLOWS, &mut find)?,
            tcp_flows: typed(layout::TCP_FLOWS, &mut find)?,
            counters: typed(layout::COUNTERS, &mut find)?,
        })
    }
}

/// Finds one map and gives it its type.
fn typed<M: TryFrom<Map, Error = aya::maps::MapError>>(
    name: &'static str,
    find: &mut impl FnMut(&'static str) -> Result<Map, SteerError>,
) -> Result<M, SteerError> {
    M::try_from(find(name)?).map_err(|source| SteerError::map(name, source))
}

/// Layout version that the maps pinned in a folder were made with; `None` when it cannot be told.
pub(super) fn layout_version(directory: &Path) -> Option<u32> {
    let data = MapData::from_pin(directory.join(layout::SETTINGS)).ok()?;
    let settings: Array<MapData, Plain<Settings>> = Map::from_map_data(data).ok()?.try_into().ok()?;
    settings.get(&0, 0).ok().map(|Plain(settings)| settings.layout_version)
}

/// A program's counters, by the map's number in the kernel; `None` when its layout is another.
pub(super) fn counters_by_id(id: u32) -> Option<PerCpuArray<MapData, u64>> {
    Map::from_map_data(MapData::from_id(id).ok()?).ok()?.try_into().ok()
}
