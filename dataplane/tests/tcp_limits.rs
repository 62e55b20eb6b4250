//! What gives way first when a table or a pool is used up, as the module's text says: nobody loses a byte, and
//! everybody has his turn in the end.

mod tcp_support;

use dataplane::net::tcp::Config;
use dataplane::net::tcp::pool::Class;
use dataplane::net::tcp::statistics::Statistics;
use tcp_support::app::{Reader, Stream};
use tcp_support::ours::Ours;
use tcp_support::wire::{Faults, Side, Wire};
use tcp_support::{CLIENT_MAC, MS, Node, S, SERVER_MAC, client_address, link, run, server_address};

const FLOWS: usize = 8;

/// Eight flows to a server of these sizes; returns what the server counted.
fn serve(server: Config, to_server: usize, to_client: usize, reader: Reader) -> Statistics {
    let mut wire = Wire::new(5, Faults { delay_ns: MS, ..Faults::default() });
    let roomy = Config { flows: 64, half_open: 64, waiting: 64, time_wait_ns: 5 * S, ..Config::default() };
    let patient = Config { half_open_ns: 60 * S, ..roomy };
    let mut server = Ours::new(server, 1, FLOWS);
    let mut client = Ours::new(patient, 2, FLOWS);
    let header = link(SERVER_MAC, CLIENT_MAC, true);
    for number in 0..FLOWS {
        let (seed, port) = (number as u64, 4_000 + number as u16);
        server.apps.expected.insert(port, Stream::server(seed, to_server, to_client, reader));
        let stream = Stream::client(seed, to_server, to_client, Reader::Eager);
        client.connect(wire.at_ns, &header, client_address(true, port), server_address(true), stream);
    }
    let deadline_ns = wire.at_ns + 300 * S;
    run(&mut client, &mut server, &mut wire, deadline_ns);
    client.assert_clean();
    server.assert_clean();
    *server.stack.statistics()
}

fn config() -> Config {
    Config { flows: FLOWS, half_open: FLOWS, waiting: FLOWS, time_wait_ns: 5 * S, ..Config::default() }
}

#[test]
fn without_a_free_flow_a_syn_is_dropped_and_asked_again() {
    let statistics = serve(Config { flows: 2, ..config() }, 10_000, 10_000, Reader::Eager);
    assert!(statistics.no_flow > 0, "{statistics:?}");
    assert_eq!(statistics.accepted, FLOWS as u64);
}

#[test]
fn without_half_open_records_cookies_open_flows() {
    let statistics = serve(Config { half_open: 1, ..config() }, 10_000, 10_000, Reader::Eager);
    assert_eq!(statistics.cookies_opened, FLOWS as u64 - 1);
}

#[test]
fn without_waiting_records_the_oldest_goes() {
    let statistics = serve(Config { waiting: 2, ..config() }, 100_000, 0, Reader::Eager);
    assert!(statistics.waiting_evicted > 0, "{statistics:?}");
}

#[test]
fn without_chunks_everybody_waits_his_turn() {
    serve(Config { chunks: 3, chunk_bytes: 256, ..config() }, 100, 50_000, Reader::Eager);
}

#[test]
fn without_records_of_segments_everybody_waits_his_turn() {
    let statistics = serve(Config { segments: 2, ..config() }, 100, 50_000, Reader::Eager);
    assert!(statistics.no_segment > 0, "{statistics:?}");
}

#[test]
fn without_blocks_bytes_are_sent_again() {
    let class = |bytes, count| Class { bytes, count };
    let blocks = [class(1_000, 1), class(2_000, 1), class(4_000, 1), class(40_000, 2)];
    let scarce = Config { blocks, window_bytes: 20_000, window_slack_bytes: 2_000, ..config() };
    let statistics = serve(scarce, 100_000, 100, Reader::Messages(20_000));
    assert!(statistics.no_block > 0, "{statistics:?}");
}

/// Flows that want to say more than a pool has for all of them, to clients that have stopped answering.
fn exhausted(server: Config) -> (Ours, Wire) {
    let mut wire = Wire::new(5, Faults { delay_ns: MS, ..Faults::default() });
    let mut server = Ours::new(server, 1, FLOWS);
    let mut client = Ours::new(config(), 2, FLOWS);
    let header = link(SERVER_MAC, CLIENT_MAC, true);
    for number in 0..FLOWS {
        let (seed, port) = (number as u64, 4_000 + number as u16);
        server.apps.expected.insert(port, Stream::server(seed, 0, 50_000, Reader::Eager));
        let stream = Stream::client(seed, 0, 50_000, Reader::Eager);
        client.connect(wire.at_ns, &header, client_address(true, port), server_address(true), stream);
    }
    // SYN, its answer, and the acknowledgement that opens the flow.
    for _ in 0..4 {
        let mut sent = Vec::new();
        for frame in wire.take_due(Side::Client, wire.at_ns) {
            client.deliver(wire.at_ns, &frame);
        }
        client.turn(wire.at_ns, &mut sent);
        wire.send(Side::Server, wire.at_ns, sent.drain(..));
        for frame in wire.take_due(Side::Server, wire.at_ns) {
            server.deliver(wire.at_ns, &frame);
        }
        server.turn(wire.at_ns, &mut sent);
        wire.send(Side::Client, wire.at_ns, sent.drain(..));
        wire.at_ns += MS;
    }
    assert_eq!(server.stack.holdings().flows, FLOWS);
    (server, wire)
}

/// Turns until ten seconds are over, none of which anything has arrived for.
fn turns_in_ten_seconds(server: &mut Ours, start_ns: u64) -> usize {
    let mut at_ns = start_ns;
    let mut turns = 0;
    while at_ns < start_ns + 10 * S {
        server.turn(at_ns, &mut Vec::new());
        turns += 1;
        let next_ns = server.next_ns(at_ns).expect("a timer");
        at_ns = next_ns.max(at_ns + 1_000);
        assert!(turns < 10_000, "it spins");
    }
    turns
}

#[test]
fn who_waits_for_a_pool_sleeps_until_something_comes_back() {
    for scarce in [Config { chunks: 3, chunk_bytes: 256, ..config() }, Config { segments: 2, ..config() }] {
        let (mut server, wire) = exhausted(scarce.clone());
        let turns = turns_in_ten_seconds(&mut server, wire.at_ns);
        assert!(turns < 500, "{turns} turns with {scarce:?}");
    }
}
