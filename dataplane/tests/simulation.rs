//! Worker, codec and table in one thread on a faulty wire, from many seeds. Every reply is checked against a model
//! of the item, and at the end every frame must be accounted for. A failure names its seed; the same seed
//! replays it: `SIMULATION_SEED=N cargo test -p dataplane --test simulation`.
//!
//! The wire may lose a request, deliver it twice, or let it overtake others, so an item can be in one of several
//! states. Each client has one item of its own and one request under way at a time, and the model keeps the set of
//! states its item may be in: a reply must follow from one of them, and narrows the set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dataplane::port::sim::{Faults, Random, SimConfig};
use dataplane::protocol::memcached;
use dataplane::service::{ServiceFactory, ServiceSetup};
use dataplane::simulation::{Scenario, Simulation};
use dataplane::time::Now;

const CLIENTS: u16 = 12;
const ROUNDS: u32 = 60;
const SEEDS: u64 = 200;
const VALUE_BYTES_MAX: usize = 12_000;

/// An item: its value, or absent.
type Item = Option<Vec<u8>>;

/// What a client asks for.
#[derive(Clone, Debug)]
enum Request {
    Get,
    Set(Vec<u8>),
    Add(Vec<u8>),
    Append(Vec<u8>),
    Increment(u64),
    Delete,
}

impl Request {
    fn random(random: &mut Random) -> Self {
        let value = |random: &mut Random, most: usize| {
            let byte = b'a' + random.below(26) as u8;
            vec![byte; random.below(most)]
        };
        match random.below(10) {
            0 | 1 => Self::Set(value(random, 2_000)),
            2 => Self::Set(random.below(1_000_000).to_string().into_bytes()),
            3 => Self::Add(value(random, 100)),
            4 => Self::Append(value(random, 3_000)),
            5 => Self::Increment(random.below(1_000) as u64),
            6 => Self::Delete,
            _ => Self::Get,
        }
    }

    fn bytes(&self, key: &str) -> Vec<u8> {
        let store = |name: &str, value: &[u8]| {
            [format!("{name} {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
        };
        match self {
            Self::Get => format!("get {key}\r\n").into_bytes(),
            Self::Set(value) => store("set", value),
            Self::Add(value) => store("add", value),
            Self::Append(value) => store("append", value),
            Self::Increment(delta) => format!("incr {key} {delta}\r\n").into_bytes(),
            Self::Delete => format!("delete {key}\r\n").into_bytes(),
        }
    }

    /// The model: what carrying it out once makes of an item, and what it answers.
    fn carry_out(&self, key: &str, item: &Item) -> (Item, Vec<u8>) {
        let stored = |value: &[u8]| (Some(value.to_vec()), b"STORED\r\n".to_vec());
        match (self, item) {
            (Self::Get, Some(value)) => {
                let head = format!("VALUE {key} 0 {}\r\n", value.len());
                (item.clone(), [head.as_bytes(), value, b"\r\nEND\r\n"].concat())
            }
            (Self::Get, None) => (None, b"END\r\n".to_vec()),
            (Self::Set(value), _) | (Self::Add(value), None) => stored(value),
            (Self::Append(more), Some(value)) => stored(&[&value[..], more].concat()),
            (Self::Add(_), Some(_)) | (Self::Append(_), None) => (item.clone(), b"NOT_STORED\r\n".to_vec()),
            (Self::Increment(delta), Some(value)) => {
                let number =
                    std::str::from_utf8(value).ok().filter(|text| !text.is_empty() && text.len() <= 20);
                match number.and_then(|text| text.parse::<u64>().ok()) {
                    Some(number) => {
                        let sum = number.wrapping_add(*delta).to_string();
                        (Some(sum.clone().into_bytes()), format!("{sum}\r\n").into_bytes())
                    }
                    None => {
                        let error = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
                        (item.clone(), error.to_vec())
                    }
                }
            }
            (Self::Increment(_) | Self::Delete, None) => (None, b"NOT_FOUND\r\n".to_vec()),
            (Self::Delete, Some(_)) => (None, b"DELETED\r\n".to_vec()),
        }
    }
}

/// A client, and the states its item may be in.
struct Client {
    address: SocketAddr,
    key: String,
    states: BTreeSet<Item>,
}

impl Client {
    /// Checks the replies to one request and narrows the states. It may have been carried out never, once or, when
    /// the wire doubled it, twice.
    fn check(
        &mut self,
        request: &Request,
        replies: &BTreeSet<Vec<u8>>,
        lossless: bool,
    ) -> Result<(), String> {
        let mut after = BTreeSet::new();
        for state in &self.states {
            let (once, first) = request.carry_out(&self.key, state);
            let (twice, second) = request.carry_out(&self.key, &once);
            if replies.is_empty() && !lossless {
                after.extend([state.clone(), once, twice]);
                continue;
            }
            if replies.is_empty() {
                continue;
            }
            if replies.iter().all(|reply| *reply == first) {
                after.insert(once);
            }
            if !lossless && replies.iter().all(|reply| *reply == first || *reply == second) {
                after.insert(twice);
            }
        }
        if after.is_empty() {
            let replies: Vec<_> = replies.iter().map(|reply| String::from_utf8_lossy(reply)).collect();
            return Err(format!(
                "{}: {request:?} was answered {replies:?}, from {:?}",
                self.key, self.states
            ));
        }
        self.states = after;
        // What the item grew to must not outgrow a test's patience: a large item is set anew.
        Ok(())
    }
}

/// Joins the datagrams of each reply; replies with a datagram missing are left out, as a client would.
fn replies(simulation: &Simulation, lossless: bool) -> BTreeMap<SocketAddr, BTreeSet<Vec<u8>>> {
    type Parts = BTreeMap<u16, Vec<u8>>;
    // A doubled request is answered twice under the same number, possibly differently: each distinct run counts.
    let mut parts: BTreeMap<(SocketAddr, u16, u16), Vec<Parts>> = BTreeMap::new();
    while let Some((client, datagram)) = simulation.receive() {
        assert!((8..=1_400).contains(&datagram.len()), "a reply datagram of {} bytes", datagram.len());
        let field = |place: usize| u16::from_be_bytes([datagram[place], datagram[place + 1]]);
        let (id, number, total) = (field(0), field(2), field(4));
        assert!(number < total, "datagram {number} of {total}");
        let runs = parts.entry((client, id, total)).or_default();
        match runs.iter_mut().find(|run| !run.contains_key(&number)) {
            Some(run) => drop(run.insert(number, datagram[8..].to_vec())),
            None => runs.push(BTreeMap::from([(number, datagram[8..].to_vec())])),
        }
    }
    let mut whole: BTreeMap<SocketAddr, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for ((client, _, total), runs) in parts {
        let whole_runs = runs.iter().filter(|run| run.len() == usize::from(total)).count();
        assert!(!lossless || whole_runs == runs.len(), "a reply to {client} was sent in part");
        for run in runs.into_iter().filter(|run| run.len() == usize::from(total)) {
            whole.entry(client).or_default().insert(run.into_values().flatten().collect());
        }
    }
    whole
}

fn run(seed: u64, queue: SimConfig, faults: Faults) -> Result<(), String> {
    let mut random = Random::new(seed);
    let setup = ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 65_536,
        item_bytes_max: 1 << 20,
        started: Now::default(),
    };
    let service = memcached::factory().create(&setup).expect("a service");
    let mut simulation = Simulation::new(Scenario { queue, faults, ..Scenario::of(seed, service) });
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| Client {
            address: SocketAddr::from(([10, 0, 0, 2], 4_000 + number)),
            key: format!("key-{number}"),
            states: BTreeSet::from([None]),
        })
        .collect();
    let lossless = faults == Faults::default();
    for round in 0..ROUNDS {
        let requests: Vec<Request> = clients
            .iter()
            .map(|client| {
                let largest = client.states.iter().flatten().map(Vec::len).max().unwrap_or(0);
                let many = client.states.len() > 32 || largest > VALUE_BYTES_MAX;
                if many { Request::Delete } else { Request::random(&mut random) }
            })
            .collect();
        for (client, request) in clients.iter().zip(&requests) {
            let id = (round as u16).to_be_bytes();
            let frame = [&id[..], &[0, 0, 0, 1, 0, 0], &request.bytes(&client.key)].concat();
            simulation.send(client.address, &frame);
        }
        simulation.settle();
        let replies = replies(&simulation, lossless);
        for (client, request) in clients.iter_mut().zip(&requests) {
            let none = BTreeSet::new();
            client.check(request, replies.get(&client.address).unwrap_or(&none), lossless)?;
        }
        simulation.advance_ms(random.below(50) as u64);
    }
    let accounts = simulation.accounts();
    if accounts.lost() != 0 || accounts.sending != 0 || accounts.held != 0 || accounts.received != 0 {
        return Err(format!("frames are missing or stuck: {accounts:?}"));
    }
    Ok(())
}

/// Runs one seed, or the budget of seeds, with faults drawn from each.
fn run_all(queue: SimConfig, faults: impl Fn(&mut Random) -> Faults) {
    let chosen = std::env::var("SIMULATION_SEED").ok();
    let chosen = chosen.map(|seed| seed.parse::<u64>().expect("SIMULATION_SEED is a number"));
    let seeds = chosen.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let faults = faults(&mut Random::new(!seed));
        if let Err(failure) = run(seed, queue, faults) {
            panic!("seed {seed}, {faults:?}: {failure}");
        }
    }
}

#[test]
fn a_perfect_wire_answers_every_request_once_and_rightly() {
    // Room for the longest reply to every client at once.
    run_all(SimConfig { frames: 1_024, ring_entries: 256, kick_frames: 32 }, |_| Faults::default());
}

#[test]
fn on_a_faulty_wire_every_reply_follows_from_a_state_the_item_may_be_in() {
    // So little room that rings and frames run out too.
    run_all(SimConfig { frames: 64, ring_entries: 16, kick_frames: 8 }, |random| Faults {
        loss: random.below(200) as u32,
        duplication: random.below(100) as u32,
        reordering: random.below(300) as u32,
        corruption: random.below(100) as u32,
        truncation: random.below(100) as u32,
    });
}

#[test]
fn a_batch_of_long_replies_finds_a_frame_for_each_of_its_datagrams() {
    let setup = ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 65_536,
        item_bytes_max: 1 << 20,
        started: Now::default(),
    };
    let service = memcached::factory().create(&setup).expect("a service");
    let queue = SimConfig { frames: 512, ring_entries: 128, kick_frames: 128 };
    let mut scenario = Scenario::of(1, service);
    scenario.queue = queue;
    let mut simulation = Simulation::new(scenario);
    let frame = |message: &[u8]| [&[0, 7, 0, 0, 0, 1, 0, 0], message].concat();
    let client = |number: u16| SocketAddr::from(([10, 0, 0, 2], 4_000 + number));
    simulation.send(client(0), &frame(format!("set key 0 0 3500\r\n{}\r\n", "v".repeat(3_500)).as_bytes()));
    for _ in 0..3 {
        simulation
            .send(client(0), &frame(format!("append key 0 0 3500\r\n{}\r\n", "v".repeat(3_500)).as_bytes()));
    }
    simulation.settle();
    while simulation.receive().is_some() {}
    // 64 replies of 11 datagrams: more than the queue has frames.
    for number in 0..64 {
        simulation.send(client(number), &frame(b"get key\r\n"));
    }
    simulation.settle();
    let whole: usize = replies(&simulation, true).into_values().map(|replies| replies.len()).sum();
    assert_eq!(whole, 64);
    assert_eq!(simulation.accounts().lost(), 0);
}
