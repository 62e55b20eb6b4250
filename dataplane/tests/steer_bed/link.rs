//! Somebody who detaches a link that is not theirs.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use dataplane::steer::inspect::Foreign;

/// Detaches the link that holds the interface's program, as `bpftool link detach` does.
pub(crate) fn detach_link(interface: &str) {
    let attached = Foreign::find(interface).expect("the kernel answers");
    let link = attached.expect("something is attached").link_id.expect("by a link");
    // SAFETY: the call takes a number.
    let descriptor = unsafe { libbpf_sys::bpf_link_get_fd_by_id(link) };
    assert!(descriptor >= 0, "the link can be opened: {descriptor}");
    // SAFETY: the kernel just made the descriptor, so that nobody else owns it.
    let link = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) }, 0, "it is detached");
}
