//! The companion: a kernel socket on the address of every listener, held by the control plane.
//!
//! It reserves the port, and gets what the XDP program does not see or passes on: clients on this host (through
//! `lo`), fragments, and everything while a worker is stale. A datagram goes to a worker and its reply comes back
//! through a pair of rings; while that worker is stale the companion answers "temporarily unavailable" itself.
//!
//! | file | what it holds |
//! |---|---|
//! | `socket` | [`CompanionSocket`]: bound, or a clear word on who has the port |
//! | `holder` | who has a port |
//! | `datagram` | one datagram in or out, with our own address beside the peer's |
//! | `link` | the rings to one worker, and the two wake-ups that go with them |
//! | `policy` | which sources are answered, how often, and with what |
//! | `streams` | [`tell_streams`]: what whoever connects is told |
//! | `pump` | [`Companion`]: the thread between sockets and rings |

mod datagram;
mod holder;
mod link;
mod policy;
mod pump;
mod socket;
mod streams;

pub(crate) use datagram::{receive, send};
pub use holder::port_holder;
pub use link::{ControlLink, WorkerLink, link};
pub(crate) use policy::RateCap;
pub use policy::{ListenerPolicy, UNAVAILABLE_BYTES_MAX, UNAVAILABLE_PER_S_MAX};
pub use pump::{Companion, CompanionMetrics, CompanionSetup};
pub use socket::{CompanionError, CompanionSocket};
pub use streams::{StreamPolicy, tell_streams};
