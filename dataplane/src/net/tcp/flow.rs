//! One flow: what it remembers, its timers and how it ends. What arrives is judged in `input`, what goes out is
//! written in `output`.
//!
//! The states of RFC 9293 section 3.3.2 are not numbered: a flow is what our FIN (`Sender::fin`) and the peer's
//! (`Receiver::finished`) make of it. ESTABLISHED has neither; FIN-WAIT is ours sent, CLOSE-WAIT theirs received,
//! CLOSING and LAST-ACK both, and the order tells them apart. LISTEN and SYN-RECEIVED are records of `listen`,
//! TIME-WAIT is one of `time_wait`.

use super::config::{Config, SLOW_FACTOR};
use super::ends::{Ends, Link};
use super::handler::{Closed, FlowId, Handler, Io};
use super::options::Timestamps;
use super::pool::{Blocks, Chunks};
use super::receive::{Assembly, Promise, Receiver};
use super::recovery::Records;
use super::send::{Fin, Sender};
use super::sequence::Sequence;
use super::statistics::Statistics;
use crate::time::{NS_PER_MS, NS_PER_S};

/// A timestamp this old proves nothing any more (RFC 7323 section 5.5).
const STAMP_LIFE_NS: u64 = 24 * 24 * 3_600 * NS_PER_S;

/// What all flows share.
pub(super) struct Pools {
    pub(super) blocks: Blocks<Assembly>,
    pub(super) chunks: Chunks,
    pub(super) records: Records,
}

/// What a flow works with: the time, the rules, the pools.
pub(super) struct Env<'a> {
    pub(super) now_ns: u64,
    pub(super) config: &'a Config,
    pub(super) pools: &'a mut Pools,
    pub(super) statistics: &'a mut Statistics,
}

/// Timestamps of one flow (RFC 7323).
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamps {
    /// Added to our clock.
    offset: u32,
    /// What is echoed (TS.Recent), and when it came.
    pub(super) recent: u32,
    recent_ns: u64,
    /// Where our last acknowledgement stood (Last.ACK.sent).
    last_acknowledgement: Sequence,
}

impl Stamps {
    pub(super) const fn new(offset: u32, recent: u32, now_ns: u64, acknowledged: Sequence) -> Self {
        Self { offset, recent, recent_ns: now_ns, last_acknowledgement: acknowledged }
    }

    /// The peer's first timestamp came.
    pub(super) const fn begin(&mut self, recent: u32, now_ns: u64, acknowledged: Sequence) {
        *self = Self::new(self.offset, recent, now_ns, acknowledged);
    }

    /// The option to send; our clock counts milliseconds.
    #[inline]
    pub(super) const fn option(&self, now_ns: u64) -> Timestamps {
        Timestamps { value: stamp(self.offset, now_ns), echo: self.recent }
    }

    /// When what the peer echoes was sent, in milliseconds of our clock.
    #[inline]
    pub(super) const fn sent_ms(&self, echo: u32) -> u32 {
        echo.wrapping_sub(self.offset)
    }

    /// PAWS (RFC 7323 section 5.3): true for a segment from before the last one.
    #[inline]
    pub(super) const fn is_old(&self, value: u32, now_ns: u64) -> bool {
        (value.wrapping_sub(self.recent) as i32) < 0 && now_ns.saturating_sub(self.recent_ns) < STAMP_LIFE_NS
    }

    /// Takes the timestamp of a segment that is acceptable (RFC 7323 section 4.3).
    #[inline]
    pub(super) fn take(&mut self, value: u32, sequence: Sequence, now_ns: u64) {
        if !self.is_old(value, now_ns) && !sequence.after(self.last_acknowledgement) {
            (self.recent, self.recent_ns) = (value, now_ns);
        }
    }

    /// An acknowledgement up to here goes out.
    #[inline]
    pub(super) const fn acknowledged(&mut self, sequence: Sequence) {
        self.last_acknowledgement = sequence;
    }
}

/// A timestamp of ours.
pub(super) const fn stamp(offset: u32, now_ns: u64) -> u32 {
    offset.wrapping_add((now_ns / NS_PER_MS) as u32)
}

/// An acknowledgement that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// Nothing is.
    Nothing,
    /// With the next data, or when this time has come.
    By(u64),
    /// At the end of this poll.
    Now,
}

/// A flow, on cache lines of its own.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Flow {
    pub(super) ends: Ends,
    pub(super) hash: u32,
    pub(super) generation: u32,
    /// The record is a flow's.
    pub(super) live: bool,
    /// It is in the stack's queue of those with something to do.
    pub(super) queued: bool,
    /// It is in the line for a pool, by the pool.
    pub(super) waits: [bool; 2],
    /// Our SYN is not acknowledged yet (SYN-SENT).
    pub(super) opening: bool,
    /// The handler wants it reset.
    pub(super) abort: bool,
    /// It is over, for this reason, and waits to be taken away.
    pub(super) over: Option<Closed>,
    /// Our FIN went out before the peer's came: late segments have to be waited for.
    pub(super) closed_first: bool,
    pub(super) owed: Owed,
    /// Acknowledgements owed beyond the one: without selective ones a peer counts them (RFC 5681 section 4.2).
    pub(super) repeats: u8,
    /// Bytes received since the last acknowledgement.
    pub(super) unacknowledged: u32,
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    pub(super) stamps: Option<Stamps>,
    /// When the peer was last heard, and when data last passed either way.
    pub(super) heard_ns: u64,
    pub(super) data_ns: u64,
    /// When we closed; 0 before.
    pub(super) closing_ns: u64,
    /// Since when part of a request lies here without the rest; 0 while none does, or its handler waits for room.
    pub(super) request_since_ns: u64,
    pub(super) keepalives: u8,
    /// Challenge acknowledgements in the second that started then.
    pub(super) challenges: u8,
    pub(super) challenges_ns: u64,
    /// When its timer in the wheel is due; `u64::MAX` when none is set.
    pub(super) scheduled_ns: u64,
    pub(super) link: Link,
}

impl Flow {
    /// A flow that is no flow.
    pub(super) fn unused(config: &Config) -> Self {
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            ends: Ends::new(nobody, nobody),
            hash: 0,
            generation: 0,
            live: false,
            queued: false,
            waits: [false; 2],
            opening: false,
            abort: false,
            over: None,
            closed_first: false,
            owed: Owed::Nothing,
            repeats: 0,
            unacknowledged: 0,
            receiver: Receiver::new(Sequence(0), 0),
            sender: Sender::new(config, Sequence(0), u32::from(config.segment_bytes(true))),
            stamps: None,
            heard_ns: 0,
            data_ns: 0,
            closing_ns: 0,
            request_since_ns: 0,
            keepalives: 0,
            challenges: 0,
            challenges_ns: 0,
            scheduled_ns: u64::MAX,
            link: Link::NONE,
        }
    }

    /// A flow at its very beginning. The generation stays with the record.
    pub(super) fn begin(
        &mut self,
        ends: Ends,
        hash: u32,
        link: Link,
        sender: Sender,
        receiver: Receiver,
        now_ns: u64,
    ) {
        let generation = self.generation;
        *self = Self {
            ends,
            hash,
            generation,
            live: self.live,
            queued: self.queued,
            waits: self.waits,
            opening: false,
            abort: false,
            over: None,
            closed_first: false,
            owed: Owed::Nothing,
            repeats: 0,
            unacknowledged: 0,
            receiver,
            sender,
            stamps: None,
            heard_ns: now_ns,
            data_ns: now_ns,
            closing_ns: 0,
            request_since_ns: 0,
            keepalives: 0,
            challenges: 0,
            challenges_ns: 0,
            scheduled_ns: u64::MAX,
            link,
        };
    }

    /// Reads something of each cache line that a segment needs; what it gives means nothing.
    #[inline]
    pub(super) fn touch(&self) -> u32 {
        let stamps = self.stamps.as_ref().map_or(0, |stamps| stamps.recent);
        let sender = &self.sender;
        let far =
            self.heard_ns ^ self.scheduled_ns ^ sender.watch_ns ^ sender.sent_ns ^ sender.trip.least_ns();
        let near = self.hash ^ self.receiver.next.0 ^ self.receiver.window() ^ sender.una.0 ^ sender.segment;
        let inner = sender.board.count() ^ sender.chain.bytes() ^ sender.congestion.window();
        stamps ^ far as u32 ^ near ^ inner ^ u32::from(self.link.octets()[0])
    }

    /// What may be promised to the peer.
    pub(super) fn promise(&self, config: &Config) -> Promise {
        Promise {
            window: config.window_bytes as u32,
            slack: config.window_slack_bytes as u32,
            segment: u32::from(config.segment_bytes(self.ends.is_v4())),
        }
    }

    /// What a handler gets to work with.
    pub(super) fn io<'a>(&'a mut self, env: &'a mut Env<'_>) -> Io<'a> {
        Io {
            sender: &mut self.sender,
            chunks: &mut env.pools.chunks,
            peer_finished: self.receiver.finished,
            send_bytes_max: env.config.send_bytes_max as u32,
            abort: &mut self.abort,
        }
    }

    /// Shows the handler what it has not taken.
    pub(super) fn show<H: Handler>(&mut self, env: &mut Env<'_>, id: FlowId, handler: &mut H) {
        if self.abort || self.over.is_some() {
            return;
        }
        self.show_unread(env, id, handler);
        // What lies here lies in a block, be it unread or beyond a gap.
        if self.receiver.is_empty() || self.sender.wanting {
            self.request_since_ns = 0;
        } else if self.request_since_ns == 0 {
            self.request_since_ns = env.now_ns.max(1);
        }
    }

    fn show_unread<H: Handler>(&mut self, env: &mut Env<'_>, id: FlowId, handler: &mut H) {
        let Pools { blocks, chunks, .. } = &mut *env.pools;
        let unread = self.receiver.unread(blocks);
        if unread.is_empty() {
            return;
        }
        let mut io = Io {
            sender: &mut self.sender,
            chunks,
            peer_finished: self.receiver.finished,
            send_bytes_max: env.config.send_bytes_max as u32,
            abort: &mut self.abort,
        };
        let taken = handler.data(id, unread, &mut io);
        env.statistics.bytes_in += taken.consumed as u64;
        if taken.consumed > 0 {
            self.request_since_ns = 0;
        }
        self.receiver.consume(blocks, taken.consumed);
        self.receiver.need(u32::try_from(taken.needed).unwrap_or(u32::MAX));
    }

    /// Gives the handler its turn: room to write, and what it has not taken.
    pub(super) fn wake_handler<H: Handler>(&mut self, env: &mut Env<'_>, id: FlowId, handler: &mut H) {
        let enough = (env.config.send_bytes_max / 2) as u32;
        if !self.sender.wanting
            || self.opening
            || self.abort
            || self.over.is_some()
            || self.sender.chain.bytes() > enough
            || env.pools.chunks.available() == 0
        {
            return;
        }
        self.sender.wanting = false;
        handler.writable(id, &mut self.io(env));
        self.show(env, id, handler);
    }

    /// The handler waits for room that only other flows can make.
    pub(super) fn wants_chunks(&self, env: &Env<'_>) -> bool {
        self.sender.wanting && self.sender.chain.bytes() <= (env.config.send_bytes_max / 2) as u32
    }

    /// Everything is said both ways, and acknowledged.
    pub(super) fn is_finished(&self) -> bool {
        self.receiver.finished && self.sender.fin == Fin::Acknowledged
    }

    /// When the next of its timers is due; `u64::MAX` when none is.
    pub(super) fn due_ns(&self, config: &Config) -> u64 {
        let mut due_ns = self.sender.watch_ns;
        if let Owed::By(at_ns) = self.owed {
            due_ns = due_ns.min(at_ns);
        }
        due_ns.min(self.patience_ends_ns(config).0)
    }

    /// When something is done about a peer that says nothing, takes nothing or does not close, and what; a question
    /// is `None`.
    pub(super) fn patience_ends_ns(&self, config: &Config) -> (u64, Option<Closed>) {
        let mut first = (u64::MAX, None);
        let mut by = |at_ns: u64, reason| {
            if at_ns < first.0 {
                first = (at_ns, reason);
            }
        };
        if self.opening {
            by(self.data_ns + config.half_open_ns, Some(Closed::TimedOut));
            return first;
        }
        if config.keepalive_ns > 0 && self.sender.board.is_empty() {
            let asked_ns = u64::from(self.keepalives) * config.keepalive_interval_ns;
            let given_up = self.keepalives >= config.keepalive_probes;
            by(self.heard_ns + config.keepalive_ns + asked_ns, given_up.then_some(Closed::TimedOut));
        }
        if config.idle_ns > 0 {
            by(self.data_ns + config.idle_ns, Some(Closed::Idle));
        }
        if self.sender.stalled_since_ns > 0 {
            by(self.sender.stalled_since_ns + config.stalled_ns, Some(Closed::Stalled));
            by(self.sender.slow_since_ns + SLOW_FACTOR * config.stalled_ns, Some(Closed::Stalled));
        }
        if config.request_ns > 0 && self.request_since_ns > 0 {
            by(self.request_since_ns + config.request_ns, Some(Closed::Unfinished));
        }
        if self.sender.fin == Fin::Acknowledged && !self.receiver.finished {
            by(self.closing_ns + config.close_ns, Some(Closed::Stalled));
        }
        first
    }

    /// Whether one more challenge acknowledgement may go out (RFC 5961 section 7). Counted for each flow apart: a
    /// count that flows share tells an attacker of one about another.
    pub(super) fn may_challenge(&mut self, env: &mut Env<'_>) -> bool {
        if env.now_ns.saturating_sub(self.challenges_ns) >= NS_PER_S {
            (self.challenges_ns, self.challenges) = (env.now_ns, 0);
        }
        let may = self.challenges < env.config.challenges_per_s;
        if may {
            self.challenges += 1;
            env.statistics.challenges += 1;
        } else {
            env.statistics.challenges_withheld += 1;
        }
        may
    }

    /// Gives back whatever it holds.
    pub(super) fn release(&mut self, pools: &mut Pools) {
        self.receiver.release(&mut pools.blocks);
        self.sender.release(&mut pools.records, &mut pools.chunks);
    }
}

/// What a request has to fetch of a flow that is not in the cache: ten lines.
const _: () = assert!(size_of::<Flow>() <= 640);
