//! A real memcached on loopback, and clients that know where its replies end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use crate::differential_support::server::{DEADLINE, Program, RealServer};

const MEMCACHED: Program = Program {
    name: "memcached",
    package: "memcached",
    question: b"stats\r\nquit\r\n",
    process_label: "STAT pid ",
};

/// A memcached.
pub(crate) struct RealMemcached(pub(crate) RealServer);

impl RealMemcached {
    /// Starts one, over TCP and UDP.
    pub(crate) fn start() -> Self {
        Self(RealServer::start(&MEMCACHED, |command, port| {
            let port = port.to_string();
            command.args(["-u", "nobody", "-l", "127.0.0.1", "-t", "1", "-p", &port, "-U", &port]);
            // Its LRU threads take items for moments, and then a number is replaced instead of changed: replies would
            // differ from run to run.
            command.args(["-o", "no_modern"]);
        }))
    }
}

/// The reply that marks the end of whatever came before it.
pub(crate) const MARK: &[u8] = b"mg end-of-reply k\r\n";
const MARK_REPLY: &[u8] = b"EN kend-of-reply\r\n";

/// What is before the mark's reply.
pub(crate) fn before_mark(mut replies: Vec<u8>) -> Vec<u8> {
    assert!(replies.ends_with(MARK_REPLY), "no mark at the end of {:?}", String::from_utf8_lossy(&replies));
    replies.truncate(replies.len() - MARK_REPLY.len());
    replies
}

/// A client over TCP.
pub(crate) struct StreamClient(TcpStream);

impl StreamClient {
    pub(crate) fn connect(server: &RealMemcached) -> Self {
        Self(server.0.connect())
    }

    /// Which memcached it talks to.
    pub(crate) fn release(&mut self) -> Release {
        let reply = self.ask(b"version\r\n");
        let line = String::from_utf8_lossy(&reply);
        Release::of(&line).unwrap_or_else(|| panic!("no release in {line:?}"))
    }

    /// Sends bytes and a mark, and gives back every reply up to the mark's.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.write_all(&[bytes, MARK].concat()).expect("it reads");
        let mut replies = Vec::new();
        let mut buffer = [0; 65536];
        while !replies.ends_with(MARK_REPLY) {
            let count = self.0.read(&mut buffer).unwrap_or_else(|error| {
                panic!(
                    "{error} after {:?} to {:?}",
                    String::from_utf8_lossy(&replies),
                    String::from_utf8_lossy(bytes)
                )
            });
            assert!(count > 0, "it closed the stream at {:?}", String::from_utf8_lossy(bytes));
            replies.extend_from_slice(&buffer[..count]);
        }
        before_mark(replies)
    }
}

/// A release of memcached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(pub(crate) [u32; 3]);

impl Release {
    /// Out of the reply to `version`; what a distribution adds behind the numbers is left out.
    fn of(line: &str) -> Option<Self> {
        let mut parts = line.strip_prefix("VERSION ")?.trim_end().splitn(3, '.');
        let mut part = || {
            let part = parts.next()?;
            let digits = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        };
        Some(Self([part()?, part()?, part()?]))
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.0;
        write!(formatter, "{major}.{minor}.{patch}")
    }
}

/// A client over UDP.
pub(crate) struct DatagramClient {
    socket: UdpSocket,
    request_id: u16,
}

impl DatagramClient {
    pub(crate) fn connect(server: &RealMemcached) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.connect(server.0.address).expect("loopback");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Self { socket, request_id: 0 }
    }

    /// Sends one message.
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.request_id = self.request_id.wrapping_add(1);
        let [high, low] = self.request_id.to_be_bytes();
        let header = [high, low, 0, 0, 0, 1, 0, 0];
        self.socket.send(&[&header, message].concat()).expect("loopback");
    }

    /// Sends one message, then a mark in a datagram of its own; gives back the datagrams before the mark's.
    pub(crate) fn ask(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        self.send(message);
        self.send(MARK);
        let mut datagrams = Vec::new();
        loop {
            let mut buffer = vec![0; 65536];
            let count = self.socket.recv(&mut buffer).expect("the mark is answered");
            buffer.truncate(count);
            if buffer[..2] == self.request_id.to_be_bytes() {
                assert_eq!(buffer[8..], *MARK_REPLY);
                return datagrams;
            }
            datagrams.push(buffer);
        }
    }
}
