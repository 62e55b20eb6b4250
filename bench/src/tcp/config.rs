//! What the daemon is told.

use std::net::Ipv4Addr;

use dataplane::testbed::daemon;

use super::systems::{CONNECTIONS, MEMCACHED_PORT, Place, RESP_PORT};

/// How the daemon's packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Past the kernel.
    Bypass,
    /// Through the kernel's sockets.
    Kernel,
}

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct DaemonConfig<'a> {
    pub(super) transport: Transport,
    pub(super) interface: &'a str,
    pub(super) client: Ipv4Addr,
    pub(super) worker_core: usize,
    pub(super) housekeeping_core: usize,
    pub(super) capacity: &'a str,
    pub(super) spin_us: u32,
}

impl<'a> DaemonConfig<'a> {
    pub(super) fn new(place: &Place<'a>) -> Self {
        Self {
            transport: Transport::Bypass,
            interface: place.interface,
            client: place.client,
            worker_core: place.core,
            housekeeping_core: place.housekeeping_core,
            capacity: place.capacity,
            spin_us: place.spin_us,
        }
    }

    /// One to ask `dataplane check` about.
    pub(super) fn example(transport: Transport) -> Self {
        Self {
            transport,
            interface: "dpr1-1",
            client: Ipv4Addr::new(10, 77, 0, 1),
            worker_core: 1,
            housekeeping_core: 0,
            capacity: "64MiB",
            spin_us: 0,
        }
    }

    pub(super) fn to_toml(self) -> String {
        let Self { transport, interface, client, worker_core, housekeeping_core, capacity, spin_us } = self;
        let admin = daemon::ADMIN;
        let (interface, listener) = match transport {
            Transport::Bypass => (format!("[[interface]]\nname = \"{interface}\"\nmode = \"native\"\n"), ""),
            Transport::Kernel => (String::new(), "transport = \"kernel\"\n"),
        };
        let listener = |service: &str, port: u16| {
            format!(
                "[[listener]]\nservice = \"{service}\"\nprotocol = \"tcp\"\nport = {port}\nallow = [\"{client}/32\"]\n\
                 {listener}"
            )
        };
        format!(
            "[daemon]\nadmin = \"{admin}\"\nhousekeeping_cores = [{housekeeping_core}]\nlog = \"warn\"\n{interface}\
             [workers]\ncores = [{worker_core}]\nidle = \"adaptive\"\nspin_us = {spin_us}\n\
             [table]\ncapacity = \"{capacity}\"\n[tcp]\nconnections = {CONNECTIONS}\n{memcached}{resp}",
            memcached = listener("memcached", MEMCACHED_PORT),
            resp = listener("resp", RESP_PORT),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_configurations_are_ones_that_the_daemon_takes() {
        for transport in [Transport::Bypass, Transport::Kernel] {
            let config =
                dataplane::config::parse(&DaemonConfig::example(transport).to_toml()).expect("valid");
            assert_eq!(config.listeners.len(), 2);
            assert_eq!(config.interfaces.is_empty(), transport == Transport::Kernel);
            assert_eq!(config.tcp.connections as usize, CONNECTIONS);
            assert_eq!(config.workers.idle, dataplane::config::Idle::Adaptive { spin_us: 0 });
        }
    }
}
