//! The XDP program's own log: rare events, written by aya-log into a ring buffer and drained from there by the
//! control plane.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::SteerError;
use crate::config::SteerLogLevel;

impl SteerLogLevel {
    /// The number the program compares with.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Error => 1,
            Self::Warn => 2,
            Self::Info => 3,
            Self::Debug => 4,
        }
    }
}

/// The reading end of the log. One reader takes the records; two would share them.
pub struct ProgramLog {
    /// Readable when there are records.
    ring: OwnedFd,
    flush: Box<dyn FnMut() + Send>,
}

impl ProgramLog {
    pub(super) fn open(program_id: u32) -> Result<Self, SteerError> {
        let mut logger =
            EbpfLogger::init_from_id(program_id).map_err(|error| SteerError::Log(error.to_string()))?;
        let ring = logger
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| SteerError::kernel("duplicating the log's descriptor", source))?;
        Ok(Self { ring, flush: Box::new(move || logger.flush()) })
    }

    /// Hands every record there is to the `log` crate's logger, which `tracing-subscriber`'s `init` has made
    /// `tracing`'s. That must be in place before the log is taken from [`Steer`](super::Steer).
    pub fn drain(&mut self) {
        (self.flush)();
    }

    /// Drains the log for as long as it is polled: a task of the control plane.
    ///
    /// # Errors
    /// When the runtime cannot wait for the ring buffer.
    pub async fn follow(self) -> std::io::Result<()> {
        let Self { ring, mut flush } = self;
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and lives in here.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        loop {
            flush();
            ring.readable().await?.clear_ready();
        }
    }
}

impl std::fmt::Debug for ProgramLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ProgramLog").field("ring", &self.ring).finish_non_exhaustive()
    }
}

impl AsFd for ProgramLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
