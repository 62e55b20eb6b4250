//! Keys, values and what a reply to them must be. A value is made from its key's number and a version, so that
//! every reply can be checked to the last byte without a copy of what was stored.

use std::io::Write;

use crate::client::{FrameHeader, HEADER_BYTES};

/// Bytes of every value.
pub const VALUE_BYTES: usize = 32;
/// Bytes of every key.
pub const KEY_BYTES: usize = 12;
/// Bytes that hold any request of the workload.
pub const REQUEST_BYTES_MAX: usize = 128;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `set`.
    Set,
    /// `get`.
    Get,
}

impl Operation {
    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
        }
    }
}

/// One request: enough to write it, and to check its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub operation: Operation,
    /// Number of the key.
    pub key: u32,
    /// Which value is stored, or is to be found.
    pub version: u32,
}

impl Request {
    /// Writes the datagram's payload, header included; returns its length, at most [`REQUEST_BYTES_MAX`].
    pub fn write(&self, request_id: u16, payload: &mut [u8]) -> usize {
        let capacity = payload.len();
        let mut rest = payload;
        let header = FrameHeader::request(request_id).to_bytes();
        let key = key(self.key);
        let parts: [&[u8]; 5] = match self.operation {
            Operation::Get => [&header, b"get ", &key, b"\r\n", b""],
            Operation::Set => [&header, b"set ", &key, b" 0 0 32\r\n", &value(self.key, self.version)],
        };
        for part in parts {
            rest.write_all(part).expect("a request fits REQUEST_BYTES_MAX");
        }
        if self.operation == Operation::Set {
            rest.write_all(b"\r\n").expect("a request fits REQUEST_BYTES_MAX");
        }
        capacity - rest.len()
    }

    /// True when `body`, a reply's datagram without its header, is exactly the reply this request must have.
    #[must_use]
    pub fn answered_by(&self, body: &[u8]) -> bool {
        match self.operation {
            Operation::Set => body == b"STORED\r\n",
            Operation::Get => self.found_in(body).unwrap_or(false),
        }
    }

    fn found_in(&self, body: &[u8]) -> Option<bool> {
        let body = body.strip_prefix(b"VALUE ")?;
        let body = body.strip_prefix(&key(self.key))?;
        let body = body.strip_prefix(b" 0 32\r\n")?;
        let (stored, end) = body.split_at_checked(VALUE_BYTES)?;
        Some(stored == value(self.key, self.version) && end == b"\r\nEND\r\n")
    }
}

/// Header of a reply and its body; `None` unless it is a whole reply in one datagram.
#[must_use]
pub fn split_reply(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (header, body) = FrameHeader::split(datagram)?;
    (header.total == 1 && datagram.len() > HEADER_BYTES).then_some((header.request_id, body))
}

/// Key number `number`: `key-` and eight hexadecimal digits.
pub(crate) fn key(number: u32) -> [u8; KEY_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut key = *b"key-00000000";
    for (place, digit) in key[4..].iter_mut().rev().enumerate() {
        *digit = DIGITS[(number >> (4 * place) & 15) as usize];
    }
    key
}

/// Any bytes at all, line ends included: a server that looks for them instead of counting is caught.
fn value(key: u32, version: u32) -> [u8; VALUE_BYTES] {
    let mut random = Random::new(u64::from(key) << 32 | u64::from(version));
    let mut value = [0; VALUE_BYTES];
    for chunk in value.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.next_u64().to_le_bytes());
    }
    value
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to `bound - 1`.
    pub const fn below(&mut self, bound: u32) -> u32 {
        (((self.next_u64() >> 32) * bound as u64) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_protocol_says() {
        let mut payload = [0; REQUEST_BYTES_MAX];
        let get = Request { operation: Operation::Get, key: 0xab, version: 0 };
        let length = get.write(7, &mut payload);
        assert_eq!(&payload[..length], b"\x00\x07\x00\x00\x00\x01\x00\x00get key-000000ab\r\n");
        let set = Request { operation: Operation::Set, key: 1, version: 2 };
        let length = set.write(7, &mut payload);
        assert!(payload[8..length].starts_with(b"set key-00000001 0 0 32\r\n"));
        assert_eq!(length, 8 + b"set key-00000001 0 0 32\r\n".len() + 32 + 2);
    }

    #[test]
    fn only_the_right_reply_passes() {
        let get = Request { operation: Operation::Get, key: 3, version: 9 };
        let reply = |key_number: u32, version: u32| {
            let mut body = b"VALUE ".to_vec();
            body.extend_from_slice(&key(key_number));
            body.extend_from_slice(b" 0 32\r\n");
            body.extend_from_slice(&value(3, version));
            body.extend_from_slice(b"\r\nEND\r\n");
            body
        };
        assert!(get.answered_by(&reply(3, 9)));
        assert!(!get.answered_by(&reply(3, 8)), "an older value");
        assert!(!get.answered_by(&reply(4, 9)), "another key");
        assert!(!get.answered_by(b"END\r\n"), "not found");
        let mut changed = reply(3, 9);
        changed[40] ^= 1;
        assert!(!get.answered_by(&changed), "one bit");
        assert!(!get.answered_by(&reply(3, 9)[..50]), "cut short");
    }
}
