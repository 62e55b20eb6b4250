//! Keeps cores awake between requests. A core with nothing to do halts, and on a virtual machine waking it costs tens
//! of microseconds, which would hide what is compared. An operator who cares boots with `idle=poll`; where that was
//! not done, a thread of the lowest scheduling class (`SCHED_IDLE`, sched(7)) spins on each core: it gives way to
//! everything else at once, and its time is nobody's in the figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, ensure};
use dataplane::testbed::cpu;

/// Threads that keep cores awake until this is dropped.
#[derive(Debug)]
pub(super) struct Awake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Keeps these cores awake.
    pub(super) fn keep(cores: &[usize]) -> Result<Self> {
        let mut awake = Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for &core in cores {
            let stop = Arc::clone(&awake.stop);
            let (sender, receiver) = std::sync::mpsc::channel();
            awake.threads.push(std::thread::spawn(move || {
                let ready = cpu::pin_this_thread(core).map_err(anyhow::Error::from).and_then(|()| give_way());
                let spin = ready.is_ok();
                // Whoever started this may have given up on it.
                let _ = sender.send(ready);
                while spin && !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }));
            receiver.recv().map_err(|_| anyhow!("a thread that keeps core {core} awake did not start"))??;
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of a thread that only spins has been printed already.
            let _ = thread.join();
        }
    }
}

/// Puts the calling thread into the lowest scheduling class.
fn give_way() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; `parameters` lives during the call, which only reads it.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    ensure!(result == 0, "cannot enter SCHED_IDLE: {}", std::io::Error::last_os_error());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_start_and_end() {
        let cores = cpu::usable_cores();
        let awake = Awake::keep(&cores[..1]).expect("started");
        assert_eq!(awake.threads.len(), 1);
        drop(awake);
    }
}
