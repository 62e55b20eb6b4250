//! Conversations with a table of their own, for tests, fuzzing and simulation.

use super::connection::OUTPUT_BYTES_ENOUGH;
use super::stream::Resp;
use crate::protocol::conversation;
use crate::service::ServiceSetup;
use crate::table::Table;

pub use crate::protocol::conversation::{SendBuffer, roomy_setup};

/// One worker's end, with one connection to it.
pub type Conversation<T> = conversation::Conversation<Resp, T>;

impl<T: Table> Conversation<T> {
    /// A conversation about `table`, with room for every reply.
    pub fn new(table: T, setup: &ServiceSetup) -> Self {
        Self::with_capacity(table, setup, 8 * OUTPUT_BYTES_ENOUGH)
    }

    /// One whose send buffer takes so many bytes.
    pub fn with_capacity(table: T, setup: &ServiceSetup, capacity: usize) -> Self {
        Self::with_service(table, Resp::new(setup), capacity)
    }
}
