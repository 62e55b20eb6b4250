//! Once open, a port and its queue allocate nothing, whatever comes in: an allocator that counts says so.
//! Needs root and `ip` (iproute2).

mod xsk_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use xsk_support::namespaces::{PEER, isolated};
use xsk_support::packet::PacketSocket;
use xsk_support::{Steered, server_config, test_packet, wait_until};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; the count is a thread's own, needs no
// initialisation and no destructor, and so allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `alloc`, thus from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn reflecting_allocates_nothing() {
    isolated(|pair| {
        let mut server = Steered::server(pair, &server_config());
        pair.enter_peer();
        let peer = PacketSocket::open(PEER);
        let packet = test_packet(1, 300);
        assert!(allocations() > 0, "the allocator counts");

        let mut allocated = 0;
        let mut reflected = 0;
        for burst in [1, 5, 64, 200, 500, 1, 64] {
            for _ in 0..burst {
                peer.send(&packet);
            }
            // No more than the ring holds comes through.
            let expected = reflected + burst.min(256);
            wait_until("the burst", || {
                let before = allocations();
                reflected += server.reflect();
                allocated += allocations() - before;
                reflected >= expected
            });
            server.settle();
        }
        assert_eq!(allocated, 0, "over {reflected} packets");
    });
}
