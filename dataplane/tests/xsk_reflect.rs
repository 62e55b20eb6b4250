//! AF_XDP at both ends of a veth pair, as fast as it goes: no frame may be lost in the accounts whatever the
//! kernel drops, and the rate is printed. Needs root, and two cores for a rate that means something.

mod xsk_support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::port::xsk::{Opened, XskConfig, XskStatistics};
use dataplane::port::{FrameBatch, Port, QueueOwner};

use xsk_support::namespaces::{PEER, Pair, isolated};
use xsk_support::{DEADLINE, Steered, server_config, test_packet};

/// What a load came to.
#[derive(Debug, Default)]
struct Outcome {
    sent: u64,
    received: u64,
    elapsed: Duration,
}

/// Sends the same packet again and again with at most `window` of them unanswered, until `done` says so.
fn generate(peer: &mut Steered, window: u64, mut done: impl FnMut(&Outcome) -> bool) -> Outcome {
    let packet = test_packet(1, 64);
    let start = Instant::now();
    let mut outcome = Outcome::default();
    let mut unanswered = 0;
    let mut progress = Instant::now();
    let mut batch = FrameBatch::new();
    loop {
        let Opened { port, queue, .. } = &mut peer.opened;
        queue.poll().expect("sound rings");
        port.receive(&mut batch).expect("sound rings");
        let received = batch.len() as u64;
        for frame in batch.drain(..) {
            port.release(frame);
        }
        outcome.received += received;
        unanswered = u64::saturating_sub(unanswered, received);
        outcome.elapsed = start.elapsed();
        if received > 0 {
            progress = Instant::now();
        } else if progress.elapsed() > Duration::from_millis(20) {
            // What is still missing was dropped by the kernel on its way.
            unanswered = 0;
            progress = Instant::now();
        }
        let finished = done(&outcome);
        if finished && unanswered == 0 {
            return outcome;
        }
        assert!(outcome.elapsed < DEADLINE, "{outcome:?}");
        let budget = if finished { 0 } else { (window - unanswered).min(64) };
        for _ in 0..budget {
            let Some(mut frame) = port.allocate() else { break };
            port.umem().compose(&mut frame, |chunk| {
                chunk[..packet.len()].copy_from_slice(&packet);
                packet.len()
            });
            if let Err(frame) = port.transmit(frame) {
                port.release(frame);
                break;
            }
            outcome.sent += 1;
            unanswered += 1;
        }
        port.flush().expect("up");
    }
}

/// Runs a reflecting server on one core, which may `pause` between polls, against a generator on another;
/// both must account for every frame. Also returns what the kernel counted at the server.
fn reflect_under_load(
    pair: &Pair,
    (server_config, pause): (&XskConfig, Duration),
    peer_config: &XskConfig,
    window: u64,
    done: impl FnMut(&Outcome) -> bool + Send,
) -> (Outcome, XskStatistics) {
    let stop = AtomicBool::new(false);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let pin = |number: usize| {
        if let Some(&core) = cores.get(number) {
            core_affinity::set_for_current(core);
        }
    };
    let mut server = Steered::server(pair, server_config);
    std::thread::scope(|scope| {
        let generator = scope.spawn(|| {
            pin(1);
            pair.enter_peer();
            let mut peer = Steered::open(peer_config);
            let outcome = generate(&mut peer, window, done);
            peer.settle();
            stop.store(true, Ordering::Relaxed);
            outcome
        });
        pin(0);
        while !stop.load(Ordering::Relaxed) && !generator.is_finished() {
            server.reflect();
            let polled = Instant::now();
            while polled.elapsed() < pause {
                std::hint::spin_loop();
            }
        }
        let outcome = generator.join().expect("no panic");
        server.settle();
        (outcome, server.opened.port.statistics().expect("it is bound"))
    })
}

fn peer_config() -> XskConfig {
    XskConfig::new(PEER, 0)
}

#[test]
fn a_hundred_thousand_frames_are_all_accounted_for() {
    isolated(|pair| {
        let server = (&server_config(), Duration::ZERO);
        let done = |seen: &Outcome| seen.received >= 100_000;
        let (outcome, _) = reflect_under_load(pair, server, &peer_config(), 128, done);
        assert!(outcome.sent >= outcome.received, "{outcome:?}");
    });
}

#[test]
fn no_frame_is_lost_when_the_kernel_finds_the_fill_ring_empty_again_and_again() {
    isolated(|pair| {
        // Far more packets on their way than the server has frames for, and it is slow.
        let config = XskConfig { frames: 128, ring_entries: 64, ..server_config() };
        let server = (&config, Duration::from_micros(300));
        let done = |seen: &Outcome| seen.sent >= 50_000;
        let (outcome, counts) = reflect_under_load(pair, server, &peer_config(), 1024, done);
        assert!(outcome.received > 0 && outcome.received < outcome.sent, "{outcome:?}");
        assert!(counts.fill_ring_empty > 0, "{counts:?}");
        assert_eq!((counts.fill_invalid, counts.transmit_invalid), (0, 0), "{counts:?}");
    });
}

/// Replies a second, over `duration`.
fn rate(pair: &Pair, rings: u32, window: u64, duration: Duration) -> f64 {
    let side = |config| XskConfig { frames: 2 * rings, ring_entries: rings, ..config };
    let (server, peer) = (side(server_config()), side(peer_config()));
    let server = (&server, Duration::ZERO);
    let (outcome, _) = reflect_under_load(pair, server, &peer, window, |seen| seen.elapsed > duration);
    outcome.received as f64 / outcome.elapsed.as_secs_f64()
}

/// Only prints: rates depend on the machine, and on what else it does.
#[test]
fn the_reflect_rate_is_printed() {
    for window in [1, 256] {
        isolated(|pair| {
            let rate = rate(pair, 2048, window, Duration::from_millis(500));
            println!(
                "{window:>3} outstanding: {:.3} Mpps, {:.1} us a round",
                rate / 1e6,
                1e6 * window as f64 / rate
            );
        });
    }
}

/// Who handles a veth's packets, and what each way is worth: the best of several rounds in turn.
#[test]
#[ignore = "a measurement of some 20 s, for a machine that does nothing else; it checks nothing"]
fn measure_who_drives_napi() {
    type Way = (&'static str, fn(&Pair));
    let ways: [Way; 3] = [
        ("the sender's softirq", |_| ()),
        ("a thread, pinned to its socket's core", Pair::thread_napi),
        ("a timer of 200 us", Pair::defer_interrupts),
    ];
    for rings in [256, 2048] {
        for window in [1, 64, 256] {
            let mut best = [0f64; 3];
            for _ in 0..5 {
                for ((_, prepare), best) in ways.iter().zip(&mut best) {
                    isolated(|pair| {
                        prepare(pair);
                        *best = best.max(rate(pair, rings, window, Duration::from_millis(250)));
                    });
                }
            }
            for ((name, _), rate) in ways.iter().zip(best) {
                let round_us = 1e6 * window as f64 / rate;
                println!(
                    "rings {rings:>4}, {window:>3} outstanding, {name}: {:.3} Mpps, {round_us:.1} us",
                    rate / 1e6
                );
            }
        }
    }
}

/// What a round costs over both ends, when one thread does all of it: time on the processor, so that other
/// load on the machine counts little.
#[test]
#[ignore = "a measurement; it checks nothing"]
fn measure_processor_time_of_a_round() {
    const ROUNDS: u64 = 400_000;
    for rings in [64, 256, 1024, 2048] {
        for burst in [1, 32, 64, 256].into_iter().filter(|&burst| burst <= u64::from(rings)) {
            isolated(|pair| {
                let side = |config| XskConfig { frames: 2 * rings, ring_entries: rings, ..config };
                let mut server = Steered::server(pair, &side(server_config()));
                pair.enter_peer();
                let mut peer = Steered::open(&side(peer_config()));
                let start = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                let mut received = 0;
                while received < ROUNDS {
                    let outcome = generate(&mut peer, burst, |seen| {
                        server.reflect();
                        seen.sent >= burst
                    });
                    received += outcome.received;
                }
                let end = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                let ns = (end.tv_sec - start.tv_sec) * 1_000_000_000 + end.tv_nsec - start.tv_nsec;
                println!("rings {rings:>4}, bursts of {burst:>3}: {} ns a round", ns as u64 / received);
            });
        }
    }
}
