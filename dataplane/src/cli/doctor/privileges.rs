//! What this process may do.

use caps::Capability;
use dataplane::privileges::{CAPABILITIES, lacks};
use rustix::process::{Resource, getrlimit};

use super::report::Finding;

pub(super) fn examine() -> Vec<Finding> {
    let missing: Vec<(Capability, &str)> = CAPABILITIES
        .into_iter()
        .filter(|&(capability, _)| lacks(capability))
        // Unlimited locked memory does as well.
        .filter(|(capability, _)| *capability != Capability::CAP_IPC_LOCK || !memlock_is_unlimited())
        .collect();
    if missing.is_empty() {
        let names: Vec<String> = CAPABILITIES.iter().map(|(capability, _)| capability.to_string()).collect();
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
        CAPABILITIES.iter().map(|(capability, _)| capability.to_string().to_lowercase()).collect();
    let program = std::env::current_exe().map_or("dataplane".into(), |path| path.display().to_string());
    format!("sudo setcap {}+ep {program}   # or run it as root", names.join(","))
}
