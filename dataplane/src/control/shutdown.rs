//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after a second signal: the end was not orderly.
pub const EXIT_FORCED: i32 = 1;

/// The signals that end the daemon. From the moment this is made they no longer kill the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over; needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses the handlers.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal's name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for a further signal and then ends the process at once. The kernel detaches and frees everything that
    /// is not pinned.
    pub async fn force(mut self) {
        let signal = self.next().await;
        tracing::warn!(signal, "second signal: ending at once, without waiting for open requests");
        std::process::exit(EXIT_FORCED);
    }
}
