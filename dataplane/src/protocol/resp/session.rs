//! What the connections of one worker share.

use super::inline::Scratch;
use crate::limits::VALUE_BYTES_MAX;
use crate::service::ServiceSetup;
use crate::time::Now;

/// One worker's end of the protocol.
#[derive(Debug)]
pub struct Session {
    /// Where the words of an inline request lie.
    pub(super) scratch: Scratch,
    pub(super) worker: Worker,
}

impl Session {
    /// A session of one worker's service. What it needs for requests is allocated here.
    #[must_use]
    pub fn new(setup: &ServiceSetup) -> Self {
        Self { scratch: Scratch::default(), worker: Worker::new(setup) }
    }
}

/// What commands know of the worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) count: usize,
    pub(super) item_bytes_max: usize,
    pub(super) started: Now,
    /// Connections open now.
    pub(super) connected: u64,
    /// Connections there ever were.
    pub(super) connections: u64,
    /// Commands carried out.
    pub(super) commands: u64,
    /// State of splitmix64.
    random: u64,
    /// Where a value waits that leaves one key for another.
    pub(super) value: Box<[u8]>,
}

impl Worker {
    fn new(setup: &ServiceSetup) -> Self {
        Self {
            number: setup.worker,
            count: setup.workers,
            item_bytes_max: setup.item_bytes_max,
            started: setup.started,
            connected: 0,
            connections: 0,
            commands: 0,
            random: setup.started.monotonic_ns ^ setup.started.unix_ms.rotate_left(32),
            value: vec![0; VALUE_BYTES_MAX].into_boxed_slice(),
        }
    }

    /// The number of a connection that was just made: no other's, on any worker.
    pub(super) fn connect(&mut self) -> u64 {
        let id = self.connections * self.count as u64 + self.number as u64 + 1;
        self.connections += 1;
        self.connected += 1;
        id
    }

    /// A number that nobody needs to guess.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
