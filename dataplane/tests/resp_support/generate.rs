//! Seeded sequences of commands.
//!
//! The sequences leave out what `docs/protocols.md` lists as different; the differential test asks those cases one by one.

use dataplane::port::sim::Random;

use crate::differential_support::choose::Choose as _;

const KEYS: [&str; 6] = ["a", "b", "key:3", "n1", "n2", "a-rather-long-key-with-dots.and.such"];
/// Times to live: gone at once, or none.
const SECONDS: [&str; 5] = ["0", "-1", "x", "9223372036854775807", "9223372036854775"];
const MILLISECONDS: [&str; 4] = ["0", "-5", "1.5", "9223372036854775807"];
/// Times, as far from now.
const TIMES: [&str; 5] = ["4000000000", "1", "0", "-1", "9223372036854775807"];
const TIMES_MS: [&str; 4] = ["4000000000000", "1", "-1", "x"];
/// Numbers that a binary fraction holds.
const FRACTIONS: [&str; 12] = ["0.5", "-0.25", "1.125", "3", "-7", "1e1", ".5", "5.", "", "x", "1 ", "0x"];
const INTEGERS: [&str; 13] = [
    "1",
    "-1",
    "7",
    "-1000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "",
    "x",
    "01",
    "+1",
    " 1",
    "1.0",
];

fn value(random: &mut Random) -> String {
    match random.below(8) {
        0 => String::new(),
        1 => "x".repeat(3000),
        2 => random.pick(&INTEGERS).to_string(),
        3 => format!("{}", random.below(1000)),
        4 => "a\r\nb\0c".to_string(),
        _ => (0..random.below(20)).map(|_| char::from(b'A' + random.below(20) as u8)).collect(),
    }
}

/// A time to live in units of so many milliseconds: long enough not to run out while a test runs, or one of `odd`. Hardly
/// ever one twice: which of two that are the same ends later, two servers need not agree on.
fn lifetime(random: &mut Random, unit_ms: usize, odd: &[&str]) -> String {
    if random.one_in(2) {
        return random.pick(odd).to_string();
    }
    ((100_000 + random.below(1_000_000_000)) / unit_ms).to_string()
}

fn seconds(random: &mut Random) -> String {
    lifetime(random, 1_000, &SECONDS)
}

fn milliseconds(random: &mut Random) -> String {
    lifetime(random, 1, &MILLISECONDS)
}

fn expiry_option(random: &mut Random) -> Vec<String> {
    let (name, time) = match random.below(4) {
        0 => ("EX", seconds(random)),
        1 => ("px", milliseconds(random)),
        2 => ("EXAT", random.pick(&TIMES).to_string()),
        _ => ("PxAt", random.pick(&TIMES_MS).to_string()),
    };
    let mut words = vec![name.to_string()];
    if !random.one_in(12) {
        words.push(time);
    }
    words
}

/// One command and its arguments.
pub(crate) fn command(random: &mut Random) -> Vec<String> {
    let key = random.pick(&KEYS).to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>();
    let mut command = match random.below(40) {
        0..=4 => words(&["GET", &key]),
        5..=9 => {
            let mut command = words(&["SET", &key, &value(random)]);
            for _ in 0..random.below(3) {
                match random.below(6) {
                    0 => command.push("NX".into()),
                    1 => command.push("xx".into()),
                    2 => command.push("GET".into()),
                    3 => command.push("KEEPTTL".into()),
                    4 => command.push(random.pick(&["EX", "PERSIST", "nxx", ""]).into()),
                    _ => command.extend(expiry_option(random)),
                }
            }
            command
        }
        10 => words(&["SETNX", &key, &value(random)]),
        11 => words(&["SETEX", &key, &seconds(random), &value(random)]),
        12 => words(&["PSETEX", &key, &milliseconds(random), &value(random)]),
        13 => words(&["GETSET", &key, &value(random)]),
        14 => words(&["GETDEL", &key]),
        15 => {
            let mut command = words(&["GETEX", &key]);
            for _ in 0..random.below(3) {
                match random.below(3) {
                    0 => command.push("PERSIST".into()),
                    1 => command.push(random.pick(&["KEEPTTL", "NX", "x"]).into()),
                    _ => command.extend(expiry_option(random)),
                }
            }
            command
        }
        16 => {
            let mut command = words(&["MGET"]);
            command.extend((0..random.below(9)).map(|_| random.pick(&KEYS).to_string()));
            command
        }
        17 => {
            let mut command = words(&[random.pick(&["MSET", "MSETNX", "mset"])]);
            for _ in 0..random.below(4) {
                command.extend([random.pick(&KEYS).to_string(), value(random)]);
            }
            if random.one_in(8) {
                command.push(key);
            }
            command
        }
        18 => words(&["APPEND", &key, &value(random)]),
        19 => words(&["STRLEN", &key]),
        20 => words(&[
            "GETRANGE",
            &key,
            random.pick(&["0", "-3", "5", "x"]),
            random.pick(&["-1", "2", "1000", "-9"]),
        ]),
        21 => {
            words(&["SETRANGE", &key, random.pick(&["0", "3", "-1", "70", "1048576", "x"]), &value(random)])
        }
        22 => words(&[random.pick(&["INCR", "DECR"]), random.pick(&["n1", "n2", "a"])]),
        23 | 24 => {
            let key = random.pick(&["n1", "n2", "a"]);
            words(&[random.pick(&["INCRBY", "DECRBY"]), key, random.pick(&INTEGERS)])
        }
        25 => words(&["INCRBYFLOAT", "fraction", random.pick(&FRACTIONS)]),
        26 => words(&["SET", random.pick(&["n1", "n2", "fraction"]), &format!("{}", random.below(100))]),
        27 => {
            let mut command = words(&[random.pick(&["DEL", "UNLINK", "EXISTS", "TOUCH"])]);
            command.extend((0..random.below(5)).map(|_| random.pick(&KEYS).to_string()));
            command
        }
        28 => words(&["TYPE", &key]),
        29..=31 => {
            let (name, time) = match random.below(4) {
                0 => ("EXPIRE", seconds(random)),
                1 => ("PEXPIRE", milliseconds(random)),
                2 => ("EXPIREAT", random.pick(&TIMES).to_string()),
                _ => ("PEXPIREAT", random.pick(&TIMES_MS).to_string()),
            };
            let mut command = words(&[name, &key, &time]);
            for _ in 0..random.below(3) {
                command.push(random.pick(&["NX", "xx", "GT", "Lt", "zz"]).into());
            }
            command
        }
        32..=34 => words(&[random.pick(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]), &key]),
        35 => words(&["PERSIST", &key]),
        36 => words(&[random.pick(&["RENAME", "RENAMENX"]), &key, random.pick(&KEYS)]),
        37 => words(&[
            "KEYS",
            random.pick(&["*", "?", "n*", "[ab]", "[^a]*", "*e*", "\\a", "nope", "k[a-e]y:?"]),
        ]),
        38 => {
            let mut command = words(&["SCAN", "0", "COUNT", "1000"]);
            if random.one_in(2) {
                command.extend(words(&["MATCH", random.pick(&["*", "n?", "*:*"])]));
            }
            if random.one_in(3) {
                command.extend(words(&["TYPE", random.pick(&["string", "STRING", "hash", "nope"])]));
            }
            command
        }
        _ => garbage(random),
    };
    // Now and then a word too many or too few. A longer one of these would do something else.
    if random.one_in(40) && command.len() > 1 && command[0] != "HELLO" {
        command.pop();
    }
    command
}

/// Commands that are wrong, or nearly; and some about the connection.
fn garbage(random: &mut Random) -> Vec<String> {
    const NAMES: [&str; 21] = [
        "PING", "ECHO", "SELECT", "DBSIZE", "AUTH", "GETT", "", "get", "INCRBY", "CLIENT", "CONFIG",
        "MULTI2", "EXPIRE", "SCAN", "HELLO", "PERSIST", "FLUSHALL", "FLUSHDB", "RENAME", "a\r\nb", "\0x",
    ];
    const WORDS: [&str; 20] = [
        "a",
        "0",
        "1",
        "-1",
        "x",
        "2147483648",
        "GETNAME",
        "SETNAME",
        "NO-EVICT",
        "on",
        "off",
        "sync",
        "async",
        "COUNT",
        "default",
        "99",
        "18446744073709551616",
        "\r\n",
        "KILLL",
        "MATCH",
    ];
    let name = random.pick(&NAMES);
    let mut command = vec![name.to_string()];
    let words = random.below(5);
    command.extend((0..words).map(|_| random.pick(&WORDS).to_string()));
    if name == "HELLO" {
        // A greeting that is accepted tells numbers that differ.
        command.insert(1, random.pick(&["4", "x", "1"]).to_string());
    }
    if name == "SCAN" {
        // Where a walk goes on that did not begin, and where it stops, is each server's own.
        command.insert(1, random.pick(&["x", "18446744073709551616"]).to_string());
    }
    if random.one_in(6) {
        command.push("y".repeat(100));
        command.push("z".repeat(100));
    }
    command
}
