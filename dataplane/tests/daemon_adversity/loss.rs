//! Frames lost on the wire, dropped by a BPF program between the two ends, both ways: every byte arrives right, and soon.
//!
//! A lost answer is the server's to repair, a lost question the client's. Linux waits for 200 ms before it repairs one,
//! whoever the server is; a route can say otherwise (`rto_min`, ip-route(8)), and with such a route what the server makes
//! of losses is what there is to be seen. Redis on the kernel's TCP is asked in the same way, for comparison.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dataplane::testbed::wire::SHARE;
use dataplane::testbed::{ChildGuard, VethEnd, VethPair, Wire, requirements};

use crate::daemon_support::bed::{Bed, Place, RESP_PORT, Transport, events, over_every_transport};
use crate::daemon_support::{Rig, SOON};
use crate::traffic::{self, Figures, Load};

over_every_transport!(every_byte_arrives_right_and_soon_over_a_wire_that_loses_frames);

/// One frame in a thousand, and one in a hundred.
const LOSSES: [u32; 2] = [SHARE / 1_000, SHARE / 100];
const SEED: u64 = 11;
/// How long each case is asked.
const ASKED: Duration = Duration::from_millis(1_200);
/// What 99.9 % of the answers past the kernel keep to, where the client does its part.
const TAIL_LIMIT: Duration = Duration::from_millis(50);

/// How soon the client's kernel sends again what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// As Linux is without a word.
    Stock,
    /// After 5 ms.
    Prompt,
}

impl Client {
    fn route(self, rig: &Rig) {
        let end = &rig.pair.left_end;
        let (address, network) = (end.v4.to_string(), VethEnd::right().v4.octets());
        let network = format!("{}.{}.{}.0/24", network[0], network[1], network[2]);
        let mut words = vec!["route", "replace", &network, "dev", &end.interface, "proto", "kernel"];
        words.extend(["scope", "link", "src", &address]);
        if self == Self::Prompt {
            words.extend(["rto_min", "5ms"]);
        }
        rig.pair.left.ip(&words).expect("the route that is there is replaced");
    }
}

fn every_byte_arrives_right_and_soon_over_a_wire_that_loses_frames(transport: Transport) {
    let (pair, wire) =
        VethPair::across(VethEnd::left(), VethEnd::right(), VethPair::MTU_DEFAULT).expect("root and ip");
    let mut bed = Bed::on(Rig { pair }, transport);
    for (client, loss, figures) in measure(&format!("{transport:?}"), &bed.rig, &wire, bed.resp()) {
        let tail = figures.percentile(0.999);
        if client == Client::Prompt && transport == Transport::Bypass {
            assert!(tail < TAIL_LIMIT, "p99.9 {tail:?} with {loss} of {SHARE} lost");
        }
    }
    wire.lose(0, SEED).expect("set");
    let status = bed.assert_nothing_left();
    if transport == Transport::Bypass {
        assert!(events(&status, "retransmitted") > 0, "answers were lost: {:?}", status.workers);
    }
    let Bed { rig, daemon, .. } = bed;
    daemon.stop().unwrap_or_else(|error| panic!("{error}"));

    let place = Place { clients: Some(&rig.pair.left), server: (rig.pair.right_end.v4, RESP_PORT).into() };
    let _redis = redis(&rig, place);
    measure("Redis", &rig, &wire, place);
}

/// Asks in each case; says what came of it.
fn measure(server: &str, rig: &Rig, wire: &Wire, place: Place<'_>) -> Vec<(Client, u32, Figures)> {
    let mut measured = Vec::new();
    for client in [Client::Prompt, Client::Stock] {
        client.route(rig);
        for loss in LOSSES {
            // Whoever is lost while connecting waits for a second: that is not what is measured.
            wire.lose(0, SEED).expect("set");
            // Keys of its own for each case.
            let seed = u64::from(2 * loss) + u64::from(client == Client::Stock);
            let load = Load { clients: 16, seed, large_one_in: 10 };
            let clients = traffic::connect(place, &load);
            wire.lose(loss, SEED).expect("set");
            let end = Instant::now() + ASKED;
            let figures = traffic::ask_all(clients, || Instant::now() < end);
            let share = f64::from(loss) / f64::from(SHARE);
            println!("{server:<7} {client:<7?} {:.1} % lost: {figures}", share * 100.0);
            for frames in wire.frames().expect("counted") {
                let all = (frames.passed + frames.lost) as f64;
                let lost = frames.lost as f64 / all;
                // Four standard deviations around the share, and one frame.
                let deviation = 4.0 * (share / all).sqrt() + 1.0 / all;
                assert!((lost - share).abs() < deviation, "{frames:?} where {share} were to be lost");
            }
            assert!(figures.answers() > 1_000, "{figures}");
            measured.push((client, loss, figures));
        }
    }
    measured
}

/// A real Redis where the daemon was.
fn redis(rig: &Rig, place: Place<'_>) -> ChildGuard {
    requirements::program("redis-server", "redis-server").unwrap_or_else(|error| panic!("{error}"));
    let mut command = rig.pair.right.command("redis-server");
    command.args(["--bind", &place.host(), "--port", &place.port(), "--protected-mode", "no"]);
    command.args(["--save", "", "--appendonly", "no", "--databases", "1"]);
    let mut redis = ChildGuard::spawn("redis-server", &mut command).expect("it starts");
    let listens = || Ok(place.run(|| TcpStream::connect(place.server).ok()).map(drop));
    redis.wait_for("redis-server listening", SOON, listens).unwrap_or_else(|error| panic!("{error}"));
    redis
}

/// A client that asks every 30 ms acknowledges each answer with its next question, 30 ms later: that is no loss.
#[test]
fn whoever_asks_slowly_is_not_answered_twice() {
    const QUESTIONS: u64 = 50;
    const PACE: Duration = Duration::from_millis(30);
    let mut bed = Bed::start(Transport::Bypass);
    let place = bed.resp();
    let mut stream = place.run(|| TcpStream::connect(place.server)).expect("it accepts");
    for _ in 0..QUESTIONS {
        stream.write_all(b"PING\r\n").expect("it takes bytes");
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"+PONG\r\n");
        std::thread::sleep(PACE);
    }
    // Until it is known how slow the client is, some are.
    let again = events(&bed.status(), "retransmitted");
    assert!(again < QUESTIONS / 4, "{again} of {QUESTIONS} answers were sent again");
}
