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
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dataplane_ebpf::layout::MAPS;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::MountFlags;

use super::{SteerError, kernel};

const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of Linux `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

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
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(SteerError::pin("making", path, source)),
        }
        let folder = Self::lock(path)?;
        if folder.path.join(LINK).exists() {
            return Err(SteerError::AlreadyLoaded { interface: interface.to_owned(), path: folder.path });
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
        if !path.is_dir() {
            return Err(not_loaded());
        }
        let folder = Self::lock(path)?;
        // It may have been unloaded between the two lines above.
        if folder.path.is_dir() { Ok(folder) } else { Err(not_loaded()) }
    }

    fn lock(path: PathBuf) -> Result<Self, SteerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|source| SteerError::pin("opening", &path, source.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(SteerError::Held { path }),
            Err(source) => Err(SteerError::pin("locking", path, source.into())),
        }
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
        fs::create_dir_all(place).map_err(|source| SteerError::pin("making", place, source))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
        rustix::mount::mount("bpf", place, "bpf", flags, Some(c"mode=0700"))
            .map_err(|source| SteerError::pin("mounting a bpffs at", place, source.into()))?;
        tracing::info!(path = %place.display(), "mounted a bpffs");
    }
    fs::create_dir_all(directory).map_err(|source| SteerError::pin("making", directory, source))
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
