//! Whether the listeners' ports are free: by binding them, and letting go at once.

use std::net::TcpListener;

use dataplane::config::Config;
use dataplane::control::companion::{CompanionError, CompanionSocket};

use super::report::Finding;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = match CompanionSocket::bind_all(&config.listeners) {
        Ok(_) => vec![Finding::good("ports", "those of all listeners are free")],
        Err(errors) => errors.iter().map(lacking).collect(),
    };
    if let Err(error) = TcpListener::bind(config.daemon.admin) {
        let command = format!("ss -ltnp 'sport = :{}'", config.daemon.admin.port());
        findings.push(Finding::lacking("admin port", format!("{}: {error}", config.daemon.admin), command));
    }
    findings
}

fn lacking(error: &CompanionError) -> Finding {
    let command = match error {
        CompanionError::Taken { address, .. } => format!("ss -lunp 'sport = :{}'", address.port()),
        CompanionError::NotOurs { address, .. } => format!("ip address add {} dev INTERFACE", address.ip()),
        CompanionError::Bind { .. } => "dataplane check --config FILE".to_owned(),
    };
    Finding::lacking("ports", error.to_string(), command)
}
