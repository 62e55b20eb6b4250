//! Bytes that are no requests, over TCP: each is answered with the protocol's error or a close, memory is bounded, and who
//! speaks sense beside it is served.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::daemon_support::SOON;
use crate::daemon_support::bed::{Bed, Place, Transport, over_every_transport};
use crate::traffic::{self, Dice, Load};

over_every_transport!(nonsense_is_answered_with_an_error_or_a_close);

/// Connections on which each thing is said at once.
const SPEAKERS: usize = 40;
/// What all that is said may take of the daemon's memory at any time: long input is held of a few connections only.
const MEMORY_BYTES_MAX: u64 = 32 << 20;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The server closes it.
    Closed,
    /// It goes on.
    Open,
}

/// What is said, what is to be heard in the end, and what becomes of it.
type Case = (&'static str, Vec<u8>, &'static str, End);

fn resp() -> Vec<Case> {
    let many = b"$1\r\na\r\n".repeat(500_000);
    let nested = b"*1\r\n".repeat(100_000);
    vec![
        (
            "a line without an end",
            vec![b'a'; 3 << 20],
            "-ERR Protocol error: too big inline request\r\n",
            End::Closed,
        ),
        (
            "a count without an end",
            [b"*".as_slice(), &[b'1'; 5_000]].concat(),
            "-ERR Protocol error: too big mbulk count string\r\n",
            End::Closed,
        ),
        (
            "a length without an end",
            [b"*1\r\n$".as_slice(), &[b'1'; 5_000]].concat(),
            "-ERR Protocol error: too big bulk count string\r\n",
            End::Closed,
        ),
        (
            "an absurd length",
            b"*2\r\n$3\r\nGET\r\n$99999999999999\r\n".to_vec(),
            "-ERR Protocol error: invalid bulk length\r\n",
            End::Closed,
        ),
        (
            "a length beyond 64 bits",
            b"*1\r\n$99999999999999999999999\r\n".to_vec(),
            "-ERR Protocol error: invalid bulk length\r\n",
            End::Closed,
        ),
        (
            "a negative length",
            b"*1\r\n$-7\r\n".to_vec(),
            "-ERR Protocol error: invalid bulk length\r\n",
            End::Closed,
        ),
        (
            "an absurd count",
            b"*2000000000\r\n".to_vec(),
            "-ERR Protocol error: invalid multibulk length\r\n",
            End::Closed,
        ),
        (
            "a count beyond 64 bits",
            b"*99999999999999999999999\r\n".to_vec(),
            "-ERR Protocol error: invalid multibulk length\r\n",
            End::Closed,
        ),
        (
            "a request too long",
            [b"*500000\r\n".as_slice(), &many].concat(),
            "-ERR request is longer than this server takes: 2097152 bytes\r\n",
            End::Open,
        ),
        ("arrays within arrays", nested, "-ERR Protocol error: expected '$', got '*'\r\n", End::Closed),
        (
            "an integer for an argument",
            b"*1\r\n:1\r\n".to_vec(),
            "-ERR Protocol error: expected '$', got ':'\r\n",
            End::Closed,
        ),
        (
            "quotes that do not match",
            b"SET k \"v\r\n".to_vec(),
            "-ERR Protocol error: unbalanced quotes in request\r\n",
            End::Closed,
        ),
        ("no command", b"\x16\x03\x01\x02\x00\r\n".to_vec(), "-ERR unknown command '", End::Open),
        ("the wrong protocol", b"set k 0 0 1\r\n".to_vec(), "-ERR syntax error\r\n", End::Open),
    ]
}

fn memcached() -> Vec<Case> {
    let large = [b"set k 0 0 2000000\r\n".as_slice(), &[b'v'; 2_000_000], b"\r\n"].concat();
    let keys = [b"get ".as_slice(), &b"k ".repeat(100_000)].concat();
    vec![
        ("a value too large", large, "SERVER_ERROR object too large for cache\r\n", End::Open),
        ("a line without an end", vec![b'a'; 3 << 20], "CLIENT_ERROR line too long\r\n", End::Closed),
        ("a read without an end", keys, "CLIENT_ERROR line too long\r\n", End::Closed),
        (
            "an absurd length",
            b"set k 0 0 99999999999999\r\n".to_vec(),
            "CLIENT_ERROR bad command line format\r\n",
            End::Open,
        ),
        (
            "a negative length",
            b"set k 0 0 -1\r\n".to_vec(),
            "CLIENT_ERROR bad command line format\r\n",
            End::Open,
        ),
        (
            "a length that is none",
            b"set k 0 0 many\r\n".to_vec(),
            "CLIENT_ERROR bad command line format\r\n",
            End::Open,
        ),
        (
            "a value beyond its length",
            b"set k 0 0 1\r\nabc\r\n".to_vec(),
            "CLIENT_ERROR bad data chunk\r\n",
            End::Open,
        ),
        ("no command", b"\x16\x03\x01\x02\r\n".to_vec(), "ERROR\r\n", End::Open),
        ("the wrong protocol", b"*1\r\n$4\r\nPING\r\n".to_vec(), "ERROR\r\n", End::Open),
    ]
}

/// Says it on many connections at once, and reads what comes until the answer is there and, where it is to be, the end.
fn say(place: Place<'_>, case: &Case, sense: (&[u8], &[u8])) {
    let (what, bytes, heard, end) = case;
    let mut streams: Vec<TcpStream> = place.run(|| {
        (0..SPEAKERS).map(|_| TcpStream::connect(place.server).expect("the server accepts")).collect()
    });
    std::thread::scope(|scope| {
        for stream in &mut streams {
            // The server may close while it still has to hear more: what it says is what counts.
            let mut writing = stream.try_clone().expect("a second handle");
            scope.spawn(move || {
                let _ = writing.write_all(bytes);
            });
        }
        for stream in &mut streams {
            stream.set_read_timeout(Some(SOON)).expect("set");
            let mut got = Vec::new();
            let mut buffer = [0; 4_096];
            let closed = loop {
                let said = String::from_utf8_lossy(&got);
                if *end == End::Open && said.contains(heard) {
                    break End::Open;
                }
                match stream.read(&mut buffer) {
                    Ok(0) => break End::Closed,
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break End::Closed,
                    Err(error) => panic!("{what}: {error} after {:?}", got.escape_ascii().to_string()),
                }
            };
            let said = got.escape_ascii().to_string();
            assert_eq!(closed, *end, "{what}: heard {said}");
            // A reset may overtake the last words.
            let last_words =
                closed == End::Open || got.is_empty() || String::from_utf8_lossy(&got).contains(heard);
            assert!(last_words, "{what}: heard {said}");
        }
    });
    if *end == End::Open {
        let (request, answer) = sense;
        let stream = &mut streams[0];
        stream.write_all(request).expect("it goes on");
        let mut got = Vec::new();
        let mut buffer = [0; 4_096];
        while !got.ends_with(answer) {
            let count = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(count > 0, "{what}: it closed after {:?}", got.escape_ascii().to_string());
            got.extend_from_slice(&buffer[..count]);
        }
    }
}

fn nonsense_is_answered_with_an_error_or_a_close(transport: Transport) {
    let mut bed = Bed::start(transport);
    let memory = bed.resident_bytes();
    let over = AtomicBool::new(false);
    let load = Load { clients: 4, seed: 9, large_one_in: 10 };
    let beside = traffic::connect(bed.resp(), &load);
    let mut grown = 0;
    let figures = std::thread::scope(|scope| {
        let beside = scope.spawn(|| traffic::ask_all(beside, || !over.load(Ordering::Relaxed)));
        let mut said = || {
            for case in resp() {
                say(bed.resp(), &case, (b"ECHO sense\r\n", b"$5\r\nsense\r\n"));
                grown = grown.max(bed.resident_bytes().saturating_sub(memory));
            }
            for case in memcached() {
                say(bed.memcached(), &case, (b"mn\r\n", b"MN\r\n"));
                grown = grown.max(bed.resident_bytes().saturating_sub(memory));
            }
            noise(bed.resp());
            noise(bed.memcached());
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut said));
        over.store(true, Ordering::Relaxed);
        let figures = beside.join().expect("the clients beside");
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        figures
    });
    println!("{transport:?}: beside the nonsense {figures}; {} MiB more memory", grown >> 20);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes more");
    assert!(figures.answers() > 1_000, "{figures}");
    bed.assert_nothing_left();
}

/// Bytes without any sense: whatever they are answered, the server closes once it has them all and its client has closed.
fn noise(place: Place<'_>) {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let bytes: Vec<u8> = (0..dice.roll(5_000)).map(|_| dice.roll(256) as u8).collect();
        let mut stream = place.run(|| TcpStream::connect(place.server)).expect("the server accepts");
        stream.set_read_timeout(Some(SOON)).expect("set");
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut buffer = [0; 4_096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("noise {seed}: {error}"),
            }
        }
    }
}
