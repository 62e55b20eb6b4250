//! The request path allocates nothing: a counting allocator says so.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use dataplane::metrics::WorkerMetrics;
use dataplane::protocol::memcached::Memcached;
use dataplane::protocol::memcached::conversation::roomy_setup;
use dataplane::service::{Context, Datagram, Replies, Service, Via};
use dataplane::table::model::ModelTable;
use dataplane::time::Now;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

// SAFETY: every call is handed on unchanged to `System`, whose guarantees are then ours; counting touches a
// constant-initialised thread-local without a destructor, so it neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s conditions, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s conditions, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts what is sent and keeps nothing.
#[derive(Default)]
struct Discarded {
    datagrams: usize,
}

impl Replies for Discarded {
    fn payload_bytes_max(&self) -> usize {
        1400
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        self.datagrams += usize::from(!parts.is_empty());
        true
    }
}

#[test]
fn nothing_is_allocated_for_a_request() {
    let mut service = Memcached::new(&roomy_setup()).expect("a valid setup");
    let mut table = ModelTable::new();
    let metrics = WorkerMetrics::default();
    let source = SocketAddr::from(([127, 0, 0, 1], 11211));
    let mut ask = |message: &str, replies: &mut Discarded| {
        let payload = [b"\0\x07\0\0\0\x01\0\0", message.as_bytes()].concat();
        let mut context = Context { now: Now::default(), table: &mut table, metrics: &metrics };
        let datagram = Datagram { source, destination: source, payload: &payload, via: Via::Bypass };
        let before = ALLOCATIONS.get();
        service.datagram(&mut context, &datagram, replies);
        ALLOCATIONS.get() - before
    };
    let mut replies = Discarded::default();
    let large = "x".repeat(100_000);
    // The model table itself allocates for what it stores; reads, misses and errors reach nothing that may.
    ask("set a 0 0 1\r\nx\r\n", &mut replies);
    ask(&format!("set large 0 0 {}\r\n{large}\r\n", large.len()), &mut replies);
    assert!(ask("set counted 0 0 1\r\nx\r\n", &mut replies) > 0, "the count counts");
    let stored = replies.datagrams;
    let messages = [
        "get a\r\n",
        "gets a b a\r\n",
        "gat 0 a\r\n",
        "get large\r\n",
        "mg a v c t h l k Oabc\r\n",
        "mg YQ== b k v\r\n",
        "mg nope v\r\n",
        "me a\r\n",
        "mn\r\n",
        "stats\r\n",
        "stats settings\r\n",
        "version\r\n",
        "touch a 0\r\n",
        "delete nope\r\n",
        "replace nope 0 0 1\r\nx\r\n",
        "add a 0 0 1\r\nx\r\n",
        "cas a 0 0 1 9\r\nx\r\n",
        "incr a 1\r\n",
        "bogus\r\n",
        "set a 0 0 9\r\nx\r\n",
        "set a x 0 1\r\nx\r\n",
        "mg a !\r\n",
        "flush_all 60\r\n",
    ];
    for message in messages {
        assert_eq!(ask(message, &mut replies), 0, "{message}");
    }
    assert_eq!(replies.datagrams - stored, messages.len() + 100_000 / 1392, "each was answered");
}
