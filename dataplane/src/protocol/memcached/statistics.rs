//! `stats`: what this worker and its shard can tell.

use super::VERSION;
use super::parse::error_lines::ERROR;
use super::reply::lines;
use super::token::Tokens;
use crate::metrics::OpKind;
use crate::protocol::output::OutputExt;
use crate::service::Output;
use crate::service::{Context, ServiceSetup};
use crate::time::{NS_PER_S, Now};

/// Longest answer: 19 lines, each with a name and a number.
pub(super) const STATISTICS_BYTES_MAX: usize = 1024;

/// Counts since start, or since `stats reset`.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    gets: u64,
    stores: u64,
    flushes: u64,
    touches: u64,
    hits: u64,
    misses: u64,
    items_total: u64,
    evictions: u64,
    evictions_unfetched: u64,
    expirations: u64,
}

impl Counts {
    fn read(context: &Context<'_>) -> Self {
        let table = context.table.statistics();
        let metrics = context.metrics;
        Self {
            gets: metrics.requests(OpKind::Get),
            stores: metrics.requests(OpKind::Store),
            flushes: metrics.requests(OpKind::Flush),
            touches: metrics.requests(OpKind::Touch),
            hits: metrics.hits.get(),
            misses: metrics.misses.get(),
            items_total: table.items_total,
            evictions: table.evictions,
            evictions_unfetched: table.evictions_unfetched,
            expirations: table.expirations,
        }
    }

    fn since(self, start: Self) -> Self {
        Self {
            gets: self.gets.saturating_sub(start.gets),
            stores: self.stores.saturating_sub(start.stores),
            flushes: self.flushes.saturating_sub(start.flushes),
            touches: self.touches.saturating_sub(start.touches),
            hits: self.hits.saturating_sub(start.hits),
            misses: self.misses.saturating_sub(start.misses),
            items_total: self.items_total.saturating_sub(start.items_total),
            evictions: self.evictions.saturating_sub(start.evictions),
            evictions_unfetched: self.evictions_unfetched.saturating_sub(start.evictions_unfetched),
            expirations: self.expirations.saturating_sub(start.expirations),
        }
    }
}

/// What `stats` needs to remember.
#[derive(Debug)]
pub(super) struct Statistics {
    process: u64,
    workers: u64,
    item_bytes_max: u64,
    started: Now,
    reset_at: Counts,
}

impl Statistics {
    pub(super) fn new(setup: &ServiceSetup) -> Self {
        Self {
            process: u64::from(std::process::id()),
            workers: setup.workers as u64,
            item_bytes_max: setup.item_bytes_max as u64,
            started: setup.started,
            reset_at: Counts::default(),
        }
    }

    /// Answers `stats <words>`.
    pub(super) fn write(&mut self, context: &Context<'_>, mut words: Tokens<'_>, reply: &mut impl Output) {
        match words.next() {
            None => self.general(context, reply),
            Some(b"settings") => self.settings(context, reply),
            Some(b"reset") => {
                self.reset_at = Counts::read(context);
                reply.push(lines::RESET);
                return;
            }
            // There are no slab classes and no connections to tell of: the lists are empty.
            Some(b"items" | b"conns") => {}
            Some(b"slabs") => {
                number(reply, b"active_slabs", 0);
                number(reply, b"total_malloced", context.table.statistics().capacity_bytes);
            }
            Some(b"sizes") => word(reply, b"sizes_status", b"disabled"),
            Some(b"cachedump") => return reply.push(b"CLIENT_ERROR stats cachedump not allowed\r\n"),
            Some(b"detail") => return reply.push(b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
            Some(_) => return reply.push(ERROR),
        }
        reply.push(lines::END);
    }

    fn general(&self, context: &Context<'_>, reply: &mut impl Output) {
        let now = context.now;
        let table = context.table.statistics();
        let counts = Counts::read(context).since(self.reset_at);
        number(reply, b"pid", self.process);
        let uptime_ns = now.monotonic_ns.saturating_sub(self.started.monotonic_ns);
        number(reply, b"uptime", uptime_ns / NS_PER_S);
        number(reply, b"time", now.unix_s());
        word(reply, b"version", VERSION);
        number(reply, b"pointer_size", u64::from(usize::BITS));
        number(reply, b"threads", self.workers);
        number(reply, b"cmd_get", counts.gets);
        number(reply, b"cmd_set", counts.stores);
        number(reply, b"cmd_flush", counts.flushes);
        number(reply, b"cmd_touch", counts.touches);
        number(reply, b"get_hits", counts.hits);
        number(reply, b"get_misses", counts.misses);
        number(reply, b"limit_maxbytes", table.capacity_bytes);
        number(reply, b"bytes", table.used_bytes);
        number(reply, b"curr_items", table.items);
        number(reply, b"total_items", counts.items_total);
        number(reply, b"evictions", counts.evictions);
        number(reply, b"evicted_unfetched", counts.evictions_unfetched);
        number(reply, b"reclaimed", counts.expirations);
    }

    fn settings(&self, context: &Context<'_>, reply: &mut impl Output) {
        number(reply, b"maxbytes", context.table.statistics().capacity_bytes);
        word(reply, b"evictions", b"on");
        number(reply, b"num_threads", self.workers);
        word(reply, b"cas_enabled", b"yes");
        number(reply, b"item_size_max", self.item_bytes_max);
        word(reply, b"flush_enabled", b"yes");
        word(reply, b"dump_enabled", b"no");
    }
}

fn number(reply: &mut impl Output, name: &[u8], value: u64) {
    reply.push(b"STAT ");
    reply.push(name);
    reply.push(b" ");
    reply.push_number(value);
    reply.push(b"\r\n");
}

fn word(reply: &mut impl Output, name: &[u8], value: &[u8]) {
    reply.push(b"STAT ");
    reply.push(name);
    reply.push(b" ");
    reply.push(value);
    reply.push(b"\r\n");
}
