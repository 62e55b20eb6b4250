//! The request path allocates nothing: a counting allocator watches a worker serve memcached over a port, and over ordinary
//! sockets, while its table evicts and expires; and it watches the driver around it, at work and asleep.

mod counting;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use counting::allocations;
use dataplane::config::{ChecksumPolicy, Idle, ListenerProtocol};
use dataplane::control::companion::CompanionSocket;
use dataplane::memory::Placement;
use dataplane::metrics::{DropReason, OpKind, WorkerMetrics};
use dataplane::net::allow::AllowList;
use dataplane::net::rate_limit::RateLimiter;
use dataplane::net::reply::ReplyHeaders;
use dataplane::port::{Frame, FrameAccounts, FrameBatch, Port, PortError, QueueOwner, Umem};
use dataplane::protocol::memcached;
use dataplane::service::{ServiceFactory, ServiceSetup};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::{NS_PER_MS, Now};
use dataplane::transport::bypass::Bypass;
use dataplane::transport::kernel::{Kernel, KernelSetup, Patience};
use dataplane::transport::streams::{StreamListener, StreamListeners};
use dataplane::worker::driver::{Command, Driver, Event};
use dataplane::worker::wake::Wake;
use dataplane::worker::{Listener, Shard, Worker};

const LINK_V4: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
const LINK_V6: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
const FRAMES: usize = 256;
/// The listener whose sources may ask almost as they like, and the one whose sources may hardly ask.
const PORTS: [u16; 2] = [11211, 11212];

/// A port on which a fixed list of packets arrives over and over, and whose replies are sent at once.
struct Treadmill {
    umem: Arc<Umem>,
    free: Vec<Frame>,
    packets: Vec<Vec<u8>>,
    next: usize,
    sent: VecDeque<Frame>,
}

impl Port for Treadmill {
    fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), PortError> {
        while !batch.is_full() && !self.packets.is_empty() {
            let Some(mut frame) = self.free.pop() else { break };
            let packet = &self.packets[self.next % self.packets.len()];
            self.next += 1;
            self.umem.compose(&mut frame, |chunk| {
                chunk[..packet.len()].copy_from_slice(packet);
                packet.len()
            });
            batch.push(frame);
        }
        Ok(())
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.sent.pop_front().or_else(|| self.free.pop())
    }

    fn available(&self) -> usize {
        self.free.len() + self.sent.len()
    }

    fn transmit_room(&self) -> usize {
        usize::MAX
    }

    fn release(&mut self, frame: Frame) {
        self.free.push(frame);
    }

    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        self.sent.push_back(frame);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.free.extend(self.sent.drain(..));
        Ok(())
    }

    fn wait_handle(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn accounts(&self) -> FrameAccounts {
        FrameAccounts { free: (self.free.len() + self.sent.len()) as u64, ..FrameAccounts::default() }
    }
}

/// The treadmill has no rings to own.
struct NoQueue(u64);

impl QueueOwner for NoQueue {
    fn poll(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn accounts(&self) -> FrameAccounts {
        FrameAccounts { total: self.0, ..FrameAccounts::default() }
    }
}

fn packet(number: usize, v6: bool, port: u16, message: &[u8]) -> Vec<u8> {
    let client_port = u16::try_from(4_000 + number % 1_000).expect("a port");
    let ends = |server: [u8; 4], client: [u8; 4]| {
        (SocketAddr::from((server, port)), SocketAddr::from((client, client_port)))
    };
    let (mut server, mut client) = ends([10, 0, 0, 1], [10, 0, 0, 2]);
    if v6 {
        server.set_ip("fd00::1".parse().expect("an address"));
        client.set_ip("fd00::2".parse().expect("an address"));
    }
    let headers = ReplyHeaders::to_request(if v6 { &LINK_V6 } else { &LINK_V4 }, server, client);
    let mut packet = vec![0; 4_096];
    let length = headers.write(&mut packet, &[&[0, 7, 0, 0, 0, 1, 0, 0], message]).expect("it fits");
    packet.truncate(length);
    packet
}

const MESSAGES: [&[u8]; 14] = [
    b"set key 0 0 5\r\nvalue\r\n",
    b"get key\r\n",
    b"gets key missing key\r\n",
    b"mg key t f v k c s Oxyz\r\n",
    b"ms meta 4 T30 F7\r\ndata\r\n",
    b"ma number N0 J10 v\r\n",
    b"incr number 5\r\n",
    b"append key 0 0 3\r\nabc\r\n",
    b"md meta q\r\n",
    b"delete nothing\r\n",
    b"touch key 100\r\n",
    b"stats\r\n",
    b"nonsense\r\n",
    b"\xff\x00 garbage",
];

/// Every message over both families and to both listeners, between stores of so many items that the table overflows,
/// some of which expire.
fn packets() -> Vec<Vec<u8>> {
    const ITEMS: usize = 3_000;
    let value = "v".repeat(3_000);
    (0..ITEMS)
        .flat_map(|number| {
            let expiry = if number % 3 == 0 { 1 } else { 0 };
            let store = format!("set item-{number} 0 {expiry} {}\r\n{value}\r\n", value.len());
            let message = MESSAGES[number % MESSAGES.len()];
            let (v6, port) = (number % 2 == 0, PORTS[usize::from(number % 5 == 0)]);
            [packet(number, v6, PORTS[0], store.as_bytes()), packet(number, v6, port, message)]
        })
        .collect()
}

fn worker(packets: Vec<Vec<u8>>) -> Worker<Treadmill, NoQueue> {
    let (umem, free) = Umem::allocate(FRAMES, Placement::default()).expect("1 MiB");
    let sent = VecDeque::with_capacity(FRAMES);
    let port = Treadmill { umem: Arc::new(umem), free, packets, next: 0, sent };
    let listeners = PORTS.map(|port| Listener {
        addresses: Vec::new(),
        port,
        steered: true,
        allow: AllowList::new(&["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"))),
        limiter: Some(if port == PORTS[0] {
            RateLimiter::new(1_000_000_000, u32::MAX, 1)
        } else {
            RateLimiter::new(1_000, 1, 1)
        }),
        service: memcached::factory().create(&setup()).expect("a service").expect("for datagrams"),
    });
    let lane = Bypass::new(port, NoQueue(FRAMES as u64), ChecksumPolicy::Verify);
    Worker::new(vec![lane], shard(listeners.into()))
}

fn setup() -> ServiceSetup {
    ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 65_536,
        connections_max: 16,
        item_bytes_max: 64 << 10,
        started: Now::default(),
    }
}

fn shard(listeners: Vec<Listener>) -> Shard {
    let config = MemoryTableConfig {
        capacity_bytes: 4 << 20,
        item_bytes_max: 64 << 10,
        ..MemoryTableConfig::default()
    };
    let table = MemoryTable::new(config).expect("4 MiB");
    Shard::new(listeners, Box::new(table), Arc::new(WorkerMetrics::default()))
}

/// A worker of ordinary sockets alone, and where it listens for datagrams and for streams.
fn worker_of_sockets() -> (Worker<Treadmill, NoQueue>, SocketAddr, SocketAddr) {
    let bind = |protocol| {
        CompanionSocket::bind(0, protocol, "127.0.0.1:0".parse().expect("an address")).expect("a free port")
    };
    let (datagrams, streams) = (bind(ListenerProtocol::Udp), bind(ListenerProtocol::Tcp));
    let (udp, tcp) = (datagrams.address(), streams.address());
    let allow = AllowList::new(&["127.0.0.0/8".parse().expect("a network")]);
    let listener = Listener {
        addresses: Vec::new(),
        port: udp.port(),
        steered: false,
        allow: allow.clone(),
        limiter: None,
        service: memcached::factory().create(&setup()).expect("a service").expect("for datagrams"),
    };
    let stream = StreamListener {
        addresses: Vec::new(),
        port: tcp.port(),
        steered: false,
        allow,
        service: memcached::factory().create_stream(&setup()).expect("a service").expect("for streams"),
    };
    let kernel = Kernel::new(KernelSetup {
        datagrams: vec![(datagrams.into_fd(), udp.port())],
        streams: vec![streams.into_fd()],
        listeners: StreamListeners::new(vec![stream], 16),
        connections_max: 16,
        patience: Patience { idle_ns: 0, request_ns: 0 },
    });
    let worker = Worker::new(Vec::new(), shard(vec![listener]));
    (worker.with_kernel(Some(kernel.expect("io_uring"))), udp, tcp)
}

#[test]
fn serving_memcached_allocates_nothing() {
    let mut worker = worker(packets());
    let metrics = Arc::clone(worker.shard().metrics());
    let mut now = Now { monotonic_ns: 1, unix_ms: 1_700_000_000_000 };
    worker.poll(now);
    let before = allocations();
    for _ in 0..1_000 {
        // So fast that some items expire before they are evicted.
        now.monotonic_ns += 100 * NS_PER_MS;
        now.unix_ms += 100;
        assert!(worker.poll(now).taken > 0);
        worker.publish(now);
    }
    assert_eq!(allocations() - before, 0, "allocations while serving");

    // It did all of what it was watched at.
    assert!(metrics.requests(OpKind::Get) > 1_000, "the requests were served, not dropped");
    assert!(metrics.drops(DropReason::RateLimited) > 0);
    assert!(metrics.evictions.get() > 0);
    assert!(worker.shard().table().statistics().expirations > 0);
    assert_eq!(worker.accounts().lost(), 0);
}

#[test]
fn serving_ordinary_sockets_allocates_nothing() {
    const ROUNDS: u64 = 500;
    let (mut worker, udp, tcp) = worker_of_sockets();
    let metrics = Arc::clone(worker.shard().metrics());
    let mut now = Now { monotonic_ns: 1, unix_ms: 1_700_000_000_000 };
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.connect(udp).expect("connected");
    client.set_nonblocking(true).expect("a socket");
    let mut stream = TcpStream::connect(tcp).expect("the kernel connects");
    stream.set_nonblocking(true).expect("a socket");
    // Larger than a receive buffer: its request lies unread in a block meanwhile, and its reply in several chunks.
    let mut store = b"set large 0 0 60000\r\n".to_vec();
    store.resize(store.len() + 60_000, b'v');
    store.extend_from_slice(b"\r\nget large\r\n");
    let mut buffer = vec![0; 1 << 20];
    let mut before = 0;
    for round in 0..ROUNDS {
        // Once around, so that whatever is made at first is there.
        if round == 10 {
            before = allocations();
        }
        now.monotonic_ns += NS_PER_MS;
        client.send(b"\0\x07\0\0\0\x01\0\0set a 0 0 1\r\nb\r\n").expect("it is sent");
        stream.write_all(&store).expect("the socket has room for it");
        let (mut datagrams, mut bytes) = (0, 0);
        while datagrams == 0 || bytes < 60_000 + b"STORED\r\nVALUE large 0 60000\r\n\r\nEND\r\n".len() {
            worker.poll(now);
            datagrams += usize::from(client.recv(&mut buffer).is_ok());
            bytes += stream.read(&mut buffer).unwrap_or(0);
        }
        worker.publish(now);
    }
    assert_eq!(allocations() - before, 0, "allocations while serving");
    // The last reply is counted by its completion, which comes with the next poll.
    worker.poll(now);
    assert_eq!((metrics.kernel_received.get(), metrics.kernel_sent.get()), (ROUNDS, ROUNDS));
    assert_eq!(metrics.requests(OpKind::Store), 2 * ROUNDS);
    assert_eq!(metrics.kernel_connections.get(), 1);
}

/// Runs a driver until it has done its housekeeping some times; returns how often its thread allocated meanwhile.
fn allocations_of_a_driver(packets: Vec<Vec<u8>>, idle: Idle) -> (u64, Arc<WorkerMetrics>) {
    const WATCHED_NS: u64 = 200 * NS_PER_MS;
    let worker = worker(packets);
    let metrics = Arc::clone(worker.shard().metrics());
    let (commands, receiver) = mpsc::channel();
    let (events, happened) = mpsc::channel();
    let counted = Arc::new(AtomicU64::new(u64::MAX));
    let (count, mut started) = (Arc::clone(&counted), None);
    let beat = move |now_ns: u64| {
        let &mut (start_ns, before) = started.get_or_insert((now_ns, allocations()));
        if now_ns - start_ns >= WATCHED_NS && count.load(Ordering::Relaxed) == u64::MAX {
            count.store(allocations() - before, Ordering::Relaxed);
            commands.send(Command::Stop).expect("it is listened to");
        }
    };
    let driver = Driver {
        number: 0,
        idle,
        beat: Box::new(beat),
        lane_beats: vec![Some(Box::new(|_| {}))],
        lane_generations: vec![0],
        commands: receiver,
        wake: Wake::new().expect("a descriptor"),
        others_stale: None,
        events,
    };
    driver.run(worker);
    assert!(matches!(happened.try_recv(), Ok(Event::Stopped { .. })));
    (counted.load(Ordering::Relaxed), metrics)
}

#[test]
fn a_driver_allocates_nothing_at_work_or_asleep() {
    let (allocations, metrics) = allocations_of_a_driver(packets(), Idle::Busy);
    assert_eq!(allocations, 0, "at work");
    assert!(metrics.polls_busy.get() > 0 && metrics.items.get() > 0, "it served and published");
    let (allocations, metrics) = allocations_of_a_driver(Vec::new(), Idle::Adaptive { spin_us: 0 });
    assert_eq!(allocations, 0, "asleep");
    assert!(metrics.sleeps.get() > 0);
}
