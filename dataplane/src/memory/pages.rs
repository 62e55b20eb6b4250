//! Pages: the host's pool of 2 MiB huge pages (`Documentation/admin-guide/mm/hugetlbpage.rst`) and the
//! `madvise` calls that choose and fault in pages.

use std::ffi::c_int;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of the huge pages used.
pub(super) const HUGE_PAGE_BYTES: usize = 1 << HUGE_PAGE_BITS;
/// The same as a power of two, as `mmap` wants it.
pub(super) const HUGE_PAGE_BITS: u8 = 21;

/// Bytes of an ordinary page.
pub(super) fn ordinary_page_bytes() -> usize {
    // SAFETY: reads a constant of the system; no conditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("POSIX requires a page size")
}

/// 2 MiB huge pages of the host, or of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePagePool {
    /// Pages set aside.
    pub total: u64,
    /// Of these, not in use and not promised to another mapping.
    pub free: u64,
}

impl HugePagePool {
    /// Reads the pool of a node, or the host's. A host without huge pages has none of them.
    pub(super) fn read(node: Option<u32>) -> Self {
        let directory = match node {
            Some(node) => format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB"),
            None => "/sys/kernel/mm/hugepages/hugepages-2048kB".to_owned(),
        };
        let directory = PathBuf::from(directory);
        // Reservations are counted for the whole host only.
        let reserved = if node.is_none() { read_count(&directory.join("resv_hugepages")) } else { 0 };
        Self {
            total: read_count(&directory.join("nr_hugepages")),
            free: read_count(&directory.join("free_hugepages")).saturating_sub(reserved),
        }
    }

    /// Pages the pool must have so that `needed` more can be taken.
    pub(super) fn target(self, needed: u64) -> u64 {
        self.total.saturating_sub(self.free).saturating_add(needed)
    }

    /// The command that gives the pool so many.
    pub(super) fn cure(self, needed: u64, node: Option<u32>) -> String {
        let target = self.target(needed);
        match node {
            Some(node) => format!(
                "echo {target} > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"
            ),
            None => format!("sysctl -w vm.nr_hugepages={target}"),
        }
    }
}

fn read_count(path: &Path) -> u64 {
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Asks for transparent huge pages, or for none. A wish: kernels without them refuse, and nothing is lost.
pub(super) fn prefer_transparent_huge_pages(bytes: &mut [u8], wanted: bool) {
    let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    let _ = advise(bytes, advice);
}

/// Keeps the region out of child processes, from `fork` to `exec`: a fork would copy each page that is pinned for the
/// kernel (a whole UMEM) and write-protect all others, so that the parent's next write to each of them faults.
///
/// # Errors
/// The kernel's; every Linux this runs on knows the advice.
pub(super) fn keep_from_children(bytes: &mut [u8]) -> io::Result<()> {
    advise(bytes, libc::MADV_DONTFORK)
}

/// Faults every page in, writable, so that no later access can fault or fail.
///
/// # Errors
/// The kernel's, when there is too little memory where the mapping has to lie. For huge pages this is the
/// only warning: touching a page that is not there kills the process with SIGBUS.
pub(super) fn populate(bytes: &mut [u8], huge: bool) -> io::Result<()> {
    match advise(bytes, libc::MADV_POPULATE_WRITE) {
        // Linux before 5.14 does not know the advice; ordinary pages can be touched one by one instead.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !huge => {
            for byte in bytes.iter_mut().step_by(ordinary_page_bytes()) {
                // SAFETY: `byte` is a valid exclusive reference; volatile, so that the write is not left out.
                unsafe { std::ptr::write_volatile(byte, 0) };
            }
            Ok(())
        }
        other => other,
    }
}

fn advise(bytes: &mut [u8], advice: c_int) -> io::Result<()> {
    loop {
        // SAFETY: the range is one live mapping, borrowed exclusively; of the advices used here HUGEPAGE, NOHUGEPAGE and
        // POPULATE_WRITE keep its contents, and DONTFORK leaves it out of child processes only, where nothing reaches
        // for it: between fork and exec they touch none of it, and whoever forks to go on has no use for it.
        let result = unsafe { libc::madvise(bytes.as_mut_ptr().cast(), bytes.len(), advice) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_keeps_the_pages_in_use_and_adds_those_needed() {
        let pool = HugePagePool { total: 10, free: 3 };
        assert_eq!(pool.cure(8, None), "sysctl -w vm.nr_hugepages=15");
        assert_eq!(
            pool.cure(8, Some(1)),
            "echo 15 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
        );
    }
}
