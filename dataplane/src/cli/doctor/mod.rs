//! `dataplane doctor`: what this host lacks, and the exact command that mends it.
//!
//! | file | what it looks at |
//! |---|---|
//! | `report` | how findings are told |
//! | `privileges` | capabilities and limits of this process |
//! | `kernel` | version, AF_XDP, BTF, JIT, bpffs |
//! | `memory` | huge pages |
//! | `nic` | link, driver, XDP support, MTU, queues, offloads |
//! | `xdp_program` | whose XDP program sits on an interface, and what is pinned for it |
//! | `xdp_query` | what the kernel says of an interface's XDP |
//! | `cores` | the plan, and what else runs on the workers' cores |
//! | `ports` | whether the listeners' ports are free |

mod cores;
mod kernel;
mod memory;
mod nic;
mod ports;
mod privileges;
mod report;
mod xdp_program;
mod xdp_query;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dataplane::config::{Config, ListenerTransport};
use dataplane::topology::{self, Topology};

use report::{Finding, Report};

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration to judge this host by; without it, only what every configuration needs is looked at.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn doctor(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = arguments.config.as_deref().map(super::load).transpose()?;
    if let Some(config) = &mut config
        && config.listeners.iter().all(|listener| listener.transport == ListenerTransport::Kernel)
    {
        // Nothing of them is touched then.
        config.interfaces.clear();
    }
    let report = examine(config.as_ref());
    super::print(&if arguments.json { serde_json::to_string(&report)? } else { report.to_string() })?;
    Ok(if report.fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(config: Option<&Config>) -> Report {
    let mut findings = privileges::examine(config);
    findings.extend(kernel::examine(config));
    match topology::discover() {
        Ok(topology) => {
            findings.extend(config.into_iter().flat_map(|config| examine_host(config, &topology)))
        }
        Err(error) => {
            findings.push(Finding::lacking("topology", error.to_string(), "apt-get install libhwloc15"))
        }
    }
    findings.push(unseen());
    Report::new(findings)
}

fn examine_host(config: &Config, topology: &Topology) -> Vec<Finding> {
    let mut findings = Vec::new();
    for interface in &config.interfaces {
        findings.extend(nic::examine(interface, config, topology));
    }
    let (plan, of_cores) = cores::examine(config, topology);
    findings.extend(of_cores);
    let of_ports = ports::examine(config);
    match plan {
        Some(_) if ports::are_a_daemons(&of_ports) => findings.push(Finding::note(
            "huge pages",
            "a daemon runs and has its share; whether there are enough shows once it has ended",
        )),
        Some(plan) => findings.extend(memory::examine(config, &plan)),
        None => {}
    }
    findings.extend(of_ports);
    findings
}

/// What everyone who debugs such a host stumbles over once.
fn unseen() -> Finding {
    Finding::note(
        "visibility",
        "packets of configured services never reach nftables, conntrack or tcpdump on this host: limit sources with \
         listener.allow, and look at dataplane status for counts",
    )
}
