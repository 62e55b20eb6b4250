//! What a client can ask, borrowed from the bytes it came in.

use super::base64::{self, DECODED_BYTES_MAX};
use super::token::Tokens;
use crate::request::{Direction, StoreMode};
use crate::time::{Expiry, MS_PER_S, Now};

/// One command, with its value.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// `get`, `gets`, `gat`, `gats`.
    Get(Get<'a>),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    Store(Store<'a>),
    /// `delete`.
    Delete {
        /// The key.
        key: &'a [u8],
        /// `noreply`.
        quiet: bool,
    },
    /// `incr`, `decr`.
    Arithmetic {
        /// The key.
        key: &'a [u8],
        /// Up or down.
        direction: Direction,
        /// By how much.
        delta: u64,
        /// `noreply`.
        quiet: bool,
    },
    /// `touch`.
    Touch {
        /// The key.
        key: &'a [u8],
        /// The new expiry.
        exptime: Exptime,
        /// `noreply`.
        quiet: bool,
    },
    /// `flush_all`.
    FlushAll {
        /// When; a time not in the future is now.
        delay: Exptime,
        /// `noreply`.
        quiet: bool,
    },
    /// `verbosity`: taken and ignored.
    Verbosity {
        /// `noreply`.
        quiet: bool,
    },
    /// `version`.
    Version,
    /// `stats`, with the words behind it.
    Statistics(Tokens<'a>),
    /// `shutdown`: refused, as memcached does unless told otherwise.
    Shutdown,
    /// `quit`.
    Quit,
    /// `mg`.
    MetaGet(Meta<'a>),
    /// `ms`.
    MetaStore {
        /// The key and flags.
        meta: Meta<'a>,
        /// Which store.
        mode: StoreMode,
        /// The value.
        value: &'a [u8],
    },
    /// `md`.
    MetaDelete(Meta<'a>),
    /// `ma`.
    MetaArithmetic {
        /// The key and flags.
        meta: Meta<'a>,
        /// Up or down.
        direction: Direction,
    },
    /// `me`.
    MetaDebug(MetaKey<'a>),
    /// `mn`.
    MetaNoop,
}

/// A classic read of one key or many.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The keys: at least one, except for `gat` and `gats`, and each of them valid.
    pub keys: Tokens<'a>,
    /// `gets`, `gats`: tell the CAS.
    pub cas: bool,
    /// `gat`, `gats`: the new expiry.
    pub touch: Option<Exptime>,
}

/// A classic store.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Which store.
    pub mode: StoreMode,
    /// The client's own flags.
    pub flags: u32,
    /// When it expires.
    pub exptime: Exptime,
    /// `cas`: the CAS to compare with.
    pub cas: Option<u64>,
    /// The value.
    pub value: &'a [u8],
    /// `noreply`.
    pub quiet: bool,
}

/// An expiry as the client wrote it (protocol.txt, "Expiration times").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exptime(pub i64);

/// Longest relative expiry; a larger number is a Unix time.
const RELATIVE_S_MAX: i64 = 60 * 60 * 24 * 30;

impl Exptime {
    /// As an absolute time: 0 is never, a negative number is long ago.
    #[inline]
    #[must_use]
    pub fn expiry(self, now: Now) -> Expiry {
        match self.0 {
            0 => Expiry::NEVER,
            ..0 => Expiry::at_unix_ms(0),
            1..=RELATIVE_S_MAX => Expiry::at_unix_ms(now.unix_ms.saturating_add(self.0 as u64 * MS_PER_S)),
            _ => Expiry::at_unix_ms((self.0 as u64).saturating_mul(MS_PER_S)),
        }
    }

    /// As a number of seconds from now: `None` for 0, a negative number and a time that is past.
    #[inline]
    #[must_use]
    pub fn seconds(self, now: Now) -> Option<u64> {
        if self.0 == 0 { None } else { self.expiry(now).remaining_s(now).filter(|&seconds| seconds > 0) }
    }
}

/// A meta command's key: its word in the line, plain or base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaKey<'a> {
    /// As the client wrote it, and as replies repeat it.
    pub word: &'a [u8],
    /// Flag `b`: the word is base64; the parser has checked that it decodes.
    pub binary: bool,
}

impl<'a> MetaKey<'a> {
    /// The key's own bytes.
    #[inline]
    #[must_use]
    pub fn bytes<'b>(&self, scratch: &'b mut [u8; DECODED_BYTES_MAX]) -> &'b [u8]
    where
        'a: 'b,
    {
        if self.binary {
            base64::decode(self.word, scratch).expect("the parser has decoded it before")
        } else {
            self.word
        }
    }
}

/// The key and flags that all meta commands share. A flag that a command does not use is taken and ignored, as
/// memcached does.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    /// The key.
    pub key: MetaKey<'a>,
    /// The flags' words in the client's order, in which replies repeat them.
    pub words: Tokens<'a>,
    /// Which flags are set: bit n for the flag whose character is n.
    pub present: u128,
    /// `T`
    pub touch: Option<Exptime>,
    /// `N`
    pub vivify: Option<Exptime>,
    /// `R`
    pub recache: Option<Exptime>,
    /// `F`
    pub flags: u32,
    /// `C`
    pub compare_cas: Option<u64>,
    /// `E`
    pub new_cas: Option<u64>,
    /// `M`
    pub mode: Option<u8>,
    /// `J`
    pub initial: u64,
    /// `D`
    pub delta: u64,
}

impl Meta<'_> {
    /// Whether a flag is set.
    #[inline]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.present & (1 << flag) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exptimes_are_relative_up_to_thirty_days() {
        let now = Now { monotonic_ns: 0, unix_ms: 1_700_000_000_500 };
        assert_eq!(Exptime(0).expiry(now), Expiry::NEVER);
        assert!(Exptime(-1).expiry(now).has_passed(now));
        assert!(Exptime(i64::MIN).expiry(now).has_passed(now));
        assert_eq!(Exptime(10).expiry(now), Expiry::at_unix_ms(1_700_000_010_500));
        assert_eq!(Exptime(2_592_000).expiry(now), Expiry::at_unix_ms(1_702_592_000_500));
        assert!(Exptime(2_592_001).expiry(now).has_passed(now));
        assert_eq!(Exptime(1_800_000_000).expiry(now), Expiry::at_unix_ms(1_800_000_000_000));
        assert!(!Exptime(i64::MAX).expiry(now).has_passed(now));
    }

    #[test]
    fn seconds_ahead_of_an_exptime() {
        let now = Now { monotonic_ns: 0, unix_ms: 1_700_000_000_000 };
        assert_eq!(Exptime(0).seconds(now), None);
        assert_eq!(Exptime(-5).seconds(now), None);
        assert_eq!(Exptime(30).seconds(now), Some(30));
        assert_eq!(Exptime(1_700_000_040).seconds(now), Some(40));
    }
}
