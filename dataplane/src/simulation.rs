//! A whole data plane in one thread: a worker and its service on a simulated wire and a simulated clock, all from one
//! seed. What runs is the code that serves real packets; only the port and the clock are others.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::ChecksumPolicy;
use crate::metrics::WorkerMetrics;
use crate::net::allow::AllowList;
use crate::net::reply::ReplyHeaders;
use crate::net::udp;
use crate::port::FrameAccounts;
use crate::port::sim::{Faults, SimConfig, SimPort, SimQueue, Wire, WireCounts, simulated};
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
/// Largest packet a client sends.
const CLIENT_PACKET_BYTES: usize = 4_096;

/// A worker on a simulated wire.
pub struct Simulation {
    wire: Wire,
    worker: Worker<SimPort, SimQueue>,
    server: SocketAddr,
    now: Now,
    metrics: Arc<WorkerMetrics>,
}

/// What a simulation is made of.
pub struct Scenario {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// Sizes of the queue.
    pub queue: SimConfig,
    /// What the wire does to packets.
    pub faults: Faults,
    /// Where the service listens.
    pub server: SocketAddr,
    /// Who may ask.
    pub allow: AllowList,
    /// What it serves.
    pub service: Box<dyn Service>,
    /// What it stores.
    pub table: Box<dyn Table>,
}

impl Scenario {
    /// A perfect wire, a service on 10.0.0.1 port 7 for everybody in 10.0.0.0/8, and a table of 8 MiB.
    ///
    /// # Panics
    /// When the host has no memory for the table.
    #[must_use]
    pub fn of(seed: u64, service: Box<dyn Service>) -> Self {
        let config = MemoryTableConfig { capacity_bytes: 8 << 20, ..MemoryTableConfig::default() };
        let table = MemoryTable::with_hash_seed(config, seed).expect("memory for a small table");
        Self {
            seed,
            queue: SimConfig::default(),
            faults: Faults::default(),
            server: SocketAddr::from(([10, 0, 0, 1], 7)),
            allow: AllowList::new(&["10.0.0.0/8".parse().expect("a network")]),
            service,
            table: Box::new(table),
        }
    }
}

impl Simulation {
    /// Starts a worker.
    ///
    /// # Panics
    /// When the host has no memory for the frames.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let Scenario { seed, queue, faults, server, allow, service, table } = scenario;
        let (wire, port, owner) = simulated(seed, queue, faults).expect("memory for the simulated frames");
        let metrics = Arc::new(WorkerMetrics::default());
        let listener =
            Listener { addresses: vec![server.ip()], port: server.port(), allow, limiter: None, service };
        let shard = Shard::new(vec![listener], table, Arc::clone(&metrics));
        let lane = Bypass::new(port, owner, ChecksumPolicy::Verify);
        let worker = Worker::new(vec![lane], None, shard);
        let now = Now { monotonic_ns: NS_PER_MS, unix_ms: START_UNIX_MS };
        let mut simulation = Self { wire, worker, server, now, metrics };
        // The first poll stocks the fill ring, as a real queue's owner does before it is bound.
        simulation.step();
        simulation
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
        self.send_packet(packet);
    }

    /// Sends any bytes at all.
    pub fn send_packet(&self, packet: Vec<u8>) {
        self.wire.send(packet);
    }

    /// Takes the next datagram for a client, whole and undamaged: a client's own kernel drops the others.
    #[must_use]
    pub fn receive(&self) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            let packet = self.wire.receive()?;
            if let Ok(datagram) = udp::receive(&packet, ChecksumPolicy::Verify)
                && datagram.source == self.server
            {
                return Some((datagram.destination, datagram.payload.to_vec()));
            }
        }
    }

    /// Lets the worker poll once. Returns how many frames it took.
    ///
    /// # Panics
    /// When the simulated port fails: it has no way to.
    pub fn step(&mut self) -> usize {
        let progress = self.worker.poll(self.now);
        assert!(progress.failed.is_none(), "a simulated port failed: {:?}", progress.failed);
        self.now.monotonic_ns += 1_000;
        progress.taken
    }

    /// Lets the worker poll until nothing is under way any more.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            let busy = self.step() > 0 || self.worker.accounts().sending > 0;
            quiet = if busy { 0 } else { quiet + 1 };
        }
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

    /// Changes the wire's faults from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.wire.set_faults(faults);
    }

    /// What became of the packets.
    #[must_use]
    pub fn wire_counts(&self) -> WireCounts {
        self.wire.counts()
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
