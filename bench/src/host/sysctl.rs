//! A setting of the host's kernel, changed for a while: memcached gets what a careful operator would give it. What was
//! there is put back when the guard goes; two runs at once do not change it under each other.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

/// Where the kernel has them.
const DIRECTORY: &str = "/proc/sys/net/core";

/// One setting that was changed. Dropping it restores the old value.
#[derive(Debug)]
pub(crate) struct Sysctl {
    path: PathBuf,
    before: String,
    /// Locked (`flock(2)`) while it is changed.
    _lock: File,
}

impl Sysctl {
    /// Sets `net.core.NAME`.
    ///
    /// # Errors
    /// In words, when this kernel has no such setting, it may not be written, or another run has changed it.
    pub(crate) fn set(name: &str, value: u64) -> Result<Self, String> {
        let path = PathBuf::from(DIRECTORY).join(name);
        let told = |error: io::Error| format!("net.core.{name}: {error}");
        let lock = File::open(&path).map_err(told)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("net.core.{name}: another run has changed it"))?;
        let before = std::fs::read_to_string(&path).map_err(told)?;
        std::fs::write(&path, value.to_string()).map_err(told)?;
        Ok(Self { path, before, _lock: lock })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.path, &self.before) {
            eprintln!("{} could not be set back to {}: {error}", self.path.display(), self.before.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_comes_back_and_two_do_not_mix() {
        let path = format!("{DIRECTORY}/rmem_default");
        let Ok(before) = std::fs::read_to_string(&path) else { panic!("this kernel has no {path}") };
        let value: u64 = before.trim().parse().expect("a number");
        // Another test's run may have it at the moment; its end is a matter of seconds.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let changed = loop {
            match Sysctl::set("rmem_default", value + 4096) {
                Ok(changed) => break changed,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(std::fs::read_to_string(&path).expect("there").trim(), (value + 4096).to_string());
        Sysctl::set("rmem_default", 1).expect_err("it is taken");
        drop(changed);
        Sysctl::set("no_such_setting", 1).expect_err("there is none");
    }
}
