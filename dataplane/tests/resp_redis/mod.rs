//! A real Redis, our own end, and what to compare of their replies.

pub(crate) mod compare;
pub(crate) mod deviations;
pub(crate) mod ours;
pub(crate) mod server;
pub(crate) mod tree;
