//! Any datagrams to the memcached service: every reply is well-formed, bounded, and whole or absent, and the table is
//! in order afterwards.
//!
//! The input's first byte chooses the table: the model, or a memory table so small that a few items fill it. The rest
//! is cut into datagrams at each 0xff 0xff. One whose first byte is odd is taken as it is, others get a good frame
//! header, so that most reach the parser.

#![no_main]

use dataplane::limits::MEMCACHED_DATAGRAM_BYTES_MAX;
use dataplane::memory::Placement;
use dataplane::protocol::memcached::conversation::{
    CollectedReplies, DatagramConversation, reassemble, roomy_setup,
};
use dataplane::protocol::memcached::udp::FrameHeader;
use dataplane::service::{Service, ServiceSetup};
use dataplane::table::Table;
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::{NS_PER_MS, Now};
use libfuzzer_sys::fuzz_target;

const REPLY_BYTES_MAX: usize = 5000;

const ITEM_BYTES_MAX: u32 = 1_000;

fn setup() -> ServiceSetup {
    ServiceSetup {
        reply_bytes_max: REPLY_BYTES_MAX,
        item_bytes_max: ITEM_BYTES_MAX as usize,
        ..roomy_setup()
    }
}

fn tiny_table() -> MemoryTable {
    let config = MemoryTableConfig {
        capacity_bytes: 8_000,
        item_bytes_max: ITEM_BYTES_MAX,
        expected_item_bytes: 64,
        placement: Placement::default(),
    };
    MemoryTable::with_hash_seed(config, 1).expect("a tiny table")
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else { return };
    if choice & 1 == 0 {
        ask_all(&mut DatagramConversation::new(&setup()), input);
    } else {
        let mut server = DatagramConversation::with_table(tiny_table(), &setup());
        ask_all(&mut server, input);
        server.table.verify();
    }
});

fn ask_all<T: Table>(server: &mut DatagramConversation<T>, input: &[u8]) {
    let mut now = Now { monotonic_ns: 0, unix_ms: 1_700_000_000_000 };
    let mut rest = input;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == [0xff, 0xff]).unwrap_or(rest.len());
        let (datagram, behind) = rest.split_at(end);
        rest = behind.get(2..).unwrap_or_default();
        let Some((&mode, bytes)) = datagram.split_first() else { continue };
        let payload = if mode & 1 == 1 {
            bytes.to_vec()
        } else {
            let header = FrameHeader { request_id: u16::from(mode), sequence: 0, total: 1 };
            [&header.to_bytes()[..], bytes].concat()
        };
        now.unix_ms += u64::from(mode) * 100;
        now.monotonic_ns += u64::from(mode) * 100 * NS_PER_MS;
        server.table.poll(now, &mut |_, _| {});

        let room = usize::from(mode >> 2 & 7);
        let mut replies = CollectedReplies { room, ..CollectedReplies::default() };
        server.datagram(now, &payload, &mut replies);
        let sent: usize = replies.datagrams.iter().map(Vec::len).sum();
        assert!(sent <= REPLY_BYTES_MAX);
        assert!(replies.datagrams.iter().all(|datagram| datagram.len() <= MEMCACHED_DATAGRAM_BYTES_MAX));
        match FrameHeader::split(&payload) {
            Some((header, _)) => {
                let text = reassemble(header.request_id, &replies.datagrams).expect("well-formed");
                assert!(text.is_empty() || text.ends_with(b"\r\n"));
            }
            None => assert!(replies.datagrams.is_empty()),
        }
        let mut line = [0; 64];
        let length = server.service.unavailable(&payload, &mut line);
        assert!(length == 0 || (length > 8 && line[..length].ends_with(b"\r\n")));
    }
}
