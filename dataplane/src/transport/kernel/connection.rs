//! One connection: what it waits for, and the bytes that wait on it.

use std::os::fd::OwnedFd;

use crate::net::tcp::chain::Chain;
use crate::net::tcp::pool::{BlockId, Blocks, Chunks};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are answered.
    Open,
    /// What is to be sent is sent; nothing more is answered.
    Finishing,
    /// Everything was sent and the client knows that it is the end; what it still says is read and forgotten, since
    /// closing with bytes unread would reset the connection, and the last reply would be lost with it.
    Lingering,
    /// Over: waits for operations that are under way.
    Over,
}

/// Bytes that were received and are not done with, in one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread {
    block: BlockId,
    start: usize,
    length: usize,
}

/// A connection.
pub(super) struct Connection {
    pub(super) descriptor: OwnedFd,
    pub(super) phase: Phase,
    pub(super) receiving: bool,
    pub(super) sending: bool,
    /// The client has said all it has to say.
    pub(super) ended: bool,
    /// In the list of those to be looked at when the completions are done with.
    pub(super) listed: bool,
    /// In the list of those that wait for the pools.
    pub(super) waiting: bool,
    pub(super) unread: Option<Unread>,
    /// Bytes unread with which there is something to do.
    pub(super) needed: usize,
    /// Room in the output that the service waits for; 0 is none.
    pub(super) room_wanted: usize,
    pub(super) output: Chain,
    /// When bytes last came, or went.
    pub(super) active_ns: u64,
    /// Since when it is looked at how fast its replies are read, and how many bytes of them were meanwhile.
    pub(super) reading_since_ns: u64,
    pub(super) read_bytes: usize,
    /// Since when a request lies unread that is not whole; 0 while none does.
    pub(super) incomplete_ns: u64,
}

impl Connection {
    pub(super) fn new(descriptor: OwnedFd, now_ns: u64) -> Self {
        Self {
            descriptor,
            phase: Phase::Open,
            receiving: false,
            sending: false,
            ended: false,
            listed: false,
            waiting: false,
            unread: None,
            needed: 1,
            room_wanted: 0,
            output: Chain::EMPTY,
            active_ns: now_ns,
            reading_since_ns: now_ns,
            read_bytes: 0,
            incomplete_ns: 0,
        }
    }

    /// Bytes unread.
    pub(super) fn unread_bytes(&self) -> usize {
        self.unread.map_or(0, |unread| unread.length)
    }

    /// Bytes that can be kept behind those unread, at most `most`, once there is as good a block for them as can be had; 0 is
    /// none, until others give theirs back.
    pub(super) fn make_room(&mut self, blocks: &mut Blocks<()>, most: usize) -> usize {
        let Some(unread) = &mut self.unread else { return blocks.largest_free().min(most) };
        let mut capacity = blocks.capacity(unread.block);
        if self.needed > capacity
            // No larger than the message is known to be: who sends a byte and no more must not hold what others need.
            && let Some(larger) = blocks.take_near(self.needed)
        {
            blocks.copy(unread.block, unread.start..unread.start + unread.length, larger);
            blocks.give(unread.block);
            *unread = Unread { block: larger, start: 0, length: unread.length };
            capacity = blocks.capacity(larger);
        }
        if unread.start > 0 && unread.start + unread.length + most > capacity {
            let (_, block) = blocks.parts_mut(unread.block);
            block.copy_within(unread.start..unread.start + unread.length, 0);
            unread.start = 0;
        }
        (capacity - unread.start - unread.length).min(most)
    }

    /// Keeps bytes behind those unread. False when there is no room for them.
    pub(super) fn keep(&mut self, blocks: &mut Blocks<()>, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.unread.is_none() {
            let Some(block) = blocks.take_near(bytes.len()) else { return false };
            self.unread = Some(Unread { block, start: 0, length: 0 });
        } else if self.make_room(blocks, bytes.len()) < bytes.len() {
            return false;
        }
        let Some(unread) = &mut self.unread else { return false };
        let end = unread.start + unread.length;
        blocks.parts_mut(unread.block).1[end..end + bytes.len()].copy_from_slice(bytes);
        unread.length += bytes.len();
        true
    }

    /// The bytes unread.
    pub(super) fn peek<'b>(&self, blocks: &'b Blocks<()>) -> &'b [u8] {
        self.unread.map_or(&[], |unread| &blocks.bytes(unread.block)[unread.start..][..unread.length])
    }

    /// Lets go of the first bytes unread.
    pub(super) fn consume(&mut self, blocks: &mut Blocks<()>, bytes: usize) {
        let Some(unread) = &mut self.unread else { return };
        unread.start += bytes;
        unread.length -= bytes;
        if unread.length == 0 {
            blocks.give(unread.block);
            self.unread = None;
        }
    }

    /// Gives everything back to the pools.
    pub(super) fn release(&mut self, blocks: &mut Blocks<()>, chunks: &mut Chunks) {
        if let Some(unread) = self.unread.take() {
            blocks.give(unread.block);
        }
        self.output.clear(chunks);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::net::tcp::pool::Class;
    use crate::worker::wake::Wake;

    fn connection() -> Connection {
        use std::os::fd::AsFd;
        let any = Wake::new().and_then(|wake| wake.as_fd().try_clone_to_owned()).expect("a descriptor");
        Connection::new(any, 0)
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_came_and_every_block_comes_back(
            steps in proptest::collection::vec((0usize..40, 0usize..60, 0usize..128), 1..100),
        ) {
            let class = |bytes, count| Class { bytes, count };
            let mut blocks = Blocks::new([class(16, 2), class(32, 2), class(64, 1), class(128, 1)], &());
            let free = blocks.available();
            let mut connection = connection();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (came, read, needed) in steps {
                connection.needed = needed.max(model.len() + 1).min(128);
                let room = connection.make_room(&mut blocks, came);
                let bytes: Vec<u8> = (0..room).map(|_| { next = next.wrapping_add(1); next }).collect();
                prop_assert!(connection.keep(&mut blocks, &bytes), "what there was room for");
                prop_assert!(came == 0 || room > 0 || model.len() == 128, "the only connection goes on");
                model.extend(&bytes);
                prop_assert!(connection.peek(&blocks).iter().eq(&model));
                let read = read.min(model.len());
                model.drain(..read);
                connection.consume(&mut blocks, read);
                prop_assert_eq!(connection.unread_bytes(), model.len());
            }
            connection.release(&mut blocks, &mut Chunks::new(1, 8));
            prop_assert_eq!(blocks.available(), free);
        }
    }

    #[test]
    fn a_short_beginning_holds_a_small_block_only() {
        let class = |bytes, count| Class { bytes, count };
        let mut blocks = Blocks::new([class(16, 1), class(32, 1), class(64, 1), class(128, 1)], &());
        let mut connections: Vec<Connection> = (0..3).map(|_| connection()).collect();
        // The second has the next size for want of the first; the third has none: the larger ones are for longer requests.
        let kept = connections.iter_mut().map(|connection| connection.keep(&mut blocks, b"g"));
        assert_eq!(kept.collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(blocks.available(), [0, 0, 1, 1]);
        connections[0].needed = 100;
        assert_eq!(connections[0].make_room(&mut blocks, 1_000), 127);
        assert_eq!(blocks.available(), [1, 0, 1, 0]);
    }
}
