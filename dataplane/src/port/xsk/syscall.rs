//! The system calls of AF_XDP (`include/uapi/linux/if_xdp.h`, `net/xdp/xsk.c`), each wrapped once.

use std::ffi::{CString, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use memmap2::{MmapOptions, MmapRaw};

/// `XDP_MAX_TX_SKB_BUDGET`: descriptors one copy-mode doorbell sends (Linux 6.17; not yet in `libc`).
pub(super) const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// Structs that the kernel fills in and for which any bytes are a value.
///
/// # Safety
/// The type must be `repr(C)`, without padding or pointers, and valid for every bit pattern.
pub(super) unsafe trait PlainData: Copy {}

// SAFETY: an integer.
unsafe impl PlainData for u32 {}
// SAFETY: an integer.
unsafe impl PlainData for i32 {}
// SAFETY: `repr(C)`, of u64s.
unsafe impl PlainData for libc::xdp_mmap_offsets {}
// SAFETY: `repr(C)`, of u64s.
unsafe impl PlainData for libc::xdp_statistics {}
// SAFETY: `repr(C)`, one u32.
unsafe impl PlainData for libc::xdp_options {}
// SAFETY: `repr(C)`, two u64s and four u32s.
unsafe impl PlainData for libc::xdp_umem_reg {}

/// `socket(AF_XDP, SOCK_RAW, 0)`.
pub(super) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `setsockopt`.
pub(super) fn set_option<T: PlainData>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer and length are those of `value`, which the kernel only reads.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// `getsockopt`, for options whose size must be exactly that of `T`.
pub(super) fn get_option<T: PlainData>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has that many.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    })?;
    if length as usize != size_of::<T>() {
        return Err(io::Error::other(format!(
            "socket option {level}/{name} has {length} bytes, not {}: the kernel is too old",
            size_of::<T>()
        )));
    }
    // SAFETY: all bytes are initialised (zeroed, then written), and every bit pattern is a value of plain
    // data.
    Ok(unsafe { value.assume_init() })
}

/// `bind` to a queue.
pub(super) fn bind(fd: BorrowedFd<'_>, interface_index: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: interface_index,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the pointer and length are those of `address`, which the kernel only reads.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Maps `length` bytes of a socket at one of the `XDP_*_PGOFF_*` offsets.
pub(super) fn map_ring(fd: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<MmapRaw> {
    // The descriptors are read and written from the first packet on: fault them in now.
    MmapOptions::new().offset(offset).len(length).populate().map_raw(&fd)
}

/// Rings the transmit doorbell; under busy polling this drives the queue's NAPI, too.
#[inline]
pub(super) fn wake_transmit(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a null buffer of no bytes and no address: the kernel reads nothing.
    let sent = unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Rings the receive doorbell; under busy polling this drives the queue's NAPI, too.
#[inline]
pub(super) fn wake_receive(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a null buffer of no bytes and no address: the kernel writes nothing.
    let received = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if received < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Index of an interface in the caller's network namespace.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: `name` is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

pub(super) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
