//! What a transport hands its datagrams and streams to.

use crate::service::{Context, Datagram, Replies};
use crate::table::Hint;
use crate::time::Now;

/// What serves datagrams: first told what comes, in two steps, then handed each. And what streams' services work with.
pub trait Server {
    /// Starts what a datagram will need on its way into the cache.
    fn prepare(&self, datagram: &Datagram<'_>) -> Option<Hint>;

    /// The same for a key that a stream is most likely about to ask for.
    fn prepare_key(&self, key: &[u8]) -> Hint;

    /// The second step, when the rest of the batch was prepared.
    fn anticipate(&self, hint: Hint);

    /// Serves a datagram.
    fn serve(&mut self, datagram: &Datagram<'_>, replies: &mut dyn Replies);

    /// The time of this poll.
    fn now(&self) -> Now;

    /// What a stream's service works with.
    fn context(&mut self) -> Context<'_>;
}
