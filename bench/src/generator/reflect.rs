//! The upper bound: frames turned round in place and sent back, with nothing in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use dataplane::port::{FrameBatch, Port, QueueOwner};
use dataplane::testbed::cpu;

use super::flow::turn_round;
use super::wait_for;

/// One poll: takes what is there, turns it round, sends it. False when there was nothing.
///
/// # Errors
/// When the port fails.
pub fn reflect_once(
    port: &mut impl Port,
    queue: &mut impl QueueOwner,
    batch: &mut FrameBatch,
) -> Result<bool> {
    queue.poll().context("the reflector's queue")?;
    port.receive(batch).context("the reflector's port")?;
    let busy = !batch.is_empty();
    for mut frame in batch.drain(..) {
        if !turn_round(port.umem().packet_mut(&mut frame)) {
            port.release(frame);
        } else if let Err(frame) = port.transmit(frame) {
            port.release(frame);
        }
    }
    port.flush().context("the reflector's port")?;
    Ok(busy)
}

/// A reflector on a thread pinned to a core, which polls for a while without work before it sleeps.
#[derive(Debug)]
pub struct Reflector {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
    thread_id: u32,
}

/// What its thread and its owner see.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Nanoseconds of polling that found nothing.
    spun_ns: AtomicU64,
}

impl Reflector {
    /// Starts it. `spin` is how long it polls without work before it sleeps, as a worker's `spin_us` is.
    ///
    /// # Errors
    /// When the thread cannot be pinned.
    pub fn start<P, Q>(mut port: P, mut queue: Q, core: usize, spin: Duration) -> Result<Self>
    where
        P: Port + Send + 'static,
        Q: QueueOwner + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let pinned = cpu::pin_this_thread(core);
            let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            // Whoever started this may have given up on it.
            let _ = sender.send(pinned.map(|()| id));
            let mut batch = FrameBatch::new();
            let mut idle = IdleTime::new(spin);
            while !seen.stop.load(Ordering::Relaxed) {
                if reflect_once(&mut port, &mut queue, &mut batch)? {
                    idle.end(&seen.spun_ns);
                } else if idle.has_spun() {
                    idle.rest(&seen.spun_ns);
                    wait_for(&port, Duration::from_millis(10))?;
                } else {
                    std::hint::spin_loop();
                }
            }
            Ok(())
        });
        let thread_id = receiver.recv().map_err(|_| anyhow!("the reflector did not start"))??;
        Ok(Self { shared, thread: Some(thread), thread_id })
    }

    /// Its thread.
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// Nanoseconds it has polled without finding anything.
    #[must_use]
    pub fn spun_ns(&self) -> u64 {
        self.shared.spun_ns.load(Ordering::Relaxed)
    }

    /// Ends it; what kept it from running to here, if anything did.
    ///
    /// # Errors
    /// What its port said.
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the reflector panicked"))?
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            eprintln!("{error:#}");
        }
    }
}

/// How long it has been polling without work. Without spinning it reads no clock.
struct IdleTime {
    spin: Duration,
    since: Option<Instant>,
    last: Option<Instant>,
    /// It has slept since there was work: what woke it is polled for once, and spun for anew only when there was
    /// something, as the daemon's worker does.
    rested: bool,
}

impl IdleTime {
    const fn new(spin: Duration) -> Self {
        Self { spin, since: None, last: None, rested: false }
    }

    /// A poll found nothing: true when it is time to sleep.
    fn has_spun(&mut self) -> bool {
        if self.rested || self.spin.is_zero() {
            return true;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        self.last = Some(now);
        now - since >= self.spin
    }

    /// It goes to sleep.
    fn rest(&mut self, spun_ns: &AtomicU64) {
        self.end(spun_ns);
        self.rested = true;
    }

    /// A poll found work.
    fn end(&mut self, spun_ns: &AtomicU64) {
        if let (Some(since), Some(last)) = (self.since.take(), self.last.take()) {
            spun_ns.fetch_add((last - since).as_nanos() as u64, Ordering::Relaxed);
        }
        self.rested = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_spins_as_long_as_it_was_told_and_once_only_until_there_is_work() {
        let spun_ns = AtomicU64::new(0);
        let mut idle = IdleTime::new(Duration::from_millis(2));
        let start = Instant::now();
        while !idle.has_spun() {}
        assert!(start.elapsed() >= Duration::from_millis(2));
        idle.rest(&spun_ns);
        let spun = spun_ns.load(Ordering::Relaxed);
        assert!(spun >= 2_000_000, "{spun}");
        assert!(idle.has_spun(), "woken for nothing, it sleeps at once");
        idle.end(&spun_ns);
        assert!(!idle.has_spun(), "after work it spins anew");
        assert!(IdleTime::new(Duration::ZERO).has_spun());
    }
}
