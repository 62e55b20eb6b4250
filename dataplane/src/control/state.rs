//! What the daemon knows of itself while it runs; `/status` and `/metrics` are made from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use super::heartbeat::Heartbeats;
use super::status::{ListenerStatus, QueueStatus, StatusReport, WorkerStatus};
use crate::metrics::{DropReason, KERNEL_TCP_EVENTS, OpKind, TcpEvent, WorkerMetrics};
use crate::time::Now;
use crate::topology::WorkerPlan;

/// Verdicts of the XDP program by interface, then by label, summed over CPUs.
pub type Verdicts = BTreeMap<String, BTreeMap<String, u64>>;

/// Asks the kernel for the verdicts. Called once for each `/status` and `/metrics`, off the request path.
pub type VerdictSource = Box<dyn Fn() -> Verdicts + Send + Sync>;

/// The daemon's state. The assembly makes it, fills in the queues and says when it is ready; the control plane
/// reads it.
pub struct DaemonState {
    started: Instant,
    ready: AtomicBool,
    stopping: AtomicBool,
    workers: Vec<(WorkerPlan, Arc<WorkerMetrics>)>,
    heartbeats: Arc<dyn Heartbeats>,
    verdicts: VerdictSource,
    queues: RwLock<Vec<QueueStatus>>,
    listeners: RwLock<Vec<ListenerStatus>>,
}

impl DaemonState {
    /// A daemon that is starting.
    #[must_use]
    pub fn new(
        workers: Vec<(WorkerPlan, Arc<WorkerMetrics>)>,
        heartbeats: Arc<dyn Heartbeats>,
        verdicts: VerdictSource,
    ) -> Self {
        Self {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            workers,
            heartbeats,
            verdicts,
            queues: RwLock::default(),
            listeners: RwLock::default(),
        }
    }

    /// Replaces what is known of the queues: at start, and whenever one goes down, comes back or changes its mode.
    pub fn set_queues(&self, queues: Vec<QueueStatus>) {
        *self.queues.write().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    /// What is known of the queues.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueStatus> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how the listeners are served.
    pub fn set_listeners(&self, listeners: Vec<ListenerStatus>) {
        *self.listeners.write().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// How the listeners are served.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that every worker serves.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Says that the daemon is on its way out.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether requests are served: it started, is not stopping, and no worker is stale.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.ready.load(Ordering::Acquire)
            && !self.stopping.load(Ordering::Acquire)
            && self.stale_workers().is_empty()
    }

    /// Whether it is on its way out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Numbers of the workers whose heartbeat is too old.
    #[must_use]
    pub fn stale_workers(&self) -> Vec<usize> {
        let now_ns = Now::read().monotonic_ns;
        let numbers = self.workers.iter().map(|(plan, _)| plan.worker);
        numbers.filter(|&worker| self.heartbeats.is_stale(worker, now_ns)).collect()
    }

    pub(super) fn workers(&self) -> &[(WorkerPlan, Arc<WorkerMetrics>)] {
        &self.workers
    }

    pub(super) fn verdicts(&self) -> Verdicts {
        (self.verdicts)()
    }

    pub(super) fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(super) fn heartbeat_age_ms(&self, worker: usize) -> u64 {
        self.heartbeats.age_ms(worker, Now::read().monotonic_ns)
    }

    /// All of it, as `/status` shows it.
    #[must_use]
    pub fn report(&self) -> StatusReport {
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            ready: self.is_healthy(),
            uptime_s: self.uptime_s(),
            listeners: self.listeners(),
            queues: self.queues(),
            verdicts: self.verdicts(),
            workers: self.workers.iter().map(|(plan, metrics)| self.worker_status(plan, metrics)).collect(),
        }
    }

    fn worker_status(&self, plan: &WorkerPlan, metrics: &WorkerMetrics) -> WorkerStatus {
        let drops = DropReason::ALL.iter().map(|&reason| (reason.label().to_owned(), metrics.drops(reason)));
        let requests = OpKind::ALL.iter().map(|&kind| (kind.label().to_owned(), metrics.requests(kind)));
        let tcp_events =
            TcpEvent::ALL.iter().map(|&event| (event.label().to_owned(), metrics.tcp_events(event)));
        let kernel_tcp_events = KERNEL_TCP_EVENTS
            .iter()
            .map(|&event| (event.label().to_owned(), metrics.kernel_tcp_events(event)));
        WorkerStatus {
            worker: plan.worker,
            core: plan.core,
            node: plan.node,
            heartbeat_age_ms: self.heartbeat_age_ms(plan.worker),
            frames_received: metrics.frames_received.get(),
            frames_sent: metrics.frames_sent.get(),
            frames_total: metrics.frames_total.get(),
            frames_lost: metrics.frames_lost.get(),
            kernel_received: metrics.kernel_received.get(),
            kernel_sent: metrics.kernel_sent.get(),
            requests: requests.collect(),
            drops: drops.collect(),
            tcp_connections: metrics.tcp_connections.get(),
            tcp_events: tcp_events.collect(),
            kernel_connections: metrics.kernel_connections.get(),
            kernel_tcp_events: kernel_tcp_events.collect(),
            hits: metrics.hits.get(),
            misses: metrics.misses.get(),
            items: metrics.items.get(),
            used_bytes: metrics.used_bytes.get(),
            capacity_bytes: metrics.capacity_bytes.get(),
            table_huge_pages: metrics.table_huge_pages.get() != 0,
            evictions: metrics.evictions.get(),
            busy_ns: metrics.busy_ns.get(),
            idle_ns: metrics.idle_ns.get(),
            asleep_ns: metrics.asleep_ns.get(),
        }
    }
}

impl fmt::Debug for DaemonState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DaemonState")
            .field("ready", &self.ready)
            .field("workers", &self.workers.len())
            .finish()
    }
}
