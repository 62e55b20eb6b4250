//! What a stream of memcached may send and how much of it is kept: every bound as a client sees it, with the daemon's
//! default limits.

mod limits_support;

use dataplane::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use dataplane::metrics::OpKind;
use dataplane::protocol::memcached::parse::{GET_LINE_BYTES_MAX, LINE_BYTES_MAX};
use dataplane::protocol::memcached::stream::{INPUT_BYTES_MAX, MemcachedStreams};

use limits_support::{Client, NOW, PIECE};

const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";
const LINE_TOO_LONG: &str = "CLIENT_ERROR line too long\r\n";

#[test]
fn a_value_of_a_mebibyte_fits_under_every_key_and_a_larger_one_is_a_clear_error() {
    for key in ["k".repeat(KEY_BYTES_MAX), "k".to_string()] {
        for meta in [false, true] {
            let line = |bytes: usize| match meta {
                true => format!("ms {key} {bytes} c\r\n"),
                false => format!("set {key} 0 0 {bytes}\r\n"),
            };
            let stored = |reply: &str| if meta { reply.starts_with("HD c") } else { reply == "STORED\r\n" };
            let mut client = Client::new(MemcachedStreams::new);
            for bytes in [VALUE_BYTES_MAX - 1, VALUE_BYTES_MAX] {
                assert_eq!(client.say(line(bytes).as_bytes()), "");
                assert_eq!(client.say_bytes(bytes), "");
                let reply = client.say(b"\r\n");
                assert!(stored(&reply), "{bytes} bytes: {reply}");
                assert_eq!(client.say(format!("mg {key} s\r\n").as_bytes()), format!("HD s{bytes}\r\n"));
            }
            let item = client.say(format!("get {key}\r\n").as_bytes());
            let value = "v".repeat(VALUE_BYTES_MAX);
            assert!(item == format!("VALUE {key} 0 {VALUE_BYTES_MAX}\r\n{value}\r\nEND\r\n"));
            assert!(client.unread_bytes_max <= INPUT_BYTES_MAX);
            // Of a larger one no byte is kept, and none is taken for a command.
            client.unread_bytes_max = 0;
            for bytes in [VALUE_BYTES_MAX + 1, 1 << 30] {
                let refused = client.say(line(bytes).as_bytes());
                assert_eq!(refused, TOO_LARGE, "{bytes} bytes");
                assert_eq!(client.say_bytes(bytes), "");
                assert_eq!(client.say(b"\r\nmn\r\n"), "MN\r\n");
                // Nobody reads a value that its writer believes replaced.
                assert_eq!(client.say(format!("mg {key} s\r\n").as_bytes()), "EN\r\n");
            }
            assert_eq!(client.unread_bytes_max, 0);
        }
    }
}

#[test]
fn what_is_announced_and_cannot_be_is_refused_as_memcached_does() {
    for length in ["2147483646", "4294967296", "18446744073709551616", "-1", "1e9"] {
        let mut client = Client::new(MemcachedStreams::new);
        let refusal = "CLIENT_ERROR bad command line format\r\n";
        assert_eq!(
            client.say(format!("set k 0 0 {length}\r\nmn\r\n").as_bytes()),
            format!("{refusal}MN\r\n")
        );
    }
}

#[test]
fn a_line_without_an_end_is_kept_up_to_its_bound_and_no_further() {
    for (line, bound) in [
        (vec![b'x'; 1 << 20], LINE_BYTES_MAX),
        (vec![b' '; 1 << 20], LINE_BYTES_MAX),
        (b"set ".repeat(1 << 18), LINE_BYTES_MAX),
        (b"mg k ".repeat(1 << 18), LINE_BYTES_MAX),
        ([b"get".to_vec(), b" k".repeat(1 << 19)].concat(), GET_LINE_BYTES_MAX),
        ([b"gats 0".to_vec(), b" k".repeat(1 << 19)].concat(), GET_LINE_BYTES_MAX),
    ] {
        let name = line[..8].escape_ascii().to_string();
        // A byte at a time up to the bound: nothing is said before it, and the error at once behind it.
        let mut client = Client::new(MemcachedStreams::new);
        for byte in &line[..bound - 1] {
            assert_eq!(client.say(&[*byte]), "", "{name}");
        }
        assert_eq!(client.unread_bytes_max, bound - 1, "{name}");
        assert_eq!(client.say(&line[bound - 1..]), LINE_TOO_LONG, "{name}");
        assert!(client.stream.closed, "{name}");
        // And all of it at once.
        let mut client = Client::new(MemcachedStreams::new);
        assert_eq!(client.say(&line), LINE_TOO_LONG, "{name}");
        assert!(client.stream.closed && client.unread_bytes_max <= PIECE, "{name}");
    }
}

/// What `protocol_binary.h` calls a version, a no-op, and a get of `Hello` with an opaque.
const BINARY_REQUESTS: [&[u8]; 3] = [
    b"\x80\x0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x80\x0a\0\0\0\0\0\0\0\0\0\0\xde\xad\xbe\xef\0\0\0\0\0\0\0\0",
    b"\x80\x00\0\x05\0\0\0\0\0\0\0\x05\n\r\n\x01\0\0\0\0\0\0\0\0Hello",
];

#[test]
fn a_client_of_the_binary_protocol_is_told_in_its_own_words_that_it_is_not_spoken() {
    const TEXT: &[u8] = b"Unknown command: only the text protocol is spoken here";
    for request in BINARY_REQUESTS {
        for before in [&b""[..], b"mn\r\n"] {
            let mut client = Client::new(MemcachedStreams::new);
            let replies_before = client.say(before);
            assert_eq!(client.stream.say(NOW, &request[..23]), b"", "its header is not there");
            // Whatever follows: nothing behind it is understood.
            let reply = client.stream.say(NOW, &[&request[23..], b"mn\r\n"].concat());
            let (opcode, opaque) = (request[1], &request[12..16]);
            let header = [&[0x81, opcode, 0, 0, 0, 0, 0, 0x81, 0, 0, 0, 54], opaque, &[0; 8]].concat();
            assert_eq!(reply.escape_ascii().to_string(), [&header, TEXT].concat().escape_ascii().to_string());
            assert!(client.stream.closed);
            assert_eq!(replies_before.len(), before.len());
            assert_eq!(client.stream.metrics.requests(OpKind::Invalid), 1);
        }
    }
}
