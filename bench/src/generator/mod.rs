//! A load generator over a [`Port`]: a closed loop with a number of requests under way, frames written by hand,
//! and a look at every reply.

mod flow;
mod reflect;

pub use flow::{Endpoint, Flow, HEADERS_BYTES};
pub use reflect::{Reflector, reflect_once};

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dataplane::port::{Frame, FrameBatch, Port, QueueOwner};
use dataplane::testbed::signals;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::latency::Latencies;
use crate::workload::{Operation, REQUEST_BYTES_MAX, Random, Request, split_reply};

/// How long it polls for a reply before it sleeps: a generator that is itself woken measures its own wake-up.
const SPIN: Duration = Duration::from_micros(50);
/// A reply that takes longer is missing.
const REPLY_LIMIT: Duration = Duration::from_millis(500);
/// Most requests under way: request ids name their slot in the low byte.
pub const OUTSTANDING_MAX: usize = 256;

/// What a right reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// memcached's answer.
    Answer,
    /// The request itself, turned round.
    Echo,
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Each of the first so many once, in order; the run ends with the last.
    EachOnce(u32),
    /// Any of the first so many.
    Random(u32),
}

/// One run of load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What is asked.
    pub operation: Operation,
    /// Of which keys.
    pub keys: Keys,
    /// Requests under way.
    pub outstanding: usize,
    /// What comes back.
    pub expect: Expect,
    /// Replies of this first part are checked but not counted.
    pub warm_up: Duration,
    /// How long it then goes on.
    pub length: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Replies counted, right or wrong.
    pub replies: u64,
    /// Replies that were not what they had to be, and frames that were no reply.
    pub wrong: u64,
    /// Requests without a reply.
    pub missing: u64,
    /// Time the counted replies took.
    pub elapsed: Duration,
    /// Latencies of the counted replies.
    pub latencies: Latencies,
}

impl Outcome {
    /// Replies a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64()
    }
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    request: Request,
    sent: Instant,
}

/// The generator, on a port of its own.
#[derive(Debug)]
pub struct Generator<P, Q> {
    port: P,
    queue: Q,
    flow: Flow,
    /// Version of every value it stores and expects.
    version: u32,
    random: Random,
    slots: Vec<Option<UnderWay>>,
    free: Vec<u8>,
    /// High byte of the next request id in each slot.
    generations: Vec<u8>,
    /// Frames that came with replies and leave with the next requests.
    spare: Vec<Frame>,
}

impl<P: Port, Q: QueueOwner> Generator<P, Q> {
    /// A generator that talks along `flow`.
    #[must_use]
    pub fn new(port: P, queue: Q, flow: Flow) -> Self {
        Self {
            port,
            queue,
            flow,
            version: 1,
            random: Random::new(1),
            slots: vec![None; OUTSTANDING_MAX],
            free: Vec::with_capacity(OUTSTANDING_MAX),
            generations: vec![0; OUTSTANDING_MAX],
            spare: Vec::with_capacity(OUTSTANDING_MAX),
        }
    }

    /// The port, to look at.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// Frames nobody has, by the accounts of both sides.
    pub fn frames_lost(&mut self) -> u64 {
        let mut accounts = self.queue.accounts();
        let port = self.port.accounts();
        accounts.received += port.received;
        accounts.sending += port.sending;
        accounts.free += port.free;
        accounts.held += port.held + self.spare.len() as u64;
        accounts.lost()
    }

    /// Runs one load to its end. `edge` is called twice: when counting starts, and when no more requests are sent;
    /// what is still under way then is waited for.
    ///
    /// # Errors
    /// When the port fails.
    pub fn run(&mut self, load: &Load, edge: &mut dyn FnMut() -> Result<()>) -> Result<Outcome> {
        assert!((1..=OUTSTANDING_MAX).contains(&load.outstanding), "1 to 256 requests can be under way");
        self.free.clear();
        self.free.extend((0..load.outstanding).rev().map(|slot| slot as u8));
        self.slots.fill(None);
        let mut outcome = Outcome::default();
        let mut run = Run::new(load);
        let mut batch = FrameBatch::new();
        let mut busy_at = Instant::now();
        loop {
            self.queue.poll().context("the generator's queue")?;
            self.port.receive(&mut batch).context("the generator's port")?;
            let now = Instant::now();
            let idle = batch.is_empty();
            for frame in batch.drain(..) {
                self.settle(&frame, now, load.expect, &mut outcome);
                self.spare.push(frame);
            }
            if run.advance(now, &mut outcome) {
                edge()?;
            }
            if run.open && !signals::caught() {
                self.fill(load, now, &mut run);
            } else if self.free.len() == load.outstanding {
                self.rest();
                return Ok(outcome);
            }
            self.port.flush().context("the generator's port")?;
            if !idle {
                busy_at = now;
            } else if now - busy_at > SPIN {
                self.give_up_late(now, &mut outcome);
                self.wait()?;
            }
        }
    }

    /// Gives every free slot a request.
    fn fill(&mut self, load: &Load, now: Instant, run: &mut Run) {
        while let Some(&slot) = self.free.last() {
            let Some(key) = run.next_key(load.keys, &mut self.random) else { return };
            let Some(mut frame) = self.spare.pop().or_else(|| self.port.allocate()) else {
                run.give_back(load.keys);
                return;
            };
            let request = Request { operation: load.operation, key, version: self.version };
            let index = usize::from(slot);
            let id = u16::from(self.generations[index]) << 8 | u16::from(slot);
            let flow = &self.flow;
            self.port.umem().compose(&mut frame, |out| flow.write(out, |payload| request.write(id, payload)));
            if let Err(frame) = self.port.transmit(frame) {
                self.spare.push(frame);
                run.give_back(load.keys);
                return;
            }
            self.slots[index] = Some(UnderWay { request, sent: now });
            self.free.pop();
        }
    }

    fn settle(&mut self, frame: &Frame, now: Instant, expect: Expect, outcome: &mut Outcome) {
        let packet = self.port.umem().packet(frame);
        // Neighbour discovery and its like are not ours.
        let Some(payload) = self.flow.read(packet) else { return };
        let Some((id, body)) = split_reply(payload) else {
            outcome.wrong += 1;
            return;
        };
        let [generation, slot] = id.to_be_bytes();
        let index = usize::from(slot);
        let waiting = if self.generations[index] == generation { self.slots[index].take() } else { None };
        let Some(waiting) = waiting else {
            outcome.wrong += 1;
            return;
        };
        self.generations[index] = generation.wrapping_add(1);
        self.free.push(slot);
        outcome.replies += 1;
        outcome.latencies.record(now - waiting.sent);
        let right = match expect {
            Expect::Answer => waiting.request.answered_by(body),
            Expect::Echo => {
                let mut sent = [0; REQUEST_BYTES_MAX];
                let length = waiting.request.write(id, &mut sent);
                payload == &sent[..length]
            }
        };
        outcome.wrong += u64::from(!right);
    }

    fn give_up_late(&mut self, now: Instant, outcome: &mut Outcome) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.take_if(|waiting| now - waiting.sent > REPLY_LIMIT).is_some() {
                outcome.missing += 1;
                self.generations[index] = self.generations[index].wrapping_add(1);
                self.free.push(index as u8);
            }
        }
    }

    /// Sleeps until something is received, for ten milliseconds at most.
    fn wait(&self) -> Result<()> {
        wait_for(&self.port, Duration::from_millis(10))
    }

    /// Gives the frames between runs back to the port.
    fn rest(&mut self) {
        for frame in self.spare.drain(..) {
            self.port.release(frame);
        }
    }
}

/// Sleeps until the port has something, or `limit` is over. A port without a handle does not wait.
pub(crate) fn wait_for(port: &impl Port, limit: Duration) -> Result<()> {
    let Some(handle) = port.wait_handle() else { return Ok(()) };
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(handle, PollFlags::IN)], Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("wait for the port"),
    }
}

/// Where a run is: warming up, counting, or ending.
struct Run {
    open: bool,
    counting: bool,
    warm_until: Instant,
    counted_from: Instant,
    length: Duration,
    next_key: u32,
    finite: Option<u32>,
}

impl Run {
    fn new(load: &Load) -> Self {
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
        }
    }

    /// True at both edges. When counting starts, the figures of what came before are forgotten, except that it was
    /// wrong or missing.
    fn advance(&mut self, now: Instant, outcome: &mut Outcome) -> bool {
        if self.open {
            outcome.elapsed = now - self.counted_from;
        }
        if !self.counting && now >= self.warm_until {
            self.counting = true;
            self.counted_from = now;
            let Outcome { wrong, missing, .. } = *outcome;
            *outcome = Outcome { wrong, missing, ..Outcome::default() };
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

    fn next_key(&mut self, keys: Keys, random: &mut Random) -> Option<u32> {
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
    fn give_back(&mut self, keys: Keys) {
        if matches!(keys, Keys::EachOnce(_)) {
            self.next_key -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
