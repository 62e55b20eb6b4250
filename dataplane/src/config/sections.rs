//! Each table of the document to its part of the model. A wrong value has been reported by the time its default
//! stands in for it, so what is built here leaves the module only when there was no error at all.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::log_filter::log_filter;
use super::model::{
    Attachment, BusyPollConfig, ChecksumPolicy, Config, CopyMode, DaemonConfig, Idle, InterfaceConfig,
    ListenerConfig, ListenerProtocol, ListenerTransport, RateLimit, SteerLogLevel, TableConfig, TcpConfig,
    WorkersConfig, XdpMode,
};
use super::reader::{Field, Section};
use super::{bounds, checks, defaults, sources};
use crate::memory::HugePages;

const STEER_LOG: [(&str, SteerLogLevel); 5] = [
    ("off", SteerLogLevel::Off),
    ("error", SteerLogLevel::Error),
    ("warn", SteerLogLevel::Warn),
    ("info", SteerLogLevel::Info),
    ("debug", SteerLogLevel::Debug),
];
const ATTACHMENT: [(&str, Attachment); 2] = [("owned", Attachment::Owned), ("adopted", Attachment::Adopted)];
const MODE: [(&str, XdpMode); 3] =
    [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
const COPY: [(&str, CopyMode); 3] =
    [("auto", CopyMode::Auto), ("zero-copy", CopyMode::ZeroCopy), ("copy", CopyMode::Copy)];
const CHECKSUM: [(&str, ChecksumPolicy); 2] =
    [("verify", ChecksumPolicy::Verify), ("partial-ok", ChecksumPolicy::PartialOk)];
const HUGE_PAGES: [(&str, HugePages); 3] =
    [("auto", HugePages::Auto), ("required", HugePages::Required), ("never", HugePages::Never)];
const PROTOCOL: [(&str, ListenerProtocol); 2] = [
    (ListenerProtocol::Udp.label(), ListenerProtocol::Udp),
    (ListenerProtocol::Tcp.label(), ListenerProtocol::Tcp),
];
const TRANSPORT: [(&str, ListenerTransport); 3] = [
    (ListenerTransport::Bypass.label(), ListenerTransport::Bypass),
    (ListenerTransport::Kernel.label(), ListenerTransport::Kernel),
    (ListenerTransport::Auto.label(), ListenerTransport::Auto),
];

/// The whole document. What must hold between its values is not looked at.
pub(super) fn config(mut root: Section<'_, '_>) -> Config {
    let daemon = daemon(root.section("daemon"));
    let interfaces = root.sections_if_any("interface").into_iter().map(interface).collect();
    let workers = workers(root.section("workers"));
    let table = table(root.section("table"));
    let tcp = tcp(root.section("tcp"));
    let listeners: Vec<ListenerConfig> =
        root.sections("listener", "name the service and its port").into_iter().map(listener).collect();
    Config { daemon, interfaces, workers, table, tcp, listeners }
}

fn daemon(mut section: Section<'_, '_>) -> DaemonConfig {
    let default = DaemonConfig::default();
    DaemonConfig {
        admin: section.take("admin").and_then(|field| field.parsed(admin_address)).unwrap_or(default.admin),
        housekeeping_cores: section.take("housekeeping_cores").and_then(cores),
        pin_directory: section
            .take("pin_directory")
            .and_then(|field| field.parsed(pin_directory))
            .unwrap_or(default.pin_directory),
        log: section.take("log").and_then(|field| field.parsed(log_filter)).unwrap_or(default.log),
        steer_log: section.take("steer_log").and_then(|field| field.choice(&STEER_LOG)).unwrap_or_default(),
    }
}

fn interface(mut section: Section<'_, '_>) -> InterfaceConfig {
    let name = section.require("name", "\"eth1\"").and_then(|field| field.parsed(interface_name));
    let default = InterfaceConfig::named(name.unwrap_or_default());
    let queue = |field: &Field<'_, '_>| field.number::<u32>(&bounds::QUEUE);
    InterfaceConfig {
        queues: section
            .take("queues")
            .and_then(|field| field.distinct("leave it out to serve all queues", queue)),
        attachment: section
            .take("attachment")
            .and_then(|field| field.choice(&ATTACHMENT))
            .unwrap_or_default(),
        mode: section.take("mode").and_then(|field| field.choice(&MODE)).unwrap_or_default(),
        copy: section.take("copy").and_then(|field| field.choice(&COPY)).unwrap_or_default(),
        frames: section
            .take("frames")
            .and_then(|field| field.number(&bounds::FRAMES))
            .unwrap_or(default.frames),
        ring_entries: section.take("ring_entries").and_then(ring_entries).unwrap_or(default.ring_entries),
        huge_pages: section
            .take("huge_pages")
            .and_then(|field| field.choice(&HUGE_PAGES))
            .unwrap_or_default(),
        checksum: section.take("checksum").and_then(|field| field.choice(&CHECKSUM)).unwrap_or_default(),
        busy_poll: section.take("busy_poll").and_then(Field::section).and_then(busy_poll),
        ..default
    }
}

fn busy_poll(mut section: Section<'_, '_>) -> Option<BusyPollConfig> {
    let duration_us =
        section.require("duration_us", "20").and_then(|field| field.number(&bounds::BUSY_POLL_DURATION_US));
    let budget = section.require("budget", "64").and_then(|field| field.number(&bounds::BUSY_POLL_BUDGET));
    Some(BusyPollConfig { duration_us: duration_us?, budget: budget? })
}

fn workers(mut section: Section<'_, '_>) -> WorkersConfig {
    let cores = section.take("cores").and_then(cores);
    let spin_us =
        section.take("spin_us").and_then(|field| field.number(&bounds::SPIN_US)).unwrap_or(defaults::SPIN_US);
    let choices = [("adaptive", Idle::Adaptive { spin_us }), ("busy", Idle::Busy)];
    let idle = section.take("idle").and_then(|field| field.choice(&choices));
    WorkersConfig { cores, idle: idle.unwrap_or(Idle::Adaptive { spin_us }) }
}

fn table(mut section: Section<'_, '_>) -> TableConfig {
    let default = TableConfig::default();
    let item_max = section.take("item_max").and_then(|field| field.size(&bounds::ITEM_BYTES));
    TableConfig {
        capacity_bytes: section
            .take("capacity")
            .and_then(|field| field.size(&bounds::TABLE_BYTES))
            .unwrap_or(default.capacity_bytes),
        item_bytes_max: item_max
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(default.item_bytes_max),
        expected_item_bytes: section
            .take("item_expected")
            .and_then(|field| field.size(&bounds::EXPECTED_ITEM_BYTES))
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(default.expected_item_bytes),
        huge_pages: section
            .take("huge_pages")
            .and_then(|field| field.choice(&HUGE_PAGES))
            .unwrap_or_default(),
    }
}

fn tcp(mut section: Section<'_, '_>) -> TcpConfig {
    let default = TcpConfig::default();
    TcpConfig {
        connections: section
            .take("connections")
            .and_then(|field| field.number(&bounds::CONNECTIONS))
            .unwrap_or(default.connections),
        idle_s: section
            .take("idle_s")
            .and_then(|field| field.number(&bounds::IDLE_S))
            .unwrap_or(default.idle_s),
        request_s: section
            .take("request_s")
            .and_then(|field| field.number(&bounds::REQUEST_S))
            .unwrap_or(default.request_s),
    }
}

fn listener(mut section: Section<'_, '_>) -> ListenerConfig {
    let service = section.require("service", "\"memcached\"").and_then(|field| field.parsed(service_name));
    let protocol = section.take("protocol").and_then(|field| field.choice(&PROTOCOL)).unwrap_or_default();
    // Port 0 stands for a port that was missing or wrong, which has been reported.
    let port = section.require("port", "11211").and_then(|field| field.number(&bounds::PORT)).unwrap_or(0);
    let default = ListenerConfig::new(service.unwrap_or_default(), port);
    let address = |field: &Field<'_, '_>| field.parsed(listen_address);
    let reply_max = section
        .take("reply_max")
        .and_then(|field| of_datagrams(field, protocol))
        .and_then(|field| field.size(&bounds::REPLY_BYTES));
    ListenerConfig {
        protocol,
        // A wrong one stands for the one that asks nothing of the rest.
        transport: section.take("transport").map_or_else(ListenerTransport::default, |field| {
            field.choice(&TRANSPORT).unwrap_or(ListenerTransport::Kernel)
        }),
        addresses: section
            .take("addresses")
            .and_then(|field| field.distinct("leave it out to answer on every address", address))
            .unwrap_or_default(),
        allow: section.take("allow").and_then(allow).unwrap_or(default.allow),
        rate_limit: section
            .take("rate_limit")
            .and_then(|field| of_datagrams(field, protocol))
            .and_then(Field::section)
            .and_then(rate_limit),
        reply_bytes_max: reply_max
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(default.reply_bytes_max),
        ..ListenerConfig::new(default.service, port)
    }
}

/// `reply_max` and `rate_limit` bound what a forged source can bring about, which a handshake rules out.
fn of_datagrams<'r, 'd>(field: Field<'r, 'd>, protocol: ListenerProtocol) -> Option<Field<'r, 'd>> {
    if protocol == ListenerProtocol::Udp {
        return Some(field);
    }
    field.error("is for UDP; over TCP a client is answered as fast as it reads".to_owned());
    None
}

fn allow(field: Field<'_, '_>) -> Option<Vec<ipnet::IpNet>> {
    field.distinct(checks::NOBODY, |item| item.parsed(sources::parse_network))
}

fn rate_limit(mut section: Section<'_, '_>) -> Option<RateLimit> {
    let requests_per_s =
        section.require("requests_per_s", "1_000_000").and_then(|field| field.number(&bounds::RATE));
    let burst = section.require("burst", "100_000").and_then(|field| field.number(&bounds::RATE));
    Some(RateLimit { requests_per_s: requests_per_s?, burst: burst? })
}

fn cores(field: Field<'_, '_>) -> Option<Vec<usize>> {
    field.distinct("leave it out to let the plan choose", |item| item.number(&bounds::CORE))
}

fn ring_entries(field: Field<'_, '_>) -> Option<u32> {
    let entries: u32 = field.number(&bounds::RING_ENTRIES)?;
    if !entries.is_power_of_two() {
        let up = entries.next_power_of_two();
        field.error(format!("{entries} is not a power of two; {} and {up} are", up / 2));
    }
    Some(entries)
}

pub(super) fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("{text:?} is not an address with a port; write it like 127.0.0.1:9190 or [::1]:9190")
    })?;
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() {
        return Err(format!(
            "{address} listens on every address; the admin API has no password, so name a loopback or private address"
        ));
    }
    if !sources::private_sources().iter().any(|network| network.contains(&ip)) {
        return Err(format!(
            "{address} is a public address; the admin API has no password, so name a loopback or private one"
        ));
    }
    Ok(address)
}

fn pin_directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs || text.contains('\0') || path.parent().is_none() {
        return Err(format!("{text:?} is not a directory's full path; write it like /sys/fs/bpf/dataplane"));
    }
    Ok(path)
}

/// The kernel's own rule (`dev_valid_name`, Linux `net/core/dev.c`).
fn interface_name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text.len() <= bounds::INTERFACE_NAME_BYTES_MAX
        && !matches!(text, "." | "..")
        && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control() || "/:".contains(letter));
    if !valid {
        return Err(format!(
            "{text:?} cannot be an interface's name: 1 to {} letters without spaces, '/' and ':'",
            bounds::INTERFACE_NAME_BYTES_MAX
        ));
    }
    Ok(text.to_owned())
}

fn service_name(text: &str) -> Result<String, String> {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if text.is_empty() || text.len() > bounds::SERVICE_NAME_BYTES_MAX || !text.chars().all(letter) {
        return Err(format!(
            "{text:?} cannot be a service's name: 1 to {} letters, digits, '-', '_' and '.'",
            bounds::SERVICE_NAME_BYTES_MAX
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn listen_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address; write it like 192.0.2.1 or 2001:db8::1"))?;
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() {
        Err(format!("{address} means every address; leave addresses out for that"))
    } else if address.is_multicast() || address == IpAddr::from([255; 4]) {
        Err(format!("{address} is not one host's address"))
    } else if link_local {
        Err(format!("{address} means another host on each link; leave addresses out to answer on it"))
    } else if mapped {
        Err(format!("{address} is an IPv4 address; write it as {}", address.to_canonical()))
    } else {
        Ok(address)
    }
}
