//! One interface: link, driver, XDP, MTU, offloads.

use std::fs;
use std::path::Path;
use std::process::Command;

use dataplane::config::{Attachment, ChecksumPolicy, CopyMode, InterfaceConfig, XdpMode};
use dataplane::limits::PACKET_BYTES_MAX;
use dataplane::topology::Topology;

use super::report::Finding;
use super::xdp_query::{self, XdpState};

/// Bytes of Ethernet header and two VLAN tags around an MTU.
const LINK_HEADER_BYTES: u64 = 14 + 2 * 4;
/// Largest MTU at which a driver without multi-buffer XDP takes a program, for most: a page less headroom and tail.
const SINGLE_BUFFER_MTU_MAX: u64 = 3498;

pub(super) fn examine(config: &InterfaceConfig, topology: &Topology) -> Vec<Finding> {
    let name = &config.name;
    let Some(interface) = topology.interfaces.iter().find(|interface| interface.name == *name) else {
        return vec![Finding::lacking(name, "there is no such interface", "ip -brief link")];
    };
    let mut findings = vec![link(name)];
    match index_of(name).and_then(xdp_query::query) {
        Ok(state) => {
            findings.push(foreign_program(config, state));
            findings.extend(support(config, state));
            findings.push(mtu(config, state));
        }
        Err(error) => {
            findings.push(Finding::note(format!("{name}: XDP"), format!("the kernel does not say: {error}")))
        }
    }
    findings.push(Finding::good(format!("{name}: queues"), format!("{} to receive from", interface.queues)));
    findings.extend(offloads(config));
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

fn foreign_program(config: &InterfaceConfig, state: XdpState) -> Finding {
    let name = &config.name;
    let subject = format!("{name}: XDP program");
    match (state.program, config.attachment) {
        (0, Attachment::Owned) => Finding::good(subject, "none, so the daemon can attach its own"),
        (0, Attachment::Adopted) => {
            Finding::lacking(subject, "none to adopt", "dataplane steer load --config FILE")
        }
        (id, Attachment::Adopted) => {
            Finding::good(subject, format!("program {id} sits there, to be adopted"))
        }
        (id, Attachment::Owned) => Finding::lacking(
            subject,
            format!(
                "program {id} sits there (bpftool prog show id {id}), of another tool or a running daemon"
            ),
            format!(
                "ip link set dev {name} xdp off   # if it was attached by a link: bpftool link list, then stop its owner"
            ),
        ),
    }
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
        (false, _) => findings.push(Finding::advice(
            &subject,
            "has no native XDP: the generic hook runs after the kernel has made an skb of each packet",
            "ethtool -i ".to_owned()
                + name
                + "   # ixgbe, i40e, ice, mlx5_core, ena, virtio_net, veth and others can",
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

    #[test]
    fn a_foreign_program_is_in_the_way_of_an_owned_one_only() {
        let mut config = InterfaceConfig::named("eth1");
        let verdict =
            |config: &_, program| foreign_program(config, XdpState { program, features: None }).verdict;
        assert_eq!((verdict(&config, 0), verdict(&config, 7)), (Verdict::Good, Verdict::Lacking));
        config.attachment = Attachment::Adopted;
        assert_eq!((verdict(&config, 0), verdict(&config, 7)), (Verdict::Lacking, Verdict::Good));
    }
}
