//! Any datagrams to the memcached service: every reply is well-formed, bounded, and whole or absent.
//!
//! The input is cut into datagrams at each 0xff 0xff. One whose first byte is odd is taken as it is, others get a
//! good frame header, so that most reach the parser.

#![no_main]

use dataplane::limits::MEMCACHED_DATAGRAM_BYTES_MAX;
use dataplane::protocol::memcached::conversation::{
    CollectedReplies, DatagramConversation, reassemble, roomy_setup,
};
use dataplane::protocol::memcached::udp::FrameHeader;
use dataplane::service::{Service, ServiceSetup};
use dataplane::time::Now;
use libfuzzer_sys::fuzz_target;

const REPLY_BYTES_MAX: usize = 5000;

fuzz_target!(|input: &[u8]| {
    let mut server =
        DatagramConversation::new(&ServiceSetup { reply_bytes_max: REPLY_BYTES_MAX, ..roomy_setup() });
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
});
