//! What a segment does to the flow it belongs to: RFC 9293 section 3.10.7, hardened as RFC 5961 asks.

use super::config::{Config, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use super::ends::Link;
use super::flow::{Env, Flow, Owed, Pools};
use super::handler::{Closed, FlowId, Handler, Io};
use super::options::{Options, TIMESTAMPS_BYTES};
use super::receive::Receiver;
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::send::Told;
use super::sequence::Sequence;

/// What the sender of a segment is to be answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing, or what the flow sends itself.
    None,
    /// A reset: it speaks of a flow that never was.
    Reset,
}

/// Bytes of data in a full segment to a peer with these options.
pub(super) fn segment_bytes(config: &Config, v4: bool, peer: Option<u16>, timestamps: bool) -> u32 {
    let peer = peer.unwrap_or(SEGMENT_BYTES_DEFAULT[usize::from(!v4)]).max(SEGMENT_BYTES_MIN);
    let bytes = u32::from(config.segment_bytes(v4).min(peer));
    // The option a peer names does not count options (RFC 6691).
    if timestamps { bytes - TIMESTAMPS_BYTES as u32 } else { bytes }
}

impl Flow {
    /// Takes a segment of this flow.
    pub(super) fn receive<H: Handler>(
        &mut self,
        env: &mut Env<'_>,
        id: FlowId,
        segment: &Segment<'_>,
        handler: &mut H,
    ) -> Answer {
        if self.abort || self.over.is_some() {
            return Answer::None;
        }
        if self.opening {
            return self.receive_opening(env, id, segment, handler);
        }
        if !self.is_acceptable(env, segment) {
            return Answer::None;
        }
        self.heard_ns = env.now_ns;
        self.keepalives = 0;
        if let (Some(stamps), Some(timestamps)) = (&mut self.stamps, segment.options.timestamps) {
            stamps.take(timestamps.value, segment.sequence, env.now_ns);
        }
        let link = Link::answering(segment.link);
        if link != self.link {
            self.link = link;
        }
        self.take_acknowledgement(env, segment);
        if !segment.payload.is_empty() || segment.has(FIN) {
            self.take_data(env, id, segment, handler);
        }
        Answer::None
    }

    /// The first four checks of RFC 9293 section 3.10.7.4, with PAWS before them.
    fn is_acceptable(&mut self, env: &mut Env<'_>, segment: &Segment<'_>) -> bool {
        if let Some(stamps) = &self.stamps
            && !segment.has(RST)
        {
            match segment.options.timestamps {
                Some(timestamps) if stamps.is_old(timestamps.value, env.now_ns) => {
                    env.statistics.old_timestamp += 1;
                    self.challenge(env, segment);
                    return false;
                }
                Some(_) => {}
                // Once agreed on, they are in every segment but a reset (RFC 7323 section 3.2).
                None => {
                    env.statistics.old_timestamp += 1;
                    return false;
                }
            }
        }
        if !self.receiver.accepts(segment.sequence, segment.length()) && !self.fits_shut_window(segment) {
            env.statistics.out_of_window += 1;
            if !segment.has(RST) {
                self.challenge(env, segment);
            }
            return false;
        }
        if segment.has(RST) {
            // RFC 5961 section 3.2: a reset that is exact is believed, one that only might be is asked about.
            if segment.sequence == self.receiver.next {
                self.over = Some(Closed::Reset);
            } else if self.may_challenge(env) {
                self.owed = Owed::Now;
            }
            return false;
        }
        if segment.has(SYN) {
            // RFC 5961 section 4.2.
            if self.may_challenge(env) {
                self.owed = Owed::Now;
            }
            return false;
        }
        if !segment.has(ACK) {
            return false;
        }
        // RFC 5961 section 5.2.
        let acknowledgement = segment.acknowledgement;
        let too_old = acknowledgement.before(self.sender.una)
            && self.sender.una.since(acknowledgement) > self.sender.window_max;
        if acknowledgement.after(self.sender.nxt) || too_old {
            env.statistics.bad_acknowledgement += 1;
            if self.may_challenge(env) {
                self.owed = Owed::Now;
            }
            return false;
        }
        true
    }

    /// While our window is shut, what the peer acknowledges counts still (RFC 9293 section 3.10.7.4): data that
    /// starts where it should is cut off later.
    fn fits_shut_window(&self, segment: &Segment<'_>) -> bool {
        self.receiver.window() == 0 && segment.sequence == self.receiver.next
    }

    /// Answers what is not acceptable with where we stand. Data that came before is answered always, for our
    /// acknowledgement of it may be lost; anything else not too often (RFC 5961 section 7).
    fn challenge(&mut self, env: &mut Env<'_>, segment: &Segment<'_>) {
        let end = segment.sequence.plus(segment.length());
        let came_before = segment.sequence.before(self.receiver.next) && !end.after(self.receiver.next);
        if came_before && segment.length() > 0 && !segment.has(SYN) {
            if !segment.payload.is_empty() {
                self.receiver.fresh(segment.sequence, segment.payload);
            }
            self.owed = Owed::Now;
        } else if self.may_challenge(env) {
            self.owed = Owed::Now;
        }
    }

    fn take_acknowledgement(&mut self, env: &mut Env<'_>, segment: &Segment<'_>) {
        let acknowledgement = segment.acknowledgement;
        let window = u32::from(segment.window) << self.sender.shift;
        if !acknowledgement.before(self.sender.una) {
            let bare = segment.length() == 0 && window == self.sender.window;
            let Pools { records, chunks, .. } = &mut *env.pools;
            let echo = segment.options.timestamps.map(|timestamps| timestamps.echo);
            let echo_ms = self.stamps.as_ref().zip(echo).map(|(stamps, echo)| stamps.sent_ms(echo));
            let told = Told { acknowledgement, options: &segment.options, bare, echo_ms };
            let result = self.sender.acknowledge(env.config, records, chunks, env.now_ns, &told);
            if result.bytes > 0 {
                self.data_ns = env.now_ns;
            }
        }
        self.sender.take_window(segment.sequence, acknowledgement, window);
    }

    fn take_data<H: Handler>(
        &mut self,
        env: &mut Env<'_>,
        id: FlowId,
        segment: &Segment<'_>,
        handler: &mut H,
    ) {
        let fresh = self.receiver.fresh(segment.sequence, segment.payload);
        if fresh.bytes.is_empty() {
            if !segment.payload.is_empty() {
                self.owed = Owed::Now;
            }
        } else {
            let next = self.receiver.next;
            if fresh.sequence == next && self.receiver.is_empty() && self.receiver.wants(fresh.bytes.len()) {
                self.hand_on(env, id, fresh.bytes, handler);
            } else if self.receiver.store(&mut env.pools.blocks, fresh.sequence, fresh.bytes).is_none() {
                env.statistics.no_block += 1;
                self.owed = Owed::Now;
            }
            let advanced = self.receiver.next.since(next);
            self.owe(env, advanced, fresh.sequence != next);
        }
        let mut finished = self.receiver.finish_if_complete();
        if segment.has(FIN) {
            finished |= self.receiver.finish(segment.sequence.plus(segment.payload.len() as u32));
            self.owed = Owed::Now;
        }
        self.show(env, id, handler);
        if finished && !self.abort {
            self.owed = Owed::Now;
            handler.finished(id, &mut self.io(env));
        }
    }

    /// Hands bytes on where they lie, and keeps what is not taken.
    fn hand_on<H: Handler>(&mut self, env: &mut Env<'_>, id: FlowId, bytes: &[u8], handler: &mut H) {
        let Pools { blocks, chunks, .. } = &mut *env.pools;
        let mut io = Io {
            sender: &mut self.sender,
            chunks,
            peer_finished: self.receiver.finished,
            send_bytes_max: env.config.send_bytes_max as u32,
            abort: &mut self.abort,
        };
        let taken = handler.data(id, bytes, &mut io);
        let consumed = taken.consumed.min(bytes.len());
        env.statistics.bytes_in += consumed as u64;
        if consumed > 0 {
            self.request_since_ns = 0;
        }
        self.receiver.need(u32::try_from(taken.needed).unwrap_or(u32::MAX));
        let left = bytes.len() - consumed;
        if self.receiver.passed(blocks, bytes, left) < left {
            env.statistics.no_block += 1;
            self.owed = Owed::Now;
        }
    }

    /// Data arrived: when is it to be acknowledged (RFC 5681 section 4.2)?
    fn owe(&mut self, env: &Env<'_>, advanced: u32, out_of_turn: bool) {
        if advanced > 0 {
            self.data_ns = env.now_ns;
        }
        self.unacknowledged = self.unacknowledged.saturating_add(advanced);
        let segment = u32::from(env.config.segment_bytes(self.ends.is_v4()));
        if out_of_turn && !self.sender.sack && self.owed == Owed::Now {
            self.repeats = self.repeats.saturating_add(1);
        }
        if out_of_turn || self.receiver.has_gap(&env.pools.blocks) || self.unacknowledged > segment {
            self.owed = Owed::Now;
        } else if self.owed == Owed::Nothing {
            self.owed = Owed::By(env.now_ns + env.config.ack_delay_ns);
        }
    }

    /// SYN-SENT (RFC 9293 section 3.10.7.3). A SYN without an acknowledgement, as when both open at once, is passed
    /// over: the attempt times out unless the peer answers ours.
    fn receive_opening<H: Handler>(
        &mut self,
        env: &mut Env<'_>,
        id: FlowId,
        segment: &Segment<'_>,
        handler: &mut H,
    ) -> Answer {
        if segment.has(ACK) && segment.acknowledgement != self.sender.nxt {
            return if segment.has(RST) { Answer::None } else { Answer::Reset };
        }
        if !segment.has(ACK) {
            return Answer::None;
        }
        if segment.has(RST) {
            self.over = Some(Closed::Reset);
            return Answer::None;
        }
        if !segment.has(SYN) {
            return Answer::None;
        }
        self.opening = false;
        let next = segment.sequence.plus(1);
        self.receiver = Receiver::new(next, self.receiver.shift);
        self.agree(env, &segment.options, next);
        let window = u32::from(segment.window);
        self.sender.open_window(segment.sequence, segment.acknowledgement, window);
        if self.sender.timeouts == 0 {
            let trip_ns = env.now_ns.saturating_sub(self.sender.sent_ns);
            self.sender.trip.sample(env.now_ns, trip_ns, env.config.timeout_min_ns);
        }
        // What the SYN waited says nothing of the path (RFC 6298 section 5.7).
        self.sender.timeouts = 0;
        self.sender.trip.answered();
        self.open(env, id, handler);
        self.owed = Owed::Now;
        if !segment.payload.is_empty() || segment.has(FIN) {
            // Whoever sends data with a SYN finds it behind the SYN's own number (RFC 9293 section 3.4).
            let behind = Segment { sequence: next, ..*segment };
            self.take_data(env, id, &behind, handler);
        }
        Answer::None
    }

    /// What both ends' SYNs agreed on. Windows in a SYN are never scaled.
    pub(super) fn agree(&mut self, env: &Env<'_>, options: &Options, next: Sequence) {
        let v4 = self.ends.is_v4();
        match options.window_shift {
            Some(shift) => self.sender.shift = shift,
            None => (self.sender.shift, self.receiver.shift) = (0, 0),
        }
        self.sender.sack = options.sack_permitted && env.config.selective;
        self.stamps = self.stamps.take().and_then(|mut stamps| {
            let recent = options.timestamps?.value;
            stamps.begin(recent, env.now_ns, next);
            Some(stamps)
        });
        let segment = segment_bytes(env.config, v4, options.segment_bytes, self.stamps.is_some());
        self.sender.set_first_segment(env.config, segment);
    }

    /// The handshake is over.
    pub(super) fn open<H: Handler>(&mut self, env: &mut Env<'_>, id: FlowId, handler: &mut H) {
        (self.heard_ns, self.data_ns) = (env.now_ns, env.now_ns);
        let promise = self.promise(env.config);
        self.receiver.promise(&env.pools.blocks, &promise);
        let (local, peer) = (self.ends.local(), self.ends.peer());
        handler.opened(id, local, peer, &mut self.io(env));
    }
}
