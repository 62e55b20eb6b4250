//! RESP, the protocol of Redis: versions 2 and 3, and inline commands; and the commands of Redis that are about strings and
//! keys.
//!
//! | module | what it owns |
//! |---|---|
//! | [`parse`] | one request out of a buffer: its [`Arguments`], incomplete, or an error with Redis's own text |
//! | [`inline`] | requests as people type them: words and quotes |
//! | [`swallow`] | what is left of a request that is larger than is kept |
//! | [`number`], [`decimal`], [`glob`] | integers, fractions and patterns, as Redis reads them |
//! | [`encode`], `errors` | replies, in either version; error texts |
//! | [`spec`], [`catalogue`] | what a command is, and all there are |
//! | [`session`], `client` | what a worker's connections share; what one client has set up |
//! | [`connection`] | a connection's place in its stream: reads requests off one buffer, writes replies to another |
//! | `commands` | carries them out, one module a family |
//! | [`stream`] | the [`StreamService`](crate::service::StreamService) |
//!
//! The source is Redis's protocol specification and the behaviour of Redis 7.0; `dataplane/tests/resp_differential.rs` asks
//! both, and `docs/protocols.md` says where they differ.

pub mod catalogue;
mod client;
mod commands;
pub mod connection;
#[cfg(any(test, feature = "testbed"))]
pub mod conversation;
pub mod decimal;
pub mod encode;
mod errors;
pub mod glob;
pub mod inline;
pub mod number;
pub mod parse;
pub mod session;
pub mod spec;
pub mod stream;
pub mod swallow;
mod text;

pub use connection::Connection;
pub use parse::Arguments;
pub use session::Session;
pub use stream::{Resp, factory};

use crate::limits::VALUE_BYTES_MAX;

/// Longest argument, in bytes: the longest value (Redis's `proto-max-bulk-len`). A request with a longer one is read past
/// and refused.
pub const BULK_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// Longest argument that is read past, in bytes: the largest value a Redis keeps by default. Whoever announces more does
/// not speak of a value, and the connection closes.
pub const SWALLOWED_BYTES_MAX: usize = 512 << 20;

/// Most arguments of a request, the command's name included.
pub const ARGUMENTS_MAX: usize = 1 << 20;

/// Longest inline request (Redis's `PROTO_INLINE_MAX_SIZE`).
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Longest line with a count or a length. Redis reads as many bytes as of an inline request before it gives up; there is
/// no sense in that, and it is searched again for every byte that comes.
pub const NUMBER_LINE_BYTES_MAX: usize = 1024;

/// Longest request, in bytes: it has to lie in one piece. The longest argument fits, with many short ones around it.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;

/// Most bytes that a connection may have to hold unread: a request, behind which a line is not known yet to be too long.
pub const INPUT_BYTES_MAX: usize = REQUEST_BYTES_MAX + NUMBER_LINE_BYTES_MAX + 4;

const _: () = {
    assert!(BULK_BYTES_MAX + 2 * LINE_BYTES_MAX <= REQUEST_BYTES_MAX);
    assert!(SWALLOWED_BYTES_MAX + 2 <= u32::MAX as usize);
};

/// The Redis release whose behaviour is matched, as `HELLO` and `INFO` tell it: clients read a number there to learn what
/// the server can do.
const VERSION: &str = "7.0.15";
