//! Any bytes as a stream, in pieces and with a small send buffer: the replies are those of the whole at once.
//!
//! The input's first two bytes choose the size of the send buffer and of the pieces.

#![no_main]

use dataplane::metrics::DropReason;
use dataplane::protocol::memcached::conversation::{Conversation, roomy_setup};
use dataplane::protocol::memcached::stream::OUTPUT_BYTES_MIN;
use dataplane::service::ServiceSetup;
use dataplane::table::model::ModelTable;
use dataplane::time::Now;
use libfuzzer_sys::fuzz_target;

const NOW: Now = Now { monotonic_ns: 0, unix_ms: 1_700_000_000_000 };

/// Every item fits the smallest send buffer.
const ITEM_BYTES_MAX: usize = OUTPUT_BYTES_MIN / 2;

fuzz_target!(|input: &[u8]| {
    let [size, piece, bytes @ ..] = input else { return };
    let conversation = |reply_bytes_max| {
        let setup = ServiceSetup { reply_bytes_max, item_bytes_max: ITEM_BYTES_MAX, ..roomy_setup() };
        Conversation::new(ModelTable::new(), &setup)
    };
    let mut whole = conversation(roomy_setup().reply_bytes_max);
    let expected = whole.say(NOW, bytes);
    let mut pieces = conversation(OUTPUT_BYTES_MIN + usize::from(*size));
    let replies: Vec<u8> =
        bytes.chunks(usize::from(*piece) + 1).flat_map(|bytes| pieces.say(NOW, bytes)).collect();
    // What is joined can outgrow the small send buffer.
    if pieces.metrics.drops(DropReason::ReplyTooLarge) == 0 {
        assert_eq!(replies.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(pieces.closed, whole.closed);
    }
});
