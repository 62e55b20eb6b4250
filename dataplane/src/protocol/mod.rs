//! Protocols: bytes to [`Request`](crate::request::Request), [`Reply`](crate::request::Reply) to bytes. Pure functions over buffers.
//!
//! | module | what it owns |
//! |---|---|
//! | [`digits`] | numbers as digits |
//! | [`output`] | numbers into an output |
//! | `conversation` | a stream with a table of its own, for tests |
//! | [`memcached`] | classic text, meta, over datagrams and over streams |
//! | [`resp`] | Redis's: RESP2 and RESP3, and its commands about strings and keys, over streams |

#[cfg(any(test, feature = "testbed"))]
pub mod conversation;
pub mod digits;
pub mod memcached;
pub mod output;
pub mod resp;
