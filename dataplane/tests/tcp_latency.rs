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
    /// How long a flow is silent after an answer.
    pause_ns: u64,
    asked_ns: [u64; FLOWS as usize],
    /// Waits of all requests, in the order of their answers.
    waits_ns: Vec<u64>,
    /// Flows that are to ask again, and when.
    silent: Vec<(FlowId, u64)>,
}

impl Client {
    fn ask(&mut self, flow: FlowId, io: &mut Io<'_>) {
        self.asked_ns[flow.index()] = self.at_ns;
        io.send(&REQUEST);
    }
}

impl Handler for Client {
    fn opened(&mut self, flow: FlowId, _: SocketAddr, _: SocketAddr, io: &mut Io<'_>) {
        self.ask(flow, io);
    }

    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        assert_eq!(bytes, REQUEST);
        self.waits_ns.push(self.at_ns - self.asked_ns[flow.index()]);
        if self.pause_ns == 0 {
            self.ask(flow, io);
        } else {
            self.silent.push((flow, self.at_ns + self.pause_ns));
        }
        Taken::all(bytes.len())
    }

    fn closed(&mut self, _: FlowId, reason: Closed) {
        panic!("{reason:?}");
    }
}

/// A server and a client on a wire of their own.
struct Scene {
    wire: Wire,
    server: Stack,
    client: Stack,
    asking: Client,
    at_ns: u64,
}

impl Scene {
    /// With flows that are silent for `pause_ns` after each answer, and a client that keeps acknowledgements back for
    /// `ack_delay_ns`.
    fn new(flows: u16, pause_ns: u64, ack_delay_ns: u64) -> Self {
        let config = Config { flows: usize::from(FLOWS), ..Config::default() };
        let seeds = |seed| Seeds { table: seed, sequence: [seed, seed] };
        let server = Stack::new(config.clone(), seeds(1)).expect("a good configuration");
        let config = Config { ack_delay_ns, ..config };
        let mut client = Stack::new(config, seeds(2)).expect("a good configuration");
        let wire = Wire::new(3, Faults { delay_ns: DELAY_NS, ..Faults::default() });
        let at_ns = wire.at_ns;
        let header = link(SERVER_MAC, CLIENT_MAC, true);
        for port in 0..flows {
            let local = client_address(true, 4_000 + port);
            client.connect(now(at_ns), &header, local, server_address(true)).expect("a free flow");
        }
        let asking = Client {
            at_ns,
            pause_ns,
            asked_ns: [0; FLOWS as usize],
            waits_ns: Vec::new(),
            silent: Vec::new(),
        };
        Self { wire, server, client, asking, at_ns }
    }

    /// Goes on until so many requests were answered in all.
    fn answer(&mut self, requests: usize) {
        while self.asking.waits_ns.len() < requests {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let Self { wire, server, client, asking, at_ns } = self;
        let at_ns = *at_ns;
        let mut frames = Frames { frames: Vec::new(), room: usize::MAX };
        asking.at_ns = at_ns;
        for (flow, _) in asking.silent.extract_if(.., |(_, until_ns)| *until_ns <= at_ns).collect::<Vec<_>>()
        {
            asking.ask(flow, &mut client.io(flow).expect("an open flow"));
            client.resume(now(at_ns), flow, asking);
        }
        for frame in wire.take_due(Side::Client, at_ns) {
            client.receive(now(at_ns), &frame, asking, &mut frames);
        }
        client.poll(now(at_ns), asking, &mut frames);
        wire.send(Side::Server, at_ns, frames.frames.drain(..));
        for frame in wire.take_due(Side::Server, at_ns) {
            server.receive(now(at_ns), &frame, &mut Server, &mut frames);
        }
        server.poll(now(at_ns), &mut Server, &mut frames);
        wire.send(Side::Client, at_ns, frames.frames.drain(..));
        self.at_ns += TURN_NS;
    }
}

/// Waits of all requests, sorted, and how many segments the server sent again.
fn waits(loss: u32) -> (Vec<u64>, u64) {
    let mut scene = Scene::new(FLOWS, 0, Config::default().ack_delay_ns);
    // The handshakes are not what is measured.
    scene.answer(500);
    scene.wire.set_faults(Faults { loss, delay_ns: DELAY_NS, ..Faults::default() });
    scene.answer(REQUESTS);
    let mut waits_ns = std::mem::take(&mut scene.asking.waits_ns);
    waits_ns.sort_unstable();
    (waits_ns, scene.server.statistics().retransmissions)
}

#[test]
fn lost_frames_cost_a_tail_of_less_than_50_ms() {
    for loss in [1, 10] {
        let (waits_ns, _) = waits(loss);
        let at = |permille: usize| waits_ns[waits_ns.len() * permille / 1_000];
        assert!(at(500) <= 3 * DELAY_NS, "median {} us", at(500) / 1_000);
        assert!(at(999) < 50 * MS, "p99.9 {} us with {loss} of 1000 lost", at(999) / 1_000);
        // An acknowledgement that was lost makes no sender believe that its peer is slow: a lost answer is found lost as
        // soon after it as before.
        assert!(at(995) < 15 * MS, "p99.5 {} us with {loss} of 1000 lost", at(995) / 1_000);
    }
}

#[test]
fn without_losses_nothing_is_sent_again() {
    assert_eq!(waits(0).1, 0);
}

#[test]
fn a_peer_that_keeps_its_acknowledgements_back_is_soon_left_alone() {
    // As Linux does, and silent for longer after every answer: each is acknowledged late.
    let mut scene = Scene::new(1, 100 * MS, 40 * MS);
    scene.answer(12);
    let learnt = scene.server.statistics().tail_probes;
    assert!((2..=8).contains(&learnt), "{learnt} probes");
    scene.answer(60);
    assert_eq!(scene.server.statistics().tail_probes, learnt, "it is known by now");
}

#[test]
fn nothing_is_sent_again_while_frames_lie_there_that_may_acknowledge_it() {
    // With an answer under way, whose acknowledgement is the next question.
    let under_way = || {
        let mut scene = Scene::new(1, 0, Config::default().ack_delay_ns);
        scene.answer(100);
        scene
    };
    let poll = |scene: &mut Scene, at_ns: u64| {
        let mut frames = Frames { frames: Vec::new(), room: usize::MAX };
        scene.server.poll(now(at_ns), &mut Server, &mut frames);
        scene.server.statistics().retransmissions
    };
    let mut scene = under_way();
    let at_ns = scene.at_ns + 30 * MS;
    assert_eq!(poll(&mut scene, at_ns), 1, "the answer is late");
    let mut scene = under_way();
    scene.server.frames_wait(now(at_ns), true);
    assert_eq!(poll(&mut scene, at_ns), 0);
    scene.server.frames_wait(now(at_ns + 99 * MS), true);
    assert_eq!(poll(&mut scene, at_ns + 99 * MS), 0);
    // There may be no end of frames.
    scene.server.frames_wait(now(at_ns + 101 * MS), true);
    assert_eq!(poll(&mut scene, at_ns + 101 * MS), 1);
    let mut scene = under_way();
    scene.server.frames_wait(now(at_ns), true);
    scene.server.frames_wait(now(at_ns), false);
    assert_eq!(poll(&mut scene, at_ns), 1, "all frames were taken");
}
