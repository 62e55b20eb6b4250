//! What is served without a configuration file: memcached and RESP to this host, over ordinary sockets, which takes no
//! privilege.

use std::net::{IpAddr, Ipv4Addr};

use super::model::{
    Config, DaemonConfig, ListenerConfig, ListenerProtocol, ListenerTransport, TableConfig, TcpConfig,
    WorkersConfig,
};

/// Bytes of the table: what a laptop does not miss.
const CAPACITY_BYTES: u64 = 256 << 20;

/// The ports that memcached and Redis have by custom.
const MEMCACHED_PORT: u16 = 11211;
const RESP_PORT: u16 = 6379;

impl Config {
    /// What is served without a configuration file.
    #[must_use]
    pub fn builtin() -> Self {
        let listener = |service, protocol, port| ListenerConfig {
            protocol,
            transport: ListenerTransport::Kernel,
            addresses: vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
            ..ListenerConfig::new(service, port)
        };
        Self {
            daemon: DaemonConfig::default(),
            interfaces: Vec::new(),
            workers: WorkersConfig::default(),
            table: TableConfig { capacity_bytes: CAPACITY_BYTES, ..TableConfig::default() },
            tcp: TcpConfig::default(),
            listeners: vec![
                listener("memcached", ListenerProtocol::Udp, MEMCACHED_PORT),
                listener("memcached", ListenerProtocol::Tcp, MEMCACHED_PORT),
                listener("resp", ListenerProtocol::Tcp, RESP_PORT),
            ],
        }
    }
}
