//! The one request and reply model: every front end (memcached classic and meta, RESP, shared-memory rings)
//! turns its bytes into a [`Request`], every table answers with a [`Reply`].
//!
//! A request is about one key and takes effect whole. A command over many keys needs no operation of its own: a shard is
//! one thread, so nothing comes between the requests that a session submits one after the other.

use crate::time::Expiry;

/// Who asked: carried by a request so that a reply may come later than the call that submitted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

impl Origin {
    /// A request of this origin, with the table's own durability.
    #[inline]
    #[must_use]
    pub fn request<'a>(self, key: &'a [u8], op: Op<'a>) -> Request<'a> {
        Request { origin: self, ..Request::new(key, op) }
    }
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// As the table's class has it: at once for a memory table, after its flush for a durable one.
    #[default]
    Table,
    /// Acknowledged from memory, flushed later.
    Relaxed,
}

/// One operation on one key.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asked.
    pub origin: Origin,
    /// The key, at most [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX) bytes and never empty; empty for
    /// [`Op::FlushAll`].
    pub key: &'a [u8],
    /// What to do.
    pub op: Op<'a>,
    /// When a write counts as done.
    pub durability: Durability,
}

impl<'a> Request<'a> {
    /// A request with no origin and the table's own durability.
    #[must_use]
    pub fn new(key: &'a [u8], op: Op<'a>) -> Self {
        Self { origin: Origin::default(), key, op, durability: Durability::default() }
    }
}

/// What to do with a key.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// Read an item.
    Get(Get),
    /// Write an item.
    Store(Store<'a>),
    /// Add to or take from an unsigned decimal number, as memcached does.
    Arithmetic(Arithmetic),
    /// Add to a signed decimal number of 64 bits, as Redis does: an absent one is made from 0 and never expires, one
    /// that would overflow is left alone. Flags, expiry and marks stay.
    Add(i64),
    /// Remove an item, or mark it stale.
    Delete(Delete),
    /// Change the expiry; counts as a read for recency and the fetched mark, as memcached has it.
    Touch(Expiry),
    /// Make every item written before this time (milliseconds since the Unix epoch) disappear at this time.
    /// A time not in the future acts at once.
    FlushAll {
        /// When, in milliseconds since the Unix epoch.
        at_unix_ms: u64,
    },
}

/// How to read an item. The default is a plain get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Get {
    /// Set the expiry when the item is there (`gat`, meta `T`).
    pub touch: Option<Expiry>,
    /// On a miss create an empty item with this expiry and win the right to fill it (meta `N`).
    pub vivify: Option<Expiry>,
    /// With `claim`: win the right to recache when the item, before `touch`, has less than this many seconds left
    /// (meta `R`).
    pub recache_below_s: Option<u64>,
    /// Give the item this CAS when the read changes it (meta `E` with `N`).
    pub new_cas: Option<u64>,
    /// Take part in handing out the right to recache: a stale item, or one that `recache_below_s` names, is won by
    /// the first such reader and told as sent to later ones (every `mg`; never a classic get or `me`).
    pub claim: bool,
    /// Leave recency, last access and the fetched mark alone (meta `u`, and `me`).
    pub peek: bool,
    /// The longest value there is room for: a longer one is answered with [`Reply::NoRoom`], and nothing is changed.
    pub value_bytes_max: Option<usize>,
}

/// When a store takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreMode {
    /// Always.
    #[default]
    Set,
    /// Only when the key is absent.
    Add,
    /// Only when the key is present.
    Replace,
    /// Behind the present value; flags and expiry stay.
    Append,
    /// Before the present value; flags and expiry stay.
    Prepend,
    /// Over the present value from this byte on, zeros up to it where the value is shorter; flags and expiry stay.
    Range {
        /// Where the value goes, in bytes.
        offset: u32,
    },
}

impl StoreMode {
    /// Whether the present value goes into the new one.
    #[must_use]
    pub const fn joins(self) -> bool {
        matches!(self, Self::Append | Self::Prepend | Self::Range { .. })
    }
}

/// How to write an item.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// When it takes effect.
    pub mode: StoreMode,
    /// The value, at most [`VALUE_BYTES_MAX`](crate::limits::VALUE_BYTES_MAX) bytes.
    pub value: &'a [u8],
    /// The client's own flags.
    pub flags: u32,
    /// When it expires.
    pub expiry: Expiry,
    /// Leave a present item its expiry (`KEEPTTL`).
    pub keep_expiry: bool,
    /// Take effect only when the item's CAS equals this (`cas`, meta `C`).
    pub compare_cas: Option<u64>,
    /// Give the item this CAS instead of the next one (meta `E`).
    pub new_cas: Option<u64>,
    /// With `compare_cas`: a lower CAS than the item's stores the value and marks it stale, instead of failing
    /// (meta `I`).
    pub invalidate: bool,
    /// For the modes that join, on a miss: create the item with this expiry (meta `N`).
    pub vivify: Option<Expiry>,
    /// Answer with the item as it was ([`Reply::Value`]), if there was one, whether or not the mode lets the store take
    /// effect (`SET` with `GET`). A value longer than this is answered with [`Reply::NoRoom`], and nothing is stored. The
    /// modes that join tell nothing.
    pub old_bytes_max: Option<usize>,
}

impl<'a> Store<'a> {
    /// A plain set that never expires.
    #[must_use]
    pub fn set(value: &'a [u8]) -> Self {
        Self {
            mode: StoreMode::Set,
            value,
            flags: 0,
            expiry: Expiry::NEVER,
            keep_expiry: false,
            compare_cas: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
            old_bytes_max: None,
        }
    }
}

/// Which way a number goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Up, wrapping at 2^64 as memcached does.
    #[default]
    Increment,
    /// Down, stopping at 0 as memcached does.
    Decrement,
}

/// How to change a number stored as decimal digits and nothing else. Flags, expiry, and the fetched and stale marks
/// stay as they are.
#[derive(Clone, Copy, Debug)]
pub struct Arithmetic {
    /// Up or down.
    pub direction: Direction,
    /// By how much.
    pub delta: u64,
    /// On a miss: create it with this value and expiry (meta `N` and `J`).
    pub initial: Option<(u64, Expiry)>,
    /// New expiry, when given (meta `T`).
    pub touch: Option<Expiry>,
    /// Take effect only when the item's CAS equals this.
    pub compare_cas: Option<u64>,
    /// Give the item this CAS instead of the next one.
    pub new_cas: Option<u64>,
}

/// How to remove an item. The default removes it whatever its CAS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// Take effect only when the item's CAS equals this.
    pub compare_cas: Option<u64>,
    /// Keep the item but mark it stale and give it a new CAS (meta `I`).
    pub mark_stale: bool,
    /// Keep the item but drop its value and flags (meta `x`).
    pub drop_value: bool,
    /// With `mark_stale`: its new expiry (meta `T`).
    pub touch: Option<Expiry>,
    /// Give the kept item this CAS instead of the next one (meta `E`).
    pub new_cas: Option<u64>,
    /// When the item is removed: answer with it as it was ([`Reply::Value`], `GETDEL`). A value longer than this is
    /// answered with [`Reply::NoRoom`], and nothing is removed.
    pub old_bytes_max: Option<usize>,
}

/// Whether this reader should recompute the item (memcached's anti-dogpile flags).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recache {
    /// No need.
    #[default]
    None,
    /// This reader is the one to do it (meta `W`).
    Won,
    /// Another reader is already at it (meta `Z`).
    Sent,
}

/// An item as a reader sees it; the value is borrowed from the table.
#[derive(Clone, Copy, Debug)]
pub struct Item<'t> {
    /// The value.
    pub value: &'t [u8],
    /// The client's own flags.
    pub flags: u32,
    /// Changes with every write.
    pub cas: u64,
    /// When it expires.
    pub expiry: Expiry,
    /// Seconds since it was last read, before this read.
    pub idle_s: u32,
    /// It had been read before this read.
    pub fetched: bool,
    /// It was marked stale (meta `X`).
    pub stale: bool,
    /// Whether this reader should recompute it.
    pub recache: Recache,
}

/// What a table answers.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'t> {
    /// The item a get found (or made, with `vivify`), the number arithmetic left (its digits are the value), or the item
    /// as it was before a write that was to tell.
    Value(Item<'t>),
    /// The write took effect.
    Stored {
        /// The item's CAS now.
        cas: u64,
        /// Bytes of its value now.
        value_bytes: usize,
    },
    /// The key is absent: a get, touch, delete, arithmetic or CAS missed.
    NotFound,
    /// The store's condition did not hold (add on a present key; replace, append, prepend on an absent one).
    NotStored,
    /// The item's CAS is another.
    Exists,
    /// Removed, or marked stale.
    Deleted,
    /// The expiry was changed.
    Touched,
    /// The value is not a decimal number of 64 bits.
    NotANumber,
    /// The sum is beyond a signed number of 64 bits.
    Overflow,
    /// The value is longer than the request has room for; nothing was done.
    NoRoom {
        /// Bytes of the value.
        value_bytes: usize,
    },
    /// Key and value together exceed what the table takes.
    TooLarge,
    /// No room could be made.
    OutOfMemory,
    /// Done, with nothing to tell (flush).
    Done,
}
