//! Our own end of the comparison.

use dataplane::protocol::resp::conversation::{Conversation, roomy_setup};
use dataplane::table::Table;
use dataplane::table::model::ModelTable;
use dataplane::time::Now;

use super::server::{MARK, MARK_REPLY};

/// One connection to our own service, with a table of its own.
pub(crate) struct Ours<T>(Conversation<T>);

impl Ours<ModelTable> {
    pub(crate) fn new() -> Self {
        Self::over(ModelTable::new())
    }
}

impl<T: Table> Ours<T> {
    pub(crate) fn over(table: T) -> Self {
        Self(Conversation::new(table, &roomy_setup()))
    }

    /// Every reply up to the mark's, or to the close.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut replies = self.0.say(Now::read(), &[bytes, MARK].concat());
        if replies.ends_with(MARK_REPLY) {
            replies.truncate(replies.len() - MARK_REPLY.len());
        } else {
            assert!(self.0.closed, "no mark at the end of {}", replies.escape_ascii());
        }
        replies
    }
}
