//! The XDP program as user space sees it: load, attach, feed, pin, adopt, and ask the kernel about it.
//!
//! | module | what it owns |
//! |---|---|
//! | `program` | [`Steer`], the handle: owned or adopted, and all that it is fed |
//! | `services` | [`ServiceRule`]s into the maps, in an order that never leaves a service open |
//! | `addresses` | the addresses this host has, for services that name none |
//! | `heartbeat` | the workers' heartbeats, mapped into this process |
//! | `log` | the program's own log |
//! | `command` | what `dataplane steer load`, `unload` and `status` do |
//! | [`inspect`] | what the kernel really runs, and whose |
//! | `attach`, `pin` | the link; the bpffs, and the lock on what is pinned there |
//! | `object`, `maps` | the eBPF object; its maps, typed |
//! | `kernel` | the few raw BPF calls |
//! | `error` | [`SteerError`] |
//!
//! How the program decides stands at the top of `ebpf/src/main.rs`; what the maps hold, in `dataplane_ebpf::layout`.

mod addresses;
mod attach;
mod command;
mod error;
mod heartbeat;
pub mod inspect;
mod kernel;
mod log;
mod maps;
mod object;
mod pin;
mod program;
mod services;

pub use addresses::local_addresses;
pub use attach::AttachedMode;
pub use command::{LoadReport, load, status, unload};
pub use dataplane_ebpf::verdict::{Action, Verdict};
pub use error::SteerError;
pub use heartbeat::{BEAT_INTERVAL_NS, HeartbeatMap, HeartbeatSlot};
pub use log::ProgramLog;
pub use object::OBJECT_VARIABLE;
pub use program::{Steer, TestRunner};
pub use services::{ServiceProtocol, ServiceRule};
