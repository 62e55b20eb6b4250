//! smoltcp as a node: an independent TCP.

use std::collections::VecDeque;
use std::net::SocketAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::app::{Reader, Stream};
use super::{CLIENT_MAC, Node, SERVER_MAC, link};

/// IP packets on their way to smoltcp and from it.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) sent: Vec<Vec<u8>>,
}

pub(crate) struct Received(Vec<u8>);
pub(crate) struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, consume: F) -> R {
        consume(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        self.received.pop_front().map(|packet| (Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1_500;
        capabilities
    }
}

pub(crate) struct Smol {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
    pub(crate) streams: Vec<(SocketHandle, Stream)>,
    /// What its frames start with.
    to_mac: [u8; 6],
    own_mac: [u8; 6],
    /// When lazy readers look again.
    next_read_ns: Option<u64>,
}

fn instant(at_ns: u64) -> Instant {
    Instant::from_micros((at_ns / 1_000) as i64)
}

impl Smol {
    pub(crate) fn new(seed: u64, own: SocketAddr, is_server: bool) -> Self {
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let prefix = if own.is_ipv4() { 24 } else { 64 };
            addresses.push(IpCidr::new(IpAddress::from(own.ip()), prefix)).expect("room for one");
        });
        let (own_mac, to_mac) = if is_server { (SERVER_MAC, CLIENT_MAC) } else { (CLIENT_MAC, SERVER_MAC) };
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            queues,
            streams: Vec::new(),
            to_mac,
            own_mac,
            next_read_ns: None,
        }
    }

    fn socket(buffer_bytes: usize) -> Socket<'static> {
        let mut socket =
            Socket::new(SocketBuffer::new(vec![0; buffer_bytes]), SocketBuffer::new(vec![0; 64 << 10]));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(Duration::from_millis(10)));
        socket
    }

    /// Waits for one connection, with a window of this many bytes.
    pub(crate) fn listen(&mut self, port: u16, window_bytes: usize, stream: Stream) {
        let mut socket = Self::socket(window_bytes);
        socket.listen(port).expect("a free socket");
        self.streams.push((self.sockets.add(socket), stream));
    }

    pub(crate) fn connect(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
        window_bytes: usize,
        stream: Stream,
    ) {
        let socket = Self::socket(window_bytes);
        let handle = self.sockets.add(socket);
        let context = self.interface.context();
        self.sockets
            .get_mut::<Socket>(handle)
            .connect(context, (IpAddress::from(peer.ip()), peer.port()), local)
            .expect("a good address");
        self.streams.push((handle, stream));
    }

    fn pump(&mut self, at_ns: u64) -> bool {
        let may_read = self.next_read_ns.is_none_or(|next_ns| next_ns <= at_ns);
        let mut moved = false;
        for (handle, stream) in &mut self.streams {
            let socket = self.sockets.get_mut::<Socket>(*handle);
            let opening = [State::Listen, State::SynSent, State::SynReceived, State::Closed];
            stream.opened |= !opening.contains(&socket.state());
            while stream.opened && socket.can_send() && !stream.all_sent() {
                let bytes = stream.next();
                let accepted = socket.send_slice(&bytes).expect("it can send");
                stream.sent += accepted;
                moved = true;
                if accepted < bytes.len() {
                    break;
                }
            }
            if stream.opened && stream.all_sent() && !stream.closing {
                stream.closing = true;
                socket.close();
                moved = true;
            }
            while socket.can_recv() && (stream.reader != Reader::Lazy || may_read) {
                let taken = socket
                    .recv(|bytes| {
                        let (taken, _) = stream.take(bytes);
                        (taken, taken)
                    })
                    .expect("it can receive");
                moved |= taken > 0;
                if stream.reader == Reader::Lazy || taken == 0 {
                    self.next_read_ns = Some(at_ns + 3_000_000);
                    break;
                }
            }
            stream.peer_finished |= stream.opened && !socket.may_recv() && !socket.can_recv();
        }
        moved
    }
}

impl Node for Smol {
    fn deliver(&mut self, _: u64, frame: &[u8]) {
        if frame.len() > 14 && frame[..6] == self.own_mac {
            self.queues.received.push_back(frame[14..].to_vec());
        }
    }

    fn turn(&mut self, at_ns: u64, out: &mut Vec<Vec<u8>>) {
        loop {
            self.interface.poll(instant(at_ns), &mut self.queues, &mut self.sockets);
            if !self.pump(at_ns) {
                break;
            }
        }
        for packet in self.queues.sent.drain(..) {
            let mut frame = link(self.to_mac, self.own_mac, packet[0] >> 4 == 4).to_vec();
            frame.extend_from_slice(&packet);
            out.push(frame);
        }
    }

    fn next_ns(&mut self, at_ns: u64) -> Option<u64> {
        let poll = self.interface.poll_at(instant(at_ns), &self.sockets);
        let poll_ns = poll.map(|at| at.total_micros().max(0) as u64 * 1_000);
        let read_ns = self.next_read_ns.filter(|_| {
            self.streams.iter().any(|(handle, _)| self.sockets.get::<Socket>(*handle).can_recv())
        });
        [poll_ns, read_ns].into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        self.streams.iter().all(|(handle, stream)| {
            let state = self.sockets.get::<Socket>(*handle).state();
            stream.opened
                && stream.received == stream.receive_bytes
                && matches!(state, State::Closed | State::TimeWait)
        })
    }
}
