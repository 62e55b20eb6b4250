//! What must hold between values, and whom a listener may serve. Each value of a file has passed its own bounds, or
//! been reported and replaced by its default, by the time it gets here.

use std::net::IpAddr;

use super::bounds;
use super::display_size;
use super::model::{
    Config, CopyMode, InterfaceConfig, ListenerConfig, ListenerProtocol, ListenerTransport, XdpMode,
};
use super::reader::{Report, nearest};
use super::sources;
use crate::limits::{QUEUES_MAX, WORKERS_MAX};

/// What an empty allow-list means.
pub(super) const NOBODY: &str =
    "a service open to nobody serves nobody; leave it out to serve private networks";

/// Reports what does not fit together. `services` are those the daemon has, if they are known.
pub(super) fn between_values(config: &Config, services: Option<&[&str]>, report: &Report<'_>) {
    interfaces(&config.interfaces, report);
    some_interface(config, report);
    cores(config, report);
    table(config, report);
    listeners(config, report);
    room_for_listeners(&config.listeners, report);
    if let Some(services) = services {
        known_services(&config.listeners, services, report);
    }
}

fn interfaces(interfaces: &[InterfaceConfig], report: &Report<'_>) {
    for (index, interface) in interfaces.iter().enumerate() {
        let key = |name: &str| format!("interface[{index}].{name}");
        let name = &interface.name;
        let earlier = interfaces[..index].iter().position(|other| other.name == *name && !name.is_empty());
        if let Some(earlier) = earlier {
            report.error_at(
                &key("name"),
                format!("{name} is interface[{earlier}] already; join the two blocks"),
            );
        }
        if interface.mode == XdpMode::Generic && interface.copy == CopyMode::ZeroCopy {
            report.error_at(
                &key("copy"),
                "zero-copy needs the program in the driver, and mode = \"generic\" runs it after the kernel has copied \
                 the packet; leave one of the two out",
            );
        }
        let frames_min = interface.ring_entries * bounds::FRAMES_PER_RING_ENTRY_MIN;
        if interface.frames < frames_min {
            report.error_at(
                &key("frames"),
                format!(
                    "{} frames are too few for rings of {} entries, of which two can be full at once; \
                     at least {frames_min}, or smaller rings",
                    interface.frames, interface.ring_entries
                ),
            );
        }
    }
    let queues: usize =
        interfaces.iter().filter_map(|interface| interface.queues.as_ref()).map(Vec::len).sum();
    if queues > QUEUES_MAX {
        report.error_at("interface", format!("lists {queues} queues in all; one daemon serves {QUEUES_MAX}"));
    }
}

/// What is to pass the kernel by has to come in somewhere.
fn some_interface(config: &Config, report: &Report<'_>) {
    let needs_one = |listener: &ListenerConfig| listener.transport == ListenerTransport::Bypass;
    let needed = config.listeners.is_empty() || config.listeners.iter().any(needs_one);
    if needed && config.interfaces.is_empty() {
        report.lacking(
            "interface",
            "there is none; add a block [[interface]] and name the NIC to serve there, or give each listener \
             transport = \"kernel\" for ordinary sockets alone",
        );
    }
}

fn cores(config: &Config, report: &Report<'_>) {
    if let Some(cores) = &config.workers.cores {
        if cores.len() > WORKERS_MAX {
            let count = cores.len();
            report.error_at(
                "workers.cores",
                format!("has {count} cores; one daemon runs {WORKERS_MAX} workers at most"),
            );
        }
        for (at, core) in cores.iter().enumerate().filter(|(at, core)| cores[..*at].contains(core)) {
            report.error_at(
                &format!("workers.cores[{at}]"),
                format!("core {core} is there twice; a worker needs its core for itself"),
            );
        }
    }
    let (Some(workers), Some(housekeeping)) = (&config.workers.cores, &config.daemon.housekeeping_cores)
    else {
        return;
    };
    for core in workers.iter().filter(|core| housekeeping.contains(core)) {
        report.error_at(
            "workers.cores",
            format!("core {core} is in daemon.housekeeping_cores too; a worker needs its core for itself"),
        );
    }
}

fn table(config: &Config, report: &Report<'_>) {
    let item = u64::from(config.table.item_bytes_max);
    let least = item * bounds::ITEMS_PER_TABLE_MIN;
    if config.table.capacity_bytes < least {
        report.error_at(
            "table.capacity",
            format!(
                "{} has no room for {} items of item_max = {}; at least {}, or a smaller item_max",
                display_size(config.table.capacity_bytes),
                bounds::ITEMS_PER_TABLE_MIN,
                display_size(item),
                display_size(least.next_multiple_of(1 << 10))
            ),
        );
    }
    if config.table.expected_item_bytes > config.table.item_bytes_max {
        report.error_at(
            "table.item_expected",
            format!(
                "{} for the mean item is more than item_max = {} for the largest",
                display_size(config.table.expected_item_bytes.into()),
                display_size(item)
            ),
        );
    }
}

fn listeners(config: &Config, report: &Report<'_>) {
    for (index, listener) in config.listeners.iter().enumerate() {
        let key = |name: &str| format!("listener[{index}].{name}");
        let earlier = config.listeners[..index].iter().position(|other| overlap(other, listener));
        if let Some(earlier) = earlier {
            report.error_at(
                &key("port"),
                format!("listener[{earlier}] is on port {} already, on the same address", listener.port),
            );
        }
        if listener.allow.is_empty() {
            report.error_at(&key("allow"), format!("is empty; {NOBODY}"));
        }
        // The source of a TCP connection cannot be forged, so it amplifies nothing.
        if listener.protocol == ListenerProtocol::Udp
            && let Some(reason) = sources::too_wide(&listener.allow)
        {
            report.error_at(&key("allow"), reason);
        }
        for (item, &address) in listener.addresses.iter().enumerate() {
            let family = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            if !listener.allow.iter().any(|network| network.addr().is_ipv4() == address.is_ipv4()) {
                report.error_at(
                    &key(&format!("addresses[{item}]")),
                    format!("{address} would serve nobody: no network in allow is {}", family(address)),
                );
            }
        }
    }
}

/// The XDP program's maps hold so many of each, over all listeners.
fn room_for_listeners(listeners: &[ListenerConfig], report: &Report<'_>) {
    let networks: usize = listeners.iter().map(|listener| listener.allow.len()).sum();
    if networks > bounds::NETWORKS_MAX {
        let most = bounds::NETWORKS_MAX;
        report.error_at(
            "listener",
            format!(
                "allows {networks} networks in all; the XDP program has room for {most}: join some of them"
            ),
        );
    }
    // A listener on every address takes one place.
    let addresses: usize = listeners.iter().map(|listener| listener.addresses.len().max(1)).sum();
    if addresses > bounds::ADDRESSES_MAX {
        let most = bounds::ADDRESSES_MAX;
        report.error_at(
            "listener",
            format!(
                "names {addresses} addresses in all; the XDP program has room for {most}: a listener without \
                 addresses answers on all of them"
            ),
        );
    }
}

fn known_services(listeners: &[ListenerConfig], services: &[&str], report: &Report<'_>) {
    for (index, listener) in listeners.iter().enumerate() {
        let name = listener.service.as_str();
        // An empty one was missing or wrong, which has been reported.
        if name.is_empty() || services.contains(&name) {
            continue;
        }
        let hint = nearest(name, services).map_or_else(
            || format!("it has {}", services.join(", ")),
            |near| format!("did you mean {near:?}?"),
        );
        report.error_at(
            &format!("listener[{index}].service"),
            format!("this daemon has no service {name:?}; {hint}"),
        );
    }
}

/// Whether two listeners would get the same packets. No addresses means all of them.
fn overlap(one: &ListenerConfig, other: &ListenerConfig) -> bool {
    one.port != 0
        && (one.protocol, one.port) == (other.protocol, other.port)
        && (one.addresses.is_empty()
            || other.addresses.is_empty()
            || one.addresses.iter().any(|address| other.addresses.contains(address)))
}
