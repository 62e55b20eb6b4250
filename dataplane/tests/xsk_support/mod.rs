//! What the AF_XDP tests need around them: namespaces with a veth pair, a redirecting XDP program, a peer.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod namespaces;
pub(crate) mod packet;
pub(crate) mod program;

use std::time::{Duration, Instant};

use dataplane::port::xsk::{Opened, XskConfig, open};
use dataplane::port::{Frame, FrameAccounts, FrameBatch, Port, QueueOwner};

use namespaces::{Pair, SERVER};
use program::{Hook, Redirect};

/// Longest wait for anything in these tests; nothing takes a second on a machine that does nothing else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Calls `condition` until it holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for: {what}");
        std::thread::yield_now();
    }
}

/// A socket on an interface, with the program that steers to it.
pub(crate) struct Steered {
    pub(crate) opened: Opened,
    pub(crate) redirect: Redirect,
}

impl Steered {
    /// Opens the configured socket in the calling thread's namespace, and redirects its queue to it.
    pub(crate) fn open(config: &XskConfig) -> Self {
        let hook = if config.generic_xdp { Hook::Generic } else { Hook::Native };
        let redirect = Redirect::attach(&config.interface, hook);
        let opened = open(config).expect("needs root, and a kernel with AF_XDP");
        redirect.register(config.queue, &opened.port);
        Self { opened, redirect }
    }

    /// The server's side of a pair.
    pub(crate) fn server(pair: &Pair, config: &XskConfig) -> Self {
        pair.enter_server();
        Self::open(config)
    }

    /// One poll of a server that sends every frame back with its MAC addresses exchanged. Returns frames
    /// received.
    pub(crate) fn reflect(&mut self) -> usize {
        let Opened { port, queue, .. } = &mut self.opened;
        queue.poll().expect("sound rings");
        let mut batch = FrameBatch::new();
        port.receive(&mut batch).expect("sound rings");
        let count = batch.len();
        for mut frame in batch.drain(..) {
            exchange_addresses(port.umem().packet_mut(&mut frame));
            if let Err(frame) = port.transmit(frame) {
                port.release(frame);
            }
        }
        port.flush().expect("the interface is up");
        count
    }

    /// Frames in the kernel's or the port's hands, with `held` of them the caller's: none may be missing.
    #[track_caller]
    pub(crate) fn assert_accounts(&self, held: u64) {
        let accounts = self.accounts(held);
        assert_eq!((accounts.owned(), accounts.lost()), (accounts.total, 0), "{accounts:?}");
    }

    pub(crate) fn accounts(&self, held: u64) -> FrameAccounts {
        let (port, queue) = (self.opened.port.accounts(), self.opened.queue.accounts());
        FrameAccounts {
            total: port.total + queue.total,
            filling: port.filling + queue.filling,
            received: port.received + queue.received,
            sending: port.sending + queue.sending,
            free: port.free + queue.free,
            held: port.held + queue.held + held,
        }
    }

    /// Polls until nothing is being sent any more.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        wait_until("all sent frames to come back", || {
            self.opened.port.flush().expect("the interface is up");
            self.opened.queue.poll().expect("sound rings");
            self.assert_accounts(0);
            self.accounts(0).sending == 0
        });
    }

    /// A free frame with this packet in it.
    pub(crate) fn compose(&mut self, packet: &[u8]) -> Option<Frame> {
        let port = &mut self.opened.port;
        let mut frame = port.allocate()?;
        port.umem().compose(&mut frame, |chunk| {
            chunk[..packet.len()].copy_from_slice(packet);
            packet.len()
        });
        Some(frame)
    }
}

pub(crate) fn exchange_addresses(packet: &mut [u8]) {
    if let Some((destination, rest)) = packet.split_at_mut_checked(6)
        && let Some(source) = rest.get_mut(..6)
    {
        destination.swap_with_slice(source);
    }
}

/// A configuration for the server's end of a pair, small enough that its limits are reached.
pub(crate) fn server_config() -> XskConfig {
    XskConfig { frames: 1024, ring_entries: 256, ..XskConfig::new(SERVER, 0) }
}

/// A test packet of `length` bytes that can be told from every other: an unassigned EtherType, and a number.
pub(crate) fn test_packet(number: u32, length: usize) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    packet.extend(number.to_be_bytes());
    packet.extend((packet.len()..length).map(|index| (index as u32).wrapping_mul(number | 1) as u8));
    packet.truncate(length);
    packet
}
