//! What an application sends and expects: two streams of known bytes, one each way.

use super::Random;

/// Byte `at` of the stream that this side sends. Every stream of a flow is another.
pub(crate) fn byte(seed: u64, at: usize) -> u8 {
    let x = (at as u64).wrapping_mul(0x9e37_79b9).wrapping_add(seed);
    (x ^ (x >> 11) ^ (x >> 23)) as u8
}

/// How eagerly an application reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// All at once.
    Eager,
    /// A random part each time; the rest only when asked again.
    Lazy,
    /// Only whole messages of this many bytes.
    Messages(usize),
}

/// One side of a flow.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) send_seed: u64,
    pub(crate) send_bytes: usize,
    pub(crate) sent: usize,
    pub(crate) receive_seed: u64,
    pub(crate) receive_bytes: usize,
    pub(crate) received: usize,
    pub(crate) reader: Reader,
    pub(crate) opened: bool,
    pub(crate) peer_finished: bool,
    pub(crate) closing: bool,
    /// The most that is written at once.
    pub(crate) write_bytes: usize,
    pub(crate) random: Random,
}

impl Stream {
    /// The client's side; `seed` tells flows apart.
    pub(crate) fn client(seed: u64, to_server: usize, to_client: usize, reader: Reader) -> Self {
        Self {
            send_seed: seed.wrapping_mul(3),
            send_bytes: to_server,
            sent: 0,
            receive_seed: seed.wrapping_mul(5).wrapping_add(1),
            receive_bytes: to_client,
            received: 0,
            reader,
            opened: false,
            peer_finished: false,
            closing: false,
            write_bytes: 10_000,
            random: Random(seed),
        }
    }

    /// The other side of it.
    pub(crate) fn server(seed: u64, to_server: usize, to_client: usize, reader: Reader) -> Self {
        let client = Self::client(seed, to_server, to_client, reader);
        Self {
            send_seed: client.receive_seed,
            send_bytes: to_client,
            receive_seed: client.send_seed,
            receive_bytes: to_server,
            ..client
        }
    }

    /// How many of these bytes the application takes; all that are shown must be right.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, usize) {
        for (at, &received) in bytes.iter().enumerate() {
            let expected = byte(self.receive_seed, self.received + at);
            assert_eq!(received, expected, "byte {} of {}", self.received + at, self.receive_bytes);
        }
        assert!(self.received + bytes.len() <= self.receive_bytes, "more than was sent");
        let left = self.receive_bytes - self.received;
        let (taken, needed) = match self.reader {
            Reader::Eager => (bytes.len(), 0),
            Reader::Lazy => (self.random.below(bytes.len() as u64 + 1) as usize, 0),
            // The last message may be a short one.
            Reader::Messages(_) if bytes.len() == left => (left, 0),
            Reader::Messages(message) if left < message => (bytes.len(), 0),
            Reader::Messages(message) => {
                let taken = bytes.len() / message * message;
                (taken, message.min(left - taken))
            }
        };
        self.received += taken;
        (taken, needed)
    }

    /// The next bytes to write; empty when all is written.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let most = (self.send_bytes - self.sent).min(self.write_bytes);
        let count = if most == 0 { 0 } else { 1 + self.random.below(most as u64) as usize };
        (self.sent..self.sent + count).map(|at| byte(self.send_seed, at)).collect()
    }

    pub(crate) fn all_sent(&self) -> bool {
        self.sent == self.send_bytes
    }

    pub(crate) fn assert_whole(&self) {
        assert_eq!((self.received, self.sent), (self.receive_bytes, self.send_bytes));
    }
}
