//! Threaded NAPI: on veth the sender's CPU otherwise runs the receiver's packet processing, so that the cost of
//! one side shows up on the other side's core.

use rustix::process::Pid;
use rustix::thread::CpuSet;

use super::{Namespace, TestbedError, wait_until};

/// How long the kernel may take to start its threads.
const START_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Moves the NAPI of an interface to kernel threads of its own and pins them to `core`. The interface needs to
/// be up and to have a NAPI: an XDP program, or [`Offload::GenericReceive`](super::ethtool::Offload). Returns the
/// threads' process ids, for [`cpu::run_time_ns`](super::cpu::run_time_ns).
///
/// # Errors
/// [`TestbedError`] when the kernel has no threaded NAPI for it, or no thread appears.
pub fn pin_threads(namespace: &Namespace, interface: &str, core: usize) -> Result<Vec<u32>, TestbedError> {
    set_threaded(namespace, interface, true)?;
    let prefix = format!("napi/{interface}-");
    let threads = wait_until(&format!("a kernel thread {prefix}*"), START_LIMIT, || {
        let found = kernel_threads(&prefix);
        Ok((!found.is_empty()).then_some(found))
    })?;
    let mut cores = CpuSet::new();
    cores.set(core);
    for &thread in &threads {
        let pid = i32::try_from(thread).ok().and_then(Pid::from_raw);
        rustix::thread::sched_setaffinity(pid, &cores).map_err(|error| TestbedError::Io {
            what: format!("pin the kernel thread {thread} of {interface} to core {core}"),
            source: error.into(),
        })?;
    }
    Ok(threads)
}

/// Leaves the NAPI of an interface to whoever sends to it: its core runs it within the sending system call.
///
/// # Errors
/// [`TestbedError`] when the kernel refuses.
pub fn leave_to_sender(namespace: &Namespace, interface: &str) -> Result<(), TestbedError> {
    set_threaded(namespace, interface, false)
}

fn set_threaded(namespace: &Namespace, interface: &str, threaded: bool) -> Result<(), TestbedError> {
    let path = format!("/sys/class/net/{interface}/threaded");
    let script = format!("echo {} > {path}", u8::from(threaded));
    let output = namespace
        .command("sh")
        .args(["-c", &script])
        .output()
        .map_err(TestbedError::io(format!("write {path}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(TestbedError::Command {
        command: script,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Kernel threads whose name starts with `prefix`. Names are cut to 15 bytes only for user threads; for kernel
/// threads `/proc/PID/comm` has the whole.
fn kernel_threads(prefix: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(prefix))
        })
        .collect()
}
