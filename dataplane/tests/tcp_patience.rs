//! How long a peer may take: for a message, and to read what it is to get. With played time.

mod tcp_support;

use dataplane::net::tcp::sequence::Sequence;
use dataplane::net::tcp::{Closed, Config};
use tcp_support::app::{Reader, byte};
use tcp_support::pair::{Pair, config};
use tcp_support::wire::Side;
use tcp_support::{MS, Node, S, client_address, craft, parse, server_address};

const ACK: u8 = 0x10;

fn closed(pair: &Pair) -> Option<Closed> {
    pair.server.apps.over.first().map(|(_, reason)| *reason)
}

/// A flow whose server takes messages of `bytes`, and waits ten seconds for each.
fn messages_of(bytes: usize) -> Pair {
    let server = Config { request_ns: 10 * S, ..config() };
    let mut pair = Pair::with(config(), server, MS, 0, 0);
    pair.client.apps.open.values_mut().for_each(|stream| stream.closing = true);
    pair.server.apps.expected.values_mut().for_each(|stream| {
        (stream.closing, stream.reader, stream.receive_bytes) = (true, Reader::Messages(bytes), usize::MAX);
    });
    pair.run_for(100 * MS);
    pair
}

/// The client says so many bytes more.
fn say(pair: &mut Pair, bytes: usize) {
    let (&flow, stream) = pair.client.apps.open.iter_mut().next().expect("an open flow");
    let said: Vec<u8> = (stream.sent..stream.sent + bytes).map(|at| byte(stream.send_seed, at)).collect();
    (stream.sent, stream.send_bytes) = (stream.sent + bytes, stream.send_bytes + bytes);
    assert_eq!(pair.client.stack.send(flow, &said), bytes);
}

#[test]
fn a_message_that_does_not_end_is_waited_for_so_long_however_its_bytes_trickle() {
    let mut pair = messages_of(1_000);
    for _ in 0..4 {
        assert_eq!(closed(&pair), None);
        say(&mut pair, 30);
        pair.run_for(3 * S);
    }
    assert_eq!(closed(&pair), Some(Closed::Unfinished), "twelve seconds after its first byte");
    pair.server.assert_empty();
}

#[test]
fn messages_that_end_in_time_may_go_on_for_ever_and_silence_between_them_too() {
    let mut pair = messages_of(60);
    for _ in 0..20 {
        say(&mut pair, 90);
        pair.run_for(6 * S);
        say(&mut pair, 30);
        pair.run_for(30 * S);
    }
    assert_eq!(closed(&pair), None);
}

#[test]
fn a_gap_that_is_never_filled_is_not_waited_for_either() {
    let mut pair = messages_of(1);
    let position = pair.last_from_client();
    pair.forge(position.next.plus(10), position.acknowledged, ACK, b"beyond a gap");
    assert_eq!(pair.server.stack.holdings().blocks, 1);
    pair.run_for(9 * S);
    assert_eq!(closed(&pair), None);
    pair.run_for(2 * S);
    assert_eq!(closed(&pair), Some(Closed::Unfinished));
    pair.server.assert_empty();
}

#[test]
fn who_waits_for_room_is_not_waited_for() {
    // The server has more to say than it may have to be sent, and reads nothing meanwhile.
    let server = Config { request_ns: S, stalled_ns: 5 * S, send_bytes_max: 1_000, ..config() };
    let mut pair = Pair::with(config(), server, MS, 500, 50_000);
    pair.server.apps.expected.values_mut().for_each(|stream| stream.reader = Reader::Messages(1_000_000));
    pair.wire.drops = Some(Box::new(|to, before, _| to == Side::Client && before > 3));
    pair.run_for(10 * S);
    assert_eq!(closed(&pair), Some(Closed::Stalled));
}

/// Bytes from `start` on that the server has sent.
fn sent(pair: &Pair, start: Sequence) -> u32 {
    let trace = pair.wire.trace.as_ref().expect("a trace");
    let data = trace.iter().filter(|(_, to, _)| *to == Side::Client).map(|(_, _, frame)| parse(frame));
    let ends = data.filter(|segment| !segment.payload.is_empty());
    let ends = ends.map(|segment| segment.sequence.plus(segment.payload.len() as u32).since(start));
    ends.max().expect("some data")
}

/// Acknowledges `bytes` more of what the server sends each second; returns how many seconds that went well.
fn sip(bytes: u32) -> u32 {
    let server = Config { stalled_ns: 4 * S, ..config() };
    let mut pair = Pair::with(config(), server, MS, 0, 200_000);
    pair.client.apps.open.values_mut().for_each(|stream| stream.closing = true);
    // SYN, and what answers it.
    pair.run_for(2 * MS + MS / 2);
    // From here on nothing reaches the client any more.
    pair.wire.drops = Some(Box::new(|to, _, _| to == Side::Client));
    pair.run_for(10 * MS);
    let start = pair.last_from_client();
    for second in 1..=60 {
        let acknowledged = start.acknowledged.plus((bytes * second).min(sent(&pair, start.acknowledged)));
        let at_ns = pair.wire.at_ns;
        let stamp = start.stamp.map(|stamp| (stamp.wrapping_add(1_000 * second), 0));
        let (from, to) = (client_address(true, 4_000), server_address(true));
        let frame = craft(from, to, start.next, acknowledged, ACK, 2_000, stamp, b"");
        pair.server.deliver(at_ns, &frame);
        pair.server.turn(at_ns, &mut Vec::new());
        pair.run_for(S);
        if closed(&pair).is_some() {
            assert_eq!(closed(&pair), Some(Closed::Stalled));
            assert_eq!(pair.server.stack.statistics().out_of_window, 0, "each of them was believed");
            return second;
        }
    }
    60
}

#[test]
fn a_reader_who_sips_is_closed_and_a_slow_one_is_not() {
    assert!((19..=21).contains(&sip(20)), "{}", sip(20));
    assert_eq!(sip(2_000), 60);
}

#[test]
fn a_flood_of_strays_costs_few_resets() {
    let server = Config { resets_per_s: 100, ..config() };
    let mut pair = Pair::idle(config(), server);
    let start_ns = pair.wire.at_ns;
    let mut resets = 0;
    for number in 0..20_000u32 {
        let at_ns = start_ns + u64::from(number) * S / 10_000;
        let client = client_address(true, 10_000 + (number % 30_000) as u16);
        let at = Sequence(number);
        pair.server.deliver(at_ns, &craft(client, server_address(true), at, at, ACK, 1_000, None, b""));
        let mut out = Vec::new();
        pair.server.turn(at_ns, &mut out);
        resets += out.len();
    }
    // Ten at once, and a hundred in each of the two seconds.
    assert!((205..=212).contains(&resets), "{resets}");
    let statistics = *pair.server.stack.statistics();
    assert_eq!(statistics.resets_out, resets as u64);
    assert_eq!(statistics.resets_withheld, 20_000 - resets as u64);
    assert_eq!(statistics.stray, 20_000);
}
