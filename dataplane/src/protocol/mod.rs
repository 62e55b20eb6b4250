//! Protocols: bytes to [`Request`](crate::request::Request), [`Reply`](crate::request::Reply) to bytes. Pure functions over buffers.
//!
//! | module | what it owns |
//! |---|---|
//! | [`digits`] | numbers as digits |
//! | [`output`] | where replies go, and how much room there is |
//! | [`memcached`] | classic text, meta, over datagrams and over streams |

pub mod digits;
pub mod memcached;
pub mod output;
