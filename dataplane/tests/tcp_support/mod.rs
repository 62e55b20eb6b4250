//! Two nodes, a wire between them that does what wires do, and applications that know every byte they should see.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod app;
pub(crate) mod ours;
pub(crate) mod pair;
pub(crate) mod smol;
pub(crate) mod wire;

use std::net::{IpAddr, SocketAddr};

use dataplane::config::ChecksumPolicy;
use dataplane::net::tcp::segment::Segment;
use dataplane::net::tcp::sequence::Sequence;
use dataplane::time::Now;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000 * MS;

/// The server's Ethernet address and the client's.
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(crate) fn now(at_ns: u64) -> Now {
    Now { monotonic_ns: at_ns, unix_ms: at_ns / MS }
}

/// A link header from one to the other.
pub(crate) fn link(to: [u8; 6], from: [u8; 6], v4: bool) -> [u8; 14] {
    let mut header = [0; 14];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&from);
    header[12..].copy_from_slice(if v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
    header
}

pub(crate) fn server_address(v4: bool) -> SocketAddr {
    if v4 { SocketAddr::from(([10, 0, 0, 1], 80)) } else { "[fd00::1]:80".parse().expect("an address") }
}

pub(crate) fn client_address(v4: bool, port: u16) -> SocketAddr {
    if v4 {
        SocketAddr::from(([10, 0, 0, 2], port))
    } else {
        SocketAddr::new("fd00::2".parse().expect("an address"), port)
    }
}

/// One end of the wire.
pub(crate) trait Node {
    /// A frame arrives.
    fn deliver(&mut self, at_ns: u64, frame: &[u8]);
    /// A turn, after a batch of frames or because of time; what it sends goes to `out`.
    fn turn(&mut self, at_ns: u64, out: &mut Vec<Vec<u8>>);
    /// When it wants a turn though nothing arrives.
    fn next_ns(&mut self, at_ns: u64) -> Option<u64>;
    /// Everything said and heard.
    fn is_done(&self) -> bool;
}

/// A small generator of random numbers (splitmix64): tests that fail are repeated from their seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub(crate) fn permille(&mut self, chance: u32) -> bool {
        self.below(1_000) < u64::from(chance)
    }
}

/// Runs both nodes until both are done and then until nothing is to happen any more, or panics after
/// `deadline_ns` of simulated time. Returns when both were done.
pub(crate) fn run(
    client: &mut dyn Node,
    server: &mut dyn Node,
    wire: &mut wire::Wire,
    deadline_ns: u64,
) -> u64 {
    let mut at_ns = wire.at_ns;
    let mut done_ns = None;
    let mut quiet = 0;
    loop {
        let mut sent = Vec::new();
        for frame in wire.take_due(wire::Side::Client, at_ns) {
            client.deliver(at_ns, &frame);
        }
        client.turn(at_ns, &mut sent);
        wire.send(wire::Side::Server, at_ns, sent.drain(..));
        for frame in wire.take_due(wire::Side::Server, at_ns) {
            server.deliver(at_ns, &frame);
        }
        server.turn(at_ns, &mut sent);
        wire.send(wire::Side::Client, at_ns, sent.drain(..));

        if done_ns.is_none() && client.is_done() && server.is_done() {
            done_ns = Some(at_ns);
        }
        let next = [client.next_ns(at_ns), server.next_ns(at_ns), wire.next_ns()].into_iter().flatten().min();
        let Some(next_ns) = next else {
            wire.at_ns = at_ns;
            return done_ns.unwrap_or_else(|| panic!("nothing more happens, and it is not done"));
        };
        quiet = if next_ns <= at_ns { quiet + 1 } else { 0 };
        // A turn that was asked for at once comes a little later: time goes on.
        at_ns = next_ns.max(at_ns + if quiet > 0 { 10_000 } else { 1 });
        if at_ns > deadline_ns {
            match done_ns {
                Some(done_ns) => {
                    wire.at_ns = at_ns;
                    return done_ns;
                }
                None => panic!("not done after {} ms", deadline_ns / MS),
            }
        }
    }
}

/// A frame that must be a whole segment.
pub(crate) fn parse(frame: &[u8]) -> Segment<'_> {
    Segment::parse(frame, ChecksumPolicy::Verify).expect("a whole segment")
}

/// A segment over IPv4 written byte by byte, so that it owes nothing to the code under test.
#[expect(clippy::too_many_arguments, reason = "as many fields as a header has")]
pub(crate) fn craft(
    source: SocketAddr,
    destination: SocketAddr,
    sequence: Sequence,
    acknowledgement: Sequence,
    flags: u8,
    window: u16,
    stamps: Option<(u32, u32)>,
    payload: &[u8],
) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else { panic!("IPv4 only") };
    let options = if stamps.is_some() { 12 } else { 0 };
    let mut frame = link(SERVER_MAC, CLIENT_MAC, true).to_vec();
    let total = 20 + 20 + options + payload.len();
    frame.extend([0x45, 0]);
    frame.extend((total as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    let sum = checksum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend(sequence.0.to_be_bytes());
    frame.extend(acknowledgement.0.to_be_bytes());
    frame.extend([((20 + options) * 4) as u8, flags]);
    frame.extend(window.to_be_bytes());
    frame.extend([0; 4]);
    if let Some((value, echo)) = stamps {
        frame.extend([1, 1, 8, 10]);
        frame.extend(value.to_be_bytes());
        frame.extend(echo.to_be_bytes());
    }
    frame.extend(payload);
    let pseudo: u32 = [from.octets(), to.octets()]
        .iter()
        .flat_map(|octets| octets.chunks(2))
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum::<u32>()
        + 6
        + (total - 20) as u32;
    let sum = checksum(&frame[34..], pseudo);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
