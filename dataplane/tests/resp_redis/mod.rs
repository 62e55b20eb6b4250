//! A real Redis, and what to compare of its replies.

pub(crate) mod compare;
pub(crate) mod server;
