//! The control plane, on housekeeping cores: start, stop, status, metrics, companion sockets.
//!
//! | module | what it owns |
//! |---|---|
//! | [`plane`] | [`ControlPlane`]: all of the below, started and stopped in order |
//! | [`state`] | what the daemon knows of itself |
//! | [`status`] | what `/status` says |
//! | [`metrics`] | what `/metrics` says |
//! | [`admin`] | HTTP |
//! | [`companion`] | the kernel sockets beside the bypass |
//! | [`sentinel`] | the child process that answers while the daemon is stopped |
//! | [`heartbeat`] | whether workers are alive |
//! | [`too_big`] | what routers say of packets that were too large |
//! | [`shutdown`] | signals |
//! | [`service_manager`] | what systemd is told |

pub mod admin;
pub mod companion;
pub mod heartbeat;
pub mod metrics;
pub mod plane;
pub mod sentinel;
pub mod service_manager;
pub mod shutdown;
pub mod state;
pub mod status;
pub mod too_big;

pub use plane::{ControlError, ControlPlane, ControlSetup, Prepared};
