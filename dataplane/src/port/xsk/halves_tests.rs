//! Port and queue against a kernel played by the test: no NIC, no privilege, every order of events.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use proptest::prelude::*;

use crate::limits::{BATCH_FRAMES, FRAME_BYTES};
use crate::memory::{HugePages, Placement};
use crate::port::{Frame, FrameBatch, Port, PortError, QueueOwner, Umem};

use super::custody::Custody;
use super::doorbell::Doorbell;
use super::link;
use super::queue::Common;
use super::ring::tests::{PlainMemory, ends};
use super::ring::{Consumer, Descriptor, Producer};
use super::socket::Socket;
use super::{XskPort, XskQueue};

const FRAMES: usize = 24;
const RING_ENTRIES: u32 = 8;
const REPLY_FRAMES: u32 = 8;

/// The kernel's ends of the rings, and the chunks it has.
struct Kernel {
    fill: Consumer<u64>,
    receive: Producer<Descriptor>,
    transmit: Consumer<Descriptor>,
    completion: Producer<u64>,
    /// Chunks the driver has ready for packets.
    stash: Vec<u64>,
    /// Packets under way, by address.
    sending: Vec<u64>,
    /// The other end of what stands in for the socket: each transmit doorbell arrives here as an empty datagram,
    /// each receive doorbell takes one that was sent from here.
    doorbells: UnixDatagram,
    /// The driver sleeps, and wants to be woken before it looks at a ring.
    asleep: bool,
    memories: [Arc<PlainMemory>; 4],
}

impl Kernel {
    /// The driver takes a chunk from the fill ring into its own.
    fn stash(&mut self) {
        let [head, tail] = self.fill.readable(1).expect("an honest user");
        let Some(&chunk) = head.first().or(tail.first()) else { return };
        self.stash.push(chunk);
        self.fill.release(1);
    }

    /// A packet arrives: a chunk of the driver's goes to the RX ring, if there is one and room.
    fn receive(&mut self, length: u32) {
        if self.receive.room(1).expect("an honest user") == 0 {
            return;
        }
        self.stash();
        let Some(chunk) = self.stash.pop() else { return };
        let descriptor = Descriptor { address: chunk + 256, length, options: 0 };
        assert_eq!(self.receive.push(descriptor), Ok(Ok(())));
        self.receive.publish();
    }

    /// Takes a packet from the TX ring.
    fn take(&mut self) {
        let [head, tail] = self.transmit.readable(1).expect("an honest user");
        let Some(descriptor) = head.first().or(tail.first()) else { return };
        assert!(descriptor.length > 0, "the kernel would refuse it");
        self.sending.push(descriptor.address);
        self.transmit.release(1);
    }

    /// The driver goes to sleep or wakes up.
    fn sleep(&mut self, asleep: bool) {
        self.asleep = asleep;
        let [fill, _, transmit, _] = &self.memories;
        fill.want_wakeup(asleep);
        transmit.want_wakeup(asleep);
    }

    /// A packet has left: they do so in any order.
    fn complete(&mut self, which: usize) {
        if self.sending.is_empty() || self.completion.room(1).expect("an honest user") == 0 {
            return;
        }
        let address = self.sending.swap_remove(which % self.sending.len());
        assert_eq!(self.completion.push(address), Ok(Ok(())));
        self.completion.publish();
    }
}

/// Both halves of a socket, their kernel, and the frames in the worker's hands.
struct Halves {
    port: XskPort,
    queue: XskQueue,
    kernel: Kernel,
    held: Vec<Frame>,
    /// Frames of no account, which take up room in a batch.
    padding: Vec<Frame>,
}

impl Halves {
    fn new(start: u32) -> Self {
        Self::with(start, false)
    }

    fn with(start: u32, busy_poll: bool) -> Self {
        let placement = Placement { node: None, huge_pages: HugePages::Never };
        let (umem, frames) = Umem::allocate(FRAMES, placement).expect("96 KiB");
        let (fill_memory, fill, kernel_fill) = ends(RING_ENTRIES, start);
        let (receive_memory, kernel_receive, receive) = ends(RING_ENTRIES, start);
        let (transmit_memory, transmit, kernel_transmit) = ends(RING_ENTRIES, start);
        let (completion_memory, kernel_completion, completion) = ends(RING_ENTRIES, start);
        let (doorbell, doorbells) = UnixDatagram::pair().expect("a socket pair");
        doorbells.set_nonblocking(true).expect("a socket");
        let custody = Custody::of(&umem);
        let socket = Socket::stand_in(doorbell.into());
        let common = Arc::new(Common { socket, umem: Arc::new(umem), custody });
        let (port_end, owner_end) = link::link(2, FRAMES);
        let queue = XskQueue::new(fill, completion, frames, REPLY_FRAMES, owner_end, Arc::clone(&common));
        let doorbell = Doorbell { zero_copy: true, busy_poll, budget: RING_ENTRIES };
        let port = XskPort::new(receive, transmit, port_end, doorbell, common);
        let kernel = Kernel {
            fill: kernel_fill,
            receive: kernel_receive,
            transmit: kernel_transmit,
            completion: kernel_completion,
            stash: Vec::new(),
            sending: Vec::new(),
            doorbells,
            asleep: false,
            memories: [fill_memory, receive_memory, transmit_memory, completion_memory],
        };
        let (_, padding) = Umem::allocate(BATCH_FRAMES, placement).expect("256 KiB");
        Self { port, queue, kernel, held: Vec::new(), padding }
    }

    /// Does something, and counts how often it rings the transmit and the receive doorbell.
    fn doorbells<R>(&mut self, action: impl FnOnce(&mut Self) -> R) -> (R, [usize; 2]) {
        /// More than anything below rings at once, and fewer than a socket queues.
        const WAITING: usize = 4;
        let taken = |socket: &UnixDatagram| std::iter::from_fn(|| socket.recv(&mut [0; 8]).ok()).count();
        let ours = self.port.as_fd().try_clone_to_owned().expect("a descriptor");
        let ours = UnixDatagram::from(ours);
        ours.set_nonblocking(true).expect("a socket");
        assert_eq!((taken(&ours), taken(&self.kernel.doorbells)), (0, 0), "each was counted");
        for _ in 0..WAITING {
            self.kernel.doorbells.send(&[]).expect("room for a few");
        }
        let outcome = action(self);
        (outcome, [taken(&self.kernel.doorbells), WAITING - taken(&ours)])
    }

    /// Receives into a batch that has room for `limit` more.
    fn receive(&mut self, limit: usize) -> Result<(), PortError> {
        let mut batch: FrameBatch = self.padding.drain(limit..).collect();
        let padded = batch.len();
        let outcome = self.port.receive(&mut batch);
        self.padding.extend(batch.drain(..padded));
        self.held.extend(batch);
        outcome
    }

    fn assert_nothing_is_lost(&self) {
        let (port, queue) = (self.port.accounts(), self.queue.accounts());
        let owned = port.owned() + queue.owned() + self.held.len() as u64;
        assert_eq!(owned, FRAMES as u64, "{port:?} {queue:?} and {} held", self.held.len());
        assert!(queue.filling <= (FRAMES as u64) - u64::from(REPLY_FRAMES));
        self.assert_tokens_are_unique();
    }

    fn assert_tokens_are_unique(&self) {
        let mut chunks = HashSet::new();
        for frame in &self.held {
            assert!(chunks.insert(Umem::chunk_of(frame.address())), "two tokens for one chunk");
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Poll,
    Flush,
    Receive(usize),
    Allocate,
    Release(usize),
    Transmit(usize),
    KernelReceives(u32),
    KernelStashes,
    KernelTakes,
    KernelCompletes(usize),
    KernelSleeps(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Poll),
        2 => Just(Event::Flush),
        2 => (0..12usize).prop_map(Event::Receive),
        1 => Just(Event::Allocate),
        2 => any::<usize>().prop_map(Event::Release),
        3 => any::<usize>().prop_map(Event::Transmit),
        4 => (1..1500u32).prop_map(Event::KernelReceives),
        2 => Just(Event::KernelStashes),
        3 => Just(Event::KernelTakes),
        3 => any::<usize>().prop_map(Event::KernelCompletes),
        1 => any::<bool>().prop_map(Event::KernelSleeps),
    ];
    prop::collection::vec(event, 0..400)
}

impl Halves {
    fn apply(&mut self, event: &Event) -> Result<(), PortError> {
        match *event {
            Event::Poll => {
                let (outcome, rung) = self.doorbells(|halves| halves.queue.poll());
                outcome?;
                let wanted = self.kernel.asleep && self.kernel.fill.refresh().expect("an honest user") > 0;
                assert_eq!(rung, [0, usize::from(wanted)], "one doorbell, when wanted");
            }
            Event::Flush => {
                let (outcome, rung) = self.doorbells(|halves| halves.port.flush());
                outcome?;
                let wanted =
                    self.kernel.asleep && self.kernel.transmit.refresh().expect("an honest user") > 0;
                assert_eq!(rung, [usize::from(wanted), 0], "one doorbell, when wanted");
            }
            Event::Receive(limit) => self.receive(limit)?,
            Event::Allocate => self.held.extend(self.port.allocate()),
            Event::Release(which) if !self.held.is_empty() => {
                let frame = self.held.swap_remove(which % self.held.len());
                self.port.release(frame);
            }
            Event::Transmit(which) if !self.held.is_empty() => {
                let mut frame = self.held.swap_remove(which % self.held.len());
                let umem = Arc::clone(self.port.umem());
                if frame.is_empty() {
                    umem.compose(&mut frame, |_| 60);
                }
                self.held.extend(self.port.transmit(frame).err());
            }
            Event::KernelReceives(length) => self.kernel.receive(length),
            Event::KernelStashes => self.kernel.stash(),
            Event::KernelTakes => self.kernel.take(),
            Event::KernelCompletes(which) => self.kernel.complete(which),
            Event::KernelSleeps(asleep) => self.kernel.sleep(asleep),
            Event::Release(_) | Event::Transmit(_) => {}
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In every order of events: accounts are exact after each, and in the end all frames are back.
    #[test]
    fn no_order_of_events_loses_a_frame(events in events(), start in any::<u32>()) {
        let mut halves = Halves::new(start);
        for event in &events {
            halves.apply(event).expect("an honest kernel");
            halves.assert_nothing_is_lost();
        }
        while let Some(frame) = halves.held.pop() {
            halves.port.release(frame);
        }
        for _ in 0..FRAMES {
            for event in [Event::Flush, Event::KernelTakes, Event::KernelCompletes(0), Event::Poll] {
                halves.apply(&event).expect("an honest kernel");
            }
        }
        halves.assert_nothing_is_lost();
        let (port, queue) = (halves.port.accounts(), halves.queue.accounts());
        prop_assert_eq!(port.sending + queue.sending, 0);
        prop_assert!(halves.port.available() > 0, "a frame for a reply");
    }

    /// Whatever descriptors and counters the shared memory holds: an error or nothing, never a second token.
    #[test]
    fn no_lie_in_the_rings_makes_a_second_token(
        events in events(),
        lies in prop::collection::vec((0..6u8, 0..30 * 4096u64, 0..5000u32), 1..30),
    ) {
        let mut halves = Halves::new(0);
        let mut lies = lies.into_iter().peekable();
        let every = (events.len() / 30).max(1);
        for (number, event) in events.iter().enumerate() {
            if number.is_multiple_of(every)
                && let Some((kind, address, length)) = lies.next()
            {
                let kernel = &mut halves.kernel;
                match kind {
                    0 | 1 => {
                        let lie = Descriptor { address, length, options: length };
                        let _ = kernel.receive.push(lie);
                        kernel.receive.publish();
                    }
                    2 | 3 => {
                        let _ = kernel.completion.push(address);
                        kernel.completion.publish();
                    }
                    4 => kernel.memories[1].set_producer(length),
                    _ => kernel.memories[2].set_consumer(length),
                }
            }
            // The kernel itself may trip over what its rings say now; the user's side must not.
            if matches!(
                event,
                Event::KernelReceives(_)
                    | Event::KernelStashes
                    | Event::KernelTakes
                    | Event::KernelCompletes(_)
                    | Event::KernelSleeps(_)
            ) {
                continue;
            }
            match halves.apply(event) {
                Ok(()) | Err(PortError::Corrupt { .. }) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
            halves.assert_tokens_are_unique();
        }
    }
}

#[test]
fn lies_are_named_with_their_ring() {
    let mut halves = Halves::new(0);
    halves.queue.poll().expect("honest so far");
    let chunk = FRAME_BYTES as u64;
    for (address, length, detail) in [
        (FRAMES as u64 * chunk, 60, "outside the UMEM"),
        (u64::MAX, 60, "outside the UMEM"),
        (23 * chunk + 4000, 97, "crosses a chunk"),
        // The last chunks were kept for replies, so the kernel does not have the first one.
        (0, 60, "a chunk that the kernel does not have for this"),
    ] {
        let lie = Descriptor { address, length, options: 0 };
        assert_eq!(halves.kernel.receive.push(lie), Ok(Ok(())));
        halves.kernel.receive.publish();
        let error = halves.receive(8).expect_err("a lie");
        let PortError::Corrupt { ring, detail: found, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*ring, "RX");
        assert!(found.contains(detail), "{found}");
    }
    assert_eq!(halves.kernel.completion.push(0), Ok(Ok(())));
    halves.kernel.completion.publish();
    let error = halves.queue.poll().expect_err("nothing was sent");
    assert!(error.to_string().contains("completion ring holds an impossible entry"), "{error}");

    halves.kernel.memories[1].set_producer(1000);
    let error = halves.receive(8).expect_err("more than the ring has");
    assert!(error.to_string().contains("producer index 1000, which can only be"), "{error}");
}

#[test]
fn a_transmit_ring_that_cannot_be_trusted_is_reported_at_the_next_flush() {
    let mut halves = Halves::new(0);
    halves.queue.poll().expect("honest so far");
    halves.kernel.memories[2].set_consumer(5);
    halves.apply(&Event::Allocate).expect("no rings involved");
    let mut refused = 0;
    for _ in 0..=RING_ENTRIES {
        halves.held.extend(halves.port.allocate());
        let before = halves.held.len();
        halves.apply(&Event::Transmit(0)).expect("kept for the flush");
        refused += usize::from(halves.held.len() == before);
        halves.queue.poll().expect("its rings are sound");
    }
    assert!(refused > 0, "a full ring is looked at again");
    let error = halves.port.flush().expect_err("nothing was published, so nothing can be taken");
    assert!(error.to_string().contains("TX ring holds an impossible entry"), "{error}");
    assert!(halves.port.flush().is_err(), "for good");
    halves.assert_nothing_is_lost();
}

#[test]
fn a_doorbell_is_rung_once_and_only_for_a_kernel_that_sleeps_on_something() {
    let mut halves = Halves::new(0);
    halves.kernel.sleep(true);
    let (polled, rung) = halves.doorbells(|halves| halves.queue.poll());
    assert_eq!((polled.is_ok(), rung), (true, [0, 1]), "frames to receive into");
    assert_eq!(halves.doorbells(|halves| halves.port.flush().is_ok()), (true, [0, 0]), "nothing to send");
    halves.apply(&Event::Allocate).expect("no rings involved");
    halves.apply(&Event::Transmit(0)).expect("room");
    assert_eq!(halves.doorbells(|halves| halves.port.flush().is_ok()), (true, [1, 0]), "one to send");
    assert_eq!(halves.doorbells(|halves| halves.port.flush().is_ok()), (true, [1, 0]), "it still sleeps");
    halves.kernel.sleep(false);
    assert_eq!(halves.doorbells(|halves| halves.port.flush().is_ok()), (true, [0, 0]), "it is awake");
    assert_eq!(halves.doorbells(|halves| halves.queue.poll().is_ok()), (true, [0, 0]), "it is awake");
    halves.kernel.sleep(true);
    halves.kernel.take();
    assert_eq!(halves.doorbells(|halves| halves.port.flush().is_ok()), (true, [0, 0]), "all is taken");
}

#[test]
fn busy_polling_rings_once_a_flush_whether_or_not_there_is_something_to_send() {
    let mut halves = Halves::with(0, true);
    halves.queue.poll().expect("honest so far");
    for _ in 0..3 {
        assert_eq!(halves.doorbells(|halves| halves.port.flush().is_ok()), (true, [0, 1]), "to receive");
    }
    halves.apply(&Event::Allocate).expect("no rings involved");
    halves.apply(&Event::Transmit(0)).expect("room");
    assert_eq!(halves.doorbells(|halves| halves.port.flush().is_ok()), (true, [1, 0]), "to send");
}

#[test]
fn a_packet_in_several_pieces_is_skipped_to_its_end_and_counted_once() {
    let mut halves = Halves::new(0);
    halves.apply(&Event::Poll).expect("honest so far");
    let deliver = |halves: &mut Halves, continues: bool| {
        halves.kernel.stash();
        let chunk = halves.kernel.stash.pop().expect("the fill ring is stocked");
        let options = if continues { libc::XDP_PKT_CONTD } else { 0 };
        let piece = Descriptor { address: chunk, length: 100, options };
        assert_eq!(halves.kernel.receive.push(piece), Ok(Ok(())));
        halves.kernel.receive.publish();
    };
    // A packet of three pieces, of which the first batch holds two, between two whole ones; then one of two.
    for continues in [false, true, true] {
        deliver(&mut halves, continues);
    }
    halves.receive(8).expect("no lie");
    assert_eq!(halves.held.len(), 1);
    halves.assert_nothing_is_lost();
    for continues in [false, false, true, false, false] {
        deliver(&mut halves, continues);
    }
    halves.receive(8).expect("no lie");
    assert_eq!(halves.held.len(), 3, "whole packets only");
    assert_eq!(halves.port.survey().drops.in_pieces, 2);
    halves.assert_nothing_is_lost();
}
