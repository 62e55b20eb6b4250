//! memcached: classic text, meta, and the UDP frame header.
//!
//! | module | what it owns |
//! |---|---|
//! | [`number`], [`token`], [`base64`] | decimal numbers, lines and words, binary keys |
//! | [`command`] | what a client can ask, borrowed from its bytes |
//! | [`parse`] | one message out of a buffer: a [`Command`](command::Command), incomplete, or an error with memcached's own line |
//! | [`classic`], [`meta`] | the arguments of the two command families |
//! | [`reply`] | a bounded buffer and memcached's reply lines |
//! | [`session`], [`statistics`] | carries out one command against a table |
//! | [`binary`] | what a client of the binary protocol is told |
//! | [`udp`] | the frame header, and the [`Service`](crate::service::Service) for datagrams |
//! | [`stream`] | a connection's place in the protocol: messages off a receive buffer, replies onto a send buffer |
//!
//! Everything up to [`session`] knows nothing of datagrams: a byte stream parses with the same functions,
//! message after message. What is spoken, and where it differs from memcached, is in `docs/protocols.md`; the
//! source is memcached's `doc/protocol.txt`.

pub mod base64;
pub mod binary;
pub mod classic;
pub mod command;
#[cfg(any(test, feature = "testbed"))]
pub mod conversation;
mod factory;
pub mod meta;
pub mod number;
pub mod parse;
pub mod reply;
pub mod session;
pub mod statistics;
pub mod stream;
pub mod token;
pub mod udp;

pub use factory::factory;
pub use udp::Memcached;

/// What `version` answers. It begins with the memcached release whose behaviour is matched, because clients read
/// a number there to learn what the server can do.
const VERSION_LINE: &[u8] =
    concat!("VERSION 1.6.18-dataplane-", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes();

/// The version alone, for `stats`.
const VERSION: &[u8] = VERSION_LINE.trim_ascii_end().split_at("VERSION ".len()).1;
