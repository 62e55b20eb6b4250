//! What a shard stores. A table knows no protocol and no packet: it is handed a [`Request`] and the time, and
//! answers at once or later.

pub mod memory;
#[cfg(any(test, feature = "testbed"))]
pub mod model;

use crate::request::{Item, Origin, Reply, Request};
use crate::time::Now;

/// The outcome of handing a request to a table.
#[derive(Debug)]
pub enum Submission<'t> {
    /// Answered; what the reply borrows stays valid until the table is next touched.
    Done(Reply<'t>),
    /// The reply comes from [`Table::poll`] under the request's [`Origin`]. The table has copied what it needs.
    Pending,
}

/// What is in a table, for `stats`, `status` and metrics. All counts are since start unless they say "live".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStatistics {
    /// Items live now (expired ones count until they are found or evicted, flushed ones no more).
    pub items: u64,
    /// Items ever stored.
    pub items_total: u64,
    /// Bytes of keys and values live now.
    pub live_bytes: u64,
    /// Bytes of arena in use now, headers and rounding included.
    pub used_bytes: u64,
    /// Bytes the table was given: arena and index.
    pub capacity_bytes: u64,
    /// Items evicted to make room.
    pub evictions: u64,
    /// Items evicted that had never been read.
    pub evictions_unfetched: u64,
    /// Items found expired.
    pub expirations: u64,
}

/// Where a table will look for a key; worth nothing to another table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint(pub u64);

/// A store of items, owned by one shard on one core.
pub trait Table: Send {
    /// Carries out one request, or queues it. Never blocks, allocates or reads a clock.
    fn submit(&mut self, now: Now, request: &Request<'_>) -> Submission<'_>;

    /// Says that a request for this key comes soon: what the table will look at first starts on its way into the
    /// cache. The hint is for [`Table::anticipate`].
    fn prepare(&self, key: &[u8]) -> Hint {
        let _ = key;
        Hint::default()
    }

    /// The second step, once others were prepared meanwhile: the item itself starts on its way.
    fn anticipate(&self, hint: Hint) {
        let _ = hint;
    }

    /// Completes what can be completed; a table that never answers [`Submission::Pending`] has nothing to do
    /// here. `complete` gets each finished request's origin and reply.
    fn poll(&mut self, now: Now, complete: &mut dyn FnMut(Origin, Reply<'_>)) {
        let _ = (now, complete);
    }

    /// Visits about `budget` keys from `cursor` on (0 at first). Returns the next cursor, 0 when all is done.
    ///
    /// A key that is in the table during the whole scan is visited exactly once, whatever is written in between; one
    /// that comes or goes is visited at most once each time it is there. A scan leaves recency alone, and no reader
    /// wins the right to recache by it. A cursor is a number like any other: one that no scan returned is as good.
    fn scan(&self, now: Now, cursor: u64, budget: usize, visit: &mut dyn FnMut(&[u8], Item<'_>)) -> u64;

    /// A key that is there, chosen by `random`; `None` when there is none. Which keys are likelier than others is the
    /// table's own affair.
    fn random_key(&self, now: Now, random: u64) -> Option<&[u8]>;

    /// What is in it.
    fn statistics(&self) -> TableStatistics;
}
