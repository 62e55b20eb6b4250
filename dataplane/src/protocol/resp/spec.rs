//! What a command is: its name, how many arguments it takes, and what `COMMAND` tells of it.

use super::catalogue::COMMANDS;
use crate::metrics::OpKind;

/// A command or subcommand that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the Redis command of its name")]
pub enum Command {
    Append,
    Auth,
    Client,
    ClientGetname,
    ClientHelp,
    ClientId,
    ClientInfo,
    ClientList,
    ClientNoEvict,
    ClientSetinfo,
    ClientSetname,
    Command,
    CommandCount,
    CommandDocs,
    CommandHelp,
    CommandInfo,
    Config,
    ConfigGet,
    ConfigHelp,
    Dbsize,
    Decr,
    Decrby,
    Del,
    Echo,
    Exists,
    Expire,
    Expireat,
    Expiretime,
    Flushall,
    Flushdb,
    Get,
    Getdel,
    Getex,
    Getrange,
    Getset,
    Hello,
    Incr,
    Incrby,
    Incrbyfloat,
    Info,
    Keys,
    Mget,
    Mset,
    Msetnx,
    Persist,
    Pexpire,
    Pexpireat,
    Pexpiretime,
    Ping,
    Psetex,
    Pttl,
    Quit,
    Randomkey,
    Rename,
    Renamenx,
    Scan,
    Select,
    Set,
    Setex,
    Setnx,
    Setrange,
    Strlen,
    Touch,
    Ttl,
    Type,
    Unlink,
}

macro_rules! bits {
    ($(#[$outer:meta])* $module:ident { $($name:ident = $bit:literal => $label:literal,)* }) => {
        $(#[$outer])*
        #[expect(missing_docs, reason = "each is Redis's own word, as its label spells it")]
        pub mod $module {
            $(pub const $name: u16 = 1 << $bit;)*

            /// The words of these bits, in Redis's order.
            pub fn labels(bits: u16) -> impl Iterator<Item = &'static str> + Clone {
                const LABELS: &[(u16, &str)] = &[$(($name, $label),)*];
                LABELS.iter().filter(move |(bit, _)| bits & bit != 0).map(|&(_, label)| label)
            }
        }
    };
}

bits! {
    /// What a command is like.
    flags {
        WRITE = 0 => "write",
        READONLY = 1 => "readonly",
        DENYOOM = 2 => "denyoom",
        ADMIN = 3 => "admin",
        NOSCRIPT = 4 => "noscript",
        LOADING = 5 => "loading",
        STALE = 6 => "stale",
        FAST = 7 => "fast",
        NO_AUTH = 8 => "no_auth",
        ALLOW_BUSY = 9 => "allow_busy",
    }
}

bits! {
    /// The groups of commands that Redis's access lists know.
    categories {
        KEYSPACE = 0 => "@keyspace",
        READ = 1 => "@read",
        WRITE = 2 => "@write",
        STRING = 3 => "@string",
        ADMIN = 4 => "@admin",
        FAST = 5 => "@fast",
        SLOW = 6 => "@slow",
        DANGEROUS = 7 => "@dangerous",
        CONNECTION = 8 => "@connection",
    }
}

bits! {
    /// What a command does with its keys.
    access {
        RO = 0 => "RO",
        RW = 1 => "RW",
        OW = 2 => "OW",
        RM = 3 => "RM",
        ACCESS = 4 => "access",
        UPDATE = 5 => "update",
        INSERT = 6 => "insert",
        DELETE = 7 => "delete",
        VARIABLE_FLAGS = 8 => "variable_flags",
    }
}

/// Which arguments are keys.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// The first, counted with the command's name as 0.
    pub first: usize,
    /// The last: so many behind the first, or -1 for the command's last argument.
    pub last: i64,
    /// From one key to the next.
    pub step: usize,
    /// What is done with them ([`access`]).
    pub access: u16,
    /// A remark.
    pub notes: Option<&'static str>,
}

impl Keys {
    /// With a remark.
    pub(super) const fn notes(self, notes: &'static str) -> Self {
        Self { notes: Some(notes), ..self }
    }
}

/// One key.
pub(super) const fn one(first: usize, access: u16) -> Keys {
    Keys { first, last: 0, step: 1, access, notes: None }
}

/// Every argument is a key.
pub(super) const fn every(first: usize, access: u16) -> Keys {
    Keys { last: -1, ..one(first, access) }
}

/// Every second argument is a key.
pub(super) const fn pairs(first: usize, access: u16) -> Keys {
    Keys { step: 2, ..every(first, access) }
}

/// One command.
#[derive(Debug)]
pub struct Spec {
    /// In small letters; a subcommand's begins with its container's and `|`.
    pub name: &'static str,
    /// Which it is.
    pub command: Command,
    /// Arguments it takes, its name included; negative: at least so many.
    pub arity: i64,
    /// What it is counted as.
    pub kind: OpKind,
    /// [`flags`].
    pub flags: u16,
    /// [`categories`].
    pub categories: u16,
    /// Hints for clients.
    pub tips: &'static [&'static str],
    /// Which arguments are keys.
    pub keys: &'static [Keys],
    /// Its subcommands.
    pub subcommands: &'static [Self],
    /// The group of commands it is documented in.
    pub group: &'static str,
    /// The Redis release that had it first.
    pub since: &'static str,
    /// What it does.
    pub summary: &'static str,
}

impl Spec {
    pub(super) const fn new(
        name: &'static str,
        command: Command,
        arity: i64,
        kind: OpKind,
        flags: u16,
    ) -> Self {
        let mut categories = if flags & flags::FAST != 0 { categories::FAST } else { categories::SLOW };
        if flags & flags::READONLY != 0 {
            categories |= categories::READ;
        }
        if flags & flags::WRITE != 0 {
            categories |= categories::WRITE;
        }
        if flags & flags::ADMIN != 0 {
            categories |= categories::ADMIN;
        }
        Self {
            name,
            command,
            arity,
            kind,
            flags,
            categories,
            tips: &[],
            keys: &[],
            subcommands: &[],
            group: "",
            since: "",
            summary: "",
        }
    }

    pub(super) const fn also(self, categories: u16) -> Self {
        Self { categories: self.categories | categories, ..self }
    }

    pub(super) const fn tips(self, tips: &'static [&'static str]) -> Self {
        Self { tips, ..self }
    }

    pub(super) const fn keys(self, keys: &'static [Keys]) -> Self {
        Self { keys, ..self }
    }

    pub(super) const fn subcommands(self, subcommands: &'static [Self]) -> Self {
        Self { subcommands, ..self }
    }

    pub(super) const fn docs(self, group: &'static str, since: &'static str, summary: &'static str) -> Self {
        let categories = match group.as_bytes() {
            b"generic" => categories::KEYSPACE,
            b"string" => categories::STRING,
            _ => 0,
        };
        Self { group, since, summary, ..self.also(categories) }
    }

    /// Whether a command may have so many arguments, its name included.
    #[inline]
    #[must_use]
    pub fn takes(&self, arguments: usize) -> bool {
        let arguments = arguments as i64;
        if self.arity >= 0 { arguments == self.arity } else { arguments >= -self.arity }
    }

    /// The first key, the last and the step between them, as Redis told them before it had more than one range.
    #[must_use]
    pub fn range(&self) -> (i64, i64, i64) {
        let (Some(first), Some(last)) = (self.keys.first(), self.keys.last()) else { return (0, 0, 0) };
        let end = if last.last < 0 { last.last } else { last.first as i64 + last.last };
        (first.first as i64, end, first.step as i64)
    }

    /// A subcommand, in capitals or not.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Self> {
        self.subcommands.iter().find(|spec| {
            let (_, own) = spec.name.split_once('|').unwrap_or_default();
            own.as_bytes().eq_ignore_ascii_case(name)
        })
    }
}

/// Longest name of a command, in bytes.
const NAME_BYTES_MAX: usize = 16;

/// A name's bytes, in small letters.
const fn packed(name: &[u8]) -> u128 {
    let mut bytes = [0; NAME_BYTES_MAX];
    let mut at = 0;
    while at < name.len() {
        bytes[at] = name[at].to_ascii_lowercase();
        at += 1;
    }
    u128::from_le_bytes(bytes)
}

/// Slots of the table of names: a power of two, and sparse.
const SLOTS: usize = 256;

const _: () = assert!(COMMANDS.len() * 2 < SLOTS && COMMANDS.len() < EMPTY as usize);

const EMPTY: u8 = u8::MAX;

const fn slot(packed: u128) -> usize {
    let folded = (packed as u64) ^ (packed >> 64) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// Where each name is in [`COMMANDS`], and its bytes beside it.
static NAMES: ([u8; SLOTS], [u128; SLOTS]) = {
    let (mut indices, mut names) = ([EMPTY; SLOTS], [0; SLOTS]);
    let mut index = 0;
    while index < COMMANDS.len() {
        let name = packed(COMMANDS[index].name.as_bytes());
        let mut at = slot(name);
        while indices[at] != EMPTY {
            at = (at + 1) % SLOTS;
        }
        indices[at] = index as u8;
        names[at] = name;
        index += 1;
    }
    (indices, names)
};

/// A command, in capitals or not.
#[inline]
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > NAME_BYTES_MAX || name.contains(&0) {
        return None;
    }
    let name = packed(name);
    let (indices, names) = &NAMES;
    let mut at = slot(name);
    while indices[at] != EMPTY {
        if names[at] == name {
            return COMMANDS.get(usize::from(indices[at]));
        }
        at = (at + 1) % SLOTS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        for spec in &COMMANDS {
            assert_eq!(find(spec.name.as_bytes()).map(|found| found.command), Some(spec.command));
            assert_eq!(
                find(spec.name.to_uppercase().as_bytes()).map(|found| found.command),
                Some(spec.command)
            );
        }
        for unknown in ["", "gett", "ge", "get\0", "client|id", "a-name-of-more-than-sixteen-bytes"] {
            assert!(find(unknown.as_bytes()).is_none(), "{unknown}");
        }
    }

    #[test]
    fn the_catalogue_is_sorted() {
        assert!(COMMANDS.is_sorted_by_key(|spec| spec.name));
    }
}
