//! The thread between the companion's sockets and the workers' rings.
//!
//! Invariant: every request buffer of a link is in one of its rings, in the worker's hands, or in `spares` here, and every
//! reply buffer goes straight back; so a ring that holds them all never refuses one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::datagram::{self, is_would_block};
use super::policy::{ListenerPolicy, RateCap, UNAVAILABLE_BYTES_MAX, UNAVAILABLE_PER_S_MAX};
use super::{CompanionSocket, ControlLink};
use crate::control::heartbeat::Heartbeats;
use crate::limits::{BATCH_FRAMES, COMPANION_DATAGRAM_BYTES_MAX};
use crate::metrics::Counter;
use crate::time::Now;
use crate::transport::companion::CompanionDatagram;
use crate::worker::wake::Wake;

/// Longest wait at the end for replies that are still on their way.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(500);

/// What the companion counts. Only its thread writes.
#[derive(Debug, Default)]
pub struct CompanionMetrics {
    /// Datagrams received.
    pub received: Counter,
    /// Datagrams handed to a worker.
    pub handed_over: Counter,
    /// Replies sent for a worker.
    pub replied: Counter,
    /// "Temporarily unavailable" sent for a stale worker.
    pub unavailable: Counter,
    /// Datagrams that are not answered: source not on the allow-list, or another server.
    pub refused: Counter,
    /// Datagrams that are not answered: cut short, broadcast, without a source.
    pub malformed: Counter,
    /// Datagrams dropped because the worker has every buffer.
    pub full: Counter,
    /// Datagrams dropped because "temporarily unavailable" was said often enough, or has no words.
    pub unanswered: Counter,
    /// Replies the kernel did not take.
    pub send_errors: Counter,
}

/// What the companion is made of.
pub struct CompanionSetup {
    /// The sockets; the sentinel has them too.
    pub sockets: Arc<[CompanionSocket]>,
    /// One for each listener.
    pub listeners: Vec<ListenerPolicy>,
    /// One for each worker; there is at least one.
    pub links: Vec<ControlLink>,
    /// Which of them are alive.
    pub heartbeats: Arc<dyn Heartbeats>,
}

/// The running companion.
#[derive(Debug)]
pub struct Companion {
    thread: Option<JoinHandle<()>>,
    stop: Wake,
    metrics: Arc<CompanionMetrics>,
}

impl Companion {
    /// Starts it, on a thread that inherits the caller's cores.
    ///
    /// # Errors
    /// When the process has no threads or descriptors left.
    ///
    /// # Panics
    /// Without a worker: there would be nobody to ask.
    pub fn start(setup: CompanionSetup) -> io::Result<Self> {
        assert!(!setup.links.is_empty(), "a companion without a worker has nobody to ask");
        let (stop, metrics) = (Wake::new()?, Arc::new(CompanionMetrics::default()));
        let pump = Pump::new(setup, stop.clone(), Arc::clone(&metrics));
        let thread = std::thread::Builder::new().name("companion".into()).spawn(move || pump.run())?;
        Ok(Self { thread: Some(thread), stop, metrics })
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<CompanionMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Stops taking requests, sends the replies that are still on their way (for half a second at most), and ends.
    /// The workers must still run.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the companion's thread had panicked");
        }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.join();
    }
}

struct Pump {
    setup: CompanionSetup,
    stop: Wake,
    metrics: Arc<CompanionMetrics>,
    /// Buffers of each link that are here.
    spares: Vec<Vec<CompanionDatagram>>,
    /// Buffers of each link that its worker has.
    lent: Vec<usize>,
    scratch: Box<[u8]>,
    cap: RateCap,
}

impl Pump {
    fn new(setup: CompanionSetup, stop: Wake, metrics: Arc<CompanionMetrics>) -> Self {
        let workers = setup.links.len();
        Self {
            setup,
            stop,
            metrics,
            spares: (0..workers).map(|_| Vec::new()).collect(),
            lent: vec![0; workers],
            scratch: vec![0; COMPANION_DATAGRAM_BYTES_MAX].into_boxed_slice(),
            cap: RateCap::new(UNAVAILABLE_PER_S_MAX, Now::read().monotonic_ns),
        }
    }

    fn run(mut self) {
        // Every buffer is in the spare ring now, and nobody signals that.
        self.replies();
        while let Some(ready) = self.wait(true, None) {
            self.replies();
            for socket in ready {
                self.requests(socket);
            }
        }
        self.last_requests();
        let deadline = Instant::now() + DRAIN_TIME_MAX;
        while self.lent.iter().any(|&lent| lent > 0) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(
                    datagrams = self.lent.iter().sum::<usize>(),
                    "workers kept requests unanswered"
                );
                return;
            }
            self.wait(false, Some(left));
            self.replies();
        }
    }

    /// Takes requests once more, without waiting: what had come by now was sent to a daemon that served. A batch a
    /// socket: a flood must not keep the daemon from ending.
    fn last_requests(&mut self) {
        for socket in 0..self.setup.sockets.len() {
            // Buffers that came back since are free to carry them.
            self.replies();
            self.requests(socket);
        }
    }

    /// Sleeps until there is work; the sockets that have some. `None` once it is to stop.
    fn wait(&self, take_requests: bool, timeout: Option<Duration>) -> Option<Vec<usize>> {
        let replies = self.setup.links.iter().map(|link| link.replies_pushed.as_fd());
        let sockets = self.setup.sockets.iter().filter(|_| take_requests).map(AsFd::as_fd);
        let stop = take_requests.then(|| self.stop.as_fd());
        let mut polled: Vec<PollFd<'_>> = replies
            .chain(sockets)
            .chain(stop)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // Interrupted or out of memory: look at everything and come back.
        let _ = rustix::event::poll(&mut polled, timeout.as_ref());
        let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
        if take_requests && polled.last().is_some_and(is_ready) {
            return None;
        }
        let sockets = polled.iter().skip(self.setup.links.len());
        Some(sockets.enumerate().filter(|(_, polled)| is_ready(polled)).map(|(index, _)| index).collect())
    }

    /// Sends the workers' replies and takes their buffers back.
    fn replies(&mut self) {
        for worker in 0..self.setup.links.len() {
            let link = &mut self.setup.links[worker];
            link.replies_pushed.clear();
            while let Ok(spare) = link.end.spare.pop() {
                // At the start every buffer is in this ring without having been lent.
                self.lent[worker] = self.lent[worker].saturating_sub(1);
                self.spares[worker].push(spare);
            }
            while let Ok(reply) = link.end.replies.pop() {
                let from = reply.local.ip();
                let socket = self.setup.sockets.iter().find(|socket| socket.owns(reply.listener, from));
                let sent = socket.map(|socket| {
                    let payload = &reply.buffer[..reply.length.min(reply.buffer.len())];
                    datagram::send(socket.as_fd(), payload, reply.peer, reply.local)
                });
                match sent {
                    Some(Ok(())) => self.metrics.replied.increment(),
                    Some(Err(_)) | None => self.metrics.send_errors.increment(),
                }
                if link.end.returned.push(reply).is_err() {
                    debug_assert!(false, "the ring has room for every reply buffer");
                }
            }
        }
    }

    /// Takes a batch of requests from one socket.
    fn requests(&mut self, socket: usize) {
        let sockets = Arc::clone(&self.setup.sockets);
        let socket = &sockets[socket];
        let now_ns = Now::read().monotonic_ns;
        for _ in 0..BATCH_FRAMES {
            let received = datagram::receive(socket.as_fd(), socket.address().port(), &mut self.scratch);
            let received = match received {
                Ok(Some(received)) => received,
                Ok(None) => {
                    self.metrics.received.increment();
                    self.metrics.malformed.increment();
                    continue;
                }
                Err(error) => {
                    if !is_would_block(&error) {
                        tracing::debug!(%error, address = %socket.address(), "a companion socket reports an error");
                    }
                    break;
                }
            };
            self.metrics.received.increment();
            if self.setup.listeners.get(socket.listener()).is_some_and(|policy| policy.admits(received.peer))
            {
                if self.any_is_stale(now_ns) {
                    self.unavailable(socket, &received, now_ns);
                } else {
                    self.request(socket, &received);
                }
            } else {
                self.metrics.refused.increment();
            }
        }
        for (worker, link) in self.setup.links.iter().enumerate() {
            if self.lent[worker] > 0 {
                link.requests_pushed.wake();
            }
        }
    }

    /// Hands the request in `scratch` to its worker.
    fn request(&mut self, socket: &CompanionSocket, received: &datagram::Received) {
        let worker = self.worker_of(received.peer);
        let Some(mut datagram) = self.spares[worker].pop() else {
            self.metrics.full.increment();
            return;
        };
        datagram.listener = socket.listener();
        datagram.peer = received.peer;
        datagram.local = received.local;
        datagram.length = received.length;
        datagram.buffer[..received.length].copy_from_slice(&self.scratch[..received.length]);
        match self.setup.links[worker].end.requests.push(datagram) {
            Ok(()) => {
                self.lent[worker] += 1;
                self.metrics.handed_over.increment();
            }
            Err(rtrb::PushError::Full(datagram)) => {
                debug_assert!(false, "the ring has room for every buffer");
                self.spares[worker].push(datagram);
                self.metrics.full.increment();
            }
        }
    }

    fn unavailable(&mut self, socket: &CompanionSocket, received: &datagram::Received, now_ns: u64) {
        let mut reply = [0; UNAVAILABLE_BYTES_MAX];
        let policy = &self.setup.listeners[socket.listener()];
        let words = policy.unavailable(&self.scratch[..received.length], &mut reply);
        let Some(words) = words.filter(|_| self.cap.take(now_ns)) else {
            self.metrics.unanswered.increment();
            return;
        };
        match datagram::send(socket.as_fd(), words, received.peer, received.local) {
            Ok(()) => self.metrics.unavailable.increment(),
            Err(_) => self.metrics.send_errors.increment(),
        }
    }

    /// True while any worker has stopped beating. A client whose own worker is stale must not be served from the
    /// table of another, and which worker is its own only the NIC's hash knows; so while one is stale, nobody is served
    /// here. (Once workers hand requests to the one that owns the key, the others can serve on.)
    fn any_is_stale(&self, now_ns: u64) -> bool {
        (0..self.setup.links.len()).any(|worker| self.setup.heartbeats.is_stale(worker, now_ns))
    }

    /// A client stays with one worker, so that its requests are answered in order. With several workers that need not be
    /// the one its packets reach through the NIC.
    fn worker_of(&self, peer: SocketAddr) -> usize {
        let mut hasher = DefaultHasher::new();
        peer.hash(&mut hasher);
        (hasher.finish() % self.setup.links.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::config::ListenerProtocol;
    use crate::control::companion::link;
    use crate::metrics::WorkerMetrics;
    use crate::net::allow::AllowList;
    use crate::service::{Context, Datagram, Replies, Service};

    struct Mute;

    impl Service for Mute {
        fn datagram(&mut self, _: &mut Context<'_>, _: &Datagram<'_>, _: &mut dyn Replies) {}
    }

    struct Beating;

    impl Heartbeats for Beating {
        fn heartbeat_ns(&self, _: usize) -> u64 {
            Now::read().monotonic_ns
        }
    }

    #[test]
    fn the_last_requests_are_carried_by_buffers_that_came_back_meanwhile() {
        let socket =
            CompanionSocket::bind(0, ListenerProtocol::Udp, "127.0.0.1:0".parse().expect("an address"))
                .expect("a port");
        let server = socket.address();
        let allow = AllowList::new(&["127.0.0.0/8".parse().expect("a network")]);
        let (control, mut worker) = link(1).expect("two descriptors");
        let setup = CompanionSetup {
            sockets: [socket].into(),
            listeners: vec![ListenerPolicy::new(allow, server.port(), Some(Box::new(Mute)))],
            links: vec![control],
            heartbeats: Arc::new(Beating),
        };
        let mut pump = Pump::new(setup, Wake::new().expect("a descriptor"), Arc::default());
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        pump.replies();
        client.send_to(b"first", server).expect("it is sent");
        pump.requests(0);
        assert_eq!((pump.lent[0], pump.spares[0].len()), (1, 0), "the only buffer is lent");

        worker.end.poll(1, &WorkerMetrics::default(), |_, replies| {
            replies.send(&[b"answer"]);
        });
        client.send_to(b"last", server).expect("it is sent");
        pump.last_requests();
        assert_eq!((pump.metrics.handed_over.get(), pump.metrics.full.get()), (2, 0));
    }
}
