//! What a key is when it is left out. `dataplane.example.toml` shows the same, and a test compares the two.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::model::{
    Attachment, ChecksumPolicy, CopyMode, DaemonConfig, Idle, InterfaceConfig, ListenerConfig,
    ListenerProtocol, ListenerTransport, SteerLogLevel, TableConfig, TcpConfig, XdpMode,
};
use super::sources::private_sources;
use crate::limits::ITEM_BYTES_MAX;
use crate::memory::HugePages;

/// Microseconds of polling before an adaptive worker sleeps.
pub(super) const SPIN_US: u32 = 50;

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9190)),
            housekeeping_cores: None,
            pin_directory: PathBuf::from("/sys/fs/bpf/dataplane"),
            log: "info".to_owned(),
            steer_log: SteerLogLevel::default(),
        }
    }
}

impl InterfaceConfig {
    /// An interface with every default.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queues: None,
            attachment: Attachment::default(),
            mode: XdpMode::default(),
            copy: CopyMode::default(),
            frames: 8192,
            ring_entries: 2048,
            huge_pages: HugePages::default(),
            checksum: ChecksumPolicy::default(),
            busy_poll: None,
        }
    }
}

impl Default for Idle {
    fn default() -> Self {
        Self::Adaptive { spin_us: SPIN_US }
    }
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            capacity_bytes: 1 << 30,
            item_bytes_max: ITEM_BYTES_MAX as u32,
            expected_item_bytes: 256,
            huge_pages: HugePages::default(),
        }
    }
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { connections: 1 << 14, idle_s: 0, request_s: 60 }
    }
}

impl ListenerConfig {
    /// A listener with every default.
    #[must_use]
    pub fn new(service: impl Into<String>, port: u16) -> Self {
        Self {
            service: service.into(),
            protocol: ListenerProtocol::default(),
            transport: ListenerTransport::default(),
            addresses: Vec::new(),
            port,
            allow: private_sources(),
            rate_limit: None,
            reply_bytes_max: 64 << 10,
        }
    }
}
