//! What a flow does in each of the situations the RFCs name, seen from the wire.

mod tcp_support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dataplane::net::tcp::ends::Ends;
use dataplane::net::tcp::segment::Segment;
use dataplane::net::tcp::sequence::Sequence;
use dataplane::net::tcp::too_big::TooBig;
use dataplane::net::tcp::{Closed, Config};
use tcp_support::app::{Reader, Stream, byte};
use tcp_support::pair::{Pair, config};
use tcp_support::wire::{Faults, Side};
use tcp_support::{
    CLIENT_MAC, MS, Node, S, SERVER_MAC, client_address, craft, link, now, parse, server_address,
};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Drops, towards the client, the first frame with data that `pick` says true to.
fn drop_once(mut pick: impl FnMut(&Segment<'_>) -> bool + 'static) -> tcp_support::wire::Dropper {
    let mut dropped = false;
    Box::new(move |to, _, frame| {
        let drops = to == Side::Client && !dropped && pick(&parse(frame));
        dropped |= drops;
        drops
    })
}

#[test]
fn without_faults_nothing_is_sent_twice_and_no_timer_fires() {
    let mut pair = Pair::new(MS, 300_000, 300_000);
    pair.run();
    for side in [&pair.client, &pair.server] {
        side.assert_clean();
        let statistics = side.stack.statistics();
        assert_eq!((statistics.retransmissions, statistics.timeouts, statistics.tail_probes), (0, 0, 0));
        assert_eq!(statistics.no_block, 0);
    }
}

/// Issue 3: a lost last segment costs about two round trips, not a time-out.
#[test]
fn a_lost_last_segment_is_repaired_in_about_two_round_trips() {
    let trip_ns = 40 * MS;
    let whole = Pair::new(trip_ns / 2, 0, 20_000).run();
    let mut pair = Pair::new(trip_ns / 2, 0, 20_000);
    pair.wire.drops = Some(drop_once(|segment| segment.flags.bits() & FIN != 0));
    let with_loss = pair.run();
    pair.server.assert_clean();
    let statistics = pair.server.stack.statistics();
    assert_eq!((statistics.timeouts, statistics.tail_probes), (0, 1));
    let cost_ns = with_loss - whole;
    assert!(cost_ns <= 5 * trip_ns / 2, "{} ms for a round trip of {} ms", cost_ns / MS, trip_ns / MS);
}

/// A reply of one segment on a short path: what a request and its reply over a LAN look like.
#[test]
fn a_lost_lone_reply_on_a_short_path_costs_the_delay_of_an_acknowledgement() {
    let mut pair = Pair::new(50_000, 0, 100);
    pair.wire.drops = Some(drop_once(|segment| !segment.payload.is_empty()));
    let took_ns = pair.run();
    pair.server.assert_clean();
    assert_eq!(pair.server.stack.statistics().timeouts, 0);
    assert!(took_ns <= 15 * MS, "{} us", took_ns / 1_000);
}

#[test]
fn a_lost_segment_in_the_middle_is_repaired_in_one_round_trip() {
    let trip_ns = 40 * MS;
    let whole = Pair::new(trip_ns / 2, 0, 14_000).run();
    let mut pair = Pair::new(trip_ns / 2, 0, 14_000);
    let mut data = 0;
    pair.wire.drops = Some(drop_once(move |segment| {
        data += u32::from(!segment.payload.is_empty());
        data == 3
    }));
    let with_loss = pair.run();
    pair.server.assert_clean();
    let statistics = pair.server.stack.statistics();
    assert_eq!((statistics.timeouts, statistics.tail_probes, statistics.retransmissions), (0, 0, 1));
    assert!(with_loss - whole <= trip_ns + MS, "{} ms", (with_loss - whole) / MS);
}

#[test]
fn a_peer_that_stays_silent_is_given_up() {
    let client = Config { timeouts_max: 4, ..config() };
    let mut pair = Pair::with(client, config(), MS, 10, 0);
    pair.client.apps.open.values_mut().for_each(|stream| stream.closing = true);
    pair.run_for(50 * MS);
    let flow = *pair.client.apps.open.keys().next().expect("an open flow");
    pair.wire.set_faults(Faults { loss: 1_000, delay_ns: MS, ..Faults::default() });
    assert_eq!(pair.client.stack.send(flow, b"x"), 1);
    pair.run_for(20 * S);
    assert_eq!(pair.client.apps.over.first().map(|(_, reason)| *reason), Some(Closed::TimedOut));
    pair.client.assert_empty();
}

#[test]
fn an_idle_peer_is_asked_and_given_up_when_it_does_not_answer() {
    let asks = Config { keepalive_ns: 2 * S, keepalive_interval_ns: S, keepalive_probes: 3, ..config() };
    let mut pair = Pair::idle(asks, Config { keepalive_ns: 0, ..config() });
    pair.run_for(20 * S);
    assert!(pair.client.stack.statistics().keepalives >= 8, "{:?}", pair.client.stack.statistics());
    assert_eq!(pair.client.apps.open.len(), 1, "it answers");
    pair.wire.set_faults(Faults { loss: 1_000, delay_ns: MS, ..Faults::default() });
    pair.run_for(6 * S);
    assert_eq!(pair.client.apps.over.first().map(|(_, reason)| *reason), Some(Closed::TimedOut));
    pair.client.assert_empty();
}

#[test]
fn a_flow_without_data_ends_when_it_is_idle_for_too_long() {
    let mut pair = Pair::idle(Config { idle_ns: 2 * S, ..config() }, config());
    pair.run_for(3 * S);
    assert_eq!(pair.client.apps.over.first().map(|(_, reason)| *reason), Some(Closed::Idle));
    assert_eq!(pair.server.apps.over.first().map(|(_, reason)| *reason), Some(Closed::Reset));
    pair.client.assert_empty();
    pair.server.assert_empty();
}

#[test]
fn who_never_reads_is_probed_with_patience_and_then_closed() {
    let class = |bytes, count| dataplane::net::tcp::pool::Class { bytes, count };
    let blocks = [class(1_000, 2), class(2_000, 2), class(3_000, 2), class(4_000, 2)];
    let client = Config { blocks, window_bytes: 4_000, window_slack_bytes: 0, ..config() };
    let server = Config { stalled_ns: 10 * S, ..config() };
    let mut pair = Pair::with(client, server, MS, 0, 20_000);
    pair.client.apps.open.values_mut().for_each(|stream| stream.reader = Reader::Messages(usize::MAX));
    pair.client.apps.open.values_mut().for_each(|stream| stream.receive_bytes = usize::MAX);
    pair.run_for(20 * S);
    assert!(pair.server.stack.statistics().window_probes >= 5);
    assert_eq!(pair.server.apps.over.first().map(|(_, reason)| *reason), Some(Closed::Stalled));
    pair.server.assert_empty();
}

#[test]
fn a_refused_flow_says_so() {
    let mut pair = Pair::new(MS, 10, 10);
    pair.server.apps.refuse = true;
    pair.run_for(S);
    assert_eq!(pair.client.apps.over.first().map(|(_, reason)| *reason), Some(Closed::Reset));
    pair.client.assert_empty();
    pair.server.assert_empty();
}

#[test]
fn an_abort_resets_the_peer() {
    let mut pair = Pair::idle(config(), config());
    let flow = *pair.client.apps.open.keys().next().expect("an open flow");
    pair.client.stack.io(flow).expect("an open flow").abort();
    pair.run_for(100 * MS);
    assert_eq!(pair.client.apps.over.first().map(|(_, reason)| *reason), Some(Closed::Aborted));
    assert_eq!(pair.server.apps.over.first().map(|(_, reason)| *reason), Some(Closed::Reset));
    assert!(pair.client.stack.io(flow).is_none(), "the name means nothing any more");
    pair.client.assert_empty();
    pair.server.assert_empty();
}

/// RFC 5961 section 3.2: a blind attacker who does not know the exact number resets nothing.
#[test]
fn a_reset_within_the_window_is_asked_about_and_only_an_exact_one_believed() {
    let mut pair = Pair::idle(config(), config());
    let at = pair.last_from_client();
    assert!(pair.forge(at.next.minus(1), Sequence(0), RST, b"").is_empty(), "outside: not a word");
    assert!(pair.forge(at.next.plus(1 << 30), Sequence(0), RST, b"").is_empty());
    let answers = pair.forge(at.next.plus(5), Sequence(0), RST, b"");
    assert_eq!(answers.len(), 1);
    let answer = parse(&answers[0]);
    assert_eq!((answer.flags.bits(), answer.acknowledgement), (ACK, at.next), "a challenge");
    assert_eq!(pair.server.apps.open.len(), 1);
    pair.forge(at.next, Sequence(0), RST, b"");
    assert_eq!(pair.server.apps.over.first().map(|(_, reason)| *reason), Some(Closed::Reset));
    pair.server.assert_empty();
}

/// RFC 5961 section 4.2 and section 7.
#[test]
fn a_syn_into_a_flow_is_challenged_but_not_too_often() {
    let mut pair = Pair::idle(config(), config());
    let at = pair.last_from_client();
    let mut answers = 0;
    for guess in 0..1_000u32 {
        answers += pair.forge(at.next.plus(guess.wrapping_mul(4_294_967)), Sequence(0), SYN, b"").len();
    }
    assert_eq!(answers, usize::from(config().challenges_per_s));
    assert_eq!(pair.server.apps.open.len(), 1);
    assert!(pair.server.stack.statistics().challenges_withheld > 900);
}

/// RFC 5961 section 5.2: data with an acknowledgement that cannot be is not let in.
#[test]
fn blind_data_is_not_let_in() {
    let mut pair = Pair::idle(config(), config());
    let at = pair.last_from_client();
    for acknowledgement in
        [at.acknowledged.plus(1), at.acknowledged.minus(1 << 30), at.acknowledged.plus(1 << 31)]
    {
        pair.forge(at.next, acknowledgement, ACK, b"evil");
    }
    assert_eq!(pair.server.stack.statistics().bad_acknowledgement, 3);
    // The application would have complained about bytes that were not sent.
    assert_eq!(pair.server.apps.open.values().next().expect("an open flow").received, 10);
}

/// RFC 7323 section 5.3.
#[test]
fn a_segment_from_before_is_turned_away_by_its_timestamp() {
    let mut pair = Pair::idle(config(), config());
    let at = pair.last_from_client();
    let old = at.stamp.expect("timestamps").wrapping_sub(1_000);
    let frame = craft(
        client_address(true, 4_000),
        server_address(true),
        at.next,
        at.acknowledged,
        ACK,
        1_000,
        Some((old, 0)),
        b"old",
    );
    let at_ns = pair.wire.at_ns;
    pair.server.deliver(at_ns, &frame);
    assert_eq!(pair.server.stack.statistics().old_timestamp, 1);
    assert_eq!(pair.server.apps.open.values().next().expect("an open flow").received, 10);
}

#[test]
fn a_flood_of_syns_leaves_a_working_client_alone() {
    let mut pair = Pair::new(MS, 50_000, 50_000);
    let mut flood = tcp_support::Random(3);
    for _ in 0..10_000 {
        let source = SocketAddr::from((
            [10, 9, flood.below(256) as u8, flood.below(255) as u8],
            1 + flood.below(65_000) as u16,
        ));
        let sequence = Sequence(flood.next() as u32);
        let syn = craft(source, server_address(true), sequence, Sequence(0), SYN, 1_000, None, b"");
        let at_ns = pair.wire.at_ns;
        pair.server.deliver(at_ns, &syn);
    }
    // What the flood is answered goes nowhere.
    pair.server.turn(pair.wire.at_ns, &mut Vec::new());
    assert_eq!(pair.server.stack.holdings().half_open, 64);
    pair.wire.drops =
        Some(Box::new(|to, _, frame| to == Side::Client && parse(frame).ends.local().ip() != CLIENT));
    let took_ns = pair.run();
    let statistics = *pair.server.stack.statistics();
    assert_eq!(statistics.cookies_opened, 1, "{statistics:?}");
    assert!(statistics.cookies_sent > 9_000);
    assert!(took_ns < 100 * MS, "{} ms", took_ns / MS);
    assert_eq!(statistics.half_open_expired, 64);
    pair.server.assert_clean();
    pair.client.assert_clean();
}

#[test]
fn a_made_up_cookie_opens_nothing() {
    let mut pair = Pair::new(MS, 10, 10);
    let at_ns = pair.wire.at_ns;
    let mut random = tcp_support::Random(5);
    for port in 0..2_000u16 {
        let source = SocketAddr::from(([10, 9, 0, 1], 1 + port));
        let syn = craft(source, server_address(true), Sequence(1), Sequence(0), SYN, 1_000, None, b"");
        pair.server.deliver(at_ns, &syn);
        let guess = Sequence(random.next() as u32);
        let ack = craft(source, server_address(true), Sequence(2), guess, ACK, 1_000, None, b"data");
        pair.server.deliver(at_ns, &ack);
    }
    assert_eq!(pair.server.stack.holdings().flows, 0);
    assert_eq!(pair.server.stack.statistics().accepted, 0);
}

#[test]
fn a_newer_syn_takes_the_place_of_a_closed_flow_and_an_older_does_not() {
    let mut pair = Pair::new(MS, 10, 10);
    let start_ns = pair.wire.at_ns;
    // Only the server closes at first: it is the one that waits.
    pair.client.apps.open.values_mut().for_each(|stream| stream.closing = true);
    pair.run_for(50 * MS);
    let flow = *pair.client.apps.open.keys().next().expect("an open flow");
    pair.client.stack.io(flow).expect("an open flow").close();
    pair.run_for(50 * MS);
    assert_eq!(pair.server.stack.holdings().waiting, 1);
    assert_eq!(pair.client.stack.holdings().waiting, 0);
    let at_ns = pair.wire.at_ns;
    let at = pair.last_from_client();
    let old = craft(
        client_address(true, 4_000),
        server_address(true),
        at.next.minus(100),
        Sequence(0),
        SYN,
        9,
        at.stamp.map(|value| (value.wrapping_sub(9), 0)),
        b"",
    );
    pair.server.deliver(at_ns, &old);
    assert_eq!((pair.server.stack.holdings().waiting, pair.server.stack.holdings().half_open), (1, 0));
    pair.server.apps.expected.insert(4_000, Stream::server(9, 10, 10, Reader::Eager));
    let stream = Stream::client(9, 10, 10, Reader::Eager);
    let header = link(SERVER_MAC, CLIENT_MAC, true);
    pair.client.connect(at_ns, &header, client_address(true, 4_000), server_address(true), stream);
    (pair.client.streams, pair.server.streams) = (2, 2);
    pair.run();
    pair.client.assert_clean();
    pair.server.assert_clean();
    assert!(pair.wire.at_ns > start_ns);
}

/// A transfer over a path that takes packets of `mtu_bytes`, of which the server has not heard yet; and the sequence
/// number of the first packet that was too large.
fn over_a_narrow_path(v4: bool, mtu_bytes: usize) -> (Pair, Sequence) {
    let mut pair = Pair::of(v4, config(), config(), 5 * MS, 0, 100_000);
    let narrow = move |to, frame: &[u8]| to == Side::Client && frame.len() > 14 + mtu_bytes;
    pair.wire.drops = Some(Box::new(move |to, _, frame| narrow(to, frame)));
    pair.run_for(30 * MS);
    let trace = pair.wire.trace.as_ref().expect("a trace");
    let (_, _, frame) =
        trace.iter().find(|(_, to, frame)| narrow(*to, frame)).expect("a frame that is too large").clone();
    let sequence = parse(&frame).sequence;
    (pair, sequence)
}

#[test]
fn a_smaller_path_is_believed_only_from_who_knows_what_is_under_way() {
    let (mut pair, sequence) = over_a_narrow_path(true, 1_000);
    let at = now(pair.wire.at_ns);
    let mut says = |port, sequence| {
        let ends = Ends::new(server_address(true), client_address(true, port));
        pair.server.stack.packet_too_big(at, &TooBig { ends, sequence, mtu_bytes: 1_000 })
    };
    assert!(!says(4_000, sequence.minus(1)), "acknowledged long ago");
    assert!(!says(4_000, sequence.plus(1 << 20)), "never sent");
    assert!(!says(4_001, sequence), "nobody's");
    assert!(says(4_000, sequence));
    assert!(!says(4_000, sequence), "known by now");
    pair.run();
    pair.client.assert_clean();
    pair.server.assert_clean();
}

#[test]
fn a_path_smaller_than_any_link_is_nobodys() {
    for (v4, impossible, possible, largest) in
        [(true, [1, 67], 68, 552), (true, [40, 20], 0, 552), (false, [0, 1_279], 1_280, 1_280)]
    {
        let (mut pair, sequence) = over_a_narrow_path(v4, 1_300);
        let at = now(pair.wire.at_ns);
        let mut says = |mtu_bytes| {
            let ends = Ends::new(server_address(v4), client_address(v4, 4_000));
            pair.server.stack.packet_too_big(at, &TooBig { ends, sequence, mtu_bytes })
        };
        assert_eq!(impossible.map(&mut says), [false, false]);
        assert!(says(possible), "{possible}");
        let before = pair.wire.trace.as_ref().expect("a trace").len();
        pair.run();
        let trace = &pair.wire.trace.as_ref().expect("a trace")[before..];
        let sent =
            trace.iter().filter(|(_, to, _)| *to == Side::Client).map(|(_, _, frame)| frame.len() - 14);
        assert_eq!(sent.max(), Some(largest), "as far down as we go, and no further");
        pair.server.assert_clean();
    }
}

#[test]
fn one_acknowledgement_answers_a_batch_and_rides_on_the_reply() {
    let mut pair = Pair::idle(config(), config());
    let at = pair.last_from_client();
    let at_ns = pair.wire.at_ns;
    // As much as ten requests that come together.
    let flow = *pair.server.apps.open.keys().next().expect("an open flow");
    pair.server.apps.open.get_mut(&flow).expect("a stream").receive_bytes = usize::MAX;
    for number in 0..10u32 {
        let stream = pair.server.apps.open.get(&flow).expect("a stream");
        let payload: Vec<u8> = (0..100)
            .map(|at| tcp_support::app::byte(stream.receive_seed, 10 + number as usize * 100 + at))
            .collect();
        let frame = craft(
            client_address(true, 4_000),
            server_address(true),
            at.next.plus(number * 100),
            at.acknowledged,
            ACK,
            1_000,
            at.stamp.map(|value| (value, 0)),
            &payload,
        );
        pair.server.deliver(at_ns, &frame);
    }
    pair.server.stack.send(flow, b"reply");
    let mut out = Vec::new();
    pair.server.turn(at_ns, &mut out);
    assert_eq!(out.len(), 1);
    let reply = parse(&out[0]);
    assert_eq!((reply.payload, reply.acknowledgement), (&b"reply"[..], at.next.plus(1_000)));
}

#[test]
fn a_data_segment_alone_is_acknowledged_after_the_delay() {
    let mut pair = Pair::idle(config(), config());
    let flow = *pair.client.apps.open.keys().next().expect("an open flow");
    let server = *pair.server.apps.open.keys().next().expect("an open flow");
    pair.server.apps.open.get_mut(&server).expect("a stream").receive_bytes = usize::MAX;
    let stream = pair.server.apps.open.get(&server).expect("a stream").clone();
    let payload = [tcp_support::app::byte(stream.receive_seed, 10)];
    let sent_ns = pair.wire.at_ns;
    let before = pair.wire.trace.as_ref().expect("a trace").len();
    pair.client.stack.send(flow, &payload);
    pair.run_for(50 * MS);
    let trace = &pair.wire.trace.as_ref().expect("a trace")[before..];
    assert_eq!(trace.len(), 2, "the byte and its acknowledgement");
    let waited_ns = trace[1].0 - sent_ns;
    let delay_ns = config().ack_delay_ns;
    assert!((delay_ns..delay_ns + 3 * MS).contains(&waited_ns), "{} us", waited_ns / 1_000);
}

#[test]
fn opening_from_both_sides_at_once_does_no_harm() {
    let mut pair = Pair::new(MS, 10, 10);
    let ends = Ends::new(client_address(true, 4_000), server_address(true));
    pair.turn(pair.wire.at_ns);
    let syn = craft(ends.peer(), ends.local(), Sequence(77), Sequence(0), SYN, 1_000, None, b"");
    let at_ns = pair.wire.at_ns;
    pair.client.deliver(at_ns, &syn);
    pair.run();
    pair.client.assert_clean();
}

/// Every hundredth frame is lost for seconds: selective acknowledgements and RACK repair it all, without a time-out.
#[test]
fn a_long_transfer_over_a_lossy_path_needs_no_time_out() {
    let bytes = 5_000_000;
    let mut pair = Pair::new(5 * MS, 0, bytes);
    pair.wire.trace = None;
    pair.wire.set_faults(Faults { loss: 10, delay_ns: 5 * MS, ..Faults::default() });
    let took_ns = pair.run();
    pair.client.assert_clean();
    let statistics = pair.server.stack.statistics();
    let segments = bytes as u64 / 1_448;
    assert_eq!(statistics.timeouts, 0, "{statistics:?}");
    assert!(statistics.retransmissions < segments * 3 / 100, "{statistics:?}");
    // What NewReno would reach at this loss and round trip (Mathis, 1997): 1.2 segments / sqrt(loss) a round trip.
    let newreno_ns = segments * 10 * MS / 12;
    assert!(took_ns < newreno_ns * 3 / 2, "{} ms, NewReno {} ms", took_ns / MS, newreno_ns / MS);
}

/// A path that reorders makes nobody send twice, once it is known.
#[test]
fn reordering_is_learnt() {
    let mut pair = Pair::new(5 * MS, 0, 3_000_000);
    pair.wire.trace = None;
    let reorders = Faults { reorder: 300, reorder_ns: 2 * MS, delay_ns: 5 * MS, ..Faults::default() };
    pair.wire.set_faults(reorders);
    pair.run();
    pair.client.assert_clean();
    let statistics = pair.server.stack.statistics();
    let segments = 3_000_000 / 1_448;
    assert_eq!(statistics.timeouts, 0);
    assert!(statistics.retransmissions < segments / 50, "{statistics:?}");
}

#[test]
fn without_selective_acknowledgements_three_duplicates_repair_a_loss() {
    let client = Config { selective: false, ..config() };
    let mut pair = Pair::with(client, config(), 20 * MS, 0, 40_000);
    let mut data = 0;
    pair.wire.drops = Some(drop_once(move |segment| {
        data += u32::from(!segment.payload.is_empty());
        data == 3
    }));
    pair.run();
    pair.client.assert_clean();
    let statistics = pair.server.stack.statistics();
    assert_eq!((statistics.timeouts, statistics.retransmissions), (0, 1));
}

/// The path is slow for a moment, as when a peer's thread was not run: nothing was lost, and the window stays.
#[test]
fn a_time_out_that_was_none_is_taken_back() {
    let time = |timestamps| {
        let mut pair = Pair::with(Config { timestamps, ..config() }, config(), 5 * MS, 0, 5_000_000);
        pair.wire.trace = None;
        pair.run_for(150 * MS);
        pair.wire.set_faults(Faults { delay_ns: 150 * MS, ..Faults::default() });
        pair.run_for(30 * MS);
        pair.wire.set_faults(Faults { delay_ns: 5 * MS, ..Faults::default() });
        let took_ns = pair.run();
        pair.client.assert_clean();
        let statistics = pair.server.stack.statistics();
        assert!(statistics.timeouts > 0, "the test means something: {statistics:?}");
        assert!(statistics.retransmissions <= 5, "{statistics:?}");
        took_ns / MS
    };
    // Timestamps tell which of both transmissions is answered.
    let (with, without) = (time(true), time(false));
    assert!(with + 20 < without, "{with} ms with timestamps, {without} ms without");
}

/// The server says so many bytes more.
fn answer(pair: &mut Pair, bytes: usize) {
    let (&flow, stream) = pair.server.apps.open.iter_mut().next().expect("an open flow");
    let said: Vec<u8> = (stream.sent..stream.sent + bytes).map(|at| byte(stream.send_seed, at)).collect();
    (stream.sent, stream.send_bytes) = (stream.sent + bytes, stream.send_bytes + bytes);
    assert_eq!(pair.server.stack.send(flow, &said), bytes);
    let client = pair.client.apps.open.values_mut().next().expect("an open flow");
    client.receive_bytes += bytes;
}

#[test]
fn acknowledgements_that_were_lost_do_not_make_the_path_seem_long() {
    let mut pair = Pair::idle(config(), config());
    // Of five segments the first is lost, and for three seconds whatever speaks of the others, and what is sent again.
    let mut first = true;
    pair.wire.drops =
        Some(Box::new(move |to, _, _| to == Side::Server || std::mem::replace(&mut first, false)));
    answer(&mut pair, 7_000);
    pair.run_for(3 * MS);
    pair.wire.drops = Some(Box::new(|_, _, _| true));
    pair.run_for(3 * S);
    pair.wire.drops = None;
    pair.run_for(5 * S);
    assert_eq!(pair.client.apps.open.values().next().expect("open").received, 7_010);
    let before = pair.server.stack.statistics().timeouts;
    assert!(before > 0);
    // What is lost from now on is missed as soon as on any short path.
    pair.wire.drops = Some(Box::new(|to, _, _| to == Side::Client));
    answer(&mut pair, 1_000);
    pair.run_for(S);
    let after = pair.server.stack.statistics().timeouts;
    assert!(after >= before + 3, "{} time-outs in a second", after - before);
}
