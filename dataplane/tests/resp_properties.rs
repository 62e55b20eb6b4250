//! What holds of the RESP parser for every input: requests whole, in pieces, and not requests at all.

use dataplane::protocol::resp::inline::Scratch;
use dataplane::protocol::resp::parse::{Parsed, Place, ProtocolError, parse};
use dataplane::protocol::resp::swallow::{Swallow, Swallowed, TooLarge};
use dataplane::protocol::resp::{
    ARGUMENTS_MAX, BULK_BYTES_MAX, INPUT_BYTES_MAX, LINE_BYTES_MAX, NUMBER_LINE_BYTES_MAX,
    SWALLOWED_BYTES_MAX,
};
use proptest::prelude::*;

/// A request as clients send it.
fn array(arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.len()).bytes());
        bytes.extend(argument);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// What was read of a stream: requests, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    requests: Vec<Vec<Vec<u8>>>,
    refused: Vec<TooLarge>,
    error: Option<ProtocolError>,
    unread: usize,
}

/// Reads bytes that come in such pieces, over and over.
fn read(bytes: &[u8], pieces: &[usize]) -> Read {
    let mut read = Read::default();
    let (mut scratch, mut place) = (Scratch::default(), Place::default());
    let (mut start, mut end, mut wanted) = (0, 0, 0);
    let mut swallow: Option<Swallow> = None;
    let mut pieces = pieces.iter().cycle();
    while end < bytes.len() && read.error.is_none() {
        end = bytes.len().min(end + pieces.next().expect("it cycles"));
        while end - start > wanted.max(1) - 1 {
            wanted = 0;
            if let Some(large) = &mut swallow {
                match large.advance(&bytes[start..end]) {
                    Ok(Swallowed::Whole(consumed)) => {
                        read.refused.push(large.why());
                        start += consumed;
                        swallow = None;
                    }
                    Ok(Swallowed::Part(consumed, more)) => {
                        start += consumed;
                        assert!(more > end - start && more <= NUMBER_LINE_BYTES_MAX + 3);
                        wanted = more;
                    }
                    Err(error) => {
                        read.error = Some(error);
                        break;
                    }
                }
                continue;
            }
            match parse(&bytes[start..end], &mut place, &mut scratch) {
                Parsed::Request(arguments, consumed) => {
                    assert!(consumed > 0 && consumed <= end - start && place == Place::default());
                    assert_eq!(arguments.len(), arguments.count());
                    assert!(arguments.len() > 0, "a request has a name");
                    read.requests.push(arguments.map(<[u8]>::to_vec).collect());
                    start += consumed;
                }
                Parsed::Nothing(consumed) => {
                    assert!(consumed > 0 && consumed <= end - start && place == Place::default());
                    start += consumed;
                }
                Parsed::Incomplete(bytes) => {
                    assert!(bytes > end - start && bytes <= INPUT_BYTES_MAX, "{bytes} of {}", end - start);
                    wanted = bytes;
                }
                Parsed::TooLarge(large, consumed) => {
                    assert!(consumed > 0 && consumed <= end - start && place == Place::default());
                    swallow = Some(large);
                    start += consumed;
                }
                Parsed::Invalid(error) => {
                    read.error = Some(error);
                    break;
                }
            }
        }
    }
    // Of a request that is read past nothing is kept.
    read.unread = if read.error.is_some() { 0 } else { bytes.len() - start };
    read
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..12),
        1 => prop::sample::select(vec!["$3", "*1\r\n", "\r\n", "GET", "-1"]).prop_map(|text| text.into()),
        1 => prop::collection::vec(any::<u8>(), 0..3000),
    ]
}

/// Bytes that look like requests often enough to get past the first checks.
fn bytes_like_requests() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::collection::vec(argument(), 1..5).prop_map(|arguments| array(&arguments)),
        4 => prop::sample::select(vec![
            "*", "$", "*1\r\n", "*2\r\n", "*0\r\n", "*-1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "$0\r\n\r\n", "PING\r\n", "set a b\n",
            "\"q \\x41\" 'x'\r\n", "\"", "'", "\r", "\n", "\r\n", " ", "\0", "99999999999999999999", "1048577\r\n",
        ])
        .prop_map(|text| text.into()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn requests_are_read_as_they_were_written(
        requests in prop::collection::vec(prop::collection::vec(argument(), 1..6), 0..6),
        pieces in prop::collection::vec(1usize..400, 1..6),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(|arguments| array(arguments)).collect();
        prop_assert_eq!(read(&bytes, &pieces), Read { requests, ..Read::default() });
    }

    #[test]
    fn words_are_read_as_they_were_quoted(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6)) {
        let quoted = |word: &Vec<u8>| -> String { word.iter().map(|byte| format!("\\x{byte:02x}")).collect() };
        let line = words.iter().map(|word| format!("\"{}\"", quoted(word))).collect::<Vec<_>>().join(" ") + "\r\n";
        prop_assert_eq!(read(line.as_bytes(), &[7]), Read { requests: vec![words], ..Read::default() });
    }

    #[test]
    fn whatever_comes_is_read_alike_in_pieces_and_whole(bytes in bytes_like_requests(), pieces in prop::collection::vec(1usize..40, 1..20)) {
        prop_assert_eq!(read(&bytes, &pieces), read(&bytes, &[bytes.len().max(1)]));
    }
}

/// The error that ends these bytes.
fn error(bytes: &[u8]) -> Option<ProtocolError> {
    let whole = read(bytes, &[bytes.len()]);
    // Large enough not to take long, and no divisor of anything.
    assert_eq!(read(bytes, &[997]).error, whole.error);
    whole.error
}

/// What of the requests in these bytes is too large to be kept; a request behind them is read as ever.
fn refused(bytes: &[u8]) -> Vec<TooLarge> {
    let behind = array(&[b"PING".to_vec()]);
    let bytes = [bytes, &behind].concat();
    let whole = read(&bytes, &[bytes.len()]);
    assert_eq!((whole.unread, &whole.error), (0, &None));
    assert_eq!(whole.requests, [[b"PING".to_vec()]]);
    assert_eq!(read(&bytes, &[997]), whole);
    whole.refused
}

#[test]
fn every_bound_is_kept_and_no_closer() {
    let long = "9".repeat(NUMBER_LINE_BYTES_MAX + 3);
    assert_eq!(error(&vec![b'x'; LINE_BYTES_MAX]), None);
    assert_eq!(error(&vec![b'x'; LINE_BYTES_MAX + 2]), Some(ProtocolError::InlineTooLong));
    assert_eq!(error(format!("*{long}").as_bytes()), Some(ProtocolError::CountTooLong));
    assert_eq!(error(format!("*1\r\n${long}").as_bytes()), Some(ProtocolError::LengthTooLong));
    assert_eq!(error(format!("*{}\r\n", ARGUMENTS_MAX + 1).as_bytes()), Some(ProtocolError::Count));
    assert_eq!(error(format!("*1\r\n${BULK_BYTES_MAX}\r\n").as_bytes()), None);
    assert_eq!(error(format!("*1\r\n${SWALLOWED_BYTES_MAX}\r\n").as_bytes()), None);
    assert_eq!(
        error(format!("*1\r\n${}\r\n", SWALLOWED_BYTES_MAX + 1).as_bytes()),
        Some(ProtocolError::Length)
    );
    assert_eq!(
        refused(&array(&[b"SET".to_vec(), b"key".to_vec(), vec![b'v'; BULK_BYTES_MAX + 1]])),
        [TooLarge::Argument]
    );
    // Three of the longest arguments are more than a request takes.
    let argument = vec![b'v'; BULK_BYTES_MAX];
    let two = [b"SET".to_vec(), b"key".to_vec(), argument.clone()];
    assert_eq!(read(&array(&two), &[1 << 14]), Read { requests: vec![two.to_vec()], ..Read::default() });
    assert_eq!(refused(&array(&[argument.clone(), argument.clone(), argument])), [TooLarge::Request]);
    assert_eq!(
        refused(&array(&[vec![b'v'; BULK_BYTES_MAX], vec![b'v'; BULK_BYTES_MAX], Vec::new()])),
        [TooLarge::Request]
    );
    // So many arguments need more bytes than a request has, which is known before they come, whatever they are.
    assert_eq!(refused(&array(&vec![Vec::new(); 400_000])), [TooLarge::Request]);
    assert_eq!(error(b"*400000\r\n$x\r\n"), Some(ProtocolError::Length));
    assert_eq!(error(b"*400000\r\n$0\r\n\r\n:1\r\n"), Some(ProtocolError::NoBulk(b':')));
    assert_eq!(error(format!("*{ARGUMENTS_MAX}\r\n$").as_bytes()), None);
}
