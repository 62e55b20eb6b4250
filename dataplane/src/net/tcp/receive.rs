//! Bytes on their way in: what was promised, what arrived, and what the handler has not taken yet.
//!
//! As a rule nothing is kept: a segment that comes in its turn is handed on where it lies in its frame. Only what
//! the handler leaves and what comes out of turn is put into a block of the shared pool, at its place, so that the
//! handler always sees contiguous bytes. The block grows through the sizes of the pool as it has to, and goes back
//! when nothing is left in it. When no block can be had, the bytes are dropped as if they were lost on the way: they
//! are not acknowledged, and the peer sends them again.

use super::options::{BLOCKS_MAX, Block};
use super::pool::{BlockId, Blocks};
use super::sequence::Sequence;

/// Islands of out-of-order bytes a block may hold.
const ISLANDS_MAX: usize = 16;

/// What is where in a block. Positions count from the block's start.
#[derive(Clone, Debug)]
pub(super) struct Assembly {
    /// Where the unread bytes start.
    start: u32,
    /// Contiguous bytes that were acknowledged and not taken.
    unread: u32,
    /// Bytes beyond a gap, in order; they neither overlap nor touch.
    islands: [(u32, u32); ISLANDS_MAX],
    count: u8,
    /// A position in the island that grew last: it is reported first (RFC 2018 section 4).
    latest: u32,
}

impl Assembly {
    pub(super) const EMPTY: Self =
        Self { start: 0, unread: 0, islands: [(0, 0); ISLANDS_MAX], count: 0, latest: 0 };

    fn islands(&self) -> &[(u32, u32)] {
        &self.islands[..usize::from(self.count)]
    }

    /// Where the unread bytes end.
    const fn front(&self) -> u32 {
        self.start + self.unread
    }

    /// Where the last byte of all ends.
    fn end(&self) -> u32 {
        self.islands().last().map_or(self.front(), |&(_, end)| end)
    }

    /// Notes the bytes from `start` to `end`; false when there would be one island too many.
    fn add(&mut self, mut start: u32, mut end: u32) -> bool {
        let islands = self.islands();
        let first = islands.partition_point(|&(_, island_end)| island_end < start);
        let last = islands.partition_point(|&(island_start, _)| island_start <= end);
        if first < last {
            start = start.min(islands[first].0);
            end = end.max(islands[last - 1].1);
        }
        let count = usize::from(self.count);
        if start <= self.front() {
            // All islands it touches come to the front, and no island can lie before them.
            self.unread = end.max(self.front()) - self.start;
            self.islands.copy_within(last..count, 0);
            self.count = (count - last) as u8;
            return true;
        }
        let count_after = count - (last - first) + 1;
        if count_after > ISLANDS_MAX {
            return false;
        }
        self.islands.copy_within(last..count, first + 1);
        self.islands[first] = (start, end);
        self.count = count_after as u8;
        self.latest = start;
        true
    }

    /// Moves everything so that the unread bytes start at 0.
    fn rebase(&mut self) {
        let start = std::mem::take(&mut self.start);
        let count = usize::from(self.count);
        for (from, to) in &mut self.islands[..count] {
            (*from, *to) = (*from - start, *to - start);
        }
        self.latest = self.latest.saturating_sub(start);
    }
}

/// What may be promised to a peer, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// As a rule.
    pub(super) window: u32,
    /// Beyond what the handler says it needs.
    pub(super) slack: u32,
    /// Growth worth telling (RFC 9293 section 3.8.6.2.2).
    pub(super) segment: u32,
}

/// The receiving side of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    /// The next sequence number that is expected.
    pub(super) next: Sequence,
    /// Where the window ends that was promised; it never draws back (RFC 9293 section 3.8.6).
    edge: Sequence,
    /// How far windows are shifted.
    pub(super) shift: u8,
    /// The peer's FIN is the last thing that was expected, and came.
    pub(super) finished: bool,
    /// Where the peer's stream ends, once it is known.
    end: Option<Sequence>,
    block: Option<BlockId>,
    /// Unread bytes the handler wants to see at least before it is asked again.
    needed: u32,
    /// Bytes that came a second time, to be reported (RFC 2883).
    duplicate: Option<Block>,
}

/// The part of a segment that is new and within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fresh<'a> {
    pub(super) sequence: Sequence,
    pub(super) bytes: &'a [u8],
}

impl Receiver {
    pub(super) const fn new(next: Sequence, shift: u8) -> Self {
        Self { next, edge: next, shift, finished: false, end: None, block: None, needed: 0, duplicate: None }
    }

    /// Bytes from the next that is expected to the end of the window.
    #[inline]
    pub(super) const fn window(&self) -> u32 {
        self.edge.since(self.next)
    }

    /// The acceptability test (RFC 9293 section 3.4).
    #[inline]
    pub(super) fn accepts(&self, sequence: Sequence, length: u32) -> bool {
        let window = self.window();
        let within = |at: Sequence| at.since(self.next) < window;
        if length == 0 {
            // The very end is let in too: there stands whoever has used up the window.
            sequence.since(self.next) <= window
        } else {
            window > 0 && (within(sequence) || within(sequence.plus(length - 1)))
        }
    }

    /// Cuts off what was there before, what lies beyond the window and what lies beyond the peer's FIN.
    pub(super) fn fresh<'a>(&mut self, mut sequence: Sequence, mut bytes: &'a [u8]) -> Fresh<'a> {
        if sequence.before(self.next) {
            let old = (self.next.since(sequence) as usize).min(bytes.len());
            if old > 0 {
                self.note_duplicate(Block { start: sequence, end: sequence.plus(old as u32) });
            }
            (sequence, bytes) = (sequence.plus(old as u32), &bytes[old..]);
        }
        let edge = self.end.unwrap_or(self.edge).min(self.edge);
        if sequence.plus(bytes.len() as u32).after(edge) {
            let room = if sequence.before(edge) { edge.since(sequence) as usize } else { 0 };
            bytes = &bytes[..room.min(bytes.len())];
        }
        Fresh { sequence, bytes }
    }

    /// These bytes came a second time.
    pub(super) fn note_duplicate(&mut self, block: Block) {
        self.duplicate.get_or_insert(block);
    }

    /// True when a segment that comes next may be handed on where it lies.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.block.is_none()
    }

    /// True when the handler waits for no more than this many bytes.
    #[inline]
    pub(super) const fn wants(&self, bytes: usize) -> bool {
        self.needed as usize <= bytes
    }

    /// Bytes came in their turn and were handed on directly; `left` of them, the last, were not taken and are kept.
    /// Returns how many were: without a block for them they count as never arrived.
    pub(super) fn passed(&mut self, blocks: &mut Blocks<Assembly>, bytes: &[u8], left: usize) -> usize {
        let taken = bytes.len() - left;
        self.next = self.next.plus(taken as u32);
        if left == 0 { 0 } else { self.store(blocks, self.next, &bytes[taken..]).map_or(0, |_| left) }
    }

    /// Puts bytes at their place; they are fresh. `None` when there is no room.
    pub(super) fn store(
        &mut self,
        blocks: &mut Blocks<Assembly>,
        sequence: Sequence,
        bytes: &[u8],
    ) -> Option<()> {
        let ahead = sequence.since(self.next);
        let block = self.room(blocks, ahead as usize + bytes.len())?;
        let (assembly, room) = blocks.parts_mut(block);
        let start = assembly.front() + ahead;
        let end = start + bytes.len() as u32;
        let covered = assembly.islands().iter().any(|&(from, to)| from <= start && end <= to);
        let front = assembly.front();
        let added = assembly.add(start, end);
        if added {
            room[start as usize..end as usize].copy_from_slice(bytes);
            self.next = self.next.plus(assembly.front() - front);
        }
        if covered {
            self.note_duplicate(Block { start: sequence, end: sequence.plus(bytes.len() as u32) });
        }
        self.release_if_empty(blocks);
        added.then_some(())
    }

    /// A block with room for this many bytes behind the unread ones.
    fn room(&mut self, blocks: &mut Blocks<Assembly>, bytes: usize) -> Option<BlockId> {
        let Some(block) = self.block else {
            let block = blocks.take(bytes)?;
            *blocks.parts_mut(block).0 = Assembly::EMPTY;
            self.block = Some(block);
            return Some(block);
        };
        let capacity = blocks.capacity(block);
        let assembly = blocks.note(block);
        let (start, end) = (assembly.start as usize, assembly.end() as usize);
        let needed = assembly.unread as usize + bytes;
        if start + needed <= capacity {
            return Some(block);
        }
        // Moving everything down is worth it when much is won by it; otherwise a larger block is taken, unless there
        // is none.
        let worth_it = needed <= capacity && start >= capacity / 4;
        if !worth_it && let Some(larger) = blocks.take(needed.max(capacity + 1)) {
            let mut assembly = blocks.note(block).clone();
            assembly.rebase();
            *blocks.parts_mut(larger).0 = assembly;
            blocks.copy(block, start..end, larger);
            blocks.give(block);
            self.block = Some(larger);
            return Some(larger);
        }
        if needed > capacity {
            return None;
        }
        let (assembly, room) = blocks.parts_mut(block);
        room.copy_within(start..end, 0);
        assembly.rebase();
        Some(block)
    }

    /// Contiguous bytes the handler has not taken; empty while it waits for more.
    pub(super) fn unread<'b>(&self, blocks: &'b Blocks<Assembly>) -> &'b [u8] {
        let Some(block) = self.block else { return &[] };
        let assembly = blocks.note(block);
        if assembly.unread < self.needed && !self.finished {
            return &[];
        }
        &blocks.bytes(block)[assembly.start as usize..assembly.front() as usize]
    }

    /// Bytes the handler has not taken, whether or not it waits for more.
    pub(super) fn unread_bytes(&self, blocks: &Blocks<Assembly>) -> u32 {
        self.block.map_or(0, |block| blocks.note(block).unread)
    }

    /// The handler took this many of the unread bytes, and wants to see `needed` before it is asked again.
    pub(super) fn consume(&mut self, blocks: &mut Blocks<Assembly>, bytes: usize) {
        let Some(block) = self.block else { return };
        let assembly = blocks.parts_mut(block).0;
        let bytes = (bytes as u32).min(assembly.unread);
        assembly.start += bytes;
        assembly.unread -= bytes;
        self.release_if_empty(blocks);
    }

    /// The handler wants to see this many unread bytes before it is asked again.
    pub(super) const fn need(&mut self, bytes: u32) {
        self.needed = bytes;
    }

    fn release_if_empty(&mut self, blocks: &mut Blocks<Assembly>) {
        if let Some(block) = self.block {
            let assembly = blocks.note(block);
            if assembly.unread == 0 && assembly.count == 0 {
                self.release(blocks);
            }
        }
    }

    /// Gives the block back, with whatever is in it.
    pub(super) fn release(&mut self, blocks: &mut Blocks<Assembly>) {
        if let Some(block) = self.block.take() {
            blocks.give(block);
        }
    }

    /// The peer's stream ends here, if that is within the window. Returns true when that is the last thing that
    /// was missing.
    pub(super) fn finish(&mut self, end: Sequence) -> bool {
        if end.before(self.next) || end.after(self.edge) {
            return false;
        }
        let end = *self.end.get_or_insert(end);
        self.try_finish(end)
    }

    /// Looks again whether everything up to the peer's FIN has come.
    pub(super) fn finish_if_complete(&mut self) -> bool {
        self.end.is_some_and(|end| self.try_finish(end))
    }

    fn try_finish(&mut self, end: Sequence) -> bool {
        if self.finished || self.next != end {
            return false;
        }
        self.next = end.plus(1);
        self.edge = self.edge.max(self.next);
        self.finished = true;
        true
    }

    /// True when bytes came twice and nobody was told yet.
    pub(super) const fn has_duplicate(&self) -> bool {
        self.duplicate.is_some()
    }

    /// True when bytes beyond a gap are there.
    pub(super) fn has_gap(&self, blocks: &Blocks<Assembly>) -> bool {
        self.block.is_some_and(|block| blocks.note(block).count > 0)
    }

    /// What to report of bytes that came twice or beyond a gap, the latest first; returns how many blocks it wrote.
    pub(super) fn report(&mut self, blocks: &Blocks<Assembly>, out: &mut [Block; BLOCKS_MAX]) -> usize {
        let mut count = 0;
        if let Some(duplicate) = self.duplicate.take() {
            out[0] = duplicate;
            count = 1;
        }
        let Some(block) = self.block else { return count };
        let assembly = blocks.note(block);
        let at = |position: u32| self.next.plus(position - assembly.front());
        let is_latest = |&&(start, end): &&(u32, u32)| start <= assembly.latest && assembly.latest < end;
        let latest = assembly.islands().iter().filter(is_latest);
        let others = assembly.islands().iter().filter(|island| !is_latest(island));
        for (&(start, end), place) in latest.chain(others).zip(&mut out[count..]) {
            *place = Block { start: at(start), end: at(end) };
            count += 1;
        }
        count
    }

    /// How far the window could reach now.
    fn reach(&self, blocks: &Blocks<Assembly>, promise: &Promise) -> u32 {
        let own = self.block.map_or(0, |block| blocks.capacity(block));
        let room = own.max(blocks.largest_free()) as u32;
        let wanted = promise.window.max(self.needed.saturating_add(promise.slack));
        wanted.min(room).saturating_sub(self.unread_bytes(blocks))
    }

    /// True when the window has grown so much that the peer should be told without being asked.
    pub(super) fn has_news(&self, blocks: &Blocks<Assembly>, promise: &Promise) -> bool {
        let reach = self.reach(blocks, promise);
        !self.finished && self.window() < promise.segment && reach >= 2 * promise.segment.max(1 << self.shift)
            || reach >= promise.window && self.window() <= promise.window / 2 && !self.finished
    }

    /// Promises what can be had, and returns the window as it stands in a header.
    #[inline]
    pub(super) fn promise(&mut self, blocks: &Blocks<Assembly>, promise: &Promise) -> u16 {
        if !self.finished {
            let edge = self.next.plus(self.reach(blocks, promise));
            // Neither back nor on by a silly little (RFC 9293 section 3.8.6.2.2).
            if edge.after(self.edge)
                && (edge.since(self.edge) >= promise.segment || self.window() >= promise.segment)
            {
                self.edge = edge;
            }
        }
        (self.window() >> self.shift).min(u32::from(u16::MAX)) as u16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::tcp::pool::Class;

    const PROMISE: Promise = Promise { window: 400, slack: 50, segment: 20 };

    fn blocks() -> Blocks<Assembly> {
        let class = |bytes, count| Class { bytes, count };
        Blocks::new([class(32, 2), class(64, 2), class(128, 1), class(512, 1)], &Assembly::EMPTY)
    }

    fn free() -> [usize; 4] {
        [2, 2, 1, 1]
    }

    #[test]
    fn a_window_never_draws_back_and_follows_what_can_be_had() {
        let mut blocks = blocks();
        let mut receiver = Receiver::new(Sequence(0), 0);
        assert_eq!(receiver.promise(&blocks, &PROMISE), 400);
        let taken = blocks.take(500).expect("the largest block");
        assert_eq!(receiver.promise(&blocks, &PROMISE), 400, "promised is promised");
        receiver.next = Sequence(390);
        assert_eq!(receiver.promise(&blocks, &PROMISE), 128, "the largest that is left");
        blocks.give(taken);
        receiver.need(480);
        assert_eq!(receiver.promise(&blocks, &PROMISE), 512, "what the handler needs is more than the rule");
    }

    #[test]
    fn the_latest_island_is_reported_first_and_a_duplicate_before_it() {
        let mut blocks = blocks();
        let mut receiver = Receiver::new(Sequence(u32::MAX - 9), 0);
        receiver.promise(&blocks, &PROMISE);
        for start in [20u32, 60, 40] {
            let fresh = receiver.fresh(Sequence(u32::MAX - 9).plus(start), &[1; 10]);
            receiver.store(&mut blocks, fresh.sequence, fresh.bytes).expect("room");
        }
        assert!(receiver.has_gap(&blocks));
        let old = receiver.fresh(Sequence(u32::MAX - 19), &[1; 5]);
        assert!(old.bytes.is_empty());
        let mut out = [Block::default(); BLOCKS_MAX];
        let count = receiver.report(&blocks, &mut out);
        let expected = [
            Block::new(u32::MAX - 19, u32::MAX - 14),
            Block::new(30, 40),
            Block::new(10, 20),
            Block::new(50, 60),
        ];
        assert_eq!(out[..count], expected);
        assert_eq!(receiver.report(&blocks, &mut out), 3, "a duplicate is reported once");
        receiver.release(&mut blocks);
    }

    #[test]
    fn a_fin_counts_only_when_all_before_it_came() {
        let mut blocks = blocks();
        let mut receiver = Receiver::new(Sequence(0), 0);
        receiver.promise(&blocks, &PROMISE);
        assert!(!receiver.finish(Sequence(10)));
        let fresh = receiver.fresh(Sequence(5), &[7; 20]);
        assert_eq!(fresh.bytes.len(), 5, "nothing comes behind a FIN");
        receiver.store(&mut blocks, fresh.sequence, fresh.bytes).expect("room");
        assert!(!receiver.finish_if_complete());
        receiver.store(&mut blocks, Sequence(0), &[7; 5]).expect("room");
        assert!(receiver.finish_if_complete() && !receiver.finish_if_complete());
        assert_eq!((receiver.next, receiver.unread(&blocks)), (Sequence(11), &[7u8; 10][..]));
        receiver.consume(&mut blocks, 10);
        assert_eq!(blocks.available(), free());
    }

    proptest! {
        /// Pieces of a known stream in any order, with overlaps, taken in any steps: what is read is the stream.
        #[test]
        fn whatever_comes_in_whatever_order_the_stream_is_read(
            start in prop_oneof![any::<u32>(), Just(u32::MAX - 100)],
            steps in proptest::collection::vec((0usize..300, 1usize..60, 0usize..80, 0u32..200), 1..200),
        ) {
            let stream: Vec<u8> = (0..400u32).map(|at| (at * 7 + 3) as u8).collect();
            let mut blocks = blocks();
            let origin = Sequence(start);
            let mut receiver = Receiver::new(origin, 0);
            let mut read: Vec<u8> = Vec::new();
            for (at, bytes, take, needed) in steps {
                receiver.promise(&blocks, &PROMISE);
                let piece = &stream[at..(at + bytes).min(stream.len())];
                let fresh = receiver.fresh(origin.plus(at as u32), piece);
                if fresh.bytes.is_empty() {
                    continue;
                }
                if fresh.sequence == receiver.next && receiver.is_empty() {
                    let left = fresh.bytes.len().saturating_sub(take);
                    let kept = receiver.passed(&mut blocks, fresh.bytes, left);
                    prop_assert!(kept == left || kept == 0);
                    read.extend(&fresh.bytes[..fresh.bytes.len() - left]);
                } else {
                    let _ = receiver.store(&mut blocks, fresh.sequence, fresh.bytes);
                    let unread = receiver.unread(&blocks);
                    let take = take.min(unread.len());
                    read.extend(&unread[..take]);
                    receiver.consume(&mut blocks, take);
                    receiver.need(needed);
                }
                let arrived = receiver.next.since(origin) as usize;
                prop_assert_eq!(read.len() + receiver.unread_bytes(&blocks) as usize, arrived);
                receiver.need(0);
                prop_assert_eq!(receiver.unread(&blocks), &stream[read.len()..arrived]);
                prop_assert_eq!(&read[..], &stream[..read.len()]);
                let mut out = [Block::default(); BLOCKS_MAX];
                let count = receiver.report(&blocks, &mut out);
                for block in &out[..count] {
                    prop_assert!(block.start.before(block.end));
                }
            }
            receiver.release(&mut blocks);
            prop_assert_eq!(blocks.available(), free());
        }
    }
}
