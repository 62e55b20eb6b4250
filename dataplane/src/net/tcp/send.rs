//! The sending side of a flow: what may go out, what an acknowledgement means, and which timer watches over it.

use super::chain::Chain;
use super::config::{Config, SLOW_BYTES};
use super::congestion::{Before, Congestion};
use super::options::{Block, Options};
use super::pool::Chunks;
use super::recovery::{DUPLICATES, Delivery, Judge, Records, Scoreboard};
use super::round_trip::RoundTrip;
use super::sequence::Sequence;
use crate::time::NS_PER_MS;

/// Our FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    /// More may be sent.
    None,
    /// It follows the last byte.
    Wanted,
    /// It is under way.
    Sent,
    /// The peer has it.
    Acknowledged,
}

/// How losses are being dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There are none.
    Open,
    /// Lost segments are sent again (RFC 6675 section 5).
    Recovery,
    /// A time-out: everything is sent again, slowly.
    Loss,
}

/// What the retransmission timer is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Nothing.
    None,
    /// A time-out (RFC 6298).
    Timeout,
    /// A tail-loss probe (RFC 8985 section 7).
    Probe,
    /// The end of the time that reordering is given (RFC 8985 section 6.3).
    Reordering,
    /// A window that is shut, or too small (RFC 9293 section 3.8.6.1).
    Window,
}

/// A tail-loss probe under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    end: Sequence,
    /// It repeated the last segment; otherwise it was a new one.
    repeats: bool,
}

/// What a needless probe weighs against acknowledgements that come in time, of which each weighs 1: a peer that answers
/// late more than once in so many times is slow; one of whom an acknowledgement in a hundred is lost is not.
const NEEDLESS_PROBE: u8 = 16;
/// The weight beyond which the peer is given more time: two probes with a few acknowledgements between them.
const NEEDLESS_PROBES_MAX: u8 = 24;

/// The sending side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// The first byte that is not acknowledged (SND.UNA), and the next to be sent (SND.NXT).
    pub(super) una: Sequence,
    pub(super) nxt: Sequence,
    /// The peer's window in bytes, the largest it ever was, and the segment that told it (SND.WND, SND.WL1, SND.WL2).
    pub(super) window: u32,
    pub(super) window_max: u32,
    window_sequence: Sequence,
    window_acknowledgement: Sequence,
    /// How far the peer's windows are shifted.
    pub(super) shift: u8,
    /// The peer understands selective acknowledgements.
    pub(super) sack: bool,
    pub(super) fin: Fin,
    pub(super) phase: Phase,
    pub(super) watch: Watch,
    /// `send` could not take everything.
    pub(super) wanting: bool,
    /// Bytes of data in a full segment.
    pub(super) segment: u32,
    pub(super) watch_ns: u64,
    pub(super) chain: Chain,
    pub(super) board: Scoreboard,
    pub(super) trip: RoundTrip,
    pub(super) congestion: Congestion,
    /// SND.NXT when the loss was found that is being recovered from, and when that was.
    recovery_end: Sequence,
    recovery_ns: u64,
    duplicates: u32,
    probe: Option<Probe>,
    /// When something last went forward: what the time-out counts from.
    base_ns: u64,
    /// When anything was last sent.
    pub(super) sent_ns: u64,
    /// When RACK wants to look again; 0 is never.
    reorder_ns: u64,
    /// Time-outs in a row.
    pub(super) timeouts: u8,
    /// Since when the peer has taken nothing of what there is to be sent; 0 while it does.
    pub(super) stalled_since_ns: u64,
    /// Since when it has not taken it up to `slow_until`; 0 while there is nothing to be sent.
    pub(super) slow_since_ns: u64,
    slow_until: Sequence,
    /// How long the peer keeps an acknowledgement back, and what speaks for its being longer than that.
    peer_delay_ns: u64,
    needless_probes: u8,
    /// The congestion window was what held us back.
    limited: bool,
    undo: Option<Undo>,
}

/// What a segment says about what we sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) acknowledgement: Sequence,
    pub(super) options: &'a Options,
    /// It says nothing else, so that it may be a duplicate (RFC 5681 section 2).
    pub(super) bare: bool,
    /// When what it answers was sent, in milliseconds of our clock.
    pub(super) echo_ms: Option<u32>,
}

/// How to take back a time-out that was none (RFC 4015).
#[derive(Clone, Copy, Debug)]
struct Undo {
    /// When it was, in milliseconds.
    at_ms: u32,
    congestion: Before,
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Bytes of data newly acknowledged.
    pub(super) bytes: u32,
    /// Segments found lost.
    pub(super) losses: bool,
}

/// What it took at most from here to the peer and back: no longer than since what the peer answers was sent. That tells
/// apart a long way and a segment whose first acknowledgements were lost, of which only a later one speaks.
fn longest_trip_ns(now_ns: u64, echo_ms: Option<u32>) -> u64 {
    let since_ms = |echo_ms: u32| ((now_ns / NS_PER_MS) as u32).wrapping_sub(echo_ms) as i32;
    match echo_ms.map(since_ms).and_then(|since_ms| u64::try_from(since_ms).ok()) {
        // Whole milliseconds: almost one more may have passed.
        Some(since_ms) => (since_ms + 1) * NS_PER_MS,
        None => u64::MAX,
    }
}

impl Sender {
    /// A sender whose first byte is `next`: the SYN before it is acknowledged.
    pub(super) fn new(config: &Config, next: Sequence, segment: u32) -> Self {
        Self {
            una: next,
            nxt: next,
            window: 0,
            window_max: 0,
            window_sequence: Sequence(0),
            window_acknowledgement: next,
            shift: 0,
            sack: false,
            fin: Fin::None,
            phase: Phase::Open,
            watch: Watch::None,
            wanting: false,
            segment,
            watch_ns: u64::MAX,
            chain: Chain::EMPTY,
            board: Scoreboard::new(next),
            trip: RoundTrip::new(config.timeout_initial_ns),
            congestion: Congestion::new(config.algorithm, segment),
            recovery_end: next,
            recovery_ns: 0,
            duplicates: 0,
            probe: None,
            base_ns: 0,
            sent_ns: 0,
            reorder_ns: 0,
            timeouts: 0,
            stalled_since_ns: 0,
            slow_since_ns: 0,
            slow_until: next,
            peer_delay_ns: config.peer_ack_delay_ns,
            needless_probes: 0,
            limited: false,
            undo: None,
        }
    }

    /// The first window, from a SYN or the segment that ended the handshake.
    pub(super) fn open_window(&mut self, sequence: Sequence, acknowledgement: Sequence, window: u32) {
        (self.window, self.window_max) = (window, window);
        (self.window_sequence, self.window_acknowledgement) = (sequence, acknowledgement);
    }

    /// Both SYNs are known: how much fits a segment.
    pub(super) fn set_first_segment(&mut self, config: &Config, segment: u32) {
        self.segment = segment;
        self.congestion = Congestion::new(config.algorithm, segment);
    }

    /// Data under way: sent and not acknowledged, without a FIN.
    const fn data_under_way(&self) -> u32 {
        self.nxt.since(self.una) - matches!(self.fin, Fin::Sent) as u32
    }

    /// Data not sent yet.
    #[inline]
    pub(super) const fn unsent(&self) -> u32 {
        self.chain.bytes() - self.data_under_way()
    }

    /// True when there is neither anything new nor anything lost to be sent.
    #[inline]
    pub(super) fn has_nothing_to_send(&self) -> bool {
        self.board.lost_bytes() == 0 && self.unsent() == 0 && self.fin != Fin::Wanted
    }

    /// What is on the wire as far as can be known (RFC 6675 `Pipe`).
    #[inline]
    pub(super) fn pipe(&self) -> u32 {
        let under_way = self.nxt.since(self.una) - self.board.off_the_wire();
        // Without selective acknowledgements each duplicate says that one segment has left the wire.
        let departed = if self.sack { 0 } else { self.duplicates.saturating_mul(self.segment) };
        under_way.saturating_sub(departed)
    }

    /// Bytes that may be sent under the congestion window.
    #[inline]
    pub(super) fn congestion_room(&self) -> u32 {
        self.congestion.window().saturating_sub(self.pipe())
    }

    /// Bytes of new data that the peer's window has room for.
    #[inline]
    pub(super) const fn window_room(&self) -> u32 {
        self.window.saturating_sub(self.nxt.since(self.una))
    }

    /// Takes an acknowledgement that lies between what was acknowledged and what was sent.
    pub(super) fn acknowledge(
        &mut self,
        config: &Config,
        records: &mut Records,
        chunks: &mut Chunks,
        now_ns: u64,
        told: &Told<'_>,
    ) -> Acknowledged {
        let Told { acknowledgement, options, bare, echo_ms } = *told;
        let pipe_before = self.pipe();
        let judge = Judge { now_ns, least_ns: self.trip.least_ns() };
        let mut delivery = Delivery::default();
        let advanced = acknowledgement.since(self.una);
        let mut result = Acknowledged::default();
        if advanced > 0 {
            let fin = self.fin == Fin::Sent && acknowledgement == self.nxt;
            result.bytes = advanced - u32::from(fin);
            if fin {
                self.fin = Fin::Acknowledged;
            }
            self.board.acknowledge(records, acknowledgement, &judge, &mut delivery);
            self.una = acknowledgement;
            self.chain.consume(chunks, result.bytes);
            (self.base_ns, self.timeouts, self.stalled_since_ns) = (now_ns, 0, 0);
            if !acknowledgement.before(self.slow_until) {
                self.slow_since_ns = 0;
            }
            self.trip.answered();
            self.judge_timeout(records, echo_ms);
        }
        let mut duplicate_report = None;
        if self.sack && !options.sack().is_empty() {
            duplicate_report = self.take_blocks(records, options.sack(), &judge, &mut delivery);
        }
        if let Some(sample_ns) = delivery.sample_ns {
            let sample_ns = sample_ns.min(longest_trip_ns(now_ns, echo_ms));
            self.trip.sample(now_ns, sample_ns, config.timeout_min_ns.max(2 * self.peer_delay_ns));
        }
        self.count_duplicates(advanced, bare);
        self.judge_probe(config, acknowledgement, duplicate_report, advanced, bare);

        let judge = Judge { now_ns, least_ns: self.trip.least_ns() };
        let losses_before = self.board.lost_bytes();
        if self.sack {
            self.detect(records, &judge);
        } else if self.duplicates >= DUPLICATES && self.phase == Phase::Open
            || self.phase == Phase::Recovery && advanced > 0 && acknowledgement.before(self.recovery_end)
        {
            // Three duplicates, or a partial acknowledgement (RFC 6582 section 3.2).
            self.board.first_is_lost(records, if advanced > 0 { now_ns } else { self.recovery_ns });
        }
        result.losses = self.board.lost_bytes() > losses_before;
        self.change_phase(now_ns, pipe_before, result.losses);

        match self.phase {
            Phase::Recovery => self.congestion.recovering(delivery.bytes, self.pipe()),
            Phase::Open | Phase::Loss if advanced > 0 => {
                let trip_ns = self.trip.smoothed_ns().unwrap_or(0);
                let limited = self.limited || self.phase == Phase::Loss;
                self.congestion.acknowledged(now_ns, advanced, limited, trip_ns);
            }
            _ => {}
        }
        result
    }

    /// Takes selective acknowledgements; returns the one that reports bytes that came twice (RFC 2883).
    fn take_blocks(
        &mut self,
        records: &mut Records,
        blocks: &[Block],
        judge: &Judge,
        delivery: &mut Delivery,
    ) -> Option<Block> {
        let first = blocks[0];
        let inside = |outer: Option<&Block>| {
            outer.is_some_and(|outer| !first.start.before(outer.start) && !first.end.after(outer.end))
        };
        let duplicate = (first.start.before(self.una) || inside(blocks.get(1)))
            && first.start.before(first.end)
            && self.una.since(first.start) < 1 << 30;
        if duplicate {
            self.board.was_needless();
        }
        for &block in &blocks[usize::from(duplicate)..] {
            // Blocks that contradict what we sent come from an attacker or a broken peer.
            if block.start.before(block.end) && !block.start.before(self.una) && !block.end.after(self.nxt) {
                self.board.sack(records, block, judge, delivery);
            }
        }
        duplicate.then_some(first)
    }

    fn count_duplicates(&mut self, advanced: u32, bare: bool) {
        if advanced > 0 {
            self.duplicates = 0;
        } else if bare && !self.board.is_empty() {
            self.duplicates = self.duplicates.saturating_add(1).min(self.board.count());
        }
    }

    /// The first acknowledgement after a time-out that answers something sent before it: nothing was lost, it only
    /// took long (RFC 3522). What was lost by assumption is under way again, and the window is what it was.
    fn judge_timeout(&mut self, records: &mut Records, echo_ms: Option<u32>) {
        let (Some(undo), Some(echo_ms)) = (self.undo.take(), echo_ms) else { return };
        if (echo_ms.wrapping_sub(undo.at_ms) as i32) < 0 && self.phase == Phase::Loss {
            self.board.nothing_is_lost(records);
            self.congestion.restore(undo.congestion);
            self.phase = Phase::Open;
        }
    }

    /// What becomes of a tail-loss probe (RFC 8985 section 7.4).
    fn judge_probe(
        &mut self,
        config: &Config,
        acknowledgement: Sequence,
        duplicate: Option<Block>,
        advanced: u32,
        bare: bool,
    ) {
        let Some(probe) = self.probe else {
            self.needless_probes = self.needless_probes.saturating_sub(u8::from(advanced > 0));
            return;
        };
        if acknowledgement.before(probe.end) {
            return;
        }
        if duplicate.is_some() {
            // Both came. Either the peer keeps its acknowledgements back for longer, as it does whenever it has nothing to
            // say, or one was lost, which is rare: only what happens again and again is a reason to give it more.
            self.probe = None;
            self.needless_probes = self.needless_probes.saturating_add(NEEDLESS_PROBE);
            if self.needless_probes > NEEDLESS_PROBES_MAX {
                self.needless_probes = 0;
                self.peer_delay_ns = (2 * self.peer_delay_ns).min(config.peer_ack_delay_max_ns);
                self.trip.widen(2 * self.peer_delay_ns);
            }
        } else if !probe.repeats || advanced == 0 && bare {
            // Either all went as it should, or the peer, who reports nothing twice, has both.
            self.probe = None;
        } else if acknowledgement.after(probe.end) {
            // The probe repaired a loss that nothing else showed: it counts as one.
            self.probe = None;
            self.peer_delay_ns = config.peer_ack_delay_ns;
            if self.phase == Phase::Open {
                self.congestion.lost(self.nxt.since(self.una).max(self.segment));
                self.congestion.recovered();
            }
        }
    }

    fn detect(&mut self, records: &mut Records, judge: &Judge) {
        let smoothed_ns = self.trip.smoothed_ns().unwrap_or(0);
        let recovering = self.phase != Phase::Open;
        self.reorder_ns = self.board.detect(records, judge, smoothed_ns, recovering).unwrap_or(0);
    }

    fn change_phase(&mut self, now_ns: u64, flight: u32, losses: bool) {
        let past_end = !self.una.before(self.recovery_end);
        if self.phase != Phase::Open && past_end {
            self.phase = Phase::Open;
            self.congestion.recovered();
            self.board.recovered();
        }
        if self.phase == Phase::Open && losses {
            self.phase = Phase::Recovery;
            (self.recovery_end, self.recovery_ns) = (self.nxt, now_ns);
            self.congestion.lost(flight);
        }
    }

    /// Takes the window a segment tells, unless an older segment tells it (RFC 9293 section 3.10.7.4). Returns true
    /// when it opened.
    pub(super) fn take_window(&mut self, sequence: Sequence, acknowledgement: Sequence, window: u32) -> bool {
        let newer = self.window_sequence.before(sequence)
            || self.window_sequence == sequence && !acknowledgement.before(self.window_acknowledgement);
        if !newer {
            return false;
        }
        (self.window_sequence, self.window_acknowledgement) = (sequence, acknowledgement);
        let opened = window > self.window;
        self.window = window;
        self.window_max = self.window_max.max(window);
        if opened && self.watch == Watch::Window {
            self.trip.answered();
        }
        opened
    }

    /// A segment of new data, or a FIN, went out.
    pub(super) fn sent_new(&mut self, records: &mut Records, now_ns: u64, bytes: u32, fin: bool) {
        let end = self.nxt.plus(bytes + u32::from(fin));
        if self.board.is_empty() {
            self.base_ns = now_ns;
        }
        let noted = self.board.push(records, self.nxt, end, now_ns);
        debug_assert!(noted, "a record was there before it was sent");
        self.nxt = end;
        if fin {
            self.fin = Fin::Sent;
        }
        self.congestion.sent(bytes);
        self.sent_ns = now_ns;
    }

    /// A segment went out once more.
    pub(super) fn sent_again(&mut self, records: &mut Records, record: u32, now_ns: u64, bytes: u32) {
        self.board.sent_again(records, record, now_ns);
        self.congestion.sent(bytes);
        self.sent_ns = now_ns;
    }

    /// Says whether the congestion window was what ended sending.
    pub(super) const fn set_limited(&mut self, limited: bool) {
        self.limited = limited;
    }

    /// Before the first byte after a silence (RFC 5681 section 4.1).
    pub(super) fn wake(&mut self, now_ns: u64) {
        if self.board.is_empty() && now_ns.saturating_sub(self.sent_ns) > self.trip.timeout_ns() {
            self.congestion.idle();
        }
    }

    /// A tail-loss probe may be sent: nothing else would show that the last segments are lost.
    fn may_probe(&self) -> bool {
        self.sack
            && self.phase == Phase::Open
            && self.probe.is_none_or(|probe| !self.una.before(probe.end))
            && self.timeouts == 0
            && !self.board.has_sacked()
    }

    /// Sets the timer for what is under way now.
    pub(super) fn set_watch(&mut self, now_ns: u64) {
        let timeout_ns = self.base_ns.max(1).saturating_add(self.trip.timeout_ns());
        let waiting = !self.board.is_empty() || self.unsent() > 0 || self.fin == Fin::Wanted;
        if waiting {
            if self.stalled_since_ns == 0 {
                self.stalled_since_ns = now_ns.max(1);
            }
            if self.slow_since_ns == 0 {
                self.slow_since_ns = now_ns.max(1);
                self.slow_until = self.una.plus(self.chain.bytes().min(SLOW_BYTES));
            }
        } else {
            (self.stalled_since_ns, self.slow_since_ns) = (0, 0);
        }
        (self.watch, self.watch_ns) = if !self.board.is_empty() {
            if self.reorder_ns != 0 {
                (Watch::Reordering, self.reorder_ns.min(timeout_ns))
            } else if self.may_probe() {
                let trips_ns = 2 * self.trip.smoothed_ns().unwrap_or(self.trip.timeout_ns() / 2);
                let delay_ns = if self.board.count() == 1 { self.peer_delay_ns } else { 0 };
                // RFC 8985 counts two round trips from the last acknowledgement. Counted from the last segment,
                // whose own is due after one, a lost tail is found a round trip earlier; an acknowledgement that
                // came late shows that this one may too. Never before the grain of the timers.
                let after_ns = (self.sent_ns + trips_ns).max(self.base_ns + trips_ns / 2);
                let probe_ns = after_ns + delay_ns.max(1 << 20);
                (Watch::Probe, probe_ns.min(timeout_ns))
            } else {
                (Watch::Timeout, timeout_ns)
            }
        } else if waiting {
            match self.watch {
                Watch::Window => (Watch::Window, self.watch_ns),
                _ => (Watch::Window, now_ns + self.trip.timeout_ns()),
            }
        } else {
            (Watch::None, u64::MAX)
        };
    }

    /// The time given to reordering is over.
    pub(super) fn reordering_over(&mut self, records: &mut Records, now_ns: u64) {
        let pipe = self.pipe();
        let before = self.board.lost_bytes();
        self.detect(records, &Judge { now_ns, least_ns: self.trip.least_ns() });
        let losses = self.board.lost_bytes() > before;
        self.change_phase(now_ns, pipe, losses);
        if self.phase == Phase::Recovery {
            self.congestion.recovering(0, self.pipe());
        }
    }

    /// A time-out (RFC 6298 section 5.4 to 5.6).
    pub(super) fn timed_out(&mut self, records: &mut Records, now_ns: u64) {
        if self.timeouts == 0 {
            let at_ms = (now_ns / NS_PER_MS) as u32;
            self.undo = Some(Undo { at_ms, congestion: self.congestion.before() });
        }
        self.board.all_is_lost(records);
        self.congestion.timed_out(self.timeouts == 0);
        self.phase = Phase::Loss;
        self.recovery_end = self.nxt;
        self.recovery_ns = now_ns;
        self.timeouts = self.timeouts.saturating_add(1);
        self.trip.back_off();
        self.base_ns = now_ns;
        (self.duplicates, self.probe, self.reorder_ns) = (0, None, 0);
    }

    /// A probe went out.
    pub(super) fn probed(&mut self, now_ns: u64, repeats: bool) {
        self.probe = Some(Probe { end: self.nxt, repeats });
        self.base_ns = now_ns;
    }

    /// A probe of the window went out, or the flow may send what is less than a segment after all.
    pub(super) fn window_probed(&mut self, now_ns: u64) {
        self.trip.back_off();
        self.watch_ns = now_ns + self.trip.timeout_ns();
    }

    /// The path takes only this many bytes of data in a segment. Not the network is full: nothing is slowed down.
    pub(super) fn shrink_segment(&mut self, records: &mut Records, bytes: u32) {
        self.segment = bytes;
        self.congestion.set_segment(bytes);
        self.board.too_large_is_lost(records, bytes);
    }

    /// Panics unless its sums agree: for tests and fuzzing.
    pub(super) fn check(&self, records: &Records) {
        self.board.check(records, self.una, self.nxt);
        let under_way = self.nxt.since(self.una) - u32::from(self.fin == Fin::Sent);
        assert!(under_way <= self.chain.bytes(), "what was sent and not acknowledged is kept");
        assert!(self.congestion.window() > 0);
    }

    /// Gives back whatever the flow holds.
    pub(super) fn release(&mut self, records: &mut Records, chunks: &mut Chunks) {
        self.board.clear(records);
        self.chain.clear(chunks);
    }
}
