//! One service on one port, as a worker serves it.

use std::net::{IpAddr, SocketAddr};

use crate::net::allow::AllowList;
use crate::net::rate_limit::RateLimiter;
use crate::service::Service;

/// A listener's instance in one worker.
pub struct Listener {
    /// Addresses it answers on; empty is every address.
    pub addresses: Vec<IpAddr>,
    /// Port.
    pub port: u16,
    /// Its packets pass the kernel by: over an ordinary socket comes only what the XDP program does not see or passes on.
    pub steered: bool,
    /// Sources that are served.
    pub allow: AllowList,
    /// Limit for each source.
    pub limiter: Option<RateLimiter>,
    /// What it serves.
    pub service: Box<dyn Service>,
}

impl Listener {
    /// True when it is meant by this destination.
    #[inline]
    pub(super) fn is_meant(&self, destination: SocketAddr) -> bool {
        destination.port() == self.port
            && (self.addresses.is_empty() || self.addresses.contains(&destination.ip()))
    }
}
