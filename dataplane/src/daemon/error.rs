//! Why the daemon cannot start or has to end.

use std::io;

use crate::config::{ConfigErrors, ListenerProtocol};
use crate::control::ControlError;
use crate::control::companion::CompanionError;
use crate::control::sentinel::SentinelError;
use crate::net::tcp;
use crate::port::xsk::XskError;
use crate::service::ServiceError;
use crate::steer::SteerError;
use crate::table::memory::TableError;
use crate::topology::{PlanErrors, TopologyError};
use crate::transport::kernel::KernelError;

/// Why the daemon cannot start or has to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong by itself.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The host's cores and NICs could not be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The configuration does not fit this host.
    #[error("the configuration does not fit this host:\n{0}")]
    Plan(#[from] PlanErrors),
    /// A listener names a service there is not.
    #[error("listener {listener} wants the service {name:?}; there is {known}")]
    UnknownService {
        /// Its place in the configuration.
        listener: usize,
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// A service has no form for the listener's protocol.
    #[error(
        "listener {listener}: the service {name:?} is not spoken over {}; choose the other protocol, or another service",
        protocol.label()
    )]
    NotSpoken {
        /// Its place in the configuration.
        listener: usize,
        /// The name.
        name: String,
        /// The listener's protocol.
        protocol: ListenerProtocol,
    },
    /// The TCP of a queue.
    #[error("worker {worker}: {source}")]
    Tcp {
        /// The worker.
        worker: usize,
        /// Why.
        source: tcp::ConfigError,
    },
    /// A service would not start.
    #[error("the service {name:?} of listener {listener} does not start: {source}")]
    Service {
        /// Its place in the configuration.
        listener: usize,
        /// The name.
        name: String,
        /// Why.
        source: ServiceError,
    },
    /// A listener's port or address cannot be had.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Companion(Vec<CompanionError>),
    /// There are no ordinary sockets to serve.
    #[error("ordinary sockets cannot be served: {0}")]
    Kernel(#[from] KernelError),
    /// The XDP program.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// An AF_XDP socket.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// A worker's table.
    #[error("the table of worker {worker}: {source}")]
    Table {
        /// The worker.
        worker: usize,
        /// Why.
        source: TableError,
    },
    /// A worker cannot be pinned.
    #[error("worker {worker} cannot be pinned to core {core}: {reason}")]
    Pin {
        /// The worker.
        worker: usize,
        /// The core of the plan.
        core: usize,
        /// Why.
        reason: &'static str,
    },
    /// The sentinel.
    #[error(transparent)]
    Sentinel(#[from] SentinelError),
    /// The kernel refused something every process needs.
    #[error("{action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The control plane.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A worker hit a broken invariant.
    #[error(
        "worker {worker} hit a broken invariant; the log above says where. Its queues went to the kernel"
    )]
    WorkerPanicked {
        /// The worker.
        worker: usize,
    },
}

impl DaemonError {
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
