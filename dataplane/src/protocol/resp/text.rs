//! Text whose length only writing tells.

use crate::service::Output;

/// Counts bytes and keeps none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measure {
    /// Bytes pushed.
    pub(super) bytes: usize,
}

impl Output for Measure {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn capacity(&self) -> usize {
        usize::MAX
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
    }
}

/// Most bytes of a [`Text`]: more than `INFO` has, whatever its numbers.
const TEXT_BYTES_MAX: usize = 2048;

/// A text on the stack. What is beyond its end is cut off.
#[derive(Debug)]
pub(super) struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; TEXT_BYTES_MAX], length: 0 }
    }
}

impl Text {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        debug_assert!(end <= TEXT_BYTES_MAX, "a text of {end} bytes is cut off");
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        }
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}
