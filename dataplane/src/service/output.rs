//! Where replies go: what a session needs to know of a buffer that it fills.

/// A place for replies that has an end: one datagram's reply, or a connection's send buffer.
///
/// A session looks at the room before a command does anything, and answers that it needs more instead of writing half
/// a reply; so whoever keeps the output decides what a reply without room becomes: an error for a datagram, a later
/// turn for a stream.
pub trait Output {
    /// Bytes that can be pushed now.
    fn room(&self) -> usize;

    /// Bytes that can be pushed at most, once all that is in it has gone. What needs more than this never fits.
    fn capacity(&self) -> usize;

    /// Appends bytes. A session pushes no more than there is room for; bytes beyond it must not be written anywhere.
    fn push(&mut self, bytes: &[u8]);
}

impl<O: Output + ?Sized> Output for &mut O {
    #[inline]
    fn room(&self) -> usize {
        (**self).room()
    }

    #[inline]
    fn capacity(&self) -> usize {
        (**self).capacity()
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        (**self).push(bytes);
    }
}
