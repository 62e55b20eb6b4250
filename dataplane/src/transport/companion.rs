//! The worker's side of a companion socket: two single-producer rings between the control plane, which holds the
//! socket, and the worker, which answers.
//!
//! Datagrams are carried in fixed buffers that go round, so that nothing is allocated once it runs: requests in buffers
//! that the worker gives back through `spare`, replies in buffers that the control plane gives back through
//! `returned`.

use std::net::SocketAddr;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::limits::{COMPANION_DATAGRAM_BYTES_MAX, COMPANION_REPLY_BUFFERS as REPLY_BUFFERS};
use crate::metrics::{DropReason, WorkerMetrics};
use crate::service::{Datagram, Replies, Via};

/// One datagram on its way between the companion socket and the worker.
#[derive(Debug)]
pub struct CompanionDatagram {
    /// Which listener's socket.
    pub listener: usize,
    /// The client.
    pub peer: SocketAddr,
    /// Our address it was sent to, and the reply is sent from.
    pub local: SocketAddr,
    /// Payload; of [`Self::buffer`], the first `length` bytes.
    pub length: usize,
    /// [`COMPANION_DATAGRAM_BYTES_MAX`] bytes.
    pub buffer: Box<[u8]>,
}

impl CompanionDatagram {
    /// An empty datagram with its buffer.
    #[must_use]
    pub fn empty() -> Self {
        let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let buffer = vec![0; COMPANION_DATAGRAM_BYTES_MAX].into_boxed_slice();
        Self { listener: 0, peer: anywhere, local: anywhere, length: 0, buffer }
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// The control plane's end: requests in, replies out.
#[derive(Debug)]
pub struct CompanionControlEnd {
    /// Requests for the worker.
    pub requests: Producer<CompanionDatagram>,
    /// Replies from the worker.
    pub replies: Consumer<CompanionDatagram>,
    /// Buffers for requests; those the worker has finished with come back here.
    pub spare: Consumer<CompanionDatagram>,
    /// Where a reply's buffer goes back to once it was sent.
    pub returned: Producer<CompanionDatagram>,
}

/// The worker's end.
#[derive(Debug)]
pub struct CompanionWorkerEnd {
    requests: Consumer<CompanionDatagram>,
    replies: Producer<CompanionDatagram>,
    spare: Producer<CompanionDatagram>,
    returned: Consumer<CompanionDatagram>,
}

/// What one poll of the companion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompanionProgress {
    /// Requests taken.
    pub taken: usize,
    /// Replies made; the control plane has to be woken for them.
    pub replies: usize,
}

/// Makes both ends, with `datagrams` request buffers between them.
#[must_use]
pub fn companion(datagrams: usize) -> (CompanionControlEnd, CompanionWorkerEnd) {
    let (requests_in, requests_out) = RingBuffer::new(datagrams);
    let (mut spare_in, spare_out) = RingBuffer::new(datagrams);
    for _ in 0..datagrams {
        spare_in.push(CompanionDatagram::empty()).expect("the ring has room for every request buffer");
    }
    let (replies_in, replies_out) = RingBuffer::new(REPLY_BUFFERS);
    let (mut returned_in, returned_out) = RingBuffer::new(REPLY_BUFFERS);
    for _ in 0..REPLY_BUFFERS {
        returned_in.push(CompanionDatagram::empty()).expect("the ring has room for every reply buffer");
    }
    (
        CompanionControlEnd {
            requests: requests_in,
            replies: replies_out,
            spare: spare_out,
            returned: returned_in,
        },
        CompanionWorkerEnd {
            requests: requests_out,
            replies: replies_in,
            spare: spare_in,
            returned: returned_out,
        },
    )
}

impl CompanionWorkerEnd {
    /// Hands up to `budget` requests to `serve` and carries its replies back.
    pub fn poll(
        &mut self,
        budget: usize,
        metrics: &WorkerMetrics,
        mut serve: impl FnMut(&Datagram<'_>, &mut dyn Replies),
    ) -> CompanionProgress {
        let mut progress = CompanionProgress::default();
        while progress.taken < budget {
            let Ok(request) = self.requests.pop() else { break };
            progress.taken += 1;
            let datagram = Datagram {
                source: request.peer,
                destination: request.local,
                payload: request.payload(),
                via: Via::Companion,
            };
            let mut replies = CompanionReplies { end: self, request: &request, metrics, sent: 0 };
            serve(&datagram, &mut replies);
            progress.replies += replies.sent;
            if self.spare.push(request).is_err() {
                unreachable!("the ring has room for every request buffer there is");
            }
        }
        if progress.taken > 0 {
            metrics.companion_received.add(progress.taken as u64);
            metrics.companion_sent.add(progress.replies as u64);
        }
        progress
    }
}

/// Replies that leave through the companion socket.
struct CompanionReplies<'a> {
    end: &'a mut CompanionWorkerEnd,
    request: &'a CompanionDatagram,
    metrics: &'a WorkerMetrics,
    sent: usize,
}

impl Replies for CompanionReplies<'_> {
    fn payload_bytes_max(&self) -> usize {
        COMPANION_DATAGRAM_BYTES_MAX
    }

    fn room(&self) -> usize {
        self.end.returned.slots()
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > COMPANION_DATAGRAM_BYTES_MAX {
            self.metrics.dropped(DropReason::ReplyTooLarge);
            return false;
        }
        let Ok(mut reply) = self.end.returned.pop() else {
            self.metrics.dropped(DropReason::CompanionFull);
            return false;
        };
        let CompanionDatagram { listener, peer, local, .. } = *self.request;
        (reply.listener, reply.peer, reply.local, reply.length) = (listener, peer, local, length);
        let mut rest = &mut reply.buffer[..length];
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        if self.end.replies.push(reply).is_err() {
            unreachable!("the ring has room for every reply buffer there is");
        }
        self.sent += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(control: &mut CompanionControlEnd, payload: &[u8]) -> bool {
        let Ok(mut datagram) = control.spare.pop() else { return false };
        datagram.buffer[..payload.len()].copy_from_slice(payload);
        datagram.length = payload.len();
        control.requests.push(datagram).is_ok()
    }

    #[test]
    fn requests_and_replies_go_round_without_losing_a_buffer() {
        let (mut control, mut worker) = companion(4);
        let metrics = WorkerMetrics::default();
        for round in 0..1_000u32 {
            assert!(request(&mut control, &round.to_be_bytes()));
            let progress = worker.poll(16, &metrics, |datagram, replies| {
                for _ in 0..round % 40 {
                    assert!(replies.send(&[datagram.payload, b"!"]));
                }
            });
            assert_eq!(progress, CompanionProgress { taken: 1, replies: round as usize % 40 });
            while let Ok(reply) = control.replies.pop() {
                assert_eq!(reply.payload(), [&round.to_be_bytes()[..], b"!"].concat());
                control.returned.push(reply).expect("room for every reply buffer");
            }
        }
        assert_eq!(control.spare.slots(), 4);
        assert_eq!(worker.returned.slots(), REPLY_BUFFERS);
    }

    #[test]
    fn replies_beyond_the_buffers_there_are_are_refused_and_counted() {
        let (mut control, mut worker) = companion(1);
        let metrics = WorkerMetrics::default();
        assert!(request(&mut control, b"x"));
        worker.poll(1, &metrics, |_, replies| {
            let room = replies.room();
            assert!((0..room).all(|_| replies.send(&[b"y"])));
            assert!(!replies.send(&[b"y"]));
        });
        assert_eq!(metrics.drops(DropReason::CompanionFull), 1);
    }
}
