//! One recorded stream of requests, replayed every way a request can come, gets the same bytes back every time: UDP and
//! TCP past the kernel, by the sockets beside that, and by ordinary sockets alone, and datagrams and streams on the simulated
//! wire. Needs root and `ip` (iproute2).
//!
//! The record is made anew each time, from a fixed seed and a part written by hand, by asking a service in this very
//! process; what it answered is what every way must answer. Each way begins with an empty table of the same size and has
//! one client, so that CAS numbers, the client's number and all else that counts come out alike and are compared too.
//!
//! Left out of the record, or pinned, because time or the transport has its part in it:
//!
//! | what | |
//! |---|---|
//! | seconds left and seconds since (`t`, `l`, `exp=`, `la=`; `TTL` and its like) | asked for, and the number left out of the comparison unless it is -1 or -2 |
//! | `stats`; `INFO` of server, clients, memory and stats; `CLIENT INFO`, `CLIENT LIST` | left out: clocks, addresses and counts of the way itself |
//! | the order of `KEYS` and `SCAN` | sorted, and a walk takes all in one step: a table's hash has a secret. `RANDOMKEY` is asked with one key there |
//! | requests of more than one datagram, replies beyond `reply_max`, several messages at once, a value of the wrong length | left out of memcached's record: datagrams and streams differ on purpose (docs/memcached.md) |
//! | `quit`, `QUIT` | the last request; a stream ends with it |

#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../differential_support/mod.rs"]
mod differential_support;
#[path = "../memcached_support/generate.rs"]
mod memcached_generate;
#[path = "../resp_support/mod.rs"]
mod resp_support;
#[path = "../tcp_support/mod.rs"]
mod tcp_support;

mod daemon;
mod memcached_record;
mod record;
mod resp_record;
mod simulated;

use record::{Exchange, Protocol};

/// A client that came some way.
trait Client {
    /// Sends a request; all that is replied to it, which may be nothing.
    fn ask(&mut self, request: &[u8]) -> Vec<u8>;

    /// Sends the last request; all that is replied to it. A stream then has ended.
    fn part(&mut self, request: &[u8]) -> Vec<u8>;
}

/// A way to an empty table: its name, and what is to be done with a client that came it.
type Way = (&'static str, fn(Protocol, &mut dyn FnMut(&mut dyn Client)));

const DATAGRAMS: [Way; 4] = [
    ("bypass UDP", daemon::bypass_datagrams),
    ("the companion's UDP", daemon::companion_datagrams),
    ("kernel UDP", daemon::kernel_datagrams),
    ("datagrams on the simulated wire", simulated::datagrams),
];

const STREAMS: [Way; 4] = [
    ("bypass TCP", daemon::bypass_stream),
    ("the companion's TCP", daemon::companion_stream),
    ("kernel TCP", daemon::kernel_stream),
    ("a stream on the simulated wire", simulated::stream),
];

fn replay(protocol: Protocol, record: &[Exchange], ways: &[Way]) {
    let (last, exchanges) = record.split_last().expect("it is not empty");
    for (way, come) in ways {
        let mut replayed = 0;
        come(protocol, &mut |client| {
            for (number, exchange) in exchanges.iter().enumerate() {
                exchange.assert_answered(way, number, &client.ask(&exchange.request));
                replayed += 1;
            }
            last.assert_answered(way, exchanges.len(), &client.part(&last.request));
        });
        assert_eq!(replayed, exchanges.len(), "{way} was gone to its end");
    }
}

#[test]
fn memcached_answers_alike_whichever_way_it_is_asked() {
    let record = memcached_record::record();
    replay(Protocol::Memcached, &record, &DATAGRAMS);
    replay(Protocol::Memcached, &record, &STREAMS);
}

#[test]
fn resp_answers_alike_whichever_way_it_is_asked() {
    replay(Protocol::Resp, &resp_record::record(), &STREAMS);
}
