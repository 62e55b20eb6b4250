//! Rings over plain memory: both ends in user space, no NIC, no kernel.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const LAYOUT: Layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192 };

/// Memory laid out as the kernel lays a ring out.
pub(in crate::port::xsk) struct PlainMemory(Box<[UnsafeCell<u64>]>);

// SAFETY: reached only through rings, which obey the ownership rule between the two ends.
unsafe impl Send for PlainMemory {}
// SAFETY: as above.
unsafe impl Sync for PlainMemory {}

impl PlainMemory {
    fn new<T: Entry>(size: u32, start: u32) -> Arc<Self> {
        let bytes = LAYOUT.bytes::<T>(size).expect("small");
        let memory = Arc::new(Self((0..bytes / 8).map(|_| UnsafeCell::new(0)).collect()));
        memory.word(LAYOUT.producer).store(start, Ordering::Relaxed);
        memory.word(LAYOUT.consumer).store(start, Ordering::Relaxed);
        memory
    }

    /// Moves the producer's counter, as no honest producer would.
    pub(in crate::port::xsk) fn set_producer(&self, counter: u32) {
        self.word(LAYOUT.producer).store(counter, Ordering::Release);
    }

    /// Moves the consumer's counter, as no honest consumer would.
    pub(in crate::port::xsk) fn set_consumer(&self, counter: u32) {
        self.word(LAYOUT.consumer).store(counter, Ordering::Release);
    }

    /// Raises or lowers the flag by which the kernel asks to be woken.
    pub(in crate::port::xsk) fn want_wakeup(&self, wanted: bool) {
        let flags = if wanted { libc::XDP_RING_NEED_WAKEUP } else { 0 };
        self.word(LAYOUT.flags).store(flags, Ordering::Release);
    }

    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.0.as_ptr().cast_mut()).expect("not null").cast()
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the offsets of `LAYOUT` lie in the memory, aligned; counters are only reached atomically.
        unsafe { self.base().add(offset).cast().as_ref() }
    }

    fn shared<T: Entry>(self: &Arc<Self>, size: u32) -> Shared<T> {
        let memory = Memory::Plain(Arc::clone(self));
        Shared::new(memory, self.base(), self.0.len() * 8, LAYOUT, size).expect("it fits")
    }
}

/// Both ends of one ring, and the memory it lies in.
pub(in crate::port::xsk) fn ends<T: Entry>(
    size: u32,
    start: u32,
) -> (Arc<PlainMemory>, Producer<T>, Consumer<T>) {
    let memory = PlainMemory::new::<T>(size, start);
    let producer = Producer::over(memory.shared(size));
    let consumer = Consumer::over(memory.shared(size));
    (memory, producer, consumer)
}

impl<T: Entry> Producer<T> {
    /// Writes one entry, or gives it back when there is no room for it.
    pub(in crate::port::xsk) fn push(&mut self, entry: T) -> Result<Result<(), T>, RingFault> {
        let room = self.room(1)?;
        Ok(if self.extend(room.min(1), || Some(entry)) == 1 { Ok(()) } else { Err(entry) })
    }
}

/// Just before the counters wrap, so that every test crosses it.
const NEAR_WRAP: u32 = u32::MAX - 2;

#[test]
fn entries_come_out_in_order_across_the_wrap_of_counters_and_slots() {
    let (_memory, mut producer, mut consumer) = ends::<u64>(4, NEAR_WRAP);
    for round in 0..10u64 {
        for entry in [round * 3, round * 3 + 1, round * 3 + 2] {
            assert_eq!(producer.push(entry), Ok(Ok(())));
        }
        assert_eq!(consumer.readable(4), Ok([&[][..], &[][..]]), "nothing before it is published");
        producer.publish();
        let [head, tail] = consumer.readable(4).expect("sound");
        assert_eq!([head, tail].concat(), [round * 3, round * 3 + 1, round * 3 + 2]);
        consumer.release(3);
    }
}

#[test]
fn a_full_ring_gives_the_entry_back() {
    let (_memory, mut producer, mut consumer) = ends::<u64>(4, NEAR_WRAP);
    for entry in 0..4 {
        assert_eq!(producer.push(entry), Ok(Ok(())));
    }
    assert_eq!(producer.push(9), Ok(Err(9)));
    producer.publish();
    assert_eq!(producer.push(9), Ok(Err(9)));
    consumer.refresh().expect("sound");
    consumer.release(1);
    assert_eq!(producer.push(9), Ok(Ok(())));
    assert_eq!(producer.refresh(), Ok(3), "the kernel has three to take, and one is unpublished");
}

#[test]
fn a_consumer_index_that_cannot_be_is_a_fault() {
    for wrong in [NEAR_WRAP.wrapping_sub(1), NEAR_WRAP.wrapping_add(3), NEAR_WRAP.wrapping_add(1 << 31)] {
        let (memory, mut producer, _consumer) = ends::<Descriptor>(4, NEAR_WRAP);
        for _ in 0..3 {
            assert_eq!(producer.push(Descriptor::default()), Ok(Ok(())));
        }
        // Two published: the kernel can have taken none, one or two, whatever else was written.
        producer.next = producer.next.wrapping_sub(1);
        producer.publish();
        memory.set_consumer(wrong);
        let fault = producer.refresh().expect_err("impossible");
        assert_eq!((fault.counter, fault.found), ("consumer", wrong));
        assert_eq!(producer.room(4), Err(fault));
        assert_eq!(producer.pending(), 2, "a wrong counter is not taken over");
    }
}

#[test]
fn a_producer_index_that_cannot_be_is_a_fault() {
    for wrong in
        [NEAR_WRAP, NEAR_WRAP.wrapping_add(6), NEAR_WRAP.wrapping_sub(5), NEAR_WRAP.wrapping_add(1 << 31)]
    {
        let (memory, mut producer, mut consumer) = ends::<u64>(4, NEAR_WRAP);
        assert_eq!(producer.push(1), Ok(Ok(())));
        producer.publish();
        assert_eq!(consumer.refresh(), Ok(1));
        consumer.release(1);
        memory.set_producer(wrong);
        let fault = consumer.readable(1).expect_err("impossible");
        assert_eq!((fault.counter, fault.found), ("producer", wrong));
        assert_eq!(consumer.seen(), 0, "a wrong counter is not taken over");
    }
}

#[test]
#[should_panic(expected = "2 entries given back of 1 seen")]
fn entries_never_seen_cannot_be_given_back() {
    let (_memory, mut producer, mut consumer) = ends::<u64>(4, 0);
    assert_eq!(producer.push(1), Ok(Ok(())));
    producer.publish();
    consumer.refresh().expect("sound");
    consumer.release(2);
}

#[test]
fn a_layout_that_leaves_the_mapping_is_refused() {
    let memory = PlainMemory::new::<u64>(4, 0);
    let bytes = memory.0.len() * 8;
    let make = |layout, length, size| {
        Shared::<u64>::new(Memory::Plain(Arc::clone(&memory)), memory.base(), length, layout, size).is_some()
    };
    assert!(make(LAYOUT, bytes, 4));
    assert!(!make(LAYOUT, bytes - 1, 4));
    assert!(!make(LAYOUT, bytes, 8));
    assert!(!make(Layout { producer: bytes, ..LAYOUT }, bytes, 4));
    assert!(!make(Layout { consumer: 66, ..LAYOUT }, bytes, 4));
    assert!(!make(Layout { flags: usize::MAX - 3, ..LAYOUT }, bytes, 4));
    assert!(!make(Layout { entries: usize::MAX - 7, ..LAYOUT }, bytes, 4));
}

#[test]
fn the_wakeup_flag_is_seen() {
    let (memory, producer, _consumer) = ends::<u64>(4, 0);
    assert!(!producer.wakeup_wanted());
    memory.word(LAYOUT.flags).store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
    assert!(producer.wakeup_wanted());
}

#[test]
fn two_threads_pass_every_entry_once_and_in_order() {
    const ENTRIES: u64 = if cfg!(miri) { 200 } else { 500_000 };
    let (_memory, mut producer, mut consumer) = ends::<Descriptor>(16, NEAR_WRAP);
    let writer = std::thread::spawn(move || {
        let mut written = 0;
        while written < ENTRIES {
            let entry = Descriptor { address: written, length: !written as u32, options: 0 };
            match producer.push(entry).expect("sound") {
                Ok(()) => written += 1,
                Err(_) => std::thread::yield_now(),
            }
            if written % 5 == 0 || written == ENTRIES || producer.known_room() == 0 {
                producer.publish();
            }
        }
    });
    let mut expected = 0;
    while expected < ENTRIES {
        let [head, tail] = consumer.readable(7).expect("sound");
        let count = head.len() + tail.len();
        for entry in head.iter().chain(tail) {
            assert_eq!((entry.address, entry.length), (expected, !expected as u32));
            expected += 1;
        }
        consumer.release(count as u32);
        if count == 0 {
            std::thread::yield_now();
        }
    }
    writer.join().expect("no panic");
}

#[derive(Clone, Debug)]
enum Step {
    Push(u32),
    Publish,
    Take(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        prop_oneof![(0..12u32).prop_map(Step::Push), Just(Step::Publish), (0..12u32).prop_map(Step::Take)];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None,
        ..ProptestConfig::default() })]

    /// Against two queues: what was written, and what of it the other side may see.
    #[test]
    fn a_ring_behaves_as_a_bounded_queue(steps in steps(), start in any::<u32>(), power in 0..5u32) {
        let size = 1 << power;
        let (_memory, mut producer, mut consumer) = ends::<u64>(size, start);
        let (mut hidden, mut visible) = (VecDeque::new(), VecDeque::new());
        let mut next = 0u64;
        for step in steps {
            match step {
                Step::Push(count) => for _ in 0..count {
                    let full = hidden.len() + visible.len() == size as usize;
                    prop_assert_eq!(producer.push(next), Ok(if full { Err(next) } else { Ok(()) }));
                    if !full {
                        hidden.push_back(next);
                        next += 1;
                    }
                },
                Step::Publish => {
                    producer.publish();
                    visible.append(&mut hidden);
                }
                Step::Take(limit) => {
                    let [head, tail] = consumer.readable(limit).expect("sound");
                    let taken = [head, tail].concat();
                    let expected: Vec<u64> =
                        visible.drain(..visible.len().min(limit as usize)).collect();
                    consumer.release(taken.len() as u32);
                    prop_assert_eq!(taken, expected);
                }
            }
            prop_assert_eq!(producer.refresh(), Ok(visible.len() as u32));
            prop_assert_eq!(consumer.refresh(), Ok(visible.len() as u32));
            prop_assert_eq!(producer.unpublished() as usize, hidden.len());
        }
    }
}
