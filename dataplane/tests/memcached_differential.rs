//! The protocol against a real memcached: the same commands to both, the same replies from both, but for what
//! `docs/memcached.md` lists, and that is asked of both too.

mod memcached_support;

use dataplane::protocol::memcached::conversation::{Conversation, DatagramConversation, roomy_setup};
use dataplane::table::model::ModelTable;
use dataplane::time::Now;
use memcached_support::compare::normalised;
use memcached_support::generate::{Random, Step, step};
use memcached_support::server::{DatagramClient, MARK, RealMemcached, Release, StreamClient, before_mark};

/// An item's CAS out of what `me` says of it, which leaves the item as it is.
fn cas_of(debug: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(debug);
    let cas = text.split(' ').find_map(|word| word.strip_prefix("cas="));
    cas.map_or(0, |cas| cas.parse().expect("a CAS is a number"))
}

struct Ours(Conversation<ModelTable>);

impl Ours {
    fn new() -> Self {
        Self(Conversation::new(ModelTable::new(), roomy_setup()))
    }

    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        before_mark(self.0.say(Now::read(), &[bytes, MARK].concat()))
    }
}

fn describe(history: &[Vec<u8>]) -> String {
    history.iter().map(|bytes| format!("{}\n", bytes.escape_ascii())).collect()
}

/// Runs sequences of commands at two servers and compares every reply.
fn compare(
    seeds: std::ops::Range<u64>,
    theirs: &mut dyn FnMut(&[u8]) -> Vec<u8>,
    ours: &mut dyn FnMut(&[u8]) -> Vec<u8>,
    fits: impl Fn(&Step) -> bool,
) {
    for seed in seeds {
        let mut random = Random(seed);
        let mut history = Vec::new();
        assert_eq!(theirs(b"flush_all\r\n"), ours(b"flush_all\r\n"));
        for _ in 0..120 {
            let step = step(&mut random);
            if !fits(&step) {
                continue;
            }
            let debug = |key: &str| format!("me {key}\r\n");
            let theirs_bytes = step.bytes(|key| cas_of(&theirs(debug(key).as_bytes())));
            let ours_bytes = step.bytes(|key| cas_of(&ours(debug(key).as_bytes())));
            history.push(ours_bytes.clone());
            let expected = normalised(&theirs(&theirs_bytes));
            let actual = normalised(&ours(&ours_bytes));
            assert_eq!(actual, expected, "ours, theirs; seed {seed} after\n{}", describe(&history));
        }
    }
}

#[test]
fn a_stream_of_generated_commands_gets_the_replies_of_memcached() {
    let server = RealMemcached::start();
    let mut client = StreamClient::connect(&server);
    let mut ours = Ours::new();
    compare(0..200, &mut |bytes| client.ask(bytes), &mut |bytes| ours.ask(bytes), |_| true);
}

#[test]
fn generated_datagrams_get_the_replies_of_memcached() {
    let server = RealMemcached::start();
    let mut client = DatagramClient::connect(&server);
    let mut ours = DatagramConversation::new(&roomy_setup());
    let mut theirs = |bytes: &[u8]| -> Vec<u8> {
        client.ask(bytes).iter().flat_map(|datagram| datagram[8..].to_vec()).collect()
    };
    let mut ours = |bytes: &[u8]| ours.ask(Now::read(), 7, bytes).expect("a well-formed reply");
    // memcached reads 1400 bytes of a datagram.
    let fits = |step: &Step| step.before.len() + step.after.len() < 1300;
    compare(1000..1040, &mut theirs, &mut ours, fits);
}

/// Replies to fixed commands, the same from both.
#[test]
fn known_commands_get_the_known_replies_from_both() {
    let long_key = "k".repeat(250);
    let too_long_key = "k".repeat(251);
    let scripts: &[(&str, &str)] = &[
        ("set a 5 0 3\r\nabc\r\n", "STORED\r\n"),
        ("get a\r\n", "VALUE a 5 3\r\nabc\r\nEND\r\n"),
        ("get a nope a\r\n", "VALUE a 5 3\r\nabc\r\nVALUE a 5 3\r\nabc\r\nEND\r\n"),
        ("get\r\n", "ERROR\r\n"),
        ("gat\r\n", "ERROR\r\n"),
        ("gat x a\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("gat 0\r\n", "END\r\n"),
        ("set a 0 0 3\r\nabcd\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
        ("get a\r\n", "VALUE a 5 3\r\nabc\r\nEND\r\n"),
        ("set a 0 0 -1\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("set a 0 0 2147483646\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("set a 0 0 x noreply\r\n", ""),
        ("set a 0 0\r\n", "ERROR\r\n"),
        ("set a 0 0 1 noreply extra\r\n", "ERROR\r\n"),
        ("set a 0 0 1 unknown\r\nx\r\n", "STORED\r\n"),
        ("set a 0 -1 1\r\nx\r\n", "STORED\r\n"),
        ("get a\r\n", "END\r\n"),
        ("set a 4294967295 0 0\r\n\r\n", "STORED\r\n"),
        ("mg a f v s t\r\n", "VA 0 f4294967295 s0 t-1\r\n\r\n"),
        ("incr a 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        ("incr a -1\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        ("incr a 99999999999999999999\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        ("set n 0 0 20\r\n18446744073709551615\r\n", "STORED\r\n"),
        ("incr n 2\r\n", "1\r\n"),
        ("decr n 5\r\n", "0\r\n"),
        ("set n 0 0 2\r\n99\r\n", "STORED\r\n"),
        ("incr n 1\r\n", "100\r\n"),
        ("get n\r\n", "VALUE n 0 3\r\n100\r\nEND\r\n"),
        ("incr nope 1\r\n", "NOT_FOUND\r\n"),
        ("cas nope 0 0 1 5\r\nx\r\n", "NOT_FOUND\r\n"),
        ("cas a 0 0 1 0\r\nx\r\n", "EXISTS\r\n"),
        ("delete a 5\r\n", "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"),
        ("delete a 0\r\n", "DELETED\r\n"),
        ("delete a\r\n", "NOT_FOUND\r\n"),
        ("touch a 5\r\n", "NOT_FOUND\r\n"),
        ("touch a x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("verbosity 0\r\n", "OK\r\n"),
        ("verbosity\r\n", "ERROR\r\n"),
        ("verbosity x\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("flush_all x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("flush_all noreply\r\n", ""),
        ("flush_all 0 noreply\r\n", ""),
        ("flush_all -5\r\n", "OK\r\n"),
        ("shutdown\r\n", "ERROR: shutdown not enabled\r\n"),
        ("stats reset\r\n", "RESET\r\n"),
        ("stats nonsense\r\n", "ERROR\r\n"),
        ("stats detail\r\n", "CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
        ("\r\n", "ERROR\r\n"),
        ("\n", "ERROR\r\n"),
        ("mx\r\n", "ERROR\r\n"),
        ("mg\r\n", "ERROR\r\n"),
        ("ms\r\n", "ERROR\r\n"),
        ("ms a\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("ms a x\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("ms a S1\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("me\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("me nope\r\n", "EN\r\n"),
        ("mg nope v\r\n", "EN\r\n"),
        ("mg nope v q\r\n", ""),
        ("mg nope k Oxy v\r\n", "EN knope Oxy\r\n"),
        ("mg Zm9v b k\r\n", "EN kZm9v b\r\n"),
        ("mg a! b\r\n", "CLIENT_ERROR error decoding key\r\n"),
        ("mg a v v\r\n", "CLIENT_ERROR duplicate flag\r\n"),
        ("mg a !\r\n", "CLIENT_ERROR invalid flag\r\n"),
        ("mg a Tx\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
        ("mg a Oaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", "CLIENT_ERROR opaque token too long\r\n"),
        ("ms a 2 Oaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nhi\r\n", "CLIENT_ERROR opaque token too long\r\n"),
        ("ms a 2 MX\r\nhi\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n"),
        ("ms a 2 MXX\r\nhi\r\n", "CLIENT_ERROR incorrect length for M token\r\n"),
        ("ms a 2 Fx\r\nhi\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("ms a 2 q\r\nhi!\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
        ("ma a !\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
        ("md a !\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
        ("ma a MX\r\n", "CLIENT_ERROR invalid mode for ma M token\r\n"),
        ("ma a Dx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
        ("ma a N0 J13 v\r\n", "VA 2\r\n13\r\n"),
        ("ma a D30 v\r\n", "VA 2\r\n43\r\n"),
        ("ma a MD D13 v q\r\n", ""),
        ("ma a\r\n", "HD\r\n"),
        ("mg a v\r\n", "VA 2\r\n31\r\n"),
        ("mg v N30 t v\r\n", "VA 0 t30 W\r\n\r\n"),
        ("mg v v\r\n", "VA 0 Z\r\n\r\n"),
        ("get v\r\n", "VALUE v 0 0\r\n\r\nEND\r\n"),
        ("ms s 3 T90\r\nabc\r\n", "HD\r\n"),
        ("mg s v R30\r\n", "VA 3\r\nabc\r\n"),
        ("mg s v R100\r\n", "VA 3 W\r\nabc\r\n"),
        ("mg s v R100\r\n", "VA 3 Z\r\nabc\r\n"),
        ("md s I T60\r\n", "HD\r\n"),
        ("get s\r\n", "VALUE s 0 3\r\nabc\r\nEND\r\n"),
        ("mg s v\r\n", "VA 3 X W\r\nabc\r\n"),
        ("mg s v\r\n", "VA 3 Z X\r\nabc\r\n"),
        ("ms s 3 I C1\r\nold\r\n", "HD\r\n"),
        ("mg s v\r\n", "VA 3 Z X\r\nold\r\n"),
        ("ms s 3\r\nnew\r\n", "HD\r\n"),
        ("mg s v\r\n", "VA 3\r\nnew\r\n"),
        ("ms s 3 C1\r\nbad\r\n", "EX\r\n"),
        ("ms nope 3 C1 c k\r\nbad\r\n", "NF c0 knope\r\n"),
        ("ms s 2 ME q\r\nno\r\n", "NS\r\n"),
        ("ms s 2 MA q\r\n+1\r\n", ""),
        ("ms s 2 MP C0\r\n0+\r\n", "HD\r\n"),
        ("get s\r\n", "VALUE s 0 7\r\n0+new+1\r\nEND\r\n"),
        ("ms nope 2 MA\r\nxx\r\n", "NS\r\n"),
        ("ms nope 2 MR\r\nxx\r\n", "NS\r\n"),
        ("md s q C1\r\n", "EX\r\n"),
        ("md s q\r\n", ""),
        ("md s q Ox k\r\n", "NF Ox ks\r\n"),
        ("mn with words\r\n", "MN\r\n"),
        ("noreply\r\n", "ERROR\r\n"),
    ];
    let server = RealMemcached::start();
    let mut client = StreamClient::connect(&server);
    let mut ours = Ours::new();
    for &(bytes, expected) in scripts {
        let theirs = client.ask(bytes.as_bytes());
        assert_eq!(String::from_utf8_lossy(&theirs), expected, "memcached, asked {bytes:?}");
        let ours = ours.ask(bytes.as_bytes());
        assert_eq!(String::from_utf8_lossy(&ours), expected, "ours, asked {bytes:?}");
    }
    for bytes in [
        format!("set {long_key} 0 0 1\r\nx\r\n"),
        format!("get {long_key}\r\n"),
        format!("get a {too_long_key}\r\n"),
        format!("mg {too_long_key} v\r\n"),
        format!("delete {too_long_key}\r\n"),
        format!("set big 0 0 {}\r\n{}\r\n", 2 << 20, "x".repeat(2 << 20)),
        format!("ms big {}\r\n{}\r\n", 2 << 20, "x".repeat(2 << 20)),
        format!("set big 0 0 500000\r\n{}\r\n", "x".repeat(500_000)),
        "get big\r\n".to_string(),
        format!("set big 0 0 {} noreply\r\n{}\r\n", 2 << 20, "x".repeat(2 << 20)),
        "get big\r\n".to_string(),
        format!("get {}\r\n", vec![&long_key[..]; 60].join(" ")),
    ] {
        let (theirs, ours) = (client.ask(bytes.as_bytes()), ours.ask(bytes.as_bytes()));
        assert!(
            theirs == ours,
            "{} ... gets {} ...",
            &bytes[..40.min(bytes.len())],
            ours[..60.min(ours.len())].escape_ascii()
        );
    }
}

/// `get a <251 bytes>`
const TOO_LONG_KEY_SECOND: &str = concat!(
    "get a ",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "\r\n"
);

/// A release that no memcached has yet: the difference is in every one looked at.
const NONE_YET: Release = Release([u32::MAX; 3]);

/// Where we differ, on purpose: what it is, the commands, their last reply, ours, and the release from which on
/// memcached answers as we do.
const DEVIATIONS: &[(&str, &[&str], &str, &str, Release)] = &[
    (
        "a refused store's value is swallowed, not taken for commands",
        &["set a x 0 5\r\nhello\r\n"],
        "CLIENT_ERROR bad command line format\r\nERROR\r\n",
        "CLIENT_ERROR bad command line format\r\n",
        Release([1, 6, 40]),
    ),
    (
        "a read with a bad key reads nothing",
        &["set a 0 0 1\r\nx\r\n", TOO_LONG_KEY_SECOND, "mg a h\r\n"],
        "HD h1\r\n",
        "HD h0\r\n",
        NONE_YET,
    ),
    (
        "numbers that do not fit are refused, not cut to 32 bits",
        &["set a 4294967297 0 1\r\nx\r\n", "get a\r\n"],
        "VALUE a 1 1\r\nx\r\nEND\r\n",
        "END\r\n",
        NONE_YET,
    ),
    (
        "an expiry beyond 2038 is one, and does not wrap around",
        &["set a 0 4294967295 1\r\nx\r\n", "get a\r\n"],
        "END\r\n",
        "VALUE a 0 1\r\nx\r\nEND\r\n",
        NONE_YET,
    ),
    (
        "a shrinking number is not padded with spaces",
        &["set n 0 0 2\r\n10\r\n", "decr n 1\r\n", "get n\r\n"],
        "VALUE n 0 2\r\n9 \r\nEND\r\n",
        "VALUE n 0 1\r\n9\r\nEND\r\n",
        NONE_YET,
    ),
    (
        "a number is digits and nothing else",
        &["set n 0 0 3\r\n+1 \r\n", "incr n 1\r\n"],
        "2\r\n",
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        NONE_YET,
    ),
    (
        "a flush to come does not bring back what an earlier flush took",
        &["set a 0 0 1\r\nx\r\n", "flush_all\r\n", "flush_all 100\r\n", "get a\r\n"],
        "VALUE a 0 1\r\nx\r\nEND\r\n",
        "END\r\n",
        NONE_YET,
    ),
    (
        "a number that grows keeps its marks",
        &["set n 0 0 1\r\n9\r\n", "get n\r\n", "incr n 1\r\n", "mg n h\r\n"],
        "HD h0\r\n",
        "HD h1\r\n",
        NONE_YET,
    ),
    (
        "control characters are no part of a key",
        &["set a\tb 0 0 1\r\nx\r\n", "get a\tb\r\n"],
        "VALUE a\tb 0 1\r\nx\r\nEND\r\n",
        "CLIENT_ERROR bad command line format\r\n",
        NONE_YET,
    ),
    (
        "t tells the expiry after T, wherever T stands",
        &["set a 0 100 1\r\nx\r\n", "mg a t T0\r\n"],
        "HD t100\r\n",
        "HD t-1\r\n",
        NONE_YET,
    ),
    (
        "only canonical base64 is a key",
        &["mg Zh== b k\r\n"],
        "EN kZg== b\r\n",
        "CLIENT_ERROR error decoding key\r\n",
        NONE_YET,
    ),
    (
        "k repeats the key as the request had it",
        &["ms Zm9v 1 b\r\nx\r\n", "mg foo k\r\n"],
        "HD kZm9v b\r\n",
        "HD kfoo\r\n",
        NONE_YET,
    ),
    (
        "ma with q is quiet about a created number",
        &["delete n\r\n", "ma n N0 q\r\n"],
        "HD\r\n",
        "",
        Release([1, 6, 40]),
    ),
    (
        "the flags of newer releases are known",
        &["set a 0 0 1\r\nx\r\n", "ms a 1 E77 c\r\ny\r\n"],
        "CLIENT_ERROR invalid flag\r\n",
        "HD c77\r\n",
        Release([1, 6, 27]),
    ),
    ("there is nothing to tune", &["lru tune 10 25 0.1 2.0\r\n"], "OK\r\n", "ERROR\r\n", NONE_YET),
    (
        "items are not dumped",
        &["stats cachedump 1\r\n"],
        "CLIENT_ERROR bad command line\r\n",
        "CLIENT_ERROR stats cachedump not allowed\r\n",
        NONE_YET,
    ),
];

#[test]
fn the_deviations_are_exactly_these() {
    let server = RealMemcached::start();
    let mut client = StreamClient::connect(&server);
    let release = client.release();
    let mut ours = Ours::new();
    for &(what, commands, theirs_expected, ours_expected, alike_from) in DEVIATIONS {
        let theirs_expected = if release < alike_from { theirs_expected } else { ours_expected };
        client.ask(b"flush_all\r\n");
        ours.ask(b"flush_all\r\n");
        let mut last = (Vec::new(), Vec::new());
        for command in commands {
            last = (client.ask(command.as_bytes()), ours.ask(command.as_bytes()));
        }
        assert_eq!(String::from_utf8_lossy(&last.0), theirs_expected, "memcached {release}: {what}");
        assert_eq!(String::from_utf8_lossy(&last.1), ours_expected, "ours: {what}");
    }
}

/// The statistics have other numbers, and the same form.
#[test]
fn statistics_have_the_form_of_memcached() {
    let server = RealMemcached::start();
    let mut client = StreamClient::connect(&server);
    let theirs = String::from_utf8(client.ask(b"stats\r\n")).expect("text");
    let ours = String::from_utf8(Ours::new().ask(b"stats\r\n")).expect("text");
    let names = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("STAT ")?.split(' ').next().map(str::to_string))
            .collect()
    };
    assert!(ours.ends_with("\r\nEND\r\n"), "{ours}");
    let known = names(&theirs);
    let ours = names(&ours);
    assert_eq!(ours, STATISTICS, "what the documentation names, in memcached's order");
    for name in &ours {
        assert!(known.contains(name), "{name} is not memcached's");
    }
}

/// What `stats` tells.
const STATISTICS: &[&str] = &[
    "pid",
    "uptime",
    "time",
    "version",
    "pointer_size",
    "threads",
    "cmd_get",
    "cmd_set",
    "cmd_flush",
    "cmd_touch",
    "get_hits",
    "get_misses",
    "limit_maxbytes",
    "bytes",
    "curr_items",
    "total_items",
    "evictions",
    "evicted_unfetched",
    "reclaimed",
];

/// A join beyond the item limit fails in other words, but the item stays in both.
#[test]
fn a_join_beyond_the_item_limit_leaves_the_item_to_both() {
    let server = RealMemcached::start();
    let mut client = StreamClient::connect(&server);
    let mut ours = Ours::new();
    let half = "x".repeat(600_000);
    let set = format!("set k 0 0 {}\r\n{half}\r\n", half.len());
    assert_eq!(client.ask(set.as_bytes()), b"STORED\r\n");
    assert_eq!(ours.ask(set.as_bytes()), b"STORED\r\n");
    for (command, refusal) in [
        ("append k 0 0 600000", "NOT_STORED\r\n"),
        ("ms k 600000 MA", "NS\r\n"),
        ("ms k 600000 MP", "NS\r\n"),
    ] {
        let join = format!("{command}\r\n{half}\r\n");
        assert_eq!(String::from_utf8_lossy(&client.ask(join.as_bytes())), refusal, "memcached: {command}");
        assert_eq!(
            ours.ask(join.as_bytes()),
            b"SERVER_ERROR object too large for cache\r\n",
            "ours: {command}"
        );
        assert_eq!(client.ask(b"mg k s\r\n"), b"HD s600000\r\n", "memcached after {command}");
        assert_eq!(ours.ask(b"mg k s\r\n"), b"HD s600000\r\n", "ours after {command}");
    }
    // A piece that is itself beyond the limit takes the item along in both, whatever the mode.
    let piece = format!("ms k {} MA\r\n{}\r\n", 2 << 20, "x".repeat(2 << 20));
    let refusal = b"SERVER_ERROR object too large for cache\r\n";
    assert_eq!(
        (&client.ask(piece.as_bytes())[..], &ours.ask(piece.as_bytes())[..]),
        (&refusal[..], &refusal[..])
    );
    assert_eq!(client.ask(b"mg k s\r\n"), ours.ask(b"mg k s\r\n"));
}

/// What memcached does with datagrams that we do not copy.
#[test]
fn datagrams_of_memcached_have_the_faults_the_documentation_names() {
    let server = RealMemcached::start();
    let mut client = DatagramClient::connect(&server);
    client.ask(b"set a 0 0 1\r\nx\r\n");
    client.ask(b"set b 0 0 1\r\ny\r\n");
    let datagrams = client.ask(b"get a b\r\n");
    assert_eq!(datagrams.len(), 2, "each item is a message of its own");
    assert!(datagrams.iter().all(|datagram| datagram[2..6] == [0, 0, 0, 1]));
    // A set with eight bytes too few takes the next datagram for them.
    client.send(b"set a 0 0 11\r\nshort");
    let replies = client.ask(b"get b\r\n");
    assert!(replies.iter().all(|datagram| datagram[8..] != *b"VALUE b 0 1\r\ny\r\nEND\r\n"), "{replies:?}");

    let mut ours = DatagramConversation::new(&roomy_setup());
    let now = Now::read();
    ours.ask(now, 1, b"set a 0 0 1\r\nx\r\n").expect("well-formed");
    let reply = ours.ask(now, 2, b"set a 0 0 30\r\nshort").expect("well-formed");
    assert_eq!(reply, b"CLIENT_ERROR bad data chunk\r\n");
    assert_eq!(ours.ask(now, 3, b"get a\r\n").expect("well-formed"), b"VALUE a 0 1\r\nx\r\nEND\r\n");
}
