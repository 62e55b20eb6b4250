//! A whole data plane in one thread: a worker and its service on a simulated wire and a simulated clock, all from one
//! seed. What runs is the code that serves real packets; only the port and the clock are others. Its clients have
//! datagrams, or streams over our own TCP in the other role.

mod clients;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use self::clients::Clients;
use crate::config::ChecksumPolicy;
use crate::metrics::WorkerMetrics;
use crate::net::allow::AllowList;
use crate::net::rate_limit::RateLimiter;
use crate::net::reply::ReplyHeaders;
use crate::net::tcp::{self, Closed, FlowId, Seeds, Stack};
use crate::net::udp;
use crate::port::sim::{Faults, SimConfig, SimPort, SimQueue, Wire, WireCounts, simulated};
use crate::port::{FrameAccounts, PortError};
use crate::service::{Service, StreamService};
use crate::table::Table;
use crate::table::memory::{MemoryTable, MemoryTableConfig};
use crate::time::{NS_PER_MS, Now};
use crate::transport::bypass::{Bypass, Streams};
use crate::transport::streams::{StreamListener, StreamListeners};
use crate::worker::{Listener, Shard, Worker};

/// When a simulation starts, in milliseconds since the Unix epoch (2023-11-14): any date that is plainly a date.
const START_UNIX_MS: u64 = 1_700_000_000_000;
/// Ethernet header of a request: locally administered addresses, no tag. The ethertype is set by family.
const LINK_V4: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
const LINK_V6: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
/// Time between two polls.
const STEP_NS: u64 = 1_000;
/// Polls after which a simulation that does not come to rest never will.
const SETTLE_STEPS_MAX: u32 = 100_000;
/// Largest packet a client sends.
const CLIENT_PACKET_BYTES: usize = 4_096;

/// A worker on simulated wires, one a lane. A client's packets always come by the same lane, as a NIC's flow steering
/// has it.
pub struct Simulation {
    wires: Vec<Wire>,
    worker: Worker<SimPort, SimQueue>,
    clients: Option<Clients>,
    server: SocketAddr,
    queue: SimConfig,
    seed: u64,
    now: Now,
    metrics: Arc<WorkerMetrics>,
    failures: VecDeque<(usize, PortError)>,
}

/// What a simulation is made of.
pub struct Scenario {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// Lanes of the worker, at least one.
    pub lanes: usize,
    /// Sizes of each lane's queue.
    pub queue: SimConfig,
    /// What the wires do to packets.
    pub faults: Faults,
    /// Where the service listens.
    pub server: SocketAddr,
    /// Who may ask.
    pub allow: AllowList,
    /// How fast each of them may ask.
    pub limiter: Option<RateLimiter>,
    /// What it serves.
    pub service: Box<dyn Service>,
    /// What it serves over streams, on the same port; without, segments are dropped.
    pub streams: Option<StreamScenario>,
    /// What it stores.
    pub table: Box<dyn Table>,
}

/// Streams of a simulation.
pub struct StreamScenario {
    /// What is served, by the lane's number: each has a TCP of its own.
    pub service: Box<dyn Fn(usize) -> Box<dyn StreamService>>,
    /// Sizes and times of the worker's TCP.
    pub worker: tcp::Config,
    /// Those of the clients', which all have one.
    pub clients: tcp::Config,
}

impl Scenario {
    /// One lane on a perfect wire, a service on 10.0.0.1 port 7 for everybody in 10.0.0.0/8 and fd00::/8, however
    /// fast they ask, and a table of 8 MiB.
    ///
    /// # Panics
    /// When the host has no memory for the table.
    #[must_use]
    pub fn of(seed: u64, service: Box<dyn Service>) -> Self {
        let config = MemoryTableConfig { capacity_bytes: 8 << 20, ..MemoryTableConfig::default() };
        let table = MemoryTable::with_hash_seed(config, seed).expect("memory for a small table");
        Self {
            seed,
            lanes: 1,
            queue: SimConfig::default(),
            faults: Faults::default(),
            server: SocketAddr::from(([10, 0, 0, 1], 7)),
            allow: AllowList::new(&["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"))),
            limiter: None,
            service,
            streams: None,
            table: Box::new(table),
        }
    }
}

impl Simulation {
    /// Starts a worker.
    ///
    /// # Panics
    /// When the host has no memory for the frames, or there is no lane.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let Scenario { seed, lanes, queue, faults, server, allow, limiter, service, streams, table } =
            scenario;
        assert!(lanes > 0, "a worker needs a lane");
        let metrics = Arc::new(WorkerMetrics::default());
        let streams_allow = allow.clone();
        let listener = Listener {
            addresses: vec![server.ip()],
            port: server.port(),
            steered: true,
            allow,
            limiter,
            service,
        };
        let shard = Shard::new(vec![listener], table, Arc::clone(&metrics));
        let made = (0..lanes).map(|number| lane(seed.wrapping_add(number as u64), queue, faults));
        let (wires, lanes): (Vec<_>, _) = made.unzip();
        let clients = streams.as_ref().map(|streams| Clients::new(streams.clients.clone(), seed));
        let streams = streams.map_or_else(Vec::new, |scenario| {
            (0..wires.len()).map(|lane| streams_of(&scenario, lane, seed, server, &streams_allow)).collect()
        });
        let worker = Worker::new(lanes, shard).with_streams(streams);
        let now = Now { monotonic_ns: NS_PER_MS, unix_ms: START_UNIX_MS };
        let failures = VecDeque::new();
        let mut simulation = Self { wires, worker, clients, server, queue, seed, now, metrics, failures };
        // The first poll stocks the fill rings, as a real queue's owner does before it is bound.
        simulation.step();
        simulation
    }

    /// The wire that a client's packets come by.
    #[must_use]
    pub fn wire_of(&self, client: SocketAddr) -> &Wire {
        wire_of(&self.wires, client.port())
    }

    /// All wires, by their lane's number.
    #[must_use]
    pub fn wires(&self) -> &[Wire] {
        &self.wires
    }

    /// Sends one datagram from a client.
    ///
    /// # Panics
    /// When the payload does not fit a frame, or the client is of another address family than the server.
    pub fn send(&self, client: SocketAddr, payload: &[u8]) {
        let link = if client.is_ipv4() { &LINK_V4 } else { &LINK_V6 };
        let headers = ReplyHeaders::to_request(link, self.server, client);
        let mut packet = vec![0; CLIENT_PACKET_BYTES];
        let length = headers.write(&mut packet, &[payload]).expect("a payload that fits, between one family");
        packet.truncate(length);
        self.wire_of(client).send(packet);
    }

    /// Sends any bytes at all, by the first wire.
    pub fn send_packet(&self, packet: Vec<u8>) {
        self.wires[0].send(packet);
    }

    /// Takes the next datagram for a client, whole and undamaged: a client's own kernel drops the others.
    #[must_use]
    pub fn receive(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let others = self.clients.iter_mut().flat_map(|clients| clients.others.drain(..));
        let mut packets =
            others.chain(self.wires.iter().flat_map(|wire| std::iter::from_fn(|| wire.receive())));
        packets.find_map(|packet| {
            if let Ok(datagram) = udp::receive(&packet, ChecksumPolicy::Verify)
                && datagram.source == self.server
            {
                return Some((datagram.destination, datagram.payload.to_vec()));
            }
            None
        })
    }

    /// Opens a stream. A client that has one on this port already cannot open another.
    ///
    /// # Panics
    /// When the scenario has no streams, or the clients' TCP refuses.
    pub fn connect(&mut self, client: SocketAddr) -> FlowId {
        let (now, server) = (self.now, self.server);
        self.clients_mut().connect(now, client, server)
    }

    /// Says something on a stream, at once or as soon as it can.
    pub fn say(&mut self, stream: FlowId, words: &[u8]) {
        self.clients_mut().say(stream, words);
    }

    /// Takes what was heard on a stream since the last call.
    pub fn hear(&mut self, stream: FlowId) -> Vec<u8> {
        self.clients_mut().hear(stream)
    }

    /// Closes a stream, once all has been said.
    pub fn hang_up(&mut self, stream: FlowId) {
        self.clients_mut().hang_up(stream);
    }

    /// How a stream ended; `None` while it has not.
    #[must_use]
    pub fn closed(&self, stream: FlowId) -> Option<Closed> {
        self.clients.as_ref()?.closed(stream)
    }

    /// Both ends of all streams: the clients' TCP, then that of each lane.
    pub fn stacks(&self) -> impl Iterator<Item = &Stack> {
        self.clients.iter().map(Clients::stack).chain(self.worker.streams().iter().map(Streams::stack))
    }

    fn clients_mut(&mut self) -> &mut Clients {
        self.clients.as_mut().expect("a scenario with streams")
    }

    /// Lets the worker poll once, and clients with streams. Returns how many frames the worker took.
    pub fn step(&mut self) -> usize {
        let progress = self.worker.poll(self.now);
        self.failures.extend(progress.failed);
        if let Some(clients) = &mut self.clients {
            clients.turn(self.now, &self.wires);
        }
        self.now.monotonic_ns += STEP_NS;
        progress.taken
    }

    /// Lets everybody poll, and time pass when there is nothing else to do, until `is_done`. False when it is not after
    /// `limit_ms` of the simulated time.
    pub fn run(&mut self, limit_ms: u64, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let end_ns = self.now.monotonic_ns + limit_ms * NS_PER_MS;
        while !is_done(self) {
            if self.now.monotonic_ns >= end_ns {
                return false;
            }
            let taken = self.step();
            if taken == 0 && self.worker.accounts().sending == 0 && self.wires.iter().all(Wire::is_quiet) {
                let due_ns = self.clients.iter().filter_map(|clients| clients.stack().next_due_ns());
                let due_ns = due_ns.chain(self.worker.next_due_ns()).min().unwrap_or(end_ns);
                self.now.unix_ms += due_ns.saturating_sub(self.now.monotonic_ns) / NS_PER_MS;
                self.now.monotonic_ns = self.now.monotonic_ns.max(due_ns.min(end_ns));
            }
        }
        true
    }

    /// Lets the worker poll until nothing is under way any more.
    ///
    /// # Panics
    /// When that never comes, as while a link is down and there is something to send.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..SETTLE_STEPS_MAX {
            let busy = self.step() > 0
                || self.worker.accounts().sending > 0
                || self.wires.iter().any(|wire| !wire.is_quiet());
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 4 {
                return;
            }
        }
        panic!("something is still under way after {SETTLE_STEPS_MAX} polls: {:?}", self.worker.accounts());
    }

    /// Takes the oldest failure that took a lane out of the worker: the lane's number, and why.
    pub fn take_failure(&mut self) -> Option<(usize, PortError)> {
        self.failures.pop_front()
    }

    /// Puts a new lane, with its own wire, in the place of one that failed, as the control plane does. What was on
    /// the old wire is lost.
    ///
    /// # Panics
    /// When the host has no memory for the frames.
    pub fn replace_lane(&mut self, number: usize, faults: Faults) {
        self.seed = self.seed.wrapping_add(self.wires.len() as u64);
        let (wire, bypass) = lane(self.seed, self.queue, faults);
        self.wires[number] = wire;
        self.worker.replace_lane(number, bypass);
    }

    /// Brings the gauges up to date, and takes the links' MTUs as they are now.
    pub fn publish(&mut self) {
        self.worker.publish(self.now);
    }

    /// Lets time pass.
    pub fn advance_ms(&mut self, milliseconds: u64) {
        self.now.monotonic_ns += milliseconds * NS_PER_MS;
        self.now.unix_ms += milliseconds;
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// Changes the faults of all wires from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.wires.iter().for_each(|wire| wire.set_faults(faults));
    }

    /// What became of the packets of the first wire.
    #[must_use]
    pub fn wire_counts(&self) -> WireCounts {
        self.wires[0].counts()
    }

    /// Where every frame is.
    #[must_use]
    pub fn accounts(&self) -> FrameAccounts {
        self.worker.accounts()
    }

    /// The worker's counters.
    #[must_use]
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }
}

fn wire_of(wires: &[Wire], client_port: u16) -> &Wire {
    &wires[usize::from(client_port) % wires.len()]
}

fn streams_of(
    scenario: &StreamScenario,
    lane: usize,
    seed: u64,
    server: SocketAddr,
    allow: &AllowList,
) -> Streams {
    let listener = StreamListener {
        addresses: vec![server.ip()],
        port: server.port(),
        steered: true,
        allow: allow.clone(),
        service: (scenario.service)(lane),
    };
    let listeners = StreamListeners::new(vec![listener], scenario.worker.flows);
    let seed = seed.wrapping_add(lane as u64);
    let seeds = Seeds { table: seed, sequence: [seed, seed.rotate_left(16)] };
    Streams::new(scenario.worker.clone(), seeds, listeners).expect("sizes within their bounds")
}

fn lane(seed: u64, queue: SimConfig, faults: Faults) -> (Wire, Bypass<SimPort, SimQueue>) {
    let (wire, port, owner) = simulated(seed, queue, faults).expect("memory for the simulated frames");
    (wire, Bypass::new(port, owner, ChecksumPolicy::Verify))
}
