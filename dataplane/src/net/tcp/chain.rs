//! Bytes on their way out: those sent and not acknowledged, then those not sent, in a chain of small chunks from
//! the shared pool. An idle flow holds none.

use super::pool::{Chunks, NIL};

/// A chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    head: u32,
    tail: u32,
    /// Where the first byte stands in the head.
    skip: u32,
    /// Bytes in all.
    bytes: u32,
    /// A chunk further on, so that reading near the end need not walk there, and how many bytes come before its
    /// start, counted from the start of the head.
    mark: u32,
    mark_at: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { head: NIL, tail: NIL, skip: 0, bytes: 0, mark: NIL, mark_at: 0 };

    /// Bytes in it.
    #[inline]
    pub(crate) const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Appends as much as there are chunks for, and no more than `limit` bytes in all; returns how much.
    pub(crate) fn push(&mut self, chunks: &mut Chunks, bytes: &[u8], limit: u32) -> usize {
        let room = limit.saturating_sub(self.bytes) as usize;
        let mut rest = &bytes[..bytes.len().min(room)];
        let chunk_bytes = chunks.chunk_bytes();
        let accepted = rest.len();
        while !rest.is_empty() {
            let end = (self.skip + self.bytes) as usize % chunk_bytes;
            if self.head == NIL || end == 0 {
                let Some(chunk) = chunks.take() else { break };
                if self.head == NIL {
                    (self.head, self.skip) = (chunk, 0);
                } else {
                    chunks.link(self.tail, chunk);
                }
                self.tail = chunk;
            }
            let part = rest.len().min(chunk_bytes - end);
            chunks.bytes_mut(self.tail)[end..end + part].copy_from_slice(&rest[..part]);
            self.bytes += part as u32;
            rest = &rest[part..];
        }
        accepted - rest.len()
    }

    /// Lets go of the first bytes.
    pub(crate) fn consume(&mut self, chunks: &mut Chunks, bytes: u32) {
        debug_assert!(bytes <= self.bytes, "more than there is");
        let chunk_bytes = chunks.chunk_bytes() as u32;
        self.bytes -= bytes;
        self.skip += bytes;
        // An empty chain holds no chunk, a part of one neither.
        while self.head != NIL && (self.skip >= chunk_bytes || self.bytes == 0) {
            let next = chunks.next(self.head);
            if self.mark == self.head {
                self.mark = NIL;
            } else {
                self.mark_at = self.mark_at.wrapping_sub(chunk_bytes);
            }
            chunks.give(self.head);
            self.head = next;
            self.skip = self.skip.saturating_sub(chunk_bytes);
        }
        if self.head == NIL {
            *self = Self::EMPTY;
        }
    }

    /// Copies the bytes from `offset` on into `out`, which they fill.
    pub(crate) fn read(&mut self, chunks: &Chunks, offset: u32, out: &mut [u8]) {
        debug_assert!(offset as usize + out.len() <= self.bytes as usize, "beyond the end");
        if out.is_empty() {
            return;
        }
        let chunk_bytes = chunks.chunk_bytes() as u32;
        let at = self.skip + offset;
        let (mut chunk, mut start) =
            if self.mark != NIL && self.mark_at <= at { (self.mark, self.mark_at) } else { (self.head, 0) };
        while at - start >= chunk_bytes {
            (chunk, start) = (chunks.next(chunk), start + chunk_bytes);
        }
        (self.mark, self.mark_at) = (chunk, start);
        let mut within = (at - start) as usize;
        let mut rest = out;
        loop {
            let part = rest.len().min(chunk_bytes as usize - within);
            let (here, behind) = rest.split_at_mut(part);
            here.copy_from_slice(&chunks.bytes(chunk)[within..within + part]);
            if behind.is_empty() {
                return;
            }
            (rest, within, chunk) = (behind, 0, chunks.next(chunk));
        }
    }

    /// The bytes, piece by piece.
    pub(crate) fn pieces<'c>(&self, chunks: &'c Chunks) -> impl Iterator<Item = &'c [u8]> + use<'c> {
        let (mut chunk, mut skip, mut left) = (self.head, self.skip as usize, self.bytes as usize);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let piece = &chunks.bytes(chunk)[skip..];
            let piece = &piece[..piece.len().min(left)];
            (chunk, skip, left) = (chunks.next(chunk), 0, left - piece.len());
            Some(piece)
        })
    }

    /// Chunks it holds: for tests and fuzzing.
    pub(crate) fn count(&self, chunks: &Chunks) -> usize {
        let linked = |chunk| (chunk != NIL).then_some(chunk);
        std::iter::successors(linked(self.head), |&chunk| linked(chunks.next(chunk))).count()
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self, chunks: &mut Chunks) {
        self.consume(chunks, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Consume(usize),
        Read(usize, usize),
    }

    proptest! {
        #[test]
        fn agrees_with_a_queue_and_gives_every_chunk_back(
            steps in proptest::collection::vec(prop_oneof![
                (0usize..60).prop_map(Step::Push),
                (0usize..60).prop_map(Step::Consume),
                (0usize..200, 0usize..60).prop_map(|(at, bytes)| Step::Read(at, bytes)),
            ], 1..200),
        ) {
            let mut chunks = Chunks::new(12, 8);
            let mut chain = Chain::EMPTY;
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut byte = 0u8;
            for step in steps {
                match step {
                    Step::Push(count) => {
                        let bytes: Vec<u8> = (0..count).map(|_| { byte = byte.wrapping_add(1); byte }).collect();
                        let accepted = chain.push(&mut chunks, &bytes, 80);
                        prop_assert!(accepted == count || chunks.available() == 0 || model.len() + accepted == 80);
                        model.extend(&bytes[..accepted]);
                    }
                    Step::Consume(count) => {
                        let count = count.min(model.len());
                        model.drain(..count);
                        chain.consume(&mut chunks, count as u32);
                    }
                    Step::Read(at, bytes) => {
                        let at = at.min(model.len());
                        let mut out = vec![0; bytes.min(model.len() - at)];
                        chain.read(&chunks, at as u32, &mut out);
                        let expected: Vec<u8> = model.range(at..at + out.len()).copied().collect();
                        prop_assert_eq!(out, expected);
                    }
                }
                prop_assert_eq!(chain.bytes() as usize, model.len());
                let whole: Vec<u8> = chain.pieces(&chunks).flatten().copied().collect();
                prop_assert!(whole.iter().eq(&model));
            }
            chain.clear(&mut chunks);
            prop_assert_eq!(chunks.available(), 12);
        }
    }
}
