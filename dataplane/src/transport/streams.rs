//! Byte streams for services: which listener a connection belongs to, and the service that is asked.
//!
//! Whatever carries the bytes (our own TCP over a port, or the kernel's) numbers its connections from 0 and has one
//! [`StreamListeners`] of its own, so that a number means one connection to each service.

use std::net::{IpAddr, SocketAddr};

use crate::metrics::{DropReason, WorkerMetrics};
use crate::net::allow::AllowList;
use crate::service::{Context, Output, Progress, StreamService};

/// One service on one port, as one transport serves it.
pub struct StreamListener {
    /// Addresses it answers on; empty is every address.
    pub addresses: Vec<IpAddr>,
    /// Port.
    pub port: u16,
    /// Its packets pass the kernel by: over an ordinary socket comes only what the XDP program does not see or passes on.
    pub steered: bool,
    /// Sources that are served.
    pub allow: AllowList,
    /// What it serves.
    pub service: Box<dyn StreamService>,
}

impl StreamListener {
    fn is_meant(&self, local: SocketAddr) -> bool {
        local.port() == self.port && (self.addresses.is_empty() || self.addresses.contains(&local.ip()))
    }
}

/// What becomes of somebody who wants to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// He is served.
    Serve,
    /// Nobody listens there.
    NoService,
    /// His address is not on the listener's list: he gets no answer at all.
    NotAllowed,
}

/// The listeners of one transport, and whose each of its connections is.
pub struct StreamListeners {
    listeners: Vec<StreamListener>,
    /// By the connection's number: its listener's. What it is while nobody is connected means nothing.
    listener_of: Box<[u16]>,
}

impl StreamListeners {
    /// For at most so many connections. Where two listeners would match, the earlier one serves.
    ///
    /// # Panics
    /// When there are more than 65 536 listeners.
    #[must_use]
    pub fn new(listeners: Vec<StreamListener>, connections_max: usize) -> Self {
        assert!(listeners.len() <= usize::from(u16::MAX) + 1, "a listener's number has 16 bits");
        Self { listeners, listener_of: vec![0; connections_max].into_boxed_slice() }
    }

    /// True when nobody listens for streams.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Whether somebody may connect, and to whom. Drops are counted.
    pub fn admit(&self, local: SocketAddr, peer: SocketAddr, metrics: &WorkerMetrics) -> Admission {
        match self.find(local) {
            None => {
                metrics.dropped(DropReason::NoService);
                Admission::NoService
            }
            Some(number) if !self.listeners[number].allow.contains(peer.ip()) => {
                metrics.dropped(DropReason::SourceNotAllowed);
                Admission::NotAllowed
            }
            Some(_) => Admission::Serve,
        }
    }

    /// A connection that was admitted is open. False when nobody listens there any more.
    pub fn opened(&mut self, connection: usize, local: SocketAddr, peer: SocketAddr) -> bool {
        let Some(number) = self.find(local) else { return false };
        self.listener_of[connection] = u16::try_from(number).expect("no more than 65 536 listeners");
        self.listeners[number].service.opened(connection, local, peer);
        true
    }

    /// What somebody is told who connects to a listener that is steered, over an ordinary socket, while another worker may
    /// have his items; `None` when the listener is not steered.
    #[must_use]
    pub fn unavailable(&self, local: SocketAddr) -> Option<&'static [u8]> {
        let listener = &self.listeners[self.find(local)?];
        listener.steered.then(|| listener.service.unavailable())
    }

    /// Shows a connection's service what came.
    #[inline]
    pub fn advance(
        &mut self,
        context: &mut Context<'_>,
        connection: usize,
        input: &[u8],
        output: &mut dyn Output,
    ) -> Progress {
        let number = usize::from(self.listener_of[connection]);
        let progress = self.listeners[number].service.advance(context, connection, input, output);
        debug_assert!(progress.consumed <= input.len(), "a service consumes what it was shown");
        Progress { consumed: progress.consumed.min(input.len()), ..progress }
    }

    /// The key that what came on a connection is most likely about.
    #[inline]
    pub fn key_hint<'i>(&self, connection: usize, input: &'i [u8]) -> Option<&'i [u8]> {
        let number = usize::from(self.listener_of[connection]);
        self.listeners[number].service.key_hint(input)
    }

    /// A connection is over.
    pub fn closed(&mut self, connection: usize) {
        let number = usize::from(self.listener_of[connection]);
        self.listeners[number].service.closed(connection);
    }

    fn find(&self, local: SocketAddr) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.is_meant(local))
    }
}

impl std::fmt::Debug for StreamListeners {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports: Vec<u16> = self.listeners.iter().map(|listener| listener.port).collect();
        out.debug_struct("StreamListeners").field("ports", &ports).finish_non_exhaustive()
    }
}
