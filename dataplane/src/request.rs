//! The one request and reply model: every front end (memcached classic and meta, RESP, shared-memory rings)
//! turns its bytes into a [`Request`], every table answers with a [`Reply`].

use crate::time::Expiry;

/// Who asked: carried by a request so that a reply may come later than the call that submitted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

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
    /// Add to or take from a decimal number.
    Arithmetic(Arithmetic),
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
    /// Take effect only when the item's CAS equals this (`cas`, meta `C`).
    pub compare_cas: Option<u64>,
    /// Give the item this CAS instead of the next one (meta `E`).
    pub new_cas: Option<u64>,
    /// With `compare_cas`: a lower CAS than the item's stores the value and marks it stale, instead of failing
    /// (meta `I`).
    pub invalidate: bool,
    /// For append and prepend on a miss: create the item with this expiry (meta `N`).
    pub vivify: Option<Expiry>,
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
            compare_cas: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
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
    /// The item a get found (or made, with `vivify`), or the number arithmetic left (its digits are the value).
    Value(Item<'t>),
    /// The write took effect; the item now has this CAS.
    Stored {
        /// The item's CAS.
        cas: u64,
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
    /// Key and value together exceed what the table takes.
    TooLarge,
    /// No room could be made.
    OutOfMemory,
    /// Done, with nothing to tell (flush).
    Done,
}
