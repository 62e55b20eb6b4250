//! Sending what lies in several chunks with one operation.

use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::opcode;
use io_uring::types::Fd;

use super::connection::Connection;
use super::ring::{Ring, Token};
use crate::net::tcp::pool::Chunks;

/// Chunks that one operation sends.
const PIECES: usize = 32;
/// Operations of that kind at the same time; further ones send a chunk each.
const GATHERS: usize = 512;

struct Gather {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES],
    connection: u32,
}

/// Lists of pieces that operations under way point to.
pub(super) struct Gathers {
    gathers: Box<[Gather]>,
    free: Vec<u32>,
    used: Vec<u32>,
}

impl Gathers {
    pub(super) fn new() -> Self {
        let empty = || Gather {
            // SAFETY: plain old data, for which zeros are a valid value.
            header: unsafe { mem::zeroed() },
            // SAFETY: as above.
            pieces: unsafe { mem::zeroed() },
            connection: 0,
        };
        Self {
            gathers: (0..GATHERS).map(|_| empty()).collect(),
            free: (0..GATHERS as u32).collect(),
            used: Vec::with_capacity(GATHERS),
        }
    }

    /// Sends what the connection has to send, or its beginning. It must not be sending already.
    pub(super) fn send(
        &mut self,
        ring: &mut Ring,
        number: u32,
        connection: &mut Connection,
        chunks: &Chunks,
    ) {
        debug_assert!(!connection.sending);
        let descriptor = Fd(connection.descriptor.as_fd().as_raw_fd());
        let mut pieces = connection.output.pieces(chunks);
        let Some(first) = pieces.next() else { return };
        let several = first.len() < connection.output.bytes() as usize;
        let entry = match if several { self.free.pop() } else { None } {
            Some(free) => {
                let gather = &mut self.gathers[free as usize];
                let mut count = 0;
                for (place, piece) in gather.pieces.iter_mut().zip(std::iter::once(first).chain(pieces)) {
                    *place = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
                    count += 1;
                }
                gather.header.msg_iov = gather.pieces.as_mut_ptr();
                gather.header.msg_iovlen = count;
                gather.connection = number;
                self.used.push(free);
                let header: *const libc::msghdr = &raw const gather.header;
                opcode::SendMsg::new(descriptor, header).flags(libc::MSG_NOSIGNAL as u32).build()
            }
            None => opcode::Send::new(descriptor, first.as_ptr(), first.len() as u32)
                .flags(libc::MSG_NOSIGNAL)
                .build(),
        };
        // SAFETY: the pieces lie in chunks that the connection's output holds until the completion consumes them, and bytes
        // of an output are never changed, only followed by others; header and pieces lie in a boxed slice, at a place
        // that is used for nothing else before `release`, which the completion brings about.
        unsafe { ring.push(entry, Token::Send(number)) };
        connection.sending = true;
    }

    /// The connection's send is over.
    pub(super) fn release(&mut self, number: u32) {
        let holds = |&used: &u32| self.gathers[used as usize].connection == number;
        if let Some(at) = self.used.iter().position(holds) {
            self.free.push(self.used.swap_remove(at));
        }
    }
}
