//! What `dataplane steer load`, `unload` and `status` do.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inspect::{SteerStatus, inspect};
use super::pin::PinFolder;
use super::{ServiceRule, Steer, SteerError};
use crate::config::{SteerLogLevel, XdpMode};

/// What `load` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Interface name.
    pub interface: String,
    /// The program's number in the kernel.
    pub program_id: u32,
    /// `native` or `generic`.
    pub mode: String,
    /// Why native mode was not had, when it was tried.
    pub fallback: Option<String>,
    /// Where it is pinned.
    pub path: String,
}

/// Attaches the steering program to an interface and pins it, for a daemon to adopt. Until one does, every packet
/// goes to the kernel.
///
/// # Errors
/// As [`Steer::load_and_pin`].
pub fn load(
    interface: &str,
    mode: XdpMode,
    level: SteerLogLevel,
    services: &[ServiceRule],
    directory: &Path,
) -> Result<LoadReport, SteerError> {
    let steer = Steer::load_and_pin(interface, mode, level, services, directory)?;
    Ok(LoadReport {
        interface: interface.to_owned(),
        program_id: steer.program_id(),
        mode: steer.mode().map_or("", super::AttachedMode::label).to_owned(),
        fallback: steer.fallback().map(str::to_owned),
        path: directory.join(interface).display().to_string(),
    })
}

/// Removes what [`load`] pinned, which detaches it. Works on what any version left, and when the interface is gone.
///
/// # Errors
/// [`SteerError::NotLoaded`], [`SteerError::Held`] while a daemon has it, [`SteerError::Pin`].
pub fn unload(interface: &str, directory: &Path) -> Result<(), SteerError> {
    PinFolder::open(directory, interface)?.remove()
}

/// What is loaded and pinned on this host; see [`inspect`].
///
/// # Errors
/// As [`inspect`].
pub fn status(directory: &Path, window: Duration) -> Result<SteerStatus, SteerError> {
    inspect(directory, window)
}
