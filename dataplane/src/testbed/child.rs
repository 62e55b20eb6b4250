//! A child process that never outlives its guard, and whose output is at hand when it dies.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{TestbedError, wait_until};

/// Bytes of output kept of each stream: its end is what explains a death.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// A running child in a process group of its own, so that Ctrl-C at the terminal reaches its parent alone, which
/// then takes it down in order. Dropping the guard kills it.
#[derive(Debug)]
pub struct ChildGuard {
    name: String,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl ChildGuard {
    /// Starts it, with its output collected and no input.
    ///
    /// The kernel kills it when the *thread* that called this ends (`PR_SET_PDEATHSIG`), so that it goes even
    /// when this process is killed: call it from a thread that lives as long as the guard.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self, TestbedError> {
        // A service manager starts a daemon on every core; a caller that pinned itself must not pass that on.
        let mut every_core = rustix::thread::CpuSet::new();
        for core in super::cpu::online_cores() {
            every_core.set(core);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let prepare = move || {
            rustix::thread::sched_setaffinity(None, &every_core)?;
            Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
        };
        // SAFETY: the closure makes two system calls and neither allocates nor locks.
        unsafe { command.pre_exec(prepare) };
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(TestbedError::io(format!("start {name} ({program})")))?;
        let output = Arc::new(Mutex::new(String::new()));
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("it was piped"));
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("it was piped"));
        let collect = |stream: Box<dyn Read + Send>| {
            let output = Arc::clone(&output);
            std::thread::spawn(move || collect_lines(stream, &output))
        };
        let readers = vec![collect(stdout), collect(stderr)];
        Ok(Self { name: name.to_owned(), child, output, readers })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far on either stream, at most its last 256 KiB.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, TestbedError> {
        self.child.try_wait().map_err(TestbedError::io(format!("wait for {}", self.name)))
    }

    /// Waits for `condition` while the child lives.
    ///
    /// # Errors
    /// [`TestbedError::Died`] with its output when it ends first, [`TestbedError::Deadline`] after `limit`.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Option<T>, TestbedError>,
    ) -> Result<T, TestbedError> {
        let result = wait_until(what, limit, || {
            if let Some(status) = self.ended()? {
                return Err(self.death(status));
            }
            condition()
        });
        match result {
            Err(TestbedError::Deadline { what, waited, .. }) => {
                let detail = quoted(&self.name, &self.output()) + &threads_of(self.pid());
                Err(TestbedError::Deadline { what, waited, detail })
            }
            other => other,
        }
    }

    /// Waits until it has printed this.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<(), TestbedError> {
        let what = format!("{} printing {text:?}", self.name);
        let output = Arc::clone(&self.output);
        let printed = || output.lock().unwrap_or_else(PoisonError::into_inner).contains(text);
        self.wait_for(&what, limit, || Ok(printed().then_some(())))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when it is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), TestbedError> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        rustix::process::kill_process(pid, signal).map_err(|error| TestbedError::Io {
            what: format!("send {signal:?} to {}", self.name),
            source: error.into(),
        })
    }

    /// Asks it to end (SIGTERM) and waits; kills it after `limit`.
    ///
    /// # Errors
    /// [`TestbedError::Deadline`] when it had to be killed.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, TestbedError> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let ended = self.wait_for_end(limit);
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`TestbedError::Deadline`] with its output when it still runs after `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus, TestbedError> {
        // Not `wait_until`: an interrupted run, too, lets its children end in order.
        let start = Instant::now();
        while start.elapsed() <= limit {
            if let Some(status) = self.ended()? {
                self.join_readers();
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(TestbedError::Deadline {
            what: format!("{} ending", self.name),
            waited: limit,
            detail: quoted(&self.name, &self.output()) + &threads_of(self.pid()),
        })
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_readers();
    }

    fn death(&mut self, status: ExitStatus) -> TestbedError {
        self.join_readers();
        let output = quoted(&self.name, &self.output());
        TestbedError::Died { name: self.name.clone(), status: status.to_string(), output }
    }

    /// The streams end with the child, unless it left children of its own that hold them open.
    fn join_readers(&mut self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200)
            && !self.readers.iter().all(JoinHandle::is_finished)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.readers.retain(|reader| !reader.is_finished());
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // What it started is in its group and goes with it. An empty group is no error.
        if let Some(group) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        self.kill();
    }
}

fn collect_lines(stream: impl Read, output: &Mutex<String>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.push_str(&String::from_utf8_lossy(&line));
        if output.len() > OUTPUT_BYTES_MAX {
            let cut = output.len() - OUTPUT_BYTES_MAX / 2;
            let cut = (cut..output.len()).find(|&at| output.is_char_boundary(at)).unwrap_or(0);
            output.drain(..cut);
        }
        line.clear();
    }
}

fn quoted(name: &str, output: &str) -> String {
    if output.trim().is_empty() {
        return format!("; {name} printed nothing");
    }
    format!("; {name} said:\n{}", output.trim_end())
}

/// What each thread of a process that keeps its parent waiting is doing: name, state, and where in the kernel it
/// sleeps.
fn threads_of(pid: u32) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return String::new() };
    let threads = tasks.flatten().map(|task| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("unknown");
        let stack = read("stack").lines().map(str::trim).collect::<Vec<_>>().join(" < ");
        format!("\n  {}: {}; {stack}", read("comm").trim(), state.trim())
    });
    format!("\nits threads:{}", threads.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_comes_with_its_last_words() {
        let mut child =
            ChildGuard::spawn("the child", Command::new("sh").args(["-c", "echo no such disk >&2; exit 3"]))
                .expect("started");
        let error = child
            .wait_for("readiness", Duration::from_secs(5), || Ok(None::<()>))
            .expect_err("it never gets ready");
        let text = error.to_string();
        assert!(text.contains("no such disk") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_child_goes_with_its_guard() {
        let child = ChildGuard::spawn("sleep", Command::new("sleep").arg("600")).expect("started");
        let path = format!("/proc/{}", child.pid());
        assert!(std::path::Path::new(&path).exists());
        drop(child);
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    fn what_a_child_started_goes_with_its_guard() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let mut child = ChildGuard::spawn("sh", &mut command).expect("started");
        let output = Arc::clone(&child.output);
        let grandchild: u32 = child
            .wait_for("its child", Duration::from_secs(5), || {
                Ok(output.lock().expect("whole").trim().parse().ok())
            })
            .expect("it says which");
        drop(child);
        // It is not ours to reap: whoever adopted it does, and until then it is a zombie.
        wait_until("the end of the child's child", Duration::from_secs(5), || {
            let status = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
            Ok(status.map_or(Some(()), |status| status.contains(") Z ").then_some(())))
        })
        .expect("it is gone");
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed_and_told_on() {
        let mut child = ChildGuard::spawn(
            "stubborn",
            Command::new("sh").args(["-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"]),
        )
        .expect("started");
        let output = Arc::clone(&child.output);
        child
            .wait_for("the trap", Duration::from_secs(5), || {
                Ok(output.lock().expect("whole").contains("up").then_some(()))
            })
            .expect("it says so");
        let error = child.terminate(Duration::from_millis(100)).expect_err("it ignores SIGTERM");
        assert!(matches!(error, TestbedError::Deadline { .. }), "{error}");
        assert!(error.to_string().contains("its threads:\n  sh: "), "{error}");
        assert!(child.ended().expect("known").is_some());
    }
}
