//! Random streams both ways over a wire with faults, between two of our stacks and between ours and smoltcp in both
//! roles: every byte arrives right, everything ends, and at the end nothing is held any more.

mod tcp_support;

use dataplane::net::tcp::Config;
use dataplane::net::tcp::pool::Class;
use proptest::prelude::*;
use tcp_support::app::{Reader, Stream};
use tcp_support::ours::Ours;
use tcp_support::smol::Smol;
use tcp_support::wire::{Faults, Side, Wire};
use tcp_support::{CLIENT_MAC, MS, Node, S, SERVER_MAC, client_address, link, parse, run, server_address};

/// Long enough for many time-outs in a row.
const DEADLINE_NS: u64 = 3_000 * S;

/// A stack small enough that every pool runs out now and then.
fn small() -> Config {
    let class = |bytes, count| Class { bytes, count };
    Config {
        flows: 16,
        half_open: 8,
        waiting: 16,
        chunks: 64,
        chunk_bytes: 512,
        segments: 64,
        send_bytes_max: 16 << 10,
        blocks: [class(2 << 10, 8), class(8 << 10, 4), class(32 << 10, 2), class(64 << 10, 1)],
        window_bytes: 16 << 10,
        window_slack_bytes: 4 << 10,
        time_wait_ns: 240 * S,
        keepalive_ns: 60 * S,
        stalled_ns: 2_000 * S,
        request_ns: 2_000 * S,
        close_ns: 2_000 * S,
        half_open_ns: 200 * S,
        timeouts_max: 40,
        ..Config::default()
    }
}

fn faults() -> impl Strategy<Value = Faults> {
    let chance = prop_oneof![3 => Just(0u32), 2 => 1u32..30, 1 => 30u32..150];
    (chance.clone(), chance.clone(), chance.clone(), chance, 0u64..20 * MS, 10_000u64..30 * MS).prop_map(
        |(loss, duplicate, corrupt, reorder, reorder_ns, delay_ns)| Faults {
            loss,
            duplicate,
            corrupt,
            reorder,
            reorder_ns,
            delay_ns,
        },
    )
}

fn reader() -> impl Strategy<Value = Reader> {
    prop_oneof![Just(Reader::Eager), Just(Reader::Lazy), (1usize..20_000).prop_map(Reader::Messages)]
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 0usize..200, 2 => 0usize..20_000, 1 => 0usize..150_000]
}

/// Flows, each with what it sends both ways and how both sides read.
fn flows() -> impl Strategy<Value = Vec<(usize, usize, Reader, Reader)>> {
    proptest::collection::vec((bytes(), bytes(), reader(), reader()), 1..5)
}

/// When the clock starts, or how many bytes before the wrap the initial sequence number of one side is.
#[derive(Clone, Copy, Debug)]
enum Start {
    At(u64),
    BeforeWrap(Side, u32),
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::At(S)),
        any::<u32>().prop_map(|ns| Start::At(S + u64::from(ns) * 4_000)),
        (prop_oneof![Just(Side::Client), Just(Side::Server)], 0u32..20_000)
            .prop_map(|(side, bytes)| Start::BeforeWrap(side, bytes)),
    ]
}

impl Start {
    /// Initial sequence numbers grow by one in 4 us: a first handshake tells when the one of a second wraps.
    fn at_ns(self, v4: bool, mut client: Ours, mut server: Ours) -> u64 {
        let (side, bytes) = match self {
            Self::At(at_ns) => return at_ns,
            Self::BeforeWrap(side, bytes) => (side, bytes),
        };
        let stream = || Stream::client(0, 0, 0, Reader::Eager);
        server.apps.expected.insert(4_000, stream());
        let header = link(SERVER_MAC, CLIENT_MAC, v4);
        client.connect(S, &header, client_address(v4, 4_000), server_address(v4), stream());
        let mut frames = Vec::new();
        client.turn(S, &mut frames);
        let syn = frames.pop().expect("a SYN");
        server.deliver(S, &syn);
        server.turn(S, &mut frames);
        let answer = frames.pop().expect("an answer to it");
        let first = parse(if side == Side::Client { &syn } else { &answer }).sequence;
        S + u64::from(0u32.wrapping_sub(first.0).wrapping_sub(bytes)) * 4_000
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_of_ours(
        seed in any::<u64>(),
        v4 in any::<bool>(),
        faults in faults(),
        flows in flows(),
        start in start(),
        room in prop_oneof![Just(usize::MAX), 1usize..6],
        (timestamps, selective, batches) in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let client_config = || Config { timestamps, selective, ..small() };
        let start_ns =
            start.at_ns(v4, Ours::new(client_config(), !seed, 1), Ours::new(small(), seed, 1));
        let mut wire = Wire::new(seed, faults);
        wire.at_ns = start_ns;
        let mut server = Ours::new(small(), seed, flows.len());
        let mut client = Ours::new(client_config(), !seed, flows.len());
        (server.room, client.room) = (room, room);
        (server.batches, client.batches) = (batches, !batches);
        for (number, &(to_server, to_client, reads_client, reads_server)) in flows.iter().enumerate() {
            let port = 4_000 + number as u16;
            let stream_seed = seed ^ number as u64;
            server.apps.expected.insert(port, Stream::server(stream_seed, to_server, to_client, reads_server));
            let stream = Stream::client(stream_seed, to_server, to_client, reads_client);
            let header = link(SERVER_MAC, CLIENT_MAC, v4);
            client.connect(start_ns, &header, client_address(v4, port), server_address(v4), stream);
        }
        run(&mut client, &mut server, &mut wire, start_ns + DEADLINE_NS);
        client.assert_clean();
        server.assert_clean();
    }

    #[test]
    fn smoltcp_as_client(
        seed in any::<u64>(),
        v4 in any::<bool>(),
        faults in faults(),
        flows in flows(),
        window_bytes in prop_oneof![Just(64usize << 10), 100usize..5_000],
    ) {
        let mut wire = Wire::new(seed, faults);
        let mut server = Ours::new(small(), seed, flows.len());
        let mut client = Smol::new(seed, client_address(v4, 0), false);
        for (number, &(to_server, to_client, reads_client, reads_server)) in flows.iter().enumerate() {
            let port = 4_000 + number as u16;
            let stream_seed = seed ^ number as u64;
            let reads_client = if reads_client == Reader::Lazy { Reader::Lazy } else { Reader::Eager };
            server.apps.expected.insert(port, Stream::server(stream_seed, to_server, to_client, reads_server));
            let stream = Stream::client(stream_seed, to_server, to_client, reads_client);
            client.connect(client_address(v4, port), server_address(v4), window_bytes, stream);
        }
        run(&mut client, &mut server, &mut wire, S + DEADLINE_NS);
        server.assert_whole();
        client.streams.iter().for_each(|(_, stream)| stream.assert_whole());
    }

    #[test]
    fn smoltcp_as_server(
        seed in any::<u64>(),
        v4 in any::<bool>(),
        faults in faults(),
        (to_server, to_client, reads_client, lazy) in (bytes(), bytes(), reader(), any::<bool>()),
        window_bytes in prop_oneof![Just(64usize << 10), 100usize..5_000],
    ) {
        let mut wire = Wire::new(seed, faults);
        let reads_server = if lazy { Reader::Lazy } else { Reader::Eager };
        let mut server = Smol::new(seed, server_address(v4), true);
        server.listen(80, window_bytes, Stream::server(seed, to_server, to_client, reads_server));
        let mut client = Ours::new(small(), seed, 1);
        let stream = Stream::client(seed, to_server, to_client, reads_client);
        let header = link(SERVER_MAC, CLIENT_MAC, v4);
        client.connect(S, &header, client_address(v4, 4_000), server_address(v4), stream);
        run(&mut client, &mut server, &mut wire, S + DEADLINE_NS);
        client.assert_whole();
        server.streams.iter().for_each(|(_, stream)| stream.assert_whole());
    }
}
