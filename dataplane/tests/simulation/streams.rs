//! Seen from clients with streams: whatever the wire does to packets, each request is carried out once, in order, and
//! every byte of every reply is what the model says. At the end both ends hold nothing any more.

use std::net::SocketAddr;

use dataplane::net::tcp::pool::Class;
use dataplane::net::tcp::{Closed, Config, FlowId};
use dataplane::port::sim::{Faults, Random, SimConfig};
use dataplane::protocol::{memcached, resp};
use dataplane::service::{ServiceFactory, ServiceSetup, StreamService};
use dataplane::simulation::{Scenario, Simulation, StreamScenario};
use dataplane::time::{NS_PER_S, Now};

use crate::model::{self, Item, Request, VALUE_BYTES_MAX};
use crate::seeds::run_all;

const CLIENTS: usize = 8;
/// Of each client, over all its connections.
const REQUESTS: usize = 60;
/// Requests after which a client closes its connection and opens another.
const REQUESTS_OF_A_STREAM: usize = 20;
/// Simulated time a run may take: a lost packet costs a retransmission, lost retransmissions twice that each time.
const LIMIT_MS: u64 = 600_000;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Memcached,
    Resp,
}

impl Protocol {
    fn service(self) -> Box<dyn StreamService> {
        let setup = ServiceSetup {
            worker: 0,
            workers: 1,
            reply_bytes_max: 65_536,
            connections_max: CLIENTS * 2,
            item_bytes_max: 1 << 20,
            started: Now::default(),
        };
        let service = match self {
            Self::Memcached => memcached::factory().create_stream(&setup),
            Self::Resp => resp::factory().create_stream(&setup),
        };
        service.expect("a service").expect("for streams")
    }

    /// A request's bytes, what they make of the item, and what they are answered.
    fn exchange(self, request: &Request, key: &str, item: &Item) -> (Vec<u8>, Item, Vec<u8>) {
        match self {
            Self::Memcached => {
                let (after, reply) = request.carry_out(key, item);
                (request.bytes(key), after, reply)
            }
            Self::Resp => {
                let (after, reply) = in_resp(request, item);
                (command(request, key), after, reply)
            }
        }
    }
}

/// The same request as a command of RESP: an array of bulk strings.
fn command(request: &Request, key: &str) -> Vec<u8> {
    let number;
    let words: &[&[u8]] = match request {
        Request::Get => &[b"GET", key.as_bytes()],
        Request::Set(value) => &[b"SET", key.as_bytes(), value],
        Request::Add(value) => &[b"SETNX", key.as_bytes(), value],
        Request::Append(value) => &[b"APPEND", key.as_bytes(), value],
        Request::Increment(delta) => {
            number = delta.to_string();
            &[b"INCRBY", key.as_bytes(), number.as_bytes()]
        }
        Request::Delete => &[b"DEL", key.as_bytes()],
    };
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// What it makes of an item there, and what it is answered.
fn in_resp(request: &Request, item: &Item) -> (Item, Vec<u8>) {
    let number = |number: usize| format!(":{number}\r\n").into_bytes();
    match (request, item) {
        (Request::Get, Some(value)) => {
            let head = format!("${}\r\n", value.len());
            (item.clone(), [head.as_bytes(), value, b"\r\n"].concat())
        }
        (Request::Get, None) => (None, b"$-1\r\n".to_vec()),
        (Request::Set(value), _) => (Some(value.clone()), b"+OK\r\n".to_vec()),
        (Request::Add(value), None) => (Some(value.clone()), number(1)),
        (Request::Add(_), Some(_)) => (item.clone(), number(0)),
        (Request::Append(more), _) => {
            let value = [item.as_deref().unwrap_or_default(), more].concat();
            let reply = number(value.len());
            // Appending nothing to nothing makes an empty item, as Redis has it.
            (Some(value), reply)
        }
        (Request::Increment(delta), _) => {
            let text = item.as_deref().map_or(Some("0"), |value| std::str::from_utf8(value).ok());
            let value =
                text.and_then(|text| text.parse::<i64>().ok().filter(|number| number.to_string() == text));
            match value.and_then(|value| value.checked_add_unsigned(*delta)) {
                Some(sum) => (Some(sum.to_string().into_bytes()), format!(":{sum}\r\n").into_bytes()),
                None => (item.clone(), b"-ERR value is not an integer or out of range\r\n".to_vec()),
            }
        }
        (Request::Delete, _) => (None, number(usize::from(item.is_some()))),
    }
}

/// A client, the item that only it asks for, and what it is to hear on the connection it has.
struct Client {
    number: usize,
    key: String,
    item: Item,
    stream: FlowId,
    streams: usize,
    asked: usize,
    expected: Vec<u8>,
    heard: Vec<u8>,
    /// It has said that it ends.
    ends: bool,
}

impl Client {
    fn address(number: usize, streams: usize) -> SocketAddr {
        let port = 4_000 + (number + streams * CLIENTS) as u16;
        SocketAddr::from(([10, 0, 0, 2], port))
    }

    fn open(simulation: &mut Simulation, number: usize) -> Self {
        let stream = simulation.connect(Self::address(number, 0));
        let (key, item) = (format!("key-{number}"), None);
        Self { number, key, item, stream, streams: 1, asked: 0, expected: vec![], heard: vec![], ends: false }
    }

    /// Asks for a few things at once, cut anywhere, and hears what has come. True when it has heard all and is gone.
    fn act(
        &mut self,
        simulation: &mut Simulation,
        random: &mut Random,
        protocol: Protocol,
    ) -> Result<bool, String> {
        self.heard.extend(simulation.hear(self.stream));
        if !self.expected.starts_with(&self.heard) {
            let at = self
                .heard
                .iter()
                .zip(&self.expected)
                .take_while(|(heard, expected)| heard == expected)
                .count();
            let from = at.saturating_sub(20);
            let show = |bytes: &[u8]| {
                bytes[from.min(bytes.len())..(at + 40).min(bytes.len())].escape_ascii().to_string()
            };
            let (heard, expected) = (show(&self.heard), show(&self.expected));
            return Err(format!("{}: byte {at}: heard ..{heard} and not ..{expected}", self.key));
        }
        if let Some(reason) = simulation.closed(self.stream) {
            if reason != Closed::Finished || !self.ends || self.heard != self.expected {
                return Err(format!("{}: {reason:?} after {} bytes", self.key, self.heard.len()));
            }
            if self.asked == REQUESTS {
                return Ok(true);
            }
            self.stream = simulation.connect(Self::address(self.number, self.streams));
            (self.streams, self.ends) = (self.streams + 1, false);
            (self.expected, self.heard) = (vec![], vec![]);
        }
        let all_heard = self.heard.len() == self.expected.len();
        if self.ends || !(all_heard || random.chance(10)) {
            return Ok(false);
        }
        let mut words = Vec::new();
        for _ in 0..=random.below(6) {
            if self.asked == self.streams * REQUESTS_OF_A_STREAM {
                break;
            }
            let large = self.item.as_ref().is_some_and(|item| item.len() > VALUE_BYTES_MAX);
            let request = if large { Request::Delete } else { Request::random(random) };
            let (bytes, after, reply) = protocol.exchange(&request, &self.key, &self.item);
            words.extend(bytes);
            self.expected.extend(reply);
            (self.item, self.asked) = (after, self.asked + 1);
        }
        let cut = random.below(words.len() + 1);
        simulation.say(self.stream, &words[..cut]);
        simulation.say(self.stream, &words[cut..]);
        if self.asked == self.streams * REQUESTS_OF_A_STREAM {
            simulation.hang_up(self.stream);
            self.ends = true;
        }
        Ok(false)
    }
}

/// Tables and pools that last, or so small that they do not.
fn sizes(random: &mut Random, scarce: bool) -> Config {
    let class = |bytes, count| Class { bytes, count };
    let of = |random: &mut Random, least: usize, plenty: usize| {
        if scarce { least + random.below(least) } else { plenty }
    };
    Config {
        flows: CLIENTS * 2,
        // Never so few that there are cookies: a flow whose first segments come out of order is not opened by one.
        half_open: CLIENTS * 2,
        waiting: of(random, 4, CLIENTS * 8),
        chunks: of(random, 24, 1_024),
        chunk_bytes: 1 << 10,
        segments: of(random, 8, 1_024),
        send_bytes_max: of(random, 24 << 10, 256 << 10),
        blocks: [
            class(2 << 10, of(random, 4, CLIENTS * 2)),
            class(8 << 10, of(random, 4, CLIENTS * 2)),
            class(32 << 10, of(random, 4, CLIENTS * 2)),
            class(128 << 10, of(random, 2, CLIENTS * 2)),
        ],
        window_bytes: of(random, 8 << 10, 64 << 10),
        window_slack_bytes: 8 << 10,
        // On so bad a wire everything may take many tries.
        half_open_ns: 600 * NS_PER_S,
        request_ns: 600 * NS_PER_S,
        close_ns: 600 * NS_PER_S,
        time_wait_ns: 5 * NS_PER_S,
        ..Config::default()
    }
}

fn run(seed: u64, protocol: Protocol, scarce: bool, queue: SimConfig, faults: Faults) -> Result<(), String> {
    let mut random = Random::new(seed);
    let streams = StreamScenario {
        service: Box::new(move |_| protocol.service()),
        worker: sizes(&mut random, scarce),
        clients: sizes(&mut random, false),
    };
    let lanes = 1 + random.below(2);
    let scenario =
        Scenario { queue, faults, lanes, streams: Some(streams), ..Scenario::of(seed, model::memcached()) };
    let mut simulation = Simulation::new(scenario);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| Client::open(&mut simulation, number)).collect();
    let mut outcome = Ok(());
    let all_gone = simulation.run(LIMIT_MS, |simulation| {
        clients.retain_mut(|client| match client.act(simulation, &mut random, protocol) {
            Ok(is_gone) => !is_gone,
            Err(failure) => {
                outcome = Err(failure);
                true
            }
        });
        outcome.is_err() || clients.is_empty()
    });
    outcome?;
    if !all_gone {
        let left: Vec<_> =
            clients.iter().map(|client| (&client.key, client.asked, client.heard.len())).collect();
        return Err(format!("not all clients have heard all: {left:?}"));
    }
    // Late segments are waited for still, and the worker may not have heard yet that all is over.
    let held =
        |simulation: &mut Simulation| simulation.stacks().all(|stack| stack.holdings() == Default::default());
    if !simulation.run(LIMIT_MS, held) {
        let holdings: Vec<_> = simulation.stacks().map(|stack| stack.holdings()).collect();
        return Err(format!("something is held that belongs to nobody: {holdings:?}"));
    }
    simulation.stacks().for_each(|stack| stack.check());
    simulation.settle();
    let accounts = simulation.accounts();
    if accounts.owned() != accounts.total || accounts.sending + accounts.held + accounts.received != 0 {
        return Err(format!("frames are missing or stuck: {accounts:?}"));
    }
    Ok(())
}

fn faults(random: &mut Random) -> Faults {
    Faults {
        loss: random.below(100) as u32,
        duplication: random.below(100) as u32,
        reordering: random.below(200) as u32,
        corruption: random.below(60) as u32,
        truncation: random.below(60) as u32,
        delay: random.below(200) as u32,
    }
}

/// Who asks for more than the worker may have to be sent, and says at once that this is all, hears all of it.
#[test]
fn who_stops_asking_hears_all_that_was_asked_for() {
    for protocol in [Protocol::Memcached, Protocol::Resp] {
        let mut random = Random::new(1);
        let streams = StreamScenario {
            service: Box::new(move |_| protocol.service()),
            worker: Config { send_bytes_max: 24 << 10, ..sizes(&mut random, false) },
            clients: sizes(&mut random, false),
        };
        let mut simulation =
            Simulation::new(Scenario { streams: Some(streams), ..Scenario::of(1, model::memcached()) });
        let stream = simulation.connect(Client::address(0, 0));
        let (mut item, mut words, mut expected) = (None, Vec::new(), Vec::new());
        for request in std::iter::once(Request::Set(vec![b'v'; 10_000])).chain((0..20).map(|_| Request::Get))
        {
            let (bytes, after, reply) = protocol.exchange(&request, "key", &item);
            item = after;
            words.extend(bytes);
            expected.extend(reply);
        }
        // And the half of one more, which nobody ever hears the rest of.
        words.extend_from_slice(b"*1\r\n$4\r\nge");
        simulation.say(stream, &words);
        simulation.hang_up(stream);
        let over = simulation.run(LIMIT_MS, |simulation| simulation.closed(stream).is_some());
        assert!(over, "{protocol:?}");
        let heard = simulation.hear(stream);
        assert_eq!(heard.len().min(expected.len()), expected.len(), "{protocol:?} is cut off");
        assert!(heard.starts_with(&expected), "{protocol:?}");
        assert_eq!(simulation.closed(stream), Some(Closed::Finished));
    }
}

#[test]
fn over_a_perfect_wire_every_byte_of_memcached_is_right() {
    run_all(
        |_| Faults::default(),
        |seed, faults| run(seed, Protocol::Memcached, false, SimConfig::default(), faults),
    );
}

#[test]
fn over_a_faulty_wire_every_byte_of_memcached_is_right() {
    run_all(faults, |seed, faults| run(seed, Protocol::Memcached, false, SimConfig::default(), faults));
}

#[test]
fn over_a_faulty_wire_every_byte_of_resp_is_right() {
    run_all(faults, |seed, faults| run(seed, Protocol::Resp, false, SimConfig::default(), faults));
}

#[test]
fn with_too_little_of_everything_every_byte_is_right_all_the_same() {
    let queue = SimConfig { frames: 64, ring_entries: 16, kick_frames: 8, ..SimConfig::default() };
    run_all(faults, |seed, faults| {
        let protocol = if seed % 2 == 0 { Protocol::Memcached } else { Protocol::Resp };
        run(seed, protocol, true, queue, faults)
    });
}
