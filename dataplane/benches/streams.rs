//! What a request over TCP costs a worker, by how many connections there are: a `get` of 32 bytes from among many keys, each
//! from another connection, a whole batch in each poll; and of 100 kB over a few. Over the simulated wire, whose own cost is in the figure.
//!
//! `cargo bench -p dataplane --bench streams [-- --smoke]`; `cargo test` runs the smoke.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::config::ChecksumPolicy;
use dataplane::limits::BATCH_FRAMES;
use dataplane::metrics::WorkerMetrics;
use dataplane::net::allow::AllowList;
use dataplane::net::tcp::{Closed, Config, FlowId, Handler, Io, Output, Seeds, Stack, Taken};
use dataplane::port::sim::{Faults, Random, SimConfig, SimPort, SimQueue, Wire, simulated};
use dataplane::protocol::memcached;
use dataplane::request::{Op, Request, Store};
use dataplane::service::{ServiceFactory, ServiceSetup};
use dataplane::table::Table;
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::Now;
use dataplane::transport::bypass::{Bypass, Streams};
use dataplane::transport::streams::{StreamListener, StreamListeners};
use dataplane::worker::{Shard, Worker};

const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
/// Time between two polls: such that nothing is answered by a timer.
const STEP_NS: u64 = 10_000;

struct Scale {
    keys: u64,
    polls: usize,
    rounds: usize,
}

/// What the clients' TCP tells: which connections are open, and who was answered.
#[derive(Default)]
struct Asking {
    open: Vec<FlowId>,
    answers: usize,
    answer_bytes: usize,
}

impl Handler for Asking {
    fn opened(&mut self, flow: FlowId, _: SocketAddr, _: SocketAddr, _: &mut Io<'_>) {
        self.open.push(flow);
    }

    fn data(&mut self, _: FlowId, bytes: &[u8], _: &mut Io<'_>) -> Taken {
        self.answers += usize::from(bytes.ends_with(b"END\r\n"));
        self.answer_bytes += bytes.len();
        Taken::all(bytes.len())
    }

    fn closed(&mut self, _: FlowId, reason: Closed) {
        panic!("{reason:?}");
    }
}

struct ToWire<'a>(&'a Wire);

impl Output for ToWire<'_> {
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let mut frame = vec![0; 2_048];
        let bytes = build(&mut frame);
        frame.truncate(bytes);
        self.0.send(frame);
        true
    }
}

struct Rig {
    worker: Worker<SimPort, SimQueue>,
    wire: Wire,
    clients: Stack,
    asking: Asking,
    now: Now,
}

impl Rig {
    fn new(connections: usize, keys: u64, value_bytes: usize) -> Self {
        let room = connections + BATCH_FRAMES;
        let config =
            Config { flows: room, half_open: room, waiting: room, keepalive_ns: 0, ..Config::default() };
        let queue = SimConfig { frames: 2_048, ring_entries: 512, kick_frames: 512, ..SimConfig::default() };
        let (wire, port, owner) = simulated(1, queue, Faults::default()).expect("memory for the frames");
        let lane = Bypass::new(port, owner, ChecksumPolicy::Verify);
        let server = SocketAddr::from(([10, 0, 0, 1], 11_211));
        let setup = ServiceSetup {
            worker: 0,
            workers: 1,
            reply_bytes_max: 65_536,
            connections_max: room,
            item_bytes_max: 1 << 20,
            started: Now::default(),
        };
        let service = memcached::factory().create_stream(&setup).expect("a service").expect("for streams");
        let allow = AllowList::new(&["10.0.0.0/8".parse().expect("a network")]);
        let listener =
            StreamListener { addresses: vec![], port: server.port(), steered: true, allow, service };
        let listeners = StreamListeners::new(vec![listener], room);
        let seeds = |seed| Seeds { table: seed, sequence: [seed, !seed] };
        let streams = Streams::new(config.clone(), seeds(1), listeners).expect("good sizes");
        let now = Now { monotonic_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };
        let shard =
            Shard::new(vec![], Box::new(filled(now, keys, value_bytes)), Arc::new(WorkerMetrics::default()));
        let worker = Worker::new(vec![lane], shard).with_streams(vec![streams]);
        let clients = Stack::new(config, seeds(2)).expect("good sizes");
        let mut rig = Self { worker, wire, clients, asking: Asking::default(), now };
        rig.poll();
        for number in 0..connections {
            let client =
                SocketAddr::from(([10, 1, (number >> 14) as u8, 1], 1_024 + (number & 0x3fff) as u16));
            rig.clients.connect(rig.now, &LINK, client, server).expect("a free flow");
            if number % 16 == 15 {
                for _ in 0..4 {
                    rig.turn();
                }
            }
        }
        while rig.asking.open.len() < connections {
            rig.turn();
        }
        rig
    }

    /// One poll of the worker, and how long it took.
    fn poll(&mut self) -> Duration {
        let start = cpu_time();
        black_box(self.worker.poll(self.now));
        cpu_time() - start
    }

    /// Clients and worker have their turn.
    fn turn(&mut self) -> Duration {
        self.clients.poll(self.now, &mut self.asking, &mut ToWire(&self.wire));
        let took = self.poll();
        while let Some(frame) = self.wire.receive() {
            self.clients.receive(self.now, &frame, &mut self.asking, &mut ToWire(&self.wire));
        }
        self.now.monotonic_ns += STEP_NS;
        took
    }

    /// Asks once on each of a batch of connections; how long the worker took for all of them.
    fn ask(&mut self, random: &mut Random, keys: u64) -> Duration {
        let connections = self.asking.open.len();
        let batch = BATCH_FRAMES.min(connections);
        let first = random.below(connections);
        // Far from each other in memory, and none twice.
        let stride = connections / batch;
        self.asking.answers = 0;
        for number in 0..batch {
            let flow = self.asking.open[(first + number * stride) % connections];
            let request = format!("get {}\r\n", key(random.next_u64() % keys));
            assert_eq!(self.clients.send(flow, request.as_bytes()), request.len());
        }
        let mut took = self.turn();
        while self.asking.answers < batch {
            took += self.turn();
        }
        took
    }
}

/// CPU time of this thread: what else the machine does is not in it.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn key(number: u64) -> String {
    format!("key-{number:012}")
}

fn filled(now: Now, keys: u64, value_bytes: usize) -> MemoryTable {
    let config = MemoryTableConfig {
        capacity_bytes: (keys * (value_bytes as u64 + 128)).max(16 << 20),
        ..MemoryTableConfig::default()
    };
    let mut table = MemoryTable::new(config).expect("memory for the table");
    let value = vec![b'v'; value_bytes];
    for number in 0..keys {
        let key = key(number);
        let request = Request::new(key.as_bytes(), Op::Store(Store::set(&value)));
        let _ = Table::submit(&mut table, now, &request);
    }
    table
}

fn main() {
    // `cargo bench` says so; `cargo test` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let smoke = !is_measuring || std::env::args().any(|argument| argument == "--smoke");
    let scale = if smoke {
        Scale { keys: 1_000, polls: 10, rounds: 2 }
    } else {
        Scale { keys: 1_000_000, polls: 2_000, rounds: 9 }
    };
    let connections: &[usize] = if smoke { &[1, 100] } else { &[1, 16, 64, 1_000, 10_000] };
    for &connections in connections {
        measure(connections, 32, &scale);
    }
    // Fewer of these: each takes some 70 segments.
    let scale = Scale { keys: scale.keys / 500, polls: scale.polls / 5, ..scale };
    measure(4, 100_000, &scale);
}

fn measure(connections: usize, value_bytes: usize, scale: &Scale) {
    let mut rig = Rig::new(connections, scale.keys, value_bytes);
    let mut random = Random::new(3);
    let mut rounds: Vec<u64> = (0..=scale.rounds)
        .map(|_| {
            let took: Duration = (0..scale.polls).map(|_| rig.ask(&mut random, scale.keys)).sum();
            took.as_nanos() as u64 / (scale.polls * BATCH_FRAMES.min(connections)) as u64
        })
        // The first warms up.
        .skip(1)
        .collect();
    rounds.sort_unstable();
    let (least, median) = (rounds[0], rounds[rounds.len() / 2]);
    let count = rounds.len();
    println!(
        "{connections:>6} connections, {value_bytes} bytes: {median} ns a request (median of {count}), {least} at best"
    );
}
