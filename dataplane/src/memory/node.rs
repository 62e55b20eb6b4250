//! NUMA nodes: which there are, and `mbind(2)`.

use std::io;

use super::MemoryError;

/// Nodes a mask can name; the kernel's own bound (`CONFIG_NODES_SHIFT` of at most 10).
const NODES_MAX: usize = 1024;
const BITS: usize = u64::BITS as usize;
/// Numa policy flag of `mbind`: fail when pages already lie elsewhere.
const MPOL_MF_STRICT: libc::c_ulong = 1;

/// Binds a mapping to a node. To be called before the first touch: bound pages are not moved.
///
/// # Errors
/// [`MemoryError`] when there is no such node, or the process may not use it.
pub(super) fn bind(bytes: &mut [u8], node: u32) -> Result<(), MemoryError> {
    if !exists(node) {
        return Err(MemoryError::NoSuchNode { node, present: present() });
    }
    let mut mask = [0u64; NODES_MAX / BITS];
    mask[node as usize / BITS] = 1 << (node as usize % BITS);
    // SAFETY: the range is one live mapping, borrowed exclusively; the mask outlives the call and has the
    // number of bits named (the kernel reads one fewer than it is told); a policy changes no contents.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            bytes.as_mut_ptr(),
            bytes.len(),
            libc::c_long::from(libc::MPOL_BIND),
            mask.as_ptr(),
            NODES_MAX + 1,
            MPOL_MF_STRICT,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    // A kernel without NUMA has one node, and all memory is on it.
    if source.raw_os_error() == Some(libc::ENOSYS) && node == 0 {
        return Ok(());
    }
    Err(MemoryError::Bind { node, source })
}

/// Nodes with memory, in the kernel's list format (`0-1,4`); a kernel that does not say has node 0 only.
fn present() -> String {
    std::fs::read_to_string("/sys/devices/system/node/has_memory")
        .map_or_else(|_| "0".to_owned(), |text| text.trim().to_owned())
}

fn exists(node: u32) -> bool {
    (node as usize) < NODES_MAX && list_holds(&present(), node)
}

fn list_holds(list: &str, node: u32) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |text: &str| text.trim().parse::<u32>().ok();
        matches!((parse(first), parse(last)), (Some(first), Some(last)) if (first..=last).contains(&node))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_lists_are_read_as_the_kernel_writes_them() {
        for (list, node, holds) in [
            ("0", 0, true),
            ("0", 1, false),
            ("0-3", 2, true),
            ("0-1,4", 4, true),
            ("0-1,4", 3, false),
            ("", 0, false),
        ] {
            assert_eq!(list_holds(list, node), holds, "{node} in {list:?}");
        }
    }
}
