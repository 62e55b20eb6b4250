//! RESP and its commands against a real Redis: the same bytes to both, the same replies from both, but for what
//! `docs/protocols.md` lists, and that is asked of both too.

mod differential_support;
mod resp_redis;
mod resp_support;

use dataplane::port::sim::Random;
use dataplane::protocol::resp::catalogue::COMMANDS;
use dataplane::protocol::resp::spec::Spec;
use dataplane::table::Table;
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::model::ModelTable;
use differential_support::choose::Choose as _;
use resp_redis::compare::{alike, normalised};
use resp_redis::deviations::DEVIATIONS;
use resp_redis::ours::Ours;
use resp_redis::server::RealRedis;
use resp_redis::tree::tree;
use resp_support::generate::command;
use resp_support::pipeline::pipeline;
use resp_support::request;

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

/// Commands one after the other.
const SCRIPT: &str = include_str!("resp_redis/script.txt");

/// The bytes of a script's word.
fn unescaped(word: &str) -> Vec<u8> {
    let mut pieces = word.split('^');
    let plain = |piece: &str| piece.replace('~', " ").into_bytes();
    let mut bytes = plain(pieces.next().expect("one at least"));
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits of a byte"));
        bytes.extend(plain(rest));
    }
    bytes
}

#[test]
fn a_script_gets_the_replies_of_redis_in_both_versions() {
    let server = RealRedis::start();
    for version in ["2", "3"] {
        let (mut client, mut ours) = (server.connect(), Ours::new());
        // Greetings tell numbers that differ.
        client.ask(&request(&["HELLO", version]));
        ours.ask(&request(&["HELLO", version]));
        for line in SCRIPT.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = words(line).into_iter().map(unescaped).collect();
            let bytes = request(&words);
            let (theirs, ours) = (client.ask(&bytes), ours.ask(&bytes));
            assert!(
                alike(&String::from_utf8_lossy(&words[0]).to_uppercase(), &ours, &theirs),
                "RESP{version}, asked {line:?}\nours:   {}\ntheirs: {}",
                ours.escape_ascii(),
                theirs.escape_ascii()
            );
        }
    }
}

fn memory_table() -> MemoryTable {
    MemoryTable::new(MemoryTableConfig::default()).expect("a table")
}

/// Runs generated sequences at both and compares every reply.
fn compare<T: Table>(seeds: std::ops::Range<u64>, mut table: impl FnMut() -> T) {
    let server = RealRedis::start();
    for seed in seeds {
        let mut random = Random::new(seed);
        let (mut client, mut ours) = (server.connect(), Ours::over(table()));
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
    compare(1000..1060, memory_table);
}

#[test]
fn generated_pipelines_get_the_bytes_of_redis() {
    let server = RealRedis::start();
    for seed in 0..3_000 {
        let bytes = pipeline(&mut Random::new(seed));
        server.ask(&request(&["FLUSHALL"]));
        let (theirs, ours) = (server.ask(&bytes), Ours::new().ask(&bytes));
        assert!(
            ours == theirs,
            "seed {seed}, asked {}\nours:   {}\ntheirs: {}",
            bytes.escape_ascii(),
            ours.escape_ascii(),
            theirs.escape_ascii()
        );
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

#[test]
fn the_deviations_are_exactly_these() {
    let server = RealRedis::start();
    let mut client = server.connect();
    let mut ours = Ours::over(memory_table());
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
