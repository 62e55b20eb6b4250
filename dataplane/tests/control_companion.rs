//! The companion over real sockets, with a thread in the place of a worker.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::config::ListenerProtocol;
use dataplane::control::companion::{
    Companion, CompanionSetup, CompanionSocket, ListenerPolicy, WorkerLink, link,
};
use dataplane::control::heartbeat::Heartbeats;
use dataplane::metrics::WorkerMetrics;
use dataplane::net::allow::AllowList;
use dataplane::service::{Context, Datagram, Replies, Service};
use dataplane::time::Now;

const DEADLINE: Duration = Duration::from_secs(5);
const BUFFERS: usize = 4;

/// A service whose answers the fake worker gives; here only its words for "unavailable".
struct Words;

impl Service for Words {
    fn datagram(&mut self, _: &mut Context<'_>, _: &Datagram<'_>, _: &mut dyn Replies) {}

    fn unavailable(&self, request: &[u8], reply: &mut [u8]) -> usize {
        let words = [b"unavailable: ", request].concat();
        reply[..words.len()].copy_from_slice(&words);
        words.len()
    }
}

/// Workers that beat whenever they are looked at, until they are told to stop: a starved test makes none stale.
struct Beat(Vec<AtomicBool>);

impl Beat {
    fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| AtomicBool::new(true)).collect())
    }

    fn set(&self, worker: usize, beats: bool) {
        self.0[worker].store(beats, Ordering::Relaxed);
    }
}

impl Heartbeats for Beat {
    fn heartbeat_ns(&self, worker: usize) -> u64 {
        if self.0[worker].load(Ordering::Relaxed) { Now::read().monotonic_ns } else { 1 }
    }
}

/// A thread that answers in capital letters, keeps what says "quiet", and stands still while told to.
struct Worker {
    thread: Option<JoinHandle<()>>,
    end: Arc<AtomicBool>,
    still: Arc<Mutex<()>>,
}

impl Worker {
    fn start(mut link: WorkerLink) -> Self {
        let (end, still) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(())));
        let (ended, stand) = (Arc::clone(&end), Arc::clone(&still));
        let metrics = WorkerMetrics::default();
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let mut poll =
                    [rustix::event::PollFd::new(&link.requests_pushed, rustix::event::PollFlags::IN)];
                let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
                let _ = rustix::event::poll(&mut poll, Some(&timeout));
                link.requests_pushed.clear();
                let _stand = stand.lock().expect("nobody panics with it");
                let done = link.end.poll(64, &metrics, |datagram, replies| {
                    if datagram.payload != b"quiet" {
                        replies.send(&[&datagram.payload.to_ascii_uppercase()]);
                    }
                });
                if done.taken > 0 {
                    link.replies_pushed.wake();
                }
            }
        });
        Self { thread: Some(thread), end, still }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().expect("it was started").join().expect("it does not panic");
    }
}

struct Rig {
    companion: Companion,
    workers: Vec<Worker>,
    beat: Arc<Beat>,
    port: u16,
}

/// A companion for one listener on every address, one worker behind it.
fn rig(allow: &[&str]) -> Rig {
    rig_of(1, allow)
}

/// A companion for one listener on every address, with so many workers behind it.
fn rig_of(workers: usize, allow: &[&str]) -> Rig {
    let allow: Vec<_> = allow.iter().map(|network| network.parse().expect("a network")).collect();
    let sockets = sockets();
    let port = sockets[0].address().port();
    let (links, ends): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| link(BUFFERS).expect("two descriptors")).unzip();
    let beat = Arc::new(Beat::new(workers));
    let companion = Companion::start(CompanionSetup {
        sockets: sockets.into(),
        listeners: vec![ListenerPolicy::new(AllowList::new(&allow), port, Some(Box::new(Words)))],
        links,
        heartbeats: Arc::clone(&beat) as Arc<dyn Heartbeats>,
    });
    let workers = ends.into_iter().map(Worker::start).collect();
    Rig { companion: companion.expect("a thread"), workers, beat, port }
}

/// Sockets on every address of both families, at one port. It is held from the moment the kernel chooses it; where
/// another has it in the other family, the kernel chooses again.
fn sockets() -> [CompanionSocket; 2] {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let v4 = CompanionSocket::bind(0, ListenerProtocol::Udp, (Ipv4Addr::UNSPECIFIED, 0).into())
            .expect("a free port");
        match CompanionSocket::bind(
            0,
            ListenerProtocol::Udp,
            (Ipv6Addr::UNSPECIFIED, v4.address().port()).into(),
        ) {
            Ok(v6) => return [v4, v6],
            Err(error) => assert!(Instant::now() < deadline, "no port is free in both families: {error}"),
        }
    }
}

fn client(address: &str) -> UdpSocket {
    let client = UdpSocket::bind((address, 0)).expect("a free port");
    client.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    client
}

/// Asks, and takes the answer from that very address only.
fn ask(client: &UdpSocket, server: SocketAddr, question: &str) -> String {
    client.connect(server).expect("it is connected");
    client.send(question.as_bytes()).expect("it is sent");
    let mut buffer = [0; 2048];
    let length = client.recv(&mut buffer).expect("an answer");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn requests_reach_the_worker_and_replies_leave_from_the_address_that_was_asked() {
    let rig = rig(&["127.0.0.0/8", "::1/128"]);
    for (from, to) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.99"), ("::1", "::1")] {
        let server = SocketAddr::new(to.parse().expect("an address"), rig.port);
        // More rounds than buffers: each comes back.
        for round in 0..3 * BUFFERS {
            assert_eq!(ask(&client(from), server, &format!("hello {round}")), format!("HELLO {round}"));
        }
    }
    let metrics = rig.companion.metrics();
    until("every reply is counted", || metrics.replied.get() == 9 * BUFFERS as u64);
    assert_eq!((metrics.refused.get(), metrics.full.get(), metrics.send_errors.get()), (0, 0, 0));
}

#[test]
fn sources_outside_the_allow_list_reach_nothing() {
    let rig = rig(&["127.0.0.1/32"]);
    let server = SocketAddr::from(([127, 0, 0, 1], rig.port));
    let outside = client("127.0.0.2");
    outside.send_to(b"let me in", server).expect("it is sent");
    // One socket, one order: once this one is answered, the one before it has been handled.
    assert_eq!(ask(&client("127.0.0.1"), server, "me"), "ME");
    rig.beat.set(0, false);
    outside.send_to(b"and now", server).expect("it is sent");
    assert_eq!(ask(&client("127.0.0.1"), server, "me"), "unavailable: me");
    outside.set_nonblocking(true).expect("it is a socket");
    assert!(outside.recv(&mut [0; 64]).is_err(), "nothing was sent to it");
    assert_eq!(rig.companion.metrics().refused.get(), 2);
}

#[test]
fn a_stale_workers_clients_are_told_at_once_and_served_again_after() {
    let rig = rig(&["127.0.0.0/8"]);
    let server = SocketAddr::from(([127, 0, 0, 1], rig.port));
    let client = client("127.0.0.1");
    assert_eq!(ask(&client, server, "a"), "A");
    rig.beat.set(0, false);
    assert_eq!(ask(&client, server, "b"), "unavailable: b");
    rig.beat.set(0, true);
    assert_eq!(ask(&client, server, "c"), "C");
}

#[test]
fn while_one_of_several_workers_is_stale_no_other_answers_from_its_own_table() {
    let rig = rig_of(2, &["127.0.0.0/8"]);
    let server = SocketAddr::from(([127, 0, 0, 1], rig.port));
    // So many that, spread in whatever way, both workers have some.
    let clients: Vec<UdpSocket> = (0..16).map(|_| client("127.0.0.1")).collect();
    for (stale, expected) in
        [(None, "A"), (Some(0), "unavailable: a"), (Some(1), "unavailable: a"), (None, "A")]
    {
        (0..2).for_each(|worker| rig.beat.set(worker, stale != Some(worker)));
        for client in &clients {
            assert_eq!(ask(client, server, "a"), expected, "worker {stale:?} is stale");
        }
    }
}

#[test]
fn buffers_that_carry_no_reply_come_back_and_a_slow_worker_costs_drops_only() {
    let rig = rig(&["127.0.0.0/8"]);
    let server = SocketAddr::from(([127, 0, 0, 1], rig.port));
    let (client, metrics) = (client("127.0.0.1"), rig.companion.metrics());
    for round in 1..=3 * BUFFERS as u64 {
        client.send_to(b"quiet", server).expect("it is sent");
        until("the buffers come back", || metrics.handed_over.get() + metrics.full.get() == round);
    }
    until("the worker has returned one", || is_served(&rig, &client));
    let (full, handed_over) = (metrics.full.get(), metrics.handed_over.get());
    {
        let _still = rig.workers[0].still.lock().expect("nobody panics with it");
        for _ in 0..2 * BUFFERS {
            client.send_to(b"x", server).expect("it is sent");
        }
        until("all are handled", || {
            metrics.handed_over.get() - handed_over + metrics.full.get() - full == 2 * BUFFERS as u64
        });
        assert!(metrics.full.get() - full >= BUFFERS as u64, "no more than the buffers were lent");
    }
    until("it serves again", || is_served(&rig, &client));
}

/// Whether one request is answered by the worker; it may be dropped while every buffer is lent.
fn is_served(rig: &Rig, client: &UdpSocket) -> bool {
    client.send_to(b"still there", ("127.0.0.1", rig.port)).expect("it is sent");
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("a deadline");
    let mut buffer = [0; 64];
    // Replies to earlier requests come first.
    while let Ok(length) = client.recv(&mut buffer) {
        if &buffer[..length] == b"STILL THERE" {
            return true;
        }
    }
    false
}

#[test]
fn stopping_answers_what_it_has_and_frees_the_port() {
    let rig = rig(&["127.0.0.0/8"]);
    let server = SocketAddr::from(([127, 0, 0, 1], rig.port));
    let (client, metrics) = (client("127.0.0.1"), rig.companion.metrics());
    let still = rig.workers[0].still.lock().expect("nobody panics with it");
    client.send_to(b"last words", server).expect("it is sent");
    until("the worker has it", || metrics.handed_over.get() == 1);
    let stopping = std::thread::spawn(move || rig.companion.stop());
    assert!(
        UdpSocket::bind(("0.0.0.0", rig.port)).is_err(),
        "the port is held while the reply is on its way"
    );
    drop(still);
    let mut buffer = [0; 64];
    let length = client.recv(&mut buffer).expect("an answer");
    assert_eq!(&buffer[..length], b"LAST WORDS");
    stopping.join().expect("it stops");
    // Another test's socket may be given it at once.
    until("the port is free", || UdpSocket::bind(("0.0.0.0", rig.port)).is_ok());
}
