//! Port and queue against a kernel played by the test: no NIC, no privilege, every order of events.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::limits::{BATCH_FRAMES, FRAME_BYTES};
use crate::memory::{HugePages, Placement};
use crate::port::{Frame, FrameBatch, Port, PortError, QueueOwner, Umem};

use super::custody::Custody;
use super::link;
use super::port::Doorbell;
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
        let placement = Placement { node: None, huge_pages: HugePages::Never };
        let (umem, frames) = Umem::allocate(FRAMES, placement).expect("96 KiB");
        let (fill_memory, fill, kernel_fill) = ends(RING_ENTRIES, start);
        let (receive_memory, kernel_receive, receive) = ends(RING_ENTRIES, start);
        let (transmit_memory, transmit, kernel_transmit) = ends(RING_ENTRIES, start);
        let (completion_memory, kernel_completion, completion) = ends(RING_ENTRIES, start);
        // Something that takes a doorbell and does nothing.
        let (doorbell, _) = std::os::unix::net::UnixDatagram::pair().expect("a socket pair");
        let custody = Custody::of(&umem);
        let socket = Socket::stand_in(doorbell.into());
        let common = Arc::new(Common { socket, umem: Arc::new(umem), custody, placement });
        let (port_end, owner_end) = link::link(2, FRAMES);
        let queue = XskQueue::new(fill, completion, frames, REPLY_FRAMES, owner_end, Arc::clone(&common));
        let doorbell = Doorbell { zero_copy: true, busy_poll: false };
        let port = XskPort::new(receive, transmit, port_end, doorbell, common);
        let kernel = Kernel {
            fill: kernel_fill,
            receive: kernel_receive,
            transmit: kernel_transmit,
            completion: kernel_completion,
            stash: Vec::new(),
            sending: Vec::new(),
            memories: [fill_memory, receive_memory, transmit_memory, completion_memory],
        };
        let (_, padding) = Umem::allocate(BATCH_FRAMES, placement).expect("256 KiB");
        Self { port, queue, kernel, held: Vec::new(), padding }
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
    ];
    prop::collection::vec(event, 0..400)
}

impl Halves {
    fn apply(&mut self, event: &Event) -> Result<(), PortError> {
        match *event {
            Event::Poll => self.queue.poll()?,
            Event::Flush => self.port.flush()?,
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
