//! What the rest of the program sees of the configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::memory::HugePages;

/// Everything the daemon was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The daemon itself.
    pub daemon: DaemonConfig,
    /// The NIC queues that are served; none when every listener has ordinary sockets alone.
    pub interfaces: Vec<InterfaceConfig>,
    /// The worker threads.
    pub workers: WorkersConfig,
    /// The memory table, per worker.
    pub table: TableConfig,
    /// TCP connections, of every queue.
    pub tcp: TcpConfig,
    /// What is served where.
    pub listeners: Vec<ListenerConfig>,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonConfig {
    /// Where `/metrics` and the admin API are served.
    pub admin: SocketAddr,
    /// Cores for the control plane; `None` leaves every core but the workers'.
    pub housekeeping_cores: Option<Vec<usize>>,
    /// Where `load` pins and the adopting daemon looks (a bpffs directory).
    pub pin_directory: PathBuf,
    /// Log filter of the daemon, in `tracing`'s directive syntax.
    pub log: String,
    /// Level of the XDP program's own log.
    pub steer_log: SteerLogLevel,
}

/// Level of the XDP program's log; it reports rare events only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SteerLogLevel {
    /// Nothing.
    Off,
    /// Errors.
    Error,
    /// And warnings: a worker went stale.
    #[default]
    Warn,
    /// And information: a worker came back.
    Info,
    /// Everything rare.
    Debug,
}

/// Who attaches the XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attachment {
    /// The daemon, by a `bpf_link` that goes with it.
    #[default]
    Owned,
    /// `load` did and pinned it; the daemon takes it over.
    Adopted,
}

/// How the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic hook.
    Generic,
}

/// How packets get into the UMEM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// Zero-copy where the driver can, else copy.
    #[default]
    Auto,
    /// Zero-copy, or not at all.
    ZeroCopy,
    /// Copy.
    Copy,
}

/// What to make of checksums in received packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumPolicy {
    /// Each must be right.
    #[default]
    Verify,
    /// A UDP or TCP checksum that is only the pseudo-header's sum passes too: a peer on the same host leaves the rest
    /// to an offload that never happens.
    PartialOk,
}

/// One NIC.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceConfig {
    /// Its name.
    pub name: String,
    /// Which queues are served; `None` is all of them.
    pub queues: Option<Vec<u32>>,
    /// Who attaches.
    pub attachment: Attachment,
    /// How XDP runs.
    pub mode: XdpMode,
    /// How packets get into the UMEM.
    pub copy: CopyMode,
    /// UMEM frames a queue.
    pub frames: u32,
    /// Descriptors in each ring.
    pub ring_entries: u32,
    /// Huge pages for the UMEM.
    pub huge_pages: HugePages,
    /// What to make of checksums.
    pub checksum: ChecksumPolicy,
    /// Busy polling of the queue's NAPI by the worker; `None` is off.
    pub busy_poll: Option<BusyPollConfig>,
}

/// Busy-poll socket options (Linux `Documentation/networking/napi.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPollConfig {
    /// `SO_BUSY_POLL`, in microseconds.
    pub duration_us: u32,
    /// `SO_BUSY_POLL_BUDGET`, in packets.
    pub budget: u32,
}

/// How a worker waits for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls for this long without work, then sleeps until there is some.
    Adaptive {
        /// Microseconds of polling before sleep; 0 sleeps at once.
        spin_us: u32,
    },
    /// Never sleeps.
    Busy,
}

/// The worker threads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkersConfig {
    /// Their cores, one worker each; `None` lets the plan choose by the NIC's locality.
    pub cores: Option<Vec<usize>>,
    /// How they wait.
    pub idle: Idle,
}

/// The memory table of each worker.
#[derive(Clone, Debug, PartialEq)]
pub struct TableConfig {
    /// Bytes of arena and index, per worker.
    pub capacity_bytes: u64,
    /// Largest item: key and value, in bytes.
    pub item_bytes_max: u32,
    /// Mean bytes of key and value, which divides the capacity between arena and index.
    pub expected_item_bytes: u32,
    /// Huge pages for the arena.
    pub huge_pages: HugePages,
}

/// Transport protocol of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    /// UDP.
    #[default]
    Udp,
    /// TCP.
    Tcp,
}

impl ListenerProtocol {
    /// As a configuration and an operator call it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Which way a listener's packets come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListenerTransport {
    /// Past the kernel's stack where they come in through a configured NIC, over an ordinary socket where they do not; it
    /// is an error when that cannot be had.
    #[default]
    Bypass,
    /// Over an ordinary socket alone. It takes no privilege.
    Kernel,
    /// Past the kernel's stack where that can be had, else over an ordinary socket.
    Auto,
}

impl ListenerTransport {
    /// As a configuration and an operator call it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Kernel => "kernel",
            Self::Auto => "auto",
        }
    }
}

/// TCP connections, of every queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Connections that may be open at once: of one NIC queue, and over one worker's ordinary sockets.
    pub connections: u32,
    /// Seconds without a byte either way after which a connection is closed; 0 never does.
    pub idle_s: u32,
    /// Seconds a request may take from its first byte to its last before its connection is closed; 0 lets it take for ever.
    pub request_s: u32,
}

/// One service on one port.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Name the service was registered under: `memcached`, or one of the user's own.
    pub service: String,
    /// Transport protocol.
    pub protocol: ListenerProtocol,
    /// Which way its packets come.
    pub transport: ListenerTransport,
    /// Addresses it answers on; empty is any.
    pub addresses: Vec<IpAddr>,
    /// Port.
    pub port: u16,
    /// Sources that are served. Never empty: a UDP service open to the world amplifies.
    pub allow: Vec<IpNet>,
    /// Requests a second each source may send over UDP, to each worker; `None` is no limit.
    pub rate_limit: Option<RateLimit>,
    /// Largest reply to one request over UDP, in bytes over all its datagrams.
    pub reply_bytes_max: u32,
}

/// A token bucket for each source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second in the long run.
    pub requests_per_s: u32,
    /// Requests at once.
    pub burst: u32,
}
