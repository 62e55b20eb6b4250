//! A worker over AF_XDP on a real kernel, polled by the test: what the kernel does to packets between the NIC
//! queue and the worker, or because of the link. Needs root and `ip` (iproute2).

mod xsk_support;

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::config::ChecksumPolicy;
use dataplane::metrics::{DropReason, WorkerMetrics};
use dataplane::net::allow::AllowList;
use dataplane::net::reply::ReplyHeaders;
use dataplane::net::udp;
use dataplane::port::xsk::{XskConfig, XskPort, XskQueue};
use dataplane::service::{Context, Datagram, Replies, Service};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::Now;
use dataplane::transport::bypass::Bypass;
use dataplane::worker::{Listener, Shard, Worker};

use xsk_support::namespaces::{PEER, Pair, isolated};
use xsk_support::packet::PacketSocket;
use xsk_support::program::Redirect;
use xsk_support::{Steered, server_config, wait_until};

const SERVER_ADDRESS: &str = "10.0.0.1:7";
const CLIENT_ADDRESS: &str = "10.0.0.2:4000";
const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];

/// Answers a request, which is a number, with so many bytes, and notes the most it was told it could send.
struct Sized {
    most: Arc<std::sync::atomic::AtomicUsize>,
}

impl Service for Sized {
    fn datagram(&mut self, _: &mut Context<'_>, datagram: &Datagram<'_>, replies: &mut dyn Replies) {
        self.most.store(replies.payload_bytes_max(), std::sync::atomic::Ordering::Relaxed);
        let bytes = std::str::from_utf8(datagram.payload).ok().and_then(|text| text.parse().ok());
        replies.send(&[&vec![b'x'; bytes.unwrap_or(0)]]);
    }
}

struct Served {
    worker: Worker<XskPort, XskQueue>,
    metrics: Arc<WorkerMetrics>,
    most: Arc<std::sync::atomic::AtomicUsize>,
    peer: PacketSocket,
    _redirect: Redirect,
}

fn serve(pair: &Pair, config: &XskConfig) -> Served {
    let Steered { opened, redirect } = Steered::server(pair, config);
    pair.enter_peer();
    let peer = PacketSocket::open(PEER);
    let metrics = Arc::new(WorkerMetrics::default());
    let most = Arc::default();
    let server: SocketAddr = SERVER_ADDRESS.parse().expect("an address");
    let listener = Listener {
        addresses: vec![server.ip()],
        port: server.port(),
        steered: true,
        allow: AllowList::new(&["10.0.0.0/8".parse().expect("a network")]),
        limiter: None,
        service: Box::new(Sized { most: Arc::clone(&most) }),
    };
    let table = MemoryTableConfig { capacity_bytes: 8 << 20, ..MemoryTableConfig::default() };
    let table = MemoryTable::new(table).expect("8 MiB");
    let shard = Shard::new(vec![listener], Box::new(table), Arc::clone(&metrics));
    let lane = Bypass::new(opened.port, opened.queue, ChecksumPolicy::Verify);
    let worker = Worker::new(vec![lane], shard);
    Served { worker, metrics, most, peer, _redirect: redirect }
}

impl Served {
    fn poll(&mut self) {
        let progress = self.worker.poll(Now { monotonic_ns: 1, unix_ms: 1 });
        assert!(progress.failed.is_none(), "{:?}", progress.failed);
    }

    fn ask(&self, reply_bytes: usize) {
        let server = SERVER_ADDRESS.parse().expect("an address");
        let client = CLIENT_ADDRESS.parse().expect("an address");
        let mut packet = vec![0; 200];
        let request = reply_bytes.to_string();
        let length =
            ReplyHeaders::to_request(&LINK, server, client).write(&mut packet, &[request.as_bytes()]);
        packet.truncate(length.expect("it fits"));
        self.peer.send(&packet);
    }

    /// Bytes of the reply to a request for so many; `None` when it was dropped and counted as too large.
    fn answer(&mut self, reply_bytes: usize) -> Option<usize> {
        let (too_large, received) = (self.too_large(), self.metrics.frames_received.get());
        self.ask(reply_bytes);
        wait_until("the request", || {
            self.poll();
            self.metrics.frames_received.get() > received
        });
        if self.too_large() > too_large {
            return None;
        }
        let packet = self.peer.receive(1, || ()).remove(0);
        let reply = udp::receive(&packet, ChecksumPolicy::Verify).expect("a whole datagram");
        Some(reply.payload.len())
    }

    fn too_large(&self) -> u64 {
        self.metrics.drops(DropReason::ReplyTooLarge)
    }
}

#[test]
fn what_the_kernel_drops_while_the_worker_stands_still_is_counted() {
    isolated(|pair| {
        const SENT: u64 = 500;
        let config = XskConfig { frames: 256, ring_entries: 64, ..server_config() };
        let mut served = serve(pair, &config);
        served.worker.publish(Now::read());
        let drops = |metrics: &WorkerMetrics| {
            metrics.drops(DropReason::SocketRingFull) + metrics.drops(DropReason::SocketNoFrame)
        };
        assert_eq!(drops(&served.metrics), 0);
        for _ in 0..SENT {
            served.ask(1);
        }
        // Whatever found no room is lost by now, and the worker's next look shows it; nothing is counted twice.
        wait_until("every packet to be served or counted", || {
            served.poll();
            served.worker.publish(Now::read());
            served.metrics.frames_received.get() + drops(&served.metrics) >= SENT
        });
        assert!(drops(&served.metrics) >= SENT - 2 * 64, "{}", drops(&served.metrics));
        assert_eq!(served.metrics.frames_received.get() + drops(&served.metrics), SENT);
        assert!(served.metrics.fill_ring_empty.get() + served.metrics.drops(DropReason::SocketRingFull) > 0);
    });
}

#[test]
fn what_a_lane_dropped_is_counted_when_it_is_given_up() {
    isolated(|pair| {
        let config = XskConfig { frames: 256, ring_entries: 64, ..server_config() };
        let mut served = serve(pair, &config);
        for _ in 0..500 {
            served.ask(1);
        }
        // A poll after the last packet, so that it has been dropped or received.
        wait_until("packets", || {
            served.poll();
            served.metrics.frames_received.get() >= 64
        });
        served.worker.drop_lane(0);
        let metrics = &served.metrics;
        assert!(metrics.drops(DropReason::SocketRingFull) + metrics.drops(DropReason::SocketNoFrame) > 0);
    });
}

#[test]
fn a_reply_longer_than_the_link_carries_is_refused_and_counted_whatever_the_mtu_becomes() {
    isolated(|pair| {
        const HEADERS: usize = 20 + 8;
        let mut served = serve(pair, &server_config());
        let check = |served: &mut Served, mtu: usize| {
            let most = mtu - HEADERS;
            assert_eq!(served.answer(most), Some(most), "MTU {mtu}");
            assert_eq!(served.most.load(std::sync::atomic::Ordering::Relaxed), most);
            assert_eq!(served.answer(most + 1), None, "MTU {mtu}");
        };
        check(&mut served, 1500);
        for mtu in [1280, 3000] {
            pair.peer_link(&["mtu", &mtu.to_string()]);
            pair.server_link(&["mtu", &mtu.to_string()]);
            served.worker.publish(Now::read());
            check(&mut served, mtu);
        }
        assert_eq!(served.worker.accounts().lost(), 0);
    });
}
