//! What holds of the protocol for every input: messages whole, cut, in pieces, and not messages at all.

mod differential_support;
#[path = "memcached_support/generate.rs"]
mod generate;

use dataplane::limits::{
    KEY_BYTES_MAX, MEMCACHED_DATAGRAM_BYTES_MAX, MEMCACHED_DATAGRAM_KEYS_MAX, VALUE_BYTES_MAX,
};
use dataplane::metrics::{DropReason, OpKind};
use dataplane::port::sim::Random;
use dataplane::protocol::memcached::command::{Command, Exptime};
use dataplane::protocol::memcached::conversation::{
    CollectedReplies, Conversation, DatagramConversation, reassemble, roomy_setup,
};
use dataplane::protocol::memcached::parse::{Parsed, parse};
use dataplane::protocol::memcached::stream::{OUTPUT_BYTES_ENOUGH, OUTPUT_BYTES_MIN};
use dataplane::protocol::memcached::udp::{FRAME_HEADER_BYTES, FrameHeader};
use dataplane::request::StoreMode;
use dataplane::service::{Service, ServiceSetup};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::model::ModelTable;
use dataplane::time::Now;
use generate::step;
use proptest::prelude::*;

const NOW: Now = Now { monotonic_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };
const ITEM_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX;

/// A generated command, with 1 for every CAS.
fn command_of(seed: u64) -> Vec<u8> {
    step(&mut Random::new(seed)).bytes(|_| 1)
}

/// Bytes that look like the protocol often enough to get past its first checks.
fn bytes_like_messages() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => any::<u64>().prop_map(command_of),
        3 => prop::sample::select(vec![
            "get ", "set ", "ms ", "mg ", "k ", "0 ", "-1 ", "3 ", "noreply", "\r\n", "\n", "\r", " ", "abc\r\n", "b ",
            "99999999999999999999 ", "2147483645 ", "stats", "END", "\0", "quit", "GET / HTTP/1.1",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((b'!'..=0xfe).prop_filter("no control", |byte| *byte != 0x7f), 1..=KEY_BYTES_MAX)
}

fn frame(request_id: u16, message: &[u8]) -> Vec<u8> {
    [&FrameHeader { request_id, sequence: 0, total: 1 }.to_bytes(), message].concat()
}

fn setup(reply_bytes_max: usize) -> ServiceSetup {
    ServiceSetup { reply_bytes_max, ..roomy_setup() }
}

fn is_error(reply: &[u8]) -> bool {
    ["ERROR\r\n", "CLIENT_ERROR ", "SERVER_ERROR "].iter().any(|start| reply.starts_with(start.as_bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_read_as_it_was_written(
        key in key(), mode in 0usize..6, flags: u32, exptime: i64, cas: u64, quiet: bool,
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (name, expected) = [
            ("set", StoreMode::Set), ("add", StoreMode::Add), ("replace", StoreMode::Replace),
            ("append", StoreMode::Append), ("prepend", StoreMode::Prepend), ("cas", StoreMode::Set),
        ][mode];
        let mut message = [name.as_bytes(), b" ", &key[..]].concat();
        message.extend(format!(" {flags} {exptime} {}", value.len()).bytes());
        if name == "cas" {
            message.extend(format!(" {cas}").bytes());
        }
        if quiet {
            message.extend(b" noreply");
        }
        message.extend([&b"\r\n"[..], &value, b"\r\n"].concat());
        let Parsed::Command(Command::Store(store), bytes) = parse(&message, ITEM_BYTES_MAX) else {
            return Err(TestCaseError::fail("no store"));
        };
        prop_assert_eq!(bytes, message.len());
        prop_assert_eq!(store.key, key);
        prop_assert_eq!(store.value, value);
        prop_assert_eq!((store.mode, store.flags, store.exptime, store.quiet), (expected, flags, Exptime(exptime), quiet));
        prop_assert_eq!(store.cas, (name == "cas").then_some(cas));
    }

    #[test]
    fn a_read_has_the_keys_that_were_written(keys in prop::collection::vec(key(), 1..30), cas: bool) {
        let message = [if cas { b"gets ".to_vec() } else { b"get ".to_vec() }, keys.join(&b' '), b"\r\n".to_vec()].concat();
        let Parsed::Command(Command::Get(get), bytes) = parse(&message, ITEM_BYTES_MAX) else {
            return Err(TestCaseError::fail("no read"));
        };
        prop_assert_eq!(bytes, message.len());
        prop_assert_eq!(get.cas, cas);
        prop_assert_eq!(get.keys.collect::<Vec<_>>(), keys);
    }

    #[test]
    fn whatever_comes_is_consumed_refused_or_incomplete(bytes in bytes_like_messages()) {
        match parse(&bytes, ITEM_BYTES_MAX) {
            Parsed::Command(_, consumed) => {
                prop_assert!((1..=bytes.len()).contains(&consumed));
                // The same message, whatever follows; and none of its beginnings is one.
                for end in 0..consumed {
                    prop_assert!(
                        matches!(parse(&bytes[..end], ITEM_BYTES_MAX), Parsed::Incomplete(_)),
                        "{} of {}", end, bytes[..consumed].escape_ascii()
                    );
                }
            }
            Parsed::Invalid(error) => {
                prop_assert!(error.skip_bytes > 0);
                prop_assert!(is_error(error.line) && error.line.ends_with(b"\r\n"));
            }
            Parsed::Incomplete(_) => {}
        }
    }

    #[test]
    fn a_stream_in_pieces_gets_the_replies_of_the_whole(bytes in bytes_like_messages(), cuts in prop::collection::vec(1usize..40, 1..20)) {
        let mut whole = Conversation::new(ModelTable::new(), &roomy_setup());
        let expected = whole.say(NOW, &bytes);
        let mut pieces = Conversation::new(ModelTable::new(), &roomy_setup());
        let mut replies = Vec::new();
        let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(cuts.next().expect("cycles").min(rest.len()));
            replies.extend(pieces.say(NOW, piece));
            rest = behind;
        }
        prop_assert_eq!(String::from_utf8_lossy(&replies), String::from_utf8_lossy(&expected));
        prop_assert_eq!(pieces.closed, whole.closed);
    }

    /// A client that reads slowly gets what one that reads at once gets.
    #[test]
    fn a_stream_with_little_room_gets_the_replies_of_one_with_much(
        seeds in prop::collection::vec(any::<u64>(), 1..60), capacity in 4096usize..9000, piece in 1usize..5000,
    ) {
        let bytes = seeds.into_iter().flat_map(command_of).collect::<Vec<_>>();
        let mut roomy = Conversation::new(ModelTable::new(), &roomy_setup());
        let expected = roomy.say(NOW, &bytes);
        let mut narrow = Conversation::new(ModelTable::new(), &setup(capacity));
        let replies = bytes.chunks(piece).flat_map(|bytes| narrow.say(NOW, bytes)).collect::<Vec<_>>();
        // Values are of 3000 bytes at most, unless some are joined.
        prop_assume!(narrow.metrics.drops(DropReason::ReplyTooLarge) == 0);
        prop_assert_eq!(String::from_utf8_lossy(&replies), String::from_utf8_lossy(&expected));
        for &kind in OpKind::ALL {
            prop_assert_eq!(narrow.metrics.requests(kind), roomy.metrics.requests(kind), "{:?}", kind);
        }
        prop_assert_eq!(format!("{:?}", narrow.table), format!("{:?}", roomy.table));
    }

    /// A reply that does not fit a datagram's limit leaves everything as it was.
    #[test]
    fn a_datagram_without_room_for_its_reply_changes_nothing(seed: u64, limit in 256usize..3000) {
        let command = command_of(seed);
        // A plain read counts its keys as used, and `stats` is measured by its longest answer.
        prop_assume!(!command.starts_with(b"get"));
        let mut server = DatagramConversation::new(&setup(limit));
        for key in ["a", "b", "n1", "n2", "key:3", "a-rather-long-key-with-dots.and.such"] {
            let value = "7".repeat(2500);
            server.ask(NOW, 1, format!("set {key} 9 1000 2500\r\n{value}\r\n").as_bytes()).expect("stored");
            server.ask(NOW, 1, format!("md {key} I\r\n").as_bytes()).expect("stale");
        }
        let before = format!("{:?}", server.table);
        let reply = server.ask(NOW, 2, &command).expect("well-formed");
        if reply == b"SERVER_ERROR reply too large\r\n" {
            prop_assert_eq!(format!("{:?}", server.table), before, "{}", command.escape_ascii());
        }
    }

    #[test]
    fn a_datagram_cut_anywhere_does_nothing(seed: u64) {
        let message = frame(9, &command_of(seed));
        let is_message = matches!(
            parse(&message[FRAME_HEADER_BYTES..], ITEM_BYTES_MAX),
            Parsed::Command(_, bytes) if bytes == message.len() - FRAME_HEADER_BYTES
        );
        prop_assume!(is_message);
        let mut server = DatagramConversation::new(&roomy_setup());
        for key in ["a", "b", "n1"] {
            server.ask(NOW, 1, format!("set {key} 0 0 7\r\n5000000\r\n").as_bytes()).expect("stored");
        }
        let before = format!("{:?}", server.table);
        for end in 0..message.len() {
            let mut replies = CollectedReplies::default();
            server.datagram(NOW, &message[..end], &mut replies);
            prop_assert_eq!(format!("{:?}", &server.table), &before[..], "cut at {}", end);
            if end < FRAME_HEADER_BYTES {
                prop_assert!(replies.datagrams.is_empty());
            } else if !replies.datagrams.is_empty() {
                prop_assert!(is_error(&reassemble(9, &replies.datagrams).expect("well-formed")));
            }
        }
        prop_assert_eq!(server.metrics.drops(DropReason::FrameHeader), FRAME_HEADER_BYTES as u64);
    }

    #[test]
    fn a_large_reply_comes_in_numbered_pieces_or_not_at_all(
        value in prop::collection::vec(any::<u8>(), 0..20_000), room in 0usize..20, payload_bytes_max in 9usize..2000,
    ) {
        let mut server = DatagramConversation::new(&roomy_setup());
        let set = [format!("set k 0 0 {}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        prop_assert_eq!(server.ask(NOW, 1, &set).expect("well-formed"), b"STORED\r\n");
        let mut replies = CollectedReplies { room, payload_bytes_max, ..CollectedReplies::default() };
        server.datagram(NOW, &frame(2, b"get k\r\n"), &mut replies);
        let expected = [format!("VALUE k 0 {}\r\n", value.len()).as_bytes(), &value, b"\r\nEND\r\n"].concat();
        let piece = payload_bytes_max.min(MEMCACHED_DATAGRAM_BYTES_MAX) - FRAME_HEADER_BYTES;
        let count = expected.len().div_ceil(piece);
        if count > room {
            prop_assert!(replies.datagrams.is_empty());
            prop_assert_eq!(server.metrics.drops(DropReason::NoFrame), 1);
        } else {
            prop_assert_eq!(replies.datagrams.len(), count);
            prop_assert!(replies.datagrams.iter().all(|datagram| datagram.len() <= MEMCACHED_DATAGRAM_BYTES_MAX));
            replies.datagrams.reverse();
            prop_assert_eq!(reassemble(2, &replies.datagrams).expect("well-formed"), expected);
        }
    }

    #[test]
    fn no_reply_exceeds_the_limit(limit in 256usize..6000, keys in 1usize..40, size in 0usize..400) {
        let mut server = DatagramConversation::new(&setup(limit));
        server.ask(NOW, 1, format!("set k 0 0 {size}\r\n{}\r\n", "x".repeat(size)).as_bytes()).expect("stored");
        let mut replies = CollectedReplies::default();
        server.datagram(NOW, &frame(2, format!("get {}\r\n", vec!["k"; keys].join(" ")).as_bytes()), &mut replies);
        let sent: usize = replies.datagrams.iter().map(Vec::len).sum();
        prop_assert!(sent <= limit, "{} of {}", sent, limit);
        let text = reassemble(2, &replies.datagrams).expect("well-formed");
        let item = format!("VALUE k 0 {size}\r\n{}\r\n", "x".repeat(size));
        if text == b"SERVER_ERROR reply too large\r\n" {
            prop_assert_eq!(server.metrics.drops(DropReason::ReplyTooLarge), 1);
            // It would not have fitted: a header's and the error line's room is held back.
            prop_assert!(keys * item.len() + 5 + 100 > limit - 8 * limit.div_ceil(MEMCACHED_DATAGRAM_BYTES_MAX));
        } else {
            prop_assert_eq!(text, format!("{}END\r\n", item.repeat(keys)).into_bytes());
        }
    }

    /// Whichever way it is asked for, a join that finds no room leaves the item as it was.
    #[test]
    fn a_join_that_does_not_fit_leaves_the_item_alone(
        before in 0usize..400, more in 0usize..400, message in 0usize..4, quiet: bool,
    ) {
        const ITEM_BYTES_MAX: u32 = 500;
        let config = MemoryTableConfig {
            capacity_bytes: 64 << 10, item_bytes_max: ITEM_BYTES_MAX, ..MemoryTableConfig::default()
        };
        let table = MemoryTable::with_hash_seed(config, 1).expect("a small table");
        let setup = ServiceSetup { item_bytes_max: ITEM_BYTES_MAX as usize, ..roomy_setup() };
        let mut stream = Conversation::new(table, &setup);
        let mut say = |bytes: String| String::from_utf8(stream.say(NOW, bytes.as_bytes())).expect("text");
        let (old, new) = ("o".repeat(before), "n".repeat(more));
        prop_assert_eq!(say(format!("set k 7 0 {before}\r\n{old}\r\n")), "STORED\r\n");
        let (noreply, q) = if quiet { (" noreply", " q") } else { ("", "") };
        let reply = say(match message {
            0 => format!("append k 0 0 {more}{noreply}\r\n{new}\r\n"),
            1 => format!("prepend k 0 0 {more}{noreply}\r\n{new}\r\n"),
            2 => format!("ms k {more} MA{q}\r\n{new}\r\n"),
            _ => format!("ms k {more} MP{q}\r\n{new}\r\n"),
        });
        let kept = if 1 + before + more > ITEM_BYTES_MAX as usize {
            prop_assert!(reply == "SERVER_ERROR object too large for cache\r\n" || (reply.is_empty() && message < 2), "{}", reply);
            old
        } else if message % 2 == 0 {
            old + &new
        } else {
            new + &old
        };
        prop_assert_eq!(say("get k\r\n".to_owned()), format!("VALUE k 7 {}\r\n{kept}\r\nEND\r\n", kept.len()));
    }

    /// Two servers that take each other's replies for requests, as a forged source makes them, fall silent.
    #[test]
    fn replies_taken_for_requests_die_out(message in bytes_like_messages(), request_id: u16) {
        let mut servers = [DatagramConversation::new(&roomy_setup()), DatagramConversation::new(&roomy_setup())];
        let mut flying = vec![frame(request_id, &message)];
        for round in 0..3 {
            let mut replies = CollectedReplies::default();
            for datagram in &flying {
                servers[round % 2].datagram(NOW, datagram, &mut replies);
            }
            flying = replies.datagrams;
        }
        prop_assert!(flying.is_empty(), "{:?}", flying);
    }

    #[test]
    fn datagrams_of_any_bytes_get_well_formed_replies(mut datagrams in prop::collection::vec(bytes_like_messages(), 1..6), whole: bool) {
        let mut server = DatagramConversation::new(&setup(4096));
        for datagram in &mut datagrams {
            if whole {
                datagram.splice(0..0, FrameHeader { request_id: 5, sequence: 0, total: 1 }.to_bytes());
            }
            let mut replies = CollectedReplies::default();
            server.datagram(NOW, datagram, &mut replies);
            if let Some((header, _)) = FrameHeader::split(datagram) {
                reassemble(header.request_id, &replies.datagrams).expect("well-formed");
            } else {
                prop_assert!(replies.datagrams.is_empty());
            }
        }
    }
}

#[test]
fn a_request_in_several_datagrams_is_dropped_and_counted() {
    let mut server = DatagramConversation::new(&roomy_setup());
    for (sequence, total) in [(0, 2), (1, 2), (1, 1), (0, 0)] {
        let header = FrameHeader { request_id: 1, sequence, total }.to_bytes();
        let mut replies = CollectedReplies::default();
        server.datagram(NOW, &[&header[..], b"set a 0 0 1\r\nx\r\n"].concat(), &mut replies);
        assert!(replies.datagrams.is_empty());
    }
    assert_eq!(server.metrics.drops(DropReason::SplitRequest), 4);
    assert_eq!(server.ask(NOW, 2, b"get a\r\n").expect("well-formed"), b"END\r\n");
    let mut replies = CollectedReplies::default();
    server.datagram(NOW, b"\0\x01\0\0\0\x01\0\x01version\r\n", &mut replies);
    assert!(replies.datagrams.is_empty());
    assert_eq!(server.metrics.drops(DropReason::FrameHeader), 1);
}

#[test]
fn two_messages_in_a_datagram_are_none() {
    let mut server = DatagramConversation::new(&roomy_setup());
    let reply = server.ask(NOW, 1, b"set a 0 0 1 noreply\r\nx\r\nget a\r\n").expect("well-formed");
    assert_eq!(reply, b"CLIENT_ERROR more than one message in a datagram\r\n");
    assert_eq!(server.ask(NOW, 2, b"get a\r\n").expect("well-formed"), b"END\r\n");
    assert_eq!(server.metrics.requests(OpKind::Invalid), 1);
}

#[test]
fn the_shortest_replies_wait_for_room_too() {
    for (command, reply) in
        [("gat 0\r\n", "END\r\n"), ("get nope\r\n", "END\r\n"), ("mn\r\n", "MN\r\n"), ("\n", "ERROR\r\n")]
    {
        let mut stream = Conversation::new(ModelTable::new(), &setup(OUTPUT_BYTES_MIN));
        let replies = stream.say(NOW, command.repeat(OUTPUT_BYTES_MIN).as_bytes());
        assert_eq!(String::from_utf8(replies).expect("text"), reply.repeat(OUTPUT_BYTES_MIN), "{command:?}");
    }
}

#[test]
fn the_largest_value_goes_over_a_stream() {
    let mut stream = Conversation::new(ModelTable::new(), &setup(OUTPUT_BYTES_ENOUGH));
    let key = "k".repeat(KEY_BYTES_MAX);
    let value = "v".repeat(VALUE_BYTES_MAX);
    assert_eq!(
        stream.say(NOW, format!("set {key} 4294967295 0 {}\r\n{value}\r\n", value.len()).as_bytes()),
        b"STORED\r\n"
    );
    let gets = format!("gets {key} {key} nope {key}\r\nmg {key} v k c f h l s t Oopaque\r\nmn\r\n");
    let replies = String::from_utf8(stream.say(NOW, gets.as_bytes())).expect("text");
    assert_eq!(replies.matches(&value).count(), 4);
    assert!(replies.ends_with("\r\nMN\r\n"), "{}", &replies[replies.len() - 60..]);
    assert_eq!(stream.metrics.drops(DropReason::ReplyTooLarge), 0);
}

#[test]
fn a_value_larger_than_the_send_buffer_is_an_error_and_the_stream_goes_on() {
    let mut stream = Conversation::new(ModelTable::new(), &setup(OUTPUT_BYTES_MIN));
    stream.say(NOW, b"set small 0 0 1\r\nx\r\n");
    stream.say(
        NOW,
        format!("set big 0 60 {OUTPUT_BYTES_MIN}\r\n{}\r\n", "v".repeat(OUTPUT_BYTES_MIN)).as_bytes(),
    );
    let replies =
        stream.say(NOW, b"get small big small\r\nmg big v T0\r\nmg big s t\r\ngat 0 big\r\nmg big t\r\n");
    assert_eq!(
        String::from_utf8(replies).expect("text"),
        format!(
            "VALUE small 0 1\r\nx\r\nSERVER_ERROR reply too large\r\nSERVER_ERROR reply too large\r\n\
             HD s{OUTPUT_BYTES_MIN} t60\r\nSERVER_ERROR reply too large\r\nHD t60\r\n"
        )
    );
    assert_eq!(stream.metrics.drops(DropReason::ReplyTooLarge), 3);
}

#[test]
fn a_datagram_asks_for_so_many_keys_and_no_more() {
    let mut server = DatagramConversation::new(&roomy_setup());
    for name in ["get", "gets", "gat 0", "gats 0"] {
        let ask = |keys: usize| format!("{name}{}\r\n", " k".repeat(keys));
        let most = server.ask(NOW, 1, ask(MEMCACHED_DATAGRAM_KEYS_MAX).as_bytes()).expect("well-formed");
        assert_eq!(most, b"END\r\n", "{name}");
        let reads = server.metrics.misses.get();
        let more = server.ask(NOW, 1, ask(MEMCACHED_DATAGRAM_KEYS_MAX + 1).as_bytes()).expect("well-formed");
        assert_eq!(more, b"CLIENT_ERROR too many keys in a datagram\r\n", "{name}");
        assert_eq!(server.metrics.misses.get(), reads, "{name}: none was looked for");
    }
}

#[test]
fn every_kind_of_request_is_counted() {
    let mut server = DatagramConversation::new(&roomy_setup());
    for message in [
        "set a 0 0 1\r\n5\r\n",
        "ms b 1\r\n6\r\n",
        "get a b c\r\n",
        "mg a\r\n",
        "mg c q\r\n",
        "incr a 1\r\n",
        "ma b\r\n",
        "touch a 0\r\n",
        "delete a\r\n",
        "md b\r\n",
        "flush_all\r\n",
        "version\r\n",
        "mn\r\n",
        "me a\r\n",
        "stats\r\n",
        "bogus\r\n",
        "quit\r\n",
        "verbosity 1\r\n",
    ] {
        server.ask(NOW, 1, message.as_bytes()).expect("well-formed");
    }
    let counts = OpKind::ALL.iter().map(|&kind| server.metrics.requests(kind)).collect::<Vec<_>>();
    // Reads, stores, arithmetic, deletes, touches, flushes, others, invalid.
    assert_eq!(counts, [5, 2, 2, 2, 1, 1, 6, 1]);
    assert_eq!((server.metrics.hits.get(), server.metrics.misses.get()), (3, 2));
}

#[test]
fn a_stale_worker_is_told_of_in_the_words_of_the_protocol() {
    let server = DatagramConversation::new(&roomy_setup());
    let mut reply = [0; 64];
    let length = server.service.unavailable(&frame(0x1234, b"get a\r\n"), &mut reply);
    assert_eq!(&reply[..length], b"\x12\x34\0\0\0\x01\0\0SERVER_ERROR temporarily unavailable\r\n");
    for request in [&b""[..], b"\0\x01\0\0\0\x01\0", b"\0\x01\0\0\0\x02\0\0get a\r\n", &{ reply }[..length]] {
        assert_eq!(server.service.unavailable(request, &mut reply), 0, "{request:?}");
    }
    assert_eq!(server.service.unavailable(&frame(1, b"get a\r\n"), &mut [0; 20]), 0, "no room");
}

#[test]
fn a_listener_with_an_impossible_reply_limit_does_not_start() {
    use dataplane::protocol::memcached::Memcached;
    for limit in [0, 255, 1400 * 65535 + 1] {
        let error = Memcached::new(&setup(limit)).expect_err("refused");
        assert!(error.to_string().contains("reply_bytes_max"), "{error}");
    }
    assert!(Memcached::new(&setup(256)).is_ok());
}

#[test]
fn a_long_line_is_judged_alike_however_it_arrives() {
    let lines = [
        format!("get {}\r\n", "k ".repeat(1500)),
        format!("{}get a\r\n", " ".repeat(3000)),
        // The first bytes end within the name.
        format!("{}gets a\r\n", " ".repeat(2045)),
        format!("{}get a\r\n", " ".repeat(2045)),
        format!("mg a {}\r\n", " ".repeat(3000)),
    ];
    for line in &lines {
        let mut whole = Conversation::new(ModelTable::new(), &roomy_setup());
        let expected = whole.say(NOW, line.as_bytes());
        for piece in [1, 7, 2048] {
            let mut pieces = Conversation::new(ModelTable::new(), &roomy_setup());
            let replies: Vec<u8> =
                line.as_bytes().chunks(piece).flat_map(|bytes| pieces.say(NOW, bytes)).collect();
            assert_eq!(
                replies.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{piece}: {line:?}"
            );
            assert_eq!(pieces.closed, whole.closed, "{piece}: {line:?}");
        }
    }
}

#[test]
fn a_line_without_an_end_is_given_up() {
    let mut stream = Conversation::new(ModelTable::new(), &roomy_setup());
    assert_eq!(stream.say(NOW, &[b'x'; 2047]), b"");
    assert_eq!(stream.say(NOW, b"x"), b"CLIENT_ERROR line too long\r\n");
    assert!(stream.closed);
    let mut stream = Conversation::new(ModelTable::new(), &roomy_setup());
    let keys = vec!["k".repeat(250); 100].join(" ");
    assert_eq!(stream.say(NOW, format!("get {keys}\r\n").as_bytes()), b"END\r\n");
    assert_eq!(stream.say(NOW, b"GET / HTTP/1.1\r\nHost: x\r\n"), b"ERROR\r\n");
    assert!(stream.closed, "a browser gets one line");
}

#[test]
fn time_passes() {
    let mut server = DatagramConversation::new(&roomy_setup());
    let at = |seconds: u64| Now { unix_ms: NOW.unix_ms + seconds * 1000, ..NOW };
    let mut ask = |seconds, message: &str| {
        String::from_utf8(server.ask(at(seconds), 1, message.as_bytes()).expect("well-formed")).expect("text")
    };
    assert_eq!(ask(0, "set a 0 10 1\r\nx\r\n"), "STORED\r\n");
    assert_eq!(ask(4, "mg a t l h\r\n"), "HD t6 l4 h0\r\n");
    assert_eq!(ask(9, "mg a t l h u\r\n"), "HD t1 l5 h1\r\n");
    assert_eq!(ask(10, "mg a t\r\n"), "EN\r\n");
    assert_eq!(ask(10, &format!("set a 0 {} 1\r\nx\r\n", at(30).unix_s())), "STORED\r\n");
    assert_eq!(ask(10, "me a\r\n"), "ME a exp=20 la=0 cas=2 fetch=no cls=1 size=2\r\n");
    assert_eq!(ask(29, "gat 100 a\r\n"), "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(ask(31, "flush_all 5\r\n"), "OK\r\n");
    assert_eq!(ask(33, "set b 0 0 1\r\ny\r\n"), "STORED\r\n");
    assert_eq!(ask(35, "get a b\r\n"), "VALUE a 0 1\r\nx\r\nVALUE b 0 1\r\ny\r\nEND\r\n");
    assert_eq!(ask(36, "get a b\r\n"), "END\r\n");
    assert_eq!(ask(36, "set b 0 0 1\r\nz\r\n"), "STORED\r\n");
    assert_eq!(ask(99, "get b\r\n"), "VALUE b 0 1\r\nz\r\nEND\r\n");
}

/// Flags of protocol.txt that the memcached of the differential test is too old for.
#[test]
fn flags_of_newer_releases() {
    let mut stream = Conversation::new(ModelTable::new(), &roomy_setup());
    let mut say = |bytes: &str| String::from_utf8(stream.say(NOW, bytes.as_bytes())).expect("text");
    assert_eq!(say("ms a 3 E100 c s\r\nabc\r\n"), "HD c100 s3\r\n");
    assert_eq!(say("mg a v C100\r\n"), "HD\r\n");
    assert_eq!(say("mg a v C99\r\n"), "VA 3\r\nabc\r\n");
    assert_eq!(say("ms a 2 MA s\r\nde\r\n"), "HD s5\r\n");
    assert_eq!(say("ms new 2 MP N60 T5 s F3\r\nde\r\n"), "HD s2\r\n");
    assert_eq!(say("mg new t f v\r\n"), "VA 2 t60 f3\r\nde\r\n");
    assert_eq!(say("mg made N30 E7 c v\r\n"), "VA 0 c7 W\r\n\r\n");
    assert_eq!(say("ma made2 N30 J5 E8 c v\r\n"), "VA 1 c8\r\n5\r\n");
    assert_eq!(say("ma made2 E9 c v\r\n"), "VA 1 c9\r\n6\r\n");
    assert_eq!(say("md a I E200\r\n"), "HD\r\n");
    assert_eq!(say("mg a c v\r\n"), "VA 5 c200 X W\r\nabcde\r\n");
    assert_eq!(say("md new x\r\n"), "HD\r\n");
    assert_eq!(say("mg new v f t\r\n"), "VA 0 f0 t60\r\n\r\n");
    assert_eq!(say("md new x I T9 q\r\n"), "");
    assert_eq!(say("mg new v t\r\n"), "VA 0 t9 X W\r\n\r\n");
}
