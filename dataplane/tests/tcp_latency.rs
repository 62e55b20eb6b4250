//! How long requests wait for their replies on a short path that loses frames: the tail that issue 3 bounds.

mod tcp_support;

use std::net::SocketAddr;

use dataplane::net::tcp::{Closed, Config, FlowId, Handler, Io, Seeds, Stack, Taken};
use tcp_support::ours::Frames;
use tcp_support::wire::{Faults, Side, Wire};
use tcp_support::{CLIENT_MAC, MS, SERVER_MAC, client_address, link, now, server_address};

const REQUEST: [u8; 64] = [1; 64];
/// One way over a rack.
const DELAY_NS: u64 = 20_000;
const FLOWS: u16 = 8;
const REQUESTS: usize = 20_000;
/// A turn of either side at least this often: a worker that polls.
const TURN_NS: u64 = 5_000;

struct Server;

impl Handler for Server {
    fn opened(&mut self, _: FlowId, _: SocketAddr, _: SocketAddr, _: &mut Io<'_>) {}

    fn data(&mut self, _: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        Taken { consumed: io.send(bytes), needed: 0 }
    }

    fn closed(&mut self, _: FlowId, reason: Closed) {
        panic!("{reason:?}");
    }
}

/// One request at a time on each flow.
struct Client {
    at_ns: u64,
    asked_ns: [u64; FLOWS as usize],
    waits_ns: Vec<u64>,
}

impl Handler for Client {
    fn opened(&mut self, flow: FlowId, _: SocketAddr, _: SocketAddr, io: &mut Io<'_>) {
        self.asked_ns[flow.index()] = self.at_ns;
        io.send(&REQUEST);
    }

    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        assert_eq!(bytes, REQUEST);
        self.waits_ns.push(self.at_ns - self.asked_ns[flow.index()]);
        self.asked_ns[flow.index()] = self.at_ns;
        io.send(&REQUEST);
        Taken::all(bytes.len())
    }

    fn closed(&mut self, _: FlowId, reason: Closed) {
        panic!("{reason:?}");
    }
}

/// Waits of all requests, sorted, and how many segments the server sent again.
fn waits(loss: u32) -> (Vec<u64>, u64) {
    let config = || Config { flows: usize::from(FLOWS), ..Config::default() };
    let seeds = |seed| Seeds { table: seed, sequence: [seed, seed] };
    let mut server = Stack::new(config(), seeds(1)).expect("a good configuration");
    let mut client = Stack::new(config(), seeds(2)).expect("a good configuration");
    // The handshakes are not what is measured.
    let mut wire = Wire::new(3, Faults { delay_ns: DELAY_NS, ..Faults::default() });
    let mut at_ns = wire.at_ns;
    let header = link(SERVER_MAC, CLIENT_MAC, true);
    for port in 0..FLOWS {
        let local = client_address(true, 4_000 + port);
        client.connect(now(at_ns), &header, local, server_address(true)).expect("a free flow");
    }
    let mut asking = Client { at_ns, asked_ns: [0; FLOWS as usize], waits_ns: Vec::new() };
    while asking.waits_ns.len() < REQUESTS {
        if asking.waits_ns.len() > 500 {
            wire.set_faults(Faults { loss, delay_ns: DELAY_NS, ..Faults::default() });
        }
        let mut frames = Frames { frames: Vec::new(), room: usize::MAX };
        asking.at_ns = at_ns;
        for frame in wire.take_due(Side::Client, at_ns) {
            client.receive(now(at_ns), &frame, &mut asking, &mut frames);
        }
        client.poll(now(at_ns), &mut asking, &mut frames);
        wire.send(Side::Server, at_ns, frames.frames.drain(..));
        for frame in wire.take_due(Side::Server, at_ns) {
            server.receive(now(at_ns), &frame, &mut Server, &mut frames);
        }
        server.poll(now(at_ns), &mut Server, &mut frames);
        wire.send(Side::Client, at_ns, frames.frames.drain(..));
        at_ns += TURN_NS;
    }
    asking.waits_ns.sort_unstable();
    (asking.waits_ns, server.statistics().retransmissions)
}

#[test]
fn lost_frames_cost_a_tail_of_less_than_50_ms() {
    for loss in [1, 10] {
        let (waits_ns, _) = waits(loss);
        let at = |permille: usize| waits_ns[waits_ns.len() * permille / 1_000];
        assert!(at(500) <= 3 * DELAY_NS, "median {} us", at(500) / 1_000);
        assert!(at(999) < 50 * MS, "p99.9 {} us with {loss} of 1000 lost", at(999) / 1_000);
    }
}

#[test]
fn without_losses_nothing_is_sent_again() {
    assert_eq!(waits(0).1, 0);
}
