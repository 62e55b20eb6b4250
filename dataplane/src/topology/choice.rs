//! Which cores become workers when the configuration names none.
//!
//! - Near the NIC: a queue is served from its NIC's node where this process has a core there, else from any.
//! - One worker a physical core: two polling loops on sibling threads would slow each other down.
//! - One physical core stays with the control plane where there is more than one, core 0 by preference, since most
//!   systems send their interrupts there.
//! - No more workers than queues: a worker without a queue would get no packet. Without any queue there is one worker, for
//!   ordinary sockets.

use std::collections::BTreeSet;

use super::host::{Core, Topology};
use super::plan::QueueAssignment;

/// A queue to be served, with its NIC's node.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) assignment: QueueAssignment,
    pub(super) node: Option<u32>,
}

/// A core with the queues it was given.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) core: Core,
    pub(super) queues: Vec<QueueAssignment>,
}

/// Spreads the queues over the cores it chooses from `candidates`; empty when there are none.
pub(super) fn choose(
    topology: &Topology,
    candidates: &[Core],
    housekeeping_is_fixed: bool,
    queues: &[Queue],
    workers_max: usize,
) -> Vec<Share> {
    let mut cores = one_a_physical_core(candidates);
    let usable_physical: BTreeSet<usize> =
        topology.cores.iter().filter(|core| core.usable).map(|core| core.physical).collect();
    let nodes: BTreeSet<u32> = queues.iter().filter_map(|queue| queue.node).collect();
    // Without a fixed choice one physical core stays out, unless some core is far from every NIC and stays out anyway.
    let far = |core: &Core| !queues.iter().any(|queue| in_reach(&cores_near(&cores, queue.node), core));
    let one_stays_out = cores.iter().any(far) || usable_physical.len() > cores.len();
    if !housekeeping_is_fixed && cores.len() > 1 && !one_stays_out {
        // Not the last core of a NIC's node, if there is another to take.
        let lonely = |core: &Core| {
            core.node.is_some_and(|node| nodes.contains(&node))
                && cores.iter().filter(|other| other.node == core.node).count() == 1
        };
        let spare = cores.iter().position(|core| !lonely(core)).unwrap_or(0);
        cores.remove(spare);
    }
    spread(&cores, queues, workers_max)
}

/// Gives each queue to one of the cores named: first so that each core has one, then to the emptiest, and among
/// equals to one on the NIC's node.
pub(super) fn spread_over_named(cores: &[Core], queues: &[Queue]) -> Vec<Share> {
    let mut shares: Vec<Share> = cores.iter().map(|&core| Share { core, queues: Vec::new() }).collect();
    for queue in queues {
        let far = |core: &Core| queue.node.is_some() && core.node != queue.node;
        let share = shares.iter_mut().min_by_key(|share| (share.queues.len(), far(&share.core)));
        if let Some(share) = share {
            share.queues.push(queue.assignment.clone());
        }
    }
    shares
}

fn spread(cores: &[Core], queues: &[Queue], workers_max: usize) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for queue in queues {
        let near = cores_near(cores, queue.node);
        let open = near.iter().find(|core| !shares.iter().any(|share| share.core.id == core.id));
        let share = match open {
            Some(&core) if shares.len() < workers_max => {
                shares.push(Share { core, queues: Vec::new() });
                shares.last_mut()
            }
            _ => {
                // Once the workers are used up a queue may have to go to a far one.
                let any_near = shares.iter().any(|share| in_reach(&near, &share.core));
                shares
                    .iter_mut()
                    .filter(|share| !any_near || in_reach(&near, &share.core))
                    .min_by_key(|share| share.queues.len())
            }
        };
        if let Some(share) = share {
            share.queues.push(queue.assignment.clone());
        }
    }
    if queues.is_empty() {
        shares.extend(cores.first().map(|&core| Share { core, queues: Vec::new() }));
    }
    shares.sort_by_key(|share| share.core.id);
    shares
}

/// The cores a NIC's queues go to: those of its node, or all where it has none there or its node is not known.
fn cores_near(cores: &[Core], node: Option<u32>) -> Vec<Core> {
    let near: Vec<Core> = cores.iter().copied().filter(|core| node.is_some() && core.node == node).collect();
    if near.is_empty() { cores.to_vec() } else { near }
}

fn in_reach(near: &[Core], core: &Core) -> bool {
    near.iter().any(|other| other.id == core.id)
}

/// The first usable thread of each physical core, by number.
fn one_a_physical_core(candidates: &[Core]) -> Vec<Core> {
    let mut seen = BTreeSet::new();
    candidates.iter().copied().filter(|core| seen.insert(core.physical)).collect()
}
