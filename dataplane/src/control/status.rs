//! What the daemon says of itself: `GET /status` and `dataplane status --json` print this.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The daemon's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// True once every worker serves.
    pub ready: bool,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Each listener.
    pub listeners: Vec<ListenerStatus>,
    /// Each NIC queue served.
    pub queues: Vec<QueueStatus>,
    /// Verdicts of the XDP program by interface, then by label, summed over CPUs.
    pub verdicts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Each worker.
    pub workers: Vec<WorkerStatus>,
}

/// One listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Name of its service.
    pub service: String,
    /// `udp` or `tcp`.
    pub protocol: String,
    /// Addresses it answers on; empty is every address.
    pub addresses: Vec<std::net::IpAddr>,
    /// Port.
    pub port: u16,
    /// `bypass` or `kernel`: which way its packets come, if they come in through a NIC.
    pub transport: String,
    /// Why they do not pass the kernel by, when that was left open.
    pub fallback: Option<String>,
}

/// One NIC queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Interface name.
    pub interface: String,
    /// Queue number.
    pub queue: u32,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// `zero-copy` or `copy`.
    pub copy_mode: String,
    /// `owned` or `adopted`.
    pub attachment: String,
    /// True when the UMEM lies in huge pages.
    pub huge_pages: bool,
    /// Why XDP does not run in native mode, when the mode was left open.
    pub fallback: Option<String>,
    /// How often the XDP program found the worker stale, since the program was attached.
    pub stale_episodes: u64,
    /// `up`, or what keeps it down.
    pub state: String,
    /// Its worker.
    pub worker: usize,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// Its core.
    pub core: usize,
    /// Its NUMA node.
    pub node: Option<u32>,
    /// Milliseconds since its last heartbeat.
    pub heartbeat_age_ms: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Frames sent.
    pub frames_sent: u64,
    /// Frames its UMEMs have.
    pub frames_total: u64,
    /// Frames nobody has: zero unless there is a bug.
    pub frames_lost: u64,
    /// Datagrams received on ordinary sockets.
    pub kernel_received: u64,
    /// Datagrams sent from ordinary sockets.
    pub kernel_sent: u64,
    /// Requests by kind.
    pub requests: BTreeMap<String, u64>,
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
    /// TCP connections open.
    pub tcp_connections: u64,
    /// What happened in TCP.
    pub tcp_events: BTreeMap<String, u64>,
    /// Connections open on ordinary sockets.
    pub kernel_connections: u64,
    /// Who came and went there.
    pub kernel_tcp_events: BTreeMap<String, u64>,
    /// Reads that hit.
    pub hits: u64,
    /// Reads that missed.
    pub misses: u64,
    /// Items live.
    pub items: u64,
    /// Bytes of arena in use.
    pub used_bytes: u64,
    /// Bytes of arena and index.
    pub capacity_bytes: u64,
    /// True when arena and index lie in huge pages.
    pub table_huge_pages: bool,
    /// Items evicted.
    pub evictions: u64,
    /// Nanoseconds in polls that found work.
    pub busy_ns: u64,
    /// Nanoseconds in polls that found none.
    pub idle_ns: u64,
    /// Nanoseconds asleep.
    pub asleep_ns: u64,
}
