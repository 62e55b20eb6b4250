//! A bounded buffer for a datagram's reply, and memcached's reply lines.

use crate::service::Output;

/// Every line that a carried-out command can be answered with.
pub mod lines {
    /// A store took effect.
    pub const STORED: &[u8] = b"STORED\r\n";
    /// A store's condition did not hold.
    pub const NOT_STORED: &[u8] = b"NOT_STORED\r\n";
    /// The item's CAS is another.
    pub const EXISTS: &[u8] = b"EXISTS\r\n";
    /// The key is absent.
    pub const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";
    /// Removed.
    pub const DELETED: &[u8] = b"DELETED\r\n";
    /// The expiry was changed.
    pub const TOUCHED: &[u8] = b"TOUCHED\r\n";
    /// Done.
    pub const OK: &[u8] = b"OK\r\n";
    /// End of items or statistics.
    pub const END: &[u8] = b"END\r\n";
    /// The statistics start from zero again.
    pub const RESET: &[u8] = b"RESET\r\n";
    /// `mn`.
    pub const META_NOOP: &[u8] = b"MN\r\n";
    /// `me` on a miss.
    pub const META_MISS: &[u8] = b"EN\r\n";
    /// `incr`, `decr` on what is no number.
    pub const NON_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    /// `shutdown`.
    pub const SHUTDOWN_OFF: &[u8] = b"ERROR: shutdown not enabled\r\n";
    /// No room for an item.
    pub const OUT_OF_MEMORY_STORING: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
    /// No room for a number.
    pub const OUT_OF_MEMORY: &[u8] = b"SERVER_ERROR out of memory\r\n";
    /// A table broke its contract.
    pub const UNHANDLED: &[u8] = b"SERVER_ERROR Unhandled storage type.\r\n";
    /// The reply does not fit what the listener allows.
    pub const REPLY_TOO_LARGE: &[u8] = b"SERVER_ERROR reply too large\r\n";
    /// The table answers later, which this front end cannot wait for.
    pub const REPLY_PENDING: &[u8] = b"SERVER_ERROR reply not ready\r\n";
    /// The worker is stale or gone.
    pub const UNAVAILABLE: &[u8] = b"SERVER_ERROR temporarily unavailable\r\n";
    /// Bytes behind the one message of a request datagram.
    pub const TRAILING_BYTES: &[u8] = b"CLIENT_ERROR more than one message in a datagram\r\n";
    /// More than [`MEMCACHED_DATAGRAM_KEYS_MAX`](crate::limits::MEMCACHED_DATAGRAM_KEYS_MAX) keys in a datagram.
    pub const TOO_MANY_KEYS: &[u8] = b"CLIENT_ERROR too many keys in a datagram\r\n";
}

/// One reply on its way out, in a buffer that is allocated once and never grows.
///
/// A reply goes out whole or not at all: [`refuse`](Self::refuse) puts an error line in its place, for which room is kept
/// behind the buffer. A push that does not fit, against what [`Output`] asks, changes nothing but is remembered. The next reply begins with [`clear`](Self::clear).
#[derive(Debug)]
pub struct ReplyBuffer {
    bytes: Box<[u8]>,
    length: usize,
    capacity: usize,
    overflowed: bool,
}

impl ReplyBuffer {
    /// A buffer for a reply of so many bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity + lines::REPLY_TOO_LARGE.len()].into_boxed_slice();
        Self { bytes, length: 0, capacity, overflowed: false }
    }

    /// What has been written.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Forgets everything, also that something did not fit.
    #[inline]
    pub fn clear(&mut self) {
        self.length = 0;
        self.overflowed = false;
    }

    /// Whether nothing has been written.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes written.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether something did not fit.
    #[inline]
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Puts the error line in the place of the reply; whatever was pushed, it fits.
    #[cold]
    pub fn refuse(&mut self) {
        self.length = lines::REPLY_TOO_LARGE.len();
        self.bytes[..self.length].copy_from_slice(lines::REPLY_TOO_LARGE);
        self.overflowed = false;
    }
}

impl Output for ReplyBuffer {
    #[inline]
    fn room(&self) -> usize {
        self.capacity - self.length.min(self.capacity)
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if end > self.capacity || self.overflowed {
            self.overflowed = true;
            return;
        }
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::output::OutputExt;

    #[test]
    fn a_reply_that_does_not_fit_becomes_one_error_line() {
        let mut reply = ReplyBuffer::new(16);
        for _ in 0..2 {
            reply.push(b"VALUE k 0 12\r\n");
            reply.push(b"twelve bytes");
            reply.push(b"");
            assert!(reply.overflowed());
            // Who forgets to clear gets the same line again, and no panic.
            reply.refuse();
            assert_eq!(reply.as_bytes(), b"SERVER_ERROR reply too large\r\n");
            assert_eq!(reply.room(), 0);
        }
        reply.clear();
        assert!(reply.is_empty() && !reply.overflowed());
        reply.push(&[b'x'; 16]);
        assert_eq!((reply.len(), reply.overflowed()), (16, false));
    }

    #[test]
    fn once_overflowed_nothing_smaller_slips_in() {
        let mut reply = ReplyBuffer::new(4);
        reply.push(b"12345");
        reply.push_number(7);
        assert!(reply.is_empty() && reply.overflowed());
    }
}
