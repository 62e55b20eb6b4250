//! An XDP program of a handful of instructions that redirects every packet to the socket of its queue.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use libbpf_sys as bpf;

use super::wait_until;

const MAX_QUEUES: u32 = 64;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Native,
    Generic,
}

/// An attached program and its XSKMAP. Detached when dropped.
pub(crate) struct Redirect {
    _link: OwnedFd,
    map: OwnedFd,
}

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination register in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

impl Redirect {
    /// Attaches to an interface of the calling thread's namespace.
    pub(crate) fn attach(interface: &str, hook: Hook) -> Self {
        let name = CString::new(interface).expect("no NUL");
        // SAFETY: a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no {interface}");
        // SAFETY: a static name, and no options.
        let map = owned(unsafe {
            bpf::bpf_map_create(
                bpf::BPF_MAP_TYPE_XSKMAP,
                c"sockets".as_ptr(),
                4,
                4,
                MAX_QUEUES,
                std::ptr::null(),
            )
        });
        const XDP_PASS: i32 = 2;
        let instructions = [
            // r2 = context->rx_queue_index
            instruction(0x61, 0x12, 16, 0),
            // r1 = map
            instruction(0x18, 0x11, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0),
            // r3 = what to do where the map has no socket
            instruction(0xb7, 0x03, 0, XDP_PASS),
            // r0 = bpf_redirect_map(r1, r2, r3)
            instruction(0x85, 0, 0, bpf::BPF_FUNC_redirect_map as i32),
            instruction(0x95, 0, 0, 0),
        ];
        // SAFETY: the instructions have the layout of `struct bpf_insn` and the count named; names are
        // static.
        let program = owned(unsafe {
            bpf::bpf_prog_load(
                bpf::BPF_PROG_TYPE_XDP,
                c"redirect_all".as_ptr(),
                c"GPL".as_ptr(),
                instructions.as_ptr().cast(),
                instructions.len() as _,
                std::ptr::null_mut(),
            )
        });
        // SAFETY: an options struct of integers and pointers, for which zero is "not given".
        let mut options: bpf::bpf_link_create_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of_val(&options) as _;
        options.flags = match hook {
            Hook::Native => bpf::XDP_FLAGS_DRV_MODE,
            Hook::Generic => bpf::XDP_FLAGS_SKB_MODE,
        };
        // An earlier link lives on for a moment where another test's child process was forked with it.
        let mut link = -1;
        wait_until("the interface's XDP hook", || {
            // SAFETY: the options outlive the call.
            link = unsafe {
                bpf::bpf_link_create(program.as_raw_fd(), index as i32, bpf::BPF_XDP, &raw const options)
            };
            link != -libc::EBUSY
        });
        let link = owned(link);
        Self { _link: link, map }
    }

    /// Puts a socket into the XSKMAP.
    pub(crate) fn register(&self, queue: u32, socket: &impl AsFd) {
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: key and value have the four bytes that the map was made for.
        let result = unsafe {
            bpf::bpf_map_update_elem(
                self.map.as_raw_fd(),
                (&raw const queue).cast(),
                (&raw const fd).cast(),
                0,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

#[track_caller]
fn owned(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "bpf(2): {} (needs root)", io::Error::last_os_error());
    // SAFETY: the kernel just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
