//! Which listeners' packets pass the kernel by, and the NICs they come in through.
//!
//! A listener whose transport is `bypass` has to have that, or the daemon does not start. One that is `auto` does without:
//! then every such listener is served over ordinary sockets alone, and the reason is told in the log, in `status` and in a
//! metric.

use super::DaemonError;
use super::interface::{Interface, Lane};
use crate::config::{Config, ListenerTransport};
use crate::control::status::ListenerStatus;
use crate::steer::ServiceRule;
use crate::topology::{self, Plan, Topology};

/// The NICs that are served, with the lanes of each worker.
pub(super) struct Nics {
    pub(super) interfaces: Vec<Interface>,
    /// By worker.
    pub(super) lanes: Vec<Vec<Lane>>,
}

/// Who does what where, and what of it passes the kernel by.
pub(super) struct Steering {
    pub(super) plan: Plan,
    /// Why listeners that could do with either have ordinary sockets alone.
    fallback: Option<String>,
}

impl Steering {
    /// Plans for what is configured, or without NICs where that may be. Nothing is touched.
    pub(super) fn plan(topology: &Topology, config: &Config) -> Result<Self, DaemonError> {
        if !may_steer(config) {
            return Self::without_nics(topology, config, None);
        }
        if config.interfaces.is_empty() {
            let reason = "no [[interface]] is configured".to_owned();
            return Self::without_nics(topology, config, Some(reason));
        }
        match topology::plan(topology, config) {
            Ok(plan) => Ok(Self { plan, fallback: None }),
            Err(error) if must_steer(config) => Err(error.into()),
            Err(error) => {
                let reason = DaemonError::Plan(error).to_string();
                Self::without_nics(topology, config, Some(reason))
            }
        }
    }

    fn without_nics(
        topology: &Topology,
        config: &Config,
        fallback: Option<String>,
    ) -> Result<Self, DaemonError> {
        let config = Config { interfaces: Vec::new(), ..config.clone() };
        Ok(Self { plan: topology::plan(topology, &config)?, fallback })
    }

    /// Attaches the program to every NIC and opens the lanes of every worker. When that cannot be and need not be, there are
    /// none.
    pub(super) fn attach(&mut self, config: &Config) -> Result<Nics, DaemonError> {
        match self.try_attach(config) {
            Err(error) if !must_steer(config) => {
                self.fallback = Some(error.to_string());
                self.plan.workers.iter_mut().for_each(|worker| worker.queues.clear());
                let lanes = self.plan.workers.iter().map(|_| Vec::new()).collect();
                Ok(Nics { interfaces: Vec::new(), lanes })
            }
            attached => attached,
        }
    }

    fn try_attach(&self, config: &Config) -> Result<Nics, DaemonError> {
        let served = |name: &str| {
            let queues = self.plan.workers.iter().flat_map(|worker| &worker.queues);
            queues.into_iter().any(|queue| queue.interface == name)
        };
        let wanted = config.interfaces.iter().filter(|interface| served(&interface.name));
        let mut interfaces =
            wanted.map(|interface| Interface::attach(interface, config)).collect::<Result<Vec<_>, _>>()?;
        let mut lanes = Vec::with_capacity(self.plan.workers.len());
        for worker in &self.plan.workers {
            let mut own = Vec::with_capacity(worker.queues.len());
            for assigned in &worker.queues {
                let interface =
                    interfaces.iter_mut().find(|interface| interface.name() == assigned.interface);
                let interface = interface.expect("the plan names configured interfaces only");
                own.push(interface.open(assigned.queue, worker.node, worker.worker)?);
            }
            lanes.push(own);
        }
        Ok(Nics { interfaces, lanes })
    }

    /// Whether a listener's packets pass the kernel by.
    pub(super) fn is_steered(&self, transport: ListenerTransport) -> bool {
        transport != ListenerTransport::Kernel && self.fallback.is_none()
    }

    /// What the XDP program is told.
    pub(super) fn rules(&self, config: &Config) -> Vec<ServiceRule> {
        let steered = config.listeners.iter().filter(|listener| self.is_steered(listener.transport));
        steered.map(ServiceRule::from).collect()
    }

    /// What `status` says of each listener. Falling back is told in the log as well.
    pub(super) fn listeners(&self, config: &Config) -> Vec<ListenerStatus> {
        let listeners = config.listeners.iter().enumerate().map(|(number, listener)| {
            let steered = self.is_steered(listener.transport);
            let fallback = self.fallback.clone().filter(|_| listener.transport == ListenerTransport::Auto);
            if let Some(reason) = &fallback {
                let (service, port) = (&listener.service, listener.port);
                tracing::warn!(listener = number, service, port, "fell back to ordinary sockets: {reason}");
            }
            ListenerStatus {
                service: listener.service.clone(),
                protocol: listener.protocol.label().to_owned(),
                addresses: listener.addresses.clone(),
                port: listener.port,
                transport: if steered { "bypass" } else { "kernel" }.to_owned(),
                fallback,
            }
        });
        listeners.collect()
    }
}

/// Whether any listener would pass the kernel by.
fn may_steer(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.transport != ListenerTransport::Kernel)
}

/// Whether any listener has to.
fn must_steer(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.transport == ListenerTransport::Bypass)
}
