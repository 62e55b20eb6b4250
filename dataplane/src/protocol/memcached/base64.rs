//! Base64 of binary keys (meta flag `b`): RFC 4648 section 4, padded, in its one canonical spelling.
//!
//! Only the canonical spelling is taken (RFC 4648 section 3.5), so that a key has one name and a reply can give
//! the client's own word back.

use crate::limits::KEY_BYTES_MAX;

/// Bytes a key's word can decode to: the word is bound by the key limit itself.
pub const DECODED_BYTES_MAX: usize = KEY_BYTES_MAX / 4 * 3;

/// What `decode` gives for a byte outside the alphabet.
const INVALID: u8 = 0xff;

const VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [INVALID; 256];
    let mut index = 0;
    while index < alphabet.len() {
        values[alphabet[index] as usize] = index as u8;
        index += 1;
    }
    values
};

/// Decodes a word into `decoded` and returns the bytes, at least one; `None` when it is no canonical base64 or
/// does not fit.
#[must_use]
pub fn decode<'d>(word: &[u8], decoded: &'d mut [u8; DECODED_BYTES_MAX]) -> Option<&'d [u8]> {
    let padding = word.iter().rev().take_while(|&&byte| byte == b'=').count();
    if word.is_empty()
        || !word.len().is_multiple_of(4)
        || padding > 2
        || word.len() / 4 * 3 > DECODED_BYTES_MAX
    {
        return None;
    }
    let mut length = 0;
    for quad in word[..word.len() - padding].chunks(4) {
        let mut bits = 0u32;
        for &byte in quad {
            let value = VALUES[usize::from(byte)];
            if value == INVALID {
                return None;
            }
            bits = bits << 6 | u32::from(value);
        }
        // Four letters carry three bytes, three carry two, two carry one; bits left over must be zero.
        let bytes = quad.len() - 1;
        let spare = quad.len() * 6 - bytes * 8;
        if bits & ((1 << spare) - 1) != 0 {
            return None;
        }
        let whole = (bits >> spare << (8 * (4 - bytes))).to_be_bytes();
        decoded[length..length + bytes].copy_from_slice(&whole[..bytes]);
        length += bytes;
    }
    Some(&decoded[..length])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plainest encoder: the oracle.
    pub(crate) fn encode(bytes: &[u8]) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut word = String::new();
        for chunk in bytes.chunks(3) {
            let bits =
                chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
            for letter in 0..4 {
                if letter <= chunk.len() {
                    word.push(char::from(alphabet[(bits >> (18 - 6 * letter)) as usize & 63]));
                } else {
                    word.push('=');
                }
            }
        }
        word
    }

    #[test]
    fn the_vectors_of_rfc_4648() {
        let mut decoded = [0; DECODED_BYTES_MAX];
        for (word, bytes) in
            [("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(decode(word.as_bytes(), &mut decoded), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let mut decoded = [0; DECODED_BYTES_MAX];
        for word in
            ["", "Z", "Zg", "Zg=", "====", "Z===", "Zh==", "Zm9=", "Zm 9", "Zg==Zg==", "Zm9v\n", "Zm9_"]
        {
            assert_eq!(decode(word.as_bytes(), &mut decoded), None, "{word}");
        }
        assert_eq!(decode(&[b'A'; 252], &mut decoded), None);
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(bytes in proptest::collection::vec(any::<u8>(), 1..=DECODED_BYTES_MAX)) {
            let mut decoded = [0; DECODED_BYTES_MAX];
            prop_assert_eq!(decode(encode(&bytes).as_bytes(), &mut decoded), Some(&bytes[..]));
        }

        #[test]
        fn what_decodes_is_canonical(word in "[A-Za-z0-9+/=]{0,24}") {
            let mut decoded = [0; DECODED_BYTES_MAX];
            if let Some(bytes) = decode(word.as_bytes(), &mut decoded) {
                prop_assert_eq!(encode(bytes), word);
            }
        }
    }
}
