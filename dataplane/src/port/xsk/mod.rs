//! AF_XDP: the sockets, rings and memory of Linux `net/xdp`, over `libc`.
//!
//! [`open`] binds a socket to one NIC queue and hands out its two halves: the [`XskPort`], which receives and
//! sends, and the [`XskQueue`], which keeps the kernel supplied with frames and takes them back. Read on in
//! this order:
//!
//! | file | what it holds |
//! |---|---|
//! | `config.rs` | [`XskConfig`]: what is asked for, and its bounds |
//! | `error.rs` | [`XskError`]: why it cannot be had, and what to do |
//! | `open.rs` | [`open`]: the order in which a socket comes to life, and the [`XskReport`] of what it got |
//! | `port.rs` | [`XskPort`]: RX and TX rings |
//! | `doorbell.rs` | when the kernel is told of packets to send |
//! | `queue.rs` | [`XskQueue`]: fill and completion rings, and the pool of free frames |
//! | `link.rs` | what passes between the two: frames, both ways, and the counts that keep accounts exact |
//! | `custody.rs` | which chunks the kernel has: no address from a ring is believed without it |
//! | `ring.rs` | producer and consumer ends of a ring shared with the kernel; testable with no NIC |
//! | `socket.rs` | the socket: its rings, its bind, its doorbells, its statistics |
//! | `syscall.rs` | the system calls, each wrapped once |
//! | `device.rs` | what an interface says of itself: its link, its MTU |
//! | `ethtool.rs` | how many queues it has |
//!
//! # Life and death
//! The rings are mappings of the socket, and the kernel keeps a socket alive until the last of them is gone.
//! Dropping port and queue, in any order, unmaps the rings and closes the socket. The kernel then frees the
//! queue from a work queue of its own a moment later; [`open`] waits for that moment, so that the same queue
//! can be opened again at once.
//!
//! That work queue also unlocks the UMEM's pages, so for a moment they are nobody's: a new UMEM may not find
//! the huge pages that the old one had. Whoever wants them again lets that moment pass, as the daemon's
//! supervisor does.

mod config;
mod custody;
mod device;
mod doorbell;
mod error;
mod ethtool;
mod link;
mod open;
mod port;
mod queue;
mod ring;
mod socket;
mod syscall;

#[cfg(test)]
mod halves_tests;

pub use config::{FRAMES_MIN, RING_ENTRIES_MAX, RING_ENTRIES_MIN, XskConfig};
pub use device::{Link, link_of};
pub use error::XskError;
pub use ethtool::QueueCounts;
pub use open::{Opened, XskReport, open};
pub use port::XskPort;
pub use queue::XskQueue;
pub use socket::XskStatistics;
