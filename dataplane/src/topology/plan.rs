//! Who does what where: workers, their cores and nodes, and the queues they serve.

use std::fmt;

use serde::Serialize;

use super::choice::{self, Queue, Share};
use super::error::{PlanError, PlanErrors, ranges};
use super::host::{Core, Topology};
use crate::config::{Config, InterfaceConfig};
use crate::limits::QUEUES_MAX;

/// Workers there are when no cores are named. Each worker has a table of its own, and a client's packets choose the worker
/// by the queue they come in on; so that every client sees the same items, one worker serves all queues unless the operator
/// asks for more.
const WORKERS_DEFAULT: usize = 1;

/// One queue of one NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueAssignment {
    /// The NIC.
    pub interface: String,
    /// The queue, from 0.
    pub queue: u32,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerPlan {
    /// Its number, from 0.
    pub worker: usize,
    /// The core it is pinned to.
    pub core: usize,
    /// That core's NUMA node; `None` when the host does not say.
    pub node: Option<u32>,
    /// The queues it serves; none when there is no NIC to serve, only ordinary sockets.
    pub queues: Vec<QueueAssignment>,
}

/// Who does what where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The workers, by number.
    pub workers: Vec<WorkerPlan>,
    /// The control plane's cores, sorted; never empty.
    pub housekeeping_cores: Vec<usize>,
    /// What is not as it should be and works all the same.
    pub remarks: Vec<String>,
}

/// Makes the plan for a host.
///
/// # Errors
/// Every reason why there is none.
pub fn plan(topology: &Topology, config: &Config) -> Result<Plan, PlanErrors> {
    plan_with(topology, config, WORKERS_DEFAULT)
}

/// [`plan`], with at most so many workers when no cores are named.
fn plan_with(topology: &Topology, config: &Config, workers_max: usize) -> Result<Plan, PlanErrors> {
    let mut errors = Vec::new();
    let queues = queues(topology, config, &mut errors);
    let housekeeping = config.daemon.housekeeping_cores.as_deref();
    let housekeeping = housekeeping.map(|ids| named(topology, "daemon.housekeeping_cores", ids, &mut errors));
    let named_workers = config.workers.cores.as_deref();
    let named_workers = named_workers.map(|ids| named(topology, "workers.cores", ids, &mut errors));

    let is_housekeeping = |core: &Core| {
        housekeeping.as_ref().is_some_and(|cores| cores.iter().any(|other| other.id == core.id))
    };
    let candidates: Vec<Core> =
        topology.cores.iter().copied().filter(|core| core.usable && !is_housekeeping(core)).collect();
    if let Some(cores) = &named_workers {
        if cores.len() > queues.len() && !config.interfaces.is_empty() && errors.is_empty() {
            errors.push(PlanError::WorkersWithoutQueue { cores: cores.len(), queues: queues.len() });
        }
    } else if candidates.is_empty() {
        errors.push(PlanError::NoCoreLeft);
    }
    if !errors.is_empty() {
        return Err(PlanErrors(errors));
    }

    let shares = match &named_workers {
        Some(cores) => choice::spread_over_named(cores, &queues),
        None => choice::choose(topology, &candidates, housekeeping.is_some(), &queues, workers_max),
    };
    let mut remarks = Vec::new();
    let housekeeping_cores = housekeeping_cores(topology, housekeeping.as_deref(), &shares, &mut remarks);
    remark_on_locality(topology, &shares, &mut remarks);
    if shares.len() > 1 {
        remarks.push(format!(
            "{} workers have a table each, and the NIC's hash chooses among them by addresses and ports: fragments, clients \
             on this host and a client's other source ports may meet another worker's table, and flush_all empties one",
            shares.len()
        ));
    }
    let workers = shares.into_iter().enumerate().map(|(worker, share)| WorkerPlan {
        worker,
        core: share.core.id,
        node: share.core.node,
        queues: share.queues,
    });
    Ok(Plan { workers: workers.collect(), housekeeping_cores, remarks })
}

/// The queues to serve.
fn queues(topology: &Topology, config: &Config, errors: &mut Vec<PlanError>) -> Vec<Queue> {
    let mut by_interface: Vec<Vec<Queue>> =
        config.interfaces.iter().map(|interface| queues_of(topology, interface, errors)).collect();
    let count: usize = by_interface.iter().map(Vec::len).sum();
    if count > QUEUES_MAX {
        errors.push(PlanError::TooManyQueues { count, max: QUEUES_MAX });
    }
    // NICs whose node is known choose first: the others can do with any core.
    by_interface.sort_by_key(|queues| queues.first().is_none_or(|queue| queue.node.is_none()));
    by_interface.into_iter().flatten().collect()
}

fn queues_of(topology: &Topology, wanted: &InterfaceConfig, errors: &mut Vec<PlanError>) -> Vec<Queue> {
    let Some(interface) = topology.interfaces.iter().find(|interface| interface.name == wanted.name) else {
        let known = topology.interfaces.iter().map(|interface| interface.name.clone()).collect();
        errors.push(PlanError::NoInterface { name: wanted.name.clone(), known });
        return Vec::new();
    };
    let numbers: Vec<u32> = match &wanted.queues {
        Some(numbers) => numbers.clone(),
        None => (0..interface.queues).collect(),
    };
    let count = interface.queues;
    for &queue in numbers.iter().filter(|&&queue| queue >= count) {
        let name = wanted.name.clone();
        errors.push(if queue - count < interface.receive_only {
            PlanError::ReceiveOnly { interface: name, queue, count }
        } else {
            PlanError::NoQueue { interface: name, queue, count }
        });
    }
    let assignment = |queue| QueueAssignment { interface: wanted.name.clone(), queue };
    numbers.into_iter().map(|queue| Queue { assignment: assignment(queue), node: interface.node }).collect()
}

/// The cores named under a key, of those this process may use.
fn named(topology: &Topology, key: &'static str, ids: &[usize], errors: &mut Vec<PlanError>) -> Vec<Core> {
    let mut cores = Vec::new();
    for &id in ids {
        match topology.cores.iter().find(|core| core.id == id) {
            Some(&core) if core.usable => cores.push(core),
            Some(_) => {
                errors.push(PlanError::CoreNotUsable { key, core: id, usable: topology.usable_cores() });
            }
            None => {
                let known = topology.cores.iter().map(|core| core.id).collect();
                errors.push(PlanError::NoCore { key, core: id, known });
            }
        }
    }
    cores
}

fn housekeeping_cores(
    topology: &Topology,
    named: Option<&[Core]>,
    shares: &[Share],
    remarks: &mut Vec<String>,
) -> Vec<usize> {
    if let Some(named) = named {
        let mut cores: Vec<usize> = named.iter().map(|core| core.id).collect();
        cores.sort_unstable();
        return cores;
    }
    let is_worker = |id: &usize| shares.iter().any(|share| share.core.id == *id);
    let mut cores = topology.usable_cores();
    cores.retain(|id| !is_worker(id));
    if cores.is_empty() {
        remarks.push(
            "every core this process may use is a worker's, so the control plane shares them: expect late replies \
             while it works"
                .to_owned(),
        );
        cores = topology.usable_cores();
    }
    cores
}

fn remark_on_locality(topology: &Topology, shares: &[Share], remarks: &mut Vec<String>) {
    for share in shares {
        let node_of = |name: &str| {
            topology
                .interfaces
                .iter()
                .find(|interface| interface.name == name)
                .and_then(|interface| interface.node)
        };
        let mut far: Vec<&str> = share.queues.iter().map(|queue| queue.interface.as_str()).collect();
        far.dedup();
        for name in far {
            if let (Some(nic), Some(core)) = (node_of(name), share.core.node)
                && nic != core
            {
                let id = share.core.id;
                remarks.push(format!(
                    "core {id} is on node {core} and {name} on node {nic}: each packet crosses nodes"
                ));
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "worker  core  node  queues")?;
        for worker in &self.workers {
            let node = worker.node.map_or("-".to_owned(), |node| node.to_string());
            let queues: Vec<String> =
                worker.queues.iter().map(|queue| format!("{}:{}", queue.interface, queue.queue)).collect();
            let queues = if queues.is_empty() { "-".to_owned() } else { queues.join(" ") };
            writeln!(out, "{:>6}  {:>4}  {node:>4}  {queues}", worker.worker, worker.core)?;
        }
        write!(out, "control plane on {}", ranges(&self.housekeeping_cores))?;
        for remark in &self.remarks {
            write!(out, "\nnote: {remark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
