//! RESP clients with ordinary sockets, each asking one thing after the other: every byte of every answer is checked, and
//! how long it took is noted. One thread serves them all, so that they wait for the server and not for each other.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::daemon_support::bed::Place;

/// Longest wait for one answer: whoever waits longer will not be answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Keys of one client.
const KEYS: usize = 8;
/// Bytes of a small value at most.
const SMALL: u64 = 100;
/// Bytes of a large value: more than a dozen segments.
const LARGE: usize = 20_000;

/// What is to be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) seed: u64,
    /// One value in so many is a large one; 0 for none.
    pub(crate) large_one_in: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// How long each answer took, in microseconds, rising.
    latencies_us: Vec<u32>,
}

impl Figures {
    pub(crate) fn answers(&self) -> usize {
        self.latencies_us.len()
    }

    /// The latency that this share of the answers kept to.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        assert!(!self.latencies_us.is_empty(), "nothing was answered");
        let place = (self.latencies_us.len() as f64 * share).ceil() as usize;
        Duration::from_micros(self.latencies_us[place.clamp(1, self.latencies_us.len()) - 1].into())
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99, p999, most] =
            [0.5, 0.99, 0.999, 1.0].map(|share| self.percentile(share).as_secs_f64() * 1e3);
        let answers = self.answers();
        write!(
            out,
            "{answers:>7} answers, p50 {p50:>7.2} p99 {p99:>7.2} p99.9 {p999:>7.2} max {most:>7.2} ms"
        )
    }
}

/// Small numbers that follow from a seed (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`.
    pub(crate) fn roll(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A request in RESP.
pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bulk(word, &mut bytes);
    }
    bytes
}

/// A bulk string in RESP.
pub(crate) fn bulk(word: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    to.extend_from_slice(word);
    to.extend_from_slice(b"\r\n");
}

/// One that asks.
pub(crate) struct Client {
    stream: TcpStream,
    name: String,
    dice: Dice,
    large_one_in: u64,
    values: [Option<Vec<u8>>; KEYS],
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    received: usize,
    since: Instant,
}

impl Client {
    fn new(stream: TcpStream, number: usize, load: &Load) -> Self {
        stream.set_nonblocking(true).expect("set");
        stream.set_nodelay(true).expect("set");
        Self {
            stream,
            name: format!("{}-{number}", load.seed),
            dice: Dice::new(load.seed ^ (number as u64 + 1) << 32),
            large_one_in: load.large_one_in,
            values: Default::default(),
            request: Vec::new(),
            sent: 0,
            answer: Vec::new(),
            received: 0,
            since: Instant::now(),
        }
    }

    /// The next request, and the answer that there must be.
    fn ask(&mut self) {
        let place = self.dice.roll(KEYS as u64) as usize;
        let key = format!("{}-{place}", self.name);
        self.answer.clear();
        if self.dice.roll(2) == 0 {
            let large = self.large_one_in > 0 && self.dice.roll(self.large_one_in) == 0;
            let bytes = if large { LARGE } else { self.dice.roll(SMALL) as usize };
            let mut dice = self.dice.clone();
            let value: Vec<u8> = (0..bytes).map(|_| dice.roll(256) as u8).collect();
            self.request = command(&[b"SET", key.as_bytes(), &value]);
            self.answer.extend_from_slice(b"+OK\r\n");
            self.values[place] = Some(value);
        } else {
            self.request = command(&[b"GET", key.as_bytes()]);
            match &self.values[place] {
                Some(value) => bulk(value, &mut self.answer),
                None => self.answer.extend_from_slice(b"$-1\r\n"),
            }
        }
        (self.sent, self.received, self.since) = (0, 0, Instant::now());
    }

    fn is_answered(&self) -> bool {
        self.received == self.answer.len()
    }

    /// Sends what can be sent.
    fn send(&mut self) {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("client {}: {error}", self.name),
            }
        }
    }

    /// Sends and receives what can be.
    fn go_on(&mut self, buffer: &mut [u8]) {
        self.send();
        while !self.is_answered() {
            match self.stream.read(buffer) {
                Ok(0) => panic!("client {}: the server closed", self.name),
                Ok(count) => self.check(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("client {}: {error}", self.name),
            }
        }
    }

    fn check(&mut self, got: &[u8]) {
        let end = self.received + got.len();
        let right = self.answer.get(self.received..end).is_some_and(|wanted| wanted == got);
        let request = self.request[..self.request.len().min(60)].escape_ascii();
        assert!(right, "client {}: not the answer to {request}, from byte {}", self.name, self.received);
        self.received = end;
    }

    fn wants(&self) -> PollFlags {
        if self.sent < self.request.len() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }
}

/// Connects all, and asks for as long as `going_on` says so.
pub(crate) fn run(place: Place<'_>, load: &Load, going_on: impl Fn() -> bool) -> Figures {
    ask_all(connect(place, load), going_on)
}

/// Connects all.
pub(crate) fn connect(place: Place<'_>, load: &Load) -> Vec<Client> {
    let stream = || TcpStream::connect(place.server).expect("the server accepts");
    place.run(|| (0..load.clients).map(|number| Client::new(stream(), number, load)).collect())
}

/// Asks for as long as `going_on` says so, and waits for the last answers.
pub(crate) fn ask_all(mut clients: Vec<Client>, going_on: impl Fn() -> bool) -> Figures {
    let mut figures = Figures::default();
    let mut buffer = vec![0; 64 << 10];
    clients.iter_mut().for_each(Client::ask);
    let mut open = true;
    while open || !clients.iter().all(Client::is_answered) {
        open = open && going_on();
        for client in clients.iter_mut().filter(|client| !client.is_answered()) {
            client.go_on(&mut buffer);
            let waited = client.since.elapsed();
            if client.is_answered() {
                figures.latencies_us.push(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
                if open {
                    // Its answer is looked for in the next round, so that no client keeps the others waiting.
                    client.ask();
                    client.send();
                }
            }
            assert!(waited < ANSWER_LIMIT, "client {} waits for {waited:?}", client.name);
        }
        let mut waiting: Vec<PollFd<'_>> = clients
            .iter()
            .filter(|client| !client.is_answered())
            .map(|client| PollFd::new(&client.stream, client.wants()))
            .collect();
        let tenth = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if !waiting.is_empty() {
            poll(&mut waiting, Some(&tenth)).expect("it can be waited for");
        }
    }
    figures.latencies_us.sort_unstable();
    figures
}
