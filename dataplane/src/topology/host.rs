//! What this host has: cores and nodes from hwloc, NICs from sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hwlocality::object::types::ObjectType;

use super::error::TopologyError;
use crate::port::xsk::QueueCounts;

/// The interfaces of this thread's network namespace, whatever is mounted on `/sys`.
const PROC_NET_DEV: &str = "/proc/thread-self/net/dev";

/// What the kernel says of each interface.
const SYS_CLASS_NET: &str = "/sys/class/net";

/// One logical core (a hardware thread, what Linux calls a CPU).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// The kernel's number for it.
    pub id: usize,
    /// Which physical core it is a thread of; siblings share a number.
    pub physical: usize,
    /// Its NUMA node; `None` when the host does not say.
    pub node: Option<u32>,
    /// Whether it is online and this process may run on it.
    pub usable: bool,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Queues that receive and send, from number 0; these can be served.
    pub queues: u32,
    /// Queues behind those that only receive. A reply has to leave by the queue its request came in on, so they cannot be
    /// served.
    pub receive_only: u32,
    /// The NUMA node its bus is on; `None` for virtual ones, and where the host does not say.
    pub node: Option<u32>,
}

/// The part of a host that a plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Its cores, by number.
    pub cores: Vec<Core>,
    /// Its interfaces, by name.
    pub interfaces: Vec<Interface>,
}

impl Topology {
    /// Numbers of the cores this process may use.
    #[must_use]
    pub fn usable_cores(&self) -> Vec<usize> {
        self.cores.iter().filter(|core| core.usable).map(|core| core.id).collect()
    }
}

/// Finds out what this host has.
///
/// # Errors
/// [`TopologyError`] when hwloc or the kernel does not say.
pub fn discover() -> Result<Topology, TopologyError> {
    Ok(Topology { cores: cores()?, interfaces: interfaces()? })
}

/// Names of this network namespace's interfaces, sorted.
///
/// # Errors
/// [`TopologyError`] when sysfs cannot be read.
pub fn interface_names() -> Result<Vec<String>, TopologyError> {
    Ok(interfaces()?.into_iter().map(|interface| interface.name).collect())
}

fn cores() -> Result<Vec<Core>, TopologyError> {
    let topology = hwlocality::Topology::new().map_err(|error| TopologyError::Hwloc(error.to_string()))?;
    let allowed =
        rustix::thread::sched_getaffinity(None).map_err(|error| TopologyError::Affinity(error.into()))?;
    // The complete set also has what is offline or another cgroup's: named, so that an error can tell it from a
    // core that does not exist.
    let complete = topology.complete_cpuset();
    let mut cores: BTreeMap<usize, Core> = complete
        .iter_set()
        .map(usize::from)
        .map(|id| (id, Core { id, physical: id, node: None, usable: false }))
        .collect();
    for unit in topology.objects_with_type(ObjectType::PU) {
        let Some(id) = unit.os_index() else { continue };
        // Logical indices of hwloc's cores are unique in the machine; the kernel's core ids repeat per socket.
        let physical =
            unit.first_ancestor_with_type(ObjectType::Core).map_or(id, |core| core.logical_index());
        let node = unit
            .nodeset()
            .and_then(|nodes| nodes.first_set())
            .and_then(|node| u32::try_from(usize::from(node)).ok());
        let usable = id < rustix::thread::CpuSet::MAX_CPU && allowed.is_set(id);
        cores.insert(id, Core { id, physical, node, usable });
    }
    Ok(cores.into_values().collect())
}

/// The interfaces of this thread's network namespace.
fn interfaces() -> Result<Vec<Interface>, TopologyError> {
    let path = Path::new(PROC_NET_DEV);
    let table =
        fs::read_to_string(path).map_err(|source| TopologyError::Sysfs { path: path.to_owned(), source })?;
    let mut interfaces: Vec<Interface> =
        names_in(&table).map(|name| interface(name, Path::new(SYS_CLASS_NET))).collect();
    interfaces.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(interfaces)
}

/// The names in a table as `/proc/net/dev` has it: two lines of headings, then `name: counters`.
fn names_in(table: &str) -> impl Iterator<Item = &str> {
    table.lines().skip(2).filter_map(|line| Some(line.rsplit_once(':')?.0.trim()))
}

fn interface(name: &str, sysfs: &Path) -> Interface {
    let directory = sysfs.join(name);
    let counts = asked(name).unwrap_or_else(|| listed(&directory.join("queues")));
    // Every interface has one, whatever its driver says.
    let queues = counts.usable().max(1);
    // -1 stands for "unknown".
    let node =
        fs::read_to_string(directory.join("device/numa_node")).ok().and_then(|text| text.trim().parse().ok());
    Interface { name: name.to_owned(), queues, receive_only: counts.receive.saturating_sub(queues), node }
}

/// What the driver says; `None` when it does not.
fn asked(name: &str) -> Option<QueueCounts> {
    QueueCounts::read(name).ok().filter(|counts| counts.receive > 0)
}

/// The queues that sysfs lists, for drivers that do not say.
fn listed(directory: &Path) -> QueueCounts {
    let names: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    let count = |prefix| {
        let count = names.iter().filter(|name| name.to_string_lossy().starts_with(prefix)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    QueueCounts { receive: count("rx-"), transmit: count("tx-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_the_cores_and_interfaces_the_kernel_says() {
        let topology = discover().expect("hwloc and sysfs are readable");
        let parallelism = std::thread::available_parallelism().expect("the kernel says").get();
        // A cgroup's CPU quota may lower the parallelism, never the cores.
        assert!(topology.usable_cores().len() >= parallelism, "{topology:?}");
        let loopback = topology.interfaces.iter().find(|interface| interface.name == "lo");
        assert_eq!(loopback.map(|interface| (interface.queues, interface.node)), Some((1, None)));
    }

    #[test]
    fn nics_are_read_from_sysfs() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for queue in ["rx-0", "rx-1", "rx-2", "tx-0", "tx-1"] {
            fs::create_dir_all(directory.path().join("invented1/queues").join(queue)).expect("a directory");
        }
        fs::create_dir_all(directory.path().join("invented1/device")).expect("a directory");
        fs::write(directory.path().join("invented1/device/numa_node"), "1\n").expect("a file");
        fs::create_dir_all(directory.path().join("invented0/device")).expect("a directory");
        fs::write(directory.path().join("invented0/device/numa_node"), "-1\n").expect("a file");
        let eth0 = Interface { name: "invented0".into(), queues: 1, receive_only: 0, node: None };
        assert_eq!(interface("invented0", directory.path()), eth0);
        let eth1 = Interface { name: "invented1".into(), queues: 2, receive_only: 1, node: Some(1) };
        assert_eq!(interface("invented1", directory.path()), eth1);
    }

    #[test]
    fn names_are_read_from_the_kernels_table() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2\neth0:0: 3 4\n";
        assert_eq!(names_in(table).collect::<Vec<_>>(), ["lo", "eth0:0"]);
    }
}
