//! The daemon's side: starting the sentinel, and ending it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::io::FdFlags;

use super::spec::{ListenerSpec, SocketSpec, Spec};
use crate::config::{ListenerConfig, ListenerProtocol};
use crate::control::companion::CompanionSocket;
use crate::control::heartbeat::HeartbeatLayout;

/// What runs as the sentinel: a program that calls [`run`](super::run) when it is started so.
#[derive(Clone, Debug)]
pub struct SentinelProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Default for SentinelProgram {
    /// This very program, with the argument `sentinel`. The link in `/proc` also leads to it when its file has been
    /// replaced or removed since.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), arguments: vec!["sentinel".into()] }
    }
}

/// What a sentinel needs.
#[derive(Debug)]
pub struct SentinelSetup {
    /// The program.
    pub program: SentinelProgram,
    /// The listeners, by number.
    pub listeners: Vec<ListenerConfig>,
    /// Largest item of the table, in bytes; services are told.
    pub item_bytes_max: u32,
    /// What whoever connects to a listener for streams is told, by the listener's number.
    pub stream_words: Vec<String>,
    /// The companion's sockets.
    pub sockets: Arc<[CompanionSocket]>,
    /// The heartbeat map, as [`HeartbeatMap::open`](crate::control::heartbeat::HeartbeatMap::open) takes it.
    pub heartbeats: OwnedFd,
    /// Where its slots lie.
    pub layout: HeartbeatLayout,
    /// No worker serves its sockets, for want of an io_uring: whoever uses them is answered by the sentinel.
    pub unserved: bool,
}

/// The running sentinel. It ends when this is dropped.
#[derive(Debug)]
pub struct Sentinel {
    child: Child,
    /// Closed by the kernel when the daemon dies, and then the sentinel ends.
    lifeline: Option<ChildStdin>,
}

impl Sentinel {
    /// Starts it. Call this from the main thread: the sentinel dies with the thread that started it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(setup: &SentinelSetup) -> io::Result<Self> {
        let spec = spec(setup);
        let mut inherited: Vec<RawFd> = spec.sockets.iter().map(|socket| socket.fd).collect();
        inherited.push(spec.heartbeats);
        let mut command = Command::new(&setup.program.program);
        command
            .args(&setup.program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A group of its own: what the terminal sends the daemon (Ctrl-Z above all) is not for the sentinel.
            .process_group(0);
        let keep_open = move || {
            for &fd in &inherited {
                // SAFETY: `spawn` borrows `setup`, which owns these descriptors, until the child has called exec.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes
        // one fcntl a descriptor and neither allocates nor locks.
        unsafe { command.pre_exec(keep_open) };
        let mut child = command.spawn()?;
        let lifeline = child.stdin.take();
        let mut sentinel = Self { child, lifeline };
        let mut line = serde_json::to_vec(&spec)?;
        line.push(b'\n');
        let lifeline = sentinel.lifeline.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        lifeline.write_all(&line)?;
        Ok(sentinel)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.lifeline = None;
        // It holds nothing that needs an orderly end; once this returns the sockets are the daemon's alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec(setup: &SentinelSetup) -> Spec {
    let listeners = setup.listeners.iter().enumerate().map(|(index, listener)| ListenerSpec {
        service: listener.service.clone(),
        stream_words: match listener.protocol {
            ListenerProtocol::Udp => None,
            ListenerProtocol::Tcp => Some(setup.stream_words.get(index).cloned().unwrap_or_default()),
        },
        port: listener.port,
        allow: listener.allow.clone(),
        reply_bytes_max: listener.reply_bytes_max as usize,
        item_bytes_max: setup.item_bytes_max as usize,
    });
    let sockets = setup.sockets.iter().map(|socket| SocketSpec {
        fd: socket.as_fd().as_raw_fd(),
        listener: socket.listener(),
        worker: socket.worker(),
    });
    Spec {
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        heartbeats: setup.heartbeats.as_raw_fd(),
        layout: setup.layout,
        unserved: setup.unserved,
        listeners: listeners.collect(),
        sockets: sockets.collect(),
    }
}
