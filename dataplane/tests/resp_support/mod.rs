//! Requests, and seeded sequences of commands.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod generate;
pub(crate) mod pipeline;

/// A request as clients send it.
pub(crate) fn request(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.as_ref().len()).bytes());
        bytes.extend(word.as_ref());
        bytes.extend(b"\r\n");
    }
    bytes
}
