//! The generator over a wire that ends in a server of our own TCP: memcached's `get` and `set`, with faults.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::memory::Placement;
use dataplane::net::tcp::{Admission, Closed, Config, FlowId, Handler, Io, Output, Seeds, Stack, Taken};
use dataplane::port::{Frame, FrameAccounts, FrameBatch, Port, PortError, QueueOwner, Umem};
use dataplane::time::Now;

use super::*;
use crate::workload::{KEY_BYTES, Operation};

const FRAMES: usize = 512;
const SEEDS: Seeds = Seeds { table: 1, sequence: [2, 3] };

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// This reply has one bit wrong.
    wrong_at: Option<usize>,
    /// From this reply on it says nothing.
    silent_from: Option<usize>,
    /// Instead of this reply it closes.
    closes_at: Option<usize>,
    /// It stands still for a while at this reply.
    pauses_at: Option<(usize, Duration)>,
}

#[derive(Default)]
struct Server {
    items: HashMap<Vec<u8>, Vec<u8>>,
    faults: Faults,
    replies: usize,
    /// Requests by the flow they came on.
    by_flow: HashMap<usize, usize>,
    still_until: Option<Instant>,
    /// It takes no more connections.
    refuses: bool,
}

impl Server {
    /// One request: its length and the reply.
    fn serve(&mut self, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let key = bytes[4..4 + KEY_BYTES].to_vec();
        if bytes.starts_with(b"get ") {
            let value = &self.items[&key];
            let head = format!("VALUE {} 0 {}\r\n", String::from_utf8_lossy(&key), value.len());
            return Some((line + 2, [head.as_bytes(), value, b"\r\nEND\r\n"].concat()));
        }
        let words = std::str::from_utf8(&bytes[..line]).expect("a line of text");
        let length: usize = words.rsplit(' ').next().expect("a word").parse().expect("a length");
        let value = bytes.get(line + 2..line + 2 + length + 2)?;
        self.items.insert(key, value[..length].to_vec());
        Some((line + 2 + length + 2, b"STORED\r\n".to_vec()))
    }
}

impl Handler for Server {
    fn admit(&mut self, _: SocketAddr, _: SocketAddr) -> Admission {
        if self.refuses { Admission::Refuse } else { Admission::Accept }
    }

    fn opened(&mut self, _: FlowId, _: SocketAddr, _: SocketAddr, _: &mut Io<'_>) {}

    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        let mut consumed = 0;
        while let Some((length, mut reply)) = self.serve(&bytes[consumed..]) {
            consumed += length;
            *self.by_flow.entry(flow.index()).or_default() += 1;
            let number = self.replies;
            self.replies += 1;
            let Faults { wrong_at, silent_from, closes_at, pauses_at } = self.faults;
            if silent_from.is_some_and(|from| number >= from) {
                continue;
            }
            if closes_at == Some(number) {
                io.abort();
                break;
            }
            if let Some((_, pause)) = pauses_at.filter(|(at, _)| *at == number) {
                self.still_until = Some(Instant::now() + pause);
            }
            if wrong_at == Some(number) {
                reply[0] ^= 1;
            }
            assert_eq!(io.send(&reply), reply.len());
        }
        Taken { consumed, needed: 0 }
    }

    fn closed(&mut self, _: FlowId, _: Closed) {}
}

/// A port whose wire ends in a server.
struct Loop {
    umem: Arc<Umem>,
    free: Vec<Frame>,
    inbox: VecDeque<Vec<u8>>,
    sent: Sent,
    stack: Stack,
    server: Server,
}

#[derive(Default)]
struct Sent(VecDeque<Vec<u8>>);

impl Output for Sent {
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let mut frame = vec![0; 2_048];
        let length = build(&mut frame);
        frame.truncate(length);
        self.0.push_back(frame);
        true
    }
}

impl Port for Loop {
    fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), PortError> {
        let Self { umem, free, inbox, sent, stack, server } = self;
        if server.still_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let now = Now::read();
        for frame in inbox.drain(..) {
            stack.receive(now, &frame, server, sent);
        }
        stack.poll(now, server, sent);
        while !batch.is_full() && !sent.0.is_empty() {
            let Some(mut frame) = free.pop() else { break };
            let packet = sent.0.pop_front().expect("there is one");
            umem.compose(&mut frame, |out| {
                out[..packet.len()].copy_from_slice(&packet);
                packet.len()
            });
            batch.push(frame);
        }
        Ok(())
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    fn available(&self) -> usize {
        self.free.len()
    }

    fn transmit_room(&self) -> usize {
        usize::MAX
    }

    fn release(&mut self, frame: Frame) {
        self.free.push(frame);
    }

    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        self.inbox.push_back(self.umem.packet(&frame).to_vec());
        self.free.push(frame);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn wait_handle(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn accounts(&self) -> FrameAccounts {
        FrameAccounts { free: self.free.len() as u64, ..FrameAccounts::default() }
    }
}

struct LoopQueue;

impl QueueOwner for LoopQueue {
    fn poll(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn accounts(&self) -> FrameAccounts {
        FrameAccounts { total: FRAMES as u64, ..FrameAccounts::default() }
    }
}

/// A generator whose connections are open, and whose keys are stored.
fn generator(connections: usize, faults: Faults) -> Generator<Loop, LoopQueue> {
    let (umem, free) = Umem::allocate(FRAMES, Placement::default()).expect("a small UMEM");
    let config = Config { flows: 256, half_open: 256, waiting: 256, ..Config::default() };
    let port = Loop {
        umem: Arc::new(umem),
        free,
        inbox: VecDeque::new(),
        sent: Sent::default(),
        stack: Stack::new(config, SEEDS).expect("a good configuration"),
        server: Server::default(),
    };
    let link = Link {
        local_mac: [2, 0, 0, 0, 0, 1],
        local: Ipv4Addr::new(10, 77, 0, 1),
        peer_mac: [2, 0, 0, 0, 0, 2],
        peer: Ipv4Addr::new(10, 77, 0, 2),
    };
    let mut generator = Generator::new(port, LoopQueue, link, SEEDS).expect("a good configuration");
    generator.open(connections, 11_211).expect("the server answers");
    let stored = generator.run(&each_once(Operation::Set), &mut || Ok(())).expect("ran");
    assert_eq!((stored.replies, stored.missing), (u64::from(KEYS), 0));
    let server = &mut generator.port.server;
    assert_eq!(server.items.len(), KEYS as usize);
    (server.faults, server.replies) = (faults, 0);
    server.by_flow.clear();
    generator
}

const KEYS: u32 = 300;
const LENGTH: Duration = Duration::from_millis(30);

fn load(operation: Operation, pace: Pace) -> Load {
    Load {
        shape: Shape { dialect: Dialect::Memcached, operation, value_bytes: 100 },
        keys: Keys { first: 7, count: KEYS, each_once: false },
        pace,
        warm_up: Duration::from_millis(10),
        length: LENGTH,
    }
}

fn each_once(operation: Operation) -> Load {
    let load = load(operation, Pace::Closed { pipeline: 4 });
    Load { keys: Keys { each_once: true, ..load.keys }, warm_up: Duration::ZERO, ..load }
}

fn run(generator: &mut Generator<Loop, LoopQueue>, pace: Pace) -> anyhow::Result<Outcome> {
    generator.run(&load(Operation::Get, pace), &mut || Ok(()))
}

#[test]
fn every_key_is_asked_for_once_and_connections_close() {
    let mut generator = generator(5, Faults::default());
    let outcome = generator.run(&each_once(Operation::Get), &mut || Ok(())).expect("ran");
    assert_eq!((outcome.replies, outcome.missing), (u64::from(KEYS), 0));
    assert_eq!(generator.port.server.by_flow.len(), 5);
    generator.close().expect("the server closes too");
    assert_eq!((generator.connections(), generator.frames_lost()), (0, 0));
    generator.open(3, 11_211).expect("from other ports");
    run(&mut generator, Pace::Closed { pipeline: 1 }).expect("ran");
}

#[test]
fn a_closed_loop_keeps_so_many_under_way_and_counts_between_the_edges() {
    let mut generator = generator(10, Faults::default());
    let mut edges = 0;
    let outcome = generator
        .run(&load(Operation::Set, Pace::Closed { pipeline: 16 }), &mut || {
            edges += 1;
            Ok(())
        })
        .expect("ran");
    assert_eq!(edges, 2);
    assert!(outcome.elapsed >= LENGTH && outcome.replies > 0 && outcome.missing == 0, "{outcome:?}");
    let mean = outcome.under_way_mean();
    assert!(mean > 100.0 && mean < 180.0, "{mean} of 160");
}

#[test]
fn rotation_keeps_so_many_under_way_and_leaves_no_connection_out() {
    let mut generator = generator(40, Faults::default());
    let outcome = run(&mut generator, Pace::Rotating { under_way: 8 }).expect("ran");
    let mean = outcome.under_way_mean();
    assert!(mean > 4.0 && mean < 9.0, "{mean} of 8");
    let by_flow = &generator.port.server.by_flow;
    let (least, most) = (by_flow.values().min(), by_flow.values().max());
    assert_eq!(by_flow.len(), 40);
    assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 2), "{least:?} to {most:?}");
}

#[test]
fn an_open_loop_sends_as_many_as_were_due_and_counts_from_when_they_were() {
    const RATE: f64 = 2_000.0;
    let pause = Duration::from_millis(15);
    let mut generator = generator(4, Faults { pauses_at: Some((30, pause)), ..Faults::default() });
    let outcome = run(&mut generator, Pace::Open { rate: RATE }).expect("ran");
    let due = RATE * LENGTH.as_secs_f64();
    assert!((outcome.latencies.count() as f64 - due).abs() < 3.0, "{outcome:?}");
    // Four connections: were only those requests late that could be sent, four would be.
    let late = outcome.latencies.quantile_us(0.75);
    assert!(late > 3_000.0, "a quarter of all was due while the server stood still: {late} us");
}

#[test]
fn a_wrong_reply_ends_the_run_and_is_shown() {
    let mut generator = generator(3, Faults { wrong_at: Some(50), ..Faults::default() });
    let error = run(&mut generator, Pace::Closed { pipeline: 2 }).expect_err("wrong").to_string();
    assert!(
        error.contains("wrong reply to a request about key number") && error.contains("WALUE"),
        "{error}"
    );
}

#[test]
fn a_connection_that_ends_ends_the_run() {
    let mut generator = generator(3, Faults { closes_at: Some(50), ..Faults::default() });
    let error = run(&mut generator, Pace::Closed { pipeline: 2 }).expect_err("closed").to_string();
    assert!(error.contains("a connection ended: Reset"), "{error}");
}

#[test]
fn what_is_not_answered_is_missing() {
    let mut generator = generator(3, Faults { silent_from: Some(500), ..Faults::default() });
    generator.silence_limit_ns = 100_000_000;
    let outcome = run(&mut generator, Pace::Closed { pipeline: 2 }).expect("ran");
    assert_eq!(outcome.missing, 6);
}

#[test]
fn a_port_nobody_listens_on_is_told() {
    let mut generator = generator(1, Faults::default());
    generator.port.server.refuses = true;
    let error = generator.open(2, 1).expect_err("refused").to_string();
    assert!(error.contains("a connection ended: Reset"), "{error}");
}
