//! The sentinel's side: a loop that mostly sleeps.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use rustix::process::Signal;

use super::spec::{ListenerSpec, SPEC_BYTES_MAX, Spec};
use crate::control::companion::{
    ListenerPolicy, RateCap, UNAVAILABLE_BYTES_MAX, UNAVAILABLE_PER_S_MAX, receive, send,
};
use crate::control::heartbeat::{HeartbeatMap, Heartbeats};
use crate::limits::{BATCH_FRAMES, KERNEL_DATAGRAM_BYTES_MAX};
use crate::net::allow::AllowList;
use crate::service::{Service, ServiceError, ServiceSetup};
use crate::time::{NS_PER_MS, Now};

/// Time between two looks at the heartbeats.
const LOOK_NS: u64 = 100 * NS_PER_MS;

/// Why the sentinel cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SentinelError {
    /// It was started by hand.
    #[error("the daemon starts its sentinel itself; there is nothing to do here")]
    NotByDaemon,
    /// A listener's service is not known to this program.
    #[error("listener[{listener}]: there is no service {service:?}")]
    NoService {
        /// Number of the listener.
        listener: usize,
        /// Name of the service.
        service: String,
    },
    /// A service did not start.
    #[error("service {service:?} does not start: {source}")]
    Service {
        /// Its name.
        service: String,
        /// Its reason.
        source: ServiceError,
    },
    /// The kernel refused something.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

/// An instance of a service, or why there is none; `None` when there is no service of that name.
pub type ServiceResult = Option<Result<Option<Box<dyn Service>>, ServiceError>>;

/// Runs as the sentinel until the daemon ends. `create` makes an instance of a service by name.
///
/// # Errors
/// [`SentinelError`].
pub fn run(create: &dyn Fn(&str, &ServiceSetup) -> ServiceResult) -> Result<(), SentinelError> {
    let spec = read_spec()?;
    if !die_with(spec.parent)? {
        return Ok(());
    }
    let sentinel = SentinelLoop::new(&spec, create)?;
    let _ = rustix::thread::set_name(c"sentinel");
    drop_privileges();
    sentinel.run()
}

fn read_spec() -> Result<Spec, SentinelError> {
    let mut line = Vec::new();
    // A terminal would wait for someone to type.
    let stdin = io::stdin();
    if io::IsTerminal::is_terminal(&stdin) {
        return Err(SentinelError::NotByDaemon);
    }
    stdin
        .lock()
        .take(SPEC_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .map_err(|source| SentinelError::System { what: "cannot read what to do", source })?;
    serde_json::from_slice(&line).map_err(|_| SentinelError::NotByDaemon)
}

/// Has the kernel kill this process when the daemon dies; false when it had died before that.
fn die_with(parent: i32) -> Result<bool, SentinelError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        SentinelError::System { what: "cannot ask for a death signal", source: error.into() }
    })?;
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    Ok(now == parent)
}

/// The sockets are open and the map is mapped: nothing below needs a privilege.
fn drop_privileges() {
    for set in
        [caps::CapSet::Ambient, caps::CapSet::Effective, caps::CapSet::Permitted, caps::CapSet::Inheritable]
    {
        // A process that has none keeps none.
        let _ = caps::clear(None, set);
    }
}

/// Connections that were told and are not closed yet; the oldest gives way.
const TOLD_MAX: usize = 256;

struct Socket {
    fd: OwnedFd,
    listener: usize,
    worker: usize,
}

struct SentinelLoop {
    heartbeats: HeartbeatMap,
    workers: usize,
    /// No worker serves its sockets, alive as it may be.
    unserved: bool,
    listeners: Vec<ListenerPolicy>,
    ports: Vec<u16>,
    sockets: Vec<Socket>,
    cap: RateCap,
    request: Box<[u8]>,
    /// By listener: what whoever connects is told; `None` for datagrams.
    stream_words: Vec<Option<String>>,
    /// Connections that were told, and have not been closed by their clients yet.
    told: VecDeque<OwnedFd>,
}

impl SentinelLoop {
    fn new(
        spec: &Spec,
        create: &dyn Fn(&str, &ServiceSetup) -> ServiceResult,
    ) -> Result<Self, SentinelError> {
        let owned = |fd| {
            // SAFETY: the daemon left exactly the descriptors it names open for this process, each named once, and
            // nothing here has opened or closed any since it started.
            unsafe { OwnedFd::from_raw_fd(fd) }
        };
        let heartbeats = HeartbeatMap::open(&owned(spec.heartbeats), spec.layout)
            .map_err(|source| SentinelError::System { what: "cannot map the heartbeats", source })?;
        let sockets: Vec<Socket> = spec
            .sockets
            .iter()
            .map(|socket| Socket { fd: owned(socket.fd), listener: socket.listener, worker: socket.worker })
            .filter(|socket| socket.listener < spec.listeners.len())
            .collect();
        let listeners =
            spec.listeners.iter().enumerate().map(|(index, listener)| policy(index, listener, create));
        Ok(Self {
            heartbeats,
            workers: spec.layout.slots,
            unserved: spec.unserved,
            listeners: listeners.collect::<Result<_, _>>()?,
            ports: spec.listeners.iter().map(|listener| listener.port).collect(),
            sockets,
            cap: RateCap::new(UNAVAILABLE_PER_S_MAX, Now::read().monotonic_ns),
            request: vec![0; KERNEL_DATAGRAM_BYTES_MAX].into_boxed_slice(),
            stream_words: spec.listeners.iter().map(|listener| listener.stream_words.clone()).collect(),
            told: VecDeque::with_capacity(TOLD_MAX),
        })
    }

    fn run(mut self) -> Result<(), SentinelError> {
        let stdin = io::stdin();
        let mut stale_before = Vec::new();
        loop {
            let stale: Vec<usize> = (0..self.workers).filter(|&worker| self.is_stale(worker)).collect();
            if stale != stale_before {
                // The log may be gone; the clients matter more.
                let _ = match &stale[..] {
                    [] => writeln!(io::stderr(), "dataplane sentinel: every worker is alive again"),
                    _ if self.unserved => {
                        writeln!(
                            io::stderr(),
                            "dataplane sentinel: answering on ordinary sockets, which nobody serves"
                        )
                    }
                    stale => {
                        writeln!(
                            io::stderr(),
                            "dataplane sentinel: answering for workers that stand still: {stale:?}"
                        )
                    }
                };
                stale_before.clone_from(&stale);
            }
            let ready = match self.wait(stdin.as_fd(), &stale) {
                Some(ready) => ready,
                None => return Ok(()),
            };
            for socket in ready {
                self.answer(socket);
            }
            self.told.retain(|stream| is_being_read(stream.as_fd()));
        }
    }

    /// Whether nobody else answers what this worker's sockets get.
    fn is_stale(&self, worker: usize) -> bool {
        self.unserved || self.heartbeats.is_stale(worker, Now::read().monotonic_ns)
    }

    /// Sleeps until the next look; the sockets to be read. `None` once the daemon is gone.
    fn wait(&self, lifeline: BorrowedFd<'_>, stale: &[usize]) -> Option<Vec<usize>> {
        let sockets = self.sockets.iter().enumerate().filter(|(_, socket)| stale.contains(&socket.worker));
        let (numbers, sockets): (Vec<usize>, Vec<BorrowedFd<'_>>) =
            sockets.map(|(number, socket)| (number, socket.fd.as_fd())).unzip();
        let mut polled: Vec<PollFd<'_>> = std::iter::once(lifeline)
            .chain(sockets)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_NS.cast_signed() };
        // Interrupted: look again.
        let _ = rustix::event::poll(&mut polled, Some(&timeout));
        let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
        // Nothing is ever written after the first line, so whatever happens on the lifeline is its end.
        let (lifeline, sockets) = polled.split_first()?;
        if is_ready(lifeline) {
            return None;
        }
        let ready = numbers.into_iter().zip(sockets).filter(|(_, polled)| is_ready(polled));
        Some(ready.map(|(number, _)| number).collect())
    }

    /// Answers a batch from one socket, for as long as its worker is stale.
    fn answer(&mut self, socket: usize) {
        if self.stream_words[self.sockets[socket].listener].is_some() {
            return self.tell(socket);
        }
        let mut reply = [0; UNAVAILABLE_BYTES_MAX];
        for _ in 0..BATCH_FRAMES {
            if !self.is_stale(self.sockets[socket].worker) {
                return;
            }
            let socket = &self.sockets[socket];
            let received = match receive(socket.fd.as_fd(), self.ports[socket.listener], &mut self.request) {
                Ok(Some(received)) => received,
                Ok(None) => continue,
                Err(_) => return,
            };
            let policy = &self.listeners[socket.listener];
            if !policy.admits(received.peer) {
                continue;
            }
            let words = policy.unavailable(&self.request[..received.length], &mut reply);
            if let Some(words) = words.filter(|_| self.cap.take(Now::read().monotonic_ns)) {
                // What the kernel does not take is lost, as datagrams are.
                let _ = send(socket.fd.as_fd(), words, received.peer, received.local);
            }
        }
    }

    /// Tells a batch of those who connect, for as long as the worker is stale.
    fn tell(&mut self, socket: usize) {
        for _ in 0..BATCH_FRAMES {
            let Socket { fd, listener, worker } = &self.sockets[socket];
            if !self.is_stale(*worker) {
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok((stream, peer)) = rustix::net::acceptfrom_with(fd, flags) else { return };
            let admitted = peer
                .and_then(|peer| SocketAddr::try_from(peer).ok())
                .is_some_and(|peer| self.listeners[*listener].admits(peer));
            if !admitted || !self.cap.take(Now::read().monotonic_ns) {
                continue;
            }
            let words = self.stream_words[*listener].as_deref().unwrap_or_default();
            // A new connection's send buffer takes a line; who is gone already hears nothing.
            let _ = rustix::net::send(&stream, words.as_bytes(), SendFlags::NOSIGNAL);
            let _ = rustix::net::shutdown(&stream, Shutdown::Write);
            // Closed at once with bytes unread, it would be reset and the words lost with it.
            if self.told.len() == TOLD_MAX {
                self.told.pop_front();
            }
            self.told.push_back(stream);
        }
    }
}

/// Reads what a client had to say; false once it has closed.
fn is_being_read(stream: BorrowedFd<'_>) -> bool {
    let mut unread = [0; 4096];
    loop {
        match rustix::net::recv(stream, &mut unread, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok(_) => {}
            Err(error) => return error == rustix::io::Errno::WOULDBLOCK,
        }
    }
}

fn policy(
    index: usize,
    listener: &ListenerSpec,
    create: &dyn Fn(&str, &ServiceSetup) -> ServiceResult,
) -> Result<ListenerPolicy, SentinelError> {
    let allow = AllowList::new(&listener.allow);
    if listener.stream_words.is_some() {
        return Ok(ListenerPolicy::new(allow, listener.port, None));
    }
    let setup = ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: listener.reply_bytes_max,
        connections_max: 1,
        item_bytes_max: listener.item_bytes_max,
        started: Now::read(),
    };
    let name = || listener.service.clone();
    let service = create(&listener.service, &setup)
        .ok_or_else(|| SentinelError::NoService { listener: index, service: name() })?
        .map_err(|source| SentinelError::Service { service: name(), source })?;
    Ok(ListenerPolicy::new(allow, listener.port, service))
}
