//! What `docs/protocols.md` lists of replies.

use super::server::Release;

/// `get a <251 bytes>`
const TOO_LONG_KEY_SECOND: &str = concat!(
    "get a ",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    "\r\n"
);

/// A release that no memcached has yet: the difference is in every one looked at.
const NONE_YET: Release = Release([u32::MAX; 3]);

/// What it is, the commands, their last reply, ours, and the release from which on memcached answers as we do.
pub(crate) type Deviation = (&'static str, &'static [&'static str], &'static str, &'static str, Release);

/// Where we differ, on purpose.
pub(crate) const DEVIATIONS: &[Deviation] = &[
    (
        "a refused store's value is swallowed, not taken for commands",
        &["set a x 0 5\r\nhello\r\n"],
        "CLIENT_ERROR bad command line format\r\nERROR\r\n",
        "CLIENT_ERROR bad command line format\r\n",
        Release([1, 6, 40]),
    ),
    (
        "a read with a bad key reads nothing",
        &["set a 0 0 1\r\nx\r\n", TOO_LONG_KEY_SECOND, "mg a h\r\n"],
        "HD h1\r\n",
        "HD h0\r\n",
        NONE_YET,
    ),
    (
        "numbers that do not fit are refused, not cut to 32 bits",
        &["set a 4294967297 0 1\r\nx\r\n", "get a\r\n"],
        "VALUE a 1 1\r\nx\r\nEND\r\n",
        "END\r\n",
        NONE_YET,
    ),
    (
        "an expiry beyond 2038 is one, and does not wrap around",
        &["set a 0 4294967295 1\r\nx\r\n", "get a\r\n"],
        "END\r\n",
        "VALUE a 0 1\r\nx\r\nEND\r\n",
        NONE_YET,
    ),
    (
        "a shrinking number is not padded with spaces",
        &["set n 0 0 2\r\n10\r\n", "decr n 1\r\n", "get n\r\n"],
        "VALUE n 0 2\r\n9 \r\nEND\r\n",
        "VALUE n 0 1\r\n9\r\nEND\r\n",
        NONE_YET,
    ),
    (
        "a number is digits and nothing else",
        &["set n 0 0 3\r\n+1 \r\n", "incr n 1\r\n"],
        "2\r\n",
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        NONE_YET,
    ),
    (
        "a flush to come does not bring back what an earlier flush took",
        &["set a 0 0 1\r\nx\r\n", "flush_all\r\n", "flush_all 100\r\n", "get a\r\n"],
        "VALUE a 0 1\r\nx\r\nEND\r\n",
        "END\r\n",
        NONE_YET,
    ),
    (
        "a number that grows keeps its marks",
        &["set n 0 0 1\r\n9\r\n", "get n\r\n", "incr n 1\r\n", "mg n h\r\n"],
        "HD h0\r\n",
        "HD h1\r\n",
        NONE_YET,
    ),
    (
        "control characters are no part of a key",
        &["set a\tb 0 0 1\r\nx\r\n", "get a\tb\r\n"],
        "VALUE a\tb 0 1\r\nx\r\nEND\r\n",
        "CLIENT_ERROR bad command line format\r\n",
        NONE_YET,
    ),
    (
        "t tells the expiry after T, wherever T stands",
        &["set a 0 100 1\r\nx\r\n", "mg a t T0\r\n"],
        "HD t100\r\n",
        "HD t-1\r\n",
        NONE_YET,
    ),
    (
        "only canonical base64 is a key",
        &["mg Zh== b k\r\n"],
        "EN kZg== b\r\n",
        "CLIENT_ERROR error decoding key\r\n",
        NONE_YET,
    ),
    (
        "k repeats the key as the request had it",
        &["ms Zm9v 1 b\r\nx\r\n", "mg foo k\r\n"],
        "HD kZm9v b\r\n",
        "HD kfoo\r\n",
        NONE_YET,
    ),
    (
        "ma with q is quiet about a created number",
        &["delete n\r\n", "ma n N0 q\r\n"],
        "HD\r\n",
        "",
        Release([1, 6, 40]),
    ),
    (
        "the flags of newer releases are known",
        &["set a 0 0 1\r\nx\r\n", "ms a 1 E77 c\r\ny\r\n"],
        "CLIENT_ERROR invalid flag\r\n",
        "HD c77\r\n",
        Release([1, 6, 27]),
    ),
    ("there is nothing to tune", &["lru tune 10 25 0.1 2.0\r\n"], "OK\r\n", "ERROR\r\n", NONE_YET),
    (
        "items are not dumped",
        &["stats cachedump 1\r\n"],
        "CLIENT_ERROR bad command line\r\n",
        "CLIENT_ERROR stats cachedump not allowed\r\n",
        NONE_YET,
    ),
];
