//! Our own stack as a node.

use std::collections::HashMap;
use std::net::SocketAddr;

use dataplane::net::tcp::{Admission, Closed, Config, FlowId, Handler, Io, Output, Seeds, Stack, Taken};

use super::app::{Reader, Stream};
use super::{Node, now};

/// Frames that were sent; takes `room` of them a turn.
pub(crate) struct Frames {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) room: usize,
}

impl Output for Frames {
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.frames.len() >= self.room {
            return false;
        }
        let mut frame = vec![0xaa; 2_048];
        let length = build(&mut frame);
        assert!(length > 0, "a frame that does not fit");
        frame.truncate(length);
        self.frames.push(frame);
        true
    }
}

/// Streams by flow, and what became of them.
#[derive(Default)]
pub(crate) struct Apps {
    /// Streams of a server, by the peer's port, before they are opened.
    pub(crate) expected: HashMap<u16, Stream>,
    pub(crate) open: HashMap<FlowId, Stream>,
    pub(crate) over: Vec<(Stream, Closed)>,
    /// Flows whose reader is lazy and has bytes left.
    pub(crate) unread: Vec<FlowId>,
    pub(crate) refuse: bool,
}

impl Apps {
    fn write(stream: &mut Stream, io: &mut Io<'_>) {
        loop {
            let bytes = stream.next();
            if bytes.is_empty() {
                break;
            }
            let accepted = io.send(&bytes);
            stream.sent += accepted;
            if accepted < bytes.len() {
                return;
            }
        }
        Self::close(stream, io);
    }

    /// Closes when all is written. A lazy reader first takes all it wants: what is unread when both sides have closed
    /// is lost.
    fn close(stream: &mut Stream, io: &mut Io<'_>) {
        let read = stream.reader != Reader::Lazy || stream.received == stream.receive_bytes;
        if stream.all_sent() && read && !stream.closing {
            stream.closing = true;
            io.close();
        }
    }
}

impl Handler for Apps {
    fn admit(&mut self, _local: SocketAddr, _peer: SocketAddr) -> Admission {
        if self.refuse { Admission::Refuse } else { Admission::Accept }
    }

    fn opened(&mut self, flow: FlowId, local: SocketAddr, peer: SocketAddr, io: &mut Io<'_>) {
        assert_eq!(local.is_ipv4(), peer.is_ipv4());
        if let Some(stream) = self.expected.remove(&peer.port()) {
            assert!(self.open.insert(flow, stream).is_none(), "a name that is in use");
        }
        let Some(stream) = self.open.get_mut(&flow) else {
            io.abort();
            return;
        };
        assert!(!std::mem::replace(&mut stream.opened, true), "opened twice");
        Self::write(stream, io);
    }

    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        assert!(!bytes.is_empty());
        let stream = self.open.get_mut(&flow).expect("data only of open flows");
        assert!(stream.opened);
        let (consumed, needed) = stream.take(bytes);
        if stream.reader == Reader::Lazy && consumed < bytes.len() {
            self.unread.push(flow);
        }
        Self::close(stream, io);
        Taken { consumed, needed }
    }

    fn writable(&mut self, flow: FlowId, io: &mut Io<'_>) {
        Self::write(self.open.get_mut(&flow).expect("an open flow"), io);
    }

    fn finished(&mut self, flow: FlowId, _io: &mut Io<'_>) {
        let stream = self.open.get_mut(&flow).expect("an open flow");
        assert!(!std::mem::replace(&mut stream.peer_finished, true), "finished twice");
    }

    fn closed(&mut self, flow: FlowId, reason: Closed) {
        if let Some(stream) = self.open.remove(&flow) {
            self.over.push((stream, reason));
        }
    }
}

pub(crate) struct Ours {
    pub(crate) stack: Stack,
    pub(crate) apps: Apps,
    /// Frames a turn has room for.
    pub(crate) room: usize,
    /// Frames are kept for the next turn and given as one batch.
    pub(crate) batches: bool,
    arrived: Vec<Vec<u8>>,
    /// How many streams there will be.
    pub(crate) streams: usize,
    /// When lazy readers look again.
    pub(crate) read_again_ns: u64,
    next_read_ns: Option<u64>,
    answers: Vec<Vec<u8>>,
}

impl Ours {
    pub(crate) fn new(config: Config, seed: u64, streams: usize) -> Self {
        let seeds = Seeds { table: seed, sequence: [seed, seed ^ 0xffff] };
        Self {
            stack: Stack::new(config, seeds).expect("a good configuration"),
            apps: Apps::default(),
            room: usize::MAX,
            batches: false,
            arrived: Vec::new(),
            streams,
            read_again_ns: 3_000_000,
            next_read_ns: None,
            answers: Vec::new(),
        }
    }

    pub(crate) fn connect(
        &mut self,
        at_ns: u64,
        link: &[u8],
        local: SocketAddr,
        peer: SocketAddr,
        stream: Stream,
    ) -> FlowId {
        let flow = self.stack.connect(now(at_ns), link, local, peer).expect("a free flow");
        self.apps.open.insert(flow, stream);
        flow
    }

    /// Everything ended as it should and nothing is held any more.
    pub(crate) fn assert_clean(&self) {
        assert!(self.apps.over.iter().all(|(_, reason)| *reason == Closed::Finished));
        self.assert_whole();
    }

    /// Every byte came both ways, and nothing is held any more. smoltcp waits ten seconds for late segments and no
    /// longer, so that a FIN which was lost often enough may be answered with a reset after all.
    pub(crate) fn assert_whole(&self) {
        assert_eq!(self.apps.over.len(), self.streams);
        for (stream, reason) in &self.apps.over {
            assert!(matches!(reason, Closed::Finished | Closed::Reset), "{reason:?}");
            stream.assert_whole();
            assert!(stream.peer_finished);
        }
        self.assert_empty();
    }

    pub(crate) fn assert_empty(&self) {
        self.stack.check();
        assert_eq!(self.stack.holdings(), dataplane::net::tcp::statistics::Holdings::default());
    }
}

impl Node for Ours {
    fn deliver(&mut self, at_ns: u64, frame: &[u8]) {
        if self.batches {
            self.arrived.push(frame.to_vec());
            return;
        }
        let mut out = Frames { frames: std::mem::take(&mut self.answers), room: usize::MAX };
        self.stack.receive(now(at_ns), frame, &mut self.apps, &mut out);
        self.answers = out.frames;
    }

    fn turn(&mut self, at_ns: u64, out: &mut Vec<Vec<u8>>) {
        if self.next_read_ns.is_some_and(|next_ns| next_ns <= at_ns) {
            self.next_read_ns = None;
            let mut flows = std::mem::take(&mut self.apps.unread);
            flows.dedup();
            for flow in flows {
                self.stack.resume(now(at_ns), flow, &mut self.apps);
            }
        }
        if !self.apps.unread.is_empty() && self.next_read_ns.is_none() {
            self.next_read_ns = Some(at_ns + self.read_again_ns);
        }
        let mut frames = Frames { frames: std::mem::take(&mut self.answers), room: self.room };
        let arrived = std::mem::take(&mut self.arrived);
        let batch: Vec<&[u8]> = arrived.iter().map(|frame| &frame[..]).collect();
        self.stack.receive_batch(now(at_ns), &batch, &mut self.apps, &mut frames);
        self.stack.poll(now(at_ns), &mut self.apps, &mut frames);
        self.stack.check();
        out.append(&mut frames.frames);
    }

    fn next_ns(&mut self, _at_ns: u64) -> Option<u64> {
        [self.stack.next_due_ns(), self.next_read_ns].into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        self.apps.over.len() == self.streams
    }
}
