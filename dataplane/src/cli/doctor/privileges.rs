//! What this process may do.

use caps::{CapSet, Capability};
use rustix::process::{Resource, getrlimit};

use super::report::Finding;

/// Each capability the daemon needs, and what for.
const NEEDED: [(Capability, &str); 4] = [
    (Capability::CAP_NET_ADMIN, "attach the XDP program"),
    (Capability::CAP_NET_RAW, "open AF_XDP sockets"),
    (Capability::CAP_BPF, "load the XDP program and its maps"),
    (Capability::CAP_IPC_LOCK, "lock the UMEM in memory"),
];

pub(super) fn examine() -> Vec<Finding> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let missing: Vec<(Capability, &str)> = NEEDED
        .into_iter()
        // CAP_SYS_ADMIN has stood for CAP_BPF since before there was one.
        .filter(|(capability, _)| {
            let by_admin =
                *capability == Capability::CAP_BPF && effective.contains(&Capability::CAP_SYS_ADMIN);
            !effective.contains(capability) && !by_admin
        })
        // Unlimited locked memory does as well.
        .filter(|(capability, _)| *capability != Capability::CAP_IPC_LOCK || !memlock_is_unlimited())
        .collect();
    if missing.is_empty() {
        let names: Vec<String> = NEEDED.iter().map(|(capability, _)| capability.to_string()).collect();
        return vec![Finding::good("privileges", format!("has {}", names.join(", ")))];
    }
    let purposes: Vec<String> =
        missing.iter().map(|(capability, purpose)| format!("{capability} (to {purpose})")).collect();
    vec![Finding::lacking("privileges", format!("without {}", purposes.join(", ")), command())]
}

fn memlock_is_unlimited() -> bool {
    getrlimit(Resource::Memlock).current.is_none()
}

fn command() -> String {
    let names: Vec<String> =
        NEEDED.iter().map(|(capability, _)| capability.to_string().to_lowercase()).collect();
    let program = std::env::current_exe().map_or("dataplane".into(), |path| path.display().to_string());
    format!("sudo setcap {}+ep {program}   # or run it as root", names.join(","))
}
