//! What `docs/protocols.md` lists of replies.

/// Where we differ, on purpose: what it is, the requests, their last reply, ours.
pub(crate) type Deviation = (&'static str, &'static [&'static str], &'static str, &'static str);

pub(crate) const DEVIATIONS: &[Deviation] = &[
    (
        "a key has at least one byte",
        &["SET  x"],
        "+OK\r\n",
        "-ERR key of 0 bytes: a key has 1 to 250 bytes\r\n",
    ),
    (
        "a key has at most 250 bytes",
        &["GET LONG"],
        "$-1\r\n",
        "-ERR key of 251 bytes: a key has 1 to 250 bytes\r\n",
    ),
    (
        "keys are judged before anything is done",
        &["MGET a LONG"],
        "*2\r\n$-1\r\n$-1\r\n",
        "-ERR key of 251 bytes: a key has 1 to 250 bytes\r\n",
    ),
    (
        "fractions are added digit by digit",
        &["SET f 5000.1", "INCRBYFLOAT f 0.2"],
        "$22\r\n5000.30000000000000027\r\n",
        "$6\r\n5000.3\r\n",
    ),
    (
        "fractions have a range",
        &["SET f 1e21", "INCRBYFLOAT f 1"],
        "$22\r\n1000000000000000000000\r\n",
        "-ERR value is beyond the range of this server: 21 digits before the point\r\n",
    ),
    (
        "hexadecimal is no fraction",
        &["SET f 0x10", "INCRBYFLOAT f 1"],
        "$2\r\n17\r\n",
        "-ERR value is not a valid float\r\n",
    ),
    (
        "an expiry in ten thousand years is as good as a later one",
        &["SET a 1 PXAT 9223372036854775807", "PEXPIRETIME a"],
        ":9223372036854775807\r\n",
        ":281474976710654\r\n",
    ),
    (
        "a parameter is told by its own name",
        &["CONFIG GET SAVE"],
        "*2\r\n$4\r\nSAVE\r\n$0\r\n\r\n",
        "*2\r\n$4\r\nsave\r\n$0\r\n\r\n",
    ),
    (
        "a long name is refused",
        &["CLIENT SETNAME aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
        "+OK\r\n",
        "-ERR client name is longer than this server keeps: 64 bytes\r\n",
    ),
    (
        "libraries may tell their name, as in Redis 7.2",
        &["CLIENT SETINFO lib-name redis-py"],
        "-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n",
        "+OK\r\n",
    ),
    (
        "nothing is to be configured",
        &["CONFIG SET save x"],
        "-ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters\r\n",
        "-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n",
    ),
    (
        "there are strings alone",
        &["LPUSH l x"],
        ":1\r\n",
        "-ERR unknown command 'LPUSH', with args beginning with: 'l' 'x' \r\n",
    ),
];
