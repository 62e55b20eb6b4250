//! The order in which everything comes up and goes down.
//!
//! Up: whatever can be wrong is found before the NIC is touched, and signals end it in order from then on; packets are
//! steered last, when somebody answers them.
//! Down: packets stop being steered first, and what has arrived is answered before its worker ends.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::descriptors::connections_max;
use super::heartbeat::WorkerHeartbeats;
use super::interface::Interface;
use super::listeners::{self, service, stream_service};
use super::steering::{Nics, Steering};
use super::supervisor::Supervisor;
use super::workers::{WorkerHandle, WorkerParts, XskCommand};
use super::{DaemonError, Registry};
use crate::config::{Config, ListenerProtocol};
use crate::control::companion::CompanionSocket;
use crate::control::heartbeat::{HeartbeatMap, Heartbeats};
use crate::control::sentinel::{SentinelProgram, SentinelSetup};
use crate::control::state::{DaemonState, Verdicts};
use crate::control::{ControlSetup, Prepared, too_big};
use crate::metrics::WorkerMetrics;
use crate::topology;
use crate::transport::kernel::Kernel;

/// The NICs: the supervisor attaches them anew, the admin API reads their counters.
pub(super) type Interfaces = Arc<Mutex<Vec<Interface>>>;

/// Serves until it is told to end.
pub(super) fn run(config: &Config, registry: &Registry) -> Result<(), DaemonError> {
    let mut steering = Steering::plan(&topology::discover()?, config)?;
    tracing::info!("plan:\n{}", steering.plan);
    let count = steering.plan.workers.len();
    let words = stream_words(config, registry, count)?;
    let unserved = cannot_serve_kernel(config, &steering)?;
    let kernel_connections_max = connections_max(config.tcp.connections, count);
    let sockets: Arc<[CompanionSocket]> =
        CompanionSocket::bind_all(&config.listeners, count).map_err(DaemonError::Companion)?.into();
    let heartbeats = WorkerHeartbeats::new(count).map_err(DaemonError::system("making the heartbeats"))?;
    let heartbeat_file = || heartbeats.descriptor().map_err(DaemonError::system("sharing the heartbeats"));
    let view = HeartbeatMap::open(&heartbeat_file()?, heartbeats.layout())
        .map_err(DaemonError::system("mapping the heartbeats"))?;
    let view = Arc::new(view);

    let mut prepared = Prepared::new(config.daemon.admin, &steering.plan.housekeeping_cores)?;
    let Nics { interfaces, lanes } = steering.attach(config)?;
    // It may have fallen back just now, to what there is not.
    if unserved && config.listeners.iter().any(|listener| !steering.is_steered(listener.transport)) {
        Kernel::probe()?;
    }
    let listeners = steering.listeners(config);
    let steering = Arc::new(steering);
    let (events, happened) = mpsc::channel();
    let mut workers = Vec::with_capacity(count);
    let mut queues = Vec::new();
    let mut counted = Vec::with_capacity(count);
    for (worker, lanes) in steering.plan.workers.iter().zip(lanes) {
        queues.extend(lanes.iter().map(|lane| lane.status.clone()));
        let metrics = Arc::new(WorkerMetrics::default());
        let own = sockets.iter().filter(|socket| !unserved && socket.worker() == worker.worker);
        let own = own.map(CompanionSocket::try_clone).collect::<std::io::Result<_>>();
        let parts = WorkerParts {
            plan: worker.clone(),
            steering: Arc::clone(&steering),
            lanes,
            sockets: own.map_err(DaemonError::system("sharing the companion's sockets with a worker"))?,
            kernel_connections_max,
            beat: heartbeats.beat(worker.worker),
            others_stale: others_stale(worker.worker, count, &view),
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
        counted.push((worker.clone(), metrics));
    }
    drop(events);

    let rules = steering.rules(config);
    let interfaces: Interfaces = Arc::new(Mutex::new(interfaces));
    let state = Arc::new(DaemonState::new(counted, view, verdict_source(&interfaces)));
    state.set_queues(queues);
    state.set_listeners(listeners);
    let runtime = prepared.runtime().clone();
    for interface in lock(&interfaces).iter_mut() {
        interface.follow_log(&runtime);
    }
    let mut control = prepared.start(ControlSetup {
        admin: config.daemon.admin,
        housekeeping_cores: steering.plan.housekeeping_cores.clone(),
        state: Arc::clone(&state),
        sentinel: Some(SentinelSetup {
            program: SentinelProgram::default(),
            listeners: config.listeners.clone(),
            item_bytes_max: config.table.item_bytes_max,
            stream_words: words,
            sockets,
            heartbeats: heartbeat_file()?,
            layout: heartbeats.layout(),
            unserved,
        }),
    })?;

    let workers = Arc::new(workers);
    hear_routers(config, &steering, &runtime, &workers)?;
    let mut supervisor = Supervisor::start(Supervisor {
        plan: steering.plan.workers.clone(),
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

/// Whether ordinary sockets cannot be served here: an error when a listener has nothing else.
fn cannot_serve_kernel(config: &Config, steering: &Steering) -> Result<bool, DaemonError> {
    let Err(error) = Kernel::probe() else { return Ok(false) };
    if config.listeners.iter().any(|listener| !steering.is_steered(listener.transport)) {
        return Err(error.into());
    }
    tracing::warn!(
        %error,
        "clients on this host, fragments and packets that are too long for a frame are told that the service is unavailable"
    );
    Ok(true)
}

/// Whether a worker other than this one stands still; `None` when there is no other.
fn others_stale(
    worker: usize,
    workers: usize,
    heartbeats: &Arc<HeartbeatMap>,
) -> Option<Box<dyn Fn(u64) -> bool + Send>> {
    let heartbeats = Arc::clone(heartbeats);
    let others: Vec<usize> = (0..workers).filter(|&other| other != worker).collect();
    // One that has never beaten is not up yet.
    let is_stale =
        move |other, now_ns| heartbeats.heartbeat_ns(other) > 0 && heartbeats.is_stale(other, now_ns);
    (workers > 1)
        .then(|| Box::new(move |now_ns| others.iter().any(|&other| is_stale(other, now_ns))) as Box<_>)
}

/// Passes on to the workers what routers say of packets that were too large, when there are streams past the kernel.
fn hear_routers(
    config: &Config,
    steering: &Steering,
    runtime: &Handle,
    workers: &Arc<Vec<WorkerHandle>>,
) -> Result<(), DaemonError> {
    let streams = listeners::of(config, ListenerProtocol::Tcp).map(|(_, listener)| listener);
    let steered = streams.filter(|listener| steering.is_steered(listener.transport));
    let ports: Vec<u16> = steered.map(|listener| listener.port).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let workers = Arc::clone(workers);
    // Any of them may have the connection: which one, the NIC decides.
    let tell = move |message| workers.iter().for_each(|worker| worker.packet_too_big(message));
    too_big::listen(runtime, &ports, tell).map_err(DaemonError::system("listening to what routers say"))
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

/// What those who connect to each listener are told while its worker is stale; also makes sure that every listener's
/// service is to be had, before anything is touched.
fn stream_words(config: &Config, registry: &Registry, workers: usize) -> Result<Vec<String>, DaemonError> {
    let listeners = config.listeners.iter().enumerate();
    let words = listeners.map(|(index, listener)| match listener.protocol {
        ListenerProtocol::Udp => service(config, registry, index, 0, workers).map(|_| String::new()),
        ListenerProtocol::Tcp => {
            let words = stream_service(config, registry, index, 0, workers)?.unavailable();
            Ok(String::from_utf8_lossy(words).into_owned())
        }
    });
    words.collect()
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
