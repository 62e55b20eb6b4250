//! A kernel-bypass data plane: an XDP program hands the packets of configured services to pinned user-space
//! cores, which answer them from their own shard of memory while the kernel keeps every other packet.
//!
//! Read on in the order a packet takes:
//!
//! | module | what it owns |
//! |---|---|
//! | [`steer`] | the XDP program: load, attach, feed, ask the kernel about it |
//! | [`port`] | batches of frames in and out of one NIC queue (AF_XDP, or a simulated wire) |
//! | [`net`] | frames to datagrams and back |
//! | [`transport`] | datagrams and streams for services: over a port, or over ordinary sockets |
//! | [`service`] | what is served on a port: the trait that users of this framework implement |
//! | [`protocol`] | bytes to requests, replies to bytes |
//! | [`request`] | the one request and reply model of every front end |
//! | [`table`] | what a shard stores |
//! | [`worker`] | the pinned poll loop that joins the above, and the one place that sleeps |
//! | [`control`] | the control plane: start, stop, status, metrics, companion sockets |
//! | [`daemon`] | puts all of it together from a configuration, and takes it apart again |
//!
//! [`simulation`] runs all of it in one thread on a simulated wire. Beneath them: [`config`], [`topology`],
//! [`memory`], [`metrics`], [`limits`], [`privileges`] and [`time`].

pub mod config;
pub mod control;
pub mod daemon;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod port;
pub mod privileges;
pub mod protocol;
pub mod request;
pub mod service;
pub mod simulation;
pub mod steer;
pub mod table;
#[cfg(feature = "testbed")]
pub mod testbed;
pub mod time;
pub mod topology;
pub mod transport;
pub mod worker;
