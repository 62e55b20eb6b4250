//! What a stream of RESP may send and how much of it is kept: every bound as a client sees it, with the daemon's default
//! limits.

mod differential_support;
mod limits_support;
mod resp_support;

use dataplane::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use dataplane::protocol::resp::{
    ARGUMENTS_MAX, INPUT_BYTES_MAX, LINE_BYTES_MAX, NUMBER_LINE_BYTES_MAX, Resp, SWALLOWED_BYTES_MAX,
};
use limits_support::{Client, PIECE};
use resp_support::request;

const TOO_LARGE: &str = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n";

/// What is asked of a client of RESP.
trait Ask {
    fn set(&mut self, key: &str, bytes: usize) -> String;
    fn ask(&mut self, line: &str) -> String;
}

impl Ask for Client<Resp> {
    fn set(&mut self, key: &str, bytes: usize) -> String {
        let head = format!("*5\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n", key.len());
        let mut replies = self.say(head.as_bytes());
        replies += &self.say_bytes(bytes);
        replies + &self.say(b"\r\n$2\r\nEX\r\n$3\r\n100\r\n")
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(&request(&line.split(' ').collect::<Vec<_>>()))
    }
}

#[test]
fn a_value_of_a_mebibyte_fits_under_every_key_and_a_larger_one_is_a_clear_error() {
    for key in ["k".repeat(KEY_BYTES_MAX), "k".to_string()] {
        let mut client = Client::new(Resp::new);
        for bytes in [VALUE_BYTES_MAX - 1, VALUE_BYTES_MAX] {
            assert_eq!(client.set(&key, bytes), "+OK\r\n", "{bytes} bytes");
            assert_eq!(client.ask(&format!("STRLEN {key}")), format!(":{bytes}\r\n"));
        }
        let value = "v".repeat(VALUE_BYTES_MAX);
        assert!(client.ask(&format!("GET {key}")) == format!("${VALUE_BYTES_MAX}\r\n{value}\r\n"));
        assert_eq!(client.ask(&format!("APPEND {key} v")), TOO_LARGE);
        assert_eq!(client.ask(&format!("SETRANGE {key} {VALUE_BYTES_MAX} v")), TOO_LARGE);
        assert!(client.unread_bytes_max <= INPUT_BYTES_MAX);
        // Of a larger one no byte is kept, and none is taken for a request; the connection and the old value stay.
        client.unread_bytes_max = 0;
        for bytes in [VALUE_BYTES_MAX + 1, SWALLOWED_BYTES_MAX] {
            assert_eq!(client.set(&key, bytes), TOO_LARGE, "{bytes} bytes");
            assert_eq!(client.ask(&format!("STRLEN {key}")), format!(":{VALUE_BYTES_MAX}\r\n"));
        }
        assert!(client.unread_bytes_max < 64 + KEY_BYTES_MAX, "{} bytes", client.unread_bytes_max);
        // What no Redis would take as it comes is no value.
        assert_eq!(client.set(&key, 1 << 30), "-ERR Protocol error: invalid bulk length\r\n");
        assert!(client.stream.closed);
    }
}

#[test]
fn a_request_of_too_many_bytes_is_read_past() {
    let mut client = Client::new(Resp::new);
    let value = vec![b'v'; VALUE_BYTES_MAX];
    let mset = [&b"MSET"[..], b"a", &value, b"b", &value, b"c", &value];
    let refusal = "-ERR request is longer than this server takes: 2097152 bytes\r\n";
    assert_eq!(client.say(&request(&mset)), refusal);
    assert_eq!(client.ask("EXISTS a b c"), ":0\r\n");
    assert!(client.unread_bytes_max <= INPUT_BYTES_MAX, "{} bytes", client.unread_bytes_max);
    // So many arguments have no room, whatever they are: of them nothing is kept at all.
    client.unread_bytes_max = 0;
    assert_eq!(client.say(&request(&vec!["DEL"; ARGUMENTS_MAX])), refusal);
    assert_eq!(client.ask("PING"), "+PONG\r\n");
    assert!(client.unread_bytes_max < 64, "{} bytes", client.unread_bytes_max);
}

/// What cannot become a request is refused within its bound and in Redis's words, and nothing of it is kept.
#[test]
fn what_has_no_end_is_kept_up_to_its_bound_and_no_further() {
    let nested = b"*1\r\n".repeat(1 << 18);
    for (bytes, bound, text) in [
        (vec![b'x'; 1 << 20], LINE_BYTES_MAX + 2, "too big inline request"),
        (vec![b'"'; 1 << 20], LINE_BYTES_MAX + 2, "too big inline request"),
        (vec![0x80; 1 << 20], LINE_BYTES_MAX + 2, "too big inline request"),
        (
            [b"*".to_vec(), vec![b'1'; 1 << 20]].concat(),
            NUMBER_LINE_BYTES_MAX + 3,
            "too big mbulk count string",
        ),
        (
            [b"*1\r\n$".to_vec(), vec![b'1'; 1 << 20]].concat(),
            NUMBER_LINE_BYTES_MAX + 7,
            "too big bulk count string",
        ),
        (b"*1048577\r\n".to_vec(), 10, "invalid multibulk length"),
        (b"*9223372036854775807\r\n".to_vec(), 22, "invalid multibulk length"),
        (b"*1\r\n$9223372036854775807\r\n".to_vec(), 26, "invalid bulk length"),
        (b"*1\r\n$-2\r\n".to_vec(), 9, "invalid bulk length"),
        // Requests do not nest, however deep; nothing recurses.
        (nested, 8, "expected '$', got '*'"),
        (b"*2\r\n$3\r\nGET\r\n%1\r\n".to_vec(), 17, "expected '$', got '%'"),
        (
            [b"*1\r\n".to_vec(), vec![b'x'; 1 << 20]].concat(),
            NUMBER_LINE_BYTES_MAX + 7,
            "expected '$', got 'x'",
        ),
        (b"*1\r\n*-1\r\n".to_vec(), 9, "expected '$', got '*'"),
    ] {
        let name = bytes[..8].escape_ascii().to_string();
        let expected = format!("-ERR Protocol error: {text}\r\n");
        let mut client = Client::new(Resp::new);
        for byte in &bytes[..bound - 1] {
            assert_eq!(client.say(&[*byte]), "", "{name}");
        }
        assert_eq!(client.say(&bytes[bound - 1..]), expected, "{name}, byte by byte");
        assert!(client.stream.closed && client.unread_bytes_max < bound, "{name}");
        let mut client = Client::new(Resp::new);
        assert_eq!(client.say(&bytes), expected, "{name}, at once");
        assert!(client.stream.closed && client.unread_bytes_max <= PIECE, "{name}");
    }
}
