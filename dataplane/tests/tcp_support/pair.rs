//! A client and a server of ours with one flow between them.

use dataplane::net::tcp::Config;
use dataplane::net::tcp::sequence::Sequence;

use super::app::{Reader, Stream};
use super::ours::Ours;
use super::wire::{Faults, Side, Wire};
use super::{CLIENT_MAC, MS, Node, S, SERVER_MAC, client_address, craft, link, parse, run, server_address};

/// Small tables, and a short TIME-WAIT.
pub(crate) fn config() -> Config {
    Config { flows: 64, half_open: 64, waiting: 64, time_wait_ns: 5 * S, ..Config::default() }
}

/// A client and a server with one flow between them over a wire that takes `delay_ns` each way.
pub(crate) struct Pair {
    pub(crate) client: Ours,
    pub(crate) server: Ours,
    pub(crate) wire: Wire,
}

impl Pair {
    pub(crate) fn new(delay_ns: u64, to_server: usize, to_client: usize) -> Self {
        Self::with(config(), config(), delay_ns, to_server, to_client)
    }

    pub(crate) fn with(
        client: Config,
        server: Config,
        delay_ns: u64,
        to_server: usize,
        to_client: usize,
    ) -> Self {
        Self::of(true, client, server, delay_ns, to_server, to_client)
    }

    /// Over IPv4, or IPv6.
    pub(crate) fn of(
        v4: bool,
        client: Config,
        server: Config,
        delay_ns: u64,
        to_server: usize,
        to_client: usize,
    ) -> Self {
        let mut wire = Wire::new(7, Faults { delay_ns, ..Faults::default() });
        wire.trace = Some(Vec::new());
        let mut server = Ours::new(server, 1, 1);
        let mut client = Ours::new(client, 2, 1);
        server.apps.expected.insert(4_000, Stream::server(9, to_server, to_client, Reader::Eager));
        let stream = Stream::client(9, to_server, to_client, Reader::Eager);
        let header = link(SERVER_MAC, CLIENT_MAC, v4);
        client.connect(wire.at_ns, &header, client_address(v4, 4_000), server_address(v4), stream);
        Self { client, server, wire }
    }

    /// Runs to the end; returns how long it took until both were done.
    pub(crate) fn run(&mut self) -> u64 {
        let start_ns = self.wire.at_ns;
        run(&mut self.client, &mut self.server, &mut self.wire, start_ns + 1_000 * S) - start_ns
    }

    /// Both streams stay open: neither side closes by itself. Runs until nothing has happened for a while.
    pub(crate) fn run_for(&mut self, ns: u64) {
        let end_ns = self.wire.at_ns + ns;
        let mut at_ns = self.wire.at_ns;
        while at_ns < end_ns {
            self.turn(at_ns);
            let next = [self.client.next_ns(at_ns), self.server.next_ns(at_ns), self.wire.next_ns()];
            at_ns = next.into_iter().flatten().min().unwrap_or(end_ns).max(at_ns + 1_000);
        }
        self.wire.at_ns = end_ns;
    }

    pub(crate) fn turn(&mut self, at_ns: u64) {
        let mut sent = Vec::new();
        for frame in self.wire.take_due(Side::Client, at_ns) {
            self.client.deliver(at_ns, &frame);
        }
        self.client.turn(at_ns, &mut sent);
        self.wire.send(Side::Server, at_ns, sent.drain(..));
        for frame in self.wire.take_due(Side::Server, at_ns) {
            self.server.deliver(at_ns, &frame);
        }
        self.server.turn(at_ns, &mut sent);
        self.wire.send(Side::Client, at_ns, sent.drain(..));
    }

    /// A flow that is open and idle: both sides hold back their FIN.
    pub(crate) fn idle(client: Config, server: Config) -> Self {
        let mut pair = Self::with(client, server, MS, 10, 10);
        pair.client.apps.open.values_mut().for_each(|stream| stream.closing = true);
        pair.server.apps.expected.values_mut().for_each(|stream| stream.closing = true);
        pair.run_for(100 * MS);
        assert_eq!((pair.client.apps.open.len(), pair.server.apps.open.len()), (1, 1));
        pair
    }

    /// The last segment the client sent: where the flow stands.
    pub(crate) fn last_from_client(&self) -> Position {
        let trace = self.wire.trace.as_ref().expect("a trace");
        let (_, _, frame) = trace.iter().rev().find(|(_, to, _)| *to == Side::Server).expect("a segment");
        let segment = parse(frame);
        Position {
            next: segment.sequence.plus(segment.payload.len() as u32),
            acknowledged: segment.acknowledgement,
            stamp: segment.options.timestamps.map(|timestamps| timestamps.value),
        }
    }

    /// Delivers a forged segment from the client to the server; returns what the server sends for it.
    pub(crate) fn forge(
        &mut self,
        sequence: Sequence,
        acknowledgement: Sequence,
        flags: u8,
        payload: &[u8],
    ) -> Vec<Vec<u8>> {
        let at_ns = self.wire.at_ns;
        let stamp = self.last_from_client().stamp.map(|value| (value, 0));
        let frame = craft(
            client_address(true, 4_000),
            server_address(true),
            sequence,
            acknowledgement,
            flags,
            1_000,
            stamp,
            payload,
        );
        self.server.deliver(at_ns, &frame);
        let mut out = Vec::new();
        self.server.turn(at_ns, &mut out);
        out
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Position {
    pub(crate) next: Sequence,
    pub(crate) acknowledged: Sequence,
    pub(crate) stamp: Option<u32>,
}
