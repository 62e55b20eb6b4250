//! What one client has set up on its connection.

use std::net::SocketAddr;

use super::encode::Version;
use super::spec::Spec;

/// Longest name a client can give itself, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its number.
    pub(super) id: u64,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// When it sent its first command.
    pub(super) since_unix_s: Option<u64>,
    pub(super) version: Version,
    pub(super) name: Name,
    pub(super) library_name: Name,
    pub(super) library_version: Name,
    /// It asked not to be disconnected for want of memory, which never happens here; `CLIENT LIST` shows it.
    pub(super) no_evict: bool,
    /// The command it sent last.
    pub(super) last_command: Option<&'static Spec>,
    /// It said goodbye.
    pub(super) quits: bool,
    /// What is left of a command of which a part was answered, and whose other part waits for room.
    pub(super) left: Option<Left>,
}

impl Client {
    pub(super) fn new(id: u64, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            id,
            local,
            peer,
            since_unix_s: None,
            version: Version::default(),
            name: Name::default(),
            library_name: Name::default(),
            library_version: Name::default(),
            no_evict: false,
            last_command: None,
            quits: false,
            left: None,
        }
    }
}

/// The keys of an `MGET` that were not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) keys: usize,
    /// Bytes of the request that they have.
    pub(super) bytes: usize,
}

/// A name of printable characters without a space; empty when none was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    length: u8,
    bytes: [u8; NAME_BYTES_MAX],
}

impl Default for Name {
    fn default() -> Self {
        Self { length: 0, bytes: [0; NAME_BYTES_MAX] }
    }
}

/// Why a name is none.
pub(super) enum BadName {
    Character,
    TooLong,
}

impl Name {
    pub(super) fn new(name: &[u8]) -> Result<Self, BadName> {
        // Redis looks no further than the first zero byte, which would then be part of the name.
        if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
            return Err(BadName::Character);
        }
        let mut kept = Self::default();
        kept.bytes.get_mut(..name.len()).ok_or(BadName::TooLong)?.copy_from_slice(name);
        kept.length = name.len() as u8;
        Ok(kept)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);
