//! Any bytes through the RESP parser, whole and in pieces: what is read is the same, and within its bounds.
//!
//! The input's first byte chooses the size of the pieces.

#![no_main]

use dataplane::protocol::resp::inline::Scratch;
use dataplane::protocol::resp::parse::{Parsed, Place, ProtocolError, parse};
use dataplane::protocol::resp::swallow::{Swallow, Swallowed};
use dataplane::protocol::resp::{BULK_BYTES_MAX, INPUT_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

/// The requests in a stream that comes in pieces, and the error that ends it.
fn read(bytes: &[u8], piece: usize) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let (mut scratch, mut place) = (Scratch::default(), Place::default());
    let mut requests = Vec::new();
    let mut swallow: Option<Swallow> = None;
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        end = bytes.len().min(end + piece);
        loop {
            let unread = &bytes[start..end];
            if let Some(large) = &mut swallow {
                match large.advance(unread) {
                    Ok(Swallowed::Whole(consumed)) => {
                        requests.push(vec![format!("{:?}", large.why()).into_bytes()]);
                        start += consumed;
                        swallow = None;
                        continue;
                    }
                    Ok(Swallowed::Part(consumed, wanted)) => {
                        assert!(wanted > unread.len() - consumed && wanted <= INPUT_BYTES_MAX);
                        start += consumed;
                        break;
                    }
                    Err(error) => return (requests, Some(error)),
                }
            }
            match parse(unread, &mut place, &mut scratch) {
                Parsed::Request(arguments, consumed) => {
                    assert!((1..=unread.len()).contains(&consumed));
                    let count = arguments.len();
                    let arguments: Vec<Vec<u8>> = arguments.map(<[u8]>::to_vec).collect();
                    assert!(count > 0 && arguments.len() == count);
                    assert!(arguments.iter().all(|argument| argument.len() <= BULK_BYTES_MAX));
                    requests.push(arguments);
                    start += consumed;
                }
                Parsed::Nothing(consumed) => {
                    assert!((1..=unread.len()).contains(&consumed));
                    start += consumed;
                }
                Parsed::Incomplete(wanted) => {
                    assert!(wanted > unread.len() && wanted <= INPUT_BYTES_MAX);
                    break;
                }
                Parsed::TooLarge(large, consumed) => {
                    assert!((1..=unread.len()).contains(&consumed));
                    swallow = Some(large);
                    start += consumed;
                }
                Parsed::Invalid(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fuzz_target!(|input: &[u8]| {
    let [piece, bytes @ ..] = input else { return };
    assert_eq!(read(bytes, usize::from(*piece) + 1), read(bytes, bytes.len().max(1)));
});
