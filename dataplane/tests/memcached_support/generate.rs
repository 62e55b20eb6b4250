//! Seeded sequences of commands.
//!
//! The sequences leave out what `docs/protocols.md` lists as different; the differential test asks those cases
//! one by one.

use dataplane::port::sim::Random;

use crate::differential_support::choose::Choose as _;

/// A command, with a hole where the CAS of an item goes: the two servers number theirs differently.
pub(crate) struct Step {
    pub(crate) before: String,
    /// Whose CAS, and by how much it is wrong.
    pub(crate) cas: Option<(String, i64)>,
    pub(crate) after: String,
}

impl Step {
    fn plain(text: String) -> Self {
        Self { before: text, cas: None, after: String::new() }
    }

    /// The command's bytes; `cas_of` tells an item's CAS, 0 when there is none.
    pub(crate) fn bytes(&self, cas_of: impl FnOnce(&str) -> u64) -> Vec<u8> {
        let cas = match &self.cas {
            Some((key, wrong)) => cas_of(key).saturating_add_signed(*wrong).to_string(),
            None => String::new(),
        };
        format!("{}{cas}{}", self.before, self.after).into_bytes()
    }
}

const TEXT_KEYS: [&str; 4] = ["a", "b", "key:3", "a-rather-long-key-with-dots.and.such"];
/// Numbers keep their count of digits (see "space-padded" in the documentation).
const NUMBER_KEYS: [&str; 2] = ["n1", "n2"];
const BINARY_KEYS: [&str; 2] = ["AAEC/w==", "Zm9v"];
/// Seconds: far enough from a multiple of ten to stay in one bucket of the comparison while a test runs.
const TTLS: [&str; 4] = ["0", "105", "1005", "-1"];

fn value(random: &mut Random) -> String {
    let length = match random.below(8) {
        0 => 0,
        1 => 32,
        2 => 3000,
        _ => random.below(20),
    };
    (0..length).map(|_| char::from(b'A' + random.below(20) as u8)).collect()
}

fn any_key(random: &mut Random) -> &'static str {
    if random.one_in(4) { random.pick(&NUMBER_KEYS) } else { random.pick(&TEXT_KEYS) }
}

fn noreply(random: &mut Random) -> &'static str {
    if random.one_in(6) { " noreply" } else { "" }
}

/// One command.
pub(crate) fn step(random: &mut Random) -> Step {
    let key = any_key(random);
    match random.below(22) {
        0..=2 => {
            let name = random.pick(&["set", "set", "add", "replace", "append", "prepend"]);
            let is_number = NUMBER_KEYS.contains(&key);
            // Joining digits to a number would give it more of them.
            let (name, value) = if is_number {
                ("set", format!("{}", 5_000_000 + random.below(1000)))
            } else {
                (name, value(random))
            };
            let (flags, ttl, quiet) = (random.below(70_000), random.pick(&TTLS), noreply(random));
            Step::plain(format!("{name} {key} {flags} {ttl} {}{quiet}\r\n{value}\r\n", value.len()))
        }
        3 => {
            let key = random.pick(&TEXT_KEYS);
            let value = value(random);
            let wrong = if random.one_in(3) { -1 } else { 0 };
            Step {
                before: format!("cas {key} 7 {} {} ", random.pick(&TTLS), value.len()),
                cas: Some((key.to_string(), wrong)),
                after: format!("{}\r\n{value}\r\n", noreply(random)),
            }
        }
        4 | 5 => Step::plain(format!("{} {key}\r\n", random.pick(&["get", "gets"]))),
        6 => {
            let keys: Vec<_> = (0..=random.below(40)).map(|_| any_key(random)).collect();
            Step::plain(format!("{} {}\r\n", random.pick(&["get", "gets"]), keys.join(" ")))
        }
        7 => {
            let keys: Vec<_> = (0..random.below(4)).map(|_| any_key(random)).collect();
            let (name, ttl) = (random.pick(&["gat", "gats"]), random.pick(&TTLS));
            Step::plain(format!("{name} {ttl} {}\r\n", keys.join(" ")))
        }
        8 => Step::plain(format!("touch {key} {}{}\r\n", random.pick(&TTLS), noreply(random))),
        9 => Step::plain(format!(
            "delete {key}{}\r\n",
            random.pick(&["", " 0", " noreply", " 0 noreply", " 5"])
        )),
        10 | 11 => {
            let key = if random.one_in(3) { key } else { random.pick(&NUMBER_KEYS) };
            let name = random.pick(&["incr", "decr"]);
            Step::plain(format!("{name} {key} {}{}\r\n", random.below(1000), noreply(random)))
        }
        12..=14 => meta_get(random, key),
        15 | 16 => meta_store(random),
        17 => meta_delete(random, key),
        18 => meta_arithmetic(random),
        19 => Step::plain(format!("me {key}\r\n")),
        _ => Step::plain(garbage(random)),
    }
}

/// Some of these flags, in a random order.
fn some(random: &mut Random, flags: &[&str]) -> String {
    let mut chosen: Vec<_> = flags.iter().filter(|_| random.one_in(2)).collect();
    for index in (1..chosen.len()).rev() {
        chosen.swap(index, random.below(index + 1));
    }
    chosen.into_iter().fold(String::new(), |text, flag| text + " " + flag)
}

fn maybe(random: &mut Random, flag: &str, arguments: &[&str]) -> String {
    if random.one_in(4) { format!(" {flag}{}", random.pick(arguments)) } else { String::new() }
}

fn meta_get(random: &mut Random, key: &str) -> Step {
    let binary = random.one_in(5);
    let key = if binary { random.pick(&BINARY_KEYS) } else { key };
    let mut text = format!("mg {key}");
    // The order in which they take effect.
    text += &maybe(random, "R", &["0", "500", "-1"]);
    text += &maybe(random, "T", &TTLS);
    if binary {
        text += " b";
    } else {
        text += &maybe(random, "N", &["0", "105", "1005"]);
    }
    text += &some(random, &["c", "f", "h", "k", "l", "s", "t", "v", "u", "q", "Oopaque", "Ppath", "L7"]);
    Step::plain(text + "\r\n")
}

fn meta_store(random: &mut Random) -> Step {
    let binary = random.one_in(4);
    let key = if binary { random.pick(&BINARY_KEYS) } else { random.pick(&TEXT_KEYS) };
    let value = value(random);
    let mut before = format!("ms {key} {}", value.len());
    before += &some(random, &["c", "k", "q", "Oabc"]);
    before += &maybe(random, "T", &TTLS);
    before += &maybe(random, "F", &["0", "9", "4294967295", "x"]);
    if binary {
        before += " b";
        before += &maybe(random, "M", &["S", "E", "R"]);
    } else {
        before += &maybe(random, "M", &["S", "E", "R", "A", "P", "Z", ""]);
    }
    let after = format!("\r\n{value}\r\n");
    if binary || !random.one_in(3) {
        return Step { before, cas: None, after };
    }
    if random.one_in(2) {
        before += " I";
    }
    before += " C";
    Step { before, cas: Some((key.to_string(), random.below(3) as i64 - 1)), after }
}

fn meta_delete(random: &mut Random, key: &str) -> Step {
    let mut before = format!("md {key}{}", some(random, &["k", "q", "Oz"]));
    if random.one_in(2) {
        before += " I";
        before += &maybe(random, "T", &["0", "105", "1005"]);
    }
    if !random.one_in(3) {
        return Step::plain(before + "\r\n");
    }
    before += " C";
    let wrong = if random.one_in(3) { 1 } else { 0 };
    Step { before, cas: Some((key.to_string(), wrong)), after: "\r\n".into() }
}

fn meta_arithmetic(random: &mut Random) -> Step {
    let key = random.pick(&NUMBER_KEYS);
    let mut text = format!("ma {key}");
    text += &maybe(random, "T", &TTLS);
    let vivifies = random.one_in(2);
    if vivifies {
        text += &format!(" N{} J{}", random.pick(&["0", "105"]), 5_000_000);
    }
    // memcached 1.6.18 forgets that a created number was to be quiet.
    text +=
        &some(random, if vivifies { &["c", "t", "v", "k", "Oo"] } else { &["c", "t", "v", "k", "q", "Oo"] });
    text += &maybe(random, "M", &["I", "D", "+", "-", "X", "incr"]);
    text += &maybe(random, "D", &["0", "5", "700", "x"]);
    Step::plain(text + "\r\n")
}

/// Lines that are wrong, or nearly.
fn garbage(random: &mut Random) -> String {
    const NAMES: [&str; 24] = [
        "get",
        "gets",
        "gat",
        "gats",
        "touch",
        "incr",
        "decr",
        "delete",
        "mg",
        "md",
        "ma",
        "me",
        "mn",
        "mx",
        "m",
        "flush_all",
        "verbosity",
        "shutdown",
        "GET",
        "gett",
        "",
        "sets",
        "decrement",
        "cas_",
    ];
    const WORDS: [&str; 19] = [
        "a", "b", "n1", "0", "7", "-7", "abc", "1x", "noreply", "v", "k", "q", "vv", "Tx", "Cx", "OO", "t",
        "!", "M",
    ];
    let name = random.pick(&NAMES);
    let mut line = String::from(name);
    for index in 0..random.below(5) {
        line += random.pick(&[" ", "  "]);
        if index == 0 && random.one_in(8) {
            line += &"K".repeat(251);
        } else {
            let word = random.pick(&WORDS);
            // A flush to come would undo, at memcached, the flush that began the sequence.
            line += if name == "flush_all" && word == "7" { "0" } else { word };
        }
    }
    line + random.pick(&["\r\n", "\n", " \r\n"])
}
