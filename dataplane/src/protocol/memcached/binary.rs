//! What a client of the binary protocol is told, which is not spoken: one error of its own form, and the stream closes.
//!
//! ```text
//!  0     1     2           4     5     6           8           12          16          24
//! +-----+-----+-----------+-----+-----+-----------+-----------+-----------+-----------+------
//! |magic|op-  |key length |ex-  |data |status     |body length|opaque     |cas        | body
//! |     |code |           |tras |type |           |           |           |           |
//! +-----+-----+-----------+-----+-----+-----------+-----------+-----------+-----------+------
//! ```
//! (memcached's `protocol_binary.h`.) All numbers are big-endian. Requests have another magic than replies; no text command
//! begins with either.

/// The first byte of a request (`PROTOCOL_BINARY_REQ`).
pub const REQUEST_MAGIC: u8 = 0x80;

/// Bytes of a header, of requests and replies alike.
pub const HEADER_BYTES: usize = 24;

/// The first byte of a reply (`PROTOCOL_BINARY_RES`).
const REPLY_MAGIC: u8 = 0x81;

/// What memcached says of an opcode it does not have (`PROTOCOL_BINARY_RESPONSE_UNKNOWN_COMMAND`), which every client
/// knows.
const UNKNOWN_COMMAND: [u8; 2] = [0x00, 0x81];

/// memcached's words for it, and ours.
const TEXT: &[u8] = b"Unknown command: only the text protocol is spoken here";

/// Bytes of the refusal.
pub const REFUSAL_BYTES: usize = HEADER_BYTES + TEXT.len();

/// The reply to the request of which this is the header: its opcode and opaque come back, so that its client knows which of
/// its requests failed.
#[must_use]
pub fn refusal(request: &[u8; HEADER_BYTES]) -> [u8; REFUSAL_BYTES] {
    let mut reply = [0; REFUSAL_BYTES];
    reply[0] = REPLY_MAGIC;
    reply[1] = request[1];
    reply[6..8].copy_from_slice(&UNKNOWN_COMMAND);
    reply[8..12].copy_from_slice(&(TEXT.len() as u32).to_be_bytes());
    reply[12..16].copy_from_slice(&request[12..16]);
    reply[HEADER_BYTES..].copy_from_slice(TEXT);
    reply
}
