//! RESP and its commands against a real Redis: the same bytes to both, the same replies from both, but for what
//! `docs/protocols.md` lists, and that is asked of both too.

mod resp_redis;
mod resp_support;

use dataplane::limits::ITEM_BYTES_MAX;
use dataplane::memory::Placement;
use dataplane::protocol::resp::catalogue::COMMANDS;
use dataplane::protocol::resp::conversation::{Conversation, roomy_setup};
use dataplane::protocol::resp::spec::Spec;
use dataplane::table::Table;
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::model::ModelTable;
use dataplane::time::Now;
use resp_redis::compare::{alike, normalised};
use resp_redis::server::{MARK, MARK_REPLY, RealRedis};
use resp_support::generate::{Random, command};
use resp_support::request;

struct Ours<T>(Conversation<T>);

impl Ours<ModelTable> {
    fn new() -> Self {
        Self(Conversation::new(ModelTable::new(), &roomy_setup()))
    }
}

impl<T: Table> Ours<T> {
    /// Every reply up to the mark's, or to the close.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut replies = self.0.say(Now::read(), &[bytes, MARK].concat());
        if replies.ends_with(MARK_REPLY) {
            replies.truncate(replies.len() - MARK_REPLY.len());
        } else {
            assert!(self.0.closed, "no mark at the end of {}", replies.escape_ascii());
        }
        replies
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn the_same_bytes_get_the_replies_of_redis() {
    let server = RealRedis::start();
    let fixed: &[&[u8]] = &[
        b"",
        b"ECHO x\r\n",
        b"echo x\n",
        b"  echo\tx  \r\n",
        b"echo\r\n",
        b"echo a b\r\n",
        b"\r\n\n \r\n",
        b"echo \"a b\\x41\\n\\q\"\r\n",
        b"echo 'it\\'s \\x41'\r\n",
        b"echo a\"b c\"\r\n",
        b"echo \"\"\r\n",
        b"echo \"a\r\n",
        b"echo \"a\"b\r\n",
        b"echo 'a'b\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*-9223372036854775808\r\n",
        b"*2\r\n$4\r\nEcho\r\n$0\r\n\r\n",
        b"*2\r\n$4\r\nECHO\r\n$3\r\n\r\n\0\r\n",
        // The bytes behind a bulk string are not looked at.
        b"*2\r\n$4\r\nECHOxy$1\r\nzxy",
        b"*2\rx$4\rxECHO\r\n$1\r\nz\r\n",
        b"*x\r\n",
        b"*\r\n",
        b"*+1\r\n",
        b"*01\r\n",
        b"* 1\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n:5\r\n",
        b"*1\r\n\xe9\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$+4\r\n",
        b"*1\r\n$04\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*2\r\n$4\r\nECHO\r\n*1\r\n",
        b"QUIT\r\nECHO x\r\n",
        b"quit now please\r\n",
    ];
    let check = |bytes: &[u8]| {
        assert_eq!(
            Ours::new().ask(bytes).escape_ascii().to_string(),
            server.ask(bytes).escape_ascii().to_string(),
            "ours, Redis; asked {}",
            bytes.escape_ascii()
        );
    };
    for (index, first) in fixed.iter().enumerate() {
        check(first);
        // Two and three of them in one go.
        let second = fixed[(index * 7 + 3) % fixed.len()];
        let third = fixed[(index * 11 + 5) % fixed.len()];
        check(&[first, second, third].concat());
    }
}

/// Commands one after the other, each with its whole effect. `~` stands for a space.
const SCRIPT: &[&str] = &[
    "FLUSHALL",
    "PING",
    "PING hello",
    "PING a b",
    "ECHO hello",
    "ECHO",
    "SELECT 0",
    "SELECT 1",
    "SELECT -1",
    "SELECT x",
    "SELECT 2147483648",
    "SELECT 9999999999999999999999",
    "AUTH x",
    "AUTH default x",
    "AUTH nobody x",
    "AUTH a b c",
    "AUTH",
    "HELLO 4",
    "HELLO 1",
    "HELLO x",
    "HELLO 99999999999999999999",
    "HELLO 3 AUTH",
    "HELLO 2 SETNAME",
    "HELLO 3 AUTH nobody x",
    "HELLO 2 SETNAME a~b",
    "HELLO 2 nonsense",
    "CLIENT GETNAME",
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "CLIENT SETNAME a~b",
    "CLIENT GETNAME",
    "CLIENT SETNAME ",
    "CLIENT GETNAME",
    "CLIENT SETNAME",
    "CLIENT NO-EVICT on",
    "CLIENT NO-EVICT OFF",
    "CLIENT NO-EVICT maybe",
    "CLIENT NO-EVICT",
    "CLIENT",
    "CLIENT nonsense",
    "CLIENT nonsense a b",
    "CLIENT LIST TYPE nonsense",
    "CLIENT LIST TYPE master",
    "CLIENT LIST TYPE pubsub",
    "CLIENT LIST ID",
    "CLIENT LIST ID x",
    "CLIENT LIST ID 99999999",
    "CLIENT LIST nonsense",
    "CLIENT INFO x",
    "CONFIG",
    "CONFIG nonsense",
    "CONFIG GET",
    "CONFIG GET save",
    "CONFIG GET appendonly",
    "CONFIG GET databases",
    "CONFIG GET nonsense",
    "CONFIG GET proto-max-bulk-le?",
    "CONFIG HELP x",
    "COMMAND nonsense",
    "COMMAND COUNT x",
    "COMMAND INFO nonsense",
    "COMMAND INFO nonsense|x get|x",
    "COMMAND DOCS nonsense",
    "INFO nonsense",
    "DBSIZE",
    "DBSIZE x",
    "nonsense",
    "nonsense with arguments",
    "GET",
    "GET a b",
    "GET a",
    "SET a",
    "SET a 1",
    "GET a",
    "TYPE a",
    "TYPE b",
    "DBSIZE",
    "SET a 2 NX",
    "SET a 2 NX GET",
    "SET a 2 XX GET",
    "SET b 1 XX",
    "SET b 1 XX GET",
    "GET b",
    "SET b 1 NX GET",
    "SET a 3 NX XX",
    "SET a 3 EX",
    "SET a 3 EX 0",
    "SET a 3 EX -1",
    "SET a 3 EX x",
    "SET a 3 EX 9223372036854775807",
    "SET a 3 PX 9223372036854775807",
    "SET a 3 EX 100 PX 100",
    "SET a 3 EX 100 KEEPTTL",
    "SET a 3 KEEPTTL EX 100",
    "SET a 3 EX 100 EX 200",
    "TTL a",
    "SET a 4 KEEPTTL",
    "TTL a",
    "SET a 5",
    "TTL a",
    "TTL nope",
    "SET a 6 EXAT 4000000000",
    "EXPIRETIME a",
    "PEXPIRETIME a",
    "SET a 7 PXAT 4000000000123",
    "EXPIRETIME a",
    "PEXPIRETIME a",
    "SET a 8 PXAT 4000000000500",
    "EXPIRETIME a",
    "SET a 9 EXAT 1",
    "GET a",
    "SET a 9 PERSIST",
    "SETNX a 1",
    "SETNX a 2",
    "GET a",
    "SETEX a 100 x",
    "TTL a",
    "SETEX a 0 x",
    "SETEX a -1 x",
    "SETEX a x x",
    "PSETEX a 100000 y",
    "TTL a",
    "PSETEX a 0 y",
    "GETSET a z",
    "TTL a",
    "GETSET nope z",
    "GETDEL nope",
    "GETDEL missing",
    "GETDEL a",
    "GET a",
    "SET a 1",
    "GETEX a",
    "TTL a",
    "GETEX a EX 100",
    "TTL a",
    "GETEX a PERSIST",
    "TTL a",
    "GETEX a PERSIST EX 5",
    "GETEX a EX 0",
    "GETEX a EX x",
    "GETEX missing EX 0",
    "GETEX missing KEEPTTL",
    "GETEX a EXAT 1",
    "GET a",
    "GETEX a EX",
    "MSET a 1 b 2 c",
    "MSET a 1 b 2",
    "MSET a 1 a 2",
    "MGET a b c a",
    "MGET",
    "MSETNX c 1 a 2",
    "MGET c a",
    "MSETNX c 1 c 2 d 3",
    "MGET c d",
    "MSETNX x",
    "APPEND s abc",
    "APPEND s def",
    "GET s",
    "STRLEN s",
    "STRLEN missing",
    "APPEND s ",
    "APPEND empty ",
    "EXISTS empty",
    "GETRANGE s 0 -1",
    "GETRANGE s 1 2",
    "GETRANGE s -2 -1",
    "GETRANGE s 5 1",
    "GETRANGE s x 1",
    "GETRANGE s 0 x",
    "GETRANGE missing 0 -1",
    "GETRANGE s -100 100",
    "SETRANGE s 2 XYZ",
    "GET s",
    "SETRANGE s 10 !",
    "GET s",
    "SETRANGE fresh 3 abc",
    "GET fresh",
    "SETRANGE missing 5 ",
    "EXISTS missing",
    "SETRANGE s 5 ",
    "SETRANGE s -1 a",
    "SETRANGE s x a",
    "SETRANGE s 1048576 a",
    "SETRANGE s 1048575 a",
    "STRLEN s",
    "SETRANGE s 9223372036854775807 a",
    "APPEND s toolong",
    "INCR n",
    "INCR n",
    "INCRBY n 40",
    "DECR n",
    "DECRBY n 50",
    "DECRBY n -9223372036854775808",
    "INCRBY n x",
    "INCRBY n 1.5",
    "SET n 9223372036854775807",
    "INCR n",
    "DECR n",
    "SET n -9223372036854775808",
    "DECR n",
    "SET n 01",
    "INCR n",
    "SET n 1~",
    "INCR n",
    "SET n 10 EX 100",
    "INCR n",
    "TTL n",
    "SET n abc",
    "INCR n",
    "INCRBYFLOAT n 1",
    "SET f 10.5",
    "INCRBYFLOAT f 0.1",
    "INCRBYFLOAT f -5",
    "SET f 5.0e3",
    "INCRBYFLOAT f 2.0e2",
    "INCRBYFLOAT f x",
    "INCRBYFLOAT f inf",
    "INCRBYFLOAT f -inf",
    "INCRBYFLOAT f nan",
    "INCRBYFLOAT fresh2 3",
    "INCRBYFLOAT fresh2 -3",
    "INCRBYFLOAT fresh2 -0.5",
    "SET f 1 EX 100",
    "INCRBYFLOAT f 1.25",
    "TTL f",
    "INCRBYFLOAT f ",
    "SET f ",
    "INCRBYFLOAT f 1",
    "DEL a a b",
    "EXISTS c c d missing",
    "UNLINK c missing",
    "TOUCH d missing d",
    "DEL",
    "EXISTS",
    "SET a 1",
    "EXPIRE a 100",
    "TTL a",
    "EXPIRE a 200 NX",
    "EXPIRE a 200 GT",
    "TTL a",
    "EXPIRE a 100 GT",
    "EXPIRE a 100 LT",
    "TTL a",
    "EXPIRE a 300 XX",
    "PERSIST a",
    "PERSIST a",
    "EXPIRE a 100 XX",
    "EXPIRE a 100 GT",
    "EXPIRE a 100 LT",
    "TTL a",
    "EXPIRE a 100 NX GT",
    "EXPIRE a 100 GT LT",
    "EXPIRE a 100 XX GT",
    "EXPIRE a 100 nonsense",
    "EXPIRE a x",
    "EXPIRE a x zz",
    "EXPIRE a 9223372036854775807",
    "EXPIRE a -9223372036854775808",
    "EXPIRE a 9223372036854775",
    "EXPIRE missing 100",
    "EXPIREAT a 4000000000",
    "EXPIRETIME a",
    "PEXPIREAT a 4000000000999",
    "PEXPIRETIME a",
    "PEXPIRE a 100000",
    "TTL a",
    "EXPIRE a 0",
    "EXISTS a",
    "SET a 1",
    "EXPIRE a -1",
    "EXISTS a",
    "SET a 1",
    "EXPIREAT a 1",
    "EXISTS a",
    "SET a 1",
    "PEXPIREAT a -1 LT",
    "EXISTS a",
    "PERSIST missing",
    "RENAME missing b",
    "SET a 1 EX 100",
    "RENAME a b",
    "TTL b",
    "GET b",
    "EXISTS a",
    "RENAME b b",
    "RENAMENX b b",
    "SET a 2",
    "RENAMENX a b",
    "RENAMENX a new",
    "GET new",
    "RENAME new b",
    "GET b",
    "TTL b",
    "RENAME a",
    "KEYS",
    "FLUSHDB",
    "RANDOMKEY",
    "KEYS *",
    "SCAN 0",
    "SET only 1",
    "RANDOMKEY",
    "KEYS o*",
    "SCAN 0",
    "SCAN x",
    "SCAN",
    "SCAN -1 x",
    "SCAN 0 COUNT 0",
    "SCAN 0 COUNT x",
    "SCAN 0 COUNT",
    "SCAN 0 MATCH",
    "SCAN 0 nonsense 1",
    "SCAN 0 TYPE string",
    "SCAN 0 TYPE list",
    "SCAN 0 MATCH o* COUNT 100 TYPE string",
    "SCAN 18446744073709551616",
    "SCAN 1x",
    "FLUSHDB sync",
    "FLUSHALL ASYNC",
    "FLUSHALL now",
    "FLUSHALL sync x",
];

#[test]
fn a_script_gets_the_replies_of_redis_in_both_versions() {
    let server = RealRedis::start();
    for version in ["2", "3"] {
        let (mut client, mut ours) = (server.connect(), Ours::new());
        // Greetings tell numbers that differ.
        client.ask(&request(&["HELLO", version]));
        ours.ask(&request(&["HELLO", version]));
        for line in SCRIPT {
            let words: Vec<_> = words(line).into_iter().map(|word| word.replace('~', " ")).collect();
            let bytes = request(&words);
            let (theirs, ours) = (client.ask(&bytes), ours.ask(&bytes));
            assert!(
                alike(&words[0], &ours, &theirs),
                "RESP{version}, asked {line:?}\nours:   {}\ntheirs: {}",
                ours.escape_ascii(),
                theirs.escape_ascii()
            );
        }
    }
}

/// Runs generated sequences at both and compares every reply.
fn compare<T: Table>(seeds: std::ops::Range<u64>, mut table: impl FnMut() -> T) {
    let server = RealRedis::start();
    for seed in seeds {
        let mut random = Random(seed);
        let (mut client, mut ours) = (server.connect(), Ours(Conversation::new(table(), &roomy_setup())));
        client.ask(&request(&["FLUSHALL"]));
        if random.one_in(2) {
            client.ask(&request(&["HELLO", "3"]));
            ours.ask(&request(&["HELLO", "3"]));
        }
        let mut history = Vec::new();
        for _ in 0..200 {
            let words = command(&mut random);
            let bytes = request(&words);
            history.push(format!("{words:?}"));
            let (theirs, ours) = (client.ask(&bytes), ours.ask(&bytes));
            let name = words[0].to_uppercase();
            assert!(
                alike(&name, &ours, &theirs),
                "seed {seed} after\n{}\nours:\n{}\ntheirs:\n{}",
                history.join("\n"),
                normalised(&name, &ours),
                normalised(&name, &theirs)
            );
        }
    }
}

#[test]
fn generated_commands_on_the_model_get_the_replies_of_redis() {
    compare(0..150, ModelTable::new);
}

#[test]
fn generated_commands_on_a_memory_table_get_the_replies_of_redis() {
    let config = || MemoryTableConfig {
        capacity_bytes: 64 << 20,
        item_bytes_max: ITEM_BYTES_MAX as u32,
        expected_item_bytes: 500,
        placement: Placement::default(),
    };
    compare(1000..1060, || MemoryTable::new(config()).expect("a table"));
}

/// Every reply there is in a reply, as a tree; what has no order is sorted.
fn tree(reply: &mut &[u8]) -> String {
    let end = reply.iter().position(|&byte| byte == b'\r').expect("a line");
    let line = String::from_utf8_lossy(&reply[..end]).into_owned();
    *reply = &reply[end + 2..];
    let (mark, rest) = line.split_at(1);
    let elements = |count: usize, reply: &mut &[u8]| (0..count).map(|_| tree(reply)).collect::<Vec<_>>();
    match mark {
        "$" if rest != "-1" => {
            let length: usize = rest.parse().expect("a length");
            let text = reply[..length].escape_ascii().to_string();
            *reply = &reply[length + 2..];
            text
        }
        "*" => format!("[{}]", elements(rest.parse().expect("a count"), reply).join(" ")),
        "~" => {
            let mut elements = elements(rest.parse().expect("a count"), reply);
            elements.sort_unstable();
            format!("set[{}]", elements.join(" "))
        }
        "%" => {
            let pairs: usize = rest.parse().expect("a count");
            format!("map[{}]", elements(2 * pairs, reply).join(" "))
        }
        _ => line,
    }
}

fn names(specs: &'static [Spec]) -> impl Iterator<Item = &'static str> {
    specs
        .iter()
        .flat_map(|spec| std::iter::once(spec.name).chain(spec.subcommands.iter().map(|spec| spec.name)))
}

#[test]
fn command_info_is_that_of_redis() {
    let server = RealRedis::start();
    let (mut client, mut ours) = (server.connect(), Ours::new());
    client.ask(&request(&["HELLO", "3"]));
    ours.ask(&request(&["HELLO", "3"]));
    for name in names(&COMMANDS) {
        // Redis has it from 7.2 on.
        if name == "client|setinfo" {
            continue;
        }
        let bytes = request(&["COMMAND", "INFO", name]);
        let (theirs, ours) = (client.ask(&bytes), ours.ask(&bytes));
        let tree = |reply: &[u8]| {
            let text = tree(&mut &reply[..]);
            // Of a container, Redis has more subcommands.
            if ["client", "command", "config"].contains(&name) {
                let subcommands = format!(" [[{name}|");
                text.split(&subcommands).next().expect("something").to_string()
            } else {
                text
            }
        };
        assert_eq!(tree(&ours), tree(&theirs), "ours, theirs: {name}");
    }
}

#[test]
fn greetings_differ_in_their_number_alone() {
    let server = RealRedis::start();
    let bytes = b"HELLO 3 SETNAME me\r\nHELLO\r\nCLIENT GETNAME\r\nHELLO 2 AUTH default x\r\nGET missing\r\n";
    let numberless = |reply: &[u8]| {
        let text = reply.escape_ascii().to_string();
        let parts: Vec<_> = text.split("$2\\r\\nid\\r\\n").collect();
        let behind = |part: &&str| part.split_once("\\r\\n").map_or("", |(_, rest)| rest).to_string();
        std::iter::once(parts[0].to_string()).chain(parts[1..].iter().map(behind)).collect::<Vec<_>>()
    };
    let (ours, theirs) = (Ours::new().ask(bytes), server.ask(bytes));
    assert_eq!(numberless(&ours), numberless(&theirs), "ours, theirs");
}

/// Where we differ, on purpose: what it is, the requests, their last reply, ours.
type Deviation = (&'static str, &'static [&'static str], &'static str, &'static str);

const DEVIATIONS: &[Deviation] = &[
    (
        "a key has at least one byte",
        &["SET  x"],
        "+OK\r\n",
        "-ERR key of 0 bytes: a key has 1 to 250 bytes\r\n",
    ),
    (
        "a key has at most 250 bytes",
        &["GET LONG"],
        "$-1\r\n",
        "-ERR key of 251 bytes: a key has 1 to 250 bytes\r\n",
    ),
    (
        "keys are judged before anything is done",
        &["MGET a LONG"],
        "*2\r\n$-1\r\n$-1\r\n",
        "-ERR key of 251 bytes: a key has 1 to 250 bytes\r\n",
    ),
    (
        "fractions are added digit by digit",
        &["SET f 5000.1", "INCRBYFLOAT f 0.2"],
        "$22\r\n5000.30000000000000027\r\n",
        "$6\r\n5000.3\r\n",
    ),
    (
        "fractions have a range",
        &["SET f 1e21", "INCRBYFLOAT f 1"],
        "$22\r\n1000000000000000000000\r\n",
        "-ERR value is beyond the range of this server: 21 digits before the point\r\n",
    ),
    (
        "hexadecimal is no fraction",
        &["SET f 0x10", "INCRBYFLOAT f 1"],
        "$2\r\n17\r\n",
        "-ERR value is not a valid float\r\n",
    ),
    (
        "an expiry in ten thousand years is as good as a later one",
        &["SET a 1 PXAT 9223372036854775807", "PEXPIRETIME a"],
        ":9223372036854775807\r\n",
        ":281474976710654\r\n",
    ),
    (
        "a parameter is told by its own name",
        &["CONFIG GET SAVE"],
        "*2\r\n$4\r\nSAVE\r\n$0\r\n\r\n",
        "*2\r\n$4\r\nsave\r\n$0\r\n\r\n",
    ),
    (
        "a long name is refused",
        &["CLIENT SETNAME aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
        "+OK\r\n",
        "-ERR client name is longer than this server keeps: 64 bytes\r\n",
    ),
    (
        "libraries may tell their name, as in Redis 7.2",
        &["CLIENT SETINFO lib-name redis-py"],
        "-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n",
        "+OK\r\n",
    ),
    (
        "nothing is to be configured",
        &["CONFIG SET save x"],
        "-ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters\r\n",
        "-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n",
    ),
    (
        "there are strings alone",
        &["LPUSH l x"],
        ":1\r\n",
        "-ERR unknown command 'LPUSH', with args beginning with: 'l' 'x' \r\n",
    ),
];

#[test]
fn the_deviations_are_exactly_these() {
    let config = MemoryTableConfig {
        capacity_bytes: 64 << 20,
        item_bytes_max: ITEM_BYTES_MAX as u32,
        expected_item_bytes: 500,
        placement: Placement::default(),
    };
    let server = RealRedis::start();
    let mut client = server.connect();
    let mut ours = Ours(Conversation::new(MemoryTable::new(config).expect("a table"), &roomy_setup()));
    for &(what, commands, theirs_expected, ours_expected) in DEVIATIONS {
        let (mut theirs, mut replies) = (Vec::new(), Vec::new());
        for line in commands {
            let words: Vec<_> =
                words(line).into_iter().map(|word| word.replace("LONG", &"k".repeat(251))).collect();
            (theirs, replies) = (client.ask(&request(&words)), ours.ask(&request(&words)));
        }
        assert_eq!(
            theirs.escape_ascii().to_string(),
            theirs_expected.escape_default().to_string(),
            "Redis: {what}"
        );
        assert_eq!(
            replies.escape_ascii().to_string(),
            ours_expected.escape_default().to_string(),
            "ours: {what}"
        );
    }
}
