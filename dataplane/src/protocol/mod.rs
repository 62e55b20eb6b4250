//! Protocols: bytes to [`Request`](crate::request::Request), [`Reply`](crate::request::Reply) to bytes. Pure functions over buffers.

pub mod memcached;
