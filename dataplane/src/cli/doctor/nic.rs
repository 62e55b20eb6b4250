//! One interface: link, driver, XDP, MTU, queues, offloads, and whether it carries others' packets.

use std::fs;
use std::path::Path;
use std::process::Command;

use dataplane::config::{ChecksumPolicy, Config, CopyMode, InterfaceConfig, XdpMode};
use dataplane::limits::{MEMCACHED_DATAGRAM_BYTES_MAX, PACKET_BYTES_MAX};
use dataplane::topology::{Interface, Topology};

use super::report::{Finding, Verdict};
use super::xdp_program;
use super::xdp_query::{self, XdpState};

/// Bytes of Ethernet header and two VLAN tags around an MTU.
const LINK_HEADER_BYTES: u64 = 14 + 2 * 4;
/// Largest MTU at which a driver without multi-buffer XDP takes a program, for most: a page less headroom and tail.
const SINGLE_BUFFER_MTU_MAX: u64 = 3498;
/// Smallest MTU that the longest reply datagram passes: it, and the headers of IPv6 and UDP.
const REPLY_MTU_MIN: u64 = MEMCACHED_DATAGRAM_BYTES_MAX as u64 + 40 + 8;
/// `IFF_PROMISC` (Linux `include/uapi/linux/if.h`).
const PROMISCUOUS: u32 = 0x100;

pub(super) fn examine(config: &InterfaceConfig, whole: &Config, topology: &Topology) -> Vec<Finding> {
    let name = &config.name;
    let Some(interface) = topology.interfaces.iter().find(|interface| interface.name == *name) else {
        let known: Vec<&str> = topology.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let detail =
            format!("there is no such interface; put one of {} into the configuration", known.join(", "));
        return vec![Finding::without_command(Verdict::Lacking, name, detail)];
    };
    let mut findings = vec![link(name), xdp_program::examine(config, &whole.daemon.pin_directory)];
    match index_of(name).and_then(xdp_query::query) {
        Ok(state) => {
            findings.extend(support(config, state));
            findings.push(mtu(config, state));
        }
        Err(error) => {
            findings.push(Finding::note(format!("{name}: XDP"), format!("the kernel does not say: {error}")))
        }
    }
    findings.push(queues(interface));
    findings.extend(offloads(config));
    if whole.listeners.iter().any(|listener| listener.addresses.is_empty()) {
        findings.extend(others_packets(name));
    }
    findings
}

fn index_of(name: &str) -> std::io::Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

fn attribute(name: &str, file: &str) -> Option<String> {
    fs::read_to_string(Path::new("/sys/class/net").join(name).join(file))
        .ok()
        .map(|text| text.trim().to_owned())
}

fn link(name: &str) -> Finding {
    let subject = format!("{name}: link");
    let driver = fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok();
    let driver =
        driver.as_deref().and_then(Path::file_name).map(|driver| driver.to_string_lossy().into_owned());
    let driver = driver.map_or("a virtual interface".to_owned(), |driver| format!("driver {driver}"));
    match attribute(name, "operstate").as_deref() {
        // Loopback and some virtual interfaces never say more than "unknown".
        Some("up" | "unknown") => Finding::good(subject, format!("is up, {driver}")),
        Some(state) => Finding::advice(
            subject,
            format!("is {state}, {driver}: no packet comes"),
            format!("ip link set {name} up"),
        ),
        None => {
            Finding::note(subject, format!("sysfs of another network namespace is mounted here; {driver}"))
        }
    }
}

fn queues(interface: &Interface) -> Finding {
    let Interface { name, queues, receive_only, .. } = interface;
    let subject = format!("{name}: queues");
    if *receive_only == 0 {
        return Finding::good(subject, format!("{queues} to receive from and to send by"));
    }
    Finding::advice(
        subject,
        format!(
            "{queues} that receive and send, and {receive_only} that only receive: those are not served, and packets that \
             the NIC puts there take the slow way, through the companion socket"
        ),
        format!("ethtool -L {name} rx {queues} tx {queues}"),
    )
}

/// A listener on every address also takes packets that are only on their way through this host: what brings such
/// packets to the interface.
fn others_packets(name: &str) -> Option<Finding> {
    let master = fs::read_link(format!("/sys/class/net/{name}/master")).ok();
    let master =
        master.as_deref().and_then(Path::file_name).map(|master| master.to_string_lossy().into_owned());
    let flags = attribute(name, "flags")
        .and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok())
        .unwrap_or(0);
    let forwards = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].iter().any(|file| {
        fs::read_to_string(Path::new("/proc/sys/net").join(file)).is_ok_and(|text| text.trim() == "1")
    });
    let reasons: Vec<String> = [
        forwards.then(|| "this host forwards packets (ip_forward)".to_owned()),
        master.map(|master| format!("it belongs to {master}")),
        (flags & PROMISCUOUS != 0).then(|| "it is promiscuous".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!reasons.is_empty()).then(|| {
        Finding::note(
            format!("{name}: others' packets"),
            format!(
                "{}: a listener without addresses also takes packets for other hosts at its port; name \
                 listener.addresses",
                reasons.join(", and ")
            ),
        )
    })
}

fn support(config: &InterfaceConfig, state: XdpState) -> Vec<Finding> {
    let name = &config.name;
    let subject = format!("{name}: driver");
    let Some(features) = state.features else {
        return vec![Finding::note(
            subject,
            "kernels before 6.3 do not say what a driver can do; dataplane status will",
        )];
    };
    let mut findings = Vec::new();
    let set = |key: &str, value: &str| format!("set {key} = \"{value}\" for {name}, or use a NIC that can");
    match (features.native, config.mode) {
        (true, _) => {}
        (false, XdpMode::Native) => {
            findings.push(Finding::lacking(
                &subject,
                "has no native XDP, and mode = \"native\"",
                set("mode", "auto"),
            ));
        }
        (false, _) => findings.push(Finding::without_command(
            Verdict::Advice,
            &subject,
            "has no native XDP: the generic hook runs after the kernel has made an skb of each packet; NICs of ixgbe, \
             i40e, ice, mlx5_core, ena, virtio_net, veth and others can",
        )),
    }
    match (features.zero_copy, config.copy) {
        (true, _) => {}
        (false, CopyMode::ZeroCopy) => {
            findings.push(Finding::lacking(
                &subject,
                "has no zero-copy, and copy = \"zero-copy\"",
                set("copy", "auto"),
            ));
        }
        (false, _) => findings
            .push(Finding::note(&subject, "has no zero-copy: each packet is copied once into the UMEM")),
    }
    if features.native && features.zero_copy {
        findings.push(Finding::good(subject, "has native XDP and zero-copy"));
    }
    findings
}

fn mtu(config: &InterfaceConfig, state: XdpState) -> Finding {
    let name = &config.name;
    let subject = format!("{name}: MTU");
    let Some(mtu) = attribute(name, "mtu").and_then(|text| text.parse::<u64>().ok()) else {
        return Finding::note(subject, "cannot tell");
    };
    let command = format!("ip link set {name} mtu 1500");
    if mtu < REPLY_MTU_MIN {
        return Finding::advice(
            subject,
            format!(
                "is {mtu}: the longest reply datagrams ({MEMCACHED_DATAGRAM_BYTES_MAX} bytes) need {REPLY_MTU_MIN} over \
                 IPv6 and {} over IPv4, and nothing fragments them",
                REPLY_MTU_MIN - 20
            ),
            command,
        );
    }
    let single_buffer = state.features.is_some_and(|features| features.native && !features.fragments);
    if mtu > SINGLE_BUFFER_MTU_MAX && single_buffer {
        let detail =
            format!("is {mtu}, and the driver takes one buffer a packet: native XDP will not attach");
        return if config.mode == XdpMode::Native {
            Finding::lacking(subject, detail, command)
        } else {
            Finding::advice(subject, detail, command)
        };
    }
    if mtu + LINK_HEADER_BYTES > PACKET_BYTES_MAX as u64 {
        return Finding::note(
            subject,
            format!(
                "is {mtu}: packets over {PACKET_BYTES_MAX} bytes do not fit a frame and go to the companion socket"
            ),
        );
    }
    Finding::good(subject, format!("is {mtu}"))
}

fn offloads(config: &InterfaceConfig) -> Vec<Finding> {
    let name = &config.name;
    let output = Command::new("ethtool").args(["-k", name]).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        let detail = "cannot tell without ethtool (apt-get install ethtool)";
        return vec![Finding::note(format!("{name}: offloads"), detail)];
    };
    let is_virtual_pair = attribute(name, "iflink") != attribute(name, "ifindex") && !is_physical(name);
    judge_offloads(config, &String::from_utf8_lossy(&output.stdout), is_virtual_pair)
}

fn is_physical(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).join("device").exists()
}

/// Judges a list as `ethtool -k` prints it: `name: on [fixed]`.
fn judge_offloads(config: &InterfaceConfig, listing: &str, is_virtual_pair: bool) -> Vec<Finding> {
    let name = &config.name;
    let state = |feature: &str| {
        listing
            .lines()
            .find_map(|line| line.trim().strip_prefix(feature)?.strip_prefix(": "))
            .unwrap_or("off")
    };
    let is_on = |feature: &str| state(feature).starts_with("on");
    let is_fixed = |feature: &str| state(feature).contains("[fixed]");
    let mut findings = Vec::new();
    for (feature, short, why) in [
        (
            "large-receive-offload",
            "lro",
            "it joins packets before XDP sees them, and most drivers then refuse native XDP",
        ),
        (
            "rx-gro-hw",
            "rx-gro-hw",
            "it joins packets before XDP sees them, and most drivers then refuse native XDP",
        ),
        (
            "rx-vlan-offload",
            "rxvlan",
            "VLAN tags are taken off before XDP sees them, so tagged packets look untagged",
        ),
    ] {
        if is_on(feature) && !is_fixed(feature) && !(feature == "rx-vlan-offload" && is_virtual_pair) {
            let command = format!("ethtool -K {name} {short} off");
            findings.push(Finding::advice(format!("{name}: {feature}"), why, command));
        }
    }
    if is_virtual_pair && config.checksum == ChecksumPolicy::Verify {
        findings.push(Finding::advice(
            format!("{name}: checksums"),
            "a peer on this very host leaves UDP checksums unfinished, and checksum = \"verify\" drops such packets",
            "ethtool -K PEER tx off   # on the other end of the pair; or set checksum = \"partial-ok\"",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::good(format!("{name}: offloads"), "none is in the way"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    const LISTING: &str = "Features for eth1:\nrx-checksumming: on\nlarge-receive-offload: off [fixed]\n\
                           rx-vlan-offload: on\nrx-gro-hw: on [fixed]\n";

    #[test]
    fn offloads_in_the_way_come_with_their_command() {
        let findings = judge_offloads(&InterfaceConfig::named("eth1"), LISTING, false);
        let commands: Vec<_> = findings.iter().filter_map(|finding| finding.command.as_deref()).collect();
        assert_eq!(commands, ["ethtool -K eth1 rxvlan off"], "what is fixed cannot be mended");
        let findings = judge_offloads(&InterfaceConfig::named("veth0"), "rx-vlan-offload: on\n", true);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].detail.contains("checksum"), "{findings:?}");
        let findings = judge_offloads(&InterfaceConfig::named("eth1"), "", false);
        assert_eq!(findings[0].verdict, Verdict::Good);
    }

    #[test]
    fn an_explicit_mode_the_driver_lacks_is_lacking_and_auto_is_not() {
        let none = super::super::xdp_query::Features { native: false, zero_copy: false, fragments: false };
        let state = XdpState { program: 0, features: Some(none) };
        let mut config = InterfaceConfig::named("eth1");
        assert!(support(&config, state).iter().all(|finding| finding.verdict != Verdict::Lacking));
        config.mode = XdpMode::Native;
        config.copy = CopyMode::ZeroCopy;
        let lacking = support(&config, state);
        assert!(lacking.iter().all(|finding| finding.verdict == Verdict::Lacking) && lacking.len() == 2);
    }
}
