//! Ports that fail: what was received is served all the same, the other lanes go on, and a lane that is replaced goes
//! on with the same table.

use std::net::SocketAddr;
use std::sync::mpsc;

use dataplane::config::{ChecksumPolicy, Idle};
use dataplane::metrics::{DropReason, OpKind};
use dataplane::port::PortError;
use dataplane::port::sim::{Failure, Faults, SimConfig, simulated};
use dataplane::simulation::{Scenario, Simulation};
use dataplane::transport::bypass::Bypass;
use dataplane::worker::driver::{Command, Driver, Event};
use dataplane::worker::wake::Wake;
use dataplane::worker::{Shard, Worker};

use crate::model::{framed, memcached};

/// A client of lane 0, and one of lane 1.
const CLIENTS: [u16; 2] = [4_000, 4_001];

fn client(lane: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], CLIENTS[lane]))
}

fn two_lanes() -> Simulation {
    Simulation::new(Scenario { lanes: 2, ..Scenario::of(1, memcached()) })
}

fn ask(simulation: &Simulation, lane: usize, message: &str) {
    simulation.send(client(lane), &framed(7, message.as_bytes()));
}

/// The replies that arrived, each with the lane of its client.
fn replies(simulation: &mut Simulation) -> Vec<(usize, String)> {
    std::iter::from_fn(|| simulation.receive())
        .map(|(client, datagram)| {
            let text = String::from_utf8(datagram[8..].to_vec()).expect("text");
            (usize::from(client.port() - CLIENTS[0]), text)
        })
        .collect()
}

#[track_caller]
fn assert_no_frame_is_missing(simulation: &Simulation) {
    let accounts = simulation.accounts();
    assert_eq!(accounts.owned(), accounts.total, "{accounts:?}");
}

#[test]
fn a_lane_whose_link_is_down_stays_and_its_replies_leave_once_it_is_up() {
    let mut simulation = two_lanes();
    ask(&simulation, 0, "set key 0 0 1\r\nx\r\n");
    ask(&simulation, 1, "version\r\n");
    simulation.wires()[0].set_failure(Some(Failure::LinkDown));
    for _ in 0..10 {
        simulation.step();
        assert_no_frame_is_missing(&simulation);
    }
    assert!(simulation.take_failure().is_none(), "it recovers by itself");
    let served = replies(&mut simulation);
    assert_eq!(served.iter().map(|&(lane, _)| lane).collect::<Vec<_>>(), [1], "the other lane goes on");
    ask(&simulation, 0, "delete key\r\n");
    assert_eq!(simulation.wire_counts().lost, 1, "nothing arrives by a link that is down");

    simulation.wires()[0].set_failure(None);
    simulation.settle();
    assert_eq!(replies(&mut simulation), [(0, "STORED\r\n".to_owned())]);
    assert_no_frame_is_missing(&simulation);
}

#[test]
fn a_lane_that_fails_for_good_is_taken_out_and_its_replacement_serves_the_same_table() {
    for failure in [Failure::Gone, Failure::Corrupt] {
        let mut simulation = two_lanes();
        let frames = simulation.accounts().total;
        ask(&simulation, 0, "set key 0 0 1\r\nx\r\n");
        simulation.wires()[0].set_failure(Some(failure));
        simulation.step();
        let (lane, error) = simulation.take_failure().expect("it fails for good");
        assert_eq!(lane, 0);
        assert_eq!(matches!(error, PortError::Corrupt { .. }), failure == Failure::Corrupt, "{error}");
        assert!(!error.recovers_by_itself());
        assert_eq!(simulation.accounts().total, frames / 2, "its frames went with it");
        let stored = simulation.metrics().requests(OpKind::Store);
        assert_eq!(stored, 1, "what had arrived was served all the same");

        ask(&simulation, 1, "get key\r\n");
        simulation.settle();
        let expected = "VALUE key 0 1\r\nx\r\nEND\r\n".to_owned();
        let served: Vec<_> = replies(&mut simulation).into_iter().filter(|&(lane, _)| lane == 1).collect();
        assert_eq!(served, [(1, expected.clone())]);

        simulation.replace_lane(0, Faults::default());
        simulation.settle();
        ask(&simulation, 0, "get key\r\n");
        simulation.settle();
        assert_eq!(replies(&mut simulation), [(0, expected)], "after {failure:?}");
        assert_eq!(simulation.accounts().total, frames);
        assert_no_frame_is_missing(&simulation);
    }
}

#[test]
fn two_lanes_that_fail_in_one_poll_are_both_reported() {
    let mut simulation = two_lanes();
    for lane in 0..2 {
        simulation.wires()[lane].set_failure(Some(Failure::Corrupt));
    }
    simulation.settle();
    let failed = [simulation.take_failure(), simulation.take_failure()];
    assert_eq!(failed.map(|failure| failure.map(|(lane, _)| lane)), [Some(0), Some(1)]);
    assert_eq!(simulation.accounts().total, 0);
}

#[test]
fn a_doorbell_that_fails_within_a_batch_leaves_no_request_unserved_or_uncounted() {
    let queue = SimConfig { frames: 512, ring_entries: 128, kick_frames: 128, ..SimConfig::default() };
    let mut simulation = Simulation::new(Scenario { queue, ..Scenario::of(1, memcached()) });
    ask(&simulation, 0, &format!("set key 0 0 3000\r\n{}\r\n", "v".repeat(3_000)));
    simulation.settle();
    assert_eq!(replies(&mut simulation).len(), 1);
    for _ in 0..64 {
        ask(&simulation, 0, "get key\r\n");
    }
    // 64 replies of 3 datagrams want the doorbell in their midst.
    simulation.wires()[0].set_failure(Some(Failure::LinkDown));
    simulation.step();
    let metrics = simulation.metrics();
    assert_eq!(metrics.requests(OpKind::Get), 64, "each is served");
    let dropped = metrics.drops(DropReason::NoFrame) + metrics.drops(DropReason::TransmitFull);
    assert!(dropped > 0, "the ring holds fewer");
    assert_eq!((metrics.frames_sent.get() - 1) / 3 + dropped, 64, "and answered or counted");
    assert_no_frame_is_missing(&simulation);

    simulation.wires()[0].set_failure(None);
    simulation.settle();
    assert_eq!(replies(&mut simulation).len() as u64, 3 * (64 - dropped));
    assert_no_frame_is_missing(&simulation);
}

#[test]
fn the_driver_reports_a_failed_lane_and_puts_another_in_its_place() {
    let lane = |seed| {
        let (wire, port, owner) =
            simulated(seed, SimConfig::default(), Faults::default()).expect("memory for a few frames");
        (wire, Bypass::new(port, owner, ChecksumPolicy::Verify))
    };
    let (broken, old) = lane(1);
    let (wire, new) = lane(2);
    broken.set_failure(Some(Failure::Corrupt));
    let scenario = Scenario::of(1, memcached());
    let shard = Shard::new(Vec::new(), scenario.table, std::sync::Arc::default());
    let metrics = std::sync::Arc::clone(shard.metrics());
    let (commands, receiver) = mpsc::channel();
    let (events, happened) = mpsc::channel();
    let (beats, beaten) = mpsc::channel();
    let beat = |name: &'static str| {
        let beats = beats.clone();
        Box::new(move |_| beats.send(name).expect("it is listened to")) as Box<dyn FnMut(u64) + Send>
    };
    // Carried out at the first look, which comes after the first poll.
    commands
        .send(Command::ReplaceLane { number: 0, generation: 8, lane: Box::new(new), beat: beat("new") })
        .expect("it is listened to");
    commands.send(Command::Stop).expect("it is listened to");
    wire.send(vec![0; 60]);
    let driver = Driver {
        number: 3,
        idle: Idle::Busy,
        beat: Box::new(|_| {}),
        lane_beats: vec![Some(beat("old"))],
        lane_generations: vec![7],
        commands: receiver,
        wake: Wake::new().expect("a descriptor"),
        others_stale: None,
        events,
    };
    driver.run(Worker::new(vec![old], shard));
    drop(beats);

    let events: Vec<Event> = happened.iter().collect();
    let [
        Event::LaneFailed { worker: 3, lane: 0, generation: 7, error },
        Event::Stopped { worker: 3, accounts },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(matches!(error, PortError::Corrupt { .. }), "{error}");
    assert_eq!((accounts.owned(), accounts.total), (256, 256));
    assert_eq!(metrics.rebinds.get(), 1);
    assert_eq!(metrics.drops(DropReason::Malformed), 1, "the new lane is served");
    let beaten: Vec<_> = beaten.iter().collect();
    assert_eq!(beaten[0], "old");
    assert!(beaten[1..].iter().all(|&name| name == "new") && beaten.len() > 1, "{beaten:?}");
}
