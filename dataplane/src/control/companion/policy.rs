//! Which sources are answered for a stale worker, how often, and with what.

use std::net::SocketAddr;

use crate::limits::MEMCACHED_DATAGRAM_BYTES_MAX;
use crate::net::allow::AllowList;
use crate::service::Service;
use crate::time::NS_PER_S;

/// Longest "temporarily unavailable", in bytes.
pub const UNAVAILABLE_BYTES_MAX: usize = MEMCACHED_DATAGRAM_BYTES_MAX;

/// Such answers a second, over all sources: enough for every client to hear it soon, and too few to harm anyone
/// whose address is forged.
pub const UNAVAILABLE_PER_S_MAX: u32 = 10_000;

/// What the control plane knows of one listener.
pub struct ListenerPolicy {
    allow: AllowList,
    port: u16,
    service: Option<Box<dyn Service>>,
}

impl ListenerPolicy {
    /// A policy. `service` is an instance of the control plane's own: only its
    /// [`unavailable`](Service::unavailable) is called. A listener for streams has none.
    #[must_use]
    pub fn new(allow: AllowList, port: u16, service: Option<Box<dyn Service>>) -> Self {
        Self { allow, port, service }
    }

    /// Whether a source is answered at all. One that sends from the service's own port is another server, or
    /// forged to look like one: two servers that answer each other's errors never stop.
    #[must_use]
    pub fn admits(&self, source: SocketAddr) -> bool {
        source.port() != self.port && self.allow.contains(source.ip())
    }

    /// The protocol's "temporarily unavailable" for a request; `None` when it has none.
    pub fn unavailable<'r>(&self, request: &[u8], reply: &'r mut [u8]) -> Option<&'r [u8]> {
        let length = self.service.as_ref()?.unavailable(request, reply);
        (length > 0).then(|| reply.get(..length)).flatten()
    }
}

impl std::fmt::Debug for ListenerPolicy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ListenerPolicy").field("allow", &self.allow).field("port", &self.port).finish()
    }
}

/// A token bucket that holds a tenth of a second's worth.
#[derive(Debug)]
pub(crate) struct RateCap {
    per_s: u32,
    tokens: u64,
    filled_ns: u64,
}

impl RateCap {
    pub(crate) fn new(per_s: u32, now_ns: u64) -> Self {
        let mut cap = Self { per_s, tokens: 0, filled_ns: now_ns };
        cap.tokens = cap.tokens_max();
        cap
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        let passed_ns = now_ns.saturating_sub(self.filled_ns).min(NS_PER_S);
        let gained = passed_ns * u64::from(self.per_s) / NS_PER_S;
        if gained > 0 {
            self.tokens = (self.tokens + gained).min(self.tokens_max());
            self.filled_ns = now_ns;
        }
        let taken = self.tokens > 0;
        self.tokens -= u64::from(taken);
        taken
    }

    fn tokens_max(&self) -> u64 {
        u64::from(self.per_s / 10).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::private_sources;
    use crate::service::{Context, Datagram, Replies};

    struct Silent;

    impl Service for Silent {
        fn datagram(&mut self, _: &mut Context<'_>, _: &Datagram<'_>, _: &mut dyn Replies) {}
    }

    #[test]
    fn only_clients_on_the_allow_list_are_answered() {
        let policy = ListenerPolicy::new(AllowList::new(&private_sources()), 11211, Some(Box::new(Silent)));
        let admits = |source: &str| policy.admits(source.parse().expect("an address"));
        assert!(admits("10.1.2.3:5555") && admits("[fd00::1]:5555"));
        assert!(!admits("8.8.8.8:5555"));
        assert!(!admits("10.1.2.3:11211"), "that is another server");
        assert_eq!(policy.unavailable(b"get a\r\n", &mut [0; 64]), None, "it has no words for it");
    }

    #[test]
    fn the_cap_holds_over_any_time() {
        let mut cap = RateCap::new(1000, 0);
        let mut taken = 0u64;
        for now_ns in (0..3 * NS_PER_S).step_by(100_000) {
            taken += u64::from(cap.take(now_ns));
        }
        assert!((3000..=3100).contains(&taken), "{taken}");
        let mut after_long = 0;
        while cap.take(1000 * NS_PER_S) {
            after_long += 1;
        }
        assert_eq!(after_long, 100, "a pause does not save up more than a tenth of a second");
    }
}
