//! The few BPF calls that neither aya nor libbpf-rs offers in the form needed here, made safe.
//!
//! Attaching is one of them: aya falls back to a netlink attachment when the kernel refuses a link, and that would
//! outlive this process.

use std::ffi::{CString, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use dataplane_ebpf::verdict::Action;

use super::attach::AttachedMode;

/// `XDP_DROP`, `XDP_PASS` and `XDP_REDIRECT` of Linux `include/uapi/linux/bpf.h`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// Attaches a program to an interface by a link: it stays as long as the descriptor is open or the link pinned.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    interface_index: u32,
    mode: AttachedMode,
) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: match mode {
            AttachedMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            AttachedMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        },
        ..Default::default()
    };
    let index = i32::try_from(interface_index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: the program's descriptor is open; `options` lives through the call, has its own size in it and is
    // zero in all fields not set.
    let result = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), index, libbpf_sys::BPF_XDP, &raw const options)
    };
    new_descriptor(result)
}

/// Pins an object under a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the descriptor is open and the path a C string that lives through the call.
    let result = unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) };
    check(result).map(drop)
}

/// Opens what is pinned at a path.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that lives through the call.
    new_descriptor(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })
}

/// What is attached to an interface of this network namespace: program number and mode.
pub(super) fn query_xdp(interface_index: u32) -> io::Result<Option<(u32, Option<AttachedMode>)>> {
    let mut options = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let index = i32::try_from(interface_index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: `options` lives through the call, is writable and has its own size in it.
    check(unsafe { libbpf_sys::bpf_xdp_query(index, 0, &raw mut options) })?;
    // Where several modes are in use at once (`XDP_ATTACHED_MULTI`), each has its own field.
    let modes = [
        (options.drv_prog_id, Some(AttachedMode::Native)),
        (options.skb_prog_id, Some(AttachedMode::Generic)),
        (options.hw_prog_id, None),
        (options.prog_id, None),
    ];
    Ok(modes.into_iter().find(|&(program, _)| program != 0))
}

/// Has the kernel count runs and run time of BPF programs until the descriptor is closed (5.8 and later).
pub(super) fn enable_run_time_stats() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    new_descriptor(unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) })
}

/// Returns once every program that was running has ended, on every CPU: the kernel promises as much of a changed map of
/// maps (`maybe_wait_bpf_programs` of Linux `kernel/bpf/syscall.c`), so one is made and changed.
pub(super) fn wait_for_programs() -> io::Result<()> {
    let word = size_of::<u32>() as u32;
    let create = |kind, inner: Option<&OwnedFd>| {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            inner_map_fd: inner.map_or(0, |inner| inner.as_raw_fd().unsigned_abs()),
            ..Default::default()
        };
        // SAFETY: `options` lives through the call, has its own size in it and is zero in all fields not set; the name
        // is a C string.
        new_descriptor(unsafe {
            libbpf_sys::bpf_map_create(kind, c"settle".as_ptr(), word, word, 1, &raw const options)
        })
    };
    let inner = create(libbpf_sys::BPF_MAP_TYPE_ARRAY, None)?;
    let outer = create(libbpf_sys::BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(&inner))?;
    let (key, value) = (0u32, inner.as_raw_fd());
    // SAFETY: both descriptors are open; key and value live through the call and have the sizes the map was made with.
    let result = unsafe {
        libbpf_sys::bpf_map_update_elem(
            outer.as_raw_fd(),
            (&raw const key).cast::<c_void>(),
            (&raw const value).cast::<c_void>(),
            0,
        )
    };
    check(result).map(drop)
}

/// Runs a program on one packet, as if it had come in on queue 0 of the loopback interface.
pub(super) fn test_run(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<Action> {
    let length = u32::try_from(packet.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: packet.as_ptr().cast::<c_void>(),
        data_size_in: length,
        data_out: ptr::null_mut(),
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the descriptor is open; `options` lives through the call, has its own size in it, points at
    // `data_size_in` readable bytes and asks for no output.
    check(unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) })?;
    match options.retval {
        XDP_DROP => Ok(Action::Drop),
        XDP_PASS => Ok(Action::Pass),
        XDP_REDIRECT => Ok(Action::Redirect),
        other => Err(io::Error::other(format!("the program answered {other}, which it never does"))),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// libbpf answers with a negative error number.
fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn new_descriptor(result: i32) -> io::Result<OwnedFd> {
    let descriptor = check(result)?;
    // SAFETY: the kernel just made it, so that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
