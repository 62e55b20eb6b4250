//! The companion: an ordinary kernel socket on the address of every listener.
//!
//! It reserves the port. A listener that is not steered past the kernel is served through it alone; one that is gets there
//! what the XDP program does not see or passes on: clients on this host (through `lo`), fragments, and everything while a
//! worker is stale. Each worker has sockets of its own and serves them itself
//! ([`transport::kernel`](crate::transport::kernel)); for one that is stale the [`sentinel`](super::sentinel) answers.
//!
//! | file | what it holds |
//! |---|---|
//! | `socket` | [`CompanionSocket`]: bound, or a clear word on who has the port |
//! | `holder` | who has a port |
//! | `datagram` | one datagram in or out, with our own address beside the peer's |
//! | `policy` | which sources are answered for a stale worker, how often, and with what |

mod datagram;
mod holder;
mod policy;
mod socket;

pub(crate) use datagram::{receive, send};
pub use holder::port_holder;
pub(crate) use policy::RateCap;
pub use policy::{ListenerPolicy, UNAVAILABLE_BYTES_MAX, UNAVAILABLE_PER_S_MAX};
pub use socket::{CompanionError, CompanionSocket};
