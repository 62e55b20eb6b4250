//! Ways to the daemon's own binary, by ordinary sockets of the kernel on the client's side.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use dataplane::testbed::cpu::usable_cores;
use dataplane::testbed::daemon::ADMIN;
use dataplane::testbed::{Daemon, Namespace};

use crate::Client;
use crate::daemon_support::{self, BINARY, Family, PORT, Rig, SOON};
use crate::record::Protocol;

/// The daemon for clients on its own host.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);

/// Which way the packets of a daemon's clients come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Past the kernel's stack.
    Bypass,
    /// A socket beside that: clients on the daemon's own host, which the XDP program sees nothing of.
    Companion,
}

fn service(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Memcached => "memcached",
        Protocol::Resp => "resp",
    }
}

/// Starts a daemon on a NIC that serves nothing but this, and shows a client the way.
fn steered(protocol: Protocol, transport: &str, by: By, come: impl FnOnce(&Namespace, SocketAddr)) {
    let rig = Rig::new();
    let config = rig.config("", "", &format!("protocol = \"{transport}\""));
    let config = config.replace("\"memcached\"", &format!("\"{}\"", service(protocol)));
    let mut daemon = rig.start_with(&config);
    match by {
        By::Bypass => come(&rig.pair.left, rig.server(Family::V4)),
        By::Companion => come(&rig.pair.right, SERVER),
    }
    assert_eq!(rig.verdict(&mut daemon, "redirected") > 0, by == By::Bypass);
    rig.assert_no_frame_lost(&mut daemon);
    daemon.stop().unwrap_or_else(|error| panic!("{error}"));
}

/// Starts a daemon that has ordinary sockets alone and serves nothing but this, and shows a client the way.
fn unsteered(protocol: Protocol, transport: &str, come: impl FnOnce(&Namespace, SocketAddr)) {
    let namespace = Namespace::create("parity").expect("root, iproute2");
    let config = format!(
        r#"
[daemon]
admin = "{ADMIN}"
[workers]
cores = [{core}]
[table]
capacity = "16MiB"
[[listener]]
service = "{service}"
protocol = "{transport}"
transport = "kernel"
addresses = ["{address}"]
port = {PORT}
"#,
        core = usable_cores().last().expect("a core"),
        service = service(protocol),
        address = SERVER.ip(),
    );
    let daemon = Daemon::start(&namespace, Path::new(BINARY), &config);
    let daemon = daemon.unwrap_or_else(|error| panic!("{error}"));
    come(&namespace, SERVER);
    daemon.stop().unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) fn bypass_datagrams(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    steered(protocol, "udp", By::Bypass, |from, to| run(&mut Datagrams::open(from, to, protocol)));
}

pub(crate) fn bypass_stream(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    steered(protocol, "tcp", By::Bypass, |from, to| run(&mut Stream::connect(from, to, protocol)));
}

pub(crate) fn companion_datagrams(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    steered(protocol, "udp", By::Companion, |from, to| run(&mut Datagrams::open(from, to, protocol)));
}

pub(crate) fn companion_stream(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    steered(protocol, "tcp", By::Companion, |from, to| run(&mut Stream::connect(from, to, protocol)));
}

pub(crate) fn kernel_datagrams(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    unsteered(protocol, "udp", |from, to| run(&mut Datagrams::open(from, to, protocol)));
}

pub(crate) fn kernel_stream(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    unsteered(protocol, "tcp", |from, to| run(&mut Stream::connect(from, to, protocol)));
}

/// A client over UDP: a reply's datagrams are put together, without their frame headers.
struct Datagrams(daemon_support::Client, Protocol);

impl Datagrams {
    fn open(namespace: &Namespace, server: SocketAddr, protocol: Protocol) -> Self {
        let local = (Ipv4Addr::UNSPECIFIED, 0).into();
        Self(daemon_support::Client::open(namespace, local, server), protocol)
    }
}

impl Client for Datagrams {
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let Self(client, protocol) = self;
        let (mark, mark_reply) = protocol.mark();
        let (id, mark_id) = (client.send(request), client.send(mark));
        let (deadline, mut reply) = (Instant::now() + SOON, Vec::new());
        // The worker answers in order, and so does the wire.
        for place in 0.. {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some((of, sequence, total, text)) = client.receive(left) else {
                panic!("no end of the reply to {}", request.escape_ascii());
            };
            if of == mark_id {
                assert_eq!(text, mark_reply);
                break;
            }
            assert_eq!((of, sequence), (id, place), "of {total}, to {}", request.escape_ascii());
            reply.extend(text);
        }
        reply
    }

    fn part(&mut self, request: &[u8]) -> Vec<u8> {
        self.ask(request)
    }
}

/// A client over TCP.
struct Stream(TcpStream, Protocol);

impl Stream {
    fn connect(namespace: &Namespace, server: SocketAddr, protocol: Protocol) -> Self {
        let stream = namespace.run(|| TcpStream::connect(server)).expect("entered").expect("it connects");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        Self(stream, protocol)
    }
}

impl Client for Stream {
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let Self(stream, protocol) = self;
        let (mark, mark_reply) = protocol.mark();
        stream.write_all(&[request, mark].concat()).expect("it takes bytes");
        let (mut reply, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while !reply.ends_with(mark_reply) {
            let count = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{error}"));
            assert!(count > 0, "it closed at {}", request.escape_ascii());
            reply.extend_from_slice(&buffer[..count]);
        }
        reply.truncate(reply.len() - mark_reply.len());
        reply
    }

    fn part(&mut self, request: &[u8]) -> Vec<u8> {
        self.0.write_all(request).expect("it takes bytes");
        let mut reply = Vec::new();
        self.0.read_to_end(&mut reply).expect("an orderly end");
        reply
    }
}
