//! Memory for UMEMs and arenas: node-bound, in huge pages where there are any, and honest about what it got.
//!
//! | file | what it holds |
//! |---|---|
//! | `region.rs` | [`Region`]: one mapping, placed and faulted in before anybody uses it |
//! | `pages.rs` | huge pages the host has, and the `madvise` calls |
//! | `node.rs` | NUMA nodes the host has, and `mbind` |
//! | `error.rs` | [`MemoryError`]: what is missing, and the command that mends it |

mod error;
mod node;
mod pages;
mod region;

pub use error::MemoryError;
pub use region::{HugePages, Placement, Region};
