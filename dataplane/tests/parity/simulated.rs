//! Ways over the simulated wire: a worker in this very thread, and as the client of its streams smoltcp.

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::config::ChecksumPolicy;
use dataplane::metrics::WorkerMetrics;
use dataplane::net::allow::AllowList;
use dataplane::net::tcp::{Config, Seeds};
use dataplane::port::sim::{Faults, SimConfig, SimPort, SimQueue, Wire, simulated};
use dataplane::protocol::memcached::conversation::roomy_setup;
use dataplane::protocol::{memcached, resp};
use dataplane::service::{ServiceFactory, ServiceSetup};
use dataplane::simulation::{Scenario, Simulation};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::{NS_PER_MS, Now};
use dataplane::transport::bypass::{Bypass, STREAM_MTU_BYTES_MAX, Streams};
use dataplane::transport::streams::{StreamListener, StreamListeners};
use dataplane::worker::{Shard, Worker};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::Client;
use crate::record::Protocol;
use crate::tcp_support::smol::Queues;
use crate::tcp_support::{CLIENT_MAC, SERVER_MAC, client_address, link, server_address};

/// A listener's default.
pub(crate) const REPLY_BYTES_MAX: usize = 64 << 10;
/// Connections a stack has room for.
const CONNECTIONS_MAX: usize = 16;
/// Seed of everything that is drawn.
const SEED: u64 = 7;
/// Turns after which a reply that has no end will never have one.
const TURNS_MAX: u32 = 100_000;
/// Nanoseconds a turn takes.
const TURN_NS: u64 = 10_000;
/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;

/// A table as the daemon of these tests has it.
pub(crate) fn table() -> MemoryTable {
    let config = MemoryTableConfig { capacity_bytes: 16 << 20, ..MemoryTableConfig::default() };
    MemoryTable::with_hash_seed(config, SEED).expect("memory for a small table")
}

fn setup() -> ServiceSetup {
    ServiceSetup { reply_bytes_max: REPLY_BYTES_MAX, connections_max: CONNECTIONS_MAX, ..roomy_setup() }
}

pub(crate) fn datagrams(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    assert_eq!(protocol, Protocol::Memcached, "RESP has no datagrams");
    let service = memcached::factory().create(&setup()).expect("a service").expect("of datagrams");
    let scenario = Scenario { table: Box::new(table()), ..Scenario::of(SEED, service) };
    run(&mut Datagrams { simulation: Simulation::new(scenario), request_id: 0 });
}

struct Datagrams {
    simulation: Simulation,
    request_id: u16,
}

impl Client for Datagrams {
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.request_id = self.request_id.wrapping_add(1);
        let [high, low] = self.request_id.to_be_bytes();
        let header = [high, low, 0, 0, 0, 1, 0, 0];
        let client = SocketAddr::from(([10, 0, 0, 2], 4_000));
        self.simulation.send(client, &[&header, request].concat());
        self.simulation.settle();
        let mut datagrams = Vec::new();
        while let Some((to, datagram)) = self.simulation.receive() {
            assert_eq!(to, client);
            datagrams.push(datagram);
        }
        memcached::conversation::reassemble(self.request_id, &datagrams).expect("a well-formed reply")
    }

    fn part(&mut self, request: &[u8]) -> Vec<u8> {
        self.ask(request)
    }
}

pub(crate) fn stream(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    run(&mut Stream::connect(protocol));
}

struct Stream {
    protocol: Protocol,
    worker: Worker<SimPort, SimQueue>,
    wire: Wire,
    now: Now,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    queues: Queues,
}

impl Stream {
    fn connect(protocol: Protocol) -> Self {
        let service = match protocol {
            Protocol::Memcached => memcached::factory().create_stream(&setup()),
            Protocol::Resp => resp::factory().create_stream(&setup()),
        };
        let listener = StreamListener {
            addresses: Vec::new(),
            port: server_address(true).port(),
            allow: AllowList::new(&["10.0.0.0/8".parse().expect("a network")]),
            steered: false,
            service: service.expect("a service").expect("of streams"),
        };
        let config = Config { flows: CONNECTIONS_MAX, mtu_bytes: STREAM_MTU_BYTES_MAX, ..Config::default() };
        let seeds = Seeds { table: SEED, sequence: [SEED, !SEED] };
        let listeners = StreamListeners::new(vec![listener], CONNECTIONS_MAX);
        let streams = Streams::new(config, seeds, listeners).expect("a good configuration");
        let (wire, port, queue) =
            simulated(SEED, SimConfig::default(), Faults::default()).expect("memory for the frames");
        let shard = Shard::new(Vec::new(), Box::new(table()), Arc::new(WorkerMetrics::default()));
        let lane = Bypass::new(port, queue, ChecksumPolicy::Verify);
        let worker = Worker::new(vec![lane], shard).with_streams(vec![streams]);

        let mut queues = Queues::default();
        let mut interface =
            Interface::new(InterfaceConfig::new(HardwareAddress::Ip), &mut queues, Instant::ZERO);
        let local = client_address(true, 4_000);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::from(local.ip()), 24)).expect("room for one");
        });
        let buffer = || SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let server = server_address(true);
        socket
            .connect(interface.context(), (IpAddress::from(server.ip()), server.port()), local)
            .expect("a good address");
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        let now = Now { monotonic_ns: NS_PER_MS, unix_ms: 1_700_000_000_000 };
        Self { protocol, worker, wire, now, interface, sockets, socket, queues }
    }

    /// Lets both ends do what they can; what the client has received.
    fn turn(&mut self, unsent: &mut &[u8]) -> Vec<u8> {
        self.now.monotonic_ns += TURN_NS;
        let at = Instant::from_micros((self.now.monotonic_ns / 1_000) as i64);
        self.interface.poll(at, &mut self.queues, &mut self.sockets);
        let socket = self.sockets.get_mut::<Socket>(self.socket);
        if socket.can_send() && !unsent.is_empty() {
            let sent = socket.send_slice(unsent).expect("it can send");
            *unsent = &unsent[sent..];
        }
        let mut received = Vec::new();
        while socket.can_recv() {
            let taken = socket.recv(|bytes| {
                received.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            taken.expect("it can receive");
        }
        self.interface.poll(at, &mut self.queues, &mut self.sockets);
        for packet in self.queues.sent.drain(..) {
            self.wire.send([&link(SERVER_MAC, CLIENT_MAC, true), &packet[..]].concat());
        }
        assert!(self.worker.poll(self.now).failed.is_none(), "a simulated port goes on");
        while let Some(packet) = self.wire.receive() {
            self.queues.received.push_back(packet[ETHERNET_BYTES..].to_vec());
        }
        received
    }

    /// Sends bytes and takes turns until a reply has come to its end.
    fn say(&mut self, bytes: &[u8], ends: impl Fn(&[u8], State) -> bool) -> Vec<u8> {
        let (mut unsent, mut reply) = (bytes, Vec::new());
        for _ in 0..TURNS_MAX {
            reply.extend(self.turn(&mut unsent));
            if ends(&reply, self.sockets.get::<Socket>(self.socket).state()) {
                return reply;
            }
        }
        panic!("no end of {} to {}", reply.escape_ascii(), bytes.escape_ascii());
    }
}

impl Client for Stream {
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let (mark, mark_reply) = self.protocol.mark();
        let mut reply = self.say(&[request, mark].concat(), |reply, _| reply.ends_with(mark_reply));
        reply.truncate(reply.len() - mark_reply.len());
        reply
    }

    fn part(&mut self, request: &[u8]) -> Vec<u8> {
        self.say(request, |_, state| state == State::CloseWait)
    }
}
