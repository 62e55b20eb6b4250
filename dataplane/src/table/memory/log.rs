//! One circular log: where records begin, end and wrap. It moves no bytes; it only hands out room.
//!
//! Offsets within a log are *logical*: they only grow, and the byte they name is `base + logical % capacity`. So
//! "older than" is one comparison, also across the wrap. A record never crosses the end of the log: what is left
//! there is filled with a dead record.

/// A circular stretch of the arena.
#[derive(Debug)]
pub(super) struct Log {
    /// First byte of it in the arena.
    base: usize,
    /// Bytes of it.
    capacity: usize,
    /// Logical offset at which the next record is written.
    head: u64,
    /// Logical offset of the oldest record.
    tail: u64,
    /// Bytes between tail and head that belong to no live item.
    dead_bytes: usize,
    /// Items at logical offsets below this were flushed.
    flushed_to: u64,
}

/// Room that a log handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    /// Where in the arena the record goes.
    pub(super) offset: usize,
    /// A stretch of the arena that became dead because the record would have crossed the log's end.
    pub(super) skipped: Option<(usize, usize)>,
}

impl Log {
    /// An empty log over `capacity` bytes of the arena from `base` on.
    pub(super) fn new(base: usize, capacity: usize) -> Self {
        assert!(capacity > 0, "a log needs room");
        Self { base, capacity, head: 0, tail: 0, dead_bytes: 0, flushed_to: 0 }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Bytes between tail and head.
    pub(super) fn used_bytes(&self) -> usize {
        (self.head - self.tail) as usize
    }

    pub(super) fn free_bytes(&self) -> usize {
        self.capacity - self.used_bytes()
    }

    pub(super) fn dead_bytes(&self) -> usize {
        self.dead_bytes
    }

    /// Where in the arena this logical offset lies.
    pub(super) fn offset(&self, logical: u64) -> usize {
        self.base + (logical % self.capacity as u64) as usize
    }

    /// The logical offset of what lies at `offset` of the arena, between tail and head.
    pub(super) fn logical(&self, offset: usize) -> u64 {
        assert!(
            offset >= self.base && offset < self.base + self.capacity,
            "offset {offset} is in another log"
        );
        let relative = offset - self.base;
        let tail = (self.tail % self.capacity as u64) as usize;
        let ahead = if relative >= tail { relative - tail } else { self.capacity - tail + relative };
        self.tail + ahead as u64
    }

    /// True when a record of `bytes` can be written without reclaiming.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        let free = self.free_bytes();
        let to_end = self.bytes_to_end();
        if bytes <= to_end { bytes <= free } else { to_end + bytes <= free }
    }

    /// Takes room for a record of `bytes`; the caller has seen that it [fits](Self::fits).
    pub(super) fn reserve(&mut self, bytes: usize) -> Reservation {
        assert!(self.fits(bytes), "{bytes} bytes reserved in a log that has no room for them");
        let to_end = self.bytes_to_end();
        let skipped = (bytes > to_end).then(|| {
            let start = self.offset(self.head);
            self.head += to_end as u64;
            self.dead_bytes += to_end;
            (start, start + to_end)
        });
        let offset = self.offset(self.head);
        self.head += bytes as u64;
        assert!(self.used_bytes() <= self.capacity, "a log's head overtook its tail");
        Reservation { offset, skipped }
    }

    /// Lets go of the oldest `bytes`; `dead` when they belonged to no live item.
    pub(super) fn pop(&mut self, bytes: usize, dead: bool) {
        assert!(bytes <= self.used_bytes(), "a record of {bytes} bytes reaches past its log's head");
        self.tail += bytes as u64;
        if dead {
            assert!(bytes <= self.dead_bytes, "more bytes died than were counted");
            self.dead_bytes -= bytes;
        }
    }

    /// Counts bytes that stopped belonging to a live item.
    pub(super) fn count_dead(&mut self, bytes: usize) {
        self.dead_bytes += bytes;
        assert!(self.dead_bytes <= self.used_bytes(), "more bytes are dead than there are");
    }

    /// Makes all that is in it disappear.
    pub(super) fn flush(&mut self) {
        self.flushed_to = self.head;
    }

    /// True while items that were flushed are still in it.
    pub(super) fn holds_flushed(&self) -> bool {
        self.flushed_to > self.tail
    }

    /// True when what lies at `offset` was flushed.
    pub(super) fn is_flushed(&self, offset: usize) -> bool {
        self.holds_flushed() && self.logical(offset) < self.flushed_to
    }

    fn bytes_to_end(&self) -> usize {
        self.capacity - (self.head % self.capacity as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_would_cross_the_end_starts_at_the_beginning() {
        let mut log = Log::new(1_000, 100);
        assert_eq!(log.reserve(70).offset, 1_000);
        assert!(!log.fits(40), "30 to the end, and the beginning is taken");
        log.pop(70, false);
        assert!(log.fits(40));
        let reservation = log.reserve(40);
        assert_eq!(reservation, Reservation { offset: 1_000, skipped: Some((1_070, 1_100)) });
        assert_eq!((log.used_bytes(), log.dead_bytes()), (70, 30));
        log.pop(30, true);
        assert_eq!((log.used_bytes(), log.dead_bytes()), (40, 0));
    }

    #[test]
    fn logical_offsets_order_records_across_the_wrap() {
        let mut log = Log::new(0, 100);
        let old = log.reserve(60).offset;
        log.pop(60, false);
        let middle = log.reserve(40).offset;
        let young = log.reserve(30).offset;
        assert_eq!((old, middle, young), (0, 60, 0));
        assert!(log.logical(middle) < log.logical(young));
        assert_eq!(log.offset(log.logical(young)), young);
    }

    #[test]
    fn a_flush_covers_what_is_there_and_nothing_later() {
        let mut log = Log::new(0, 100);
        let before = log.reserve(20).offset;
        log.flush();
        let after = log.reserve(20).offset;
        assert!(log.is_flushed(before) && !log.is_flushed(after));
        log.pop(20, false);
        assert!(!log.holds_flushed());
    }
}
