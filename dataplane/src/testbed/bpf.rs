//! BPF programs of a few dozen instructions, assembled by hand: they are too small to deserve a toolchain. And the maps
//! they use.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libbpf_sys as bpf;

use super::TestbedError;
use super::namespace::interface_c_string;

/// One instruction as the kernel reads it (`struct bpf_insn`, RFC 9669 section 3).
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

pub(super) const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { opcode, registers: from << 4 | to, offset, immediate }
}

/// What `from` of a 64-bit load means when its immediate is a map's descriptor (`BPF_PSEUDO_MAP_FD`).
pub(super) const LOAD_MAP: u8 = 1;

/// `register = value`, all 64 bits: an instruction of two slots.
pub(super) const fn load_64(register: u8, value: u64) -> [Instruction; 2] {
    [instruction(0x18, register, 0, 0, value as i32), instruction(0, 0, 0, 0, (value >> 32) as i32)]
}

/// A map whose keys are numbers.
#[derive(Debug)]
pub(super) struct Map {
    descriptor: OwnedFd,
    value_bytes: usize,
}

impl Map {
    /// `kind` is one of `BPF_MAP_TYPE_...`.
    pub(super) fn create(
        kind: bpf::bpf_map_type,
        name: &CStr,
        value_bytes: usize,
        entries: u32,
    ) -> Result<Self, TestbedError> {
        // SAFETY: the name is a C string, and no options are given.
        let map = unsafe {
            bpf::bpf_map_create(kind, name.as_ptr(), 4, value_bytes as u32, entries, std::ptr::null())
        };
        let descriptor = owned(map, || format!("create the map {}", name.to_string_lossy()))?;
        Ok(Self { descriptor, value_bytes })
    }

    /// Its descriptor, as programs name it.
    pub(super) fn number(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }

    /// Sets what is under `key`: as many bytes as a value of the map has.
    pub(super) fn put(&self, key: u32, value: &[u8]) -> Result<(), TestbedError> {
        assert_eq!(value.len(), self.value_bytes, "a value of this map");
        // SAFETY: keys have four bytes, values as many as `value` was checked to have; both live during the call.
        let result = unsafe {
            bpf::bpf_map_update_elem(self.number(), (&raw const key).cast(), value.as_ptr().cast(), 0)
        };
        checked(result, || format!("put an entry under {key} into a map")).map(|_| ())
    }

    /// What is under `key`.
    pub(super) fn get(&self, key: u32) -> Result<Vec<u8>, TestbedError> {
        let mut value = vec![0; self.value_bytes];
        // SAFETY: keys have four bytes, and `value` is as long as values of the map; both live during the call.
        let result = unsafe {
            bpf::bpf_map_lookup_elem(self.number(), (&raw const key).cast(), value.as_mut_ptr().cast())
        };
        checked(result, || format!("read the entry under {key} of a map")).map(|_| value)
    }
}

/// An XDP program on an interface. Dropping it detaches it.
#[derive(Debug)]
pub(super) struct Attached {
    _program: OwnedFd,
    _link: OwnedFd,
}

/// Loads an XDP program.
pub(super) fn load_xdp(name: &CStr, program: &[Instruction]) -> Result<OwnedFd, TestbedError> {
    let license: &CStr = c"Dual MIT/GPL";
    // SAFETY: the names are C strings, the instructions live during the call and are as many as said, and no
    // options are given.
    let descriptor = unsafe {
        bpf::bpf_prog_load(
            bpf::BPF_PROG_TYPE_XDP,
            name.as_ptr(),
            license.as_ptr(),
            program.as_ptr().cast(),
            program.len() as bpf::size_t,
            std::ptr::null_mut(),
        )
    };
    owned(descriptor, || format!("load the XDP program {}", name.to_string_lossy()))
}

/// Attaches an XDP program to an interface of the calling thread's namespace, in the driver.
pub(super) fn attach_xdp_here(program: OwnedFd, interface: &str) -> Result<Attached, TestbedError> {
    /// `XDP_FLAGS_DRV_MODE`: in the driver, or not at all.
    const NATIVE: u32 = 1 << 2;
    let index = interface_index_here(interface)?;
    let options = bpf::bpf_link_create_opts {
        sz: size_of::<bpf::bpf_link_create_opts>() as bpf::size_t,
        flags: NATIVE,
        ..Default::default()
    };
    // SAFETY: the descriptor is that of a program; the options say their own size and live during the call.
    let link = unsafe { bpf::bpf_link_create(program.as_raw_fd(), index, bpf::BPF_XDP, &raw const options) };
    Ok(Attached {
        _program: program,
        _link: owned(link, || format!("attach an XDP program to {interface}"))?,
    })
}

/// The number of an interface of the calling thread's namespace.
pub(super) fn interface_index_here(interface: &str) -> Result<i32, TestbedError> {
    let name = interface_c_string(interface)?;
    // SAFETY: `name` is a C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let index = i32::try_from(index).ok().filter(|&index| index > 0);
    index.ok_or_else(|| TestbedError::Io {
        what: format!("find the interface {interface}"),
        source: std::io::Error::last_os_error(),
    })
}

fn owned(descriptor: i32, what: impl FnOnce() -> String) -> Result<OwnedFd, TestbedError> {
    let descriptor = checked(descriptor, what)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// libbpf's calls give the negative errno.
fn checked(result: i32, what: impl FnOnce() -> String) -> Result<i32, TestbedError> {
    if result >= 0 {
        return Ok(result);
    }
    Err(TestbedError::Io { what: what(), source: std::io::Error::from_raw_os_error(-result) })
}
