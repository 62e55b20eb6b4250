//! A simulated wire: a [`Port`](super::Port) and its [`QueueOwner`](super::QueueOwner) in one thread, with faults
//! drawn from a seed. The same seed gives the same run, so a failure replays exactly.
//!
//! It keeps the kernel's rules where they matter to a worker: a packet needs a frame from the fill ring or is lost,
//! the TX ring is bounded, a kick sends only part of it, and sent frames come back later than they were sent.

mod random;
mod wire;

pub use random::Random;
pub use wire::{
    DELAY_POLLS_MAX, Failure, Faults, Record, SimConfig, SimPort, SimQueue, Wire, WireCounts, simulated,
};
