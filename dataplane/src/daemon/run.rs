//! The order in which everything comes up and goes down.
//!
//! Up: whatever can be wrong is found before the NIC is touched, and signals end it in order from then on; packets are
//! steered last, when somebody answers them.
//! Down: packets stop being steered first, and what has arrived is answered before its worker ends.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use super::heartbeat::WorkerHeartbeats;
use super::interface::Interface;
use super::listeners::{service, stream_service};
use super::supervisor::Supervisor;
use super::workers::{WorkerHandle, WorkerParts, XskCommand};
use super::{DaemonError, Registry};
use crate::config::{Config, ListenerProtocol};
use crate::control::companion::{
    CompanionSetup, CompanionSocket, ListenerPolicy, StreamPolicy, link, tell_streams,
};
use crate::control::heartbeat::HeartbeatMap;
use crate::control::sentinel::{SentinelProgram, SentinelSetup};
use crate::control::state::{DaemonState, Verdicts};
use crate::control::{ControlSetup, Prepared};
use crate::limits::COMPANION_DATAGRAMS;
use crate::metrics::WorkerMetrics;
use crate::net::allow::AllowList;
use crate::steer::{ServiceRule, SteerError};
use crate::topology;

/// The NICs: the supervisor attaches them anew, the admin API reads their counters.
pub(super) type Interfaces = Arc<Mutex<Vec<Interface>>>;

/// Serves until it is told to end.
pub(super) fn run(config: &Config, registry: &Registry) -> Result<(), DaemonError> {
    let plan = topology::plan(&topology::discover()?, config)?;
    tracing::info!("plan:\n{plan}");
    let count = plan.workers.len();
    let policies = policies(config, registry, count)?;
    let stream_policies = stream_policies(config, registry, count)?;
    let sockets = CompanionSocket::bind_all(&config.listeners).map_err(DaemonError::Companion)?;
    let (stream_sockets, sockets): (Vec<_>, Vec<_>) =
        sockets.into_iter().partition(|socket| socket.protocol() == ListenerProtocol::Tcp);
    let sockets: Arc<[CompanionSocket]> = sockets.into();
    let heartbeats = WorkerHeartbeats::new(count).map_err(DaemonError::system("making the heartbeats"))?;
    let heartbeat_file = || heartbeats.descriptor().map_err(DaemonError::system("sharing the heartbeats"));
    let view = HeartbeatMap::open(&heartbeat_file()?, heartbeats.layout())
        .map_err(DaemonError::system("mapping the heartbeats"))?;
    let view = Arc::new(view);

    let mut prepared = Prepared::new(config.daemon.admin, &plan.housekeeping_cores)?;
    let mut interfaces = attach_all(config)?;
    let (events, happened) = mpsc::channel();
    let mut workers = Vec::with_capacity(count);
    let mut links = Vec::with_capacity(count);
    let mut queues = Vec::new();
    let mut counted = Vec::with_capacity(count);
    for worker in &plan.workers {
        let mut lanes = Vec::with_capacity(worker.queues.len());
        for assigned in &worker.queues {
            let interface = interfaces.iter_mut().find(|interface| interface.name() == assigned.interface);
            let interface = interface.expect("the plan names configured interfaces only");
            lanes.push(interface.open(assigned.queue, worker.node, worker.worker)?);
        }
        queues.extend(lanes.iter().map(|lane| lane.status.clone()));
        let (control, link) =
            link(COMPANION_DATAGRAMS).map_err(DaemonError::system("making a companion's rings"))?;
        let metrics = Arc::new(WorkerMetrics::default());
        let parts = WorkerParts {
            plan: worker.clone(),
            workers: count,
            lanes,
            link,
            beat: heartbeats.beat(worker.worker),
            metrics: Arc::clone(&metrics),
            events: events.clone(),
        };
        match WorkerHandle::start(parts, config, registry, &mut || was_told_to_end(&mut prepared))? {
            Some(started) => workers.push(started),
            None => {
                stop(&workers);
                return Ok(());
            }
        }
        links.push(control);
        counted.push((worker.clone(), metrics));
    }
    drop(events);

    let rules: Vec<ServiceRule> = config.listeners.iter().map(ServiceRule::from).collect();
    let interfaces: Interfaces = Arc::new(Mutex::new(interfaces));
    let state = Arc::new(DaemonState::new(counted, view.clone(), verdict_source(&interfaces)));
    state.set_queues(queues);
    let runtime = prepared.runtime().clone();
    let shared = sockets.iter().chain(&stream_sockets).map(CompanionSocket::try_clone);
    let shared: Vec<_> = shared
        .collect::<std::io::Result<_>>()
        .map_err(DaemonError::system("sharing the companion's sockets with the sentinel"))?;
    tell_streams(&runtime, stream_sockets, |listener| stream_policies[listener].clone())
        .map_err(DaemonError::system("waiting for the companion's connections"))?;
    for interface in lock(&interfaces).iter_mut() {
        interface.follow_log(&runtime);
    }
    let mut control = prepared.start(ControlSetup {
        admin: config.daemon.admin,
        housekeeping_cores: plan.housekeeping_cores.clone(),
        state: Arc::clone(&state),
        companion: CompanionSetup {
            sockets: Arc::clone(&sockets),
            listeners: policies,
            links,
            heartbeats: view,
        },
        sentinel: Some(SentinelSetup {
            program: SentinelProgram::default(),
            listeners: config.listeners.clone(),
            item_bytes_max: config.table.item_bytes_max,
            stream_words: stream_policies
                .iter()
                .map(|policy| String::from_utf8_lossy(policy.words).into_owned())
                .collect(),
            sockets: shared.into(),
            heartbeats: heartbeat_file()?,
            layout: heartbeats.layout(),
        }),
    })?;

    let workers = Arc::new(workers);
    let mut supervisor = Supervisor::start(Supervisor {
        plan: plan.workers.clone(),
        rules: rules.clone(),
        interfaces: Arc::clone(&interfaces),
        workers: Arc::clone(&workers),
        state,
        events: happened,
        runtime,
    })?;
    // From here on everything runs, so whatever fails takes the same way down.
    let steered = lock(&interfaces).iter_mut().try_for_each(|interface| interface.serve(&rules));
    let outcome = steered.map_err(DaemonError::from).and_then(|()| {
        control.ready();
        control.wait_for_signal(supervisor.failure())
    });

    for interface in lock(&interfaces).iter_mut() {
        if let Err(error) = interface.serve_nothing() {
            tracing::warn!(interface = interface.name(), %error, "the services could not be taken out");
        }
    }
    control.stop();
    stop(&workers);
    supervisor.join();
    tracing::info!("ended");
    outcome
}

/// Whether a signal came before everything was up.
fn was_told_to_end(prepared: &mut Prepared) -> bool {
    let signal = prepared.signal();
    if let Some(signal) = signal {
        tracing::info!(signal, "ending before anything is served");
    }
    signal.is_some()
}

/// Ends workers, once they have answered what they have.
fn stop(workers: &[WorkerHandle]) {
    for worker in workers {
        worker.command(XskCommand::Stop);
    }
    for worker in workers {
        worker.join();
    }
}

/// What the control plane answers for each listener while a worker is stale.
fn policies(
    config: &Config,
    registry: &Registry,
    workers: usize,
) -> Result<Vec<ListenerPolicy>, DaemonError> {
    config
        .listeners
        .iter()
        .enumerate()
        .map(|(index, listener)| {
            let service = match listener.protocol {
                ListenerProtocol::Udp => Some(service(config, registry, index, 0, workers)?),
                ListenerProtocol::Tcp => None,
            };
            Ok(ListenerPolicy::new(AllowList::new(&listener.allow), listener.port, service))
        })
        .collect()
}

/// The same for those who connect.
fn stream_policies(
    config: &Config,
    registry: &Registry,
    workers: usize,
) -> Result<Vec<StreamPolicy>, DaemonError> {
    config
        .listeners
        .iter()
        .enumerate()
        .map(|(index, listener)| {
            let words = match listener.protocol {
                ListenerProtocol::Udp => &b""[..],
                ListenerProtocol::Tcp => stream_service(config, registry, index, 0, workers)?.unavailable(),
            };
            Ok(StreamPolicy { allow: AllowList::new(&listener.allow), words })
        })
        .collect()
}

fn attach_all(config: &Config) -> Result<Vec<Interface>, SteerError> {
    config.interfaces.iter().map(|interface| Interface::attach(interface, config)).collect()
}

fn verdict_source(interfaces: &Interfaces) -> Box<dyn Fn() -> Verdicts + Send + Sync> {
    let interfaces = Arc::clone(interfaces);
    Box::new(move || {
        let mut interfaces = lock(&interfaces);
        let counters = interfaces.iter_mut().map(|interface| {
            let counters = interface.steer().counters().unwrap_or_else(|error| {
                tracing::warn!(interface = interface.name(), %error, "the verdicts cannot be read");
                Default::default()
            });
            let counters = counters.into_iter().map(|(label, count)| (label.to_owned(), count)).collect();
            (interface.name().to_owned(), counters)
        });
        counters.collect()
    })
}

/// A panic while the lock was held leaves nothing half-changed: each change is one call into the kernel.
pub(super) fn lock(interfaces: &Interfaces) -> std::sync::MutexGuard<'_, Vec<Interface>> {
    interfaces.lock().unwrap_or_else(PoisonError::into_inner)
}
