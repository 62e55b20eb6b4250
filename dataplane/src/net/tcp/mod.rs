//! Our own TCP, server and client: a pure state machine driven by frames and by time. It reads no clock, has no
//! socket, knows no ports and no services, and allocates nothing once it is made.
//!
//! | module | what it owns |
//! |---|---|
//! | [`stack`] | the whole: which record a frame belongs to, the turn of a poll |
//! | [`handler`] | who is told what happens, and what takes frames |
//! | [`config`], [`statistics`] | sizes and times; what is counted |
//! | `flow`, `input`, `output` | one flow: its state and timers, what a segment does to it, what it sends |
//! | `send`, `recovery`, `congestion`, `round_trip` | the sending side: windows, the scoreboard with RACK and tail-loss probes, CUBIC, the time-out |
//! | `receive` | the receiving side: what is promised, what came, what nobody took yet |
//! | [`too_big`] | what routers say of packets that were too large |
//! | `listen`, `time_wait`, `stray` | compact records of flows that are not open yet, or no more, and segments of none |
//! | [`segment`], [`options`], [`ends`], [`sequence`] | headers in and out, what names a flow, arithmetic |
//! | `turns`, `wheel`, `allowance` | who is next, timers, how often |
//! | `table`, [`pool`], `chain`, `secret` | flows by their ends, fixed pools, keyed numbers |
//!
//! It follows RFC 9293 with 1191, 2018, 2883, 5681, 5961, 6191, 6298, 6528, 6582, 6675, 6691, 6928, 6937, 7323,
//! 8201, 8985 and 9438. Left out: urgent data (handed on in line), Nagle's algorithm (off), ECN, and opening from
//! both sides at once (passed over; such an attempt times out).
//!
//! # What gives way first
//!
//! Every table and pool has a fixed size. When one is used up:
//!
//! | used up | what happens |
//! |---|---|
//! | half-open records | SYNs are answered with cookies; nobody is turned away |
//! | flows | SYNs are dropped, and asked again a second later; whose handshake is done waits for a flow to end, and is reset when `half_open_ns` is over |
//! | waiting records | the oldest goes before its time |
//! | chunks to send | `send` takes less, and `writable` follows once some come back |
//! | records of segments | nothing new is sent until something is acknowledged |
//! | receive blocks | windows shrink to the largest size that is free; bytes that do not fit are dropped unacknowledged and sent again |
//! | room in the output | flows wait in line for the next poll; answers outside of flows are given up |
//!
//! Nothing that has been acknowledged is ever dropped, and no flow gives way to another. So that none can keep what it holds
//! for ever, a peer that does not end its message (`Config::request_ns`) or does not read (`Config::stalled_ns`) is reset in
//! time. Resets to those who belong to no flow are limited by `Config::resets_per_s`.

mod allowance;
pub(crate) mod chain;
pub mod config;
pub mod congestion;
pub mod ends;
mod flow;
pub mod handler;
#[cfg(any(test, feature = "testbed"))]
pub mod hostile;
mod input;
mod listen;
pub mod options;
mod output;
pub mod pool;
mod receive;
mod recovery;
mod round_trip;
mod secret;
pub mod segment;
mod send;
pub mod sequence;
pub mod stack;
pub mod statistics;
mod stray;
mod table;
mod time_wait;
pub mod too_big;
mod turns;
mod wheel;

pub use config::{Config, ConfigError};
pub use handler::{Admission, Closed, FlowId, Foreseen, Handler, Io, Output, Taken};
pub use stack::{ConnectError, Seeds, Stack};
