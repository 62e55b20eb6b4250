//! What the daemon tells the sentinel: one line of JSON on its standard input, which then stays open.

use std::os::fd::RawFd;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::control::heartbeat::HeartbeatLayout;

/// Longest line accepted, in bytes.
pub(super) const SPEC_BYTES_MAX: u64 = 1 << 20;

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The daemon's process.
    pub(super) parent: i32,
    /// Descriptor of the heartbeat map.
    pub(super) heartbeats: RawFd,
    /// Where its slots lie.
    pub(super) layout: HeartbeatLayout,
    /// No worker serves its sockets: they are answered for whatever the heartbeats say.
    pub(super) unserved: bool,
    /// The listeners, by number.
    pub(super) listeners: Vec<ListenerSpec>,
    /// Their sockets.
    pub(super) sockets: Vec<SocketSpec>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ListenerSpec {
    /// Name of its service.
    pub(super) service: String,
    /// Whether it is for streams, and what whoever connects is told then.
    pub(super) stream_words: Option<String>,
    /// Its port.
    pub(super) port: u16,
    /// Its allow-list.
    pub(super) allow: Vec<IpNet>,
    /// Largest reply.
    pub(super) reply_bytes_max: usize,
    /// Largest item.
    pub(super) item_bytes_max: usize,
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SocketSpec {
    /// Its descriptor.
    pub(super) fd: RawFd,
    /// Number of its listener.
    pub(super) listener: usize,
    /// Number of the worker that serves it.
    pub(super) worker: usize,
}
