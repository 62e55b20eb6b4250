//! A network namespace that goes with its guard, and running things inside it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::LinkNameSpaceType;

use super::TestbedError;

/// Where iproute2 keeps its namespaces.
const NAMESPACE_DIRECTORY: &str = "/run/netns";
/// What every name starts with; the process id follows.
const PREFIX: &str = "dp-";
/// Where bpffs is mounted.
const BPFFS: &CStr = c"/sys/fs/bpf";

/// How often an `ip` that was killed is started again; each Ctrl-C kills one at most.
const IP_KILLED_MAX: u32 = 2;

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A network namespace, as `ip netns` knows it, with its loopback up. Dropping it deletes it with all that is in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes one; `label` is for those who look at `ip netns`.
    ///
    /// # Errors
    /// [`TestbedError::Missing`] without root or iproute2, [`TestbedError::Command`] when `ip` fails.
    pub fn create(label: &str) -> Result<Self, TestbedError> {
        super::requirements::check_namespaces()?;
        SWEEP.call_once(sweep);
        mount_bpffs()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{label}{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let path = Path::new(NAMESPACE_DIRECTORY).join(&name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => {
                let _ = ip(&["netns", "del", &name]);
                return Err(TestbedError::Io { what: format!("open {}", path.display()), source });
            }
        };
        let namespace = Self { name, file };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME ARGUMENTS...`.
    ///
    /// # Errors
    /// [`TestbedError::Command`] with what `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String, TestbedError> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(arguments);
        ip(&all)
    }

    /// Many `ip` commands at once, one a line.
    ///
    /// # Errors
    /// [`TestbedError::Command`] with what `ip` said of the first that failed.
    pub fn ip_batch(&self, lines: &str) -> Result<(), TestbedError> {
        ip_with_input(&["-n", &self.name, "-batch", "-"], lines).map(|_| ())
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets it makes stay in the namespace wherever
    /// they are used afterwards. The mounts are the host's: `/sys/class/net` still shows the host's interfaces.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the namespace cannot be entered.
    ///
    /// # Panics
    /// With the panic of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, TestbedError> {
        let enter = || {
            rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| TestbedError::Io {
                    what: format!("enter the namespace {}", self.name),
                    source: error.into(),
                })?;
            Ok(work())
        };
        std::thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A command that will run inside the namespace, with a `/sys` that shows the namespace's interfaces and the
    /// host's bpffs.
    ///
    /// The child is told to die with the thread that spawns it: spawn it from one that lives as long as it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(0);
        let namespace = self.file.as_raw_fd();
        // SAFETY: `enter_for_child` makes system calls only (no allocation, no lock), as a child of a process
        // with threads must. The descriptor stays open while `self` lives; were it closed, setns would fail.
        unsafe { command.pre_exec(move || enter_for_child(namespace)) };
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("the namespace {} stays behind: {error}", self.name);
        }
    }
}

/// Runs between fork and exec: system calls only.
fn enter_for_child(namespace: RawFd) -> std::io::Result<()> {
    // SAFETY: the caller of `enter_for_child` keeps the descriptor open until the fork, and the fork copied it.
    let namespace = unsafe { std::os::fd::BorrowedFd::borrow_raw(namespace) };
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    // SAFETY: only the mount namespace is left, which no Rust value depends on.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    rustix::mount::mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // The new /sys hides what is mounted below the old one: bpffs is carried over by a detached copy of it.
    let bpffs = open_tree(BPFFS);
    rustix::mount::mount(c"sysfs", c"/sys", c"sysfs", MountFlags::empty(), None::<&CStr>)?;
    if let Ok(bpffs) = bpffs {
        move_tree(&bpffs, BPFFS)?;
    }
    Ok(())
}

/// A detached copy of a mount (`open_tree(2)`).
fn open_tree(path: &CStr) -> std::io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string; the call has no other pointer.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let descriptor = RawFd::try_from(result).ok().filter(|&descriptor| descriptor >= 0);
    let Some(descriptor) = descriptor else { return Err(std::io::Error::last_os_error()) };
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Attaches a detached mount at `path` (`move_mount(2)`).
fn move_tree(tree: &OwnedFd, path: &CStr) -> std::io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    // SAFETY: both paths are C strings, and the descriptor is open; the call has no other pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Mounts bpffs where every distribution has it, so that what a child pins is seen by the next one.
fn mount_bpffs() -> Result<(), TestbedError> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let failed = |error: rustix::io::Errno| TestbedError::Io {
        what: "mount bpffs on /sys/fs/bpf".to_owned(),
        source: error.into(),
    };
    let found = rustix::fs::statfs(BPFFS).map_err(failed)?;
    if u64::try_from(found.f_type).is_ok_and(|kind| kind == BPF_FS_MAGIC) {
        return Ok(());
    }
    rustix::mount::mount(c"bpf", BPFFS, c"bpf", MountFlags::empty(), None::<&CStr>).map_err(failed)
}

/// Runs `ip`.
fn ip(arguments: &[&str]) -> Result<String, TestbedError> {
    ip_with_input(arguments, "")
}

/// Runs `ip` in a process group of its own: a Ctrl-C at the terminal is for the program that uses this, which lets
/// what it has begun come to its end and then takes it away.
fn ip_with_input(arguments: &[&str], input: &str) -> Result<String, TestbedError> {
    let mut killed = 0;
    loop {
        let mut command = Command::new("ip");
        command.args(arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(TestbedError::io("start `ip` (package iproute2)"))?;
        let mut stdin = child.stdin.take().expect("standard input was piped");
        // One that failed before it has read everything says why by itself.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(TestbedError::io("wait for `ip`"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        // A child is in our group until it has left it, and a signal of that moment kills it before it becomes `ip`.
        if output.status.signal().is_some() && killed < IP_KILLED_MAX {
            killed += 1;
            continue;
        }
        return Err(TestbedError::Command {
            command: format!("ip {}", arguments.join(" ")),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
}

/// Deletes the namespaces of runs that are dead.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(NAMESPACE_DIRECTORY) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = owner_of(&name) else { continue };
        if !PathBuf::from(format!("/proc/{owner}")).exists() {
            // Somebody else's sweep may have been quicker.
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// Process id in the name of one of our namespaces.
fn owner_of(name: &str) -> Option<u32> {
    let (owner, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    owner.parse().ok()
}

/// An interface name as the kernel's C interfaces want it.
pub(crate) fn interface_c_string(interface: &str) -> Result<CString, TestbedError> {
    let valid = !interface.is_empty() && interface.len() < libc::IFNAMSIZ;
    CString::new(interface).ok().filter(|_| valid).ok_or_else(|| TestbedError::Io {
        what: format!("use the interface name {interface:?}"),
        source: std::io::ErrorKind::InvalidInput.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_process_id_are_ours_to_sweep() {
        assert_eq!(owner_of("dp-123-server0"), Some(123));
        assert_eq!(owner_of("dp-server"), None);
        assert_eq!(owner_of("dp-x-server0"), None);
        assert_eq!(owner_of("customer-1-a"), None);
    }

    #[test]
    fn threads_and_children_see_the_namespace_and_the_host_does_not() {
        let namespace = Namespace::create("t").expect("root and iproute2");
        namespace.ip(&["link", "add", "probe0", "type", "veth", "peer", "name", "probe1"]).expect("veth");
        let inside = namespace
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("procfs"))
            .expect("entered");
        assert!(inside.contains("probe0"), "{inside}");
        let host = std::fs::read_to_string("/proc/thread-self/net/dev").expect("procfs");
        assert!(!host.contains("probe0"));
        let output = namespace.command("ls").arg("/sys/class/net").output().expect("ls runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains("probe0"), "{output:?}");
        let output =
            namespace.command("stat").args(["-f", "-c", "%T", "/sys/fs/bpf"]).output().expect("stat");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "bpf_fs", "{output:?}");
    }

    #[test]
    fn a_dropped_namespace_is_gone_and_what_a_dead_run_left_is_swept() {
        let namespace = Namespace::create("t").expect("root and iproute2");
        let path = Path::new(NAMESPACE_DIRECTORY).join(namespace.name());
        assert!(path.exists());
        drop(namespace);
        assert!(!path.exists());

        // Process ids end at 4 194 304 (PID_MAX_LIMIT), so this owner is never alive.
        let stale = "dp-4194305-t0";
        ip(&["netns", "add", stale]).expect("added");
        sweep();
        assert!(!Path::new(NAMESPACE_DIRECTORY).join(stale).exists());
    }
}
