//! A small memcached client over UDP, written against memcached's `doc/protocol.txt` and tested against
//! memcached itself. It sends a request once: what is lost is reported as lost, not hidden by a second try.

mod frame;

pub use frame::{FrameHeader, HEADER_BYTES};

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Largest UDP payload over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Datagrams in one reply that the client is ready to put together.
const DATAGRAMS_MAX: usize = 1024;

/// Why a request has no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed; a closed port is told as `ConnectionRefused`.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    /// No answer, or not all of it.
    #[error("no complete reply to {request:?} within {waited:?}: {datagrams} datagrams came")]
    TimedOut {
        /// First line of the request.
        request: String,
        /// How long it waited.
        waited: Duration,
        /// Datagrams of the reply that did come.
        datagrams: usize,
    },
    /// An answer that the protocol does not allow here.
    #[error("{request:?} was answered {reply:?}")]
    Unexpected {
        /// First line of the request.
        request: String,
        /// The reply, cut to its first bytes.
        reply: String,
    },
}

/// A stored item as `gets` returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Client flags.
    pub flags: u32,
    /// Value.
    pub value: Vec<u8>,
    /// Compare-and-swap token; 0 when it was not asked for.
    pub cas: u64,
}

/// What a conditional store came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was stored.
    Stored,
    /// A condition (`add`, `replace`, `append`, `prepend`) was not met.
    NotStored,
    /// The item has changed since (`cas`).
    Exists,
    /// There is no such item (`cas`).
    NotFound,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Whatever is there.
    Set,
    /// When nothing is there.
    Add,
    /// When something is there.
    Replace,
    /// Behind what is there.
    Append,
    /// In front of what is there.
    Prepend,
    /// When the item still has this token.
    Cas(u64),
}

/// A client on one connected socket.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    timeout: Duration,
    next_id: u16,
    request: Vec<u8>,
    datagram: Vec<u8>,
}

impl Client {
    /// A client on a connected socket.
    #[must_use]
    pub fn new(socket: UdpSocket, timeout: Duration) -> Self {
        Self { socket, timeout, next_id: 1, request: Vec::new(), datagram: vec![0; DATAGRAM_BYTES_MAX] }
    }

    /// Sends one request and puts the datagrams of its reply together, whatever the order they come in.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call(&mut self, message: &[u8]) -> Result<Vec<u8>, ClientError> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.request.clear();
        self.request.extend_from_slice(&FrameHeader::request(id).to_bytes());
        self.request.extend_from_slice(message);
        self.socket.send(&self.request)?;

        let mut parts: Vec<Option<Vec<u8>>> = Vec::new();
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::TimedOut {
                    request: first_line(message),
                    waited: self.timeout,
                    datagrams: parts.iter().flatten().count(),
                });
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match self.socket.recv(&mut self.datagram) {
                Ok(length) => length,
                // A caught signal is its catcher's to act on: this request still has its answer coming.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some((header, body)) = FrameHeader::split(&self.datagram[..length]) else { continue };
            let total = usize::from(header.total);
            // A late answer to an earlier request is not this one's.
            if header.request_id != id || total > DATAGRAMS_MAX {
                continue;
            }
            if parts.len() != total {
                parts = vec![None; total];
            }
            parts[usize::from(header.sequence)] = Some(body.to_vec());
            if parts.iter().all(Option::is_some) {
                return Ok(parts.into_iter().flatten().flatten().collect());
            }
        }
    }

    /// Sends a request that asks for no answer.
    ///
    /// # Errors
    /// [`ClientError::Socket`].
    pub fn send_only(&mut self, message: &[u8]) -> Result<(), ClientError> {
        let mut request = FrameHeader::request(self.next_id).to_bytes().to_vec();
        self.next_id = self.next_id.wrapping_add(1);
        request.extend_from_slice(message);
        self.socket.send(&request)?;
        Ok(())
    }

    /// Stores an item; `expiry_s` as memcached has it: 0 is never.
    ///
    /// # Errors
    /// [`ClientError`]; an unmet condition is a value, not an error.
    pub fn store(
        &mut self,
        how: Store,
        key: &str,
        flags: u32,
        expiry_s: u32,
        value: &[u8],
    ) -> Result<Stored, ClientError> {
        let (verb, token) = match how {
            Store::Set => ("set", String::new()),
            Store::Add => ("add", String::new()),
            Store::Replace => ("replace", String::new()),
            Store::Append => ("append", String::new()),
            Store::Prepend => ("prepend", String::new()),
            Store::Cas(token) => ("cas", format!(" {token}")),
        };
        let mut message = format!("{verb} {key} {flags} {expiry_s} {}{token}\r\n", value.len()).into_bytes();
        message.extend_from_slice(value);
        message.extend_from_slice(b"\r\n");
        let reply = self.call(&message)?;
        match reply.as_slice() {
            b"STORED\r\n" => Ok(Stored::Stored),
            b"NOT_STORED\r\n" => Ok(Stored::NotStored),
            b"EXISTS\r\n" => Ok(Stored::Exists),
            b"NOT_FOUND\r\n" => Ok(Stored::NotFound),
            _ => Err(unexpected(&message, &reply)),
        }
    }

    /// `set` with neither flags nor expiry.
    ///
    /// # Errors
    /// [`ClientError`]; anything but `STORED` is one.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<(), ClientError> {
        match self.store(Store::Set, key, 0, 0, value)? {
            Stored::Stored => Ok(()),
            other => Err(unexpected(format!("set {key}").as_bytes(), format!("{other:?}").as_bytes())),
        }
    }

    /// `gets`: the item with its token, or `None`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&mut self, key: &str) -> Result<Option<Item>, ClientError> {
        let message = format!("gets {key}\r\n");
        let reply = self.call(message.as_bytes())?;
        parse_item(key, &reply).ok_or_else(|| unexpected(message.as_bytes(), &reply))
    }

    /// `delete`: true when it was there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete(&mut self, key: &str) -> Result<bool, ClientError> {
        self.yes_or_not_found(&format!("delete {key}\r\n"), b"DELETED\r\n")
    }

    /// `touch`: true when it was there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn touch(&mut self, key: &str, expiry_s: u32) -> Result<bool, ClientError> {
        self.yes_or_not_found(&format!("touch {key} {expiry_s}\r\n"), b"TOUCHED\r\n")
    }

    /// `incr`: the new value, or `None` when there is no such item.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn incr(&mut self, key: &str, by: u64) -> Result<Option<u64>, ClientError> {
        self.number_or_not_found(&format!("incr {key} {by}\r\n"))
    }

    /// `decr`: the new value, or `None` when there is no such item.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn decr(&mut self, key: &str, by: u64) -> Result<Option<u64>, ClientError> {
        self.number_or_not_found(&format!("decr {key} {by}\r\n"))
    }

    fn yes_or_not_found(&mut self, message: &str, yes: &[u8]) -> Result<bool, ClientError> {
        let reply = self.call(message.as_bytes())?;
        match reply.as_slice() {
            reply if reply == yes => Ok(true),
            b"NOT_FOUND\r\n" => Ok(false),
            _ => Err(unexpected(message.as_bytes(), &reply)),
        }
    }

    fn number_or_not_found(&mut self, message: &str) -> Result<Option<u64>, ClientError> {
        let reply = self.call(message.as_bytes())?;
        if reply == b"NOT_FOUND\r\n" {
            return Ok(None);
        }
        let text = std::str::from_utf8(&reply).ok().and_then(|text| text.strip_suffix("\r\n"));
        let number = text.and_then(|text| text.trim_end().parse().ok());
        number.map(Some).ok_or_else(|| unexpected(message.as_bytes(), &reply))
    }
}

/// Reads `VALUE <key> <flags> <bytes> [<cas>]\r\n<data>\r\nEND\r\n`. The outer `None` is a malformed reply.
#[must_use]
pub fn parse_item(key: &str, reply: &[u8]) -> Option<Option<Item>> {
    if reply == b"END\r\n" {
        return Some(None);
    }
    let end = reply.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&reply[..end]).ok()?;
    let mut words = line.split(' ');
    if words.next()? != "VALUE" || words.next()? != key {
        return None;
    }
    let flags = words.next()?.parse().ok()?;
    let length: usize = words.next()?.parse().ok()?;
    let cas = words.next().map_or(Some(0), |token| token.parse().ok())?;
    let body = &reply[end + 2..];
    let value = body.get(..length)?.to_vec();
    (body.get(length..)? == b"\r\nEND\r\n").then_some(Some(Item { flags, value, cas }))
}

fn unexpected(request: &[u8], reply: &[u8]) -> ClientError {
    let shown = &reply[..reply.len().min(200)];
    ClientError::Unexpected {
        request: first_line(request),
        reply: String::from_utf8_lossy(shown).into_owned(),
    }
}

fn first_line(message: &[u8]) -> String {
    let end = message.iter().position(|&byte| byte == b'\r').unwrap_or(message.len());
    String::from_utf8_lossy(&message[..end.min(100)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_with_and_without_a_token() {
        let with = parse_item("k", b"VALUE k 7 4 99\r\na\r\nb\r\nEND\r\n");
        assert_eq!(with, Some(Some(Item { flags: 7, value: b"a\r\nb".to_vec(), cas: 99 })));
        let without = parse_item("k", b"VALUE k 0 0\r\n\r\nEND\r\n");
        assert_eq!(without, Some(Some(Item { flags: 0, value: Vec::new(), cas: 0 })));
        assert_eq!(parse_item("k", b"END\r\n"), Some(None));
    }

    #[test]
    fn replies_that_lie_are_refused() {
        for reply in [
            &b"VALUE other 0 1\r\na\r\nEND\r\n"[..],
            b"VALUE k 0 2\r\na\r\nEND\r\n",
            b"VALUE k 0 99999999999999999999\r\na\r\nEND\r\n",
            b"VALUE k 0 1\r\na\r\n",
            b"ERROR\r\n",
            b"",
        ] {
            assert_eq!(parse_item("k", reply), None, "{}", String::from_utf8_lossy(reply));
        }
    }
}
