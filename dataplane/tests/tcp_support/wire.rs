//! A wire with faults.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What goes wrong, in frames of a thousand, and how long a frame takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    pub(crate) corrupt: u32,
    /// Frames that come later than those sent after them, and by how much at most.
    pub(crate) reorder: u32,
    pub(crate) reorder_ns: u64,
    pub(crate) delay_ns: u64,
}

type Arrival = Reverse<(u64, u64, Vec<u8>)>;

/// Decides whether a frame that is sent to this side is lost: how many were sent to it before, and the frame.
pub(crate) type Dropper = Box<dyn FnMut(Side, u64, &[u8]) -> bool>;

pub(crate) struct Wire {
    faults: Faults,
    random: Random,
    to_client: BinaryHeap<Arrival>,
    to_server: BinaryHeap<Arrival>,
    count: u64,
    sent: [u64; 2],
    pub(crate) drops: Option<Dropper>,
    /// When a run goes on.
    pub(crate) at_ns: u64,
    /// Every frame that was sent, with its time, when asked for.
    pub(crate) trace: Option<Vec<(u64, Side, Vec<u8>)>>,
}

impl Wire {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            faults,
            random: Random(seed),
            to_client: BinaryHeap::new(),
            to_server: BinaryHeap::new(),
            count: 0,
            sent: [0; 2],
            drops: None,
            at_ns: 1_000_000_000,
            trace: None,
        }
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub(crate) fn send(&mut self, to: Side, at_ns: u64, frames: impl Iterator<Item = Vec<u8>>) {
        for frame in frames {
            if let Some(trace) = &mut self.trace {
                trace.push((at_ns, to, frame.clone()));
            }
            let before = self.sent[to as usize];
            self.sent[to as usize] += 1;
            if self.drops.as_mut().is_some_and(|drops| drops(to, before, &frame)) {
                continue;
            }
            let copies = if self.random.permille(self.faults.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                if self.random.permille(self.faults.loss) {
                    continue;
                }
                let mut frame = frame.clone();
                if self.random.permille(self.faults.corrupt) {
                    // Nothing guards the flow label and the hop limit of IPv6, and a link header is not ours.
                    let bit = self.random.below(8);
                    let place = 14 + 20 + self.random.below(frame.len() as u64 - 34) as usize;
                    frame[place] ^= 1 << bit;
                }
                let mut arrival_ns = at_ns + self.faults.delay_ns;
                if self.random.permille(self.faults.reorder) {
                    arrival_ns += self.random.below(self.faults.reorder_ns + 1);
                }
                self.count += 1;
                let queue = if to == Side::Client { &mut self.to_client } else { &mut self.to_server };
                queue.push(Reverse((arrival_ns, self.count, frame)));
            }
        }
    }

    pub(crate) fn take_due(&mut self, side: Side, at_ns: u64) -> Vec<Vec<u8>> {
        let queue = if side == Side::Client { &mut self.to_client } else { &mut self.to_server };
        let mut frames = Vec::new();
        while queue.peek().is_some_and(|Reverse((arrival_ns, ..))| *arrival_ns <= at_ns) {
            frames.extend(queue.pop().map(|Reverse((_, _, frame))| frame));
        }
        frames
    }

    pub(crate) fn next_ns(&self) -> Option<u64> {
        [&self.to_client, &self.to_server]
            .into_iter()
            .filter_map(|queue| queue.peek().map(|Reverse((arrival_ns, ..))| *arrival_ns))
            .min()
    }
}
