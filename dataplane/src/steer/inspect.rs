//! What the kernel really runs, asked through libbpf: programs, links, maps, and what a packet costs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use caps::Capability;
use dataplane_ebpf::layout::{self, PROGRAM};
use dataplane_ebpf::verdict::Verdict;
use libbpf_rs::ProgramType;
use libbpf_rs::query::{
    LinkInfoIter, LinkTypeInfo, MapInfoIter, ProgInfoIter, ProgInfoQueryOptions, ProgramInfo,
};
use serde::{Deserialize, Serialize};

use super::attach::Interface;
use super::error::command;
use super::{SteerError, kernel, maps, pin};
use crate::config::DaemonConfig;
use crate::privileges::lacks;

/// What is loaded and pinned on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SteerStatus {
    /// Every steering program in the kernel.
    pub programs: Vec<ProgramStatus>,
    /// What is pinned, by interface.
    pub pinned: Vec<PinnedStatus>,
}

/// One steering program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Its number in the kernel.
    pub id: u32,
    /// Hash of its instructions, as the kernel computes it.
    pub tag: String,
    /// Its links.
    pub links: Vec<LinkStatus>,
    /// Its maps.
    pub maps: Vec<MapStatus>,
    /// Runs while the kernel counted them: packets seen in [`ProgramStatus::window_ms`].
    pub run_count: u64,
    /// Nanoseconds a run took on average in that time; `None` when there was none.
    pub ns_per_packet: Option<f64>,
    /// Milliseconds the kernel was made to count for.
    pub window_ms: u64,
    /// Packets by verdict since the program was loaded; empty when its maps have another layout.
    pub verdicts: BTreeMap<String, u64>,
}

/// Where a program is attached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The link's number in the kernel.
    pub id: u32,
    /// Interface index, in the namespace of whoever attached; 0 when the interface is gone.
    pub interface_index: u32,
    /// Interface name, when it is one of this network namespace.
    pub interface: Option<String>,
    /// `native` or `generic`, when it is known.
    pub mode: Option<String>,
}

/// One map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MapStatus {
    /// Its number in the kernel.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its type, as libbpf names it.
    pub kind: String,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value, on each CPU for a per-CPU map.
    pub value_bytes: u32,
    /// Entries it can hold.
    pub entries_max: u32,
}

/// What is pinned for one interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PinnedStatus {
    /// Interface name.
    pub interface: String,
    /// Folder on the bpffs.
    pub path: String,
    /// Layout version of the maps; `None` when it cannot be told.
    pub layout_version: Option<u32>,
    /// True while a daemon holds it.
    pub held: bool,
}

/// Asks the kernel. It is made to count BPF runs for the length of `window`, which costs each run a few
/// nanoseconds; `Duration::ZERO` leaves the counts out.
///
/// # Errors
/// [`SteerError::NotPermitted`], or what the kernel says.
pub fn inspect(directory: &Path, window: Duration) -> Result<SteerStatus, SteerError> {
    let before = programs();
    let counted = if window.is_zero() {
        before
    } else {
        let counting = kernel::enable_run_time_stats()
            .map_err(|source| SteerError::kernel("counting the run time of BPF programs", source))?;
        std::thread::sleep(window);
        let after = programs();
        drop(counting);
        after
            .into_iter()
            .map(|mut program| {
                if let Some(earlier) = before.iter().find(|earlier| earlier.id == program.id) {
                    program.run_cnt = program.run_cnt.saturating_sub(earlier.run_cnt);
                    program.run_time_ns = program.run_time_ns.saturating_sub(earlier.run_time_ns);
                }
                program
            })
            .collect()
    };
    let programs = counted.iter().map(|program| program_status(program, window)).collect();
    let pinned = pin::pinned(directory)?
        .into_iter()
        .map(|(interface, path, held)| PinnedStatus {
            interface,
            layout_version: maps::layout_version(&path),
            path: path.display().to_string(),
            held,
        })
        .collect();
    Ok(SteerStatus { programs, pinned })
}

/// Every steering program in the kernel.
fn programs() -> Vec<ProgramInfo> {
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    ProgInfoIter::with_query_opts(options)
        .filter(|program| program.ty == ProgramType::Xdp && program.name == OsStr::new(PROGRAM))
        .collect()
}

fn program_status(program: &ProgramInfo, window: Duration) -> ProgramStatus {
    let maps: Vec<MapStatus> = MapInfoIter::default()
        .filter(|map| program.map_ids.contains(&map.id))
        .map(|map| MapStatus {
            id: map.id,
            name: map.name.to_string_lossy().into_owned(),
            kind: format!("{:?}", map.ty),
            key_bytes: map.key_size,
            value_bytes: map.value_size,
            entries_max: map.max_entries,
        })
        .collect();
    let counters = maps.iter().find(|map| map.name == layout::COUNTERS).map(|map| map.id);
    let (run_count, run_time_ns) =
        if window.is_zero() { (0, 0) } else { (program.run_cnt, program.run_time_ns) };
    ProgramStatus {
        id: program.id,
        tag: program.tag.0.iter().map(|byte| format!("{byte:02x}")).collect(),
        links: links_of(program.id),
        verdicts: counters.map(verdicts).unwrap_or_default(),
        maps,
        run_count,
        ns_per_packet: (run_count > 0).then(|| run_time_ns as f64 / run_count as f64),
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
    }
}

fn links_of(program_id: u32) -> Vec<LinkStatus> {
    LinkInfoIter::default()
        .filter(|link| link.prog_id == program_id)
        .filter_map(|link| {
            let LinkTypeInfo::Xdp(info) = link.info else { return None };
            // The index is one of another namespace, perhaps; believe it when this one agrees.
            let attached = kernel::query_xdp(info.ifindex).ok().flatten();
            let ours = attached.filter(|&(program, _)| program == program_id);
            Some(LinkStatus {
                id: link.id,
                interface_index: info.ifindex,
                interface: ours.and_then(|_| Interface::name_of(info.ifindex)),
                mode: ours.and_then(|(_, mode)| mode).map(|mode| mode.label().to_owned()),
            })
        })
        .collect()
}

fn verdicts(counters: u32) -> BTreeMap<String, u64> {
    let Some(counters) = maps::counters_by_id(counters) else { return BTreeMap::new() };
    Verdict::ALL
        .iter()
        .filter_map(|&verdict| {
            let values = counters.get(&(verdict as u32), 0).ok()?;
            Some((verdict.label().to_owned(), values.iter().sum()))
        })
        .collect()
}

/// Somebody else's XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Interface name.
    pub interface: String,
    /// The program's number in the kernel.
    pub program_id: u32,
    /// Its name, which may be empty; `None` when this process may not ask for it: that takes CAP_SYS_ADMIN.
    pub program_name: Option<String>,
    /// The link that holds it; `None` when it was attached by netlink, or this process may not ask.
    pub link_id: Option<u32>,
}

impl Foreign {
    /// Who is attached to an interface of this network namespace.
    ///
    /// # Errors
    /// [`SteerError::NoInterface`], or what the kernel says.
    pub fn find(interface: &str) -> Result<Option<Self>, SteerError> {
        let Interface { name, index } = Interface::find(interface)?;
        Self::on(&name, index)
    }

    pub(super) fn on(interface: &str, index: u32) -> Result<Option<Self>, SteerError> {
        let attached = kernel::query_xdp(index)
            .map_err(|source| SteerError::kernel("asking what is attached to the interface", source))?;
        let Some((program_id, _)) = attached else { return Ok(None) };
        // Programs and links are listed for this capability alone; without it the lists look empty.
        if lacks(Capability::CAP_SYS_ADMIN) {
            let interface = interface.to_owned();
            return Ok(Some(Self { interface, program_id, program_name: None, link_id: None }));
        }
        let program_name = ProgInfoIter::default()
            .find(|program| program.id == program_id)
            .map_or(String::new(), |program| program.name.to_string_lossy().into_owned());
        let link_id = LinkInfoIter::default()
            .find(|link| {
                link.prog_id == program_id
                    && matches!(&link.info, LinkTypeInfo::Xdp(info) if info.ifindex == index)
            })
            .map(|link| link.id);
        Ok(Some(Self {
            interface: interface.to_owned(),
            program_id,
            program_name: Some(program_name),
            link_id,
        }))
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, program_id, program_name, link_id } = self;
        write!(formatter, "id {program_id} ")?;
        let Some(name) = program_name else {
            return write!(
                formatter,
                "(whose, the kernel tells only who has CAP_SYS_ADMIN); as root, `bpftool prog show id {program_id}` \
                 names it and `bpftool link` says whether a link holds it"
            );
        };
        let name = if name.is_empty() { "unknown" } else { name };
        write!(formatter, "name {name}; ")?;
        match (name == PROGRAM, link_id) {
            (true, _) => write!(
                formatter,
                "it is a steering program: stop the daemon that owns it, or, if `steer load` pinned it, adopt it \
                 (attachment = \"adopted\") or remove it with `{}`",
                command("unload", interface, &DaemonConfig::default().pin_directory)
            ),
            (false, Some(link)) => write!(
                formatter,
                "remove it by stopping who attached it, or with `bpftool link detach id {link}`"
            ),
            (false, None) => write!(formatter, "remove it with `ip link set dev {interface} xdp off`"),
        }
    }
}
