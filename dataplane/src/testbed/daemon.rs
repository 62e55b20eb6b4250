//! The daemon in a namespace: started with a configuration, waited for, asked, ended.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use super::{ChildGuard, Namespace, TemporaryDirectory, TestbedError, wait_until};
use crate::control::status::StatusReport;

/// Where the test bed's configurations have the admin API: the namespace's own loopback.
pub const ADMIN: &str = "127.0.0.1:9190";
/// How long a start may take: a large arena has to be faulted in, and a busy virtual machine gets its memory
/// slowly (seconds a GiB, where a bare host takes a fifth of one).
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long an ordered end may take.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to stand still.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// How long the admin API may take to answer.
const ADMIN_LIMIT: Duration = Duration::from_secs(2);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: ChildGuard,
    admin: SocketAddr,
    _directory: Option<TemporaryDirectory>,
}

impl Daemon {
    /// Starts `binary` in `namespace` with this configuration (TOML, whose `daemon.admin` is [`ADMIN`]) and
    /// waits until it says it is ready.
    ///
    /// # Errors
    /// [`TestbedError::Died`] with the daemon's own words, or [`TestbedError::Deadline`].
    pub fn start(namespace: &Namespace, binary: &Path, config: &str) -> Result<Self, TestbedError> {
        Self::spawn(namespace, binary, config)?.ready(namespace)
    }

    /// Starts it by a command of one's own, whose admin API is at [`ADMIN`], and waits until it says it is ready.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_by(namespace: &Namespace, command: &mut Command) -> Result<Self, TestbedError> {
        Self::spawn_by(command, None)?.ready(namespace)
    }

    fn ready(mut self, namespace: &Namespace) -> Result<Self, TestbedError> {
        let admin = self.admin;
        self.child.wait_for("the daemon getting ready", READY_LIMIT, || {
            // Until it listens, a refused connection is what is expected.
            let status = namespace.run(|| get_status(admin))?;
            Ok(status.ok().filter(|status| status.ready).map(|_| ()))
        })?;
        Ok(self)
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when it cannot be started.
    pub fn spawn(namespace: &Namespace, binary: &Path, config: &str) -> Result<Self, TestbedError> {
        let directory = TemporaryDirectory::create()?;
        let path = directory.path().join("dataplane.toml");
        std::fs::write(&path, config).map_err(TestbedError::io(format!("write {}", path.display())))?;
        let mut command = namespace.command(binary);
        command.arg("run").arg("--config").arg(&path);
        Self::spawn_by(&mut command, Some(directory))
    }

    fn spawn_by(command: &mut Command, directory: Option<TemporaryDirectory>) -> Result<Self, TestbedError> {
        let child = ChildGuard::spawn("the daemon", command)?;
        let admin = ADMIN.parse().expect("an address and port");
        Ok(Self { child, admin, _directory: directory })
    }

    /// What it says of itself (`GET /status`).
    ///
    /// # Errors
    /// [`TestbedError::Died`] when it is gone, [`TestbedError::Io`] when it does not answer.
    pub fn status(&mut self, namespace: &Namespace) -> Result<StatusReport, TestbedError> {
        let admin = self.admin;
        match namespace.run(|| get_status(admin))? {
            Ok(status) => Ok(status),
            Err(error) => {
                // A dead daemon's last words say more than a refused connection.
                self.child.wait_for("the daemon's state", Duration::ZERO, || Ok(Some(())))?;
                Err(error)
            }
        }
    }

    /// The process.
    #[must_use]
    pub fn child(&mut self) -> &mut ChildGuard {
        &mut self.child
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// [`TestbedError::Deadline`] when it had to be killed, [`TestbedError::Died`] when it did not end with 0.
    pub fn stop(mut self) -> Result<ExitStatus, TestbedError> {
        let status = self.child.terminate(END_LIMIT)?;
        if status.success() {
            return Ok(status);
        }
        let output = format!("; it said:\n{}", self.child.output());
        Err(TestbedError::Died { name: "the daemon".to_owned(), status: status.to_string(), output })
    }

    /// Freezes it (SIGSTOP), as a hung worker would be; returns once each of its threads stands still, which the signal
    /// alone does not wait for.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when it is gone, [`TestbedError::Deadline`] when it does not stop.
    pub fn freeze(&self) -> Result<(), TestbedError> {
        self.child.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.child.pid());
        wait_until("every thread of the daemon to stop", FREEZE_LIMIT, || {
            let threads = std::fs::read_dir(&tasks).map_err(TestbedError::io(format!("read {tasks}")))?;
            let stopped = threads.flatten().all(|thread| is_stopped(&thread.path().join("stat")));
            Ok(stopped.then_some(()))
        })
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// [`TestbedError::Io`] when it is gone.
    pub fn thaw(&self) -> Result<(), TestbedError> {
        self.child.signal(Signal::CONT)
    }
}

/// Whether a thread's `stat` (proc_pid_stat(5)) says that it was stopped; one that has ended does nothing either.
fn is_stopped(stat: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(stat) else { return true };
    // The name before it is in parentheses, and may hold any character.
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("T" | "t" | "Z" | "X"))
}

/// The daemon's binary: `DATAPLANE_BINARY`, or beside the running program (or one folder up, for tests).
///
/// # Errors
/// [`TestbedError::Missing`] with how to build it.
pub fn find_binary() -> Result<PathBuf, TestbedError> {
    if let Some(path) = std::env::var_os("DATAPLANE_BINARY") {
        return Ok(path.into());
    }
    let program = std::env::current_exe().map_err(TestbedError::io("find the running program"))?;
    let name = OsString::from("dataplane");
    let candidates = program.ancestors().skip(1).take(2).map(|folder| folder.join(&name));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        TestbedError::Missing(format!(
            "missing: the daemon's binary beside {}\n   cure: cargo build --release -p dataplane, or set DATAPLANE_BINARY",
            program.display()
        ))
    })
}

fn get_status(admin: SocketAddr) -> Result<StatusReport, TestbedError> {
    let body = http_get(admin, "/status")?;
    serde_json::from_str(&body).map_err(|error| TestbedError::Io {
        what: "read the daemon's status".to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{error}: {body}")),
    })
}

/// Asks an HTTP server in the namespace of the calling thread for a page; the answer's body.
///
/// # Errors
/// [`TestbedError::Io`] when there is no answer or it is not 200.
pub fn http_get(server: SocketAddr, path: &str) -> Result<String, TestbedError> {
    let what = || format!("GET http://{server}{path}");
    let mut stream = TcpStream::connect_timeout(&server, ADMIN_LIMIT).map_err(TestbedError::io(what()))?;
    stream.set_read_timeout(Some(ADMIN_LIMIT)).map_err(TestbedError::io(what()))?;
    // HTTP/1.0: the body ends with the connection, and is never chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(TestbedError::io(what()))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(TestbedError::io(what()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split_whitespace().nth(1) == Some("200") {
        return Ok(body.to_owned());
    }
    let source = std::io::Error::other(head.lines().next().unwrap_or("no answer").to_owned());
    Err(TestbedError::Io { what: what(), source })
}
