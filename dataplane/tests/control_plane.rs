//! The control plane as a process, as systemd and a Prometheus see it: ready, scraped, asked to end, forced to end.
//!
//! The daemon's stand-in is this same test binary, started with the name of the one "test" that plays the part.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::config::ListenerProtocol;
use dataplane::control::companion::CompanionSocket;
use dataplane::control::heartbeat::Heartbeats;
use dataplane::control::plane::{ControlPlane, ControlSetup};
use dataplane::control::state::DaemonState;
use dataplane::control::status::{QueueStatus, StatusReport};
use dataplane::metrics::{OpKind, WorkerMetrics};
use dataplane::time::Now;
use dataplane::topology::WorkerPlan;
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(10);
const PART: &str = "CONTROL_PLANE_PART";

struct Beat(AtomicU64);

impl Heartbeats for Beat {
    fn heartbeat_ns(&self, _: usize) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A control plane without a data plane. Lines on its standard input tell it what to do.
#[test]
#[ignore = "a part that the other tests start as a process of its own"]
fn part_daemon() {
    let part = std::env::var(PART).expect("this part is started by the other tests of this file");
    let metrics = Arc::new(WorkerMetrics::default());
    metrics.requested(OpKind::Get, 3);
    let core = dataplane::topology::discover().expect("a host").usable_cores()[0];
    let plan = WorkerPlan { worker: 0, core, node: None, queues: Vec::new() };
    let beat = Arc::new(Beat(AtomicU64::new(u64::MAX)));
    let heartbeats: Arc<dyn Heartbeats> = beat.clone();
    let verdicts = || BTreeMap::from([("lo".to_owned(), BTreeMap::from([("passed".to_owned(), 9)]))]);
    let state = DaemonState::new(vec![(plan, metrics)], heartbeats, Box::new(verdicts));
    state.set_queues(vec![QueueStatus { interface: "lo".into(), state: "up".into(), ..Default::default() }]);
    let socket = CompanionSocket::bind(0, ListenerProtocol::Udp, "127.0.0.1:0".parse().expect("an address"))
        .expect("a free port");
    let address = socket.address();
    let mut plane = ControlPlane::start(ControlSetup {
        admin: "127.0.0.1:0".parse().expect("an address"),
        housekeeping_cores: vec![core],
        state: Arc::new(state),
        sentinel: None,
    })
    .expect("it starts");
    println!("\nstarted {} {address}", plane.admin());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    plane.ready();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let heartbeat_ns =
                if line == "stale" { 1 } else { Now::read().monotonic_ns + u64::from(u32::MAX) };
            beat.0.store(heartbeat_ns, Ordering::Relaxed);
        }
    });
    plane.wait_for_signal(std::future::pending::<()>()).expect("nothing fails");
    if part == "hang" {
        println!("hanging");
        loop {
            std::thread::park();
        }
    }
    plane.stop();
    drop(socket);
    UdpSocket::bind(address).expect("the port is free");
}

struct Daemon {
    child: Child,
    admin: SocketAddr,
    port: SocketAddr,
    stdout: BufReader<ChildStdout>,
    manager: UnixDatagram,
    _directory: tempfile::TempDir,
}

impl Daemon {
    fn start(part: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut child = Command::new("/proc/self/exe")
            .args(["part_daemon", "--exact", "--ignored", "--nocapture"])
            .env(PART, part)
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let started = line_after(&mut stdout, "started ");
        let (admin, port) = started.split_once(' ').expect("two addresses");
        Self {
            admin: admin.parse().expect("an address"),
            port: port.parse().expect("an address"),
            child,
            stdout,
            manager,
            _directory: directory,
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("it is piped"), "{line}").expect("it listens");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }

    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.admin).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    fn is_healthy(&self) -> bool {
        let (head, _) = self.get("/healthz");
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 503"), "{head}");
        head.starts_with("HTTP/1.1 200")
    }

    /// Waits for a message to the service manager that contains this.
    fn notified(&self, part: &str) {
        let deadline = Instant::now() + DEADLINE;
        let mut buffer = [0; 512];
        while Instant::now() < deadline {
            let length = self.manager.recv(&mut buffer).expect("a message");
            if String::from_utf8_lossy(&buffer[..length]).contains(part) {
                return;
            }
        }
        panic!("not within {DEADLINE:?}: {part}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_after(stdout: &mut BufReader<ChildStdout>, prefix: &str) -> String {
    let mut lines = stdout.lines().map_while(Result::ok);
    lines.find_map(|line| line.strip_prefix(prefix).map(str::to_owned)).expect("it says so")
}

#[test]
fn from_start_to_an_orderly_end() {
    let mut daemon = Daemon::start("orderly");
    assert!(!daemon.is_healthy(), "it is starting");
    assert!(UdpSocket::bind(daemon.port).is_err(), "the port is reserved");
    daemon.tell("ready");
    daemon.notified("READY=1");
    assert!(daemon.is_healthy());
    daemon.notified("WATCHDOG=1");

    let (head, body) = daemon.get("/status");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let status: StatusReport = serde_json::from_str(&body).expect("it is a status report");
    assert!(status.ready);
    assert_eq!((status.pid, status.workers[0].requests["get"]), (daemon.child.id(), 3));
    assert_eq!((status.verdicts["lo"]["passed"], status.queues[0].state.as_str()), (9, "up"));

    let (head, body) = daemon.get("/metrics");
    assert!(head.contains("openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.contains("dataplane_requests_total{worker=\"0\",op=\"get\"} 3"), "{body}");
    assert!(body.ends_with("# EOF\n"));

    daemon.tell("stale");
    let deadline = Instant::now() + DEADLINE;
    while daemon.is_healthy() {
        assert!(Instant::now() < deadline, "a stale worker is not healthy");
    }
    assert!(daemon.get("/healthz").1.contains("no heartbeat of workers [0]"));
    daemon.tell("fresh");

    daemon.signal(Signal::TERM);
    daemon.notified("STOPPING=1");
    assert!(daemon.child.wait().expect("it ends").success(), "SIGTERM ends it orderly");
    assert!(UdpSocket::bind(daemon.port).is_ok(), "the port is free");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut daemon = Daemon::start("hang");
    daemon.tell("ready");
    daemon.notified("READY=1");
    daemon.signal(Signal::INT);
    line_after(&mut daemon.stdout, "hanging");
    daemon.signal(Signal::INT);
    let status = daemon.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(dataplane::control::shutdown::EXIT_FORCED));
    assert!(UdpSocket::bind(daemon.port).is_ok(), "the port is free");
}
