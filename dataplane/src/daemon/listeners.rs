//! What a worker serves, made of the configuration's listeners: those for datagrams, and those for streams.

use super::interface::Lane;
use super::{DaemonError, Registry};
use crate::config::{Config, ListenerConfig, ListenerProtocol};
use crate::limits::{STREAM_INPUT_BYTES_LONG, STREAM_INPUT_BYTES_MAX, STREAM_INPUTS_LONG_MAX};
use crate::net::allow::AllowList;
use crate::net::rate_limit::RateLimiter;
use crate::net::tcp;
use crate::protocol;
use crate::service::{Service, ServiceFactory, ServiceSetup, StreamService};
use crate::time::{NS_PER_S, Now};
use crate::transport::bypass::{STREAM_MTU_BYTES_MAX, Streams};
use crate::transport::streams::{StreamListener, StreamListeners};
use crate::worker::Listener;

/// A worker's listeners for datagrams.
pub(super) fn datagrams(
    config: &Config,
    registry: &Registry,
    worker: usize,
    workers: usize,
) -> Result<Vec<Listener>, DaemonError> {
    of(config, ListenerProtocol::Udp)
        .map(|(index, listener)| {
            let service = service(config, registry, index, worker, workers)?;
            Ok(Listener {
                addresses: listener.addresses.clone(),
                port: listener.port,
                allow: AllowList::new(&listener.allow),
                limiter: listener
                    .rate_limit
                    .map(|limit| RateLimiter::new(limit.requests_per_s, limit.burst, secret())),
                service,
            })
        })
        .collect()
}

/// The streams of each of a worker's lanes; none at all when no listener is for streams.
pub(super) fn streams(
    config: &Config,
    registry: &Registry,
    worker: usize,
    workers: usize,
    lanes: &[Lane],
) -> Result<Vec<Streams>, DaemonError> {
    if of(config, ListenerProtocol::Tcp).next().is_none() {
        return Ok(Vec::new());
    }
    lanes
        .iter()
        .map(|lane| {
            let listeners = of(config, ListenerProtocol::Tcp)
                .map(|(index, listener)| {
                    Ok(StreamListener {
                        addresses: listener.addresses.clone(),
                        port: listener.port,
                        allow: AllowList::new(&listener.allow),
                        service: stream_service(config, registry, index, worker, workers)?,
                    })
                })
                .collect::<Result<Vec<_>, DaemonError>>()?;
            let stack = tcp::Config {
                flows: config.tcp.connections as usize,
                idle_ns: u64::from(config.tcp.idle_s) * NS_PER_S,
                mtu_bytes: lane.bypass.mtu_bytes().min(STREAM_MTU_BYTES_MAX),
                checksums: lane.bypass.checksum(),
                ..stack_of_default_sizes()
            };
            let seeds = tcp::Seeds { table: secret(), sequence: [secret(), secret()] };
            let listeners = StreamListeners::new(listeners, stack.flows);
            Streams::new(stack, seeds, listeners).map_err(|source| DaemonError::Tcp { worker, source })
        })
        .collect()
}

/// The stack's own sizes, but for its largest block, which must hold the longest message.
fn stack_of_default_sizes() -> tcp::Config {
    let mut config = tcp::Config::default();
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

fn of(config: &Config, protocol: ListenerProtocol) -> impl Iterator<Item = (usize, &ListenerConfig)> {
    config.listeners.iter().enumerate().filter(move |(_, listener)| listener.protocol == protocol)
}

/// What a client can compute, it can aim at: 64 bits that nobody knows, from the keys of the standard library's hasher,
/// which come from the kernel.
fn secret() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8)
}
