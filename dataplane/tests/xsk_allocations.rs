//! Once open, a port and its queue allocate nothing, whatever comes in: an allocator that counts says so.
//! Needs root and `ip` (iproute2).

mod counting;
mod xsk_support;

use counting::allocations;
use xsk_support::namespaces::{PEER, isolated};
use xsk_support::packet::PacketSocket;
use xsk_support::{Steered, server_config, test_packet, wait_until};

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
