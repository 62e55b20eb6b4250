//! Any bytes as a stream of RESP requests, in pieces and with a small send buffer: the replies are those of the whole at
//! once, on the model's table and on a memory table.
//!
//! The input's first two bytes choose the size of the send buffer and of the pieces.

#![no_main]

use dataplane::memory::Placement;
use dataplane::protocol::resp::connection::OUTPUT_BYTES_MIN;
use dataplane::protocol::resp::conversation::{Conversation, roomy_setup};
use dataplane::service::ServiceSetup;
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::model::ModelTable;
use dataplane::time::Now;
use libfuzzer_sys::fuzz_target;

const NOW: Now = Now { monotonic_ns: 0, unix_ms: 1_700_000_000_000 };

/// Every item fits the smallest send buffer, but for what joins.
const ITEM_BYTES_MAX: usize = OUTPUT_BYTES_MIN / 2;

fuzz_target!(|input: &[u8]| {
    let [size, piece, bytes @ ..] = input else { return };
    let setup = ServiceSetup { item_bytes_max: ITEM_BYTES_MAX, ..roomy_setup() };
    let capacity = OUTPUT_BYTES_MIN + usize::from(*size);
    let mut whole = Conversation::with_capacity(ModelTable::new(), &setup, capacity);
    let expected = whole.say(NOW, bytes);
    let mut pieces = Conversation::with_capacity(ModelTable::new(), &setup, capacity);
    let replies: Vec<u8> =
        bytes.chunks(usize::from(*piece) + 1).flat_map(|bytes| pieces.say(NOW, bytes)).collect();
    assert_eq!(replies.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!(pieces.closed, whole.closed);
    let config = MemoryTableConfig {
        capacity_bytes: 1 << 20,
        item_bytes_max: ITEM_BYTES_MAX as u32,
        expected_item_bytes: 500,
        placement: Placement::default(),
    };
    // Order, random keys and the table's sizes are its own: here it is enough that all promises are kept.
    Conversation::with_capacity(MemoryTable::new(config).expect("a table"), &setup, capacity).say(NOW, bytes);
});
