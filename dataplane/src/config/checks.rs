//! What must hold between values. Each value has passed its own bounds, or been reported and replaced by its
//! default, by the time it gets here.

use std::net::IpAddr;

use super::bounds;
use super::display_size;
use super::model::{Config, InterfaceConfig, ListenerConfig};
use super::reader::Report;
use crate::limits::{MEMCACHED_DATAGRAM_BYTES_MAX, QUEUES_MAX};

/// Reports what does not fit together.
pub(super) fn between_values(config: &Config, report: &Report<'_>) {
    interfaces(&config.interfaces, report);
    cores(config, report);
    table(config, report);
    listeners(config, report);
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

fn cores(config: &Config, report: &Report<'_>) {
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
                display_size(least)
            ),
        );
    }
}

fn listeners(config: &Config, report: &Report<'_>) {
    let ring_entries = config.interfaces.iter().map(|interface| interface.ring_entries).min();
    for (index, listener) in config.listeners.iter().enumerate() {
        let key = |name: &str| format!("listener[{index}].{name}");
        let earlier = config.listeners[..index].iter().position(|other| overlap(other, listener));
        if let Some(earlier) = earlier {
            report.error_at(
                &key("port"),
                format!("listener[{earlier}] is on port {} already, on the same address", listener.port),
            );
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
        // A reply goes out whole or not at all, so its datagrams must fit an empty TX ring.
        let datagrams = listener.reply_bytes_max.div_ceil(MEMCACHED_DATAGRAM_BYTES_MAX as u32);
        if let Some(entries) = ring_entries.filter(|&entries| datagrams > entries) {
            report.error_at(
                &key("reply_max"),
                format!(
                    "{} is {datagrams} datagrams, more than a ring of {entries} entries holds; at most {}",
                    display_size(listener.reply_bytes_max.into()),
                    display_size(u64::from(entries) * MEMCACHED_DATAGRAM_BYTES_MAX as u64)
                ),
            );
        }
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
