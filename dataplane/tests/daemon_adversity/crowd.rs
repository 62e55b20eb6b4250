//! Ten thousand connections: open, idle, then all active at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dataplane::testbed::requirements;

use crate::daemon_support::bed::{Bed, Transport, connections, over_every_transport};
use crate::traffic::{bulk, command};

over_every_transport!(ten_thousand_connections_are_open_idle_and_then_all_active);

const CROWD: usize = 10_000;
/// A frame that finds the worker's ring full is lost, and its client asks again after 200 ms, 400 ms and so on: with all of them
/// at once some wait for a while.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Descriptors beside those of the crowd.
const OTHERS: u64 = 256;
/// What a connection that is idle, or that has one short request under way, may take of the daemon's memory.
const MEMORY_BYTES_MAX: u64 = 8 << 10;

/// What one of them asks, and what it is to be answered.
fn exchange(number: usize, round: usize) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = (format!("crowd-{number}"), format!("{round}-{}", number * 7_919));
    let [key, value] = [key.as_bytes(), value.as_bytes()];
    let request = [command(&[b"SET", key, value]), command(&[b"GET", key])].concat();
    let mut answer = b"+OK\r\n".to_vec();
    bulk(value, &mut answer);
    (request, answer)
}

fn ten_thousand_connections_are_open_idle_and_then_all_active(transport: Transport) {
    requirements::open_files(CROWD as u64 + OTHERS).unwrap_or_else(|error| panic!("{error}"));
    let mut bed = Bed::start(transport);
    let memory = bed.resident_bytes();
    let place = bed.resp();
    let start = Instant::now();
    let mut crowd: Vec<TcpStream> = place
        .run(|| (0..CROWD).map(|_| TcpStream::connect(place.server).expect("the server accepts")).collect());
    let opened = start.elapsed();
    bed.wait_for("all to be connected", |status| connections(status) == CROWD as u64);
    let idle = bed.resident_bytes();
    let start = Instant::now();
    for round in 0..2 {
        for (number, stream) in crowd.iter_mut().enumerate() {
            stream.write_all(&exchange(number, round).0).expect("it takes a request");
        }
        println!("written {:?}", start.elapsed());
        for (number, stream) in crowd.iter_mut().enumerate() {
            let wanted = exchange(number, round).1;
            stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("set");
            let mut got = vec![0; wanted.len()];
            stream.read_exact(&mut got).unwrap_or_else(|error| panic!("{number}: {error}"));
            assert_eq!(got.escape_ascii().to_string(), wanted.escape_ascii().to_string(), "{number}");
        }
    }
    let asked = start.elapsed();
    println!("{:?}", bed.status().workers);
    let active = bed.resident_bytes();
    let grown = active.saturating_sub(memory);
    println!(
        "{transport:?}: {CROWD} connections open after {opened:?}, asked twice within {asked:?}; \
         memory {} MiB, idle {}, active {}",
        memory >> 20,
        idle >> 20,
        active >> 20
    );
    assert!(grown < CROWD as u64 * MEMORY_BYTES_MAX, "{grown} bytes more");
    assert_eq!(connections(&bed.status()), CROWD as u64);
    drop(crowd);
    bed.assert_nothing_left();
}
