//! A worker of ordinary sockets on a thread of its own, and how a test speaks to it.

use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::config::{Idle, ListenerProtocol};
use dataplane::control::companion::CompanionSocket;
use dataplane::metrics::WorkerMetrics;
use dataplane::net::allow::AllowList;
use dataplane::net::rate_limit::RateLimiter;
use dataplane::port::xsk::{XskPort, XskQueue};
use dataplane::protocol::{memcached, resp};
use dataplane::service::{ServiceFactory, ServiceSetup};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::Now;
use dataplane::transport::kernel::{Kernel, KernelSetup, Patience};
use dataplane::transport::streams::{StreamListener, StreamListeners};
use dataplane::worker::driver::{Command, Driver, Event};
use dataplane::worker::wake::Wake;
use dataplane::worker::{Listener, Shard, Worker};

pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// What a test may want otherwise.
pub(crate) struct Wish {
    pub(crate) allow: &'static str,
    pub(crate) connections_max: usize,
    pub(crate) patience: Patience,
    pub(crate) requests_per_s: Option<u32>,
    /// Whether the listeners are steered, so that they are suspended while another worker stands still.
    pub(crate) steered: bool,
    pub(crate) idle: Idle,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            allow: "127.0.0.0/8",
            connections_max: 64,
            patience: Patience { idle_ns: 0, request_ns: 0 },
            requests_per_s: None,
            steered: false,
            idle: Idle::Adaptive { spin_us: 0 },
        }
    }
}

/// A worker on a thread of its own.
pub(crate) struct Rig {
    /// Of each protocol: its port.
    pub(crate) memcached_udp: u16,
    pub(crate) memcached: u16,
    pub(crate) resp: u16,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) others_stale: Arc<AtomicBool>,
    pub(crate) commands: Sender<Command<XskPort, XskQueue>>,
    pub(crate) wake: Wake,
    pub(crate) thread: Option<JoinHandle<()>>,
    /// How the driver ended.
    pub(crate) events: Mutex<mpsc::Receiver<Event>>,
}

/// Every socket of one listener on every address of both families. Where the kernel's choice is taken in the other family,
/// it chooses again.
fn bind(protocol: ListenerProtocol) -> Vec<CompanionSocket> {
    let deadline = Instant::now() + SOON;
    loop {
        let v4 = CompanionSocket::bind(0, protocol, (Ipv4Addr::UNSPECIFIED, 0).into()).expect("a free port");
        let port = v4.address().port();
        match CompanionSocket::bind(0, protocol, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(v6) => return vec![v4, v6],
            Err(error) => assert!(Instant::now() < deadline, "no port is free in both families: {error}"),
        }
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Wish::default())
    }

    pub(crate) fn with(wish: Wish) -> Self {
        let udp = bind(ListenerProtocol::Udp);
        let streams = [bind(ListenerProtocol::Tcp), bind(ListenerProtocol::Tcp)];
        let [memcached_udp, memcached, resp] =
            [&udp, &streams[0], &streams[1]].map(|sockets| sockets[0].address().port());
        let metrics = Arc::new(WorkerMetrics::default());
        let (commands, receiver) = mpsc::channel();
        let (events, happened) = mpsc::channel();
        let wake = Wake::new().expect("a descriptor");
        let others_stale = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::channel();
        let thread = {
            let (metrics, wake) = (Arc::clone(&metrics), wake.clone());
            let others_stale = Arc::clone(&others_stale);
            std::thread::spawn(move || {
                let worker = worker(&wish, udp, streams, metrics);
                let driver = Driver {
                    number: 0,
                    idle: wish.idle,
                    beat: Box::new(|_| {}),
                    lane_beats: Vec::new(),
                    lane_generations: Vec::new(),
                    commands: receiver,
                    others_stale: Some(Box::new(move |_| others_stale.load(Ordering::Relaxed))),
                    wake,
                    events,
                };
                ready.send(()).expect("somebody waits");
                driver.run(worker);
            })
        };
        started.recv().expect("it starts");
        Self {
            memcached_udp,
            memcached,
            resp,
            metrics,
            others_stale,
            commands,
            wake,
            thread: Some(thread),
            events: Mutex::new(happened),
        }
    }

    pub(crate) fn connect(&self, port: u16) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the kernel connects");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        stream.set_write_timeout(Some(SOON)).expect("a time-out");
        stream
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&WorkerMetrics) -> bool) {
        let deadline = Instant::now() + SOON;
        while !condition(&self.metrics) {
            assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the worker does not panic");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn worker(
    wish: &Wish,
    udp: Vec<CompanionSocket>,
    streams: [Vec<CompanionSocket>; 2],
    metrics: Arc<WorkerMetrics>,
) -> Worker<XskPort, XskQueue> {
    let item_bytes_max = VALUE_BYTES_MAX + 250;
    let setup = ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 65_536,
        connections_max: wish.connections_max,
        item_bytes_max,
        started: Now::read(),
    };
    let networks = wish.allow.split(' ').map(|network| network.parse().expect("a network"));
    let allow = AllowList::new(&networks.collect::<Vec<_>>());
    let listener = Listener {
        addresses: Vec::new(),
        port: udp[0].address().port(),
        steered: wish.steered,
        allow: allow.clone(),
        limiter: wish
            .requests_per_s
            .map(|requests_per_s| RateLimiter::new(requests_per_s, requests_per_s, 1)),
        service: memcached::factory().create(&setup).expect("a service").expect("for datagrams"),
    };
    let factories: [&dyn ServiceFactory; 2] = [&memcached::factory(), &resp::factory()];
    let of = |(sockets, factory): (&Vec<CompanionSocket>, &dyn ServiceFactory)| StreamListener {
        addresses: Vec::new(),
        port: sockets[0].address().port(),
        steered: wish.steered,
        allow: allow.clone(),
        service: factory.create_stream(&setup).expect("a service").expect("for streams"),
    };
    let stream_listeners = streams.iter().zip(factories).map(of).collect();
    let kernel = Kernel::new(KernelSetup {
        datagrams: udp
            .into_iter()
            .map(|socket| {
                let port = socket.address().port();
                (socket.into_fd(), port)
            })
            .collect(),
        streams: streams.into_iter().flatten().map(CompanionSocket::into_fd).collect(),
        listeners: StreamListeners::new(stream_listeners, wish.connections_max),
        connections_max: wish.connections_max,
        patience: wish.patience,
    });
    let table = MemoryTable::new(MemoryTableConfig {
        capacity_bytes: 64 << 20,
        item_bytes_max: item_bytes_max as u32,
        ..MemoryTableConfig::default()
    });
    let shard = Shard::new(vec![listener], Box::new(table.expect("memory")), metrics);
    Worker::new(Vec::new(), shard).with_kernel(Some(kernel.expect("io_uring")))
}
