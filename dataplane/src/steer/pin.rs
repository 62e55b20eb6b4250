//! What is pinned under a bpffs: one folder an interface, with the link, the program and the maps in it.
//!
//! ```text
//! /sys/fs/bpf/dataplane/eth1/link
//!                            program
//!                            SETTINGS SERVICES SOURCES ...
//! ```
//!
//! The folder is the lock: whoever holds what is pinned has it locked (`flock`), so that no stale lock file is left.

use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dataplane_ebpf::layout::MAPS;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::MountFlags;

use super::{SteerError, kernel};

const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of Linux `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// How long a lock may be somebody else's before it counts as held.
const LOCK_WAIT: Duration = Duration::from_millis(100);
/// Time between two attempts.
const LOCK_RETRY: Duration = Duration::from_millis(5);

const LINK: &str = "link";
const PROGRAM: &str = "program";

/// The folder of one interface. The lock goes with it.
#[derive(Debug)]
pub(super) struct PinFolder {
    path: PathBuf,
    /// Holds the lock as long as it is open.
    _lock: OwnedFd,
}

impl PinFolder {
    /// Makes the folder, and mounts a bpffs where there is none.
    pub(super) fn create(directory: &Path, interface: &str) -> Result<Self, SteerError> {
        let path = folder_path(directory, interface)?;
        ensure_bpffs(directory)?;
        make_if_missing(&path)?;
        // Whoever removed it in between held its lock: then it is made again.
        let folder = loop {
            match Self::lock(path.clone())? {
                Some(folder) => break folder,
                None => make_if_missing(&path)?,
            }
        };
        if folder.path.join(LINK).exists() {
            let (interface, directory) = (interface.to_owned(), directory.to_owned());
            return Err(SteerError::AlreadyLoaded { interface, directory });
        }
        // Leftovers of a load that was cut off.
        folder.clear()?;
        Ok(folder)
    }

    /// Opens the folder of what was pinned.
    pub(super) fn open(directory: &Path, interface: &str) -> Result<Self, SteerError> {
        let path = folder_path(directory, interface)?;
        let not_loaded =
            || SteerError::NotLoaded { interface: interface.to_owned(), directory: directory.to_owned() };
        Self::lock(path)?.ok_or_else(not_loaded)
    }

    /// Locks a folder; `None` when there is none, or no longer the one that was locked.
    fn lock(path: PathBuf) -> Result<Option<Self>, SteerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(lock) => lock,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(source) => return Err(SteerError::pin("opening", path, source.into())),
        };
        let start = Instant::now();
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // `steer status` looks whether it is held by holding it for a moment itself.
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(SteerError::Held { path }),
                Err(source) => return Err(SteerError::pin("locking", path, source.into())),
            }
        }
        // It may have been removed, and made anew, between opening and locking.
        let locked =
            rustix::fs::fstat(&lock).map_err(|source| SteerError::pin("looking at", &path, source.into()))?;
        let there = match rustix::fs::stat(&path) {
            Ok(there) => there,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(source) => return Err(SteerError::pin("looking at", path, source.into())),
        };
        let same = (locked.st_dev, locked.st_ino) == (there.st_dev, there.st_ino);
        Ok(same.then_some(Self { path, _lock: lock }))
    }

    /// Pins another link in the place of the one that is pinned, which no longer attaches anything.
    pub(super) fn replace_link(&self, link: BorrowedFd<'_>) -> Result<(), SteerError> {
        let path = self.link_path();
        remove_if_there(&path)?;
        kernel::pin(link, &path).map_err(|source| SteerError::pin("pinning", path, source))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn map_path(&self, map: &str) -> PathBuf {
        self.path.join(map)
    }

    pub(super) fn link_path(&self) -> PathBuf {
        self.path.join(LINK)
    }

    pub(super) fn program_path(&self) -> PathBuf {
        self.path.join(PROGRAM)
    }

    /// Opens a pinned object; `None` when there is none.
    pub(super) fn open_object(&self, path: &Path) -> Result<Option<OwnedFd>, SteerError> {
        match kernel::open_pinned(path) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SteerError::pin("opening", path, source)),
        }
    }

    /// Removes every pin. The link goes first: from then on nothing is attached, whatever else fails.
    pub(super) fn clear(&self) -> Result<(), SteerError> {
        for name in [LINK, PROGRAM].iter().chain(MAPS) {
            remove_if_there(&self.path.join(name))?;
        }
        // Maps of another layout version.
        let entries =
            fs::read_dir(&self.path).map_err(|source| SteerError::pin("reading", &self.path, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| SteerError::pin("reading", &self.path, source))?;
            remove_if_there(&entry.path())?;
        }
        Ok(())
    }

    /// Removes the pins and the folder.
    pub(super) fn remove(self) -> Result<(), SteerError> {
        self.clear()?;
        fs::remove_dir(&self.path).map_err(|source| SteerError::pin("removing", &self.path, source))
    }
}

/// Interfaces with something pinned, and whether somebody holds it.
pub(super) fn pinned(directory: &Path) -> Result<Vec<(String, PathBuf, bool)>, SteerError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SteerError::pin("reading", directory, source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| SteerError::pin("reading", directory, source))?;
        let path = entry.path();
        if !path.join(LINK).exists() {
            continue;
        }
        let held = File::open(&path).is_ok_and(|folder| {
            rustix::fs::flock(&folder, FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        });
        found.push((entry.file_name().to_string_lossy().into_owned(), path, held));
    }
    found.sort();
    Ok(found)
}

fn make_if_missing(path: &Path) -> Result<(), SteerError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(SteerError::pin("making", path, source)),
    }
}

fn remove_if_there(path: &Path) -> Result<(), SteerError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SteerError::pin("removing", path, source)),
    }
}

fn folder_path(directory: &Path, interface: &str) -> Result<PathBuf, SteerError> {
    // What the kernel takes for a name (`dev_valid_name`), so that none leads out of the directory.
    let valid = !interface.is_empty()
        && interface.len() < libc::IFNAMSIZ
        && interface != "."
        && interface != ".."
        && !interface
            .contains(|character: char| character == '/' || character == ':' || character.is_whitespace());
    if valid {
        Ok(directory.join(interface))
    } else {
        Err(SteerError::BadName { interface: interface.to_owned() })
    }
}

/// Makes the directory on a bpffs. Where there is none, one is mounted: at its usual place when the directory lies
/// below that, else at the directory itself.
fn ensure_bpffs(directory: &Path) -> Result<(), SteerError> {
    if !is_on_bpffs(directory)? {
        let usual = Path::new(BPFFS);
        let place = if directory.starts_with(usual) { usual } else { directory };
        // What is mounted there goes with the mount namespace: with the command itself under `ip netns exec`, which
        // has a /sys of its own.
        if place.starts_with("/sys") && is_mount_namespace_private() {
            return Err(SteerError::PrivateMount { directory: directory.to_owned() });
        }
        fs::create_dir_all(place).map_err(|source| SteerError::pin("making", place, source))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
        rustix::mount::mount("bpf", place, "bpf", flags, Some(c"mode=0700"))
            .map_err(|source| SteerError::pin("mounting a bpffs at", place, source.into()))?;
        tracing::info!(path = %place.display(), "mounted a bpffs");
    }
    fs::create_dir_all(directory).map_err(|source| SteerError::pin("making", directory, source))
}

/// True when this thread sees other mounts than one of the processes that led to it, up to the host's first. False
/// where that cannot be told.
fn is_mount_namespace_private() -> bool {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let Some(ours) = of("thread-self") else { return false };
    let parent = |process: &str| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
        // The first process has none, and where a PID namespace begins its first is the last to be seen.
        (parent != "0").then_some(parent)
    };
    // A parent that ended leaves its children to another one, which ends this walk sooner or later.
    std::iter::successors(parent("self"), |process| parent(process))
        .filter_map(|process| of(&process))
        .any(|theirs| theirs != ours)
}

/// True when the directory, or the nearest one above it that exists, lies on a bpffs.
fn is_on_bpffs(directory: &Path) -> Result<bool, SteerError> {
    for place in directory.ancestors().filter(|place| !place.as_os_str().is_empty()) {
        match rustix::fs::statfs(place) {
            Ok(status) => return Ok(u64::try_from(status.f_type) == Ok(BPF_FS_MAGIC)),
            Err(rustix::io::Errno::NOENT) => {}
            Err(source) => return Err(SteerError::pin("looking at", place, source.into())),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_interface_name_leads_out_of_the_directory() {
        let directory = Path::new("/sys/fs/bpf/dataplane");
        for bad in ["", ".", "..", "../x", "a/b", "a b", "a:1", "sixteen-letters-"] {
            assert!(matches!(folder_path(directory, bad), Err(SteerError::BadName { .. })), "{bad:?}");
        }
        assert_eq!(folder_path(directory, "eth1").expect("a name"), directory.join("eth1"));
    }
}
