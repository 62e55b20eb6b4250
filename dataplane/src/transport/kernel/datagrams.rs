//! Datagrams: one receive a socket that goes on (`IORING_RECV_MULTISHOT`), and each reply sent from a slot of its own.

use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use io_uring::opcode;
use io_uring::types::{Fd, RecvMsgOut};

use super::buffers::Buffers;
use super::error::KernelError;
use super::message::{self, CONTROL_BYTES_MAX, NAME_BYTES_MAX};
use super::ring::{Completion, Ring, Token, error_of};
use crate::limits::{KERNEL_DATAGRAM_BYTES_MAX, KERNEL_DATAGRAMS, KERNEL_REPLIES};
use crate::metrics::{DropReason, WorkerMetrics};
use crate::service::{Datagram, Replies, Via};
use crate::transport::server::Server;

/// What the kernel writes in front of a datagram's name, control message and payload (`struct io_uring_recvmsg_out`).
const HEADER_BYTES: usize = 16;

/// One socket, and its receive.
struct Socket {
    descriptor: OwnedFd,
    port: u16,
    receiving: bool,
}

/// The control message of a reply, aligned as the kernel reads it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES_MAX]);

/// One reply on its way. Its addresses do not change while the kernel has it.
struct Slot {
    header: libc::msghdr,
    vector: libc::iovec,
    name: [u8; NAME_BYTES_MAX],
    control: Control,
}

/// The sockets for datagrams.
pub(super) struct Datagrams {
    sockets: Vec<Socket>,
    /// Sizes of name and control message, for every receive.
    header: Box<libc::msghdr>,
    buffers: Buffers,
    slots: Slots,
    /// Which socket was armed first the last time.
    first: usize,
    /// Sockets whose receive has ended: most often for want of buffers, which come back with the poll.
    ended: usize,
}

impl Datagrams {
    pub(super) fn new(ring: &Ring, group: u16, sockets: Vec<(OwnedFd, u16)>) -> Result<Self, KernelError> {
        // SAFETY: plain old data, for which zeros are a valid value.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        header.msg_namelen = NAME_BYTES_MAX as libc::socklen_t;
        header.msg_controllen = CONTROL_BYTES_MAX as _;
        let bytes = HEADER_BYTES + NAME_BYTES_MAX + CONTROL_BYTES_MAX + KERNEL_DATAGRAM_BYTES_MAX;
        let buffers = Buffers::register(ring, group, KERNEL_DATAGRAMS, bytes)?;
        let count = if sockets.is_empty() { 0 } else { KERNEL_REPLIES };
        let ended = sockets.len();
        let sockets = sockets
            .into_iter()
            .map(|(descriptor, port)| Socket { descriptor, port, receiving: false })
            .collect();
        Ok(Self { sockets, header, buffers, slots: Slots::new(count), first: 0, ended })
    }

    /// Has every socket receive.
    pub(super) fn arm(&mut self, ring: &mut Ring) {
        if self.ended == 0 {
            return;
        }
        // Another one first each time: what a flood of the first leaves of the buffers goes to the next.
        self.first = (self.first + 1) % self.sockets.len();
        for turn in 0..self.sockets.len() {
            let number = (self.first + turn) % self.sockets.len();
            let socket = &mut self.sockets[number];
            if socket.receiving {
                continue;
            }
            let descriptor = Fd(socket.descriptor.as_raw_fd());
            let header: *const libc::msghdr = &raw const *self.header;
            let receive = opcode::RecvMsgMulti::new(descriptor, header, self.buffers.group()).build();
            // SAFETY: the header lies in a box of its own, is never changed, and outlives the ring's operations as all of
            // the transport's memory does.
            unsafe { ring.push(receive, Token::Datagram(number as u32)) };
            socket.receiving = true;
        }
        self.ended = 0;
    }

    /// Serves what was received.
    pub(super) fn received(
        &mut self,
        ring: &mut Ring,
        number: u32,
        completion: Completion,
        metrics: &WorkerMetrics,
        server: &mut impl Server,
    ) {
        let Self { sockets, header, buffers, slots, ended, .. } = self;
        let Some(socket) = sockets.get_mut(number as usize) else { return };
        if !completion.more() {
            socket.receiving = false;
            *ended += 1;
        }
        let Some(id) = completion.buffer() else {
            // Without a buffer there is no datagram. An ICMP error of an earlier reply is told this way too.
            if completion.result < 0 && completion.result != -libc::ENOBUFS {
                tracing::debug!(error = %error_of(completion.result), "a socket cannot receive");
            }
            return;
        };
        let buffer = buffers.filled(id, usize::try_from(completion.result).unwrap_or(0));
        metrics.kernel_received.increment();
        match read(buffers.bytes(&buffer), header, socket.port) {
            Some((source, destination, payload)) => {
                let datagram = Datagram { source, destination, payload, via: Via::Kernel };
                server.serve(
                    &datagram,
                    &mut KernelReplies { datagram: &datagram, socket, slots, ring, metrics },
                );
            }
            None => metrics.dropped(DropReason::Malformed),
        }
        buffers.give_back(buffer);
    }

    /// A reply has gone.
    pub(super) fn replied(&mut self, slot: u32, completion: Completion, metrics: &WorkerMetrics) {
        self.slots.free.push(slot);
        match completion.result {
            0.. => metrics.kernel_sent.increment(),
            _ => metrics.dropped(DropReason::SocketFull),
        }
    }

    /// Shows the kernel the buffers that were given back.
    pub(super) fn publish(&mut self) {
        self.buffers.publish();
    }
}

/// Source, destination and payload of what the kernel wrote into a buffer; `None` when it is not to be answered: cut
/// short, from nowhere, or sent to a broadcast or multicast address.
fn read<'b>(bytes: &'b [u8], header: &libc::msghdr, port: u16) -> Option<(SocketAddr, SocketAddr, &'b [u8])> {
    let message = RecvMsgOut::parse(bytes, header).ok()?;
    let cut = message.is_payload_truncated() || message.is_control_data_truncated();
    let source = message::read_name(message.name_data())?;
    let destination = message::read_destination(message.control_data(), port)?;
    // The parts borrow the message, which borrows the bytes: taken from these, the payload outlives it.
    let payload = &bytes[HEADER_BYTES + NAME_BYTES_MAX + CONTROL_BYTES_MAX..];
    let payload = payload.get(..message.payload_data().len())?;
    (!cut && source.port() != 0).then_some((source, destination, payload))
}

/// Replies on their way, and where others can be put.
struct Slots {
    slots: Box<[Slot]>,
    payloads: Box<[u8]>,
    free: Vec<u32>,
}

impl Slots {
    fn new(count: usize) -> Self {
        let empty = || Slot {
            // SAFETY: plain old data, for which zeros are a valid value.
            header: unsafe { mem::zeroed() },
            // SAFETY: as above.
            vector: unsafe { mem::zeroed() },
            name: [0; NAME_BYTES_MAX],
            control: Control([0; CONTROL_BYTES_MAX]),
        };
        Self {
            slots: (0..count).map(|_| empty()).collect(),
            payloads: vec![0; count * KERNEL_DATAGRAM_BYTES_MAX].into_boxed_slice(),
            free: (0..count as u32).rev().collect(),
        }
    }

    /// Fills in a free slot; the parts have no more bytes in all than a payload may have. Its number, and what the kernel
    /// is given of it.
    fn fill(
        &mut self,
        parts: &[&[u8]],
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<(u32, *const libc::msghdr)> {
        let number = self.free.pop()?;
        let payload = &mut self.payloads[number as usize * KERNEL_DATAGRAM_BYTES_MAX..];
        let mut length = 0;
        for part in parts {
            payload[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        let slot = &mut self.slots[number as usize];
        slot.vector = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: length };
        slot.header.msg_name = slot.name.as_mut_ptr().cast();
        slot.header.msg_namelen = message::write_name(peer, &mut slot.name) as libc::socklen_t;
        slot.header.msg_iov = &raw mut slot.vector;
        slot.header.msg_iovlen = 1;
        slot.header.msg_control = slot.control.0.as_mut_ptr().cast();
        slot.header.msg_controllen = message::write_source(local, &mut slot.control.0) as _;
        Some((number, &raw const slot.header))
    }
}

/// Replies that leave through a kernel socket.
struct KernelReplies<'a> {
    datagram: &'a Datagram<'a>,
    socket: &'a Socket,
    slots: &'a mut Slots,
    ring: &'a mut Ring,
    metrics: &'a WorkerMetrics,
}

impl Replies for KernelReplies<'_> {
    fn payload_bytes_max(&self) -> usize {
        KERNEL_DATAGRAM_BYTES_MAX
    }

    fn room(&self) -> usize {
        self.slots.free.len()
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        if parts.iter().map(|part| part.len()).sum::<usize>() > KERNEL_DATAGRAM_BYTES_MAX {
            self.metrics.dropped(DropReason::ReplyTooLarge);
            return false;
        }
        let Datagram { source, destination, .. } = *self.datagram;
        let Some((number, header)) = self.slots.fill(parts, source, destination) else {
            self.metrics.dropped(DropReason::NoReplySlot);
            return false;
        };
        let send = opcode::SendMsg::new(Fd(self.socket.descriptor.as_fd().as_raw_fd()), header)
            // Datagrams are not waited for: what the socket has no room for is lost, as datagrams are.
            .flags(libc::MSG_DONTWAIT as u32)
            .build();
        // SAFETY: the header and all it points to lie in the slot, in a boxed slice, and are not touched before its
        // completion gives the slot back.
        unsafe { self.ring.push(send, Token::Reply(number)) };
        true
    }
}
