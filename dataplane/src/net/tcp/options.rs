//! TCP options: maximum segment size (RFC 9293 section 3.7.1), window scale and timestamps (RFC 7323), selective
//! acknowledgements (RFC 2018).

use super::sequence::Sequence;

/// Bytes of options a header can hold.
const OPTIONS_BYTES_MAX: usize = 40;
/// Selective acknowledgements one segment can hold, without timestamps.
pub(super) const BLOCKS_MAX: usize = 4;
/// Largest shift of a window (RFC 7323 section 2.3).
pub(super) const SHIFT_MAX: u8 = 14;
/// Bytes of the timestamps option, padded.
pub(super) const TIMESTAMPS_BYTES: usize = 12;

const END: u8 = 0;
const NOTHING: u8 = 1;
const SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Bytes that arrived, from `start` to before `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The first.
    pub start: Sequence,
    /// The one after the last.
    pub end: Sequence,
}

impl Block {
    /// From two numbers.
    #[must_use]
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start: Sequence(start), end: Sequence(end) }
    }
}

/// The timestamps option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// Its sender's clock.
    pub value: u32,
    /// What the sender last got from its receiver.
    pub echo: u32,
}

/// Options of a segment that arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest segment the sender takes, in bytes without headers and options.
    pub segment_bytes: Option<u16>,
    /// How far the sender's windows are to be shifted left; at most 14.
    pub window_shift: Option<u8>,
    /// The sender understands selective acknowledgements.
    pub sack_permitted: bool,
    /// The sender's clock.
    pub timestamps: Option<Timestamps>,
    pub(super) blocks: [Block; BLOCKS_MAX],
    pub(super) block_count: u8,
}

impl Options {
    /// Selective acknowledgements.
    #[inline]
    #[must_use]
    pub fn sack(&self) -> &[Block] {
        &self.blocks[..usize::from(self.block_count)]
    }

    /// From what stands between the fixed header and the data; `None` when a length contradicts itself.
    #[inline]
    pub(super) fn parse(octets: &[u8]) -> Option<Self> {
        let mut options = Self::default();
        // What every segment of an established flow carries (RFC 7323 appendix A).
        if let [NOTHING, NOTHING, TIMESTAMPS, 10, stamps @ ..] = octets
            && stamps.len() == 8
        {
            options.timestamps = Some(timestamps(stamps));
            return Some(options);
        }
        let mut rest = octets;
        while let [kind, behind @ ..] = rest {
            match *kind {
                END => break,
                NOTHING => rest = behind,
                kind => {
                    let bytes = usize::from(*behind.first()?);
                    let body = rest.get(2..bytes)?;
                    options.take(kind, body)?;
                    rest = &rest[bytes..];
                }
            }
        }
        Some(options)
    }

    fn take(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match (kind, body) {
            (SEGMENT_SIZE, [high, low]) => self.segment_bytes = Some(u16::from_be_bytes([*high, *low])),
            (WINDOW_SCALE, [shift]) => self.window_shift = Some((*shift).min(SHIFT_MAX)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (TIMESTAMPS, stamps) if stamps.len() == 8 => self.timestamps = Some(timestamps(stamps)),
            (SACK, blocks) if blocks.len() % 8 == 0 && blocks.len() / 8 <= BLOCKS_MAX => {
                self.block_count = (blocks.len() / 8) as u8;
                for (block, octets) in self.blocks.iter_mut().zip(blocks.chunks_exact(8)) {
                    *block = Block::new(word(&octets[..4]), word(&octets[4..]));
                }
            }
            (SEGMENT_SIZE | WINDOW_SCALE | SACK_PERMITTED | TIMESTAMPS | SACK, _) => return None,
            // Options we do not know are skipped (RFC 9293 section 3.1, MUST-6).
            _ => {}
        }
        Some(())
    }
}

fn word(octets: &[u8]) -> u32 {
    u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]])
}

fn timestamps(octets: &[u8]) -> Timestamps {
    Timestamps { value: word(&octets[..4]), echo: word(&octets[4..]) }
}

/// Options of a segment to be sent, each padded to a whole word.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptionsOut {
    octets: [u8; OPTIONS_BYTES_MAX],
    bytes: u8,
}

impl Default for OptionsOut {
    #[inline]
    fn default() -> Self {
        Self { octets: [0; OPTIONS_BYTES_MAX], bytes: 0 }
    }
}

impl OptionsOut {
    /// The options.
    #[inline]
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.bytes)]
    }

    #[inline]
    fn push(mut self, octets: &[u8]) -> Self {
        let start = usize::from(self.bytes);
        self.octets[start..start + octets.len()].copy_from_slice(octets);
        self.bytes += octets.len() as u8;
        self
    }

    pub(super) fn segment_bytes(self, bytes: u16) -> Self {
        let [high, low] = bytes.to_be_bytes();
        self.push(&[SEGMENT_SIZE, 4, high, low])
    }

    pub(super) fn window_shift(self, shift: u8) -> Self {
        self.push(&[NOTHING, WINDOW_SCALE, 3, shift])
    }

    pub(super) fn sack_permitted(self) -> Self {
        self.push(&[NOTHING, NOTHING, SACK_PERMITTED, 2])
    }

    #[inline]
    pub(super) fn timestamps(self, timestamps: Timestamps) -> Self {
        // In one piece: pieces that are written and read back at once wait for each other.
        let [v0, v1, v2, v3] = timestamps.value.to_be_bytes();
        let [e0, e1, e2, e3] = timestamps.echo.to_be_bytes();
        self.push(&[NOTHING, NOTHING, TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3])
    }

    /// As many of these as there is room for.
    pub(super) fn sack(self, blocks: &[Block]) -> Self {
        let room = (OPTIONS_BYTES_MAX - usize::from(self.bytes)).saturating_sub(4) / 8;
        let blocks = &blocks[..blocks.len().min(room)];
        if blocks.is_empty() {
            return self;
        }
        let mut out = self.push(&[NOTHING, NOTHING, SACK, (2 + 8 * blocks.len()) as u8]);
        for block in blocks {
            out = out.push(&block.start.0.to_be_bytes()).push(&block.end.0.to_be_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_of_a_syn_are_read_back() {
        let out = OptionsOut::default()
            .segment_bytes(1_460)
            .window_shift(7)
            .sack_permitted()
            .timestamps(Timestamps { value: 5, echo: 6 });
        let options = Options::parse(out.octets()).expect("well-formed");
        assert_eq!(options.segment_bytes, Some(1_460));
        assert_eq!(options.window_shift, Some(7));
        assert!(options.sack_permitted);
        assert_eq!(options.timestamps, Some(Timestamps { value: 5, echo: 6 }));
    }

    #[test]
    fn blocks_that_do_not_fit_beside_timestamps_are_left_out() {
        let blocks = [Block::new(1, 2), Block::new(3, 4), Block::new(5, 6), Block::new(7, 8)];
        let out = OptionsOut::default().timestamps(Timestamps::default()).sack(&blocks);
        assert_eq!(Options::parse(out.octets()).expect("well-formed").sack(), &blocks[..3]);
        let out = OptionsOut::default().sack(&blocks);
        assert_eq!(Options::parse(out.octets()).expect("well-formed").sack(), blocks);
    }

    #[test]
    fn lengths_that_contradict_themselves_are_refused() {
        for octets in [
            &[2u8, 0][..],
            &[2, 1],
            &[2],
            &[2, 5, 1, 2],
            &[2, 3, 1],
            &[3, 2],
            &[8, 4, 0, 0],
            &[5, 6, 0, 0, 0, 0],
        ] {
            assert_eq!(Options::parse(octets), None, "{octets:?}");
        }
        assert_eq!(
            Options::parse(&[99, 3, 0, 1, 0, 2]),
            Some(Options::default()),
            "behind the end is nothing"
        );
        assert_eq!(Options::parse(&[3, 3, 200]).expect("well-formed").window_shift, Some(14));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..=40)) {
            let _ = Options::parse(&octets);
        }
    }
}
