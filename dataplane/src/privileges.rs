//! What a process must be allowed to do to be the daemon: the one list that `doctor`, errors and tests go by.
//! `docs/operating.md` and `dataplane.service` name the same; a test holds them to it.

use caps::{CapSet, Capability};

/// Each capability (Linux `capabilities(7)`) the daemon needs, and what for.
pub const CAPABILITIES: [(Capability, &str); 5] = [
    (Capability::CAP_NET_ADMIN, "attach the XDP program"),
    (
        Capability::CAP_NET_RAW,
        "open AF_XDP sockets, and hear what routers say of packets that were too large",
    ),
    (Capability::CAP_BPF, "load the XDP program and its maps"),
    // Without it the verifier takes no address that was computed from a packet's own lengths (IPv4 options, VLAN tags).
    (Capability::CAP_PERFMON, "pass the verifier with offsets read from packets"),
    (Capability::CAP_IPC_LOCK, "lock the UMEM in memory"),
];

/// True when this thread may not do what a capability allows.
#[must_use]
pub fn lacks(capability: Capability) -> bool {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    // CAP_SYS_ADMIN has stood for these two since before there were any.
    let by_admin = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
    !(has(capability) || by_admin && has(Capability::CAP_SYS_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_and_the_unit_name_the_same_capabilities() {
        let operating = include_str!("../../docs/operating.md");
        let unit = include_str!("../dataplane.service");
        let sentence =
            operating.lines().find(|line| line.contains("Root, or the capabilities")).expect("it is told");
        let bounds =
            unit.lines().find(|line| line.starts_with("CapabilityBoundingSet=")).expect("it is bounded");
        for (capability, _) in CAPABILITIES {
            let name = capability.to_string();
            assert!(bounds.contains(&name), "{name} in {bounds}");
            let name = name.trim_start_matches("CAP_");
            assert!(sentence.contains(name), "{name} in {sentence}");
        }
    }
}
