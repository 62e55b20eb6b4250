//! The workers' threads: each is pinned first and then makes its own table and services, so that its memory lies on
//! its own node.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::interface::Lane;
use super::listeners;
use super::steering::Steering;
use super::{DaemonError, Registry};
use crate::config::Config;
use crate::control::companion::CompanionSocket;
use crate::memory::{HugePages, Placement};
use crate::metrics::WorkerMetrics;
use crate::net::tcp::too_big::TooBig;
use crate::port::xsk::{XskPort, XskQueue};
use crate::table::memory::{MemoryTable, MemoryTableConfig};
use crate::topology::WorkerPlan;
use crate::transport::kernel::Kernel;
use crate::worker::driver::{Beat, Command, Driver, Event};
use crate::worker::wake::Wake;
use crate::worker::{Shard, Worker};

/// Time to fault in a table that an operator need not hear of.
const TABLE_TIME_EXPECTED: Duration = Duration::from_secs(5);

/// How often it is asked meanwhile whether the daemon is to end.
const ENDING_LOOK: Duration = Duration::from_millis(50);

/// Messages of routers that may wait for one worker.
const MESSAGES_UNHEARD_MAX: usize = 1024;

/// A command to a worker over AF_XDP.
pub(super) type XskCommand = Command<XskPort, XskQueue>;

/// A running worker.
pub(super) struct WorkerHandle {
    commands: Sender<XskCommand>,
    wake: Wake,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// A clone for each message of a router that it has not heard yet.
    unheard: Arc<()>,
}

/// What a worker is started from.
pub(super) struct WorkerParts {
    pub(super) plan: WorkerPlan,
    pub(super) steering: Arc<Steering>,
    pub(super) lanes: Vec<Lane>,
    /// Its ordinary sockets; none when those cannot be served here.
    pub(super) sockets: Vec<CompanionSocket>,
    /// Connections these may have.
    pub(super) kernel_connections_max: usize,
    pub(super) beat: Beat,
    pub(super) others_stale: Option<Box<dyn Fn(u64) -> bool + Send>>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) events: Sender<Event>,
}

impl WorkerHandle {
    /// Starts a worker; returns once it serves, or with `None` once `is_ending` says that it need not any more.
    pub(super) fn start(
        parts: WorkerParts,
        config: &Config,
        registry: &Registry,
        is_ending: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>, DaemonError> {
        let (commands, receiver) = mpsc::channel();
        let number = parts.plan.worker;
        let wake = Wake::new().map_err(DaemonError::system("making a worker's wake-up"))?;
        let (ready, started) = mpsc::channel();
        let (config, registry, wake_up) = (config.clone(), registry.clone(), wake.clone());
        let thread = std::thread::Builder::new()
            .name(format!("worker-{}", parts.plan.worker))
            .spawn(move || thread_main(parts, &config, &registry, (receiver, wake_up), &ready))
            .map_err(DaemonError::system("starting a worker's thread"))?;
        let handle = Self { commands, wake, thread: Mutex::new(Some(thread)), unheard: Arc::default() };
        loop {
            if is_ending() {
                // Its table may take a minute yet: it goes with the process.
                return Ok(None);
            }
            match started.recv_timeout(ENDING_LOOK) {
                Ok(Ok(())) => return Ok(Some(handle)),
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {}
                // It panicked before it could say anything; the panic's message is in the log.
                Err(RecvTimeoutError::Disconnected) => {
                    handle.join();
                    return Err(DaemonError::WorkerPanicked { worker: number });
                }
            }
        }
    }

    /// Tells it something.
    pub(super) fn command(&self, command: XskCommand) {
        // A worker that has ended says so by an event of its own.
        let _ = self.commands.send(command);
        self.wake.wake();
    }

    /// Passes on what a router says, unless the worker has not heard enough already: what matters is said again.
    pub(super) fn packet_too_big(&self, message: TooBig) {
        if Arc::strong_count(&self.unheard) <= MESSAGES_UNHEARD_MAX {
            self.command(Command::PacketTooBig { message, unheard: Arc::clone(&self.unheard) });
        }
    }

    /// Waits for its end.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic was contained and reported on the thread itself.
            let _ = thread.join();
        }
    }
}

fn thread_main(
    parts: WorkerParts,
    config: &Config,
    registry: &Registry,
    commands: (Receiver<XskCommand>, Wake),
    ready: &Sender<Result<(), DaemonError>>,
) {
    let (number, core) = (parts.plan.worker, parts.plan.core);
    let events = parts.events.clone();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            let reason = "the kernel refused; is the core online and in this process's cpuset?";
            let _ = ready.send(Err(DaemonError::Pin { worker: number, core, reason }));
            return;
        }
        match assemble(parts, config, registry, commands) {
            Ok((driver, worker)) => {
                let _ = ready.send(Ok(()));
                driver.run(worker);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    }));
    if ran.is_err() {
        let _ = events.send(Event::Panicked { worker: number });
    }
}

type XskDriver = Driver<XskPort, XskQueue>;
type XskWorker = Worker<XskPort, XskQueue>;

fn assemble(
    parts: WorkerParts,
    config: &Config,
    registry: &Registry,
    (commands, wake): (Receiver<XskCommand>, Wake),
) -> Result<(XskDriver, XskWorker), DaemonError> {
    let WorkerParts {
        plan,
        steering,
        lanes,
        sockets,
        kernel_connections_max,
        beat,
        others_stale,
        metrics,
        events,
    } = parts;
    tracing::info!(
        worker = plan.worker,
        bytes = config.table.capacity_bytes,
        "faulting in the table's memory"
    );
    let start = Instant::now();
    let table = MemoryTable::new(MemoryTableConfig {
        capacity_bytes: config.table.capacity_bytes,
        item_bytes_max: config.table.item_bytes_max,
        expected_item_bytes: config.table.expected_item_bytes,
        placement: Placement { node: plan.node, huge_pages: config.table.huge_pages },
    })
    .map_err(|source| DaemonError::Table { worker: plan.worker, source })?;
    metrics.table_huge_pages.set(table.huge_pages().into());
    if config.table.huge_pages == HugePages::Auto && !table.huge_pages() {
        tracing::warn!(
            worker = plan.worker,
            node = plan.node,
            bytes = config.table.capacity_bytes,
            "the table lies in ordinary pages, since too few huge pages are free; dataplane doctor has the command"
        );
    }
    let elapsed = start.elapsed();
    if elapsed > TABLE_TIME_EXPECTED {
        let (worker, seconds) = (plan.worker, elapsed.as_secs());
        tracing::warn!(
            worker,
            seconds,
            "this host gave the table's memory slowly; huge pages set aside would help"
        );
    }
    let (steering, worker) = (&*steering, plan.worker);
    let made = listeners::Making { config, registry, steering, worker, kernel_connections_max };
    let streams = made.streams(&lanes)?;
    let kernel = if sockets.is_empty() { None } else { Some(Kernel::new(made.kernel(sockets)?)?) };
    let shard = Shard::new(made.datagrams()?, Box::new(table), metrics);
    let lane_generations = vec![0; lanes.len()];
    let (lanes, lane_beats) = lanes.into_iter().map(|lane| (lane.bypass, Some(lane.beat))).unzip();
    let worker = Worker::new(lanes, shard).with_streams(streams).with_kernel(kernel);
    let driver = Driver {
        number: plan.worker,
        idle: config.workers.idle,
        beat,
        lane_beats,
        lane_generations,
        commands,
        others_stale,
        wake,
        events,
    };
    Ok((driver, worker))
}
