//! A load generator over a [`Port`]: a closed loop with a number of requests under way, frames written by hand,
//! and a look at every reply.

mod flow;
mod reflect;
mod run;

pub use flow::{Endpoint, Flow, HEADERS_BYTES, Received};
pub use reflect::{Reflector, reflect_once};

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dataplane::port::{Frame, FrameBatch, Port, QueueOwner};
use dataplane::testbed::signals;
use rustix::event::{PollFd, PollFlags, Timespec};

use run::Run;

use crate::latency::Latencies;
use crate::workload::{Operation, REQUEST_BYTES_MAX, Random, Request, split_reply};

/// How long it polls for a reply before it sleeps: a generator that is itself woken measures its own wake-up.
const SPIN: Duration = Duration::from_micros(50);
/// A reply that takes longer is missing, and its slot is used again: as long as that takes, one request fewer is
/// under way. Long enough for a virtual machine that is taken away for a while.
const REPLY_LIMIT: Duration = Duration::from_millis(100);
/// How often it looks for replies that are late.
const LATE_INTERVAL: Duration = Duration::from_millis(1);
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
    /// Replies of this first part are checked but not counted. In it the number of requests under way grows, one
    /// with each reply, up to `outstanding`: all at once they would be one burst.
    pub warm_up: Duration,
    /// How long it then goes on.
    pub length: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Replies that came while it counted, right or wrong.
    pub replies: u64,
    /// Replies that were not what they had to be: damaged, of another request, or with other contents.
    pub wrong: u64,
    /// Requests without a reply.
    pub missing: u64,
    /// Replies that came after they had been given up; they are not missing, and in no other figure.
    pub late: u64,
    /// How long it counted.
    pub elapsed: Duration,
    /// Latencies of the requests that were sent while it counted. The loop is closed: a request is sent when an
    /// earlier one is answered, so that while a server stands still nothing is sent that would have had to wait
    /// (coordinated omission), and nothing corrects that.
    pub latencies: Latencies,
    /// Sum of those latencies.
    pub latency_sum: Duration,
}

impl Outcome {
    /// Replies a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64()
    }

    /// Requests under way on average, by Little's law: rate times mean latency. A request that was lost is not
    /// among them, though its slot is taken until it is given up.
    #[must_use]
    pub fn under_way_mean(&self) -> f64 {
        self.latency_sum.as_secs_f64() / self.elapsed.as_secs_f64()
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
    /// Requests that were given up, by their ids: their replies may still come.
    given_up: HashMap<u16, Request>,
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
            given_up: HashMap::with_capacity(OUTSTANDING_MAX),
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
        self.given_up.clear();
        let mut outcome = Outcome::default();
        let mut run = Run::new(load);
        let mut batch = FrameBatch::new();
        let mut busy_at = Instant::now();
        let mut late_at = busy_at + LATE_INTERVAL;
        loop {
            self.queue.poll().context("the generator's queue")?;
            self.port.receive(&mut batch).context("the generator's port")?;
            let mut now = Instant::now();
            let idle = batch.is_empty();
            for frame in batch.drain(..) {
                self.settle(&frame, now, load.expect, &mut run, &mut outcome);
                self.spare.push(frame);
            }
            if now >= late_at {
                self.give_up_late(now, &mut outcome);
                late_at = now + LATE_INTERVAL;
            }
            if run.advance(now, &mut outcome) {
                edge()?;
                // What the edge itself took is in no figure.
                now = Instant::now();
                run.count_from(now);
            }
            if run.open() && !signals::caught() {
                self.fill(load, now, &mut run);
            } else if self.free.len() == load.outstanding {
                self.rest();
                return Ok(outcome);
            }
            self.port.flush().context("the generator's port")?;
            if !idle {
                busy_at = now;
            } else if now - busy_at > SPIN {
                self.wait()?;
            }
        }
    }

    /// Gives every free slot a request, as far as there may be requests under way.
    fn fill(&mut self, load: &Load, now: Instant, run: &mut Run) {
        while let Some(&slot) = self.free.last()
            && load.outstanding - self.free.len() < run.under_way_max()
        {
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

    fn settle(&mut self, frame: &Frame, now: Instant, expect: Expect, run: &mut Run, outcome: &mut Outcome) {
        let packet = self.port.umem().packet(frame);
        let payload = match self.flow.read(packet) {
            Received::Payload(payload) => payload,
            Received::Damaged => {
                outcome.wrong += 1;
                return;
            }
            Received::Foreign => return,
        };
        let Some((id, body)) = split_reply(payload) else {
            outcome.wrong += 1;
            return;
        };
        let [generation, slot] = id.to_be_bytes();
        let index = usize::from(slot);
        let waiting = if self.generations[index] == generation { self.slots[index].take() } else { None };
        let request = if let Some(waiting) = waiting {
            self.generations[index] = generation.wrapping_add(1);
            self.free.push(slot);
            run.answered();
            outcome.replies += u64::from(run.counts_replies());
            if run.counts_from(waiting.sent) {
                let latency = now - waiting.sent;
                outcome.latencies.record(latency);
                outcome.latency_sum += latency;
            }
            waiting.request
        } else if let Some(request) = self.given_up.remove(&id) {
            outcome.missing -= 1;
            outcome.late += 1;
            request
        } else {
            outcome.wrong += 1;
            return;
        };
        let right = match expect {
            Expect::Answer => request.answered_by(body),
            Expect::Echo => {
                let mut sent = [0; REQUEST_BYTES_MAX];
                let length = request.write(id, &mut sent);
                payload == &sent[..length]
            }
        };
        outcome.wrong += u64::from(!right);
    }

    fn give_up_late(&mut self, now: Instant, outcome: &mut Outcome) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(late) = slot.take_if(|waiting| now - waiting.sent > REPLY_LIMIT) {
                outcome.missing += 1;
                let id = u16::from(self.generations[index]) << 8 | index as u16;
                self.given_up.insert(id, late.request);
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

#[cfg(test)]
mod tests;
