//! A [`Region`] is one anonymous mapping, zeroed, faulted in before use, never moved and never grown.
//!
//! The order of its making is what makes it true: map without touching, bind to the node, choose the page
//! size, and only then fault everything in. So a page can neither lie on the wrong node nor be missing later.

use memmap2::{MmapMut, MmapOptions};

use super::pages::{self, HUGE_PAGE_BITS, HUGE_PAGE_BYTES, HugePagePool};
use super::{MemoryError, node};

/// Whether a region must be in huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Huge pages where there are any, else ordinary ones; [`Region::huge_pages`] tells which.
    #[default]
    Auto,
    /// Fail when there are not enough.
    Required,
    /// Ordinary pages.
    Never,
}

/// Where a region should lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// NUMA node to bind to; `None` leaves it to the kernel's first-touch rule.
    pub node: Option<u32>,
    /// Huge pages.
    pub huge_pages: HugePages,
}

/// One mapping. Dropping it unmaps it.
#[derive(Debug)]
pub struct Region {
    map: MmapMut,
    huge_pages: bool,
}

impl Region {
    /// Maps at least `bytes` bytes, rounded up to the page size used.
    ///
    /// # Errors
    /// [`MemoryError`] when the kernel refuses, or when a required placement cannot be had.
    pub fn allocate(bytes: usize, placement: Placement) -> Result<Self, MemoryError> {
        if bytes == 0 || bytes > isize::MAX as usize - HUGE_PAGE_BYTES {
            return Err(MemoryError::Size { bytes });
        }
        match placement.huge_pages {
            HugePages::Required => Self::in_huge_pages(bytes, placement.node),
            HugePages::Never => Self::in_ordinary_pages(bytes, placement),
            // A wrong node is wrong for ordinary pages too, so that error shows itself in the fallback.
            HugePages::Auto => Self::in_huge_pages(bytes, placement.node)
                .or_else(|_| Self::in_ordinary_pages(bytes, placement)),
        }
    }

    fn in_huge_pages(bytes: usize, node: Option<u32>) -> Result<Self, MemoryError> {
        let length = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let too_few = |source| MemoryError::HugePages {
            bytes,
            needed: (length / HUGE_PAGE_BYTES) as u64,
            pool: HugePagePool::read(node),
            node,
            source,
        };
        let mut map =
            MmapOptions::new().len(length).huge(Some(HUGE_PAGE_BITS)).map_anon().map_err(too_few)?;
        if let Some(node) = node {
            node::bind(&mut map, node)?;
        }
        pages::keep_from_children(&mut map).map_err(|source| MemoryError::Map { bytes, source })?;
        pages::populate(&mut map, true).map_err(too_few)?;
        Ok(Self { map, huge_pages: true })
    }

    fn in_ordinary_pages(bytes: usize, placement: Placement) -> Result<Self, MemoryError> {
        let length = bytes.next_multiple_of(pages::ordinary_page_bytes());
        let mut map =
            MmapOptions::new().len(length).map_anon().map_err(|source| MemoryError::Map { bytes, source })?;
        if let Some(node) = placement.node {
            node::bind(&mut map, node)?;
        }
        pages::prefer_transparent_huge_pages(&mut map, placement.huge_pages == HugePages::Auto);
        pages::keep_from_children(&mut map).map_err(|source| MemoryError::Map { bytes, source })?;
        pages::populate(&mut map, false).map_err(|source| MemoryError::Populate {
            bytes,
            node: placement.node,
            source,
        })?;
        Ok(Self { map, huge_pages: false })
    }

    /// Bytes mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Never true: an empty region cannot be mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// True when it lies in huge pages of the host's pool. Ordinary pages that the kernel merged by itself
    /// (transparent huge pages) do not count: it may split them again.
    #[must_use]
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes, to write.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// First byte, for the kernel and for the few modules that share the region with it.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the kernel says each page lies: its node, or a negative error (`move_pages(2)` with no target).
    fn nodes_of(region: &mut Region) -> Vec<i32> {
        let base = region.as_mut_ptr();
        let addresses: Vec<*mut u8> =
            (0..region.len()).step_by(4096).map(|offset| base.wrapping_add(offset)).collect();
        let mut status = vec![i32::MIN; addresses.len()];
        // SAFETY: both arrays have the length named; with no target nodes the call only reads and reports.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0 as libc::c_long,
                addresses.len(),
                addresses.as_ptr(),
                std::ptr::null::<i32>(),
                status.as_mut_ptr(),
                0 as libc::c_long,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        status
    }

    /// The line of a mapping in `/proc/self/numa_maps`: its policy, page size and pages by node.
    fn numa_map_of(region: &mut Region) -> String {
        let prefix = format!("{:x} ", region.as_mut_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/numa_maps").expect("a kernel with NUMA");
        maps.lines().find(|line| line.starts_with(&prefix)).expect("the mapping is listed").to_owned()
    }

    #[test]
    fn every_page_is_there_zeroed_and_on_its_node_before_use() {
        let placement = Placement { node: Some(0), huge_pages: HugePages::Never };
        let mut region = Region::allocate(1 << 20, placement).expect("1 MiB on node 0");
        assert!(nodes_of(&mut region).iter().all(|&node| node == 0));
        let map = numa_map_of(&mut region);
        assert!(map.contains("bind") && map.contains(":0 "), "policy in {map:?}");
        assert!(!region.huge_pages());
        assert!(region.bytes().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_child_process_gets_none_of_it() {
        let mut region = Region::allocate(4096, Placement::default()).expect("a page");
        let start = format!("{:x}-", region.as_mut_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("procfs");
        let of_region = maps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = of_region.into_iter().find_map(|line| line.strip_prefix("VmFlags:")).expect("its flags");
        assert!(flags.split(' ').any(|flag| flag == "dc"), "not copied on fork: {flags}");
    }

    #[test]
    fn lengths_are_rounded_up_to_a_page_and_absurd_ones_refused() {
        let region = Region::allocate(1, Placement::default()).expect("one byte");
        assert!(region.len().is_multiple_of(4096) && !region.is_empty());
        for bytes in [0, usize::MAX, isize::MAX as usize] {
            let error = Region::allocate(bytes, Placement::default()).expect_err("absurd");
            assert!(matches!(error, MemoryError::Size { .. }), "{error}");
        }
        let error = Region::allocate(1 << 46, Placement::default()).expect_err("64 TiB");
        assert!(matches!(error, MemoryError::Map { .. } | MemoryError::Populate { .. }), "{error}");
    }

    #[test]
    fn a_node_that_is_not_there_is_named_with_those_that_are() {
        for huge_pages in [HugePages::Auto, HugePages::Never] {
            let placement = Placement { node: Some(777), huge_pages };
            let error = Region::allocate(4096, placement).expect_err("no such node").to_string();
            assert!(error.contains("no NUMA node 777") && error.contains("it has 0"), "{error}");
        }
    }

    #[test]
    fn required_huge_pages_that_are_not_there_name_the_command_and_the_count() {
        let free = HugePagePool::read(None).free as usize;
        let bytes = (free + 5000) * HUGE_PAGE_BYTES - 1;
        let placement = Placement { node: None, huge_pages: HugePages::Required };
        let error = Region::allocate(bytes, placement).expect_err("more than there are").to_string();
        assert!(error.contains(&format!("need {} huge pages", free + 5000)), "{error}");
        assert!(error.contains("sysctl -w vm.nr_hugepages="), "{error}");
    }

    /// One test for both, as the host's pool is one: two tests would take each other's pages. Whatever else
    /// runs meanwhile may take some too, so there is slack for it.
    #[test]
    fn huge_pages_are_used_where_there_are_any_and_auto_goes_without() {
        const POOL: &str = "/proc/sys/vm/nr_hugepages";
        let before = HugePagePool::read(None);
        let target = before.target(32);
        std::fs::write(POOL, target.max(before.total).to_string())
            .expect("needs root, to set huge pages aside");

        for (node, huge_pages) in [(None, HugePages::Required), (Some(0), HugePages::Auto)] {
            let mut region =
                Region::allocate(3 << 20, Placement { node, huge_pages }).expect("two huge pages");
            assert!(region.huge_pages());
            assert_eq!(region.len(), 2 * HUGE_PAGE_BYTES);
            let map = numa_map_of(&mut region);
            assert!(map.contains("huge") && map.contains("kernelpagesize_kB=2048"), "{map:?}");
            assert!(nodes_of(&mut region).iter().all(|&node| node >= 0));
            region.bytes_mut()[3 << 20] = 7;
        }
        let bytes = (HugePagePool::read(None).free as usize + 64) * HUGE_PAGE_BYTES;
        let region = Region::allocate(bytes, Placement::default()).expect("ordinary pages");
        assert!(!region.huge_pages(), "more than the pool has");

        std::fs::write(POOL, before.total.to_string()).expect("as it was");
    }
}
