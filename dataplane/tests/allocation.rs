//! The request path allocates nothing: a counting allocator watches a worker serve memcached over a port that
//! hands it the same requests again and again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use dataplane::config::ChecksumPolicy;
use dataplane::memory::Placement;
use dataplane::metrics::{OpKind, WorkerMetrics};
use dataplane::net::allow::AllowList;
use dataplane::net::reply::ReplyHeaders;
use dataplane::port::{Frame, FrameAccounts, FrameBatch, Port, PortError, QueueOwner, Umem};
use dataplane::protocol::memcached;
use dataplane::service::{ServiceFactory, ServiceSetup};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::Now;
use dataplane::transport::bypass::Bypass;
use dataplane::worker::{Listener, Shard, Worker};

/// Counts allocations of the current thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system allocator unchanged; the count is a thread-local cell that itself
// never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise on `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise on `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERVER: &str = "10.0.0.1:11211";
const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];

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
        while !batch.is_full() {
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

fn packet(number: usize, message: &[u8]) -> Vec<u8> {
    let client: SocketAddr = format!("10.0.0.2:{}", 4_000 + number).parse().expect("an address");
    let headers = ReplyHeaders::to_request(&LINK, SERVER.parse().expect("an address"), client);
    let request_id = u16::try_from(number).expect("a small number").to_be_bytes();
    let mut packet = vec![0; 4_096];
    let length = headers.write(&mut packet, &[&request_id, &[0, 0, 0, 1, 0, 0], message]).expect("it fits");
    packet.truncate(length);
    packet
}

#[test]
fn serving_memcached_allocates_nothing() {
    let messages: [&[u8]; 14] = [
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
    let packets = messages.iter().enumerate().map(|(number, message)| packet(number, message)).collect();
    let (umem, free) = Umem::allocate(256, Placement::default()).expect("1 MiB");
    let frames = u64::from(umem.frames());
    let sent = VecDeque::with_capacity(256);
    let port = Treadmill { umem: Arc::new(umem), free, packets, next: 0, sent };

    let metrics = Arc::new(WorkerMetrics::default());
    let setup = ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 65_536,
        item_bytes_max: 1 << 20,
        started: Now::default(),
    };
    let listener = Listener {
        addresses: Vec::new(),
        port: 11211,
        allow: AllowList::new(&["10.0.0.0/8".parse().expect("a network")]),
        limiter: None,
        service: memcached::factory().create(&setup).expect("a service"),
    };
    let table =
        MemoryTable::new(MemoryTableConfig { capacity_bytes: 8 << 20, ..MemoryTableConfig::default() })
            .expect("8 MiB");
    let shard = Shard::new(vec![listener], Box::new(table), Arc::clone(&metrics));
    let lane = Bypass::new(port, NoQueue(frames), ChecksumPolicy::Verify);
    let mut worker = Worker::new(vec![lane], None, shard);

    let mut now = Now { monotonic_ns: 1, unix_ms: 1_700_000_000_000 };
    worker.poll(now);
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        now.monotonic_ns += 1_000;
        assert!(worker.poll(now).taken > 0);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations while serving");
    assert!(metrics.requests(OpKind::Get) > 1_000, "the requests were served, not dropped");
    assert_eq!(worker.accounts().lost(), 0);
}
