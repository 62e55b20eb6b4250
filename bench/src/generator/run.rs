//! Where a run of load is: warming up, counting, or ending; and what counts then.

use std::time::{Duration, Instant};

use super::{Keys, Load, Outcome};
use crate::workload::Random;

/// The state of one run.
pub(super) struct Run {
    open: bool,
    counting: bool,
    warm_until: Instant,
    counted_from: Instant,
    length: Duration,
    next_key: u32,
    /// Keys of a run that ends with the last of them.
    finite: Option<u32>,
    under_way_max: usize,
    outstanding: usize,
}

impl Run {
    pub(super) fn new(load: &Load) -> Self {
        let now = Instant::now();
        let finite = match load.keys {
            Keys::EachOnce(keys) => Some(keys),
            Keys::Random(_) => None,
        };
        Self {
            open: true,
            counting: false,
            warm_until: now + load.warm_up,
            counted_from: now,
            length: load.length,
            next_key: 0,
            finite,
            under_way_max: 1,
            outstanding: load.outstanding,
        }
    }

    /// True while requests are sent.
    pub(super) fn open(&self) -> bool {
        self.open
    }

    /// Requests that may be under way by now.
    pub(super) fn under_way_max(&self) -> usize {
        self.under_way_max
    }

    /// A request was answered: one more may be under way.
    pub(super) fn answered(&mut self) {
        self.under_way_max = (self.under_way_max + 1).min(self.outstanding);
    }

    /// True when a reply that comes now belongs to the rate: once no more requests are sent, time no longer counts,
    /// and neither do replies. A run over each key once ends with its last reply.
    pub(super) fn counts_replies(&self) -> bool {
        self.open || self.finite.is_some()
    }

    /// True when the latency of a request sent then counts.
    pub(super) fn counts_from(&self, sent: Instant) -> bool {
        self.counting && sent >= self.counted_from
    }

    /// True at both edges. When counting starts, the figures of what came before are forgotten, except that it was
    /// wrong, missing or late.
    pub(super) fn advance(&mut self, now: Instant, outcome: &mut Outcome) -> bool {
        if self.counts_replies() {
            outcome.elapsed = now - self.counted_from;
        }
        if !self.counting && now >= self.warm_until {
            self.counting = true;
            self.counted_from = now;
            let Outcome { wrong, missing, late, .. } = *outcome;
            *outcome = Outcome { wrong, missing, late, ..Outcome::default() };
            return true;
        }
        let over = match self.finite {
            Some(keys) => self.next_key >= keys,
            None => self.counting && now - self.counted_from >= self.length,
        };
        let ends = self.open && over;
        self.open &= !over;
        ends
    }

    /// Counting starts here, if an edge has just been called because it was to start.
    pub(super) fn count_from(&mut self, now: Instant) {
        if self.open {
            self.counted_from = now;
        }
    }

    pub(super) fn next_key(&mut self, keys: Keys, random: &mut Random) -> Option<u32> {
        match keys {
            Keys::EachOnce(keys) => {
                let key = self.next_key;
                self.next_key += u32::from(key < keys);
                (key < keys).then_some(key)
            }
            Keys::Random(keys) => Some(random.below(keys)),
        }
    }

    /// The last key was not asked for after all.
    pub(super) fn give_back(&mut self, keys: Keys) {
        if matches!(keys, Keys::EachOnce(_)) {
            self.next_key -= 1;
        }
    }
}
