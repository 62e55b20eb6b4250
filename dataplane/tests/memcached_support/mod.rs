//! What the differential test is made of: a real memcached, seeded command sequences, and what to compare.

pub(crate) mod compare;
pub(crate) mod deviations;
pub(crate) mod generate;
pub(crate) mod known;
pub(crate) mod server;
