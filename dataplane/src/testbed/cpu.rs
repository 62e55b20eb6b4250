//! Pinning, and CPU time as the scheduler accounts it.

use rustix::process::Pid;
use rustix::thread::CpuSet;

use super::TestbedError;

/// Pins the calling thread to a core.
///
/// # Errors
/// [`TestbedError::Io`] when the machine has no such core or it is not ours to use.
pub fn pin_this_thread(core: usize) -> Result<(), TestbedError> {
    pin(None, core)
}

/// Pins a thread, or a process of one thread, to a core.
///
/// # Errors
/// As [`pin_this_thread`], or no such thread.
pub fn pin_thread(thread: u32, core: usize) -> Result<(), TestbedError> {
    pin(i32::try_from(thread).ok().and_then(Pid::from_raw), core)
}

fn pin(thread: Option<Pid>, core: usize) -> Result<(), TestbedError> {
    let mut cores = CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(thread, &cores)
        .map_err(|error| TestbedError::Io { what: format!("pin to core {core}"), source: error.into() })
}

/// Cores this process may use.
#[must_use]
pub fn usable_cores() -> Vec<usize> {
    let Ok(cores) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|&core| cores.is_set(core)).collect()
}

/// Cores the machine has switched on (`/sys/devices/system/cpu/online`); the kernel narrows an affinity to those a
/// process may use.
#[must_use]
pub fn online_cores() -> Vec<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_else(|_| "0".to_owned());
    let mut cores = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last.min(CpuSet::MAX_CPU - 1));
        }
    }
    cores
}

/// Nanoseconds on a CPU of a process, all its threads together: first field of `/proc/PID/task/TID/schedstat`
/// (Linux `Documentation/scheduler/sched-stats.rst`).
///
/// # Errors
/// [`TestbedError::Io`] when the process is gone.
pub fn run_time_ns(pid: u32) -> Result<u64, TestbedError> {
    let directory = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&directory).map_err(TestbedError::io(format!("read {directory}")))?;
    let mut total_ns = 0;
    for entry in entries.flatten() {
        // A thread that ended since the directory was read has taken its time with it.
        let path = entry.path().join("schedstat");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        total_ns += run_time_in(&text, &path.to_string_lossy())?;
    }
    Ok(total_ns)
}

/// Nanoseconds on a CPU of one thread of a process.
///
/// # Errors
/// [`TestbedError::Io`] when the thread is gone.
pub fn thread_run_time_ns(pid: u32, thread: u32) -> Result<u64, TestbedError> {
    let path = format!("/proc/{pid}/task/{thread}/schedstat");
    let text = std::fs::read_to_string(&path).map_err(TestbedError::io(format!("read {path}")))?;
    run_time_in(&text, &path)
}

/// Nanoseconds on a CPU of the calling thread.
///
/// # Errors
/// [`TestbedError::Io`] without procfs.
pub fn this_thread_run_time_ns() -> Result<u64, TestbedError> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).map_err(TestbedError::io(format!("read {path}")))?;
    run_time_in(&text, path)
}

/// Threads of a process that may run on `core` alone: its pinned workers.
///
/// # Errors
/// [`TestbedError::Io`] when the process is gone.
pub fn threads_pinned_to(pid: u32, core: usize) -> Result<Vec<u32>, TestbedError> {
    let directory = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&directory).map_err(TestbedError::io(format!("read {directory}")))?;
    let threads = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pinned = |&thread: &u32| {
        let pid = i32::try_from(thread).ok().and_then(Pid::from_raw);
        rustix::thread::sched_getaffinity(pid).is_ok_and(|cores| cores.count() == 1 && cores.is_set(core))
    };
    Ok(threads.filter(pinned).collect())
}

/// First field of a `schedstat`. One that cannot be read is an error: taken for 0 it would make a busy thread idle.
fn run_time_in(text: &str, path: &str) -> Result<u64, TestbedError> {
    text.split_whitespace().next().and_then(|field| field.parse().ok()).ok_or_else(|| TestbedError::Io {
        what: format!("read {path}, which says {text:?} (a kernel without CONFIG_SCHED_INFO?)"),
        source: std::io::ErrorKind::InvalidData.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedstat_that_cannot_be_read_is_no_idle_thread() {
        assert_eq!(run_time_in("123 4 5\n", "/proc/1/schedstat").expect("a number"), 123);
        let error = run_time_in("", "/proc/1/schedstat").expect_err("nothing there");
        assert!(error.to_string().contains("/proc/1/schedstat"), "{error}");
    }

    #[test]
    fn a_busy_thread_is_seen_to_run() {
        let before_ns = this_thread_run_time_ns().expect("schedstat");
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let ran_ns = this_thread_run_time_ns().expect("schedstat") - before_ns;
        assert!(ran_ns > 0, "20 ms of spinning counted as nothing");
        assert!(run_time_ns(std::process::id()).expect("schedstat") >= before_ns + ran_ns);
    }
}
