//! What `dataplane steer load`, `unload` and `status` do.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use libbpf_rs::query::LinkInfo;
use serde::{Deserialize, Serialize};

use super::attach::Interface;
use super::inspect::{SteerStatus, inspect};
use super::pin::PinFolder;
use super::{ServiceRule, Steer, SteerError, kernel};
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

/// Longest wait for the kernel to let go of a link that is no longer pinned: it does so from a work queue.
const DETACH_WAIT: Duration = Duration::from_secs(1);
/// Time between two looks.
const DETACH_LOOK: Duration = Duration::from_millis(2);

/// Removes what [`load`] pinned, which detaches it: when this returns it is. Works on what any version left, and when the
/// interface is gone.
///
/// # Errors
/// [`SteerError::NotLoaded`], [`SteerError::Held`] while a daemon has it, [`SteerError::Pin`].
pub fn unload(interface: &str, directory: &Path) -> Result<(), SteerError> {
    let folder = PinFolder::open(directory, interface)?;
    let attached = || {
        let index = Interface::find(interface).ok()?.index;
        kernel::query_xdp(index).ok().flatten().map(|(program, _)| program)
    };
    // Another's program may have taken the place of the one that is pinned, and stays.
    let link = folder.open_object(&folder.link_path()).ok().flatten();
    let pinned = link.and_then(|link| LinkInfo::from_fd(link.as_fd()).ok());
    folder.remove()?;
    let Some(program) = pinned.map(|link| link.prog_id) else { return Ok(()) };
    let start = Instant::now();
    while attached() == Some(program) && start.elapsed() < DETACH_WAIT {
        std::thread::sleep(DETACH_LOOK);
    }
    Ok(())
}

/// What is loaded and pinned on this host; see [`inspect`].
///
/// # Errors
/// As [`inspect`].
pub fn status(directory: &Path, window: Duration) -> Result<SteerStatus, SteerError> {
    inspect(directory, window)
}
