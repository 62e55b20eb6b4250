//! Runs a worker on its core: reads the clock once a round, polls, beats the heart, and sleeps when there is nothing
//! to do. This is the one place of the request path that sleeps or reads a clock.
//!
//! Each round starts with a reading of the clock; the time up to the next reading is the poll's, so a batch's
//! latency and the busy and idle times cost no reading of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use super::Worker;
use super::wake::Wake;
use crate::config::Idle;
use crate::limits::SLEEP_NS_MAX;
use crate::metrics::WorkerMetrics;
use crate::net::tcp::too_big::TooBig;
use crate::port::{FrameAccounts, Port, PortError, QueueOwner};
use crate::time::{NS_PER_MS, NS_PER_S, Now};
use crate::transport::bypass::Bypass;

/// How often gauges are published, ports surveyed, and commands looked for by a worker that is awake.
const HOUSEKEEPING_NS: u64 = 50 * NS_PER_MS;
/// Sleep while frames wait for room in the device, or reception for frames.
const BACKLOG_SLEEP_NS: u64 = 100_000;
/// Longest a stopping worker goes on answering what it has.
const DRAIN_NS_MAX: u64 = NS_PER_S;
/// Polls in which a worker that ends says so to its clients.
const FAREWELL_POLLS_MAX: usize = 256;
/// Rounds in a row without work after which a stopping worker is drained.
const DRAIN_IDLE_ROUNDS: u32 = 64;

/// Writes a heartbeat: called each round with the monotonic time, in nanoseconds.
pub type Beat = Box<dyn FnMut(u64) + Send>;

/// What the control plane tells a worker.
pub enum Command<P, Q> {
    /// Serve this lane in the place of the one that failed.
    ReplaceLane {
        /// Its number.
        number: usize,
        /// Which lane of this number it is: one more than the last.
        generation: u64,
        /// The lane.
        lane: Box<Bypass<P, Q>>,
        /// Its queue's heartbeat.
        beat: Beat,
    },
    /// Give this lane up: its interface is gone.
    DropLane {
        /// Its number.
        number: usize,
    },
    /// A router says that a packet of a connection, maybe of this worker's, was too large.
    PacketTooBig {
        /// What it says.
        message: TooBig,
        /// Held until the worker has heard it: whoever tells counts these, for anybody can make routers talk.
        unheard: Arc<()>,
    },
    /// Answer what has arrived, then end.
    Stop,
}

/// What a worker tells the control plane.
#[derive(Debug)]
pub enum Event {
    /// A lane failed and is no longer served.
    LaneFailed {
        /// The worker's number.
        worker: usize,
        /// The lane's number.
        lane: usize,
        /// Which lane of this number it was: what an earlier one met says nothing of a later one.
        generation: u64,
        /// Why.
        error: PortError,
    },
    /// The worker hit a broken invariant and ended; its queues pass to the kernel.
    Panicked {
        /// The worker's number.
        worker: usize,
    },
    /// The worker ended as it was told.
    Stopped {
        /// The worker's number.
        worker: usize,
        /// Where its frames were at the end.
        accounts: FrameAccounts,
    },
}

/// What a worker's thread needs besides the worker.
pub struct Driver<P, Q> {
    /// The worker's number.
    pub number: usize,
    /// How it waits for work.
    pub idle: Idle,
    /// The worker's own heartbeat, which the sentinel reads.
    pub beat: Beat,
    /// The heartbeat of each lane's queue, by the lane's number, which the XDP program reads. It stops when the lane
    /// fails.
    pub lane_beats: Vec<Option<Beat>>,
    /// How often the lane of each number was replaced.
    pub lane_generations: Vec<u64>,
    /// Commands, each followed by a wake.
    pub commands: Receiver<Command<P, Q>>,
    /// Whether another worker stands still at this monotonic time, in nanoseconds; `None` when there is no other.
    pub others_stale: Option<Box<dyn Fn(u64) -> bool + Send>>,
    /// Wakes the worker, after commands.
    pub wake: Wake,
    /// Where events go.
    pub events: Sender<Event>,
}

impl<P: Port, Q: QueueOwner> Driver<P, Q> {
    /// Runs the worker on the calling thread until it is told to stop.
    pub fn run(mut self, mut worker: Worker<P, Q>) {
        let metrics = Arc::clone(worker.shard().metrics());
        let spin_ns = match self.idle {
            Idle::Adaptive { spin_us } => Some(u64::from(spin_us) * 1_000),
            Idle::Busy => None,
        };
        let mut now = Now::read();
        let mut last_work_ns = now.monotonic_ns;
        let mut housekeeping_ns = 0;
        let mut called = false;
        let mut drain: Option<Drain> = None;
        loop {
            (self.beat)(now.monotonic_ns);
            for beat in self.lane_beats.iter_mut().flatten() {
                beat(now.monotonic_ns);
            }
            let progress = worker.poll(now);
            let taken = progress.taken;
            let worked = taken > 0;
            if let Some((lane, error)) = progress.failed {
                self.lane_failed(lane, error);
            }

            let after = Now::read();
            account(&metrics, taken, after.monotonic_ns.saturating_sub(now.monotonic_ns));
            now = after;
            if worked {
                last_work_ns = now.monotonic_ns;
            }

            let due = now.monotonic_ns >= housekeeping_ns;
            if due {
                housekeeping_ns = now.monotonic_ns + HOUSEKEEPING_NS;
                worker.publish(now);
                if let Some(others_stale) = &self.others_stale {
                    worker.set_suspended(others_stale(now.monotonic_ns));
                }
            }
            if (due || std::mem::take(&mut called)) && self.obey(&mut worker, now) && drain.is_none() {
                drain = Some(Drain { until_ns: now.monotonic_ns + DRAIN_NS_MAX, idle_rounds: 0 });
            }
            if let Some(drain) = &mut drain {
                if drain.is_over(worked, now.monotonic_ns, &worker) {
                    close_streams(&mut worker, now);
                    break;
                }
                continue;
            }

            let idle_ns = now.monotonic_ns.saturating_sub(last_work_ns);
            match spin_ns {
                Some(spin_ns) if !worked && idle_ns >= spin_ns => {
                    called = self.sleep(&mut worker, now);
                    let woken = Now::read();
                    metrics.sleeps.increment();
                    metrics.asleep_ns.add(woken.monotonic_ns.saturating_sub(now.monotonic_ns));
                    now = woken;
                    // What woke it is polled for at once, and spun for anew only when there was something.
                }
                _ if !worked => std::hint::spin_loop(),
                _ => {}
            }
        }
        worker.publish(now);
        let accounts = worker.accounts();
        let _ = self.events.send(Event::Stopped { worker: self.number, accounts });
    }

    /// Takes a failed lane out of service and passes the failure on.
    #[cold]
    fn lane_failed(&mut self, lane: usize, error: PortError) {
        if let Some(beat) = self.lane_beats.get_mut(lane) {
            *beat = None;
        }
        // Nobody listens any more when the control plane has gone first: nothing to tell it then.
        let generation = self.lane_generations.get(lane).copied().unwrap_or(0);
        let _ = self.events.send(Event::LaneFailed { worker: self.number, lane, generation, error });
    }

    /// Carries out commands. True when one of them is to stop, or nobody is left to give any.
    fn obey(&mut self, worker: &mut Worker<P, Q>, now: Now) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::ReplaceLane { number, generation, lane, beat }) => {
                    worker.replace_lane(number, *lane);
                    worker.shard().metrics().rebinds.increment();
                    if self.lane_beats.len() <= number {
                        self.lane_beats.resize_with(number + 1, || None);
                    }
                    if self.lane_generations.len() <= number {
                        self.lane_generations.resize(number + 1, 0);
                    }
                    self.lane_beats[number] = Some(beat);
                    self.lane_generations[number] = generation;
                }
                Ok(Command::DropLane { number }) => {
                    worker.drop_lane(number);
                    if let Some(beat) = self.lane_beats.get_mut(number) {
                        *beat = None;
                    }
                }
                Ok(Command::PacketTooBig { message, unheard: _ }) => worker.packet_too_big(now, &message),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    /// Sleeps until there is something to poll for, or a command comes, but never so long that the heartbeat grows stale.
    /// True when it was woken by the control plane.
    fn sleep(&self, worker: &mut Worker<P, Q>, now: Now) -> bool {
        // Neither room in the device nor frames coming back from it are signalled.
        let backlog = worker.lanes().any(|(_, lane)| lane.has_backlog() || lane.accounts().filling == 0);
        let longest_ns = if backlog { BACKLOG_SLEEP_NS } else { SLEEP_NS_MAX };
        // Without this a retransmission would wait for the longest sleep.
        let due_ns = worker.next_due_ns().map_or(u64::MAX, |due_ns| due_ns.saturating_sub(now.monotonic_ns));
        worker.sleep(&self.wake, longest_ns.min(due_ns))
    }
}

/// A worker on its way out.
struct Drain {
    until_ns: u64,
    idle_rounds: u32,
}

impl Drain {
    fn is_over<P: Port, Q: QueueOwner>(
        &mut self,
        worked: bool,
        monotonic_ns: u64,
        worker: &Worker<P, Q>,
    ) -> bool {
        self.idle_rounds = if worked { 0 } else { self.idle_rounds + 1 };
        let quiet =
            self.idle_rounds >= DRAIN_IDLE_ROUNDS && worker.accounts().sending == 0 && !worker.is_sending();
        quiet || monotonic_ns >= self.until_ns
    }
}

/// Tells every client of a stream that this is the end: after the last reply, for nothing can follow. One poll sends as
/// much as there is room for.
#[cold]
fn close_streams<P: Port, Q: QueueOwner>(worker: &mut Worker<P, Q>, now: Now) {
    worker.close_streams();
    for _ in 0..FAREWELL_POLLS_MAX {
        if worker.next_due_ns().is_none_or(|due_ns| due_ns > now.monotonic_ns) {
            return;
        }
        worker.poll(now);
    }
}

/// Books the time of one poll.
#[inline]
fn account(metrics: &WorkerMetrics, taken: usize, elapsed_ns: u64) {
    if taken > 0 {
        metrics.polls_busy.increment();
        metrics.busy_ns.add(elapsed_ns);
        metrics.latency.record(elapsed_ns, taken as u64);
    } else {
        metrics.polls_idle.increment();
        metrics.idle_ns.add(elapsed_ns);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::*;
    use crate::config::ChecksumPolicy;
    use crate::port::sim::{Faults, SimConfig, SimPort, SimQueue, simulated};
    use crate::table::memory::{MemoryTable, MemoryTableConfig};
    use crate::worker::Shard;

    fn lane(seed: u64) -> Bypass<SimPort, SimQueue> {
        let (_, port, owner) = simulated(seed, SimConfig::default(), Faults::default()).expect("memory");
        Bypass::new(port, owner, ChecksumPolicy::Verify)
    }

    #[test]
    fn a_failure_says_which_lane_of_its_number_it_was() {
        let (to_worker, commands) = mpsc::channel();
        let (events, happened) = mpsc::channel();
        let config = MemoryTableConfig { capacity_bytes: 8 << 20, ..MemoryTableConfig::default() };
        let table = MemoryTable::new(config).expect("memory for a small table");
        let shard = Shard::new(vec![], Box::new(table), Arc::default());
        let mut worker = Worker::new(vec![lane(1)], shard);
        let mut driver = Driver {
            number: 3,
            idle: Idle::Busy,
            beat: Box::new(|_| {}),
            lane_beats: vec![None],
            lane_generations: vec![0],
            commands,
            others_stale: None,
            wake: Wake::new().expect("an eventfd"),
            events,
        };
        let fail = |driver: &mut Driver<SimPort, SimQueue>, lane| {
            let reason = io::Error::from_raw_os_error(libc::ENODEV);
            driver.lane_failed(lane, PortError::Down { interface: "eth1".to_owned(), queue: 0, reason });
            match happened.try_recv() {
                Ok(Event::LaneFailed { worker: 3, lane, generation, .. }) => (lane, generation),
                other => panic!("it tells of a failure: {other:?}"),
            }
        };
        assert_eq!(fail(&mut driver, 0), (0, 0));
        for (number, generation) in [(0, 1), (2, 1), (0, 2)] {
            let lane = Box::new(lane(generation));
            let replace = Command::ReplaceLane { number, generation, lane, beat: Box::new(|_| {}) };
            to_worker.send(replace).expect("the driver is there");
            assert!(!driver.obey(&mut worker, Now::read()), "it goes on");
        }
        assert_eq!(fail(&mut driver, 0), (0, 2), "the lane in service, not one before it");
        assert_eq!(fail(&mut driver, 2), (2, 1));
    }
}
