//! A whole TCP: it takes frames and time, tells a [`Handler`] what they mean, and gives frames to an [`Output`].

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use super::allowance::Allowance;
use super::config::{Config, ConfigError};
use super::ends::{Ends, Link};
use super::flow::{Env, Flow, Owed, Pools, Stamps};
use super::handler::{Closed, FlowId, Foreseen, Handler, Io, Output};
use super::input::Answer;
use super::listen::HalfOpen;
use super::output::Turn;
use super::pool::{Blocks, Chunks, Slab};
use super::receive::{Assembly, Receiver};
use super::recovery::Sent;
use super::secret::Secret;
use super::segment::{Segment, Unusable};
use super::send::Sender;
use super::sequence::Sequence;
use super::statistics::{Holdings, Statistics};
use super::table::{Place, Table};
use super::time_wait::{Ring, Waiting};
use super::too_big::TooBig;
use super::turns::{Pool, Turns};
use super::wheel::Wheel;
use crate::limits::BATCH_FRAMES;
use crate::time::{NS_PER_MS, NS_PER_S, Now};

/// A flow that we closed may be opened anew by us after this long, though late segments are still waited for: by
/// then its timestamps and its sequence numbers have gone on (RFC 6191).
const REOPEN_NS: u64 = NS_PER_S;

/// What is secret about a stack; random, and never the same twice.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// Keys the table of flows.
    pub table: u64,
    /// Keys sequence numbers and cookies.
    pub sequence: [u64; 2],
}

/// Why a flow cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Every flow of `Config::flows` is open.
    #[error("every flow is open: raise `flows`, or close some")]
    Full,
    /// There is a flow between these ends already, or one was closed just now.
    #[error("there is a flow between these ends: choose another local port")]
    InUse,
    /// The link header is no Ethernet header of 14, 18 or 22 bytes with the ethertype of the addresses, or the
    /// addresses are of two families.
    #[error("the link header does not fit the addresses")]
    Link,
}

/// Longest time that timers wait for frames to be taken.
const HOLD_NS_MAX: u64 = 100 * NS_PER_MS;

/// A whole TCP.
pub struct Stack {
    pub(super) config: Config,
    pub(super) secret: Secret,
    pub(super) table: Table,
    pub(super) flows: Slab<Flow>,
    pub(super) half_open: Slab<HalfOpen>,
    pub(super) waiting: Ring,
    pub(super) wheel: Wheel,
    pools: Pools,
    turns: Turns,
    /// Resets to those who belong to no flow.
    pub(super) resets: Allowance,
    pub(super) statistics: Statistics,
    pub(super) cookies_until_ns: u64,
    /// Since when frames wait that were not taken yet.
    frames_wait_since_ns: Option<u64>,
}

impl Stack {
    /// Makes a stack; the last time it allocates.
    ///
    /// # Errors
    /// When a bound of the configuration does not hold.
    pub fn new(config: Config, seeds: Seeds) -> Result<Self, ConfigError> {
        config.validate()?;
        let records = config.flows + config.half_open + config.waiting;
        Ok(Self {
            secret: Secret::new(seeds.sequence),
            table: Table::new(records, seeds.table),
            flows: Slab::new(config.flows, Flow::unused(&config)),
            half_open: Slab::new(config.half_open, HalfOpen::unused()),
            waiting: Ring::new(config.waiting, config.time_wait_ns),
            wheel: Wheel::new(config.flows + config.half_open),
            pools: Pools {
                blocks: Blocks::new(config.blocks, &Assembly::EMPTY),
                chunks: Chunks::new(config.chunks, config.chunk_bytes),
                records: Slab::new(config.segments, Sent::EMPTY),
            },
            turns: Turns::new(config.flows),
            resets: Allowance::new(config.resets_per_s),
            statistics: Statistics::default(),
            cookies_until_ns: 0,
            frames_wait_since_ns: None,
            config,
        })
    }

    /// Takes one frame. What has to be sent for it is sent by the next [`Stack::poll`], so that one acknowledgement
    /// answers a batch; only what belongs to no flow is answered at once.
    pub fn receive<H: Handler, O: Output>(&mut self, now: Now, frame: &[u8], handler: &mut H, out: &mut O) {
        let Some(segment) = self.parse(frame) else { return };
        let hash = self.table.hash(&segment.ends);
        self.take(now, &segment, hash, handler, out);
    }

    /// Takes frames that came together, as [`Stack::receive`] takes each. What their flows keep is asked for ahead,
    /// for all of a batch at once: ten thousand flows do not fit a core's cache, and waits that overlap cost little.
    pub fn receive_batch<H: Handler, O: Output>(
        &mut self,
        now: Now,
        frames: &[&[u8]],
        handler: &mut H,
        out: &mut O,
    ) {
        for frames in frames.chunks(BATCH_FRAMES) {
            let mut segments: ArrayVec<(Segment<'_>, u32), BATCH_FRAMES> = ArrayVec::new();
            for frame in frames {
                if let Some(segment) = self.parse(frame) {
                    let hash = self.table.hash(&segment.ends);
                    segments.push((segment, hash));
                }
            }
            // None of these reads depends on another, so that the processor waits for all of them together.
            let mut touched = 0;
            for (_, hash) in &segments {
                touched ^= self.table.touch(*hash);
            }
            std::hint::black_box(touched);
            let mut foreseen: ArrayVec<Foreseen, BATCH_FRAMES> = ArrayVec::new();
            for (segment, hash) in &segments {
                if let Some(Place::Flow(number)) = self.find(*hash, &segment.ends) {
                    let flow = self.flows.get(number);
                    touched ^= flow.touch();
                    if !segment.payload.is_empty() && segment.sequence == flow.receiver.next {
                        foreseen.extend(handler.foresee(self.id(number), segment.payload));
                    }
                }
            }
            std::hint::black_box(touched);
            for foreseen in foreseen {
                handler.anticipate(foreseen);
            }
            for (segment, hash) in &segments {
                self.take(now, segment, *hash, handler, out);
            }
        }
    }

    fn take<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        hash: u32,
        handler: &mut H,
        out: &mut O,
    ) {
        match self.find(hash, &segment.ends) {
            Some(Place::Flow(number)) => self.take_flow_segment(now, segment, number, handler, out),
            Some(Place::HalfOpen(number)) => self.take_half_open(now, segment, number, handler, out),
            Some(Place::Waiting(number)) => self.take_waiting(now, segment, number, handler, out),
            None => self.take_stray(now, segment, hash, handler, out),
        }
    }

    /// Says whether more frames lie there than were given. What timers wait for may be among them: until they have been
    /// taken a silence is our own, and nobody is told anything again; for a tenth of a second at most, for there may be no
    /// end of frames.
    pub fn frames_wait(&mut self, now: Now, wait: bool) {
        self.frames_wait_since_ns =
            if wait { self.frames_wait_since_ns.or(Some(now.monotonic_ns)) } else { None };
    }

    /// Does what time asks for and sends what is to be sent: once after each batch of frames, and when
    /// [`Stack::next_due_ns`] has come.
    pub fn poll<H: Handler, O: Output>(&mut self, now: Now, handler: &mut H, out: &mut O) {
        let now_ns = now.monotonic_ns;
        while self.waiting.oldest_is_over(now_ns) {
            self.forget_oldest_waiting();
        }
        let hold = self.frames_wait_since_ns.is_some_and(|since_ns| now_ns < since_ns + HOLD_NS_MAX);
        while !hold && let Some(timer) = self.wheel.expire(now_ns) {
            match timer.checked_sub(self.flows.count() as u32) {
                Some(number) => self.half_open_is_due(number, now_ns, out),
                None => {
                    self.with_flow(now_ns, timer, |flow, env, _| {
                        flow.scheduled_ns = u64::MAX;
                        flow.fire(env, out);
                    });
                    self.enqueue(timer);
                }
            }
        }
        self.ask_waiting(Pool::Chunks);
        self.ask_waiting(Pool::Records);
        for _ in 0..self.turns.count() {
            let Some(number) = self.turns.pop() else { break };
            let flow = self.flows.get_mut(number);
            flow.queued = false;
            if !flow.live {
                continue;
            }
            let (turn, wants_chunks) = self.with_flow(now_ns, number, |flow, env, id| {
                flow.wake_handler(env, id, handler);
                (flow.transmit(env, out), flow.wants_chunks(env))
            });
            match turn {
                Turn::Done => {}
                Turn::Again => self.enqueue(number),
                Turn::Waits(pool) => self.wait_for(number, pool),
            }
            if wants_chunks {
                self.wait_for(number, Pool::Chunks);
            }
            self.settle(now_ns, number, handler);
        }
    }

    /// When [`Stack::poll`] is wanted next though no frame comes, in nanoseconds of the monotonic clock: 0 is at
    /// once, `None` is never. It may be a little early, not late.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        if self.turns.is_due(self.pools.chunks.supply(), self.pools.records.supply()) {
            return Some(0);
        }
        match (self.wheel.next_ns(), self.waiting.next_ns()) {
            (Some(timer_ns), Some(waiting_ns)) => Some(timer_ns.min(waiting_ns)),
            (timer_ns, waiting_ns) => timer_ns.or(waiting_ns),
        }
    }

    /// Opens a flow to a peer that frames with this Ethernet header (and VLAN tags) reach. The handler is told with
    /// [`Handler::opened`], or with [`Handler::closed`] when the peer refuses or does not answer.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        &mut self,
        now: Now,
        link: &[u8],
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Result<FlowId, ConnectError> {
        let ends = Ends::new(local, peer);
        let v4 = ends.is_v4();
        let link = Link::new(link, v4).filter(|_| local.is_ipv4() == peer.is_ipv4());
        let link = link.ok_or(ConnectError::Link)?;
        let now_ns = now.monotonic_ns;
        let hash = self.table.hash(&ends);
        match self.find(hash, &ends) {
            Some(Place::Waiting(number)) if now_ns >= self.waiting.get(number).since_ns + REOPEN_NS => {
                self.forget_waiting(number);
            }
            Some(_) => return Err(ConnectError::InUse),
            None => {}
        }
        let number = self.flows.take().ok_or(ConnectError::Full)?;
        let ours = self.secret.initial_sequence(&ends, now_ns);
        let sender = Sender::new(&self.config, ours.plus(1), u32::from(self.config.segment_bytes(v4)));
        let receiver = Receiver::new(Sequence(0), self.config.window_shift());
        let stamps = self
            .config
            .timestamps
            .then(|| Stamps::new(self.secret.timestamp_offset(&ends), 0, now_ns, Sequence(0)));
        self.begin(number, hash, |flow| {
            flow.begin(ends, hash, link, sender, receiver, now_ns);
            (flow.opening, flow.owed, flow.stamps) = (true, Owed::Now, stamps);
        });
        self.statistics.connected += 1;
        self.enqueue(number);
        Ok(self.id(number))
    }

    /// The sending side of a flow, to send, close or abort; `None` when the flow is over. What it is told is done at
    /// the next poll.
    pub fn io(&mut self, flow: FlowId) -> Option<Io<'_>> {
        if !self.is_open(flow) {
            return None;
        }
        self.enqueue(flow.number);
        let record = self.flows.get_mut(flow.number);
        Some(Io {
            sender: &mut record.sender,
            chunks: &mut self.pools.chunks,
            peer_finished: record.receiver.finished,
            send_bytes_max: self.config.send_bytes_max as u32,
            abort: &mut record.abort,
        })
    }

    /// Appends bytes to what is to be sent; returns how many were taken. 0 when the flow is over.
    pub fn send(&mut self, flow: FlowId, bytes: &[u8]) -> usize {
        self.io(flow).map_or(0, |mut io| io.send(bytes))
    }

    /// Closes every open flow, as [`Io::close`] does: what was taken is sent still, then FIN, from the next poll on.
    /// Walks through all records: for a stack that is to end.
    pub fn close_all(&mut self) {
        for number in 0..self.flows.count() as u32 {
            if self.flows.get(number).live
                && let Some(mut io) = self.io(self.id(number))
            {
                io.close();
            }
        }
    }

    /// Shows the handler what it has not taken of a flow, as if something had arrived.
    pub fn resume<H: Handler>(&mut self, now: Now, flow: FlowId, handler: &mut H) {
        if self.is_open(flow) {
            self.with_flow(now.monotonic_ns, flow.number, |flow, env, id| {
                flow.receiver.need(0);
                flow.show(env, id, handler);
            });
            self.enqueue(flow.number);
        }
    }

    /// A router says that a packet of ours was too large (ICMP "fragmentation needed", RFC 1191; ICMPv6 "packet too
    /// big", RFC 8201). Who does not know what is under way is not believed
    /// (RFC 5927 section 4.1). Returns true when that was news.
    pub fn packet_too_big(&mut self, now: Now, message: &TooBig) -> bool {
        let TooBig { ends, sequence, mtu_bytes } = *message;
        let Some(Place::Flow(number)) = self.find(self.table.hash(&ends), &ends) else { return false };
        let news = self.with_flow(now.monotonic_ns, number, |flow, env, _| {
            let sender = &flow.sender;
            let under_way = sequence.since(sender.una) < sender.nxt.since(sender.una);
            under_way && flow.shrink_path(env, mtu_bytes)
        });
        if news {
            self.statistics.path_shrunk += 1;
            self.enqueue(number);
        }
        news
    }

    /// What it counted.
    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// What it holds now.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let blocks: usize = self.config.blocks.iter().map(|class| class.count).sum();
        let blocks_free: usize = self.pools.blocks.available().iter().sum();
        Holdings {
            flows: self.flows.count() - self.flows.available(),
            half_open: self.half_open.count() - self.half_open.available(),
            waiting: self.waiting.live(),
            chunks: self.pools.chunks.count() - self.pools.chunks.available(),
            segments: self.pools.records.count() - self.pools.records.available(),
            blocks: blocks - blocks_free,
        }
    }

    /// Panics unless everything it keeps count of agrees with what is there: for tests and fuzzing, for it walks
    /// through all flows.
    pub fn check(&self) {
        let holdings = self.holdings();
        assert_eq!(self.table.used(), holdings.flows + holdings.half_open + holdings.waiting);
        let (mut flows, mut chunks, mut segments) = (0, 0, 0);
        for number in 0..self.flows.count() as u32 {
            let flow = self.flows.get(number);
            if flow.live {
                flows += 1;
                flow.sender.check(&self.pools.records);
                chunks += flow.sender.chain.count(&self.pools.chunks);
                segments += flow.sender.board.count() as usize;
            }
        }
        assert_eq!((flows, chunks, segments), (holdings.flows, holdings.chunks, holdings.segments));
    }

    /// A segment out of a frame; what is none is counted.
    fn parse<'a>(&mut self, frame: &'a [u8]) -> Option<Segment<'a>> {
        self.statistics.frames_in += 1;
        match Segment::parse(frame, self.config.checksums) {
            Ok(segment) => Some(segment),
            Err(reason) => {
                *match reason {
                    Unusable::Malformed => &mut self.statistics.malformed,
                    Unusable::Ipv4Checksum => &mut self.statistics.ipv4_checksum,
                    Unusable::TcpChecksum => &mut self.statistics.tcp_checksum,
                } += 1;
                None
            }
        }
    }

    fn is_open(&self, flow: FlowId) -> bool {
        let record = self.flows.get(flow.number);
        record.live && record.generation == flow.generation
    }

    fn id(&self, number: u32) -> FlowId {
        FlowId { number, generation: self.flows.get(number).generation }
    }

    fn find(&self, hash: u32, ends: &Ends) -> Option<Place> {
        self.table.find(hash, |place| match place {
            Place::Flow(number) => self.flows.get(number).ends == *ends,
            Place::HalfOpen(number) => self.half_open.get(number).ends == *ends,
            Place::Waiting(number) => self.waiting.get(number).ends == *ends,
        })
    }

    pub(super) fn half_open_timer(&self, number: u32) -> u32 {
        self.flows.count() as u32 + number
    }

    /// Lends a flow together with what it works with.
    #[inline]
    pub(super) fn with_flow<R>(
        &mut self,
        now_ns: u64,
        number: u32,
        work: impl FnOnce(&mut Flow, &mut Env<'_>, FlowId) -> R,
    ) -> R {
        let flow = self.flows.get_mut(number);
        let id = FlowId { number, generation: flow.generation };
        let mut env =
            Env { now_ns, config: &self.config, pools: &mut self.pools, statistics: &mut self.statistics };
        work(flow, &mut env, id)
    }

    /// A flow begins in a record that was taken.
    pub(super) fn begin(&mut self, number: u32, hash: u32, begin: impl FnOnce(&mut Flow)) {
        let flow = self.flows.get_mut(number);
        begin(flow);
        flow.live = true;
        self.table.insert(hash, Place::Flow(number));
    }

    #[inline]
    fn enqueue(&mut self, number: u32) {
        let flow = self.flows.get_mut(number);
        if !std::mem::replace(&mut flow.queued, true) {
            self.turns.push(number);
        }
    }

    /// A flow goes on when a pool has something again.
    fn wait_for(&mut self, number: u32, pool: Pool) {
        let flow = self.flows.get_mut(number);
        if !std::mem::replace(&mut flow.waits[pool as usize], true) {
            self.turns.wait(number, pool);
        }
    }

    /// Gives those who wait for a pool their turn, as far as it has something again.
    #[inline]
    fn ask_waiting(&mut self, pool: Pool) {
        let supply = match pool {
            Pool::Chunks => self.pools.chunks.supply(),
            Pool::Records => self.pools.records.supply(),
        };
        for _ in 0..self.turns.take_waiting(pool, supply) {
            let Some(number) = self.turns.next_waiting(pool) else { break };
            self.flows.get_mut(number).waits[pool as usize] = false;
            self.enqueue(number);
        }
    }

    /// A segment of an open flow.
    #[inline]
    pub(super) fn take_flow_segment<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        number: u32,
        handler: &mut H,
        out: &mut O,
    ) {
        let answer =
            self.with_flow(now.monotonic_ns, number, |flow, env, id| flow.receive(env, id, segment, handler));
        if answer == Answer::Reset {
            self.refuse(now, segment, out);
        }
        self.enqueue(number);
        if self.flows.get(number).over.is_some() {
            self.settle(now.monotonic_ns, number, handler);
        }
    }

    /// After a flow did something: it is taken away when it is over, or its timer is set.
    fn settle<H: Handler>(&mut self, now_ns: u64, number: u32, handler: &mut H) {
        let flow = self.flows.get_mut(number);
        let Some(reason) = flow.over else {
            let due_ns = flow.due_ns(&self.config);
            // A timer that is due too early finds nothing to do and is set again: cheaper than moving it each time.
            if due_ns < flow.scheduled_ns {
                flow.scheduled_ns = due_ns;
                self.wheel.set(number, now_ns, due_ns);
            }
            return;
        };
        let id = self.id(number);
        let flow = self.flows.get_mut(number);
        flow.release(&mut self.pools);
        flow.live = false;
        flow.generation = flow.generation.wrapping_add(1);
        self.table.remove(flow.hash, Place::Flow(number));
        if reason == Closed::Finished && flow.closed_first {
            let stamp = flow.stamps.as_ref().map(|stamps| stamps.recent);
            let waiting =
                Waiting::new(flow.ends, flow.hash, flow.sender.nxt, flow.receiver.next, stamp, now_ns);
            self.wait(waiting);
        }
        self.wheel.cancel(number);
        self.flows.give(number);
        self.statistics.closed[reason.index()] += 1;
        handler.closed(id, reason);
    }

    fn wait(&mut self, waiting: Waiting) {
        while self.waiting.is_full() {
            self.statistics.waiting_evicted += u64::from(self.forget_oldest_waiting());
        }
        let hash = waiting.hash;
        let number = self.waiting.push(waiting);
        self.table.insert(hash, Place::Waiting(number));
    }

    fn forget_oldest_waiting(&mut self) -> bool {
        let Some((number, waiting)) = self.waiting.pop() else { return false };
        self.table.remove(waiting.hash, Place::Waiting(number));
        true
    }

    pub(super) fn forget_waiting(&mut self, number: u32) {
        self.table.remove(self.waiting.get(number).hash, Place::Waiting(number));
        self.waiting.forget(number);
    }
}
