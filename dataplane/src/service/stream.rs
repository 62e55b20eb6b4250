//! Services over byte streams: many connections, each with its requests and replies in order.

use std::net::SocketAddr;

use super::{Context, Output};

/// How far a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// Bytes at the input's beginning that are done with; the next input begins behind them.
    pub consumed: usize,
    /// What it waits for.
    pub next: Next,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// For so many unread bytes, those that are there included.
    Input {
        /// Unread bytes with which there is something to do.
        bytes: usize,
    },
    /// For so much room in the output; at most its capacity.
    Room {
        /// Bytes.
        bytes: usize,
    },
    /// For nothing more: what is in the output is to be sent, and the connection closed.
    Close,
}

/// A protocol served over byte streams. There is one instance for each worker's transport, used from one thread;
/// nothing in it may allocate, lock, read a clock or make a system call per request.
pub trait StreamService: Send {
    /// A connection is open. Until [`StreamService::closed`] no other has this number, which is below
    /// [`ServiceSetup::connections_max`](super::ServiceSetup::connections_max).
    fn opened(&mut self, connection: usize, local: SocketAddr, peer: SocketAddr);

    /// Handles what a client sent: carries out the whole requests in `input`, and pushes their replies. `input` is all
    /// that has come and was not consumed, in one piece. Whatever the bytes are, it returns: bad input is answered in
    /// the protocol's words.
    fn advance(
        &mut self,
        context: &mut Context<'_>,
        connection: usize,
        input: &[u8],
        output: &mut dyn Output,
    ) -> Progress;

    /// The key that a message at the beginning of `input` is most likely about, found without parsing all of it. While
    /// one message is served, the table's memory for those of other connections behind it is already on its way into the
    /// cache; a wrong guess costs only that.
    fn key_hint<'i>(&self, input: &'i [u8]) -> Option<&'i [u8]> {
        let _ = input;
        None
    }

    /// A connection is over.
    fn closed(&mut self, connection: usize);

    /// The protocol's own "temporarily unavailable", sent to a client that reaches a stale worker or none at all before
    /// its connection is closed; empty says nothing.
    fn unavailable(&self) -> &'static [u8] {
        b""
    }
}
