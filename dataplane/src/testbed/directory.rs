//! A directory of this process under the system's temporary directory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::TestbedError;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory that goes with its guard.
#[derive(Debug)]
pub struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    /// Makes one.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the directory cannot be made.
    pub fn create() -> Result<Self, TestbedError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dp-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(TestbedError::io(format!("make the directory {}", path.display())))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // A directory that stays is litter, not an error: the run is over.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
