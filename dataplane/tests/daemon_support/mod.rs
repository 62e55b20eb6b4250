//! The daemon's own binary on one end of a veth pair, and memcached clients with ordinary kernel sockets on the other.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses a part of it")]

pub(crate) mod bed;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use dataplane::control::status::StatusReport;
use dataplane::testbed::daemon::{ADMIN, http_get};
use dataplane::testbed::{Daemon, Namespace, VethEnd, VethPair, wait_until};

/// The daemon as it is built for these tests.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_dataplane");
/// memcached's own port.
pub(crate) const PORT: u16 = 11_211;
/// Longest wait for anything that is to happen soon; generous, for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// What a client is told while nobody can serve it.
pub(crate) const UNAVAILABLE: &[u8] = b"SERVER_ERROR temporarily unavailable\r\n";

const HEADER_BYTES: usize = 8;

/// A veth pair: the daemon's end is the right one.
pub(crate) struct Rig {
    pub(crate) pair: VethPair,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_mtu(VethPair::MTU_DEFAULT)
    }

    pub(crate) fn with_mtu(mtu: u32) -> Self {
        Self::of(VethEnd::left(), VethEnd::right(), mtu)
    }

    /// With so many queues on both ends.
    pub(crate) fn with_queues(queues: u32) -> Self {
        let end = |end| VethEnd { queues, ..end };
        Self::of(end(VethEnd::left()), end(VethEnd::right()), VethPair::MTU_DEFAULT)
    }

    fn of(left: VethEnd, right: VethEnd, mtu: u32) -> Self {
        let pair = VethPair::create(left, right, mtu);
        Self { pair: pair.expect("root, iproute2 and the kernel's veth") }
    }

    /// Name of the interface the daemon serves.
    pub(crate) fn interface(&self) -> &str {
        &self.pair.right_end.interface
    }

    /// The daemon's address of the family that is asked for.
    pub(crate) fn server(&self, family: Family) -> SocketAddr {
        SocketAddr::new(family.of(&self.pair.right_end), PORT)
    }

    /// A configuration: the veth end, its own networks allowed. `interface` and `listener` are further lines of those
    /// sections.
    pub(crate) fn config(&self, daemon: &str, interface: &str, listener: &str) -> String {
        format!(
            r#"
[daemon]
admin = "{ADMIN}"
log = "info"
{daemon}
[[interface]]
name = "{name}"
{interface}
[workers]
cores = [{core}]
[table]
capacity = "16MiB"
[[listener]]
service = "memcached"
port = {PORT}
allow = ["10.77.0.0/24", "fd77::/64", "127.0.0.0/8", "::1/128"]
{listener}
"#,
            name = self.interface(),
            core = dataplane::testbed::cpu::usable_cores().last().expect("a core"),
        )
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&self.config("", "", ""))
    }

    pub(crate) fn start_with(&self, config: &str) -> Daemon {
        Daemon::start(&self.pair.right, Path::new(BINARY), config).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a daemon that must not come up; its exit code and its words.
    pub(crate) fn refused(&self, config: &str) -> (Option<i32>, String) {
        let mut daemon =
            Daemon::spawn(&self.pair.right, Path::new(BINARY), config).expect("the binary can be started");
        let status = daemon.child().wait_for_end(SOON).unwrap_or_else(|error| panic!("{error}"));
        (status.code(), daemon.child().output())
    }

    /// Runs one of the binary's commands on the daemon's side.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        self.pair.right.command(BINARY).args(arguments).output().expect("the binary runs")
    }

    /// A client across the wire.
    pub(crate) fn client(&self, family: Family) -> Client {
        let local = SocketAddr::new(family.of(&self.pair.left_end), 0);
        Client::open(&self.pair.left, local, self.server(family))
    }

    /// Gives the client's host another address, to which replies would find their way.
    pub(crate) fn add_client_address(&self, address: Ipv4Addr) {
        let (prefix, host) = (format!("{address}/24"), address.to_string());
        self.pair.left.ip(&["addr", "add", &prefix, "dev", &self.pair.left_end.interface]).expect("added");
        let route = ["route", "add", &format!("{host}/32"), "dev", self.interface()];
        self.pair.right.ip(&route).expect("a way back");
        let mac = self.pair.left_end.mac_text();
        let neighbour =
            ["neigh", "replace", &host, "lladdr", &mac, "dev", self.interface(), "nud", "permanent"];
        self.pair.right.ip(&neighbour).expect("no reply would be lost for want of a neighbour");
    }

    /// Waits until the daemon's status is as wanted.
    #[track_caller]
    pub(crate) fn wait_for_status(
        &self,
        daemon: &mut Daemon,
        what: &str,
        wanted: impl Fn(&StatusReport) -> bool,
    ) -> StatusReport {
        let mut last = None;
        let found = wait_until(what, SOON, || {
            let status = daemon.status(&self.pair.right)?;
            let found = wanted(&status).then(|| status.clone());
            last = Some(status);
            Ok(found)
        });
        found.unwrap_or_else(|error| {
            panic!("{error}; last status: {last:#?}; output:\n{}", daemon.child().output())
        })
    }

    /// How often a verdict of the XDP program was counted.
    #[track_caller]
    pub(crate) fn verdict(&self, daemon: &mut Daemon, label: &str) -> u64 {
        let status = daemon.status(&self.pair.right).unwrap_or_else(|error| panic!("{error}"));
        verdict(&status, self.interface(), label)
    }

    /// Waits until a verdict of the XDP program was counted so often.
    #[track_caller]
    pub(crate) fn wait_for_verdict(&self, daemon: &mut Daemon, label: &str, count: u64) {
        let what = format!("{count} verdicts {label}");
        self.wait_for_status(daemon, &what, |status| verdict(status, self.interface(), label) >= count);
    }

    /// Nothing is lost once no frame is under way.
    #[track_caller]
    pub(crate) fn assert_no_frame_lost(&self, daemon: &mut Daemon) {
        let frames = |status: &StatusReport| {
            status.workers.iter().all(|worker| worker.frames_total > 0 && worker.frames_lost == 0)
        };
        self.wait_for_status(daemon, "all frames accounted for", frames);
    }

    /// A sample of `/metrics`, by its name and labels.
    #[track_caller]
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let address = ADMIN.parse().expect("an address");
        let text =
            self.pair.right.run(|| http_get(address, "/metrics")).expect("entered").expect("an answer");
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).trim().parse().expect("a whole number")
    }

    /// Waits until a sample of `/metrics` has reached a value.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, sample: &str, value: u64) {
        wait_until(&format!("{sample} reaching {value}"), SOON, || {
            Ok((self.metric(sample) >= value).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}; it is {}", self.metric(sample)));
    }
}

/// One verdict's count.
pub(crate) fn verdict(status: &StatusReport, interface: &str, label: &str) -> u64 {
    status.verdicts.get(interface).and_then(|verdicts| verdicts.get(label)).copied().unwrap_or(0)
}

/// One drop reason's count, over all workers.
pub(crate) fn drops(status: &StatusReport, reason: &str) -> u64 {
    status.workers.iter().filter_map(|worker| worker.drops.get(reason)).sum()
}

/// IP version.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(self, end: &VethEnd) -> IpAddr {
        match self {
            Self::V4 => end.v4.into(),
            Self::V6 => end.v6.into(),
        }
    }
}

/// A memcached client over UDP: sends once, and puts the reply's datagrams together.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    next_id: u16,
}

impl Client {
    pub(crate) fn open(namespace: &Namespace, local: SocketAddr, server: SocketAddr) -> Self {
        let open = || {
            let socket = UdpSocket::bind(local)?;
            socket.connect(server)?;
            Ok(socket)
        };
        let socket: std::io::Result<UdpSocket> = namespace.run(open).expect("entered");
        Self { socket: socket.unwrap_or_else(|error| panic!("{local} to {server}: {error}")), next_id: 1 }
    }

    /// Sends a request and returns its number.
    pub(crate) fn send(&mut self, message: &[u8]) -> u16 {
        let id = self.next_id;
        self.next_id += 1;
        let mut datagram = id.to_be_bytes().to_vec();
        datagram.extend_from_slice(&[0, 0, 0, 1, 0, 0]);
        datagram.extend_from_slice(message);
        // What an ICMP error has told of an earlier datagram is reported by this call, and says nothing of this one.
        let _ = self.socket.take_error();
        self.socket.send(&datagram).expect("the link takes it");
        id
    }

    /// The next datagram, whichever it is: its request's number, its place, their count, its text.
    pub(crate) fn receive(&mut self, limit: Duration) -> Option<(u16, u16, u16, Vec<u8>)> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 65_507];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).expect("a timeout above zero");
            // Timed out, or the port was closed for a moment.
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let word = |at: usize| u16::from_be_bytes([buffer[at], buffer[at + 1]]);
            assert!((HEADER_BYTES..=1400).contains(&length), "a reply of {length} bytes");
            return Some((word(0), word(2), word(4), buffer[HEADER_BYTES..length].to_vec()));
        }
    }

    /// Sends a request; its whole reply, with the number of datagrams it came in.
    pub(crate) fn call_within(&mut self, message: &[u8], limit: Duration) -> Option<(Vec<u8>, usize)> {
        let id = self.send(message);
        let deadline = Instant::now() + limit;
        let mut parts: Vec<Option<Vec<u8>>> = Vec::new();
        loop {
            let (of, place, total, text) =
                self.receive(deadline.saturating_duration_since(Instant::now()))?;
            if of != id {
                continue;
            }
            parts.resize(usize::from(total), None);
            parts[usize::from(place)] = Some(text);
            if parts.iter().all(Option::is_some) {
                let datagrams = parts.len();
                return Some((parts.into_iter().flatten().flatten().collect(), datagrams));
            }
        }
    }

    #[track_caller]
    pub(crate) fn call(&mut self, message: &[u8]) -> Vec<u8> {
        let reply = self.call_within(message, SOON);
        let request = || String::from_utf8_lossy(&message[..message.len().min(60)]).into_owned();
        reply.unwrap_or_else(|| panic!("no reply to {:?}", request())).0
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, message: &str, reply: &str) {
        let got = self.call(message.as_bytes());
        assert_eq!(String::from_utf8_lossy(&got), reply, "the reply to {message:?}");
    }

    #[track_caller]
    pub(crate) fn set(&mut self, key: &str, value: &[u8]) {
        let mut message = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        message.extend_from_slice(value);
        message.extend_from_slice(b"\r\n");
        assert_eq!(String::from_utf8_lossy(&self.call(&message)), "STORED\r\n");
    }

    #[track_caller]
    pub(crate) fn assert_holds(&mut self, key: &str, value: &str) {
        self.expect(&format!("get {key}\r\n"), &item(key, value));
    }

    /// Asks until this is the answer: for what takes a moment. Each question waits for a tenth of a second.
    #[track_caller]
    pub(crate) fn ask_until(&mut self, message: &str, reply: &[u8], limit: Duration) -> Duration {
        let start = Instant::now();
        let mut last = None;
        while start.elapsed() < limit {
            let got = self.call_within(message.as_bytes(), Duration::from_millis(100));
            if got.as_ref().is_some_and(|(got, _)| got == reply) {
                return start.elapsed();
            }
            last = got.or(last);
        }
        let last = last.map(|(text, _)| String::from_utf8_lossy(&text).into_owned());
        panic!(
            "{message:?} was not answered {:?} within {limit:?}; last: {last:?}",
            String::from_utf8_lossy(reply)
        );
    }

    /// True when no datagram has come.
    pub(crate) fn heard_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).expect("it can be set");
        let heard = self.socket.recv(&mut [0; 16]);
        self.socket.set_nonblocking(false).expect("it can be set");
        heard.is_err()
    }
}

/// The reply to a `get` that hits.
pub(crate) fn item(key: &str, value: &str) -> String {
    format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
}
