//! What was sent and not acknowledged, and which of it is lost: the scoreboard of selective acknowledgements
//! (RFC 2018, RFC 6675) and RACK (RFC 8985 section 6), which judges by time and not by counting duplicates.
//!
//! One small record a segment sent, from a shared pool, in the order of their sequence numbers.

use super::options::Block;
use super::pool::{NIL, Slab};
use super::sequence::Sequence;

/// A segment that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) start: Sequence,
    pub(super) end: Sequence,
    /// When it was last sent.
    at_ns: u64,
    next: u32,
    marks: u8,
}

/// The peer has it.
const SACKED: u8 = 1;
/// It is taken for lost, and was not sent again since.
const LOST: u8 = 2;
/// It was sent more than once.
const AGAIN: u8 = 4;

impl Sent {
    pub(super) const EMPTY: Self =
        Self { start: Sequence(0), end: Sequence(0), at_ns: 0, next: NIL, marks: 0 };

    const fn is(&self, marks: u8) -> bool {
        self.marks & marks != 0
    }

    pub(super) const fn bytes(&self) -> u32 {
        self.end.since(self.start)
    }
}

/// Records of all flows.
pub(super) type Records = Slab<Sent>;

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivery {
    /// Bytes the peer is now known to have, and was not before.
    pub(super) bytes: u32,
    /// Round trip of the last sent segment among them that was sent once.
    pub(super) sample_ns: Option<u64>,
    sample_sent_ns: u64,
}

/// What is known besides when an acknowledgement is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    pub(super) now_ns: u64,
    /// The least round trip; an answer to a retransmission that is faster answers the first transmission.
    pub(super) least_ns: u64,
}

/// The scoreboard of one flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scoreboard {
    head: u32,
    tail: u32,
    count: u32,
    sacked_bytes: u32,
    sacked_count: u32,
    lost_bytes: u32,
    /// Where the farthest byte ends that the peer is known to have.
    farthest: Sequence,
    /// The segment sent last among those delivered, and the round trip it had (RACK.xmit_ts, RACK.end_seq,
    /// RACK.rtt).
    latest_ns: u64,
    latest_end: Sequence,
    latest_trip_ns: u64,
    /// Quarters of the least round trip that reordering is waited for, and for how many recoveries more.
    patience: u8,
    patience_left: u8,
    reordering: bool,
}

/// Duplicate acknowledgements that mean a loss where nothing better is known (RFC 5681 section 3.2).
pub(super) const DUPLICATES: u32 = 3;
/// Recoveries after which a raised patience is given up (RFC 8985 section 6.2).
const PATIENCE_RECOVERIES: u8 = 16;

impl Scoreboard {
    pub(super) const fn new(start: Sequence) -> Self {
        Self {
            head: NIL,
            tail: NIL,
            count: 0,
            sacked_bytes: 0,
            sacked_count: 0,
            lost_bytes: 0,
            farthest: start,
            latest_ns: 0,
            latest_end: start,
            latest_trip_ns: 0,
            patience: 1,
            patience_left: 0,
            reordering: false,
        }
    }

    /// True when nothing is unacknowledged.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// Segments unacknowledged.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes that are neither on the way nor to be acknowledged any more by themselves: delivered or lost.
    #[inline]
    pub(super) const fn off_the_wire(&self) -> u32 {
        self.sacked_bytes + self.lost_bytes
    }

    /// Bytes to be sent again.
    #[inline]
    pub(super) const fn lost_bytes(&self) -> u32 {
        self.lost_bytes
    }

    /// True when the peer reported bytes beyond a gap.
    #[inline]
    pub(super) const fn has_sacked(&self) -> bool {
        self.sacked_count > 0
    }

    /// Notes a new segment at the end; false when there is no record for it.
    #[inline]
    pub(super) fn push(
        &mut self,
        records: &mut Records,
        start: Sequence,
        end: Sequence,
        now_ns: u64,
    ) -> bool {
        let Some(record) = records.take() else { return false };
        *records.get_mut(record) = Sent { start, end, at_ns: now_ns, next: NIL, marks: 0 };
        if self.tail == NIL {
            self.head = record;
        } else {
            records.get_mut(self.tail).next = record;
        }
        self.tail = record;
        self.count += 1;
        true
    }

    /// Everything before `una` is acknowledged.
    pub(super) fn acknowledge(
        &mut self,
        records: &mut Records,
        una: Sequence,
        judge: &Judge,
        delivery: &mut Delivery,
    ) {
        while self.head != NIL {
            let sent = *records.get(self.head);
            if !sent.start.before(una) {
                break;
            }
            let whole = !sent.end.after(una);
            let bytes = if whole { sent.bytes() } else { una.since(sent.start) };
            if sent.is(LOST) {
                self.lost_bytes -= bytes;
            }
            if sent.is(SACKED) {
                self.sacked_bytes -= bytes;
            } else {
                delivery.bytes += bytes;
            }
            if !whole {
                records.get_mut(self.head).start = una;
                break;
            }
            if sent.is(SACKED) {
                self.sacked_count -= 1;
            } else {
                self.delivered(&sent, judge, delivery);
            }
            records.give(self.head);
            self.count -= 1;
            self.head = sent.next;
        }
        if self.head == NIL {
            self.tail = NIL;
        }
        self.farthest = self.farthest.max(una);
    }

    /// The peer has these bytes, all of which were sent.
    pub(super) fn sack(
        &mut self,
        records: &mut Records,
        block: Block,
        judge: &Judge,
        delivery: &mut Delivery,
    ) {
        let mut at = self.head;
        while at != NIL {
            let sent = *records.get(at);
            if !sent.start.before(block.end) {
                break;
            }
            if !sent.is(SACKED) && !sent.start.before(block.start) && !sent.end.after(block.end) {
                if sent.is(LOST) {
                    self.lost_bytes -= sent.bytes();
                }
                records.get_mut(at).marks = sent.marks & !LOST | SACKED;
                self.sacked_bytes += sent.bytes();
                self.sacked_count += 1;
                delivery.bytes += sent.bytes();
                self.delivered(&sent, judge, delivery);
            }
            at = sent.next;
        }
    }

    /// RFC 8985 section 6.2, steps 1 to 3.
    fn delivered(&mut self, sent: &Sent, judge: &Judge, delivery: &mut Delivery) {
        let trip_ns = judge.now_ns.saturating_sub(sent.at_ns);
        if sent.is(AGAIN) {
            if trip_ns < judge.least_ns {
                return;
            }
        } else {
            if delivery.sample_ns.is_none() || sent.at_ns >= delivery.sample_sent_ns {
                (delivery.sample_ns, delivery.sample_sent_ns) = (Some(trip_ns), sent.at_ns);
            }
            // Delivered after what was sent later: the path reorders.
            self.reordering |= sent.end.before(self.farthest);
        }
        self.farthest = self.farthest.max(sent.end);
        if sent_after(sent.at_ns, sent.end, self.latest_ns, self.latest_end) {
            (self.latest_ns, self.latest_end, self.latest_trip_ns) = (sent.at_ns, sent.end, trip_ns);
        }
    }

    /// Something was sent twice for nothing: be more patient (RFC 8985 section 6.2, step 4).
    pub(super) fn was_needless(&mut self) {
        self.patience = self.patience.saturating_add(1);
        self.patience_left = PATIENCE_RECOVERIES;
    }

    /// A recovery has ended.
    pub(super) fn recovered(&mut self) {
        self.patience_left = self.patience_left.saturating_sub(1);
        if self.patience_left == 0 {
            self.patience = 1;
        }
    }

    /// Marks what must be lost: it was sent long enough before something that was delivered (RFC 8985 section 6.2,
    /// step 5). Returns when more may have to be marked.
    pub(super) fn detect(
        &mut self,
        records: &mut Records,
        judge: &Judge,
        smoothed_ns: u64,
        recovering: bool,
    ) -> Option<u64> {
        if self.head == NIL || self.latest_ns == 0 {
            return None;
        }
        let wait_ns = if !self.reordering && (recovering || self.sacked_count >= DUPLICATES) {
            0
        } else {
            (judge.least_ns / 4).saturating_mul(u64::from(self.patience)).min(smoothed_ns)
        };
        let mut next_ns: Option<u64> = None;
        let mut at = self.head;
        while at != NIL {
            let sent = *records.get(at);
            if !sent.is(SACKED | LOST) && sent_after(self.latest_ns, self.latest_end, sent.at_ns, sent.end) {
                let until_ns = sent.at_ns.saturating_add(self.latest_trip_ns).saturating_add(wait_ns);
                if until_ns <= judge.now_ns {
                    records.get_mut(at).marks |= LOST;
                    self.lost_bytes += sent.bytes();
                } else {
                    next_ns = Some(next_ns.map_or(until_ns, |ns| ns.max(until_ns)));
                }
            }
            at = sent.next;
        }
        next_ns
    }

    /// The first segment is lost: all that can be said without selective acknowledgements (RFC 6582). One that was
    /// sent again since `since_ns` is not lost anew.
    pub(super) fn first_is_lost(&mut self, records: &mut Records, since_ns: u64) {
        if self.head == NIL {
            return;
        }
        let sent = records.get_mut(self.head);
        let anew = sent.is(AGAIN) && sent.at_ns >= since_ns;
        if !sent.is(LOST | SACKED) && !anew {
            sent.marks |= LOST;
            self.lost_bytes += sent.bytes();
        }
    }

    /// A time-out: all is lost, and what the peer once reported counts no more (RFC 2018 section 8).
    pub(super) fn all_is_lost(&mut self, records: &mut Records) {
        (self.sacked_bytes, self.sacked_count, self.lost_bytes) = (0, 0, 0);
        let mut at = self.head;
        while at != NIL {
            let sent = records.get_mut(at);
            sent.marks = sent.marks & !SACKED | LOST;
            self.lost_bytes += sent.bytes();
            at = sent.next;
        }
    }

    /// Nothing was lost after all: what was not sent again is still under way.
    pub(super) fn nothing_is_lost(&mut self, records: &mut Records) {
        let mut at = self.head;
        while at != NIL {
            let sent = records.get_mut(at);
            sent.marks &= !LOST;
            at = sent.next;
        }
        self.lost_bytes = 0;
    }

    /// What is larger than this does not fit the path: it is lost, and nobody's fault (RFC 1191 section 6.5).
    pub(super) fn too_large_is_lost(&mut self, records: &mut Records, bytes: u32) {
        let mut at = self.head;
        while at != NIL {
            let sent = records.get_mut(at);
            if sent.bytes() > bytes && !sent.is(SACKED | LOST) {
                sent.marks |= LOST;
                self.lost_bytes += sent.bytes();
            }
            at = sent.next;
        }
    }

    /// The first lost segment, cut to at most `bytes` if there is a record for the rest.
    pub(super) fn next_lost(&mut self, records: &mut Records, bytes: u32) -> Option<(u32, Sent)> {
        let mut at = self.head;
        while at != NIL && !records.get(at).is(LOST) {
            at = records.get(at).next;
        }
        (at != NIL).then(|| (at, self.cut(records, at, bytes)))
    }

    /// The last segment, cut to at most `bytes`: then it is the last part.
    pub(super) fn last(&mut self, records: &mut Records, bytes: u32) -> Option<(u32, Sent)> {
        while self.tail != NIL && records.get(self.tail).bytes() > bytes {
            let tail = self.tail;
            if self.cut(records, tail, bytes).bytes() > bytes {
                break;
            }
        }
        (self.tail != NIL).then(|| (self.tail, *records.get(self.tail)))
    }

    fn cut(&mut self, records: &mut Records, at: u32, bytes: u32) -> Sent {
        let sent = *records.get(at);
        if sent.bytes() <= bytes {
            return sent;
        }
        let Some(rest) = records.take() else { return sent };
        let middle = sent.start.plus(bytes);
        *records.get_mut(rest) = Sent { start: middle, ..sent };
        let first = records.get_mut(at);
        (first.end, first.next) = (middle, rest);
        if self.tail == at {
            self.tail = rest;
        }
        self.count += 1;
        if sent.is(SACKED) {
            self.sacked_count += 1;
        }
        *records.get(at)
    }

    /// A segment was sent again.
    pub(super) fn sent_again(&mut self, records: &mut Records, record: u32, now_ns: u64) {
        let sent = records.get_mut(record);
        if sent.is(LOST) {
            self.lost_bytes -= sent.bytes();
        }
        sent.marks = sent.marks & !LOST | AGAIN;
        sent.at_ns = now_ns;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, records: &mut Records) {
        while self.head != NIL {
            let next = records.get(self.head).next;
            records.give(self.head);
            self.head = next;
        }
        (self.tail, self.count) = (NIL, 0);
        (self.sacked_bytes, self.sacked_count, self.lost_bytes) = (0, 0, 0);
    }

    /// The sums kept along the way, counted afresh: for tests and fuzzing.
    pub(super) fn check(&self, records: &Records, una: Sequence, nxt: Sequence) {
        let (mut at, mut expected, mut count) = (self.head, una, 0);
        let (mut sacked, mut sacked_count, mut lost) = (0, 0, 0);
        let mut tail = NIL;
        while at != NIL {
            let sent = records.get(at);
            assert_eq!(sent.start, expected, "segments follow each other");
            assert!(sent.start.before(sent.end) && !sent.is(SACKED) | !sent.is(LOST));
            if sent.is(SACKED) {
                (sacked, sacked_count) = (sacked + sent.bytes(), sacked_count + 1);
            }
            if sent.is(LOST) {
                lost += sent.bytes();
            }
            (expected, count, tail, at) = (sent.end, count + 1, at, sent.next);
        }
        assert_eq!(expected, nxt, "all that was sent is there");
        assert_eq!((self.count, self.tail), (count, tail));
        assert_eq!((self.sacked_bytes, self.sacked_count, self.lost_bytes), (sacked, sacked_count, lost));
    }
}

/// True when the first was sent after the second (RFC 8985 section 6.2): later, or at once and farther on.
fn sent_after(first_ns: u64, first_end: Sequence, second_ns: u64, second_end: Sequence) -> bool {
    first_ns > second_ns || first_ns == second_ns && first_end.after(second_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    struct Bed {
        records: Records,
        board: Scoreboard,
        una: Sequence,
        nxt: Sequence,
    }

    impl Bed {
        /// Segments of 100 bytes, one each millisecond from 1 ms on, across the wrap.
        fn new(segments: u32) -> Self {
            let start = Sequence(u32::MAX - 150);
            let mut bed = Self {
                records: Slab::new(16, Sent::EMPTY),
                board: Scoreboard::new(start),
                una: start,
                nxt: start,
            };
            for segment in 0..segments {
                let end = bed.nxt.plus(100);
                assert!(bed.board.push(&mut bed.records, bed.nxt, end, u64::from(segment + 1) * MS));
                bed.nxt = end;
            }
            bed
        }

        fn judge(now_ms: u64) -> Judge {
            Judge { now_ns: now_ms * MS, least_ns: 8 * MS }
        }

        fn sack(&mut self, first: u32, last: u32, now_ms: u64) -> Delivery {
            let mut delivery = Delivery::default();
            let block = Block { start: self.una.plus(first * 100), end: self.una.plus(last * 100) };
            self.board.sack(&mut self.records, block, &Self::judge(now_ms), &mut delivery);
            self.board.check(&self.records, self.una, self.nxt);
            delivery
        }

        fn acknowledge(&mut self, bytes: u32, now_ms: u64) -> Delivery {
            let mut delivery = Delivery::default();
            self.una = self.una.plus(bytes);
            self.board.acknowledge(&mut self.records, self.una, &Self::judge(now_ms), &mut delivery);
            self.board.check(&self.records, self.una, self.nxt);
            delivery
        }

        fn detect(&mut self, now_ms: u64) -> Option<u64> {
            let next = self.board.detect(&mut self.records, &Self::judge(now_ms), 10 * MS, false);
            self.board.check(&self.records, self.una, self.nxt);
            next
        }
    }

    #[test]
    fn an_acknowledgement_gives_the_round_trip_of_the_last_segment_sent_once() {
        let mut bed = Bed::new(4);
        let delivery = bed.acknowledge(250, 12);
        assert_eq!((delivery.bytes, delivery.sample_ns), (250, Some(10 * MS)));
        assert_eq!(bed.acknowledge(150, 20).sample_ns, Some(16 * MS));
        assert!(bed.board.is_empty());
        assert_eq!(bed.records.available(), 16);
    }

    #[test]
    fn a_gap_is_lost_after_a_quarter_round_trip_or_at_once_after_three_segments() {
        let mut bed = Bed::new(5);
        bed.sack(1, 2, 12);
        // Segment 0 was sent at 1 ms; the round trip was 10 ms; a quarter of the least round trip is 2 ms.
        assert_eq!(bed.detect(12), Some(13 * MS));
        assert_eq!(bed.board.lost_bytes(), 0);
        assert_eq!(bed.detect(13), None);
        assert_eq!(bed.board.lost_bytes(), 100);

        let mut bed = Bed::new(5);
        bed.sack(1, 4, 14);
        assert_eq!(bed.detect(14), None);
        assert_eq!((bed.board.lost_bytes(), bed.board.off_the_wire()), (100, 400));
    }

    #[test]
    fn a_path_that_reorders_is_given_time() {
        let mut bed = Bed::new(6);
        bed.sack(1, 2, 12);
        bed.acknowledge(100, 12);
        assert!(bed.board.reordering);
        bed.sack(2, 5, 15);
        assert!(bed.detect(13).is_some(), "three segments beyond the gap are no proof here");
        bed.board.was_needless();
        assert!(bed.detect(14).is_some());
        assert_eq!(bed.board.lost_bytes(), 0);
    }

    #[test]
    fn a_lost_retransmission_is_found_by_what_was_sent_after_it() {
        let mut bed = Bed::new(4);
        bed.sack(1, 4, 14);
        bed.detect(14);
        let (record, sent) = bed.board.next_lost(&mut bed.records, 1_000).expect("a lost segment");
        assert_eq!(sent.start, bed.una);
        bed.board.sent_again(&mut bed.records, record, 14 * MS);
        let end = bed.nxt.plus(100);
        bed.board.push(&mut bed.records, bed.nxt, end, 15 * MS);
        bed.nxt = end;
        bed.sack(4, 5, 25);
        bed.board.detect(&mut bed.records, &Bed::judge(25), 10 * MS, true);
        assert_eq!(bed.board.lost_bytes(), 100, "lost again");
    }

    #[test]
    fn an_answer_faster_than_light_answers_the_first_transmission() {
        let mut bed = Bed::new(2);
        bed.board.all_is_lost(&mut bed.records);
        let (record, _) = bed.board.next_lost(&mut bed.records, 1_000).expect("a lost segment");
        bed.board.sent_again(&mut bed.records, record, 50 * MS);
        let delivery = bed.acknowledge(100, 51);
        assert_eq!((delivery.sample_ns, bed.board.latest_ns), (None, 0));
    }

    #[test]
    fn segments_too_large_for_the_path_are_cut() {
        let mut bed = Bed::new(2);
        bed.board.too_large_is_lost(&mut bed.records, 60);
        assert_eq!(bed.board.lost_bytes(), 200);
        let mut sizes = Vec::new();
        while let Some((record, sent)) = bed.board.next_lost(&mut bed.records, 60) {
            sizes.push(sent.bytes());
            bed.board.sent_again(&mut bed.records, record, 9 * MS);
            bed.board.check(&bed.records, bed.una, bed.nxt);
        }
        assert_eq!(sizes, [60, 40, 60, 40]);
        assert_eq!(bed.board.last(&mut bed.records, 30).map(|(_, sent)| sent.bytes()), Some(10));
        bed.board.check(&bed.records, bed.una, bed.nxt);
    }
}
