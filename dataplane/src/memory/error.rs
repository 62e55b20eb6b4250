//! Why memory could not be had, in words an operator can act on.

use std::io;

use super::pages::HugePagePool;

/// Why memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A mapping of nothing, or of more than an address space.
    #[error("cannot map {bytes} bytes: ask for at least one, and for less than the address space")]
    Size {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The kernel refused the mapping.
    #[error("cannot map {bytes} bytes: {source}; free memory, or ask for less")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Huge pages were required and there are too few.
    #[error(
        "{bytes} bytes need {needed} huge pages of 2 MiB, and {free} of the host's {total} are free{place}; run \
         `{cure}` (or `hugeadm --pool-pages-min 2MB:{target}`), or set huge_pages to \"auto\"",
        free = pool.free, total = pool.total, place = on_node(*node), cure = pool.cure(*needed, *node),
        target = pool.target(*needed)
    )]
    HugePages {
        /// Bytes asked for.
        bytes: usize,
        /// Huge pages they take.
        needed: u64,
        /// What the host, or the node, has.
        pool: HugePagePool,
        /// The node they have to lie on.
        node: Option<u32>,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The host has no such NUMA node.
    #[error("the host has no NUMA node {node} with memory; it has {present}")]
    NoSuchNode {
        /// Node asked for.
        node: u32,
        /// Nodes there are, in the kernel's list format.
        present: String,
    },
    /// The kernel refused to bind the mapping to its node.
    #[error(
        "cannot bind memory to NUMA node {node}: {source}; the process's cpuset must allow the node \
         (see Mems_allowed_list in /proc/self/status)"
    )]
    Bind {
        /// Node asked for.
        node: u32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// There is an address range but not enough memory behind it.
    #[error("cannot fault in {bytes} bytes{place}: {source}; free memory there, or ask for less",
        place = on_node(*node))]
    Populate {
        /// Bytes asked for.
        bytes: usize,
        /// The node they have to lie on.
        node: Option<u32>,
        /// The kernel's reason.
        source: io::Error,
    },
}

fn on_node(node: Option<u32>) -> String {
    node.map_or_else(String::new, |node| format!(" on NUMA node {node}"))
}
