//! What holds of RESP's commands whatever the bytes, the pieces and the room, and what no Redis can be asked.

mod differential_support;
mod resp_support;

use dataplane::memory::Placement;
use dataplane::metrics::{DropReason, OpKind, WorkerMetrics};
use dataplane::port::sim::Random;
use dataplane::protocol::resp::catalogue::COMMANDS;
use dataplane::protocol::resp::connection::{OUTPUT_BYTES_ENOUGH, OUTPUT_BYTES_MIN};
use dataplane::protocol::resp::conversation::{Conversation, SendBuffer, roomy_setup};
use dataplane::protocol::resp::{Resp, factory};
use dataplane::request::{Get, Op, Reply, Request, Store};
use dataplane::service::{Context, Next, ServiceFactory, ServiceSetup, StreamService};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::model::ModelTable;
use dataplane::table::{Submission, Table};
use dataplane::time::{Expiry, Now};
use proptest::prelude::*;
use resp_support::generate::command;
use resp_support::request;

const NOW: Now = Now { monotonic_ns: 5_000_000_000, unix_ms: 1_700_000_000_000 };

fn talk() -> Conversation<ModelTable> {
    Conversation::new(ModelTable::new(), &roomy_setup())
}

fn say<T: Table>(conversation: &mut Conversation<T>, line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    String::from_utf8_lossy(&conversation.say(NOW, &request(&words))).into_owned()
}

fn put(table: &mut dyn Table, key: &str, value: &[u8], flags: u32, expiry: Expiry) {
    let store = Store { flags, expiry, ..Store::set(value) };
    let submission = table.submit(NOW, &Request::new(key.as_bytes(), Op::Store(store)));
    assert!(matches!(submission, Submission::Done(Reply::Stored { .. })));
}

fn flags_of(table: &mut dyn Table, key: &str) -> Option<u32> {
    match table.submit(NOW, &Request::new(key.as_bytes(), Op::Get(Get::default()))) {
        Submission::Done(Reply::Value(item)) => Some(item.flags),
        _ => None,
    }
}

/// Commands, pipelined.
fn pipeline(seed: u64, count: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    // The numbers of random keys are the session's.
    (0..count).map(|_| command(&mut random)).flat_map(|words| request(&words)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn neither_pieces_nor_room_change_a_reply(
        seed: u64,
        pieces in prop::collection::vec(1usize..4000, 1..8),
        sends in prop::collection::vec(0usize..3000, 1..8),
        capacity in OUTPUT_BYTES_MIN..40_000,
    ) {
        let bytes = pipeline(seed, 60);
        let mut whole = Conversation::with_capacity(ModelTable::new(), &roomy_setup(), capacity);
        let expected = whole.say(NOW, &bytes);
        let mut other = Conversation::with_capacity(ModelTable::new(), &roomy_setup(), capacity);
        let (mut pieces, mut sends) = (pieces.iter().cycle(), sends.iter().cycle());
        let (mut start, mut replies) = (0, Vec::new());
        while start < bytes.len() {
            let end = bytes.len().min(start + pieces.next().expect("it cycles"));
            other.take(NOW, &bytes[start..end]);
            start = end;
            replies.extend(other.send(*sends.next().expect("it cycles")));
        }
        replies.extend(other.say(NOW, &[]));
        prop_assert_eq!(replies.escape_ascii().to_string(), expected.escape_ascii().to_string());
        prop_assert_eq!(other.closed, whole.closed);
        prop_assert_eq!(other.unread_bytes(), 0);
        for kind in OpKind::ALL {
            prop_assert_eq!(other.metrics.requests(*kind), whole.metrics.requests(*kind), "{:?}", kind);
        }
    }

    #[test]
    fn any_bytes_are_answered_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), piece in 1usize..50) {
        let mut conversation = Conversation::with_capacity(ModelTable::new(), &roomy_setup(), OUTPUT_BYTES_MIN);
        for piece in bytes.chunks(piece) {
            conversation.say(NOW, piece);
        }
    }
}

#[test]
fn a_reply_of_many_values_goes_out_in_pieces() {
    let keys: Vec<String> = (0..3000).map(|index| format!("key-{index}")).collect();
    let mut words = vec!["MGET"];
    words.extend(keys.iter().map(String::as_str));
    let mut expected = format!("*{}\r\n", keys.len()).into_bytes();
    let mut conversation = Conversation::with_capacity(ModelTable::new(), &roomy_setup(), 8192);
    for (index, key) in keys.iter().enumerate().filter(|(index, _)| index % 3 > 0) {
        put(&mut conversation.table, key, &vec![b'v'; index % 1500], 0, Expiry::NEVER);
    }
    for index in 0..keys.len() {
        if index % 3 > 0 {
            expected.extend(format!("${}\r\n{}\r\n", index % 1500, "v".repeat(index % 1500)).bytes());
        } else {
            expected.extend(b"$-1\r\n");
        }
    }
    expected.extend(b"+PONG\r\n");
    let bytes = [request(&words), request(&["PING"])].concat();
    let replies = conversation.say(NOW, &bytes);
    assert!(replies == expected, "{} bytes instead of {}", replies.len(), expected.len());
    assert_eq!(conversation.metrics.hits.get(), 2000);
    assert_eq!(conversation.metrics.misses.get(), 1000);
    assert_eq!(conversation.metrics.requests(OpKind::Get), 3000);
}

#[test]
fn a_value_that_never_fits_is_an_error_in_its_place() {
    let mut conversation = Conversation::with_capacity(ModelTable::new(), &roomy_setup(), 8192);
    put(&mut conversation.table, "big", &[b'x'; 9000], 0, Expiry::NEVER);
    let error = "-ERR reply is larger than this connection's buffer\r\n";
    assert_eq!(say(&mut conversation, "MGET a big a"), format!("*3\r\n$-1\r\n{error}$-1\r\n"));
    for refused in
        ["GET big", "GETSET big x", "SET big x GET", "GETDEL big", "GETRANGE big 0 -1", "GETEX big EX 1"]
    {
        assert_eq!(say(&mut conversation, refused), error, "{refused}");
    }
    assert_eq!(say(&mut conversation, "STRLEN big"), ":9000\r\n", "it is all there");
    assert_eq!(say(&mut conversation, "TTL big"), ":-1\r\n");
    assert_eq!(say(&mut conversation, "GETRANGE big 8990 -1"), "$10\r\nxxxxxxxxxx\r\n");
    assert_eq!(conversation.metrics.drops(DropReason::ReplyTooLarge), 7);
    // Of a line the words are kept nowhere: it is answered in one piece or not at all.
    put(&mut conversation.table, "half", &[b'x'; 5000], 0, Expiry::NEVER);
    assert_eq!(conversation.say(NOW, b"MGET half half\r\n"), error.as_bytes());
    assert_eq!(conversation.say(NOW, &request(&["MGET", "half", "half"])).len(), 4 + 2 * 5009);
    assert_eq!(conversation.say(NOW, b"MGET half a\r\n").len(), 4 + 5009 + 5);
}

#[test]
fn what_waits_for_room_has_not_happened_yet() {
    let capacity = 8192;
    let mut conversation = Conversation::with_capacity(ModelTable::new(), &roomy_setup(), capacity);
    for key in ["a", "b"] {
        put(&mut conversation.table, key, &[b'x'; 5000], 0, Expiry::NEVER);
    }
    conversation
        .take(NOW, &[request(&["GET", "a"]), request(&["GETDEL", "b"]), request(&["DEL", "a"])].concat());
    assert!(matches!(conversation.next, Next::Room { bytes } if bytes > capacity - 5000 && bytes < 5100));
    assert!(
        flags_of(&mut conversation.table, "a").is_some() && flags_of(&mut conversation.table, "b").is_some()
    );
    // Less than it waits for changes nothing.
    assert_eq!(conversation.send(1000).len(), 1000);
    conversation.take(NOW, &[]);
    assert!(flags_of(&mut conversation.table, "b").is_some());
    conversation.send(usize::MAX);
    conversation.take(NOW, &[]);
    assert_eq!(flags_of(&mut conversation.table, "b"), None);
    assert_eq!(flags_of(&mut conversation.table, "a"), None);
    assert!(conversation.send(usize::MAX).ends_with(b"x\r\n:1\r\n"));
}

#[test]
fn many_values_that_will_fit_are_of_one_moment() {
    let mut conversation = Conversation::with_capacity(ModelTable::new(), &roomy_setup(), 8192);
    for key in ["a", "b", "c"] {
        put(&mut conversation.table, key, &[b'1'; 2000], 0, Expiry::NEVER);
    }
    conversation.take(NOW, &[request(&["GET", "a"]), request(&["MGET", "a", "b", "c"])].concat());
    assert!(matches!(conversation.next, Next::Room { bytes } if bytes > 6000));
    assert_eq!(conversation.send(usize::MAX).len(), 2009, "the first reply alone");
    for key in ["a", "c"] {
        put(&mut conversation.table, key, &[b'2'; 2000], 0, Expiry::NEVER);
    }
    let reply = conversation.say(NOW, &[]);
    assert_eq!(
        reply.iter().filter(|&&byte| byte == b'2').count(),
        4000 + 3,
        "with the digits of the lengths"
    );
}

#[test]
fn a_hundred_thousand_keys_are_one_command() {
    let keys: Vec<String> = (0..100_000).map(|index| format!("k{index}")).collect();
    let mut conversation = talk();
    let pairs: Vec<&str> =
        std::iter::once("MSET").chain(keys.iter().flat_map(|key| [key.as_str(), "v"])).collect();
    // In pieces, as it comes from a wire.
    let bytes = request(&pairs);
    let mut replies = Vec::new();
    for piece in bytes.chunks(1460) {
        replies.extend(conversation.say(NOW, piece));
    }
    assert_eq!(replies, b"+OK\r\n");
    assert_eq!(say(&mut conversation, "DBSIZE"), ":100000\r\n");
    let words: Vec<&str> = std::iter::once("DEL").chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(conversation.say(NOW, &request(&words)), b":100000\r\n");
}

#[test]
fn a_scan_tells_each_key_once_however_little_room_there_is() {
    let config = MemoryTableConfig {
        capacity_bytes: 16 << 20,
        item_bytes_max: 1 << 16,
        expected_item_bytes: 100,
        placement: Placement::default(),
    };
    let table = MemoryTable::new(config).expect("a table");
    let mut conversation = Conversation::with_capacity(table, &roomy_setup(), OUTPUT_BYTES_MIN);
    let keys: Vec<String> = (0..5000).map(|index| format!("{index:0>40}")).collect();
    for key in &keys {
        put(&mut conversation.table, key, b"v", 0, Expiry::NEVER);
    }
    for count in ["1", "10", "777", "1000000000"] {
        let (mut cursor, mut found) = ("0".to_string(), Vec::new());
        loop {
            let reply = say(&mut conversation, &format!("SCAN {cursor} COUNT {count}"));
            let mut lines =
                reply.split("\r\n").filter(|line| !line.starts_with(['*', '$']) && !line.is_empty());
            cursor = lines.next().expect("a cursor").to_string();
            found.extend(lines.map(String::from));
            if cursor == "0" {
                break;
            }
        }
        found.sort_unstable();
        assert_eq!(found, keys, "COUNT {count}");
    }
    assert_eq!(say(&mut conversation, "KEYS *"), "-ERR too many keys for one reply: use SCAN\r\n");
    assert_eq!(say(&mut conversation, &format!("KEYS *{}", "1".repeat(3))).matches("$40").count(), 5);
    let pattern = "*a".repeat(600);
    let refusal = "-ERR pattern is longer than this server matches: 1024 bytes\r\n";
    for line in ["KEYS P", "SCAN 0 MATCH P", "CONFIG GET P"] {
        assert_eq!(say(&mut conversation, &line.replace('P', &pattern)), refusal, "{line}");
    }
}

#[test]
fn an_item_keeps_what_memcached_put_on_it_as_long_as_it_is_the_same() {
    let mut conversation = talk();
    let expiry = Expiry::at_unix_ms(NOW.unix_ms + 100_000);
    let mut check = |line: &str, key: &str, flags: Option<u32>, ttl: &str| {
        put(&mut conversation.table, "a", b"7", 42, expiry);
        say(&mut conversation, line);
        assert_eq!(flags_of(&mut conversation.table, key), flags, "{line}");
        assert_eq!(say(&mut conversation, &format!("TTL {key}")), ttl, "{line}");
    };
    check("APPEND a 1", "a", Some(42), ":100\r\n");
    check("SETRANGE a 3 x", "a", Some(42), ":100\r\n");
    check("INCR a", "a", Some(42), ":100\r\n");
    check("INCRBYFLOAT a 0.5", "a", Some(42), ":100\r\n");
    check("RENAME a b", "b", Some(42), ":100\r\n");
    check("EXPIRE a 50", "a", Some(42), ":50\r\n");
    check("SET a 1", "a", Some(0), ":-1\r\n");
    check("SET a 1 KEEPTTL", "a", Some(0), ":100\r\n");
    check("GETSET a 1", "a", Some(0), ":-1\r\n");
}

#[test]
fn a_table_of_small_items_says_so_before_it_stores_any() {
    let config = MemoryTableConfig {
        capacity_bytes: 4 << 20,
        item_bytes_max: 1000,
        expected_item_bytes: 100,
        placement: Placement::default(),
    };
    let setup = ServiceSetup { item_bytes_max: 1000, ..roomy_setup() };
    let mut conversation = Conversation::new(MemoryTable::new(config).expect("a table"), &setup);
    let (value, refusal) =
        ("x".repeat(1000), "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n");
    let lines = [
        "SET a V",
        "SETEX a 100 V",
        "MSET b 1 a V",
        "MSETNX b 1 a V",
        "SETRANGE a 990 12345678901",
        "APPEND a V",
        "GETSET a V",
    ];
    for line in lines {
        assert_eq!(say(&mut conversation, &line.replace('V', &value)), refusal, "{line}");
    }
    assert_eq!(say(&mut conversation, "DBSIZE"), ":0\r\n", "nothing was stored");
    // What was there before stays, unlike with memcached.
    assert_eq!(say(&mut conversation, "SET a before"), "+OK\r\n");
    for line in lines.into_iter().filter(|line| !line.starts_with("MSETNX")) {
        assert_eq!(say(&mut conversation, &line.replace('V', &value)), refusal, "{line}");
        assert_eq!(say(&mut conversation, "GET a"), "$6\r\nbefore\r\n", "{line}");
    }
    // The same under a longer name.
    let long = "k".repeat(250);
    assert_eq!(say(&mut conversation, &format!("SET b {}", "x".repeat(900))), "+OK\r\n");
    assert_eq!(say(&mut conversation, &format!("SET {long} before")), "+OK\r\n");
    assert_eq!(say(&mut conversation, &format!("RENAME b {long}")), refusal);
    assert_eq!(say(&mut conversation, &format!("GET {long}")), "$6\r\nbefore\r\n");
    assert_eq!(say(&mut conversation, "STRLEN b"), ":900\r\n");
}

#[test]
fn the_longest_value_goes_in_and_out() {
    let value = vec![b'v'; 1 << 20];
    let mut conversation =
        Conversation::with_capacity(ModelTable::new(), &roomy_setup(), OUTPUT_BYTES_ENOUGH);
    assert_eq!(conversation.say(NOW, &request(&[b"SET".as_slice(), b"k", &value])), b"+OK\r\n");
    let reply = conversation.say(NOW, &request(&["GET", "k"]));
    assert!(reply.starts_with(b"$1048576\r\nv") && reply.len() == value.len() + 12);
    let reply = conversation.say(NOW, &request(&["MGET", "k", "k"]));
    assert_eq!(reply.len(), 4 + 2 * (value.len() + 12));
    assert_eq!(say(&mut conversation, "RENAME k l"), "+OK\r\n");
    assert_eq!(say(&mut conversation, "STRLEN l"), ":1048576\r\n");
    assert_eq!(conversation.say(NOW, &request(&[b"ECHO".as_slice(), &value])).len(), value.len() + 12);
}

#[test]
fn the_server_tells_of_itself() {
    let mut conversation = talk();
    say(&mut conversation, "SET a 1");
    say(&mut conversation, "GET a");
    say(&mut conversation, "GET b");
    say(&mut conversation, "nonsense");
    let info = say(&mut conversation, "INFO");
    for line in [
        "# Server\r\nredis_version:7.0.15\r\n",
        "uptime_in_seconds:5\r\n",
        "\r\n\r\n# Clients\r\nconnected_clients:1\r\n",
        "keyspace_hits:1\r\nkeyspace_misses:1\r\ntotal_error_replies:1\r\n",
        "total_commands_processed:3\r\n",
        "role:master\r\n",
        "# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n",
    ] {
        assert!(info.contains(line), "{line:?} in {info}");
    }
    let keyspace = say(&mut conversation, "INFO keyspace");
    assert_eq!(keyspace, "$44\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\r\n");
    say(&mut conversation, "CLIENT SETNAME me");
    say(&mut conversation, "CLIENT SETINFO LIB-NAME redis-py");
    say(&mut conversation, "CLIENT SETINFO lib-ver 5.0");
    assert_eq!(
        say(&mut conversation, "CLIENT SETINFO lib-color red"),
        "-ERR Unrecognized option 'lib-color'\r\n"
    );
    say(&mut conversation, "HELLO 3");
    let line = say(&mut conversation, "CLIENT INFO");
    assert!(line.starts_with('=') && line.contains("\r\ntxt:id=1 addr=127.0.0.1:7 "), "{line}");
    assert!(
        line.ends_with("cmd=client|info user=default redir=-1 resp=3 lib-name=redis-py lib-ver=5.0\n\r\n"),
        "{line}"
    );
    assert!(say(&mut conversation, "CLIENT LIST ID 7 1").contains("name=me age=0 "));
    assert_eq!(say(&mut conversation, "CLIENT LIST ID 7"), "=4\r\ntxt:\r\n");
    assert_eq!(say(&mut conversation, "COMMAND COUNT"), format!(":{}\r\n", COMMANDS.len()));
    let all = say(&mut conversation, "COMMAND");
    assert!(all.starts_with(&format!("*{}\r\n*10\r\n$6\r\nappend\r\n", COMMANDS.len())));
    assert_eq!(say(&mut conversation, "COMMAND INFO"), all);
    let docs = say(&mut conversation, "COMMAND DOCS get nonsense client|id");
    assert!(
        docs.starts_with("%2\r\n$3\r\nget\r\n%3\r\n$7\r\nsummary\r\n$22\r\nGet the value of a key\r\n"),
        "{docs}"
    );
    assert!(say(&mut conversation, "CLIENT HELP").contains("+SETNAME <name>\r\n"));
    assert!(say(&mut conversation, "CONFIG GET *").starts_with("%9\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"));
}

#[test]
fn the_service_keeps_its_connections_apart() {
    let setup = ServiceSetup { worker: 1, workers: 3, connections_max: 2, ..roomy_setup() };
    assert!(factory().create(&setup).expect("no error").is_none(), "there are no datagrams");
    let mut service = Resp::new(&setup);
    let (mut table, metrics) = (ModelTable::new(), WorkerMetrics::default());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 6379));
    let mut ask = |service: &mut Resp, connection: usize, line: &[u8]| {
        let mut output = SendBuffer { bytes: Vec::new(), capacity: OUTPUT_BYTES_MIN };
        let mut context = Context { now: NOW, table: &mut table, metrics: &metrics };
        let progress = service.advance(&mut context, connection, line, &mut output);
        assert_eq!(progress.consumed, line.len());
        (String::from_utf8(output.bytes).expect("text"), progress.next)
    };
    service.opened(0, address, address);
    service.opened(1, address, address);
    assert_eq!(ask(&mut service, 0, b"CLIENT ID\r\n").0, ":2\r\n");
    assert_eq!(ask(&mut service, 1, b"CLIENT ID\r\n").0, ":5\r\n");
    ask(&mut service, 0, b"HELLO 3\r\n");
    assert_eq!(ask(&mut service, 0, b"GET a\r\n").0, "_\r\n");
    assert_eq!(ask(&mut service, 1, b"GET a\r\n").0, "$-1\r\n");
    assert!(ask(&mut service, 0, b"INFO clients\r\n").0.contains("connected_clients:2\r\n"));
    assert_eq!(ask(&mut service, 0, b"QUIT\r\n"), ("+OK\r\n".to_string(), Next::Close));
    assert_eq!(ask(&mut service, 0, b"PING\r\n"), (String::new(), Next::Close));
    service.closed(0);
    assert!(ask(&mut service, 1, b"INFO clients\r\n").0.contains("connected_clients:1\r\n"));
    service.opened(0, address, address);
    assert_eq!(ask(&mut service, 0, b"CLIENT ID\r\n").0, ":8\r\n");
    assert_eq!(ask(&mut service, 0, b"GET a\r\n").0, "$-1\r\n");
}
