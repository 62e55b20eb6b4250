//! The 8-byte header in front of every memcached datagram (memcached `doc/protocol.txt`, "UDP protocol").

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// Request id, sequence number, number of datagrams in the message, and two reserved bytes; all big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Chosen by the client, repeated in every datagram of the reply.
    pub request_id: u16,
    /// From 0 to `total - 1`.
    pub sequence: u16,
    /// Datagrams in the message.
    pub total: u16,
}

impl FrameHeader {
    /// That of a request, which is always one datagram.
    #[must_use]
    pub fn request(request_id: u16) -> Self {
        Self { request_id, sequence: 0, total: 1 }
    }

    /// As it goes on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [a, b] = self.request_id.to_be_bytes();
        let [c, d] = self.sequence.to_be_bytes();
        let [e, f] = self.total.to_be_bytes();
        [a, b, c, d, e, f, 0, 0]
    }

    /// Splits a datagram into header and body; `None` when it is too short or its numbers cannot be.
    #[must_use]
    pub fn split(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (&[a, b, c, d, e, f, _, _], body) = datagram.split_first_chunk::<HEADER_BYTES>()?;
        let header = Self {
            request_id: u16::from_be_bytes([a, b]),
            sequence: u16::from_be_bytes([c, d]),
            total: u16::from_be_bytes([e, f]),
        };
        (header.sequence < header.total).then_some((header, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let header = FrameHeader { request_id: 0xbeef, sequence: 2, total: 3 };
        let mut datagram = header.to_bytes().to_vec();
        datagram.extend_from_slice(b"END\r\n");
        assert_eq!(FrameHeader::split(&datagram), Some((header, &b"END\r\n"[..])));
    }

    #[test]
    fn short_and_impossible_headers_are_refused() {
        assert_eq!(FrameHeader::split(&[0; 7]), None);
        assert_eq!(FrameHeader::split(&[0; 8]), None, "a message of no datagrams");
        assert_eq!(FrameHeader::split(&[0, 1, 0, 1, 0, 1, 0, 0]), None, "the second of one");
    }
}
