//! What the tests against a real server share, whichever it is.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod choose;
pub(crate) mod server;
