//! Attaching by a link, and who is attached already.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, netdevice};

use super::inspect::Foreign;
use super::{SteerError, kernel};
use crate::config::XdpMode;

/// How the program runs, once attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver, before the kernel makes a socket buffer of the packet.
    Native,
    /// In the kernel's generic hook, after that.
    Generic,
}

impl AttachedMode {
    /// `native` or `generic`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl std::fmt::Display for AttachedMode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.label())
    }
}

/// An interface of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
}

impl Interface {
    pub(super) fn find(name: &str) -> Result<Self, SteerError> {
        let index =
            name_to_index(name).map_err(|_| SteerError::NoInterface { interface: name.to_owned() })?;
        Ok(Self { name: name.to_owned(), index })
    }

    /// Name of an interface; `None` when this network namespace has none under that index.
    pub(super) fn name_of(index: u32) -> Option<String> {
        netdevice::index_to_name_inlined(any_socket().ok()?, index).ok().map(|name| name.as_str().to_owned())
    }
}

fn name_to_index(name: &str) -> io::Result<u32> {
    Ok(netdevice::name_to_index(any_socket()?, name)?)
}

/// Interfaces are asked for through a socket, of any kind.
fn any_socket() -> io::Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// A link that was made.
pub(super) struct Attached {
    pub(super) link: OwnedFd,
    pub(super) mode: AttachedMode,
    /// Why native mode was not had, when `auto` fell back.
    pub(super) fallback: Option<String>,
}

/// Attaches in the mode asked for; `auto` takes generic where native cannot be had.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    interface: &Interface,
    mode: XdpMode,
) -> Result<Attached, SteerError> {
    let try_mode = |mode| kernel::link_create(program, interface.index, mode);
    let attached = |link, mode, fallback| Ok(Attached { link, mode, fallback });
    if mode == XdpMode::Generic {
        return match try_mode(AttachedMode::Generic) {
            Ok(link) => attached(link, AttachedMode::Generic, None),
            Err(source) => Err(explain(interface, source, AttachedMode::Generic)),
        };
    }
    let refusal = match try_mode(AttachedMode::Native) {
        Ok(link) => return attached(link, AttachedMode::Native, None),
        Err(source) => source,
    };
    if mode == XdpMode::Native || !is_the_drivers(&refusal) {
        return Err(explain(interface, refusal, AttachedMode::Native));
    }
    match try_mode(AttachedMode::Generic) {
        Ok(link) => {
            let fallback = refusal.to_string();
            tracing::warn!(
                interface = interface.name,
                reason = fallback,
                "the driver refuses native XDP; the steering program runs in generic mode, which costs more"
            );
            attached(link, AttachedMode::Generic, Some(fallback))
        }
        Err(source) => Err(explain(interface, source, AttachedMode::Generic)),
    }
}

/// True when another mode may help: the driver refused, rather than the kernel for want of privilege, for another
/// program on the interface, or because the interface is gone.
fn is_the_drivers(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::EBUSY | libc::EEXIST | libc::ENODEV)
    )
}

/// The operator's error for a refused link.
fn explain(interface: &Interface, source: io::Error, mode: AttachedMode) -> SteerError {
    let name = interface.name.clone();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            SteerError::kernel("attaching the XDP program", io::Error::from_raw_os_error(libc::EPERM))
        }
        Some(libc::ENODEV) => SteerError::NoInterface { interface: name },
        // EBUSY: a link or program is there; EEXIST: one in the other mode.
        Some(libc::EBUSY | libc::EEXIST) => match Foreign::on(&interface.name, interface.index) {
            Ok(Some(foreign)) => SteerError::Foreign { interface: name, foreign },
            _ => SteerError::Attach { interface: name, source },
        },
        _ if mode == AttachedMode::Native => SteerError::NativeUnsupported { interface: name, source },
        _ => SteerError::Attach { interface: name, source },
    }
}
