//! The companion over real sockets, with a thread in the place of a worker.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::config::ListenerConfig;
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

#[derive(Default)]
struct Beat(AtomicU64);

impl Beat {
    fn now(&self) {
        self.0.store(Now::read().monotonic_ns, Ordering::Relaxed);
    }

    fn stop(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

impl Heartbeats for Beat {
    fn heartbeat_ns(&self, _: usize) -> u64 {
        self.0.load(Ordering::Relaxed)
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
    worker: Worker,
    beat: Arc<Beat>,
    port: u16,
}

/// A companion for one listener on every address, one worker behind it.
fn rig(allow: &[&str]) -> Rig {
    let free = UdpSocket::bind("[::]:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let mut listener = ListenerConfig::new("words", free.port());
    listener.allow = allow.iter().map(|network| network.parse().expect("a network")).collect();
    let sockets = CompanionSocket::bind_all(std::slice::from_ref(&listener)).expect("the port is free");
    let (control, worker) = link(BUFFERS).expect("two descriptors");
    let beat = Arc::new(Beat::default());
    beat.now();
    let policy = ListenerPolicy::new(AllowList::new(&listener.allow), listener.port, Box::new(Words));
    let companion = Companion::start(CompanionSetup {
        sockets: sockets.into(),
        listeners: vec![policy],
        links: vec![control],
        heartbeats: Arc::clone(&beat) as Arc<dyn Heartbeats>,
    });
    Rig { companion: companion.expect("a thread"), worker: Worker::start(worker), beat, port: listener.port }
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
    rig.beat.stop();
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
    rig.beat.stop();
    assert_eq!(ask(&client, server, "b"), "unavailable: b");
    rig.beat.now();
    assert_eq!(ask(&client, server, "c"), "C");
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
        let _still = rig.worker.still.lock().expect("nobody panics with it");
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
    rig.beat.now();
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
    let still = rig.worker.still.lock().expect("nobody panics with it");
    client.send_to(b"last words", server).expect("it is sent");
    until("the worker has it", || metrics.handed_over.get() == 1);
    let stopping = std::thread::spawn(move || rig.companion.stop());
    // The port is still held while the reply is on its way.
    assert!(!stopping.is_finished());
    drop(still);
    let mut buffer = [0; 64];
    let length = client.recv(&mut buffer).expect("an answer");
    assert_eq!(&buffer[..length], b"LAST WORDS");
    stopping.join().expect("it stops");
    UdpSocket::bind(("0.0.0.0", rig.port)).expect("the port is free");
}
