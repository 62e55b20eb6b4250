//! The pinned poll loop. A [`Worker`] is a pure step, [`Worker::poll`], over the ports, the ordinary sockets, the table and
//! the time it is given: it knows neither which port nor which clock that is. [`driver`] runs it on a core, and is
//! the one place that sleeps.

pub mod driver;
mod listener;
mod shard;
pub mod wake;

pub use listener::Listener;
pub use shard::Shard;

use std::os::fd::AsFd;
use std::sync::Arc;

use self::shard::Serving;
use self::wake::Wake;
use crate::metrics::{TcpEvent, WorkerMetrics};
use crate::net::tcp::too_big::TooBig;
use crate::port::{FrameAccounts, Port, PortError, QueueOwner};
use crate::time::Now;
use crate::transport::bypass::{Bypass, Streams};
use crate::transport::kernel::Kernel;

/// One worker: its queues, its ordinary sockets and its shard.
pub struct Worker<P, Q> {
    lanes: Vec<Option<Bypass<P, Q>>>,
    /// By the number of their lane, whose failure they outlive.
    streams: Vec<Streams>,
    kernel: Option<Kernel>,
    shard: Shard,
    metrics: Arc<WorkerMetrics>,
}

/// What one poll did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Frames, datagrams and pieces of streams taken.
    pub taken: usize,
    /// The first lane that failed, taken out of the worker, and why.
    pub failed: Option<(usize, PortError)>,
}

impl<P: Port, Q: QueueOwner> Worker<P, Q> {
    /// A worker over these queues; a lane's number is its place here.
    #[must_use]
    pub fn new(lanes: Vec<Bypass<P, Q>>, shard: Shard) -> Self {
        let metrics = Arc::clone(shard.metrics());
        Self {
            lanes: lanes.into_iter().map(Some).collect(),
            streams: Vec::new(),
            kernel: None,
            shard,
            metrics,
        }
    }

    /// Serves streams too, each of these on the lane of its place.
    #[must_use]
    pub fn with_streams(self, streams: Vec<Streams>) -> Self {
        Self { streams, ..self }
    }

    /// Serves ordinary sockets too.
    #[must_use]
    pub fn with_kernel(self, kernel: Option<Kernel>) -> Self {
        Self { kernel, ..self }
    }

    /// One step: takes what has arrived, answers it, sends the answers. Never blocks.
    pub fn poll(&mut self, now: Now) -> Progress {
        let mut progress = Progress::default();
        let Self { lanes, streams, kernel, shard, metrics } = self;
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
        if let Some(kernel) = kernel {
            progress.taken += kernel.poll(metrics, &mut Serving { shard, now });
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
        if let Some(kernel) = &mut self.kernel {
            kernel.close_all();
        }
    }

    /// Says whether another worker stands still.
    pub fn set_suspended(&mut self, suspended: bool) {
        self.shard.set_suspended(suspended);
        if let Some(kernel) = &mut self.kernel {
            kernel.set_suspended(suspended);
        }
    }

    /// Whether replies to ordinary sockets are still on their way.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.kernel.as_ref().is_some_and(Kernel::is_sending)
    }

    /// Sleeps until a frame or anything else of its own comes, `wake` is woken, or the time is over. True when it was
    /// woken. For the driver alone.
    pub(super) fn sleep(&mut self, wake: &Wake, timeout_ns: u64) -> bool {
        let Self { lanes, kernel, .. } = self;
        let sockets = match kernel.as_mut().map(Kernel::asleep) {
            Some(None) => return false,
            Some(Some(handle)) => Some(handle),
            None => None,
        };
        let lanes = lanes.iter().flatten().filter_map(Bypass::wait_handle);
        let woken = wake::sleep(std::iter::once(wake.as_fd()).chain(sockets).chain(lanes), timeout_ns);
        if let Some(kernel) = kernel {
            kernel.awake();
        }
        woken && wake.clear()
    }

    /// A router says that a packet was too large: the connection may be of any lane.
    pub fn packet_too_big(&mut self, now: Now, message: &TooBig) {
        for streams in &mut self.streams {
            streams.packet_too_big(now, message);
        }
    }

    /// When streams want a poll though no frame comes, in nanoseconds of the monotonic clock; 0 is at once.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        let kernel = self.kernel.as_ref().filter(|kernel| kernel.is_due()).map(|_| 0);
        self.lanes().filter_map(|(number, _)| self.streams.get(number)?.next_due_ns()).chain(kernel).min()
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Brings the gauges up to date, counts what the lanes' ports have dropped, and closes ordinary connections whose time
    /// is over; too slow for every poll, wanted some times a second.
    pub fn publish(&mut self, now: Now) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.survey(&self.metrics);
        }
        self.publish_streams();
        if let Some(kernel) = &mut self.kernel {
            kernel.sweep(now);
            self.metrics.kernel_connections.set(kernel.connections() as u64);
            for (&event, &count) in TcpEvent::ALL.iter().zip(kernel.events()) {
                self.metrics.kernel_tcp_happened(event, count);
            }
        }
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
