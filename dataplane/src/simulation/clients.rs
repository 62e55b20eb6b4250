//! Clients with streams: our own TCP in the other role, on the other end of the wires.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use dataplane_ebpf::packet::{self, Transport};

use super::{LINK_V4, LINK_V6, wire_of};
use crate::net::tcp::{Closed, Config, FlowId, Handler, Io, Output, Seeds, Stack, Taken};
use crate::port::sim::Wire;
use crate::time::Now;

/// Bytes of the longest frame a client sends.
const FRAME_BYTES: usize = 2_048;

/// All clients with streams.
pub(super) struct Clients {
    stack: Stack,
    conversations: Conversations,
    /// Packets that came and are no segments.
    pub(super) others: VecDeque<Vec<u8>>,
}

impl Clients {
    pub(super) fn new(config: Config, seed: u64) -> Self {
        let seeds = Seeds { table: !seed, sequence: [!seed, seed.rotate_left(32)] };
        let stack = Stack::new(config, seeds).expect("sizes within their bounds");
        Self { stack, conversations: Conversations::default(), others: VecDeque::new() }
    }

    pub(super) fn connect(&mut self, now: Now, client: SocketAddr, server: SocketAddr) -> FlowId {
        let link = if client.is_ipv4() { &LINK_V4 } else { &LINK_V6 };
        let flow = self.stack.connect(now, link, client, server).expect("a free flow between these ends");
        self.conversations.0.insert(flow, Conversation::default());
        flow
    }

    pub(super) fn say(&mut self, flow: FlowId, words: &[u8]) {
        let conversation = self.conversations.of(flow);
        conversation.words.extend_from_slice(words);
        self.go_on(flow);
    }

    pub(super) fn hang_up(&mut self, flow: FlowId) {
        self.conversations.of(flow).ends = true;
        self.go_on(flow);
    }

    fn go_on(&mut self, flow: FlowId) {
        let conversation = self.conversations.of(flow);
        if conversation.is_open
            && let Some(mut io) = self.stack.io(flow)
        {
            conversation.say(&mut io);
        }
    }

    pub(super) fn hear(&mut self, flow: FlowId) -> Vec<u8> {
        std::mem::take(&mut self.conversations.of(flow).heard)
    }

    pub(super) fn closed(&self, flow: FlowId) -> Option<Closed> {
        self.conversations.0.get(&flow)?.closed
    }

    pub(super) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Takes what has come by the wires, and sends what is to be sent. Returns the number of packets that came.
    pub(super) fn turn(&mut self, now: Now, wires: &[Wire]) -> usize {
        let mut came = 0;
        let mut out = ToWires { wires };
        for packet in wires.iter().flat_map(|wire| std::iter::from_fn(|| wire.receive())) {
            came += 1;
            if packet::parse(&packet[..]).is_ok_and(|parsed| matches!(parsed.transport, Transport::Tcp(_))) {
                self.stack.receive(now, &packet, &mut self.conversations, &mut out);
            } else {
                self.others.push_back(packet);
            }
        }
        self.stack.poll(now, &mut self.conversations, &mut out);
        came
    }
}

/// One client's connection.
#[derive(Debug, Default)]
struct Conversation {
    is_open: bool,
    /// What it has to say, of which the stack has taken the first part.
    words: Vec<u8>,
    said: usize,
    /// It closes when all is said.
    ends: bool,
    heard: Vec<u8>,
    closed: Option<Closed>,
}

impl Conversation {
    fn say(&mut self, io: &mut Io<'_>) {
        self.said += io.send(&self.words[self.said..]);
        if self.ends && self.said == self.words.len() {
            io.close();
        }
    }
}

#[derive(Debug, Default)]
struct Conversations(HashMap<FlowId, Conversation>);

impl Conversations {
    fn of(&mut self, flow: FlowId) -> &mut Conversation {
        self.0.get_mut(&flow).expect("a connection of these clients")
    }
}

impl Handler for Conversations {
    fn opened(&mut self, flow: FlowId, _: SocketAddr, _: SocketAddr, io: &mut Io<'_>) {
        let conversation = self.of(flow);
        conversation.is_open = true;
        conversation.say(io);
    }

    fn data(&mut self, flow: FlowId, bytes: &[u8], _: &mut Io<'_>) -> Taken {
        self.of(flow).heard.extend_from_slice(bytes);
        Taken::all(bytes.len())
    }

    fn writable(&mut self, flow: FlowId, io: &mut Io<'_>) {
        self.of(flow).say(io);
    }

    fn closed(&mut self, flow: FlowId, reason: Closed) {
        self.of(flow).closed = Some(reason);
    }
}

/// Sends each frame by the wire of its sender.
struct ToWires<'a> {
    wires: &'a [Wire],
}

impl Output for ToWires<'_> {
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let mut frame = vec![0; FRAME_BYTES];
        let bytes = build(&mut frame);
        frame.truncate(bytes);
        let Ok(packet::Packet { transport: Transport::Tcp(header), .. }) = packet::parse(&frame[..]) else {
            panic!("a client sends segments");
        };
        wire_of(self.wires, header.source_port).send(frame);
        true
    }
}
