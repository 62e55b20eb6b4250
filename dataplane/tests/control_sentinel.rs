//! The sentinel as it really runs: this test starts a daemon's stand-in as a process, which starts its sentinel as
//! another, and is then stopped and killed.
//!
//! Both processes are this same test binary, started with the name of the one "test" that plays the part.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::config::{ListenerConfig, ListenerProtocol};
use dataplane::control::companion::CompanionSocket;
use dataplane::control::heartbeat::HeartbeatLayout;
use dataplane::control::sentinel::{self, Sentinel, SentinelProgram, SentinelSetup};
use dataplane::service::{Context, Datagram, Replies, Service};
use dataplane::time::Now;
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(5);
/// What a client of a stopped daemon may wait.
const PROMPT: Duration = Duration::from_secs(2);
const LAYOUT: HeartbeatLayout = HeartbeatLayout { offset_bytes: 64, stride_bytes: 64, slots: 2 };
/// Present in the environment of the processes that play a part.
const PART: &str = "CONTROL_SENTINEL_PART";

struct Words;

impl Service for Words {
    fn datagram(&mut self, _: &mut Context<'_>, _: &Datagram<'_>, _: &mut dyn Replies) {}

    fn unavailable(&self, _: &[u8], reply: &mut [u8]) -> usize {
        let words = b"temporarily unavailable";
        reply[..words.len()].copy_from_slice(words);
        words.len()
    }
}

fn listener() -> ListenerConfig {
    let mut listener = ListenerConfig::new("words", 0);
    listener.allow = vec!["127.0.0.1/32".parse().expect("a network")];
    listener
}

fn part(name: &str) -> Vec<std::ffi::OsString> {
    [name, "--exact", "--ignored", "--nocapture"].map(Into::into).to_vec()
}

fn assert_plays_a_part() {
    assert!(std::env::var_os(PART).is_some(), "this part is started by the other tests of this file");
}

/// The daemon's stand-in: holds the port, beats every 50 ms, and ends when its standard input does.
#[test]
#[ignore = "a part that the other tests start as a process of its own"]
fn part_daemon() {
    assert_plays_a_part();
    let heartbeats =
        rustix::fs::memfd_create("heartbeats", rustix::fs::MemfdFlags::CLOEXEC).expect("a memory file");
    let file = File::from(heartbeats.try_clone().expect("a descriptor"));
    file.set_len(4096).expect("it grows");
    let beat = move || {
        // The second worker never started: it is nobody's sockets that it leaves unanswered.
        file.write_all_at(&Now::read().monotonic_ns.to_ne_bytes(), 64).expect("it takes bytes");
    };
    beat();
    let socket = CompanionSocket::bind(0, ListenerProtocol::Udp, "127.0.0.1:0".parse().expect("an address"))
        .expect("a free port");
    let port = socket.address().port();
    let sentinel = Sentinel::spawn(&SentinelSetup {
        program: SentinelProgram {
            program: PathBuf::from("/proc/self/exe"),
            arguments: part("part_sentinel"),
        },
        listeners: vec![listener()],
        item_bytes_max: 1 << 20,
        stream_words: Vec::new(),
        sockets: Arc::new([socket]),
        heartbeats,
        layout: LAYOUT,
        unserved: false,
    })
    .expect("it starts");
    std::thread::spawn(move || {
        loop {
            beat();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    println!("\nready {port} {}", sentinel.pid());
    let _ = std::io::stdin().read(&mut [0]);
    drop(sentinel);
}

#[test]
#[ignore = "a part that the other tests start as a process of its own"]
fn part_sentinel() {
    assert_plays_a_part();
    sentinel::run(&|name, _| (name == "words").then(|| Ok(Some(Box::new(Words) as Box<dyn Service>))))
        .expect("it runs until the daemon ends");
}

struct Daemon {
    child: Child,
    server: SocketAddr,
    sentinel: u32,
    /// Kept open: what prints into a closed pipe fails.
    _stdout: BufReader<ChildStdout>,
}

impl Daemon {
    fn start() -> Self {
        let mut child = Command::new("/proc/self/exe")
            .args(part("part_daemon"))
            .env(PART, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let ready = stdout
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ready ").map(str::to_owned))
            .expect("it gets ready");
        let (port, sentinel) = ready.split_once(' ').expect("two numbers");
        let server = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
        Self { child, server, sentinel: sentinel.parse().expect("a process"), _stdout: stdout }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }

    /// Waits until nothing has the port, and the sentinel is gone.
    fn assert_nothing_stays(&self) {
        until("the port is free", || UdpSocket::bind(self.server).is_ok());
        until("the sentinel is gone", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.sentinel)).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn client(address: &str) -> UdpSocket {
    UdpSocket::bind((address, 0)).expect("a free port")
}

/// Whether a request is answered within this time.
fn is_answered(client: &UdpSocket, server: SocketAddr, within: Duration) -> bool {
    client.send_to(b"get a", server).expect("it is sent");
    client.set_read_timeout(Some(within)).expect("a deadline");
    let mut buffer = [0; 64];
    match client.recv_from(&mut buffer) {
        Ok((length, from)) => {
            assert_eq!((&buffer[..length], from), (&b"temporarily unavailable"[..], server));
            true
        }
        Err(_) => false,
    }
}

#[test]
fn a_stopped_daemons_clients_are_told_within_two_seconds_and_only_while_it_is_stopped() {
    let daemon = Daemon::start();
    let (inside, outside) = (client("127.0.0.1"), client("127.0.0.2"));
    assert!(!is_answered(&inside, daemon.server, Duration::from_millis(500)), "the daemon is alive");

    daemon.signal(Signal::STOP);
    // The request of before is still in the socket and is answered now; so is every later one.
    assert!(is_answered(&inside, daemon.server, PROMPT), "the daemon is stopped");
    outside.send_to(b"get a", daemon.server).expect("it is sent");
    for _ in 0..20 {
        assert!(is_answered(&inside, daemon.server, PROMPT), "the daemon is stopped");
    }
    outside.set_nonblocking(true).expect("it is a socket");
    assert!(outside.recv(&mut [0; 64]).is_err(), "it is not on the allow-list");

    daemon.signal(Signal::CONT);
    until("it leaves the requests to the daemon again", || {
        !is_answered(&inside, daemon.server, Duration::from_millis(300))
    });
    assert!(!is_answered(&inside, daemon.server, Duration::from_millis(300)), "the daemon is alive");
}

#[test]
fn nothing_stays_of_a_killed_daemon() {
    let mut daemon = Daemon::start();
    daemon.signal(Signal::KILL);
    daemon.child.wait().expect("it ends");
    daemon.assert_nothing_stays();
}

#[test]
fn nothing_stays_of_a_daemon_killed_while_stopped() {
    let mut daemon = Daemon::start();
    daemon.signal(Signal::STOP);
    assert!(is_answered(&client("127.0.0.1"), daemon.server, PROMPT));
    daemon.signal(Signal::KILL);
    daemon.child.wait().expect("it ends");
    daemon.assert_nothing_stays();
}

#[test]
fn a_stopped_sentinel_dies_with_its_daemon_too() {
    let mut daemon = Daemon::start();
    let sentinel = Pid::from_raw(i32::try_from(daemon.sentinel).expect("a process")).expect("not zero");
    // It must have asked for the signal first: it answers only after that.
    daemon.signal(Signal::STOP);
    assert!(is_answered(&client("127.0.0.1"), daemon.server, PROMPT));
    kill_process(sentinel, Signal::STOP).expect("it is there");
    daemon.signal(Signal::KILL);
    daemon.child.wait().expect("it ends");
    daemon.assert_nothing_stays();
}

#[test]
fn a_clean_end_takes_the_sentinel_along() {
    let mut daemon = Daemon::start();
    drop(daemon.child.stdin.take());
    assert!(daemon.child.wait().expect("it ends").success());
    daemon.assert_nothing_stays();
}
