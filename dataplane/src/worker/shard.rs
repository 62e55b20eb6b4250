//! What one core serves: its listeners, over its own table. Every datagram, whichever way it came, goes through
//! [`Shard::serve`], so that the same rules hold for all.

use std::sync::Arc;

use super::Listener;
use crate::limits::MEMCACHED_DATAGRAM_BYTES_MAX;
use crate::metrics::{DropReason, WorkerMetrics};
use crate::service::{Context, Datagram, Replies, Via};
use crate::table::{Hint, Table};
use crate::time::Now;
use crate::transport::server::Server;

/// Listeners, a table, and the counters of the worker they belong to.
pub struct Shard {
    listeners: Vec<Listener>,
    table: Box<dyn Table>,
    metrics: Arc<WorkerMetrics>,
    suspended: bool,
}

impl Shard {
    /// A shard of these listeners. Where two would match, the earlier one serves.
    #[must_use]
    pub fn new(listeners: Vec<Listener>, table: Box<dyn Table>, metrics: Arc<WorkerMetrics>) -> Self {
        Self { listeners, table, metrics, suspended: false }
    }

    /// Hands a datagram to its service, or drops and counts it: nobody's port, a source that is not allowed (no
    /// reply ever goes to one), its own port, a source over its limit.
    #[inline]
    pub fn serve(&mut self, now: Now, datagram: &Datagram<'_>, replies: &mut dyn Replies) {
        let Self { listeners, table, metrics, suspended } = self;
        let Some(listener) = listeners.iter_mut().find(|listener| listener.is_meant(datagram.destination))
        else {
            return metrics.dropped(DropReason::NoService);
        };
        let source = datagram.source.ip();
        if !listener.allow.contains(source) {
            return metrics.dropped(DropReason::SourceNotAllowed);
        }
        if datagram.source.port() == listener.port {
            return metrics.dropped(DropReason::SourcePort);
        }
        if let Some(limiter) = &mut listener.limiter
            && !limiter.allow(source, now.monotonic_ns)
        {
            return metrics.dropped(DropReason::RateLimited);
        }
        if *suspended && listener.steered && datagram.via == Via::Kernel {
            let mut words = [0; MEMCACHED_DATAGRAM_BYTES_MAX];
            let length = listener.service.unavailable(datagram.payload, &mut words);
            if length > 0 {
                replies.send(&[&words[..length]]);
            }
            return;
        }
        let mut context = Context { now, table: table.as_mut(), metrics };
        listener.service.datagram(&mut context, datagram, replies);
    }

    /// Whether another worker stands still. Its clients' packets are passed on to ordinary sockets, among which the kernel
    /// chooses: they must not be served from a table that is not theirs. (Once workers hand requests to the one that owns the
    /// key, this goes.)
    pub(super) fn set_suspended(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Starts what a datagram will need on its way into the cache.
    #[inline]
    pub fn prepare(&self, datagram: &Datagram<'_>) -> Option<Hint> {
        let listener = self.listeners.iter().find(|listener| listener.is_meant(datagram.destination))?;
        listener.service.key_hint(datagram.payload).map(|key| self.table.prepare(key))
    }

    /// The second step of [`Shard::prepare`].
    #[inline]
    pub fn anticipate(&self, hint: Hint) {
        self.table.anticipate(hint);
    }

    /// What a service works with at this time.
    #[inline]
    pub fn context(&mut self, now: Now) -> Context<'_> {
        Context { now, table: self.table.as_mut(), metrics: &self.metrics }
    }

    /// Lets the table complete and clean up.
    pub fn poll(&mut self, now: Now) {
        // Datagram sessions answer at once or not at all: nobody waits for an origin here.
        self.table.poll(now, &mut |_, _| {});
    }

    /// The worker's counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<WorkerMetrics> {
        &self.metrics
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &dyn Table {
        self.table.as_ref()
    }

    /// Brings the table's gauges up to date.
    pub fn publish(&self) {
        let table = self.table.statistics();
        self.metrics.items.set(table.items);
        self.metrics.live_bytes.set(table.live_bytes);
        self.metrics.used_bytes.set(table.used_bytes);
        self.metrics.capacity_bytes.set(table.capacity_bytes);
        self.metrics.evictions.set(table.evictions);
    }
}

/// A shard at one moment, as the transports see it.
pub(super) struct Serving<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) now: Now,
}

impl Server for Serving<'_> {
    #[inline]
    fn prepare(&self, datagram: &Datagram<'_>) -> Option<Hint> {
        self.shard.prepare(datagram)
    }

    #[inline]
    fn prepare_key(&self, key: &[u8]) -> Hint {
        self.shard.table.prepare(key)
    }

    #[inline]
    fn anticipate(&self, hint: Hint) {
        self.shard.anticipate(hint);
    }

    #[inline]
    fn serve(&mut self, datagram: &Datagram<'_>, replies: &mut dyn Replies) {
        self.shard.serve(self.now, datagram, replies);
    }

    #[inline]
    fn now(&self) -> Now {
        self.now
    }

    #[inline]
    fn context(&mut self) -> Context<'_> {
        self.shard.context(self.now)
    }
}
