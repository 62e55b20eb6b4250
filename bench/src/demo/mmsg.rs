//! Many datagrams in one system call, over ordinary kernel sockets (`sendmmsg(2)`, `recvmmsg(2)`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of the longest datagram carried.
const DATAGRAM_BYTES: usize = 2048;

/// A fixed set of buffers with the headers the kernel wants. All its memory is taken when it is made.
pub(super) struct Batch {
    buffers: Vec<[u8; DATAGRAM_BYTES]>,
    lengths: Vec<usize>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    used: usize,
}

impl Batch {
    /// Room for `datagrams`.
    pub(super) fn new(datagrams: usize) -> Self {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: an all-zero `mmsghdr` is a valid value of the plain C struct: no name, no vectors.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            buffers: vec![[0; DATAGRAM_BYTES]; datagrams],
            lengths: vec![0; datagrams],
            vectors: vec![vector; datagrams],
            headers: vec![header; datagrams],
            used: 0,
        }
    }

    /// Adds a datagram: `write` gets its buffer and gives its length.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let buffer = &mut self.buffers[self.used];
        self.lengths[self.used] = write(buffer).min(DATAGRAM_BYTES);
        self.used += 1;
    }

    /// Sends what was pushed on a connected socket and forgets it. Returns how many the kernel took; a full
    /// socket buffer takes fewer.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let used = std::mem::take(&mut self.used);
        if used == 0 {
            return Ok(0);
        }
        self.point(used, |lengths, index| lengths[index]);
        // SAFETY: the descriptor is open; the first `used` headers each point to one vector, and that to a
        // buffer of at least its length; all live in `self` and are not touched during the call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                used as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).or_else(|_| would_block())
    }

    /// Receives what is there, without waiting. Returns how many datagrams.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let capacity = self.buffers.len();
        self.point(capacity, |_, _| DATAGRAM_BYTES);
        // SAFETY: as in `send`; the kernel writes no more than each vector's length into its buffer.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                capacity as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).or_else(|_| would_block())?;
        for index in 0..received {
            self.lengths[index] = (self.headers[index].msg_len as usize).min(DATAGRAM_BYTES);
        }
        Ok(received)
    }

    /// A received datagram.
    pub(super) fn datagram(&self, index: usize) -> &[u8] {
        &self.buffers[index][..self.lengths[index]]
    }

    /// Points headers and vectors at the buffers. Done before every call, as the pointers must not outlive a
    /// move of `self`'s vectors.
    fn point(&mut self, datagrams: usize, length: impl Fn(&[usize], usize) -> usize) {
        for index in 0..datagrams {
            self.vectors[index] = libc::iovec {
                iov_base: self.buffers[index].as_mut_ptr().cast(),
                iov_len: length(&self.lengths, index),
            };
            self.headers[index].msg_hdr.msg_iov = &raw mut self.vectors[index];
            self.headers[index].msg_hdr.msg_iovlen = 1;
        }
    }
}

fn would_block() -> io::Result<usize> {
    match io::Error::last_os_error() {
        error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn datagrams_arrive_whole_and_in_order() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bound");
        sender.connect(receiver.local_addr().expect("an address")).expect("connected");
        let mut batch = Batch::new(8);
        for byte in 0..5 {
            batch.push(|buffer| {
                buffer[..10].fill(byte);
                10 - usize::from(byte)
            });
        }
        assert_eq!(batch.send(sender.as_fd()).expect("sent"), 5);
        let mut received = Batch::new(8);
        assert_eq!(received.receive(receiver.as_fd()).expect("received"), 5);
        for byte in 0..5 {
            assert_eq!(received.datagram(usize::from(byte)), vec![byte; 10 - usize::from(byte)]);
        }
        assert_eq!(received.receive(receiver.as_fd()).expect("nothing there"), 0);
    }
}
