//! Limits, expiry, long replies and the link's MTU.

use std::net::SocketAddr;

use dataplane::metrics::{DropReason, OpKind};
use dataplane::net::rate_limit::RateLimiter;
use dataplane::port::sim::SimConfig;
use dataplane::simulation::{Scenario, Simulation};

use crate::model::{frame_header, framed, memcached};

fn client(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4_000 + number))
}

/// Asks and lets the worker answer. Returns the reply's datagrams, joined; `None` when there is none.
fn ask(simulation: &mut Simulation, message: &str) -> Option<String> {
    simulation.send(client(0), &framed(7, message.as_bytes()));
    simulation.settle();
    let datagrams: Vec<_> = std::iter::from_fn(|| simulation.receive()).collect();
    let text: Vec<u8> = datagrams.iter().flat_map(|(_, datagram)| datagram[8..].to_vec()).collect();
    (!datagrams.is_empty()).then(|| String::from_utf8(text).expect("text"))
}

/// Stores a value of so many bytes under `key`.
fn store(simulation: &mut Simulation, bytes: usize) {
    const PIECE: usize = 3_500;
    assert_eq!(ask(simulation, "set key 0 0 0\r\n\r\n").as_deref(), Some("STORED\r\n"));
    for start in (0..bytes).step_by(PIECE) {
        let piece = "v".repeat(PIECE.min(bytes - start));
        let message = format!("append key 0 0 {}\r\n{piece}\r\n", piece.len());
        assert_eq!(ask(simulation, &message).as_deref(), Some("STORED\r\n"));
    }
}

#[test]
fn an_item_expires_with_the_simulated_clock() {
    let mut simulation = Simulation::new(Scenario::of(1, memcached()));
    assert_eq!(ask(&mut simulation, "set key 0 10 1\r\nx\r\n").as_deref(), Some("STORED\r\n"));
    simulation.advance_ms(8_000);
    assert_eq!(ask(&mut simulation, "get key\r\n").as_deref(), Some("VALUE key 0 1\r\nx\r\nEND\r\n"));
    simulation.advance_ms(3_000);
    assert_eq!(ask(&mut simulation, "get key\r\n").as_deref(), Some("END\r\n"));
}

#[test]
fn a_source_over_its_limit_is_not_answered() {
    let limiter = Some(RateLimiter::new(10, 5, 1));
    let mut simulation = Simulation::new(Scenario { limiter, ..Scenario::of(1, memcached()) });
    let mut asked = 0;
    let mut burst = |simulation: &mut Simulation| {
        for number in 0..20 {
            // The limit is the address's, not the port's.
            simulation.send(client(number), &framed(1, b"get key\r\n"));
        }
        asked += 20;
        simulation.settle();
        let by_wire = std::iter::from_fn(|| simulation.receive()).count();
        let answered = simulation.metrics().requests(OpKind::Get);
        assert_eq!(answered + simulation.metrics().drops(DropReason::RateLimited), asked);
        by_wire
    };
    assert_eq!(burst(&mut simulation), 5);
    simulation.advance_ms(100);
    assert_eq!(burst(&mut simulation), 1);
    simulation.advance_ms(10_000);
    assert_eq!(burst(&mut simulation), 5);
}

#[test]
fn a_batch_of_long_replies_finds_a_frame_for_each_of_its_datagrams() {
    let queue = SimConfig { frames: 512, ring_entries: 128, kick_frames: 128, ..SimConfig::default() };
    let mut simulation = Simulation::new(Scenario { queue, ..Scenario::of(1, memcached()) });
    store(&mut simulation, 14_000);
    let before = simulation.metrics().frames_sent.get();
    // 64 replies of 11 datagrams: more than the queue has frames.
    for number in 0..64 {
        simulation.send(client(number), &framed(1, b"get key\r\n"));
    }
    simulation.settle();
    assert_eq!(std::iter::from_fn(|| simulation.receive()).count(), 64 * 11);
    assert_eq!(simulation.metrics().frames_sent.get() - before, 64 * 11);
    let accounts = simulation.accounts();
    assert_eq!(accounts.owned(), accounts.total);
}

#[test]
fn replies_keep_to_the_links_mtu_as_it_is_now() {
    let queue = SimConfig { mtu_bytes: 1_000, ..SimConfig::default() };
    let mut simulation = Simulation::new(Scenario { queue, ..Scenario::of(1, memcached()) });
    for mtu in [1_000, 600, 1_500, 9_000] {
        simulation.wires()[0].set_mtu(mtu);
        simulation.publish();
        // In pieces that pass a link of any of these MTUs.
        assert_eq!(ask(&mut simulation, "set key 0 0 0\r\n\r\n").as_deref(), Some("STORED\r\n"));
        for _ in 0..10 {
            let message = format!("append key 0 0 500\r\n{}\r\n", "v".repeat(500));
            assert_eq!(ask(&mut simulation, &message).as_deref(), Some("STORED\r\n"));
        }
        simulation.send(client(0), &framed(1, b"get key\r\n"));
        simulation.settle();
        let reply: Vec<_> = std::iter::from_fn(|| simulation.receive()).collect();
        let total = usize::from(frame_header(&reply[0].1).2);
        let most = (mtu - 20 - 8).min(1_400);
        let text = "VALUE key 0 5000\r\n".len() + 5_000 + "\r\nEND\r\n".len();
        assert_eq!((reply.len(), total), (text.div_ceil(most - 8), total), "MTU {mtu}");
        assert_eq!(reply.len(), total, "MTU {mtu}");
        assert!(reply.iter().all(|(_, datagram)| datagram.len() <= most), "MTU {mtu}");
    }
    assert_eq!(simulation.wire_counts().too_long, 0);
}

#[test]
fn what_finds_no_room_while_the_worker_stands_still_is_counted() {
    let mut simulation = Simulation::new(Scenario::of(1, memcached()));
    for number in 0..200 {
        simulation.send(client(number), &framed(1, b"version\r\n"));
    }
    simulation.settle();
    assert_eq!(simulation.metrics().drops(DropReason::SocketRingFull), 0, "not before the worker has looked");
    simulation.publish();
    simulation.publish();
    let answered = std::iter::from_fn(|| simulation.receive()).count() as u64;
    assert!(answered < 200);
    assert_eq!(answered + simulation.metrics().drops(DropReason::SocketRingFull), 200);
}
