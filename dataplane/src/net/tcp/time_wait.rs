//! Flows that we closed first and whose late segments have to be waited for (RFC 9293 section 3.6.1): compact records
//! in a ring, in the order in which they expire. When the ring is full the oldest gives way before its time.
//!
//! A record is not renewed when the peer repeats its FIN: the time runs from the end of the flow.

use super::ends::Ends;
use super::sequence::Sequence;

/// What is remembered of a closed flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) ends: Ends,
    pub(super) hash: u32,
    /// Our next sequence number and the peer's.
    pub(super) ours: Sequence,
    pub(super) peers: Sequence,
    /// The peer's last timestamp.
    pub(super) stamp: Option<u32>,
    pub(super) since_ns: u64,
    /// False once a new flow between the same ends took its place.
    live: bool,
}

impl Waiting {
    pub(super) const fn new(
        ends: Ends,
        hash: u32,
        ours: Sequence,
        peers: Sequence,
        stamp: Option<u32>,
        since_ns: u64,
    ) -> Self {
        Self { ends, hash, ours, peers, stamp, since_ns, live: true }
    }

    /// True for a SYN that cannot be an old duplicate: it is newer than everything of the old flow (RFC 9293
    /// section 3.6.1, RFC 6191 section 2).
    pub(super) fn gives_way_to(&self, sequence: Sequence, stamp: Option<u32>) -> bool {
        match (self.stamp, stamp) {
            (Some(last), Some(new)) if new != last => (new.wrapping_sub(last) as i32) > 0,
            _ => sequence.after(self.peers),
        }
    }
}

/// The ring.
pub(super) struct Ring {
    records: Box<[Waiting]>,
    head: usize,
    /// Places in use, some of which are not live any more.
    used: usize,
    live: usize,
    life_ns: u64,
}

impl Ring {
    pub(super) fn new(count: usize, life_ns: u64) -> Self {
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let nothing = Waiting {
            live: false,
            ..Waiting::new(Ends::new(nobody, nobody), 0, Sequence(0), Sequence(0), None, 0)
        };
        Self { records: vec![nothing; count].into_boxed_slice(), head: 0, used: 0, live: 0, life_ns }
    }

    pub(super) fn get(&self, number: u32) -> &Waiting {
        &self.records[number as usize]
    }

    /// Records that are live.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// True when the next record needs the place of the oldest.
    pub(super) const fn is_full(&self) -> bool {
        self.used == self.records.len()
    }

    /// Adds a record; there must be room.
    pub(super) fn push(&mut self, waiting: Waiting) -> u32 {
        assert!(!self.is_full(), "room was made before");
        let number = (self.head + self.used) % self.records.len();
        self.records[number] = waiting;
        self.used += 1;
        self.live += 1;
        number as u32
    }

    /// Forgets a record wherever it stands; its place is free when those before it are.
    pub(super) fn forget(&mut self, number: u32) {
        let record = &mut self.records[number as usize];
        debug_assert!(record.live, "forgotten twice");
        record.live = false;
        self.live -= 1;
    }

    /// Takes the oldest out: its number and itself, unless it was forgotten before.
    pub(super) fn pop(&mut self) -> Option<(u32, Waiting)> {
        debug_assert!(self.used > 0, "there is an oldest");
        let number = self.head;
        self.head = (self.head + 1) % self.records.len();
        self.used -= 1;
        let record = &mut self.records[number];
        std::mem::take(&mut record.live).then(|| {
            self.live -= 1;
            (number as u32, *record)
        })
    }

    /// True when the oldest has waited long enough.
    pub(super) fn oldest_is_over(&self, now_ns: u64) -> bool {
        self.used > 0 && {
            let oldest = &self.records[self.head];
            !oldest.live || now_ns.saturating_sub(oldest.since_ns) >= self.life_ns
        }
    }

    /// When the oldest has waited long enough.
    pub(super) fn next_ns(&self) -> Option<u64> {
        (self.used > 0).then(|| self.records[self.head].since_ns + self.life_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(port: u16, since_ns: u64) -> Waiting {
        let ends = Ends::new(([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], port).into());
        Waiting::new(ends, 0, Sequence(5), Sequence(u32::MAX), Some(7), since_ns)
    }

    #[test]
    fn records_leave_in_order_and_forgotten_ones_leave_no_trace() {
        let mut ring = Ring::new(2, 10);
        let first = ring.push(waiting(1, 0));
        ring.push(waiting(2, 3));
        assert!(ring.is_full() && !ring.oldest_is_over(9));
        ring.forget(first);
        assert!(ring.oldest_is_over(0));
        assert!(ring.pop().is_none());
        assert_eq!((ring.live(), ring.next_ns()), (1, Some(13)));
        assert!(ring.oldest_is_over(13));
        assert_eq!(ring.pop().map(|(_, record)| record.ends.peer_port), Some(2));
        assert_eq!((ring.live(), ring.next_ns()), (0, None));
    }

    #[test]
    fn a_newer_syn_takes_the_place_and_an_old_duplicate_does_not() {
        let record = waiting(1, 0);
        assert!(record.gives_way_to(Sequence(0), None), "a later number, over the wrap");
        assert!(!record.gives_way_to(Sequence(u32::MAX), None));
        assert!(record.gives_way_to(Sequence(u32::MAX - 9), Some(8)), "a later stamp");
        assert!(!record.gives_way_to(Sequence(0), Some(6)), "an earlier stamp");
        assert!(record.gives_way_to(Sequence(0), Some(7)), "within one tick the number tells");
    }
}
