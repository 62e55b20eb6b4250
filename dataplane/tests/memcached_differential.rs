//! The protocol against a real memcached: the same commands to both, the same replies from both, but for what
//! `docs/protocols.md` lists, and that is asked of both too.

mod differential_support;
mod memcached_support;

use dataplane::port::sim::Random;
use dataplane::protocol::memcached::conversation::{Conversation, DatagramConversation, roomy_setup};
use dataplane::table::model::ModelTable;
use dataplane::time::Now;
use memcached_support::compare::normalised;
use memcached_support::deviations::DEVIATIONS;
use memcached_support::generate::{Step, step};
use memcached_support::known::KNOWN;
use memcached_support::server::{DatagramClient, MARK, RealMemcached, StreamClient, before_mark};

/// An item's CAS out of what `me` says of it, which leaves the item as it is.
fn cas_of(debug: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(debug);
    let cas = text.split(' ').find_map(|word| word.strip_prefix("cas="));
    cas.map_or(0, |cas| cas.parse().expect("a CAS is a number"))
}

struct Ours(Conversation<ModelTable>);

impl Ours {
    fn new() -> Self {
        Self(Conversation::new(ModelTable::new(), &roomy_setup()))
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
        let mut random = Random::new(seed);
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
    let server = RealMemcached::start();
    let mut client = StreamClient::connect(&server);
    let mut ours = Ours::new();
    for &(bytes, expected) in KNOWN {
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
