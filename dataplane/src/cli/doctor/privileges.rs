//! What this process may do.

use caps::Capability;
use dataplane::config::{Config, ListenerConfig, ListenerTransport};
use dataplane::privileges::{CAPABILITIES, lacks};
use rustix::process::{Resource, getrlimit};

use super::report::Finding;

/// With a configuration whose listeners all have ordinary sockets alone, none is needed.
pub(super) fn examine(config: Option<&Config>) -> Vec<Finding> {
    if config.is_some_and(|config| !needs_any(config)) {
        return vec![Finding::good(
            "privileges",
            "none is needed: every listener has ordinary sockets alone",
        )];
    }
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
    let without = format!("without {}", purposes.join(", "));
    if config.is_some_and(|config| config.listeners.iter().all(|listener| !must_steer(listener))) {
        return vec![Finding::note(
            "privileges",
            format!("{without}: listeners with transport = \"auto\" fall back"),
        )];
    }
    vec![Finding::lacking("privileges", without, command())]
}

fn needs_any(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.transport != ListenerTransport::Kernel)
}

fn must_steer(listener: &ListenerConfig) -> bool {
    listener.transport == ListenerTransport::Bypass
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
