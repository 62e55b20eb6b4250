//! Requests and the only replies that are right, as templates: what changes from one request to the next is written
//! into its place, so that nothing is formatted or allocated for a request.

use crate::workload::{KEY_BYTES, Operation, Random, key};

/// Largest value.
pub const VALUE_BYTES_MAX: usize = 1 << 10;
/// Smallest value: its first bytes tell keys apart.
pub const VALUE_BYTES_MIN: usize = MARK_BYTES;

/// Bytes that values are cut from: small enough to stay in a core's cache.
const BLOB_BYTES: usize = 16 << 10;
/// First bytes of a value, which no other key's has.
const MARK_BYTES: usize = 8;

/// In whose words requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// memcached's classic commands (memcached `doc/protocol.txt`).
    Memcached,
    /// Redis's protocol, version 2 (`redis.io/docs/reference/protocol-spec`).
    Resp,
}

impl Dialect {
    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memcached => "memcached",
            Self::Resp => "resp",
        }
    }
}

/// What all requests of a load have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// In whose words.
    pub dialect: Dialect,
    /// What is asked.
    pub operation: Operation,
    /// Bytes of each value, [`VALUE_BYTES_MIN`] to [`VALUE_BYTES_MAX`].
    pub value_bytes: usize,
}

/// What the bytes that came are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The right reply, this long.
    Right(usize),
    /// The beginning of it; so many bytes make the whole.
    Part(usize),
    /// Something else.
    Wrong,
}

/// Requests of one shape and their replies.
#[derive(Debug)]
pub struct Exchange {
    blob: Box<[u8]>,
    value_bytes: usize,
    request: Template,
    reply: Template,
}

/// A message in which a key and a value change.
#[derive(Debug, Default)]
struct Template {
    bytes: Vec<u8>,
    /// Where the key is, if there is one.
    key_at: Option<usize>,
    /// Where the value is, if there is one.
    value_at: Option<usize>,
}

impl Exchange {
    /// Makes the templates.
    ///
    /// # Panics
    /// When the values are to be shorter or longer than they may be.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let Shape { dialect, operation, value_bytes } = shape;
        assert!((VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&value_bytes), "values of {value_bytes} bytes");
        let mut random = Random::new(1);
        let mut blob = vec![0; BLOB_BYTES].into_boxed_slice();
        for word in blob.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next_u64().to_le_bytes());
        }
        let text = |text: &str| Part::Text(text.to_owned());
        let (request, reply) = match (dialect, operation) {
            (Dialect::Memcached, Operation::Get) => (
                vec![text("get "), Part::Key, text("\r\n")],
                vec![
                    text("VALUE "),
                    Part::Key,
                    text(&format!(" 0 {value_bytes}\r\n")),
                    Part::Value,
                    text("\r\nEND\r\n"),
                ],
            ),
            (Dialect::Memcached, Operation::Set) => (
                vec![
                    text("set "),
                    Part::Key,
                    text(&format!(" 0 0 {value_bytes}\r\n")),
                    Part::Value,
                    text("\r\n"),
                ],
                vec![text("STORED\r\n")],
            ),
            (Dialect::Resp, Operation::Get) => (
                vec![text(&format!("*2\r\n$3\r\nGET\r\n${KEY_BYTES}\r\n")), Part::Key, text("\r\n")],
                vec![text(&format!("${value_bytes}\r\n")), Part::Value, text("\r\n")],
            ),
            (Dialect::Resp, Operation::Set) => (
                vec![
                    text(&format!("*3\r\n$3\r\nSET\r\n${KEY_BYTES}\r\n")),
                    Part::Key,
                    text(&format!("\r\n${value_bytes}\r\n")),
                    Part::Value,
                    text("\r\n"),
                ],
                vec![text("+OK\r\n")],
            ),
        };
        Self {
            blob,
            value_bytes,
            request: Template::new(&request, value_bytes),
            reply: Template::new(&reply, value_bytes),
        }
    }

    /// Bytes of every request.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.request.bytes.len()
    }

    /// The request about this key.
    pub fn request(&mut self, key: u32) -> &[u8] {
        let value = value(&self.blob, self.value_bytes, key);
        self.request.fill(key, value)
    }

    /// What the bytes that came after the request about this key are. Those behind the reply are not looked at.
    pub fn judge(&mut self, key: u32, bytes: &[u8]) -> Judged {
        let (mark, rest) = value(&self.blob, self.value_bytes, key);
        let whole = self.reply.bytes.len();
        let Some(bytes) = bytes.get(..whole) else {
            let expected = self.reply.fill(key, (mark, rest));
            return if expected.starts_with(bytes) { Judged::Part(whole) } else { Judged::Wrong };
        };
        let value_at = self.reply.value_at;
        let expected = self.reply.fill_key(key);
        let right = match value_at {
            None => bytes == expected,
            Some(at) => {
                let (marked, filled, end) = (at + MARK_BYTES, at + mark.len() + rest.len(), whole);
                bytes[at..marked] == mark
                    && bytes[marked..filled] == *rest
                    && bytes[..at] == expected[..at]
                    && bytes[filled..end] == expected[filled..end]
            }
        };
        if right { Judged::Right(whole) } else { Judged::Wrong }
    }
}

enum Part {
    Text(String),
    Key,
    Value,
}

impl Template {
    fn new(parts: &[Part], value_bytes: usize) -> Self {
        let mut template = Self::default();
        for part in parts {
            let at = template.bytes.len();
            match part {
                Part::Text(text) => template.bytes.extend_from_slice(text.as_bytes()),
                Part::Key => {
                    template.key_at = Some(at);
                    template.bytes.resize(at + KEY_BYTES, 0);
                }
                Part::Value => {
                    template.value_at = Some(at);
                    template.bytes.resize(at + value_bytes, 0);
                }
            }
        }
        template
    }

    fn fill_key(&mut self, number: u32) -> &[u8] {
        if let Some(at) = self.key_at {
            self.bytes[at..at + KEY_BYTES].copy_from_slice(&key(number));
        }
        &self.bytes
    }

    fn fill(&mut self, number: u32, (mark, rest): ([u8; MARK_BYTES], &[u8])) -> &[u8] {
        if let Some(at) = self.value_at {
            self.bytes[at..at + MARK_BYTES].copy_from_slice(&mark);
            self.bytes[at + MARK_BYTES..at + MARK_BYTES + rest.len()].copy_from_slice(rest);
        }
        self.fill_key(number)
    }
}

/// A key's value: what marks it, and the rest, which lies somewhere in the blob. Any bytes at all, line ends included:
/// a server that looks for them instead of counting is caught.
fn value(blob: &[u8], value_bytes: usize, key: u32) -> ([u8; MARK_BYTES], &[u8]) {
    let mark = Random::new(u64::from(key)).next_u64();
    let at = mark as usize % (BLOB_BYTES - VALUE_BYTES_MAX);
    (mark.to_le_bytes(), &blob[at..at + value_bytes - MARK_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(dialect: Dialect, operation: Operation) -> Exchange {
        Exchange::new(Shape { dialect, operation, value_bytes: 32 })
    }

    fn stored(key: u32) -> Vec<u8> {
        let request = exchange(Dialect::Memcached, Operation::Set).request(key).to_vec();
        request[request.len() - 34..request.len() - 2].to_vec()
    }

    #[test]
    fn requests_are_what_the_protocols_say() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut get = exchange(Dialect::Memcached, Operation::Get);
        assert_eq!(text(get.request(0xab)), "get key-000000ab\r\n");
        let mut get = exchange(Dialect::Resp, Operation::Get);
        assert_eq!(text(get.request(1)), "*2\r\n$3\r\nGET\r\n$12\r\nkey-00000001\r\n");
        let mut set = exchange(Dialect::Memcached, Operation::Set);
        assert!(set.request(1).starts_with(b"set key-00000001 0 0 32\r\n"));
        assert_eq!(set.request(1).len(), set.request_bytes());
        let mut set = exchange(Dialect::Resp, Operation::Set);
        let request = set.request(1).to_vec();
        assert!(request.starts_with(b"*3\r\n$3\r\nSET\r\n$12\r\nkey-00000001\r\n$32\r\n"));
        assert_eq!(request[request.len() - 34..request.len() - 2], stored(1));
        assert_ne!(stored(1), stored(2));
    }

    #[test]
    fn only_the_right_reply_passes_whole_or_in_parts() {
        for (dialect, head, tail) in [
            (Dialect::Memcached, &b"VALUE key-00000003 0 32\r\n"[..], &b"\r\nEND\r\n"[..]),
            (Dialect::Resp, b"$32\r\n", b"\r\n"),
        ] {
            let mut get = exchange(dialect, Operation::Get);
            let reply = [head, &stored(3), tail].concat();
            assert_eq!(get.judge(3, &reply), Judged::Right(reply.len()));
            let two = [&reply[..], b"more"].concat();
            assert_eq!(get.judge(3, &two), Judged::Right(reply.len()));
            assert_eq!(get.judge(4, &reply), Judged::Wrong, "another key's");
            for at in 0..reply.len() {
                assert_eq!(get.judge(3, &reply[..at]), Judged::Part(reply.len()), "{at}");
                let mut changed = reply.clone();
                changed[at] ^= 1;
                assert_eq!(get.judge(3, &changed), Judged::Wrong, "byte {at}");
                assert_eq!(get.judge(3, &changed[..=at]), Judged::Wrong, "byte {at}, cut");
            }
        }
        let mut set = exchange(Dialect::Resp, Operation::Set);
        assert_eq!(set.judge(1, b"+OK\r\n"), Judged::Right(5));
        assert_eq!(set.judge(1, b"-ERR"), Judged::Wrong);
        let mut get = exchange(Dialect::Memcached, Operation::Get);
        assert_eq!(get.judge(1, b"END\r\n"), Judged::Wrong, "not found");
    }
}
