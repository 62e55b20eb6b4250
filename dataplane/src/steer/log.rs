//! The XDP program's own log: rare events, written by aya-log into a ring buffer and drained from there by the
//! control plane.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use dataplane_ebpf::layout;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::SteerError;
use super::object::object;
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
    /// Takes the log's map out of an object: the program's own, or one loaded around the pinned map. (aya-log also finds
    /// it by the program's number, but the kernel answers that to CAP_SYS_ADMIN alone.)
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, SteerError> {
        let mut logger = EbpfLogger::init(object).map_err(|error| SteerError::Log(error.to_string()))?;
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

/// An object around the log's map that is pinned at a path, since aya-log takes the map from nothing else.
pub(super) fn object_around(path: &Path) -> Result<Ebpf, SteerError> {
    // aya would make and pin a map where there is none, and that would be no program's log.
    if !path.exists() {
        return Err(SteerError::Incomplete { what: layout::LOG });
    }
    let mut object = EbpfLoader::new().map_pin_path(layout::LOG, path).load(&object()?)?;
    // The other maps of this object are nobody's.
    for &name in layout::MAPS.iter().filter(|&&name| name != layout::LOG) {
        drop(object.take_map(name));
    }
    Ok(object)
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
