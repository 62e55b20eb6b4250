//! TCP allocates nothing once it is made: a counting allocator watches two stacks open flows, ask, answer, lose
//! frames, leave bytes unread and close.

mod counting;

use std::net::SocketAddr;

use counting::allocations;
use dataplane::net::tcp::statistics::Holdings;
use dataplane::net::tcp::{Closed, Config, FlowId, Handler, Io, Output, Seeds, Stack, Taken};
use dataplane::time::Now;

const FLOWS: usize = 100;
const ROUNDS: u32 = 50;
const REQUEST: [u8; 100] = [7; 100];
const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
const FRAMES: usize = 4_096;

/// Frames under way one way, in buffers made beforehand. Every fiftieth is lost.
struct Pipe {
    buffers: Vec<Vec<u8>>,
    lengths: Vec<usize>,
    used: usize,
    count: usize,
}

impl Pipe {
    fn new() -> Self {
        Self { buffers: vec![vec![0; 2_048]; FRAMES], lengths: vec![0; FRAMES], used: 0, count: 0 }
    }

    fn deliver<H: Handler>(&mut self, now: Now, stack: &mut Stack, handler: &mut H, answers: &mut Self) {
        for number in 0..std::mem::take(&mut self.used) {
            stack.receive(now, &self.buffers[number][..self.lengths[number]], handler, answers);
        }
    }
}

impl Output for Pipe {
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.used == FRAMES {
            return false;
        }
        let length = build(&mut self.buffers[self.used]);
        self.count += 1;
        if !self.count.is_multiple_of(50) {
            self.lengths[self.used] = length;
            self.used += 1;
        }
        true
    }
}

/// Sends back whole requests.
#[derive(Default)]
struct Server;

impl Handler for Server {
    fn opened(&mut self, _: FlowId, _: SocketAddr, _: SocketAddr, _: &mut Io<'_>) {}

    fn data(&mut self, _: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        let whole = bytes.len() / REQUEST.len() * REQUEST.len();
        Taken { consumed: io.send(&bytes[..whole]), needed: 0 }
    }

    fn closed(&mut self, _: FlowId, reason: Closed) {
        assert_eq!(reason, Closed::Finished);
    }
}

/// Sends half a request, then the other half, and the next when the answer is there.
struct Client {
    rounds: [u32; FLOWS],
    closed: usize,
}

impl Handler for Client {
    fn opened(&mut self, _: FlowId, _: SocketAddr, _: SocketAddr, io: &mut Io<'_>) {
        assert_eq!(io.send(&REQUEST), REQUEST.len());
    }

    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        if bytes.len() < REQUEST.len() {
            return Taken { consumed: 0, needed: REQUEST.len() };
        }
        assert_eq!(bytes, REQUEST);
        let rounds = &mut self.rounds[flow.index()];
        *rounds += 1;
        if *rounds < ROUNDS {
            assert_eq!(io.send(&REQUEST), REQUEST.len());
        } else {
            io.close();
        }
        Taken::all(bytes.len())
    }

    fn closed(&mut self, _: FlowId, reason: Closed) {
        assert_eq!(reason, Closed::Finished);
        self.closed += 1;
    }
}

#[test]
fn nothing_is_allocated_once_a_stack_is_made() {
    let config = Config { flows: FLOWS, half_open: 30, waiting: FLOWS, ..Config::default() };
    let seeds = |seed| Seeds { table: seed, sequence: [seed, seed] };
    let mut server = Stack::new(config.clone(), seeds(1)).expect("a good configuration");
    let mut client = Stack::new(config, seeds(2)).expect("a good configuration");
    let (mut to_server, mut to_client) = (Pipe::new(), Pipe::new());
    let mut serving = Server;
    let mut asking = Client { rounds: [0; FLOWS], closed: 0 };
    let mut now = Now { monotonic_ns: 1_000_000_000, unix_ms: 0 };
    let before = allocations();

    for port in 0..FLOWS as u16 {
        let (local, peer) = (([10, 0, 0, 2], 4_000 + port).into(), ([10, 0, 0, 1], 80).into());
        client.connect(now, &LINK, local, peer).expect("a free flow");
    }
    // Long enough for every timer, that of the last closed flow included.
    for _ in 0..400_000 {
        client.poll(now, &mut asking, &mut to_server);
        to_server.deliver(now, &mut server, &mut serving, &mut to_client);
        server.poll(now, &mut serving, &mut to_client);
        to_client.deliver(now, &mut client, &mut asking, &mut to_server);
        now.monotonic_ns += if asking.closed == FLOWS { 50_000_000 } else { 20_000 };
        if asking.closed == FLOWS && server.next_due_ns().is_none() && client.next_due_ns().is_none() {
            break;
        }
    }

    assert_eq!(allocations() - before, 0);
    assert_eq!(asking.rounds, [ROUNDS; FLOWS]);
    assert_eq!((server.holdings(), client.holdings()), (Holdings::default(), Holdings::default()));
    assert!(server.statistics().cookies_opened > 0, "the half-open records ran out");
    assert!(server.statistics().retransmissions > 0 && server.statistics().tail_probes > 0);
}
