//! Where replies go: what a session needs to know of a buffer that it fills.

use super::digits::{U64_DIGITS_MAX, format_u64};

/// A place for replies that has an end: one datagram's reply, or a connection's send buffer.
///
/// A session looks at the room before a command does anything, and answers that it needs more instead of writing half a
/// reply; so whoever keeps the output decides what a reply without room becomes: an error for a datagram, a later turn
/// for a stream.
pub trait Output {
    /// Bytes that can be pushed now.
    fn room(&self) -> usize;

    /// Bytes that can be pushed at most, once all that is in it has gone. What needs more than this never fits.
    fn capacity(&self) -> usize;

    /// Appends bytes. A session pushes no more than there is room for; bytes beyond it must not be written anywhere.
    fn push(&mut self, bytes: &[u8]);

    /// Appends a number.
    #[inline]
    fn push_number(&mut self, number: u64) {
        // Most client flags are 0: one byte is cheaper to store than to copy.
        if number < 10 {
            return self.push(&[b'0' + number as u8]);
        }
        self.push(format_u64(number, &mut [0; U64_DIGITS_MAX]));
    }
}
