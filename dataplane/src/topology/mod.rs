//! NUMA nodes, cores and NIC locality, and the plan made of them: which worker, core, queue and node.
//!
//! | file | what it holds |
//! |---|---|
//! | `host` | [`Topology`]: what this host has, and how it is found out |
//! | `plan` | [`Plan`]: made purely from a [`Topology`] and a [`Config`](crate::config::Config) |
//! | `choice` | which cores become workers when the configuration names none |
//! | `error` | [`TopologyError`] and [`PlanErrors`] |

mod choice;
mod error;
mod host;
mod plan;

pub use error::{PlanError, PlanErrors, TopologyError};
pub use host::{Core, Interface, Topology, discover, interface_names};
pub use plan::{Plan, QueueAssignment, WorkerPlan, plan};
