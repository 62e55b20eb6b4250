//! Any bytes through the memcached parser, as a stream reader calls it.

#![no_main]

use dataplane::limits::{ITEM_BYTES_MAX, KEY_BYTES_MAX};
use dataplane::protocol::memcached::base64::DECODED_BYTES_MAX;
use dataplane::protocol::memcached::command::Command;
use dataplane::protocol::memcached::parse::{
    GET_LINE_BYTES_MAX, Incomplete, MESSAGE_BYTES_MAX, Parsed, parse,
};
use libfuzzer_sys::fuzz_target;

fn check_key(key: &[u8]) {
    assert!((1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(|&byte| byte > b' ' && byte != 0x7f));
}

fn check(command: &Command<'_>, message: &[u8]) {
    match command {
        Command::Get(get) => get.keys.for_each(check_key),
        Command::Store(store) => {
            check_key(store.key);
            assert!(message.ends_with(&[store.value, b"\r\n"].concat()));
        }
        Command::Delete { key, .. } | Command::Arithmetic { key, .. } | Command::Touch { key, .. } => {
            check_key(key);
        }
        Command::MetaGet(meta)
        | Command::MetaDelete(meta)
        | Command::MetaArithmetic { meta, .. }
        | Command::MetaStore { meta, .. } => {
            check_key(meta.key.word);
            // Panics if the parser let through what does not decode.
            let mut scratch = [0; DECODED_BYTES_MAX];
            let key = meta.key.bytes(&mut scratch);
            assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
            assert!(meta.words.into_iter().all(|word| !word.is_empty()));
        }
        _ => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while !rest.is_empty() {
        let skip = match parse(rest, ITEM_BYTES_MAX) {
            Parsed::Command(command, consumed) => {
                assert!((1..=rest.len()).contains(&consumed));
                check(&command, &rest[..consumed]);
                // Nothing behind a message changes it.
                assert!(
                    matches!(parse(&rest[..consumed], ITEM_BYTES_MAX), Parsed::Command(_, again) if again == consumed)
                );
                assert!(matches!(parse(&rest[..consumed - 1], ITEM_BYTES_MAX), Parsed::Incomplete(_)));
                consumed
            }
            Parsed::Invalid(error) => {
                assert!(error.skip_bytes > 0 && error.line.ends_with(b"\r\n"));
                if error.fatal {
                    return;
                }
                error.skip_bytes
            }
            Parsed::Incomplete(Incomplete::Line) => {
                assert!(rest.len() < GET_LINE_BYTES_MAX);
                return;
            }
            Parsed::Incomplete(Incomplete::Value { bytes, .. }) => {
                assert!(bytes > rest.len() && bytes <= MESSAGE_BYTES_MAX);
                return;
            }
        };
        rest = rest.get(skip..).unwrap_or_default();
    }
});
