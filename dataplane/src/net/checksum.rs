//! The internet checksum (RFC 1071), and the UDP checksum over its pseudo-header (RFC 768, RFC 8200 section 8.1).

use std::net::IpAddr;

/// IANA protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// A running one's-complement sum. Parts are added in order, each but the last of even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes as big-endian 16-bit words; an odd last byte is padded with zero.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // One's-complement addition is the same in either byte order (RFC 1071 section 2B): summing native words
        // and swapping the result once lets the loop run on whole registers.
        let mut sum = 0u64;
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let rest = words.remainder();
        let mut last = [0u8; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u64::from(u32::from_ne_bytes(last));
        Self(self.0 + u64::from(u16::from_be(fold(sum))))
    }

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// The sum folded to 16 bits, not complemented.
    #[inline]
    #[must_use]
    pub const fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !fold(self.0)
    }
}

/// Folds the carries back in until 16 bits are left.
#[inline]
const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum over the UDP pseudo-header. Addresses of two families never meet in one packet; a mixed pair would
/// only give a sum that matches nothing.
#[inline]
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, udp_bytes: u16) -> Sum {
    let sum = Sum::default().word(u16::from(PROTOCOL_UDP)).word(udp_bytes);
    let add = |sum: Sum, address: IpAddr| match address {
        IpAddr::V4(address) => sum.bytes(&address.octets()),
        IpAddr::V6(address) => sum.bytes(&address.octets()),
    };
    add(add(sum, source), destination)
}

/// The value to write in a UDP header: a computed zero is sent as all ones, for zero says "none" (RFC 768).
#[inline]
#[must_use]
pub const fn udp_field(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_all_ones() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01,
            0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(Sum::default().bytes(&header).finish(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_the_word_by_word_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(Sum::default().bytes(&bytes).finish(), reference(&bytes));
        }

        #[test]
        fn even_parts_add_up(
            first in proptest::collection::vec(any::<u16>(), 0..100),
            second in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let first: Vec<u8> = first.iter().flat_map(|word| word.to_be_bytes()).collect();
            let whole: Vec<u8> = first.iter().chain(&second).copied().collect();
            prop_assert_eq!(Sum::default().bytes(&first).bytes(&second).finish(), reference(&whole));
        }
    }
}
