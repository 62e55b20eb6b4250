//! What an outsider must not be able to guess: initial sequence numbers (RFC 6528), SYN cookies (RFC 4987
//! section 3.6) and the offsets of timestamps (RFC 7323 section 5.4), all from one keyed function.
//!
//! SipHash-2-4 and not the table's hash: whoever opens flows of his own sees these values, and from values of a hash
//! made for tables its key could be worked out.

use super::ends::Ends;
use super::sequence::Sequence;

/// Initial sequence numbers grow by one every 4 us (RFC 6528 section 3).
const ISN_TICK_NS: u64 = 4_000;
/// How long a cookie is good for at least; it is taken for up to twice that.
const COOKIE_PERIOD_NS: u64 = 32 * 1_000_000_000;
/// Segment sizes a cookie can remember, in bytes: those of common links, tunnels and the defaults of both families.
const COOKIE_SEGMENT_BYTES: [u16; 8] = [536, 1_220, 1_360, 1_400, 1_440, 1_460, 4_000, 8_900];
const COOKIE_SIZE_BITS: u32 = 3;

const DOMAIN_ISN: u64 = 1;
const DOMAIN_TIMESTAMP: u64 = 2;
const DOMAIN_COOKIE: u64 = 3;

/// The key.
#[derive(Clone, Copy)]
pub(super) struct Secret {
    key: [u64; 2],
}

impl Secret {
    pub(super) const fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    fn hash(&self, ends: &Ends, domain: u64, extra: u64) -> u64 {
        let mut words = [0u64; Ends::BYTES.div_ceil(8) + 2];
        for (word, octets) in words.iter_mut().zip(ends.octets().chunks(8)) {
            let mut whole = [0; 8];
            whole[..octets.len()].copy_from_slice(octets);
            *word = u64::from_le_bytes(whole);
        }
        let [.., before_last, last] = &mut words;
        (*before_last, *last) = (domain, extra);
        siphash(self.key, &words)
    }

    /// The first sequence number of a flow opened now.
    pub(super) fn initial_sequence(&self, ends: &Ends, now_ns: u64) -> Sequence {
        Sequence((now_ns / ISN_TICK_NS).wrapping_add(self.hash(ends, DOMAIN_ISN, 0)) as u32)
    }

    /// What is added to the clock in a flow's timestamps. It depends on the ends alone, so that a flow's clock goes
    /// on where that of its predecessor stood, and says nothing of how long we have been up.
    pub(super) fn timestamp_offset(&self, ends: &Ends) -> u32 {
        self.hash(ends, DOMAIN_TIMESTAMP, 0) as u32
    }

    /// A sequence number that is its own record of a SYN.
    pub(super) fn cookie(
        &self,
        ends: &Ends,
        peer_sequence: Sequence,
        segment_bytes: u16,
        now_ns: u64,
    ) -> Sequence {
        let size = COOKIE_SEGMENT_BYTES.iter().rposition(|&bytes| bytes <= segment_bytes).unwrap_or(0);
        Sequence(self.cookie_base(ends, peer_sequence, now_ns / COOKIE_PERIOD_NS) | size as u32)
    }

    /// The segment size in a cookie, when it is one of ours and not too old.
    pub(super) fn open_cookie(
        &self,
        ends: &Ends,
        peer_sequence: Sequence,
        cookie: Sequence,
        now_ns: u64,
    ) -> Option<u16> {
        let (base, size) = (cookie.0 >> COOKIE_SIZE_BITS << COOKIE_SIZE_BITS, cookie.0 % 8);
        let period = now_ns / COOKIE_PERIOD_NS;
        [period, period.wrapping_sub(1)]
            .into_iter()
            .any(|period| self.cookie_base(ends, peer_sequence, period) == base)
            .then(|| COOKIE_SEGMENT_BYTES[size as usize])
    }

    fn cookie_base(&self, ends: &Ends, peer_sequence: Sequence, period: u64) -> u32 {
        let hash = self.hash(ends, DOMAIN_COOKIE, period << 32 | u64::from(peer_sequence.0));
        (hash as u32) >> COOKIE_SIZE_BITS << COOKIE_SIZE_BITS
    }
}

/// SipHash-2-4 of whole words (Aumasson and Bernstein, 2012).
fn siphash(key: [u64; 2], words: &[u64]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let round = |v: &mut [u64; 4]| {
        v[0] = v[0].wrapping_add(v[1]);
        v[2] = v[2].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[1]);
        v[0] = v[0].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].rotate_left(32);
    };
    // The last word holds the length in bytes, modulo 256, in its top byte.
    for word in words.iter().copied().chain([(words.len() as u64 * 8) << 56]) {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret::new([1, 2]);

    fn ends(port: u16) -> Ends {
        Ends::new(([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], port).into())
    }

    #[test]
    fn siphash_gives_the_vectors_of_its_paper() {
        // Reference implementation, vectors_sip64: key 00..0f; messages of 0 and 8 bytes 00..07.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(key, &[0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn initial_sequences_grow_with_time_and_differ_between_flows() {
        let first = SECRET.initial_sequence(&ends(1), 0);
        assert_eq!(SECRET.initial_sequence(&ends(1), 4_000_000).since(first), 1_000);
        assert_ne!(SECRET.initial_sequence(&ends(2), 0), first);
        assert_ne!(Secret::new([1, 3]).initial_sequence(&ends(1), 0), first);
    }

    #[test]
    fn a_cookie_opens_for_its_own_flow_for_a_while() {
        let cookie = SECRET.cookie(&ends(1), Sequence(9), 1_459, 0);
        assert_eq!(SECRET.open_cookie(&ends(1), Sequence(9), cookie, COOKIE_PERIOD_NS), Some(1_440));
        assert_eq!(SECRET.open_cookie(&ends(1), Sequence(9), cookie, 2 * COOKIE_PERIOD_NS), None, "too old");
        assert_eq!(SECRET.open_cookie(&ends(2), Sequence(9), cookie, 0), None, "another flow");
        assert_eq!(SECRET.open_cookie(&ends(1), Sequence(8), cookie, 0), None, "another sequence");
        assert_eq!(SECRET.open_cookie(&ends(1), Sequence(9), cookie.plus(8), 0), None, "another number");
        let tiny = SECRET.cookie(&ends(1), Sequence(9), 0, 0);
        assert_eq!(SECRET.open_cookie(&ends(1), Sequence(9), tiny, 0), Some(536));
    }
}
