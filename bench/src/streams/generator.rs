//! The loop that drives the connections over one queue of AF_XDP frames.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use arrayvec::ArrayVec;
use dataplane::limits::BATCH_FRAMES;
use dataplane::net::tcp::{Config, ConnectError, Output, Seeds, Stack};
use dataplane::port::{FrameBatch, Port, QueueOwner, Umem};
use dataplane::testbed::signals;
use dataplane::time::{NS_PER_MS, NS_PER_S, Now};

use super::clients::{Clients, Run};
use super::load::{Load, Outcome, Pace};
use crate::generator::wait_for;

/// Most connections at once.
pub const CONNECTIONS_MAX: usize = 1 << 14;
/// Connections that are being opened at the same time.
const OPENING_MAX: usize = 64;
/// How long opening or closing all of them may take.
const CONNECT_LIMIT_NS: u64 = 30 * NS_PER_S;
/// A server that says nothing for so long has lost something. Longer than any time-out of ours that a lost segment
/// costs.
const SILENCE_LIMIT_NS: u64 = 5 * NS_PER_S;
/// How long it polls for a reply before it sleeps: a generator that is itself woken measures its own wake-up.
const SPIN_NS: u64 = 50_000;
/// Longest sleep.
const SLEEP: Duration = Duration::from_millis(10);
/// Ports that connections come from.
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=65_535;

/// Both ends' hardware and IP addresses.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The generator's hardware address.
    pub local_mac: [u8; 6],
    /// Its IP address.
    pub local: Ipv4Addr,
    /// The server's hardware address.
    pub peer_mac: [u8; 6],
    /// Its IP address.
    pub peer: Ipv4Addr,
}

/// The generator.
pub struct Generator<P, Q> {
    pub(super) port: P,
    queue: Q,
    umem: Arc<Umem>,
    batch: FrameBatch,
    stack: Stack,
    clients: Clients,
    link: Link,
    /// Port of the next connection.
    next_port: u16,
    /// When something was received last.
    busy_ns: u64,
    /// Whether its core has others to run while nothing is there.
    shares_core: bool,
    pub(super) silence_limit_ns: u64,
}

impl<P: Port, Q: QueueOwner> Generator<P, Q> {
    /// On this port and queue; `seeds` are never the same twice.
    ///
    /// # Errors
    /// When the stack cannot be made.
    pub fn new(port: P, queue: Q, link: Link, seeds: Seeds) -> Result<Self> {
        let stack = Stack::new(stack_config(), seeds).context("the generator's TCP")?;
        Ok(Self {
            umem: Arc::clone(port.umem()),
            port,
            queue,
            batch: FrameBatch::new(),
            stack,
            clients: Clients::new(CONNECTIONS_MAX),
            link,
            next_port: *PORTS.start(),
            busy_ns: 0,
            shares_core: false,
            silence_limit_ns: SILENCE_LIMIT_NS,
        })
    }

    /// Lets others on its core run whenever nothing is there: where it runs the NAPI that brings it packets, polling
    /// alone would keep them from coming.
    pub fn share_core(&mut self) {
        self.shares_core = true;
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.flows.len()
    }

    /// Frames nobody has, by the accounts of both sides.
    pub fn frames_lost(&mut self) -> u64 {
        (self.queue.accounts() + self.port.accounts()).lost()
    }

    /// Opens connections to a port of the server until there are so many.
    ///
    /// # Errors
    /// When one is refused or not answered, or the port fails.
    pub fn open(&mut self, connections: usize, port: u16) -> Result<()> {
        ensure!(connections <= CONNECTIONS_MAX, "the generator has {CONNECTIONS_MAX} connections at most");
        let peer = SocketAddr::from((self.link.peer, port));
        let header = self.link.header();
        let start = Now::read();
        loop {
            let now = self.receive()?;
            while self.clients.opening < OPENING_MAX
                && self.clients.opening + self.clients.flows.len() < connections
            {
                let local = SocketAddr::from((self.link.local, self.next_port));
                self.next_port =
                    if self.next_port == *PORTS.end() { *PORTS.start() } else { self.next_port + 1 };
                match self.stack.connect(now, &header, local, peer) {
                    Ok(_) => self.clients.opening += 1,
                    Err(ConnectError::InUse) => {}
                    Err(error) => return Err(error).context("open a connection"),
                }
            }
            self.send(now)?;
            self.check(&format!("open {connections} connections"))?;
            if self.clients.flows.len() == connections {
                return Ok(());
            }
            let waited_ns = now.monotonic_ns - start.monotonic_ns;
            ensure!(
                waited_ns < CONNECT_LIMIT_NS,
                "only {} of {connections} connections were open after {} s",
                self.clients.flows.len(),
                CONNECT_LIMIT_NS / NS_PER_S
            );
        }
    }

    /// Closes all connections, and waits until the server has as well.
    ///
    /// # Errors
    /// When it does not, or the port fails.
    pub fn close(&mut self) -> Result<()> {
        self.clients.expect_closing(true);
        // A few at a time: all at once they would be one burst.
        let mut left = self.clients.flows.clone();
        let start = Now::read();
        loop {
            let now = self.receive()?;
            let under_way = self.clients.flows.len() - left.len();
            for flow in left.drain(left.len() - left.len().min(OPENING_MAX.saturating_sub(under_way))..) {
                if let Some(mut io) = self.stack.io(flow) {
                    io.close();
                }
            }
            self.send(now)?;
            self.check("close the connections")?;
            if self.clients.flows.is_empty() {
                self.clients.expect_closing(false);
                return Ok(());
            }
            let waited_ns = now.monotonic_ns - start.monotonic_ns;
            let open = self.clients.flows.len();
            ensure!(waited_ns < CONNECT_LIMIT_NS, "the server did not close {open} connections");
        }
    }

    /// Runs one load over all open connections to its end. `edge` is called twice: when counting starts and when it
    /// ends; what is still under way then is waited for.
    ///
    /// # Errors
    /// When a reply is wrong, a connection ends, the server falls silent, or the port fails.
    pub fn run(&mut self, load: &Load, edge: &mut dyn FnMut() -> Result<()>) -> Result<Outcome> {
        ensure!(!self.clients.flows.is_empty(), "there is no connection");
        let before = self.stack.statistics().retransmissions;
        let run = Run::new(load, Now::read().monotonic_ns);
        self.clients.now_ns = Now::read().monotonic_ns;
        self.clients.begin(run);
        let may_sleep = !matches!(load.pace, Pace::Open { .. });
        let mut turn = (self.clients.now_ns, false);
        let end = loop {
            let mut now = self.receive()?;
            let Some(run) = &mut self.clients.run else { bail!("there is no run") };
            let (turn_ns, worked) = turn;
            if worked {
                run.worked(now.monotonic_ns.saturating_sub(turn_ns));
            }
            if run.advance(now.monotonic_ns) {
                edge()?;
                now = Now::read();
                run.count_from(now.monotonic_ns);
                self.clients.now_ns = now.monotonic_ns;
            }
            let ending = run.is_ending();
            let under_way = self.clients.under_way;
            if signals::caught() {
                break Ok(());
            }
            self.ask();
            turn =
                (now.monotonic_ns, self.busy_ns == now.monotonic_ns || self.clients.under_way != under_way);
            self.send(now)?;
            self.check("load")?;
            if ending && self.clients.under_way == 0 {
                break Ok(());
            }
            if now.monotonic_ns.saturating_sub(self.clients.answered_ns) > self.silence_limit_ns {
                break Err(());
            }
            if self.shares_core && self.busy_ns < now.monotonic_ns {
                std::thread::yield_now();
            } else if may_sleep && now.monotonic_ns - self.busy_ns > SPIN_NS && self.port.backlog() == 0 {
                wait_for(&self.port, SLEEP)?;
            }
        };
        let Some(mut run) = self.clients.run.take() else { bail!("there is no run") };
        if end.is_err() {
            run.outcome.missing = self.clients.under_way as u64 + run.unsent();
            self.clients.under_way = 0;
        }
        run.outcome.retransmissions = self.stack.statistics().retransmissions - before;
        Ok(run.outcome)
    }

    /// Gives requests to whoever is to have one.
    fn ask(&mut self) {
        for _ in 0..self.clients.starts() {
            let Some((flow, requests, at_ns)) = self.clients.wanting() else { return };
            let Some(mut io) = self.stack.io(flow) else { continue };
            for _ in 0..requests {
                self.clients.ask(flow, at_ns, &mut io);
            }
        }
    }

    /// Takes what has come.
    fn receive(&mut self) -> Result<Now> {
        let Self { port, queue, umem, batch, stack, clients, .. } = self;
        queue.poll().context("the generator's queue")?;
        port.receive(batch).context("the generator's port")?;
        let now = Now::read();
        clients.now_ns = now.monotonic_ns;
        if !batch.is_empty() {
            self.busy_ns = now.monotonic_ns;
            let frames: ArrayVec<&[u8], BATCH_FRAMES> =
                batch.iter().map(|frame| umem.packet(frame)).collect();
            stack.receive_batch(now, &frames, clients, &mut Wire { port, umem });
            drop(frames);
            for frame in batch.drain(..) {
                port.release(frame);
            }
        }
        Ok(now)
    }

    /// Sends what is to be sent.
    fn send(&mut self, now: Now) -> Result<()> {
        let Self { port, umem, stack, clients, .. } = self;
        if stack.next_due_ns().is_some_and(|due_ns| due_ns <= now.monotonic_ns) {
            stack.poll(now, clients, &mut Wire { port, umem });
        }
        port.flush().context("the generator's port")
    }

    fn check(&mut self, what: &str) -> Result<()> {
        match self.clients.failure.take() {
            Some(failure) => bail!("{what}: {failure}"),
            None => Ok(()),
        }
    }
}

impl<P, Q> std::fmt::Debug for Generator<P, Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Link {
    /// The Ethernet header of what the generator sends.
    fn header(&self) -> [u8; 14] {
        let mut header = [0; 14];
        header[..6].copy_from_slice(&self.peer_mac);
        header[6..12].copy_from_slice(&self.local_mac);
        header[12..].copy_from_slice(&[0x08, 0x00]);
        header
    }
}

/// Room for every connection with all it may have under way; nothing that asks or ends by itself while a server is
/// slow.
fn stack_config() -> Config {
    Config {
        flows: CONNECTIONS_MAX,
        half_open: 1,
        waiting: CONNECTIONS_MAX,
        chunks: 4 * CONNECTIONS_MAX,
        segments: 4 * CONNECTIONS_MAX,
        keepalive_ns: 0,
        // As patient as Linux is as a client (`TCP_DELACK_MIN`, `TCP_RTO_MIN`, Linux `include/net/tcp.h`): with a thousand
        // requests waiting for their turn replies take milliseconds, and nothing is lost.
        ack_delay_ns: 40 * NS_PER_MS,
        timeout_min_ns: 200 * NS_PER_MS,
        peer_ack_delay_ns: 200 * NS_PER_MS,
        ..Config::default()
    }
}

/// Frames of the stack on their way to the port.
struct Wire<'a, P> {
    port: &'a mut P,
    umem: &'a Umem,
}

impl<P: Port> Output for Wire<'_, P> {
    #[inline]
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.port.transmit_room() == 0 {
            return false;
        }
        let Some(mut frame) = self.port.allocate() else { return false };
        self.umem.compose(&mut frame, build);
        let (port, empty) = (&mut *self.port, frame.is_empty());
        if empty {
            port.release(frame);
        } else if let Err(frame) = port.transmit(frame) {
            port.release(frame);
            return false;
        }
        true
    }
}
