//! Seeded pipelines: commands in every form a client may send them in, now and then damaged.

use dataplane::port::sim::Random;

use super::generate::command;
use super::request;
use crate::differential_support::choose::Choose as _;

/// What a second server answers otherwise, by its clock or its hash.
const OWN_ANSWERS: [&str; 6] = ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "KEYS", "SCAN"];

/// Bytes of up to thirty requests.
pub(crate) fn pipeline(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(30) {
        let words = command(random);
        if OWN_ANSWERS.contains(&&words[0].to_uppercase()[..]) {
            continue;
        }
        match random.below(24) {
            0..6 => bytes.extend(inline(&words, random)),
            6 => bytes.extend([b"\r\n".to_vec(), request(&words)].concat()),
            7 => bytes.extend([b"*0\r\n".to_vec(), request(&words)].concat()),
            8 => bytes.extend(request(&["SELECT", "9"])),
            9 if random.one_in(4) => bytes.extend(b"QUIT\r\n"),
            10 if random.one_in(2) => bytes.extend(damaged(&words, random)),
            _ => bytes.extend(request(&words)),
        }
    }
    bytes
}

/// Words on a line, each bare or in one or the other kind of quotes.
fn inline(words: &[String], random: &mut Random) -> Vec<u8> {
    let quoted = |word: &String| {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match random.below(3) {
            0 if plain && !word.is_empty() => word.clone(),
            1 if !word.contains(['\n', '\'', '\\', '\0']) => format!("'{word}'"),
            _ if plain => format!("\"{word}\""),
            _ => format!("\"{}\"", word.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>()),
        }
    };
    let line = words.iter().map(quoted).collect::<Vec<_>>().join(" ");
    (line + random.pick(&["\r\n", "\n", " \r\n", "\t\n"])).into_bytes()
}

/// A request with one byte of it changed. Without a NUL, for which Redis waits for ever in a line, nor what can be taken for
/// `SYNC`, which makes a replica of its client.
fn damaged(words: &[String], random: &mut Random) -> Vec<u8> {
    let mut bytes = request(words);
    let at = random.below(bytes.len());
    bytes[at] = random.next_u64() as u8;
    let unfit = bytes.contains(&0) || bytes.windows(4).any(|word| word.eq_ignore_ascii_case(b"sync"));
    if unfit { Vec::new() } else { bytes }
}
