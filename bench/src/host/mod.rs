//! The machine that is measured on.
//!
//! | module | what it owns |
//! |---|---|
//! | [`machine`] | what it is, and which source a figure was made with |
//! | [`clocks`] | where the time of both cores goes |
//! | `awake` | cores that do not halt between requests |
//! | `link`, `napi` | what an interface drops, and who runs its packet processing |
//! | `sysctl` | settings of its kernel, changed for a while |

pub(crate) mod awake;
pub mod clocks;
pub(crate) mod link;
pub mod machine;
pub(crate) mod napi;
pub(crate) mod sysctl;
