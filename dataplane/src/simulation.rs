//! A whole data plane in one thread: a worker and its service on a simulated wire and a simulated clock, all from one
//! seed. What runs is the code that serves real packets; only the port and the clock are others.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::ChecksumPolicy;
use crate::metrics::WorkerMetrics;
use crate::net::allow::AllowList;
use crate::net::rate_limit::RateLimiter;
use crate::net::reply::ReplyHeaders;
use crate::net::udp;
use crate::port::sim::{Faults, SimConfig, SimPort, SimQueue, Wire, WireCounts, simulated};
use crate::port::{FrameAccounts, PortError};
use crate::service::Service;
use crate::table::Table;
use crate::table::memory::{MemoryTable, MemoryTableConfig};
use crate::time::{NS_PER_MS, Now};
use crate::transport::bypass::Bypass;
use crate::worker::{Listener, Shard, Worker};

/// When a simulation starts, in milliseconds since the Unix epoch (2023-11-14): any date that is plainly a date.
const START_UNIX_MS: u64 = 1_700_000_000_000;
/// Ethernet header of a request: locally administered addresses, no tag. The ethertype is set by family.
const LINK_V4: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
const LINK_V6: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
/// Polls after which a simulation that does not come to rest never will.
const SETTLE_STEPS_MAX: u32 = 100_000;
/// Largest packet a client sends.
const CLIENT_PACKET_BYTES: usize = 4_096;

/// A worker on simulated wires, one a lane. A client's packets always come by the same lane, as a NIC's flow steering
/// has it.
pub struct Simulation {
    wires: Vec<Wire>,
    worker: Worker<SimPort, SimQueue>,
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
    /// What it stores.
    pub table: Box<dyn Table>,
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
        let Scenario { seed, lanes, queue, faults, server, allow, limiter, service, table } = scenario;
        assert!(lanes > 0, "a worker needs a lane");
        let metrics = Arc::new(WorkerMetrics::default());
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
        let (wires, lanes) = made.unzip();
        let worker = Worker::new(lanes, shard);
        let now = Now { monotonic_ns: NS_PER_MS, unix_ms: START_UNIX_MS };
        let failures = VecDeque::new();
        let mut simulation = Self { wires, worker, server, queue, seed, now, metrics, failures };
        // The first poll stocks the fill rings, as a real queue's owner does before it is bound.
        simulation.step();
        simulation
    }

    /// The wire that a client's packets come by.
    #[must_use]
    pub fn wire_of(&self, client: SocketAddr) -> &Wire {
        &self.wires[usize::from(client.port()) % self.wires.len()]
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
    pub fn receive(&self) -> Option<(SocketAddr, Vec<u8>)> {
        self.wires.iter().find_map(|wire| {
            loop {
                let packet = wire.receive()?;
                if let Ok(datagram) = udp::receive(&packet, ChecksumPolicy::Verify)
                    && datagram.source == self.server
                {
                    return Some((datagram.destination, datagram.payload.to_vec()));
                }
            }
        })
    }

    /// Lets the worker poll once. Returns how many frames it took.
    pub fn step(&mut self) -> usize {
        let progress = self.worker.poll(self.now);
        self.failures.extend(progress.failed);
        self.now.monotonic_ns += 1_000;
        progress.taken
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

fn lane(seed: u64, queue: SimConfig, faults: Faults) -> (Wire, Bypass<SimPort, SimQueue>) {
    let (wire, port, owner) = simulated(seed, queue, faults).expect("memory for the simulated frames");
    (wire, Bypass::new(port, owner, ChecksumPolicy::Verify))
}
