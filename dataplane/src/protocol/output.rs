//! Numbers into an output.

use super::digits::{U64_DIGITS_MAX, format_u64};
use crate::service::Output;

/// What every protocol writes besides bytes.
pub trait OutputExt: Output {
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

impl<O: Output + ?Sized> OutputExt for O {}
