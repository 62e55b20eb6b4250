//! What a worker serves, made of the configuration's listeners: those for datagrams, and those for streams.

use super::interface::Lane;
use super::steering::Steering;
use super::{DaemonError, Registry};
use crate::config::{Config, ListenerConfig, ListenerProtocol};
use crate::control::companion::CompanionSocket;
use crate::limits::{STREAM_CHUNKS, STREAM_INPUT_BYTES_LONG, STREAM_INPUT_BYTES_MAX, STREAM_INPUTS_LONG_MAX};
use crate::net::allow::AllowList;
use crate::net::rate_limit::RateLimiter;
use crate::net::tcp;
use crate::protocol;
use crate::service::{Service, ServiceFactory, ServiceSetup, StreamService};
use crate::time::{NS_PER_S, Now};
use crate::transport::bypass::{STREAM_MTU_BYTES_MAX, Streams};
use crate::transport::kernel::{KernelSetup, Patience};
use crate::transport::streams::{StreamListener, StreamListeners};
use crate::worker::Listener;

/// What the listeners of one worker are made of.
pub(super) struct Making<'a> {
    pub(super) config: &'a Config,
    pub(super) registry: &'a Registry,
    pub(super) steering: &'a Steering,
    pub(super) worker: usize,
    /// Connections the ordinary sockets of one worker may have.
    pub(super) kernel_connections_max: usize,
}

impl Making<'_> {
    /// The listeners for datagrams, whichever way these come.
    pub(super) fn datagrams(&self) -> Result<Vec<Listener>, DaemonError> {
        let Self { config, registry, steering, worker, .. } = *self;
        of(config, ListenerProtocol::Udp)
            .map(|(index, listener)| {
                let service = service(config, registry, index, worker, self.workers())?;
                Ok(Listener {
                    addresses: listener.addresses.clone(),
                    port: listener.port,
                    steered: steering.is_steered(listener.transport),
                    allow: AllowList::new(&listener.allow),
                    limiter: listener
                        .rate_limit
                        .map(|limit| RateLimiter::new(limit.requests_per_s, limit.burst, secret())),
                    service,
                })
            })
            .collect()
    }

    /// The streams of each lane; none at all when no listener is for streams that pass the kernel by.
    pub(super) fn streams(&self, lanes: &[Lane]) -> Result<Vec<Streams>, DaemonError> {
        let Self { config, steering, worker, .. } = *self;
        let steered = |listener: &ListenerConfig| steering.is_steered(listener.transport);
        if !of(config, ListenerProtocol::Tcp).any(|(_, listener)| steered(listener)) {
            return Ok(Vec::new());
        }
        lanes
            .iter()
            .map(|lane| {
                let stack = tcp::Config {
                    flows: config.tcp.connections as usize,
                    idle_ns: u64::from(config.tcp.idle_s) * NS_PER_S,
                    request_ns: u64::from(config.tcp.request_s) * NS_PER_S,
                    mtu_bytes: lane.bypass.mtu_bytes().min(STREAM_MTU_BYTES_MAX),
                    checksums: lane.bypass.checksum(),
                    ..stack_of_default_sizes()
                };
                let seeds = tcp::Seeds { table: secret(), sequence: [secret(), secret()] };
                let listeners = StreamListeners::new(self.stream_listeners(steered)?, stack.flows);
                Streams::new(stack, seeds, listeners).map_err(|source| DaemonError::Tcp { worker, source })
            })
            .collect()
    }

    /// What is served over these sockets: every listener, steered or not.
    pub(super) fn kernel(&self, sockets: Vec<CompanionSocket>) -> Result<KernelSetup, DaemonError> {
        let connections_max = self.kernel_connections_max;
        let listeners = StreamListeners::new(self.stream_listeners(|_| true)?, connections_max);
        let (streams, datagrams): (Vec<_>, Vec<_>) =
            sockets.into_iter().partition(|socket| socket.protocol() == ListenerProtocol::Tcp);
        let datagrams = datagrams.into_iter().map(|socket| {
            let port = socket.address().port();
            (socket.into_fd(), port)
        });
        Ok(KernelSetup {
            datagrams: datagrams.collect(),
            streams: streams.into_iter().map(CompanionSocket::into_fd).collect(),
            listeners,
            connections_max,
            patience: Patience {
                idle_ns: u64::from(self.config.tcp.idle_s) * NS_PER_S,
                request_ns: u64::from(self.config.tcp.request_s) * NS_PER_S,
            },
        })
    }

    fn stream_listeners(
        &self,
        wanted: impl Fn(&ListenerConfig) -> bool,
    ) -> Result<Vec<StreamListener>, DaemonError> {
        let Self { config, registry, steering, worker, .. } = *self;
        of(config, ListenerProtocol::Tcp)
            .filter(|(_, listener)| wanted(listener))
            .map(|(index, listener)| {
                Ok(StreamListener {
                    addresses: listener.addresses.clone(),
                    port: listener.port,
                    steered: steering.is_steered(listener.transport),
                    allow: AllowList::new(&listener.allow),
                    service: stream_service(config, registry, index, worker, self.workers())?,
                })
            })
            .collect()
    }

    fn workers(&self) -> usize {
        self.steering.plan.workers.len()
    }
}

/// The stack's own sizes, but for its largest block, which must hold the longest message.
fn stack_of_default_sizes() -> tcp::Config {
    let mut config = tcp::Config { chunks: STREAM_CHUNKS, ..tcp::Config::default() };
    let [.., long, longest] = &mut config.blocks;
    debug_assert_eq!(long.bytes, STREAM_INPUT_BYTES_LONG);
    *longest = tcp::pool::Class { bytes: STREAM_INPUT_BYTES_MAX, count: STREAM_INPUTS_LONG_MAX };
    config
}

const _: () = {
    assert!(protocol::memcached::stream::INPUT_BYTES_MAX <= STREAM_INPUT_BYTES_MAX);
    assert!(protocol::resp::INPUT_BYTES_MAX <= STREAM_INPUT_BYTES_MAX);
};

/// A worker's instance of a listener's service for datagrams.
pub(super) fn service(
    config: &Config,
    registry: &Registry,
    listener: usize,
    worker: usize,
    workers: usize,
) -> Result<Box<dyn Service>, DaemonError> {
    create(config, registry, listener, worker, workers, |factory, setup| factory.create(setup))
}

/// A worker's instance of a listener's service for streams.
pub(super) fn stream_service(
    config: &Config,
    registry: &Registry,
    listener: usize,
    worker: usize,
    workers: usize,
) -> Result<Box<dyn StreamService>, DaemonError> {
    create(config, registry, listener, worker, workers, |factory, setup| factory.create_stream(setup))
}

fn create<S>(
    config: &Config,
    registry: &Registry,
    listener: usize,
    worker: usize,
    workers: usize,
    create: impl FnOnce(&dyn ServiceFactory, &ServiceSetup) -> Result<Option<S>, crate::service::ServiceError>,
) -> Result<S, DaemonError> {
    let ListenerConfig { service: name, protocol, reply_bytes_max, .. } = &config.listeners[listener];
    let factory = registry.get(name).ok_or_else(|| DaemonError::UnknownService {
        listener,
        name: name.clone(),
        known: registry.names().collect::<Vec<_>>().join(", "),
    })?;
    let setup = ServiceSetup {
        worker,
        workers,
        reply_bytes_max: *reply_bytes_max as usize,
        connections_max: config.tcp.connections as usize,
        item_bytes_max: config.table.item_bytes_max as usize,
        started: Now::read(),
    };
    create(factory.as_ref(), &setup)
        .map_err(|source| DaemonError::Service { listener, name: name.clone(), source })?
        .ok_or_else(|| DaemonError::NotSpoken { listener, name: name.clone(), protocol: *protocol })
}

/// The listeners of one protocol, each with its number.
pub(super) fn of(
    config: &Config,
    protocol: ListenerProtocol,
) -> impl Iterator<Item = (usize, &ListenerConfig)> {
    config.listeners.iter().enumerate().filter(move |(_, listener)| listener.protocol == protocol)
}

/// What a client can compute, it can aim at: 64 bits that nobody knows, from the keys of the standard library's hasher,
/// which come from the kernel.
fn secret() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8)
}
