//! One record of the log: the bytes of an item, or of room that nothing uses any more.
//!
//! ```text
//! bytes  7      0 or 2               5 or 8   0 or 4   0 or 6
//!      | word | value bytes, high  | CAS    | flags  | expiry | key | value |
//!
//! word  bits  0..8   kind: 0 one granule of padding, 1..=250 a live item with a key of so many bytes, 255 dead
//!            8..20   bytes of the value, the low 12 bits
//!           20..46   second of the last access, modulo 2^26 (776 days)
//!           46..48   CLOCK counter
//!              48    read since it was written
//!              49    stale
//!              50    a reader holds the right to recache it
//!              51    has flags (other than 0)
//!              52    has an expiry
//!              53    the CAS takes 8 bytes, not 5
//!              54    the value has 4096 bytes or more: two further bytes count it
//! ```
//!
//! A long value always has an expiry field and a wide CAS, so that no other expiry and no other CAS makes it move: a
//! request of a few bytes must not cause a copy of a mebibyte. There they are a fifth of a percent at most.
//!
//! A live item costs 12 bytes beyond its key and value when it has no flags and never expires: memory efficiency is
//! decided here, because most items of a cache are small. A dead record keeps its span in bytes 1..5, so that the
//! log can be walked from its tail; remnants too short for that are padding. All fields are little-endian.

use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::time::Expiry;

/// Bytes of the word.
const WORD_BYTES: usize = 7;
/// Bytes that count a long value's length further.
const LENGTH_BYTES: usize = 2;
/// Bytes of a CAS that counts up from 1: the table's own counter takes 12 days of a million writes a second to
/// outgrow them, and what is larger is stored wide.
const CAS_NARROW_BYTES: usize = 5;
const CAS_WIDE_BYTES: usize = 8;
const CAS_NARROW_MAX: u64 = (1 << (8 * CAS_NARROW_BYTES)) - 1;
const FLAGS_BYTES: usize = 4;
const EXPIRY_BYTES: usize = 6;
/// In the six bytes: never (an item that had an expiry keeps the field, and a long value always has it).
const EXPIRY_NEVER: u64 = (1 << (8 * EXPIRY_BYTES)) - 1;

/// Fewest bytes a header takes.
pub(super) const HEADER_BYTES_MIN: usize = WORD_BYTES + CAS_NARROW_BYTES;
/// Most bytes a header takes.
pub(super) const HEADER_BYTES_MAX: usize =
    WORD_BYTES + LENGTH_BYTES + CAS_WIDE_BYTES + FLAGS_BYTES + EXPIRY_BYTES;
/// Header bytes are read eight at a time, so a log is followed by so many bytes that belong to no record.
pub(super) const OVERREAD_BYTES: usize = 8;

/// Bytes that a dead record needs to tell its own span, and all that is written over when a record dies: less than its
/// word.
const DEAD_BYTES_MIN: usize = 5;
const KIND_PADDING: u8 = 0;
const KIND_DEAD: u8 = 255;

const VALUE_SHIFT: u32 = 8;
const VALUE_BITS: u32 = 12;
const ACCESS_SHIFT: u32 = VALUE_SHIFT + VALUE_BITS;
const ACCESS_BITS: u32 = 26;
const CLOCK_SHIFT: u32 = ACCESS_SHIFT + ACCESS_BITS;
const CLOCK_BITS: u32 = 2;
const FETCHED: u64 = 1 << 48;
const STALE: u64 = 1 << 49;
const TOKEN_SENT: u64 = 1 << 50;
const HAS_FLAGS: u64 = 1 << 51;
const HAS_EXPIRY: u64 = 1 << 52;
const WIDE_CAS: u64 = 1 << 53;
const LONG_VALUE: u64 = 1 << 54;

/// Highest value of the CLOCK counter.
pub(super) const CLOCK_MAX: u8 = (1 << CLOCK_BITS) - 1;

const _: () = {
    assert!(KEY_BYTES_MAX < KIND_DEAD as usize);
    assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX < 1 << (VALUE_BITS + 8 * LENGTH_BYTES as u32));
    assert!(1 << (CLOCK_SHIFT + CLOCK_BITS) == FETCHED);
    assert!(LONG_VALUE < 1 << (8 * WORD_BYTES));
    assert!(HEADER_BYTES_MIN > DEAD_BYTES_MIN);
    // What a removed item was can still be told.
    assert!(DEAD_BYTES_MIN <= WORD_BYTES);
};

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The word of a live record, and the length that it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    bits: u64,
    value_bytes: u32,
}

impl Word {
    /// The word at the start of `bytes`.
    #[inline]
    fn load(bytes: &[u8]) -> Self {
        let bits = load(bytes, 0) & mask(8 * WORD_BYTES as u32);
        let mut value_bytes = ((bits >> VALUE_SHIFT) & mask(VALUE_BITS)) as u32;
        if bits & LONG_VALUE != 0 {
            value_bytes |= u32::from(u16::from_le_bytes(array(bytes, WORD_BYTES))) << VALUE_BITS;
        }
        Self { bits, value_bytes }
    }

    #[inline]
    pub(super) fn key_bytes(self) -> usize {
        usize::from(self.bits as u8)
    }

    #[inline]
    pub(super) fn value_bytes(self) -> usize {
        self.value_bytes as usize
    }

    /// Bytes of key and value: what a user stored.
    pub(super) fn payload_bytes(self) -> usize {
        self.key_bytes() + self.value_bytes()
    }

    /// Bytes before the key.
    #[inline]
    pub(super) fn header_bytes(self) -> usize {
        self.cas_at()
            + CAS_NARROW_BYTES
            + if self.has(WIDE_CAS) { CAS_WIDE_BYTES - CAS_NARROW_BYTES } else { 0 }
            + if self.has(HAS_FLAGS) { FLAGS_BYTES } else { 0 }
            + if self.has(HAS_EXPIRY) { EXPIRY_BYTES } else { 0 }
    }

    fn cas_at(self) -> usize {
        WORD_BYTES + if self.has(LONG_VALUE) { LENGTH_BYTES } else { 0 }
    }

    /// Bytes of the whole record, before rounding up to a granule.
    pub(super) fn record_bytes(self) -> usize {
        self.header_bytes() + self.payload_bytes()
    }

    pub(super) fn clock(self) -> u8 {
        ((self.bits >> CLOCK_SHIFT) & mask(CLOCK_BITS)) as u8
    }

    pub(super) fn fetched(self) -> bool {
        self.has(FETCHED)
    }

    pub(super) fn stale(self) -> bool {
        self.has(STALE)
    }

    pub(super) fn token_sent(self) -> bool {
        self.has(TOKEN_SENT)
    }

    pub(super) fn has_expiry(self) -> bool {
        self.has(HAS_EXPIRY)
    }

    /// Seconds between the last access and `now_s`, modulo 2^26.
    pub(super) fn idle_s(self, now_s: u64) -> u32 {
        (now_s.wrapping_sub(self.bits >> ACCESS_SHIFT) & mask(ACCESS_BITS)) as u32
    }

    #[must_use]
    pub(super) fn with_clock(self, clock: u8) -> Self {
        debug_assert!(clock <= CLOCK_MAX);
        let others = self.bits & !(mask(CLOCK_BITS) << CLOCK_SHIFT);
        Self { bits: others | (u64::from(clock) << CLOCK_SHIFT), ..self }
    }

    #[must_use]
    pub(super) fn with_token_sent(self, sent: bool) -> Self {
        self.with(TOKEN_SENT, sent)
    }

    /// As it is after an access: last access now, CLOCK counter one higher.
    #[must_use]
    pub(super) fn accessed(self, now_s: u64) -> Self {
        let others = self.bits & !(mask(ACCESS_BITS) << ACCESS_SHIFT);
        let bits = others | ((now_s & mask(ACCESS_BITS)) << ACCESS_SHIFT);
        Self { bits, ..self }.with_clock((self.clock() + 1).min(CLOCK_MAX))
    }

    /// As it is after a read.
    #[must_use]
    pub(super) fn read(self, now_s: u64) -> Self {
        self.accessed(now_s).with(FETCHED, true)
    }

    fn has(self, bit: u64) -> bool {
        self.bits & bit != 0
    }

    fn with(self, bit: u64, on: bool) -> Self {
        Self { bits: if on { self.bits | bit } else { self.bits & !bit }, ..self }
    }
}

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// One granule of nothing.
    Padding,
    /// So many bytes of nothing.
    Dead { bytes: usize },
    /// An item.
    Live(Word),
}

/// Everything about an item but its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) cas: u64,
    pub(super) flags: u32,
    pub(super) expiry: Expiry,
    pub(super) access_s: u64,
    pub(super) clock: u8,
    pub(super) fetched: bool,
    pub(super) stale: bool,
    pub(super) token_sent: bool,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            cas: 0,
            flags: 0,
            expiry: Expiry::NEVER,
            access_s: 0,
            clock: 0,
            fetched: false,
            stale: false,
            token_sent: false,
        }
    }
}

impl Meta {
    /// The word of a record with this meta.
    pub(super) fn word(&self, key_bytes: usize, value_bytes: usize) -> Word {
        assert!((1..=KEY_BYTES_MAX).contains(&key_bytes), "a key of {key_bytes} bytes reached the log");
        assert!(value_bytes <= VALUE_BYTES_MAX, "a value of {value_bytes} bytes reached the log");
        let is_long = value_bytes as u64 > mask(VALUE_BITS);
        let bits = key_bytes as u64
            | (value_bytes as u64 & mask(VALUE_BITS)) << VALUE_SHIFT
            | (self.access_s & mask(ACCESS_BITS)) << ACCESS_SHIFT;
        Word { bits, value_bytes: value_bytes as u32 }
            .with_clock(self.clock)
            .with(FETCHED, self.fetched)
            .with(STALE, self.stale)
            .with(TOKEN_SENT, self.token_sent)
            .with(HAS_FLAGS, self.flags != 0)
            .with(HAS_EXPIRY, is_long || self.expiry != Expiry::NEVER)
            .with(WIDE_CAS, is_long || self.cas > CAS_NARROW_MAX)
            .with(LONG_VALUE, is_long)
    }

    /// Reads it back.
    pub(super) fn read(bytes: &[u8], word: Word) -> Self {
        Self {
            cas: cas(bytes, word),
            flags: flags(bytes, word),
            expiry: expiry(bytes, word),
            access_s: (word.bits >> ACCESS_SHIFT) & mask(ACCESS_BITS),
            clock: word.clock(),
            fetched: word.fetched(),
            stale: word.stale(),
            token_sent: word.token_sent(),
        }
    }
}

/// The record at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Record {
    match bytes[0] {
        KIND_PADDING => Record::Padding,
        KIND_DEAD => {
            let span = u32::from_le_bytes(array(bytes, 1)) as usize;
            assert!(span >= DEAD_BYTES_MIN, "a dead record says it has {span} bytes");
            Record::Dead { bytes: span }
        }
        kind => {
            assert!(usize::from(kind) <= KEY_BYTES_MAX, "a record has the unknown kind {kind}");
            Record::Live(Word::load(bytes))
        }
    }
}

/// The word of the record at the start of `bytes`, which the caller knows to be live: the index points to it.
#[inline]
pub(super) fn live_word(bytes: &[u8]) -> Word {
    let word = Word::load(bytes);
    assert!((1..=KEY_BYTES_MAX).contains(&word.key_bytes()), "the index points to a record that is not live");
    word
}

/// Writes the word alone.
#[inline]
pub(super) fn write_word(bytes: &mut [u8], word: Word) {
    bytes[..WORD_BYTES].copy_from_slice(&word.bits.to_le_bytes()[..WORD_BYTES]);
}

/// Writes a whole live record.
pub(super) fn write(bytes: &mut [u8], meta: &Meta, key: &[u8], value: &[u8]) {
    let word = meta.word(key.len(), value.len());
    write_header(bytes, meta, word);
    let key_at = word.header_bytes();
    let value_at = key_at + key.len();
    bytes[key_at..value_at].copy_from_slice(key);
    bytes[value_at..value_at + value.len()].copy_from_slice(value);
}

/// Writes what stands before the key; `word` is the meta's own.
pub(super) fn write_header(bytes: &mut [u8], meta: &Meta, word: Word) {
    write_word(bytes, word);
    let mut at = WORD_BYTES;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    if word.has(LONG_VALUE) {
        put(&(word.value_bytes >> VALUE_BITS).to_le_bytes()[..LENGTH_BYTES]);
    }
    let cas_bytes = if word.has(WIDE_CAS) { CAS_WIDE_BYTES } else { CAS_NARROW_BYTES };
    put(&meta.cas.to_le_bytes()[..cas_bytes]);
    if word.has(HAS_FLAGS) {
        put(&meta.flags.to_le_bytes());
    }
    if word.has(HAS_EXPIRY) {
        put(&stored_expiry(meta.expiry).to_le_bytes()[..EXPIRY_BYTES]);
    }
    assert!(at == word.header_bytes(), "a header of {} bytes was written as {at}", word.header_bytes());
}

/// Writes what is left where a record ended: dead, or padding when too short to tell its own span.
pub(super) fn write_dead(bytes: &mut [u8]) {
    if bytes.len() < DEAD_BYTES_MIN {
        bytes.fill(KIND_PADDING);
        return;
    }
    let span = u32::try_from(bytes.len()).expect("a dead record is no longer than the longest item");
    bytes[0] = KIND_DEAD;
    bytes[1..DEAD_BYTES_MIN].copy_from_slice(&span.to_le_bytes());
}

/// The item's CAS.
#[inline]
pub(super) fn cas(bytes: &[u8], word: Word) -> u64 {
    let wide: u64 = load(bytes, word.cas_at());
    if word.has(WIDE_CAS) { wide } else { wide & CAS_NARROW_MAX }
}

/// The client's flags.
#[inline]
pub(super) fn flags(bytes: &[u8], word: Word) -> u32 {
    if !word.has(HAS_FLAGS) {
        return 0;
    }
    let at = word.cas_at() + if word.has(WIDE_CAS) { CAS_WIDE_BYTES } else { CAS_NARROW_BYTES };
    u32::from_le_bytes(array(bytes, at))
}

/// When the item expires.
#[inline]
pub(super) fn expiry(bytes: &[u8], word: Word) -> Expiry {
    if !word.has_expiry() {
        return Expiry::NEVER;
    }
    let stored = load(bytes, word.header_bytes() - EXPIRY_BYTES) & EXPIRY_NEVER;
    if stored == EXPIRY_NEVER { Expiry::NEVER } else { Expiry::at_unix_ms(stored) }
}

/// Gives the item another expiry where it lies; false when it has no field for it.
pub(super) fn set_expiry(bytes: &mut [u8], word: Word, expiry: Expiry) -> bool {
    if !word.has_expiry() {
        return expiry == Expiry::NEVER;
    }
    let at = word.header_bytes() - EXPIRY_BYTES;
    bytes[at..at + EXPIRY_BYTES].copy_from_slice(&stored_expiry(expiry).to_le_bytes()[..EXPIRY_BYTES]);
    true
}

/// The item's key.
#[inline]
pub(super) fn key(bytes: &[u8], word: Word) -> &[u8] {
    let at = word.header_bytes();
    &bytes[at..at + word.key_bytes()]
}

/// The item's value.
#[inline]
pub(super) fn value(bytes: &[u8], word: Word) -> &[u8] {
    let at = word.header_bytes() + word.key_bytes();
    &bytes[at..at + word.value_bytes()]
}

/// The item's value, to be changed where it lies.
pub(super) fn value_mut(bytes: &mut [u8], word: Word) -> &mut [u8] {
    let at = word.header_bytes() + word.key_bytes();
    &mut bytes[at..at + word.value_bytes()]
}

/// Six bytes reach the year 10889; a later expiry is stored as that.
fn stored_expiry(expiry: Expiry) -> u64 {
    if expiry == Expiry::NEVER { EXPIRY_NEVER } else { expiry.unix_ms().min(EXPIRY_NEVER - 1) }
}

#[inline]
fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[inline]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            cas: 7,
            flags: 0,
            expiry: Expiry::NEVER,
            access_s: 1_000,
            clock: 2,
            fetched: true,
            stale: false,
            token_sent: false,
        }
    }

    fn round_trip(meta: Meta, header_bytes: usize) {
        round_trip_of(meta, header_bytes, b"value");
    }

    fn round_trip_of(meta: Meta, header_bytes: usize, stored: &[u8]) {
        let mut bytes = vec![0xAA; 128 + stored.len()];
        write(&mut bytes, &meta, b"key", stored);
        let Record::Live(word) = read(&bytes) else { panic!("not live") };
        assert_eq!(word.header_bytes(), header_bytes);
        assert_eq!(Meta::read(&bytes, word), meta);
        assert_eq!(key(&bytes, word), b"key");
        assert_eq!(value(&bytes, word), stored);
        assert_eq!(bytes[word.record_bytes()], 0xAA, "wrote past its end");
    }

    #[test]
    fn optional_fields_cost_nothing_when_absent() {
        round_trip(meta(), 12);
        round_trip(Meta { flags: 9, ..meta() }, 16);
        round_trip(Meta { expiry: Expiry::at_unix_ms(1 << 40), ..meta() }, 18);
        round_trip(Meta { cas: u64::MAX, ..meta() }, 15);
        let all =
            Meta { cas: 1 << 40, flags: u32::MAX, expiry: Expiry::at_unix_ms(0), stale: true, ..meta() };
        round_trip(all, HEADER_BYTES_MAX - LENGTH_BYTES);
        round_trip_of(meta(), 12, &[3; 4_095]);
        let long = HEADER_BYTES_MIN + LENGTH_BYTES + CAS_WIDE_BYTES - CAS_NARROW_BYTES + EXPIRY_BYTES;
        round_trip_of(meta(), long, &[3; 4_096]);
        round_trip_of(all, HEADER_BYTES_MAX, &[3; VALUE_BYTES_MAX]);
    }

    #[test]
    fn an_expiry_changes_in_place_only_where_it_has_room() {
        let mut bytes = vec![0; 64];
        write(&mut bytes, &meta(), b"k", b"v");
        let word = live_word(&bytes);
        assert!(set_expiry(&mut bytes, word, Expiry::NEVER));
        assert!(!set_expiry(&mut bytes, word, Expiry::at_unix_ms(1)));
        write(&mut bytes, &Meta { expiry: Expiry::at_unix_ms(1), ..meta() }, b"k", b"v");
        let word = live_word(&bytes);
        assert!(set_expiry(&mut bytes, word, Expiry::NEVER));
        assert_eq!(expiry(&bytes, word), Expiry::NEVER);
        assert_eq!(value(&bytes, word), b"v");
    }

    #[test]
    fn idle_seconds_survive_the_wrap_of_the_stored_second() {
        let near_wrap = (1 << ACCESS_BITS) - 1;
        let word = meta().word(1, 0).accessed(near_wrap);
        assert_eq!(word.idle_s(near_wrap + 3), 3);
        assert_eq!(word.clock(), 3);
        assert_eq!(word.accessed(near_wrap).clock(), CLOCK_MAX);
    }

    #[test]
    fn what_is_left_of_a_record_can_be_walked() {
        let mut bytes = vec![1; 32];
        write_dead(&mut bytes[..4]);
        assert_eq!(read(&bytes), Record::Padding);
        write_dead(&mut bytes[..5]);
        assert_eq!(read(&bytes), Record::Dead { bytes: 5 });
        write_dead(&mut bytes);
        assert_eq!(read(&bytes), Record::Dead { bytes: 32 });
    }
}
