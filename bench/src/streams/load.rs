//! What is asked for, how fast, and what came of it.

use std::time::Duration;

use super::dialect::Shape;
use crate::latency::Latencies;

/// Most requests under way on one connection.
pub const PIPELINE_MAX: usize = 16;

/// Which keys are asked for: so many from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Number of the first.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// Each once, in order, and the run ends with the last; otherwise at random.
    pub each_once: bool,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A closed loop on every connection: so many requests are under way on each, and a reply brings the next.
    Closed {
        /// Requests under way on each connection, 1 to [`PIPELINE_MAX`].
        pipeline: usize,
    },
    /// A closed loop over all connections: so many requests are under way on all of them together, one at most on
    /// each, and the next goes to the connection that has been silent longest.
    Rotating {
        /// Requests under way.
        under_way: usize,
    },
    /// An open loop: requests are due at even times, whatever the replies do. One that is due while every connection
    /// has its request under way waits for a connection, and its latency counts from when it was due.
    Open {
        /// Requests a second.
        rate: f64,
    },
}

/// One run of load, over all connections that are open.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What the requests are.
    pub shape: Shape,
    /// Of which keys.
    pub keys: Keys,
    /// When they are sent.
    pub pace: Pace,
    /// Replies of this first part are checked but not counted; in it connections begin one after the other.
    pub warm_up: Duration,
    /// How long it then goes on.
    pub length: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Replies that came while it counted.
    pub replies: u64,
    /// Requests without a reply, and those of an open loop that could not be sent.
    pub missing: u64,
    /// How long it counted.
    pub elapsed: Duration,
    /// Latencies of the requests that were sent, or in an open loop due, while it counted. Those of a closed loop are
    /// not corrected for coordinated omission, those of an open loop need no correction.
    pub latencies: Latencies,
    /// Sum of those latencies.
    pub latency_sum: Duration,
    /// Time of the generator in turns that found something to do, while it counted; the rest it polled for replies.
    pub worked: Duration,
    /// Segments sent again by the generator, warm-up included.
    pub retransmissions: u64,
}

impl Outcome {
    /// Replies a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64()
    }

    /// Requests under way on average, by Little's law: rate times mean latency.
    #[must_use]
    pub fn under_way_mean(&self) -> f64 {
        self.latency_sum.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}
