//! Live flows under whatever segments an input spells, with every promise checked after each: what the fuzz target
//! and a property test run.
//!
//! The input is a list of steps of [`STEP_BYTES`] bytes. Segments are built relative to where the flow stands, so
//! that most of them get past the first checks. The peer's byte at a sequence number is a function of that number
//! alone: whatever it sends in whatever pieces, the handler must see one stream.

use std::net::SocketAddr;

use super::config::Config;
use super::ends::{Ends, Link};
use super::handler::{Closed, FlowId, Handler, Io, Output, Taken};
use super::options::{Block, OptionsOut, Timestamps};
use super::pool::Class;
use super::segment::{ACK, FIN, Header, RST, SYN, Segment, write};
use super::sequence::Sequence;
use super::stack::{Seeds, Stack};
use super::statistics::Holdings;
use super::too_big::TooBig;
use crate::config::ChecksumPolicy;
use crate::time::{NS_PER_MS, NS_PER_S, Now};

/// Bytes of one step.
pub const STEP_BYTES: usize = 14;
const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
/// The peer's initial sequence number: the wrap is near.
const PEER_START: Sequence = Sequence(u32::MAX - 3_000);

/// The peer's byte at a sequence number.
fn byte(at: Sequence) -> u8 {
    (at.0 ^ (at.0 >> 7)) as u8
}

/// Takes part of what comes, and checks all of it.
#[derive(Default)]
struct Reader {
    flow: Option<FlowId>,
    /// Where the stream of a flow that opens now starts, and that of the one that is open.
    next_start: Sequence,
    start: Sequence,
    /// Bytes taken.
    read: u32,
    /// Bytes taken of those shown, in eighths.
    appetite: usize,
    needed: usize,
    opened: u32,
    closed: u32,
}

impl Handler for Reader {
    fn opened(&mut self, flow: FlowId, _: SocketAddr, _: SocketAddr, _: &mut Io<'_>) {
        assert!(self.flow.is_none(), "one flow between these ends");
        (self.flow, self.start, self.read) = (Some(flow), self.next_start, 0);
        self.opened += 1;
    }

    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        assert_eq!(self.flow, Some(flow));
        assert!(!bytes.is_empty());
        let start = self.start.plus(self.read);
        for (at, &shown) in bytes.iter().enumerate() {
            assert_eq!(shown, byte(start.plus(at as u32)), "byte {} of the stream", self.read + at as u32);
        }
        let consumed = (bytes.len() * self.appetite).div_ceil(8);
        self.read += consumed as u32;
        io.send(&bytes[..consumed.min(100)]);
        Taken { consumed, needed: self.needed }
    }

    fn closed(&mut self, flow: FlowId, _: Closed) {
        assert_eq!(self.flow.take(), Some(flow));
        self.closed += 1;
    }
}

/// Keeps what is sent, as far as there is room, and checks it.
struct Observer {
    room: usize,
    /// The last acknowledgement of the flow that is open.
    acknowledged: Option<Sequence>,
    /// Our next sequence number as the peer sees it.
    next: Sequence,
    stamp: u32,
    frames: u64,
}

impl Output for Observer {
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.frames += 1;
        let mut frame = [0; 1_536];
        let bytes = build(&mut frame);
        let segment =
            Segment::parse(&frame[..bytes], ChecksumPolicy::Verify).expect("we send whole segments");
        if segment.has(RST) {
            return true;
        }
        if segment.has(SYN) {
            self.next = segment.sequence.plus(1);
        } else if segment.has(ACK) {
            let before = self.acknowledged.replace(segment.acknowledgement);
            if let Some(before) = before {
                assert!(!segment.acknowledgement.before(before), "an acknowledgement taken back");
            }
            let end = segment.sequence.plus(segment.length());
            self.next = self.next.max(end);
        }
        for block in segment.options.sack() {
            assert!(block.start.before(block.end), "a block that ends before it starts");
        }
        self.stamp = segment.options.timestamps.map_or(self.stamp, |timestamps| timestamps.value);
        true
    }
}

fn config() -> Config {
    let class = |bytes, count| Class { bytes, count };
    Config {
        flows: 2,
        half_open: 1,
        waiting: 2,
        chunks: 8,
        chunk_bytes: 256,
        segments: 4,
        send_bytes_max: 1_500,
        blocks: [class(256, 2), class(1_024, 1), class(4_096, 1), class(16_384, 1)],
        window_bytes: 8_192,
        window_slack_bytes: 1_024,
        keepalive_ns: 10 * NS_PER_S,
        stalled_ns: 20 * NS_PER_S,
        close_ns: 20 * NS_PER_S,
        time_wait_ns: 5 * NS_PER_S,
        ..Config::default()
    }
}

struct Bed {
    stack: Stack,
    reader: Reader,
    observer: Observer,
    now: Now,
    /// The peer's next sequence number.
    peer_next: Sequence,
}

/// Runs an input.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let seeds = Seeds { table: 1, sequence: [2, 3] };
    let mut bed = Bed {
        stack: Stack::new(config(), seeds).expect("a good configuration"),
        reader: Reader { appetite: 8, ..Reader::default() },
        observer: Observer { room: usize::MAX, acknowledged: None, next: Sequence(0), stamp: 0, frames: 0 },
        now: Now { monotonic_ns: NS_PER_S, unix_ms: 0 },
        peer_next: PEER_START.plus(1),
    };
    bed.open();
    for step in input.chunks_exact(STEP_BYTES) {
        bed.step(step.try_into().expect("a whole step"));
        bed.stack.check();
    }
    bed.end();
}

impl Bed {
    fn segment(&mut self, header: &Header<'_>, payload_bytes: usize) -> Vec<u8> {
        let ends = Ends::new(([10, 0, 0, 2], 4_000).into(), ([10, 0, 0, 1], 80).into());
        let link = Link::new(&LINK, true).expect("a link header");
        let mut frame = vec![0; 4_096];
        let bytes = write(&mut frame, &link, &ends, header, payload_bytes, |payload| {
            for (at, place) in payload.iter_mut().enumerate() {
                *place = byte(header.sequence.plus(at as u32));
            }
        });
        frame.truncate(bytes);
        frame
    }

    fn receive(&mut self, frame: &[u8]) {
        if self.stack.holdings().half_open > 0 {
            // There is room for one alone.
            self.reader.next_start = self.stack.half_open.get(0).peers.plus(1);
        }
        let opened = self.reader.opened;
        self.stack.receive(self.now, frame, &mut self.reader, &mut self.observer);
        self.forget_unless_open(opened);
    }

    /// What is acknowledged outside of flows, or in another, proves nothing for the one that is open.
    fn forget_unless_open(&mut self, opened: u32) {
        if self.reader.flow.is_none() || self.reader.opened != opened {
            self.observer.acknowledged = None;
        }
    }

    fn poll(&mut self) {
        let opened = self.reader.opened;
        self.stack.poll(self.now, &mut self.reader, &mut self.observer);
        self.forget_unless_open(opened);
    }

    /// A flow from the peer, with everything a SYN can offer.
    fn open(&mut self) {
        let stamps = Timestamps { value: 1_000, echo: 0 };
        let options =
            OptionsOut::default().segment_bytes(1_000).window_shift(2).sack_permitted().timestamps(stamps);
        let syn = Header {
            sequence: PEER_START,
            acknowledgement: Sequence(0),
            flags: SYN,
            window: 1_000,
            options: &options,
        };
        let frame = self.segment(&syn, 0);
        self.receive(&frame);
        let options =
            OptionsOut::default().timestamps(Timestamps { value: 1_000, echo: self.observer.stamp });
        let ack = Header {
            sequence: PEER_START.plus(1),
            acknowledgement: self.observer.next,
            flags: ACK,
            window: 1_000,
            options: &options,
        };
        let frame = self.segment(&ack, 0);
        self.receive(&frame);
        self.poll();
        assert_eq!(self.reader.opened, 1);
    }

    fn step(&mut self, step: &[u8; STEP_BYTES]) {
        let [kind, flags, s0, s1, a0, a1, w0, w1, length, _, o0, o1, ..] = *step;
        let offset = i16::from_be_bytes([s0, s1]);
        match kind % 16 {
            0..8 => self.send_segment(step, None),
            8 => {
                self.now.monotonic_ns += u64::from(u16::from_be_bytes([w0, w1])) * NS_PER_MS / 4;
                self.poll();
            }
            9 => self.send_segment(step, Some((usize::from(a0), a1))),
            10 => self.reader.appetite = usize::from(length % 9),
            11 => self.observer.room = usize::from(length % 8),
            12 => self.observer.room = usize::MAX,
            13 => {
                if let Some(flow) = self.reader.flow {
                    let bytes = vec![flags; usize::from(u16::from_be_bytes([w0, w1])) % 2_000];
                    self.stack.send(flow, &bytes);
                }
            }
            14 => {
                if let Some(mut io) = self.reader.flow.and_then(|flow| self.stack.io(flow)) {
                    if length > 250 { io.abort() } else { io.close() }
                }
            }
            _ => {
                self.reader.needed = usize::from(u16::from_be_bytes([w0, w1])) % 10_000;
                let message = TooBig {
                    ends: Ends::new(([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 4_000).into()),
                    sequence: self.observer.next.plus(offset as u32),
                    mtu_bytes: usize::from(u16::from_be_bytes([o0, o1])),
                };
                self.stack.packet_too_big(self.now, &message);
                if let Some(flow) = self.reader.flow {
                    self.stack.resume(self.now, flow, &mut self.reader);
                }
            }
        }
        if kind & 16 == 0 {
            self.poll();
        }
    }

    fn send_segment(&mut self, step: &[u8; STEP_BYTES], damage: Option<(usize, u8)>) {
        let [kind, flags, s0, s1, a0, a1, w0, w1, length, options, o0, o1, o2, o3] = *step;
        let small = |high: u8, low: u8| i32::from(i16::from_be_bytes([high, low])) as u32;
        // Most segments have an ACK, and follow the one before.
        let flags = if kind & 32 == 0 { ACK | flags & FIN } else { flags };
        let sequence = if kind & 64 == 0 { self.peer_next } else { self.peer_next.plus(small(s0, s1)) };
        let acknowledgement =
            if kind & 128 == 0 { self.observer.next } else { self.observer.next.plus(small(a0, a1)) };
        let mut out = OptionsOut::default();
        if options & 1 == 0 {
            let value = 1_000 + (self.now.monotonic_ns / NS_PER_MS) as u32;
            let value = if options & 2 == 0 { value } else { value.wrapping_add(small(o0, o1)) };
            out = out.timestamps(Timestamps { value, echo: self.observer.stamp });
        }
        if options & 4 != 0 {
            let start = self.observer.next.minus(u32::from(o0) * 16);
            let block = |from: u8, bytes: u8| Block {
                start: start.plus(u32::from(from) * 16),
                end: start.plus(u32::from(from) * 16 + u32::from(bytes) * 16),
            };
            out = out.sack(&[block(o1, o2), block(o2, o3)]);
        }
        let header =
            Header { sequence, acknowledgement, flags, window: u16::from_be_bytes([w0, w1]), options: &out };
        let payload_bytes = usize::from(length) * 4;
        let mut frame = self.segment(&header, payload_bytes);
        if let Some((place, bits)) = damage {
            let place = place % frame.len();
            frame[place] ^= bits;
        } else if kind & 64 == 0 && header.flags & (SYN | RST) == 0 {
            self.peer_next = self.peer_next.plus(payload_bytes as u32);
        }
        self.receive(&frame);
    }

    /// The peer falls silent: in time everything is given back.
    fn end(&mut self) {
        self.observer.room = usize::MAX;
        self.reader.appetite = 8;
        let mut told = None;
        for _ in 0..2_000 {
            self.poll();
            let Some(due_ns) = self.stack.next_due_ns() else { break };
            self.now.monotonic_ns = due_ns.max(self.now.monotonic_ns + NS_PER_MS);
            // Whoever only waits for a peer that never closes is let go.
            if told != self.reader.flow {
                told = self.reader.flow;
                if let Some(mut io) = told.and_then(|flow| self.stack.io(flow)) {
                    io.close();
                }
            }
        }
        self.stack.check();
        assert_eq!(self.stack.holdings(), Holdings::default(), "everything is given back");
        assert_eq!(self.reader.opened, self.reader.closed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn no_segments_break_a_promise(input in proptest::collection::vec(any::<u8>(), 0..STEP_BYTES * 80)) {
            run(&input);
        }

        /// Flags, options and numbers that make sense more often than not, so that flows live longer.
        #[test]
        fn nor_do_those_that_mostly_make_sense(
            steps in proptest::collection::vec(
                (0u8..16, any::<[u8; STEP_BYTES - 1]>(), 0u8..8, any::<bool>()), 0..120
            ),
        ) {
            let input: Vec<u8> = steps
                .into_iter()
                .flat_map(|(kind, mut rest, strange, fin)| {
                    rest[0] &= u8::from(fin && strange == 0);
                    rest[8] &= if strange == 1 { 7 } else { 4 };
                    let odd = match strange { 2 => 64, 3 => 128, 4 => 16, _ => 0 };
                    [kind | odd].into_iter().chain(rest)
                })
                .collect();
            run(&input);
        }
    }
}
