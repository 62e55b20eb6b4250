//! What a flow sends: lost segments first, then new ones as far as both windows reach, then what is owed. And what
//! its timers make it do.

use super::config::{MTU_BYTES_MIN, segment_bytes as segment_bytes_of};
use super::flow::{Env, Flow, Owed};
use super::handler::{Closed, Output};
use super::options::{BLOCKS_MAX, Block, OptionsOut, TIMESTAMPS_BYTES, Timestamps};
use super::segment::{ACK, FIN, Header, PSH, RST, SYN, write};
use super::send::{Fin, Phase, Watch};
use super::sequence::Sequence;
use super::turns::Pool;

/// Segments of data one flow sends before others have their turn: no long reply keeps short ones waiting.
const SEGMENTS_PER_TURN: usize = 32;

/// What a segment to be sent carries.
#[derive(Clone, Copy)]
struct Cargo {
    sequence: Sequence,
    bytes: u32,
    flags: u8,
    /// Report what came out of turn.
    report: bool,
}

/// What is left after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing that could be done now.
    Done,
    /// The output had no room, or others are to have their turn: come again.
    Again,
    /// It waits for what others hold.
    Waits(Pool),
}

impl Flow {
    /// Sends what may be sent now, and sets the timer for it.
    pub(super) fn transmit<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) -> Turn {
        if self.over.is_some() {
            return Turn::Done;
        }
        if self.abort {
            if !self.reset(env, out) {
                return Turn::Again;
            }
            self.over = Some(Closed::Aborted);
            return Turn::Done;
        }
        if self.opening {
            return self.transmit_syn(env, out);
        }
        let turn = self.transmit_data(env, out);
        self.sender.set_watch(env.now_ns);
        match turn {
            Turn::Done => {}
            Turn::Again => return turn,
            // What it waits for wakes it: there is nothing to ask the peer.
            Turn::Waits(_) => (self.sender.watch, self.sender.watch_ns) = (Watch::None, u64::MAX),
        }
        let promise = self.promise(env.config);
        if self.receiver.has_news(&env.pools.blocks, &promise) {
            self.owed = Owed::Now;
        }
        let repeats = std::mem::take(&mut self.repeats);
        if self.owed == Owed::Now {
            if !self.acknowledge(env, out) {
                return Turn::Again;
            }
            // As far as there is room: they are a service, not a duty.
            let _ = (0..repeats).all(|_| self.acknowledge(env, out));
        }
        if self.is_finished() {
            self.over = Some(Closed::Finished);
        }
        turn
    }

    fn transmit_data<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) -> Turn {
        if self.sender.has_nothing_to_send() {
            return Turn::Done;
        }
        // Reports of what came out of turn do not fit beside full segments: they go first, on their own.
        let reports = self.owed == Owed::Now
            && (self.receiver.has_gap(&env.pools.blocks) || self.receiver.has_duplicate());
        if reports && !self.acknowledge(env, out) {
            return Turn::Again;
        }
        self.sender.wake(env.now_ns);
        for _ in 0..SEGMENTS_PER_TURN {
            if self.sender.board.lost_bytes() > 0 {
                match self.transmit_lost(env, out) {
                    Some(Turn::Done) => continue,
                    Some(turn) => return turn,
                    None => return Turn::Done,
                }
            }
            let Some((bytes, fin)) = self.next_new(false) else { return Turn::Done };
            if self.sender.congestion_room() < bytes {
                self.sender.set_limited(true);
                return Turn::Done;
            }
            if env.pools.records.available() == 0 {
                env.statistics.no_segment += 1;
                // Whoever has segments under way comes again with what answers them, or with its timer.
                return if self.sender.board.is_empty() { Turn::Waits(Pool::Records) } else { Turn::Done };
            }
            if !self.transmit_new(env, out, bytes, fin) {
                return Turn::Again;
            }
        }
        Turn::Again
    }

    /// Sends the first lost segment again; `None` when the congestion window has no room for it.
    fn transmit_lost<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) -> Option<Turn> {
        let sender = &mut self.sender;
        let Some((record, sent)) = sender.board.next_lost(&mut env.pools.records, sender.segment) else {
            debug_assert!(false, "lost bytes belong to a segment");
            return None;
        };
        if sender.congestion_room() < sent.bytes().min(sender.segment) {
            sender.set_limited(true);
            return None;
        }
        Some(if self.resend(env, out, record, sent.start, sent.bytes()) { Turn::Done } else { Turn::Again })
    }

    /// Sends a segment that was sent before; false when the output has no room.
    fn resend<O: Output>(
        &mut self,
        env: &mut Env<'_>,
        out: &mut O,
        record: u32,
        start: Sequence,
        length: u32,
    ) -> bool {
        let fin = matches!(self.sender.fin, Fin::Sent) && start.plus(length) == self.sender.nxt;
        let bytes = length - u32::from(fin);
        let flags = ACK | if fin { FIN } else { PSH };
        if !self.segment_out(env, out, Cargo { sequence: start, bytes, flags, report: false }) {
            return false;
        }
        env.statistics.retransmissions += 1;
        self.sender.sent_again(&mut env.pools.records, record, env.now_ns, length);
        true
    }

    /// How much new data the next segment would carry, and whether a FIN; `None` when nothing may be sent.
    /// `overrides` says that the peer has been waited for long enough.
    fn next_new(&self, overrides: bool) -> Option<(u32, bool)> {
        let sender = &self.sender;
        let (unsent, room) = (sender.unsent(), sender.window_room());
        let bytes = unsent.min(sender.segment).min(room);
        let fin = sender.fin == Fin::Wanted && bytes == unsent && bytes < room;
        if bytes == 0 && !fin {
            return None;
        }
        // A sliver of a window is not worth a segment (RFC 9293 section 3.8.6.2.1), unless it is all there is to
        // send, or as much as the peer ever gives at once.
        let sliver = bytes < sender.segment && bytes < unsent && bytes < sender.window_max / 2;
        if sliver && !overrides { None } else { Some((bytes, fin)) }
    }

    fn transmit_new<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O, bytes: u32, fin: bool) -> bool {
        if env.pools.records.available() == 0 {
            return false;
        }
        let push = bytes > 0 && bytes == self.sender.unsent();
        let flags = ACK | if push { PSH } else { 0 } | if fin { FIN } else { 0 };
        let cargo = Cargo { sequence: self.sender.nxt, bytes, flags, report: false };
        if !self.segment_out(env, out, cargo) {
            return false;
        }
        if fin {
            self.closed_first = !self.receiver.finished;
            self.closing_ns = env.now_ns;
        }
        env.statistics.bytes_out += u64::from(bytes);
        self.data_ns = env.now_ns;
        self.sender.set_limited(false);
        self.sender.sent_new(&mut env.pools.records, env.now_ns, bytes, fin);
        true
    }

    /// Sends an acknowledgement on its own.
    fn acknowledge<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) -> bool {
        self.segment_out(env, out, Cargo { sequence: self.sender.nxt, bytes: 0, flags: ACK, report: true })
    }

    fn reset<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) -> bool {
        // Of a flow that is not open yet the peer knows nothing.
        let sent = self.opening
            || self.segment_out(
                env,
                out,
                Cargo { sequence: self.sender.nxt, bytes: 0, flags: RST | ACK, report: false },
            );
        if sent && !self.opening {
            env.statistics.resets_out += 1;
        }
        sent
    }

    /// Asks the peer to say where it stands, with a number it has acknowledged already.
    fn ask<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) -> bool {
        let sequence = self.sender.una.minus(1);
        self.segment_out(env, out, Cargo { sequence, bytes: 0, flags: ACK, report: false })
    }

    /// Writes one segment. Whatever it is, it acknowledges what has come.
    fn segment_out<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O, cargo: Cargo) -> bool {
        let promise = self.promise(env.config);
        let window = self.receiver.promise(&env.pools.blocks, &promise);
        let mut options = OptionsOut::default();
        if let Some(stamps) = &mut self.stamps {
            options = options.timestamps(stamps.option(env.now_ns));
        }
        let mut blocks = [Block::default(); BLOCKS_MAX];
        if cargo.report && self.sender.sack {
            let count = self.receiver.report(&env.pools.blocks, &mut blocks);
            options = options.sack(&blocks[..count]);
        }
        let header = Header {
            sequence: cargo.sequence,
            acknowledgement: self.receiver.next,
            flags: cargo.flags,
            window,
            options: &options,
        };
        let (link, ends, chunks) = (&self.link, &self.ends, &env.pools.chunks);
        let (chain, una) = (&mut self.sender.chain, self.sender.una);
        let sent = out.frame(|room| {
            write(room, link, ends, &header, cargo.bytes as usize, |payload| {
                if !payload.is_empty() {
                    chain.read(chunks, cargo.sequence.since(una), payload);
                }
            })
        });
        if !sent {
            env.statistics.no_output += 1;
            return false;
        }
        env.statistics.frames_out += 1;
        self.owed = Owed::Nothing;
        self.unacknowledged = 0;
        if let Some(stamps) = &mut self.stamps {
            stamps.acknowledged(self.receiver.next);
        }
        true
    }

    /// SYN-SENT: `owed` says that a SYN is due.
    fn transmit_syn<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) -> Turn {
        if self.owed != Owed::Now {
            return Turn::Done;
        }
        let v4 = self.ends.is_v4();
        let mut options = OptionsOut::default()
            .segment_bytes(env.config.segment_bytes(v4))
            .window_shift(self.receiver.shift);
        if env.config.selective {
            options = options.sack_permitted();
        }
        if let Some(stamps) = &self.stamps {
            options = options.timestamps(Timestamps { echo: 0, ..stamps.option(env.now_ns) });
        }
        let header = Header {
            sequence: self.sender.una.minus(1),
            acknowledgement: Sequence(0),
            flags: SYN,
            window: syn_window(env.config.window_bytes),
            options: &options,
        };
        let (link, ends) = (&self.link, &self.ends);
        if !out.frame(|room| write(room, link, ends, &header, 0, |_| ())) {
            env.statistics.no_output += 1;
            return Turn::Again;
        }
        env.statistics.frames_out += 1;
        self.owed = Owed::Nothing;
        self.sender.sent_ns = env.now_ns;
        (self.sender.watch, self.sender.watch_ns) =
            (Watch::Timeout, env.now_ns + self.sender.trip.timeout_ns());
        Turn::Done
    }

    /// Does what the timers that are due ask for; what that makes of the flow is sent by [`Flow::transmit`].
    pub(super) fn fire<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) {
        if !self.opening {
            // What arrived since it was set may have settled what it is for.
            self.sender.set_watch(env.now_ns);
        }
        let (at_ns, reason) = self.patience_ends_ns(env.config);
        if at_ns <= env.now_ns {
            match reason {
                Some(reason) => {
                    self.reset(env, out);
                    self.over = Some(reason);
                    return;
                }
                None => {
                    if self.ask(env, out) {
                        self.keepalives += 1;
                        env.statistics.keepalives += 1;
                    }
                }
            }
        }
        if matches!(self.owed, Owed::By(at_ns) if at_ns <= env.now_ns) {
            self.owed = Owed::Now;
        }
        if self.sender.watch_ns > env.now_ns {
            return;
        }
        match self.sender.watch {
            Watch::None => {}
            Watch::Timeout => self.time_out(env, out),
            Watch::Reordering => self.sender.reordering_over(&mut env.pools.records, env.now_ns),
            Watch::Probe => self.probe_tail(env, out),
            Watch::Window => self.probe_window(env, out),
        }
    }

    fn time_out<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) {
        env.statistics.timeouts += 1;
        if self.sender.timeouts >= env.config.timeouts_max {
            self.reset(env, out);
            self.over = Some(Closed::TimedOut);
        } else if self.opening {
            self.sender.timeouts += 1;
            self.sender.trip.back_off();
            self.owed = Owed::Now;
        } else {
            self.sender.timed_out(&mut env.pools.records, env.now_ns);
        }
    }

    /// RFC 8985 section 7.3: a new segment if there is one, else the last one again.
    fn probe_tail<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) {
        debug_assert_eq!(self.sender.phase, Phase::Open);
        if let Some((bytes, fin)) = self.next_new(false)
            && self.transmit_new(env, out, bytes, fin)
        {
            env.statistics.tail_probes += 1;
            self.sender.probed(env.now_ns, false);
            return;
        }
        let sender = &mut self.sender;
        if let Some((record, sent)) = sender.board.last(&mut env.pools.records, sender.segment)
            && self.resend(env, out, record, sent.start, sent.bytes())
        {
            env.statistics.tail_probes += 1;
            self.sender.probed(env.now_ns, true);
        }
    }

    /// RFC 9293 section 3.8.6.1: asks for the window while it is shut, and uses a sliver that stays one.
    fn probe_window<O: Output>(&mut self, env: &mut Env<'_>, out: &mut O) {
        match self.next_new(true) {
            Some((bytes, fin)) => {
                if !self.transmit_new(env, out, bytes, fin) {
                    self.sender.watch_ns = env.now_ns + self.sender.trip.timeout_ns();
                }
            }
            None => {
                if self.ask(env, out) {
                    env.statistics.window_probes += 1;
                }
                self.sender.window_probed(env.now_ns);
            }
        }
    }

    /// The path takes packets of at most `mtu_bytes` (RFC 1191, RFC 8201). Returns true when that was news.
    pub(super) fn shrink_path(&mut self, env: &mut Env<'_>, mtu_bytes: usize) -> bool {
        let v4 = self.ends.is_v4();
        // No link of IPv6 takes less than the minimum (RFC 8201 section 4), and none of IPv4 less than 68 bytes (RFC 791
        // section 3.1), but 0 is an old router's (RFC 1191 section 5): then we go down as far as we do at all.
        let possible = if v4 { mtu_bytes == 0 || mtu_bytes >= 68 } else { mtu_bytes >= MTU_BYTES_MIN[1] };
        if !possible {
            return false;
        }
        let mtu_bytes = mtu_bytes.max(MTU_BYTES_MIN[usize::from(!v4)]);
        let options = if self.stamps.is_some() { TIMESTAMPS_BYTES as u32 } else { 0 };
        let segment = u32::from(segment_bytes_of(mtu_bytes, v4)) - options;
        let news = segment < self.sender.segment;
        if news {
            self.sender.shrink_segment(&mut env.pools.records, segment);
        }
        news
    }
}

/// The window of a SYN, which is never scaled.
pub(super) fn syn_window(window_bytes: usize) -> u16 {
    u16::try_from(window_bytes).unwrap_or(u16::MAX)
}
