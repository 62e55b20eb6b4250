//! AF_XDP on a real kernel: a veth pair between two namespaces, an XDP program, a packet socket as the peer.
//! Needs root and `ip` (iproute2).

mod xsk_support;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dataplane::config::{BusyPollConfig, CopyMode};
use dataplane::memory::HugePages;
use dataplane::port::xsk::{Link, XskConfig, XskError, link_of, open};
use dataplane::port::{FrameBatch, Port, PortError, QueueOwner};
use dataplane::testbed::{TestbedError, ethtool};

use xsk_support::namespaces::{PEER, Pair, SERVER, isolated, isolated_with};
use xsk_support::packet::PacketSocket;
use xsk_support::{Steered, exchange_addresses, server_config, test_packet, wait_until};

/// Opens both ends: the socket under test in the server's namespace, and a packet socket in the peer's.
fn ends(pair: &Pair, config: &XskConfig) -> (Steered, PacketSocket) {
    let server = Steered::server(pair, config);
    pair.enter_peer();
    let peer = PacketSocket::open(PEER);
    (server, peer)
}

/// Sends packets of many lengths one batch at a time, and wants each back, byte for byte, in order.
#[track_caller]
fn assert_reflects(server: &mut Steered, peer: &PacketSocket, first: u32, count: u32) {
    for start in (first..first + count).step_by(50) {
        let sent: Vec<_> = (start..(start + 50).min(first + count))
            .map(|number| test_packet(number, 60 + (number as usize * 37) % 1455))
            .collect();
        sent.iter().for_each(|packet| peer.send(packet));
        let replies = peer.receive(sent.len(), || {
            server.reflect();
            server.assert_accounts(0);
        });
        for (mut packet, reply) in sent.into_iter().zip(replies) {
            exchange_addresses(&mut packet);
            assert!(packet == reply, "packet of {} bytes came back changed", packet.len());
        }
    }
    server.settle();
}

#[test]
fn auto_mode_reflects_byte_for_byte_and_says_that_it_copies() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &server_config());
        assert!(!server.opened.report.zero_copy, "veth cannot");
        assert_eq!(server.opened.report.copy_mode(), "copy");
        assert_reflects(&mut server, &peer, 0, 1000);
    });
}

#[test]
fn copy_mode_reflects_byte_for_byte() {
    isolated(|pair| {
        let config = XskConfig { copy: CopyMode::Copy, huge_pages: HugePages::Never, ..server_config() };
        let (mut server, peer) = ends(pair, &config);
        assert!(!server.opened.report.zero_copy && !server.opened.report.huge_pages);
        assert_reflects(&mut server, &peer, 0, 1000);
    });
}

#[test]
fn generic_mode_reflects_byte_for_byte() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &XskConfig { generic_xdp: true, ..server_config() });
        assert_reflects(&mut server, &peer, 0, 1000);
    });
}

#[test]
fn busy_polling_reflects_byte_for_byte() {
    isolated(|pair| {
        let busy_poll = Some(BusyPollConfig { duration_us: 20, budget: 64 });
        let (mut server, peer) = ends(pair, &XskConfig { busy_poll, ..server_config() });
        assert!(server.opened.report.busy_poll);
        assert_reflects(&mut server, &peer, 0, 1000);
        // Says once that a veth pair has no NAPI to poll, and goes on.
        assert_eq!(server.opened.port.survey(), server.opened.port.survey());
        assert_reflects(&mut server, &peer, 1000, 100);
    });
}

#[test]
fn a_burst_larger_than_one_doorbell_sends_leaves_at_one_flush() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &server_config());
        for number in 0..200 {
            server.opened.queue.poll().expect("sound rings");
            let frame = server.compose(&test_packet(number, 100)).expect("200 of 1024 frames");
            server.opened.port.transmit(frame).expect("200 of 256 descriptors");
        }
        server.assert_accounts(0);
        server.opened.port.flush().expect("up");
        assert_eq!(server.opened.port.backlog(), 0, "one flush sends them all");
        let received = peer.receive(200, || ());
        assert!(received.into_iter().zip(0..).all(|(packet, number)| packet == test_packet(number, 100)));
        server.settle();
    });
}

#[test]
fn a_doorbell_that_sends_only_some_is_rung_again_until_all_have_left() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &server_config());
        // 32 a doorbell, and then EAGAIN, of which this kernel shows what it took. (One without
        // `XDP_MAX_TX_SKB_BUDGET` (9) shows that only at the end: `port/xsk/doorbell.rs` plays one.)
        let budget = 32u32;
        // SAFETY: pointer and length are those of `budget`.
        let result = unsafe {
            let fd = server.opened.port.as_fd().as_raw_fd();
            libc::setsockopt(fd, libc::SOL_XDP, 9, (&raw const budget).cast(), 4)
        };
        assert_eq!(result == 0, server.opened.report.transmit_budget > 32, "as the report says");
        for number in 0..200 {
            server.opened.queue.poll().expect("sound rings");
            let frame = server.compose(&test_packet(number, 100)).expect("200 of 1024 frames");
            server.opened.port.transmit(frame).expect("200 of 256 descriptors");
        }
        server.opened.port.flush().expect("EAGAIN is no error");
        assert_eq!(server.opened.port.backlog(), 0);
        assert_eq!(peer.receive(200, || ()).len(), 200);
        server.settle();
    });
}

#[test]
fn packets_wait_while_the_completion_ring_is_full_and_leave_once_it_is_not() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &XskConfig { ring_entries: 64, ..server_config() });
        let mut frames = Vec::new();
        while frames.len() < 100 {
            server.opened.queue.poll().expect("sound rings");
            frames.extend(server.compose(&test_packet(frames.len() as u32, 60)));
        }
        let mut transmit = |server: &mut Steered, count: usize| {
            for frame in frames.drain(..count) {
                server.opened.port.transmit(frame).expect("64 descriptors");
            }
            server.opened.port.flush().expect("no room is no error");
        };
        transmit(&mut server, 64);
        assert_eq!(peer.receive(64, || ()).len(), 64);
        // Sixty-four completions fill the ring, and nobody reaps them.
        transmit(&mut server, 36);
        assert_eq!(server.opened.port.backlog(), 36);
        server.assert_accounts(0);
        assert_eq!(
            peer.receive(36, || {
                server.opened.queue.poll().expect("sound rings");
                server.opened.port.flush().expect("up");
            })
            .len(),
            36
        );
        server.settle();
    });
}

#[test]
fn a_burst_larger_than_the_rings_is_dropped_by_the_kernel_and_no_frame_is_lost() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &XskConfig { frames: 256, ring_entries: 64, ..server_config() });
        for number in 0..500 {
            peer.send(&test_packet(number, 100));
        }
        let mut reflected = 0;
        wait_until("the first 64", || {
            reflected += server.reflect();
            server.assert_accounts(0);
            reflected >= 64
        });
        let statistics = server.opened.port.statistics().expect("it is bound");
        assert!(statistics.fill_ring_empty + statistics.receive_ring_full > 0, "{statistics:?}");
        assert_eq!((statistics.fill_invalid, statistics.transmit_invalid), (0, 0));
        server.settle();
        while peer.try_receive().is_some() {}
        assert_reflects(&mut server, &peer, 1000, 200);
    });
}

#[test]
fn a_full_transmit_ring_gives_frames_back() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &XskConfig { ring_entries: 64, ..server_config() });
        let mut refused = None;
        for number in 0..65 {
            server.opened.queue.poll().expect("sound rings");
            let frame = server.compose(&test_packet(number, 60)).expect("65 of 1024 frames");
            refused = server.opened.port.transmit(frame).err();
            assert_eq!(refused.is_some(), number == 64, "the ring has 64 descriptors");
        }
        let frame = refused.expect("the 65th");
        server.assert_accounts(1);
        assert_eq!(server.opened.port.umem().packet(&frame), test_packet(64, 60), "unharmed");
        server.opened.port.flush().expect("up");
        server.opened.port.transmit(frame).expect("there is room again");
        server.settle();
        assert_eq!(peer.receive(65, || ()).len(), 65);
    });
}

#[test]
fn replies_have_frames_even_when_every_packet_received_is_kept() {
    isolated(|pair| {
        let config = XskConfig { frames: 256, ring_entries: 128, ..server_config() };
        let (mut server, peer) = ends(pair, &config);
        let mut kept = Vec::new();
        for number in 0..1000 {
            peer.send(&test_packet(number, 60));
            server.opened.queue.poll().expect("sound rings");
            let mut batch = FrameBatch::new();
            server.opened.port.receive(&mut batch).expect("sound rings");
            kept.extend(batch);
            server.assert_accounts(kept.len() as u64);
        }
        assert!(kept.len() >= 64, "{}", kept.len());
        let frame = server.compose(&test_packet(7, 60)).expect("some frames are never received into");
        server.opened.port.transmit(frame).expect("the ring is empty");
        server.opened.port.flush().expect("up");
        assert_eq!(peer.receive(1, || ()), [test_packet(7, 60)]);
        for frame in kept {
            server.opened.port.release(frame);
        }
        server.settle();
        assert_reflects(&mut server, &peer, 0, 200);
    });
}

#[test]
fn empty_frames_are_given_back_and_runts_are_not_lost() {
    isolated(|pair| {
        let (mut server, _peer) = ends(pair, &server_config());
        let frame = server.compose(&[]).expect("a frame");
        let frame = server.opened.port.transmit(frame).expect_err("the kernel would keep it");
        server.opened.port.release(frame);
        for length in 1..60 {
            let frame = server.compose(&test_packet(1, length)).expect("a frame");
            server.opened.port.transmit(frame).expect("room");
            server.settle();
        }
    });
}

#[test]
fn waiting_ends_when_a_packet_arrives() {
    isolated(|pair| {
        let (server, peer) = ends(pair, &server_config());
        let handle = server.opened.port.wait_handle().expect("a socket");
        let mut polled = libc::pollfd { fd: handle.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, as named.
        assert_eq!(unsafe { libc::poll(&raw mut polled, 1, 0) }, 0, "nothing has arrived");
        peer.send(&test_packet(1, 60));
        // SAFETY: one entry, as named.
        assert_eq!(unsafe { libc::poll(&raw mut polled, 1, 10_000) }, 1);
        assert_ne!(polled.revents & libc::POLLIN, 0);
    });
}

#[test]
fn required_zero_copy_fails_and_names_the_interface() {
    isolated(|pair| {
        pair.enter_server();
        let config = XskConfig { copy: CopyMode::ZeroCopy, ..server_config() };
        let error = open(&config).expect_err("veth cannot");
        assert!(matches!(error, XskError::ZeroCopyUnavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(SERVER), "{error}");
    });
}

#[test]
fn a_second_socket_on_a_queue_fails_and_says_why() {
    isolated(|pair| {
        pair.enter_server();
        let _first = open(&server_config()).expect("the queue is free");
        let error = open(&server_config()).expect_err("it is taken");
        assert!(matches!(error, XskError::QueueBusy { .. }), "{error:?}");
        assert!(error.to_string().contains("already belongs to another AF_XDP socket"), "{error}");
    });
}

#[test]
fn a_queue_or_interface_that_is_not_there_is_named() {
    isolated_with(Pair::with_queues(2), |pair| {
        pair.enter_server();
        let error = open(&XskConfig { queue: 2, ..server_config() }).expect_err("it has two");
        assert!(error.to_string().contains("has no queue 2: it has 2, counted from 0"), "{error}");
        for interface in ["missing0", "", "a-name-longer-than-names-can-be", "nul\0"] {
            let config = XskConfig { interface: interface.to_owned(), ..server_config() };
            let error = open(&config).expect_err("no such interface");
            assert!(matches!(error, XskError::NoSuchInterface { .. }), "{interface:?}: {error:?}");
        }
    });
}

#[test]
fn the_kernel_does_not_take_a_queue_away_that_a_socket_has() {
    isolated_with(Pair::with_queues(2), |pair| {
        pair.enter_server();
        let second = open(&XskConfig { queue: 1, ..server_config() }).expect("it has two");
        let refusal = ethtool::set_queues_here(SERVER, 1, 1).expect_err("the queue has a socket");
        let TestbedError::Io { source, .. } = &refusal else { panic!("{refusal:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EINVAL), "{refusal}");
        drop(second);
        wait_until("the queue to be given up", || ethtool::set_queues_here(SERVER, 1, 1).is_ok());
        let error = open(&XskConfig { queue: 1, ..server_config() }).expect_err("one queue is left");
        assert!(error.to_string().contains("has no queue 1: it has 1"), "{error}");
    });
}

#[test]
fn a_queue_that_only_receives_is_refused_and_those_that_go_both_ways_serve() {
    isolated_with(Pair::with_queues_each_way(2, 1), |pair| {
        pair.enter_server();
        let error =
            open(&XskConfig { queue: 1, ..server_config() }).expect_err("its replies would go nowhere");
        let XskError::OneWayQueue { counts, .. } = error else { panic!("{error:?}") };
        assert_eq!((counts.receive, counts.transmit, counts.usable()), (2, 1, 1));
        assert!(error.to_string().contains("`ethtool -L xsk-server rx 1 tx 1`"), "{error}");
        let (mut server, peer) = ends(pair, &server_config());
        assert_reflects(&mut server, &peer, 0, 100);
    });
}

#[test]
fn a_queue_can_be_opened_again_at_once_twenty_times() {
    isolated(|pair| {
        for round in 0..20 {
            let (mut server, peer) = ends(pair, &server_config());
            assert_reflects(&mut server, &peer, round, 10);
            // In either order.
            let opened = server.opened;
            if round % 2 == 0 {
                drop(opened.port);
                drop(opened.queue);
            } else {
                drop(opened.queue);
                drop(opened.port);
            }
        }
    });
}

#[test]
fn a_deleted_interface_is_noticed_at_a_doorbell() {
    isolated(|pair| {
        let (mut server, _peer) = ends(pair, &server_config());
        pair.enter_server();
        assert_eq!(link_of(SERVER).expect("it is there"), Link::Up);
        assert!(server.opened.port.survey().mtu_bytes.is_some());
        pair.delete_link();
        wait_until("the kernel to delete the interface", || link_of(SERVER).is_err());
        assert_eq!(server.opened.port.survey().mtu_bytes, None);
        server.opened.port.flush().expect("nothing to send, so no doorbell");
        let frame = server.compose(&test_packet(1, 60)).expect("a frame");
        server.opened.port.transmit(frame).expect("the ring is still there");
        wait_until("the kernel to unbind the socket", || server.opened.port.flush().is_err());
        let error = server.opened.port.flush().expect_err("gone");
        assert!(matches!(&error, PortError::Down { .. }) && !error.recovers_by_itself(), "{error:?}");
        assert!(error.to_string().contains(SERVER), "{error}");
        server.opened.queue.poll().expect("its rings are still there");
        server.assert_accounts(0);
    });
}

#[test]
fn traffic_goes_on_once_the_link_is_up_again() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &server_config());
        assert_reflects(&mut server, &peer, 0, 100);
        pair.enter_server();
        pair.server_link(&["down"]);
        assert_eq!(link_of(SERVER).expect("it is there"), Link::Down);
        let frame = server.compose(&test_packet(1, 60)).expect("a frame");
        server.opened.port.transmit(frame).expect("the ring is still there");
        let error = server.opened.port.flush().expect_err("down");
        assert!(error.recovers_by_itself(), "{error:?}");
        server.assert_accounts(0);

        pair.server_link(&["up"]);
        wait_until("the link", || matches!(link_of(SERVER), Ok(Link::Up)));
        let late = peer.receive(1, || server.opened.port.flush().expect("up again"));
        assert_eq!(late, [test_packet(1, 60)], "queued while it was down");
        assert_reflects(&mut server, &peer, 100, 100);
    });
}

#[test]
fn missing_capabilities_are_named() {
    use caps::{CapSet, Capability};
    isolated(|pair| {
        pair.enter_server();
        // Capabilities are a thread's own.
        caps::drop(None, CapSet::Effective, Capability::CAP_IPC_LOCK).expect("root has it");
        // Whatever the limit is, this is above it, or the kernel has no limit to enforce.
        // SAFETY: integers, for which zero is a value.
        let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
        // SAFETY: the struct outlives the call.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }, 0);
        if limit.rlim_cur < 1 << 28 {
            let frames = (limit.rlim_cur / 4096) as u32 + 128;
            let error = open(&XskConfig { frames, ..server_config() }).expect_err("above the limit");
            assert!(matches!(error, XskError::LockedMemory { .. }), "{error:?}");
            assert!(error.to_string().contains("ulimit -l"), "{error}");
        }
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("root has it");
        let busy_poll = Some(BusyPollConfig { duration_us: 20, budget: 64 });
        let error = open(&XskConfig { busy_poll, ..server_config() }).expect_err("not permitted");
        assert!(error.to_string().contains("lacks CAP_NET_ADMIN"), "{error}");

        caps::drop(None, CapSet::Effective, Capability::CAP_NET_RAW).expect("root has it");
        let error = open(&server_config()).expect_err("not permitted");
        assert!(error.to_string().contains("lacks CAP_NET_RAW"), "{error}");
    });
}

#[test]
fn a_port_and_its_queue_can_live_on_two_threads() {
    isolated(|pair| {
        let (mut server, peer) = ends(pair, &server_config());
        let stop = AtomicBool::new(false);
        let polls = AtomicU64::new(0);
        let Steered { opened, redirect } = server;
        let (mut port, mut queue) = (opened.port, opened.queue);
        let (port, queue) = std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    queue.poll().expect("sound rings");
                    polls.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                }
                queue
            });
            // Also when this thread panics, or the scope would wait for the other for ever.
            let _stop = SetWhenDropped(&stop);
            for start in (0..20_000).step_by(50) {
                // An owner that gets no processor time lets the fill ring run dry, and packets are lost.
                let polled = polls.load(Ordering::Relaxed);
                wait_until("the owner", || polls.load(Ordering::Relaxed) >= polled + 2);
                let sent: Vec<_> = (start..start + 50).map(|number| test_packet(number, 80)).collect();
                sent.iter().for_each(|packet| peer.send(packet));
                let replies = peer.receive(sent.len(), || {
                    let mut batch = FrameBatch::new();
                    port.receive(&mut batch).expect("sound rings");
                    for received in batch {
                        // A reply in a frame of its own, so that frames go all the way round.
                        let mut reply = port.allocate().expect("frames for replies");
                        let umem = port.umem();
                        let packet = umem.packet(&received);
                        umem.compose(&mut reply, |chunk| {
                            chunk[..packet.len()].copy_from_slice(packet);
                            packet.len()
                        });
                        port.release(received);
                        port.transmit(reply).expect("room");
                    }
                    port.flush().expect("up");
                });
                assert_eq!(replies, sent);
            }
            stop.store(true, Ordering::Relaxed);
            (port, owner.join().expect("no panic"))
        });
        server =
            Steered { opened: dataplane::port::xsk::Opened { port, queue, report: opened.report }, redirect };
        server.settle();
    });
}

/// Ends another thread's loop, however this one ends.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
