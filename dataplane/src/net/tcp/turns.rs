//! Whose turn it is: flows with something to do at the next poll, and flows that wait for what only others give back,
//! a chunk or a record of a segment. Those are asked again when something came back, not before: until then there is
//! nothing to wake for.

use std::collections::VecDeque;

/// What a flow waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// Chunks for bytes to be sent.
    Chunks,
    /// Records of segments under way.
    Records,
}

/// How a pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Supply {
    /// Free now.
    pub(super) available: usize,
    /// Given back since the pool was made.
    pub(super) given: u64,
}

/// Flows that wait for one pool, the longest first.
struct Line {
    flows: VecDeque<u32>,
    /// What had been given back when those who wait were last counted, and how many of them have not been asked since.
    given: u64,
    pending: usize,
}

impl Line {
    fn new(flows: usize) -> Self {
        Self { flows: VecDeque::with_capacity(flows), given: 0, pending: 0 }
    }

    fn is_due(&self, supply: Supply) -> bool {
        let pending = if supply.given == self.given { self.pending } else { self.flows.len() };
        pending > 0 && supply.available > 0
    }

    /// How many of the first are to be asked now: no more than there is something for, for the others would find
    /// nothing; and nobody twice before more was given back, for it was not enough for him.
    fn take(&mut self, supply: Supply) -> usize {
        if supply.given != self.given {
            (self.given, self.pending) = (supply.given, self.flows.len());
        }
        let count = self.pending.min(supply.available);
        self.pending -= count;
        count
    }
}

/// Whose turn it is. Who stands where is noted by the flows themselves, so that nobody stands anywhere twice.
pub(super) struct Turns {
    ready: VecDeque<u32>,
    waiting: [Line; 2],
}

impl Turns {
    /// For at most so many flows; the last time it allocates.
    pub(super) fn new(flows: usize) -> Self {
        Self { ready: VecDeque::with_capacity(flows), waiting: [Line::new(flows), Line::new(flows)] }
    }

    /// A flow has something to do.
    #[inline]
    pub(super) fn push(&mut self, flow: u32) {
        self.ready.push_back(flow);
    }

    /// The flow that has waited longest to do something.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<u32> {
        self.ready.pop_front()
    }

    /// Flows with something to do.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.ready.len()
    }

    /// A flow waits for a pool.
    pub(super) fn wait(&mut self, flow: u32, pool: Pool) {
        self.waiting[pool as usize].flows.push_back(flow);
    }

    /// How many flows are to be asked again with [`Turns::next_waiting`].
    #[inline]
    pub(super) fn take_waiting(&mut self, pool: Pool, supply: Supply) -> usize {
        let line = &mut self.waiting[pool as usize];
        if line.flows.is_empty() { 0 } else { line.take(supply) }
    }

    /// The flow that has waited longest for a pool.
    pub(super) fn next_waiting(&mut self, pool: Pool) -> Option<u32> {
        self.waiting[pool as usize].flows.pop_front()
    }

    /// True when somebody can do something now.
    pub(super) fn is_due(&self, chunks: Supply, records: Supply) -> bool {
        let [for_chunks, for_records] = &self.waiting;
        !self.ready.is_empty() || for_chunks.is_due(chunks) || for_records.is_due(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Supply = Supply { available: 0, given: 0 };

    fn supply(available: usize, given: u64) -> Supply {
        Supply { available, given }
    }

    /// Everybody who is asked now.
    fn asked(turns: &mut Turns, supply: Supply) -> Vec<u32> {
        let count = turns.take_waiting(Pool::Chunks, supply);
        (0..count).map(|_| turns.next_waiting(Pool::Chunks).expect("who was counted")).collect()
    }

    #[test]
    fn who_waits_is_asked_when_something_came_back_and_once_for_it() {
        let mut turns = Turns::new(4);
        (0..3).for_each(|flow| turns.wait(flow, Pool::Chunks));
        assert!(!turns.is_due(NOTHING, supply(9, 9)), "the other pool is no help");
        assert!(!turns.is_due(supply(2, 0), NOTHING), "what was there before was not enough");
        assert!(turns.is_due(supply(2, 1), NOTHING));
        assert_eq!(asked(&mut turns, supply(2, 1)), [0, 1]);
        turns.wait(0, Pool::Chunks);
        assert!(turns.is_due(supply(1, 1), NOTHING), "one has not been asked");
        assert!(!turns.is_due(supply(0, 1), NOTHING), "the two have taken it");
        assert_eq!(asked(&mut turns, supply(5, 1)), [2]);
        assert!(!turns.is_due(supply(5, 1), NOTHING), "everybody has been asked");
        assert_eq!(asked(&mut turns, supply(6, 2)), [0]);
    }
}
