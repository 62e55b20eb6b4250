//! A client that sends in pieces and sees how much of it is kept, whatever the protocol.

use dataplane::config::TableConfig;
use dataplane::protocol::conversation::{Conversation, roomy_setup};
use dataplane::service::{ServiceSetup, StreamService};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::Now;

pub(crate) const NOW: Now = Now { monotonic_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };
/// Bytes that arrive at once.
pub(crate) const PIECE: usize = 64 << 10;
/// Bytes of the send buffer: every reply of one value fits.
const OUTPUT_BYTES: usize = 4 << 20;

/// A client of a daemon with the default table, and the most bytes that ever lay unread.
pub(crate) struct Client<S> {
    pub(crate) stream: Conversation<S, MemoryTable>,
    pub(crate) unread_bytes_max: usize,
}

impl<S: StreamService> Client<S> {
    pub(crate) fn new(service: impl FnOnce(&ServiceSetup) -> S) -> Self {
        let item_bytes_max = TableConfig::default().item_bytes_max;
        let config = MemoryTableConfig { item_bytes_max, ..MemoryTableConfig::default() };
        let setup = ServiceSetup { item_bytes_max: item_bytes_max as usize, ..roomy_setup() };
        let table = MemoryTable::with_hash_seed(config, 1).expect("a table");
        let stream = Conversation::with_service(table, service(&setup), OUTPUT_BYTES);
        Self { stream, unread_bytes_max: 0 }
    }

    /// Sends bytes a piece at a time, as long as it is listened to, and hears what comes back.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> String {
        let mut replies = Vec::new();
        for piece in bytes.chunks(PIECE) {
            replies.extend(self.stream.say(NOW, piece));
            self.unread_bytes_max = self.unread_bytes_max.max(self.stream.unread_bytes());
        }
        String::from_utf8_lossy(&replies).into_owned()
    }

    /// Sends so many bytes of a value.
    pub(crate) fn say_bytes(&mut self, count: usize) -> String {
        let piece = vec![b'v'; PIECE.min(count)];
        let mut replies: String = (0..count / piece.len()).map(|_| self.say(&piece)).collect();
        replies += &self.say(&piece[..count % piece.len()]);
        replies
    }
}
