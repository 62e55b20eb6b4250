//! The kernel's own TCP as the peer, over a veth pair: a packet socket on one end carries our stack's frames under an
//! address that the kernel there does not have, ordinary sockets on the other end talk to it.

mod tcp_support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use dataplane::net::tcp::{Config, Output};
use dataplane::testbed::{VethEnd, VethPair};
use dataplane::time::Now;
use tcp_support::app::{Reader, Stream, byte};
use tcp_support::ours::Ours;

/// Longest a test takes.
const DEADLINE: Duration = Duration::from_secs(60);
/// Frames taken in one turn.
const BATCH: usize = 64;

/// Our addresses: in the networks of the pair, and nobody's.
fn own_address(v4: bool) -> IpAddr {
    if v4 {
        let [a, b, c, _] = VethEnd::right().v4.octets();
        Ipv4Addr::new(a, b, c, 200).into()
    } else {
        let mut octets = VethEnd::right().v6.octets();
        octets[15] = 200;
        Ipv6Addr::from(octets).into()
    }
}

/// A packet socket bound to the right end.
struct Packets {
    socket: OwnedFd,
    /// Frames of this many are lost, both ways; 0 loses none.
    loss_one_in: u64,
    count: u64,
}

impl Packets {
    /// Opens it in the calling thread's namespace.
    fn open(interface: &str, loss_one_in: u64) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers are passed.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, protocol.into()) };
        assert!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just opened and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = std::ffi::CString::new(interface).expect("a name without NUL");
        // SAFETY: the name ends in NUL and outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert!(index > 0, "no interface {interface}");
        // SAFETY: an all-zero address is a valid value of the plain C struct.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        // SAFETY: the address is a `sockaddr_ll` of the length given, and outlives the call.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
        Self { socket, loss_one_in, count: 0 }
    }

    fn is_lost(&mut self) -> bool {
        self.count += 1;
        self.loss_one_in > 0 && self.count.is_multiple_of(self.loss_one_in)
    }

    /// The next TCP frame to one of our addresses; `None` when nothing is there.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            // SAFETY: the buffer is writable for the length given, and outlives the call.
            let bytes =
                unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let bytes = usize::try_from(bytes).ok()?;
            let frame = &buffer[..bytes];
            let ours = match frame.get(12..14) {
                Some([0x08, 0x00]) => {
                    matches!(own_address(true), IpAddr::V4(own) if frame[30..34] == own.octets())
                }
                Some([0x86, 0xdd]) => {
                    matches!(own_address(false), IpAddr::V6(own) if frame[38..54] == own.octets())
                }
                _ => false,
            };
            if ours && !self.is_lost() {
                return Some(bytes);
            }
        }
    }
}

impl Output for Packets {
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let mut frame = [0u8; 2_048];
        let bytes = build(&mut frame);
        if !self.is_lost() {
            // SAFETY: the frame is readable for the length given, and outlives the call.
            let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), bytes, 0) };
            assert_eq!(usize::try_from(sent).ok(), Some(bytes), "{}", std::io::Error::last_os_error());
        }
        true
    }
}

/// Runs our side until it is done.
fn serve(node: &mut Ours, packets: &mut Packets) {
    let deadline = Instant::now() + DEADLINE;
    let mut buffer = vec![0; 1 << 16];
    while node.apps.over.len() < node.streams {
        assert!(Instant::now() < deadline, "not done: {:?}", node.stack.statistics());
        let now = Now::read();
        for _ in 0..BATCH {
            let Some(bytes) = packets.receive(&mut buffer) else { break };
            node.stack.receive(now, &buffer[..bytes], &mut node.apps, packets);
        }
        node.stack.poll(now, &mut node.apps, packets);
    }
    node.stack.check();
}

/// The kernel's side of a stream: writes and reads at once.
fn converse(socket: &TcpStream, stream: &Stream) {
    // A test that fails ends.
    socket.set_read_timeout(Some(DEADLINE)).expect("a time");
    socket.set_write_timeout(Some(DEADLINE)).expect("a time");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bytes: Vec<u8> = (0..stream.send_bytes).map(|at| byte(stream.send_seed, at)).collect();
            (&*socket).write_all(&bytes).expect("the peer takes it");
            socket.shutdown(Shutdown::Write).expect("an open socket");
        });
        let mut received = Vec::new();
        (&*socket).read_to_end(&mut received).expect("the peer closes in order");
        let expected: Vec<u8> = (0..stream.receive_bytes).map(|at| byte(stream.receive_seed, at)).collect();
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    });
}

fn pair() -> VethPair {
    let plain =
        |end: VethEnd| VethEnd { transmit_checksum_offload: false, generic_receive_offload: false, ..end };
    let pair = VethPair::create(plain(VethEnd::left()), plain(VethEnd::right()), VethPair::MTU_DEFAULT)
        .expect("needs root and ip");
    // Frames larger than the link takes belong to an offload that a packet socket does not undo.
    let interface = &pair.left_end.interface;
    pair.left.ip(&["link", "set", "dev", interface, "gso_max_segs", "1"]).expect("a driver that can");
    for v4 in [true, false] {
        let own = own_address(v4).to_string();
        let mac = pair.right_end.mac_text();
        pair.left.ip(&["neigh", "add", &own, "lladdr", &mac, "dev", interface]).expect("a new neighbour");
    }
    pair
}

fn config() -> Config {
    Config { flows: 64, half_open: 64, waiting: 64, ..Config::default() }
}

fn as_server(v4: bool, loss_one_in: u64, streams: &[(usize, usize, Reader)]) -> Ours {
    let pair = pair();
    let mut node = Ours::new(config(), 11, streams.len());
    let right = pair.right_end.interface.clone();
    let mut packets = pair.right.run(|| Packets::open(&right, loss_one_in)).expect("the right namespace");
    // Ports are the kernel's choice: they are told when it has chosen.
    let local = SocketAddr::new(pair.left_end.addresses()[usize::from(!v4)], 0);
    std::thread::scope(|scope| {
        for (number, &(to_server, to_client, reader)) in streams.iter().enumerate() {
            let seed = 100 + number as u64;
            let port = 20_000 + number as u16;
            node.apps.expected.insert(port, Stream::server(seed, to_server, to_client, reader));
            let (pair, stream) = (&pair, Stream::client(seed, to_server, to_client, Reader::Eager));
            scope.spawn(move || {
                let peer = SocketAddr::new(own_address(v4), 80);
                let connect = || connect_from(SocketAddr::new(local.ip(), port), peer);
                let socket = pair.left.run(connect).expect("the left namespace");
                converse(&socket, &stream);
            });
        }
        serve(&mut node, &mut packets);
        // The kernel may have lost our last acknowledgement: answer until its side is done too.
        linger(&mut node, &mut packets);
    });
    node
}

/// Goes on for a little while after the last flow is over.
fn linger(node: &mut Ours, packets: &mut Packets) {
    let end = Instant::now() + Duration::from_secs(2);
    let mut buffer = vec![0; 1 << 16];
    while Instant::now() < end {
        let now = Now::read();
        while let Some(bytes) = packets.receive(&mut buffer) {
            node.stack.receive(now, &buffer[..bytes], &mut node.apps, packets);
        }
        node.stack.poll(now, &mut node.apps, packets);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A connection from a port of our choice.
fn connect_from(local: SocketAddr, peer: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &local).expect("a free port");
    connect(&socket, &peer).expect("our side answers");
    TcpStream::from(socket)
}

#[test]
fn the_kernel_as_client() {
    for v4 in [true, false] {
        let streams = [
            (0, 0, Reader::Eager),
            (100, 100, Reader::Eager),
            (3_000_000, 3_000_000, Reader::Eager),
            (1_000_000, 10, Reader::Messages(1 << 20)),
        ];
        let node = as_server(v4, 0, &streams);
        for (stream, _) in &node.apps.over {
            stream.assert_whole();
        }
        let statistics = node.stack.statistics();
        assert_eq!((statistics.accepted, statistics.timeouts), (4, 0), "{statistics:?}");
    }
}

#[test]
fn the_kernel_as_client_over_a_wire_that_loses_one_frame_in_fifty() {
    let node =
        as_server(true, 50, &[(1_000_000, 1_000_000, Reader::Eager), (200_000, 2_000_000, Reader::Eager)]);
    for (stream, _) in &node.apps.over {
        stream.assert_whole();
    }
    assert!(node.stack.statistics().retransmissions > 10);
}

#[test]
fn the_kernel_as_server() {
    for (v4, loss_one_in) in [(true, 0), (false, 0), (true, 50)] {
        let pair = pair();
        let mut node = Ours::new(config(), 12, 1);
        let right = pair.right_end.interface.clone();
        let mut packets = pair.right.run(|| Packets::open(&right, loss_one_in)).expect("the right namespace");
        let peer = SocketAddr::new(pair.left_end.addresses()[usize::from(!v4)], 7_000);
        let listener =
            pair.left.run(|| TcpListener::bind(peer).expect("a free port")).expect("the left namespace");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (socket, _) = listener.accept().expect("a connection");
                converse(&socket, &Stream::server(5, 1_000_000, 1_500_000, Reader::Eager));
            });
            let header = tcp_support::link(pair.left_end.mac, pair.right_end.mac, v4);
            let local = SocketAddr::new(own_address(v4), 9_000);
            let stream = Stream::client(5, 1_000_000, 1_500_000, Reader::Eager);
            node.connect(Now::read().monotonic_ns, &header, local, peer, stream);
            serve(&mut node, &mut packets);
            linger(&mut node, &mut packets);
        });
        for (stream, _) in &node.apps.over {
            stream.assert_whole();
        }
    }
}
