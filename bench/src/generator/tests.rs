//! The generator over a wire that ends in a function: what a server does with a frame, done on the spot.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use dataplane::memory::Placement;
use dataplane::port::{FrameAccounts, PortError, Umem};

use super::flow::turn_round;
use super::*;

type Serve = Box<dyn FnMut(&Umem, &mut Frame) -> bool>;

/// A port whose wire is a function: it changes the frame into its answer, or loses it.
struct Loop {
    umem: Arc<Umem>,
    free: Vec<Frame>,
    answers: VecDeque<Frame>,
    serve: Serve,
    /// Frames sent between one receiving and the next.
    sent_by_round: Vec<usize>,
    /// Until then nothing is received.
    held_until: Instant,
}

impl Loop {
    fn hold_back(&mut self, length: Duration) {
        self.held_until = Instant::now() + length;
    }
}

struct LoopQueue;

impl Port for Loop {
    fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), PortError> {
        self.sent_by_round.push(0);
        if Instant::now() < self.held_until {
            return Ok(());
        }
        while !batch.is_full() {
            let Some(frame) = self.answers.pop_front() else { break };
            batch.push(frame);
        }
        Ok(())
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    fn available(&self) -> usize {
        self.free.len()
    }

    fn transmit_room(&self) -> usize {
        usize::MAX
    }

    fn release(&mut self, frame: Frame) {
        self.free.push(frame);
    }

    fn transmit(&mut self, mut frame: Frame) -> Result<(), Frame> {
        if let Some(sent) = self.sent_by_round.last_mut() {
            *sent += 1;
        }
        if (self.serve)(&self.umem, &mut frame) {
            self.answers.push_back(frame);
        } else {
            self.free.push(frame);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn wait_handle(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn accounts(&self) -> FrameAccounts {
        let free = self.free.len() as u64;
        FrameAccounts { total: 0, free, received: self.answers.len() as u64, ..FrameAccounts::default() }
    }
}

impl QueueOwner for LoopQueue {
    fn poll(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn accounts(&self) -> FrameAccounts {
        FrameAccounts { total: FRAMES as u64, ..FrameAccounts::default() }
    }
}

const FRAMES: usize = 64;

fn generator(serve: impl FnMut(&Umem, &mut Frame) -> bool + 'static) -> Generator<Loop, LoopQueue> {
    let (umem, free) = Umem::allocate(FRAMES, Placement::default()).expect("a small UMEM");
    let port = Loop {
        umem: Arc::new(umem),
        free,
        answers: VecDeque::new(),
        serve: Box::new(serve),
        sent_by_round: Vec::new(),
        held_until: Instant::now(),
    };
    let local = Endpoint { mac: [2, 0, 0, 0, 0, 1], address: Ipv4Addr::new(10, 77, 0, 1), port: 4000 };
    let peer = Endpoint { mac: [2, 0, 0, 0, 0, 2], address: Ipv4Addr::new(10, 77, 0, 2), port: 11211 };
    Generator::new(port, LoopQueue, Flow::new(local, peer))
}

fn each_once(keys: u32, expect: Expect) -> Load {
    Load {
        operation: Operation::Set,
        keys: Keys::EachOnce(keys),
        outstanding: 16,
        expect,
        warm_up: Duration::ZERO,
        length: Duration::ZERO,
    }
}

fn echo(umem: &Umem, frame: &mut Frame) -> bool {
    turn_round(umem.packet_mut(frame))
}

#[test]
fn every_key_is_asked_for_once_and_every_frame_comes_back() {
    let mut generator = generator(echo);
    let outcome = generator.run(&each_once(1000, Expect::Echo), &mut || Ok(())).expect("ran");
    assert_eq!((outcome.replies, outcome.wrong, outcome.missing), (1000, 0, 0));
    assert_eq!(outcome.latencies.count(), 1000);
    assert_eq!(generator.frames_lost(), 0);
}

#[test]
fn an_echo_is_no_answer() {
    let mut generator = generator(echo);
    let outcome = generator.run(&each_once(100, Expect::Answer), &mut || Ok(())).expect("ran");
    assert_eq!((outcome.replies, outcome.wrong), (100, 100));
}

#[test]
fn what_is_lost_is_missing_and_does_not_stop_the_rest() {
    let mut count = 0;
    let mut generator = generator(move |umem, frame| {
        count += 1;
        count % 50 != 0 && echo(umem, frame)
    });
    let outcome = generator.run(&each_once(1000, Expect::Echo), &mut || Ok(())).expect("ran");
    assert_eq!((outcome.replies, outcome.wrong, outcome.missing), (980, 0, 20));
    assert_eq!(generator.frames_lost(), 0);
}

#[test]
fn a_timed_run_counts_only_what_follows_the_warm_up() {
    let mut generator = generator(echo);
    let load = Load {
        keys: Keys::Random(100),
        warm_up: Duration::from_millis(20),
        length: Duration::from_millis(30),
        ..each_once(0, Expect::Echo)
    };
    let mut edges = 0;
    let outcome = generator
        .run(&load, &mut || {
            edges += 1;
            Ok(())
        })
        .expect("ran");
    assert_eq!(edges, 2);
    assert!(outcome.replies > 0 && outcome.wrong == 0);
    assert!(outcome.elapsed >= Duration::from_millis(30), "{:?}", outcome.elapsed);
    assert!(outcome.elapsed < Duration::from_millis(300), "{:?}", outcome.elapsed);
    // Every reply of the time that counted, and of no other.
    assert!(outcome.replies.abs_diff(outcome.latencies.count()) <= 16, "{outcome:?}");
}

#[test]
fn requests_under_way_grow_one_with_each_reply_up_to_what_was_asked_for() {
    let mut generator = generator(echo);
    let outcome = generator.run(&each_once(100, Expect::Echo), &mut || Ok(())).expect("ran");
    let sent = &generator.port.sent_by_round;
    assert_eq!(sent[..7], [1, 2, 4, 8, 16, 16, 16], "{sent:?}");
    // The wire answers by the next round, so each round's requests are under way all the time.
    let mean = outcome.under_way_mean();
    assert!(mean > 1.0 && mean <= 16.0, "{mean}");
}

#[test]
fn a_damaged_reply_is_wrong_and_what_is_not_ours_is_nothing() {
    let mut count = 0;
    let mut generator = generator(move |umem, frame| {
        count += 1;
        let there = echo(umem, frame);
        if count == 7 {
            // In the payload: the flow is right, the checksum is not.
            umem.packet_mut(frame)[HEADERS_BYTES + 3] ^= 1;
        }
        if count == 9 {
            // Another port: not this flow.
            umem.packet_mut(frame)[37] ^= 1;
        }
        there
    });
    let outcome = generator.run(&each_once(100, Expect::Echo), &mut || Ok(())).expect("ran");
    // Neither was an answer, so both requests are missing.
    assert_eq!((outcome.replies, outcome.wrong, outcome.missing), (98, 1, 2));
}

#[test]
fn a_reply_after_it_was_given_up_is_late_and_not_missing() {
    let mut generator = generator(echo);
    generator.port.hold_back(REPLY_LIMIT * 5 / 2);
    let load = Load { outstanding: 1, ..each_once(3, Expect::Echo) };
    let outcome = generator.run(&load, &mut || Ok(())).expect("ran");
    assert_eq!((outcome.wrong, outcome.missing), (0, 0), "{outcome:?}");
    assert!(outcome.late >= 1 && outcome.late + outcome.replies == 3, "{outcome:?}");
}
