//! The upper bound: frames turned round in place and sent back, with nothing in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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

/// A reflector on a thread pinned to a core, which sleeps when there is nothing to do.
#[derive(Debug)]
pub struct Reflector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
    thread_id: u32,
}

impl Reflector {
    /// Starts it.
    ///
    /// # Errors
    /// When the thread cannot be pinned.
    pub fn start<P, Q>(mut port: P, mut queue: Q, core: usize) -> Result<Self>
    where
        P: Port + Send + 'static,
        Q: QueueOwner + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let pinned = cpu::pin_this_thread(core);
            let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            // Whoever started this may have given up on it.
            let _ = sender.send(pinned.map(|()| id));
            let mut batch = FrameBatch::new();
            while !asked.load(Ordering::Relaxed) {
                if !reflect_once(&mut port, &mut queue, &mut batch)? {
                    wait_for(&port, Duration::from_millis(10))?;
                }
            }
            Ok(())
        });
        let thread_id = receiver.recv().map_err(|_| anyhow!("the reflector did not start"))??;
        Ok(Self { stop, thread: Some(thread), thread_id })
    }

    /// Its thread.
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// Ends it; what kept it from running to here, if anything did.
    ///
    /// # Errors
    /// What its port said.
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
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
