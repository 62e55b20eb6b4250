//! Ways to the daemon's own binary, by ordinary sockets of the kernel on the client's side.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use dataplane::testbed::Namespace;

use crate::Client;
use crate::daemon_support::{self, Family, PORT, Rig, SOON};
use crate::record::Protocol;

/// Starts a daemon that serves nothing but this, and shows it to a client; whether its packets go past the kernel.
fn serve(protocol: Protocol, transport: &str, bypasses: bool, come: impl FnOnce(&Rig)) {
    let rig = Rig::new();
    let config = rig.config("", "", &format!("protocol = \"{transport}\""));
    let config = match protocol {
        Protocol::Memcached => config,
        Protocol::Resp => config.replace("service = \"memcached\"", "service = \"resp\""),
    };
    let mut daemon = rig.start_with(&config);
    come(&rig);
    assert_eq!(rig.verdict(&mut daemon, "redirected") > 0, bypasses);
    rig.assert_no_frame_lost(&mut daemon);
    daemon.stop().unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) fn bypass_datagrams(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    serve(protocol, "udp", true, |rig| run(&mut Datagrams(rig.client(Family::V4), protocol)));
}

/// From the daemon's own host, which the XDP program sees nothing of.
pub(crate) fn companion_datagrams(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    serve(protocol, "udp", false, |rig| {
        let (local, server) = ((Ipv4Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, PORT).into());
        let client = daemon_support::Client::open(&rig.pair.right, local, server);
        run(&mut Datagrams(client, protocol));
    });
}

pub(crate) fn bypass_stream(protocol: Protocol, run: &mut dyn FnMut(&mut dyn Client)) {
    serve(protocol, "tcp", true, |rig| {
        run(&mut Stream::connect(&rig.pair.left, rig.server(Family::V4), protocol));
    });
}

/// A client over UDP: a reply's datagrams are put together, without their frame headers.
struct Datagrams(daemon_support::Client, Protocol);

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
