//! The pinned poll loop. A [`Worker`] is a pure step, [`Worker::poll`], over the ports, the companion, the table and
//! the time it is given: it knows neither which port nor which clock that is. [`driver`] runs it on a core, and is
//! the one place that sleeps.

pub mod driver;
mod listener;
mod shard;
pub mod wake;

pub use listener::Listener;
pub use shard::Shard;

use std::sync::Arc;

use self::shard::Serving;
use crate::limits::COMPANION_BATCH;
use crate::metrics::{TcpEvent, WorkerMetrics};
use crate::port::{FrameAccounts, Port, PortError, QueueOwner};
use crate::time::Now;
use crate::transport::bypass::{Bypass, Streams};
use crate::transport::companion::CompanionWorkerEnd;

/// One worker: its queues, its companion and its shard.
pub struct Worker<P, Q> {
    lanes: Vec<Option<Bypass<P, Q>>>,
    /// By the number of their lane, whose failure they outlive.
    streams: Vec<Streams>,
    companion: Option<CompanionWorkerEnd>,
    shard: Shard,
    metrics: Arc<WorkerMetrics>,
}

/// What one poll did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Frames and companion datagrams taken.
    pub taken: usize,
    /// The first lane that failed, taken out of the worker, and why.
    pub failed: Option<(usize, PortError)>,
    /// Companion datagrams among them: the companion waits for their replies and buffers.
    pub companion_taken: usize,
}

impl<P: Port, Q: QueueOwner> Worker<P, Q> {
    /// A worker over these queues; a lane's number is its place here.
    #[must_use]
    pub fn new(lanes: Vec<Bypass<P, Q>>, companion: Option<CompanionWorkerEnd>, shard: Shard) -> Self {
        let metrics = Arc::clone(shard.metrics());
        Self { lanes: lanes.into_iter().map(Some).collect(), streams: Vec::new(), companion, shard, metrics }
    }

    /// Serves streams too, each of these on the lane of its place.
    #[must_use]
    pub fn with_streams(self, streams: Vec<Streams>) -> Self {
        Self { streams, ..self }
    }

    /// One step: takes what has arrived, answers it, sends the answers. Never blocks.
    pub fn poll(&mut self, now: Now) -> Progress {
        let mut progress = Progress::default();
        let Self { lanes, streams, companion, shard, metrics } = self;
        for (number, place) in lanes.iter_mut().enumerate() {
            // One failure a poll: what a later lane says would be lost.
            if progress.failed.is_some() {
                break;
            }
            let Some(lane) = place else { continue };
            match lane.poll(metrics, &mut Serving { shard, now }, streams.get_mut(number)) {
                Ok(frames) => progress.taken += frames,
                Err(error) if error.recovers_by_itself() => {}
                Err(error) => {
                    lane.survey(metrics);
                    *place = None;
                    progress.failed = Some((number, error));
                }
            }
        }
        if let Some(companion) = companion {
            let done = companion
                .poll(COMPANION_BATCH, metrics, |datagram, replies| shard.serve(now, datagram, replies));
            progress.taken += done.taken;
            progress.companion_taken = done.taken;
        }
        shard.poll(now);
        progress
    }

    /// Puts a lane in the place of one that failed.
    pub fn replace_lane(&mut self, number: usize, lane: Bypass<P, Q>) {
        if number >= self.lanes.len() {
            self.lanes.resize_with(number + 1, || None);
        }
        self.drop_lane(number);
        self.lanes[number] = Some(lane);
    }

    /// Gives a lane up; what it held is gone.
    pub fn drop_lane(&mut self, number: usize) {
        if let Some(mut lane) = self.lanes.get_mut(number).and_then(Option::take) {
            lane.survey(&self.metrics);
        }
    }

    /// The lanes in service, each with its number.
    pub fn lanes(&self) -> impl Iterator<Item = (usize, &Bypass<P, Q>)> {
        self.lanes.iter().enumerate().filter_map(|(number, lane)| lane.as_ref().map(|lane| (number, lane)))
    }

    /// Where every frame of every lane is, between polls.
    #[must_use]
    pub fn accounts(&self) -> FrameAccounts {
        self.lanes().fold(FrameAccounts::default(), |sum, (_, lane)| sum + lane.accounts())
    }

    /// The streams, by the number of their lane.
    #[must_use]
    pub fn streams(&self) -> &[Streams] {
        &self.streams
    }

    /// Closes every connection, from the next poll on.
    pub fn close_streams(&mut self) {
        for streams in &mut self.streams {
            streams.close_all();
        }
    }

    /// When streams want a poll though no frame comes, in nanoseconds of the monotonic clock; 0 is at once.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.lanes().filter_map(|(number, _)| self.streams.get(number)?.next_due_ns()).min()
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Brings the gauges up to date, and counts what the lanes' ports have dropped; too slow for every poll, wanted
    /// some times a second.
    pub fn publish(&mut self) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.survey(&self.metrics);
        }
        self.publish_streams();
        let accounts = self.accounts();
        self.metrics.frames_total.set(accounts.total);
        self.metrics.frames_lost.set(accounts.lost());
        self.shard.publish();
    }

    fn publish_streams(&self) {
        let mut sum = [0; TcpEvent::ALL.len()];
        let mut connections = 0;
        for streams in &self.streams {
            connections += streams.stack().holdings().flows as u64;
            for (sum, (_, count)) in sum.iter_mut().zip(streams.events()) {
                *sum += count;
            }
        }
        self.metrics.tcp_connections.set(connections);
        for (&event, count) in TcpEvent::ALL.iter().zip(sum) {
            self.metrics.tcp_happened(event, count);
        }
    }
}
