//! The smallest XDP program that feeds AF_XDP sockets: every IPv4 and IPv6 packet of one transport protocol goes to
//! the socket of its queue, everything else to the kernel. For load generators, reflectors and tests of sockets; the
//! daemon's own steering is in [`steer`](crate::steer).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_sys as bpf;

use super::namespace::interface_c_string;
use super::{Namespace, TestbedError};
use crate::limits::QUEUES_MAX;

/// The attached program and its XSKMAP. Dropping it detaches it.
#[derive(Debug)]
pub struct Redirect {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

/// What is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// UDP datagrams.
    Udp,
    /// TCP segments.
    Tcp,
}

impl Carried {
    /// Its number in an IP header (IANA "Assigned Internet Protocol Numbers").
    const fn number(self) -> i32 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }
}

impl Redirect {
    /// Attaches it to an interface, in the driver, for UDP.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the kernel refuses; with EBUSY another program is there.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self, TestbedError> {
        Self::attach_for(namespace, interface, Carried::Udp)
    }

    /// Attaches it to an interface, in the driver.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the kernel refuses; with EBUSY another program is there.
    pub fn attach_for(
        namespace: &Namespace,
        interface: &str,
        carried: Carried,
    ) -> Result<Self, TestbedError> {
        let name = interface_c_string(interface)?;
        let map = create_map()?;
        let program = load_program(&map, carried)?;
        let link = namespace.run(|| attach(&program, &name, interface))??;
        Ok(Self { map, _program: program, _link: link })
    }

    /// Sends what arrives on `queue` to this AF_XDP socket, which must be bound to it.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the kernel refuses.
    pub fn feed(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), TestbedError> {
        let value = socket.as_raw_fd();
        // SAFETY: the map's key and value are four bytes each, and both pointers are to four bytes that live
        // during the call.
        let result = unsafe {
            bpf::bpf_map_update_elem(
                self.map.as_raw_fd(),
                (&raw const queue).cast(),
                (&raw const value).cast(),
                0,
            )
        };
        checked(result, || format!("put the socket of queue {queue} into the XSKMAP")).map(|_| ())
    }
}

fn create_map() -> Result<OwnedFd, TestbedError> {
    // SAFETY: the name is a C string, and no options are given.
    let map = unsafe {
        bpf::bpf_map_create(
            bpf::BPF_MAP_TYPE_XSKMAP,
            c"testbed_xsks".as_ptr(),
            4,
            4,
            QUEUES_MAX as u32,
            std::ptr::null(),
        )
    };
    owned(map, || "create an XSKMAP".to_owned())
}

fn load_program(map: &OwnedFd, carried: Carried) -> Result<OwnedFd, TestbedError> {
    let program = program(map.as_raw_fd(), carried);
    let license: &CStr = c"Dual MIT/GPL";
    // SAFETY: the names are C strings, the instructions live during the call and are as many as said, and no
    // options are given.
    let descriptor = unsafe {
        bpf::bpf_prog_load(
            bpf::BPF_PROG_TYPE_XDP,
            c"testbed_redir".as_ptr(),
            license.as_ptr(),
            program.as_ptr().cast(),
            program.len() as bpf::size_t,
            std::ptr::null_mut(),
        )
    };
    owned(descriptor, || "load the redirecting XDP program".to_owned())
}

/// Runs inside the interface's namespace.
fn attach(program: &OwnedFd, name: &CStr, interface: &str) -> Result<OwnedFd, TestbedError> {
    /// `XDP_FLAGS_DRV_MODE`: in the driver, or not at all.
    const NATIVE: u32 = 1 << 2;
    // SAFETY: `name` is a C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let index = i32::try_from(index).ok().filter(|&index| index > 0);
    let index = index.ok_or_else(|| TestbedError::Io {
        what: format!("find the interface {interface}"),
        source: std::io::Error::last_os_error(),
    })?;
    let options = bpf::bpf_link_create_opts {
        sz: size_of::<bpf::bpf_link_create_opts>() as bpf::size_t,
        flags: NATIVE,
        ..Default::default()
    };
    // SAFETY: the descriptor is that of a program; the options say their own size and live during the call.
    let link = unsafe { bpf::bpf_link_create(program.as_raw_fd(), index, bpf::BPF_XDP, &raw const options) };
    owned(link, || format!("attach the redirecting XDP program to {interface}"))
}

/// One instruction as the kernel reads it (`struct bpf_insn`, RFC 9669 section 3).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { opcode, registers: from << 4 | to, offset, immediate }
}

/// The program, assembled by hand: it is too small to deserve a toolchain.
fn program(map: i32, carried: Carried) -> Vec<Instruction> {
    const PASS: i32 = 2;
    const REDIRECT_MAP: i32 = 51;
    const LOAD_MAP: u8 = 1;
    vec![
        instruction(0x61, 2, 1, 0, 0),                //  0: r2 = context.data
        instruction(0x61, 3, 1, 4, 0),                //  1: r3 = context.data_end
        instruction(0xbf, 4, 2, 0, 0),                //  2: r4 = r2
        instruction(0x07, 4, 0, 0, 34),               //  3: r4 += Ethernet and IPv4 header
        instruction(0x2d, 4, 3, 13, 0),               //  4: shorter than that: to 18
        instruction(0x69, 5, 2, 12, 0),               //  5: r5 = EtherType
        instruction(0x55, 5, 0, 2, 0x0008),           //  6: not IPv4: to 9
        instruction(0x71, 5, 2, 23, 0),               //  7: r5 = IPv4 protocol
        instruction(0x05, 0, 0, 2, 0),                //  8: to 11
        instruction(0x55, 5, 0, 8, 0xdd86),           //  9: not IPv6: to 18
        instruction(0x71, 5, 2, 20, 0),               // 10: r5 = IPv6 next header
        instruction(0x55, 5, 0, 6, carried.number()), // 11: another: to 18
        instruction(0x61, 2, 1, 16, 0),               // 12: r2 = context.rx_queue_index
        instruction(0x18, 1, LOAD_MAP, 0, map),       // 13: r1 = map (two slots)
        instruction(0x00, 0, 0, 0, 0),                // 14
        instruction(0xb7, 3, 0, 0, PASS),             // 15: r3 = pass when no socket is there
        instruction(0x85, 0, 0, 0, REDIRECT_MAP),     // 16: r0 = bpf_redirect_map(r1, r2, r3)
        instruction(0x05, 0, 0, 1, 0),                // 17: to 19
        instruction(0xb7, 0, 0, 0, PASS),             // 18: r0 = pass
        instruction(0x95, 0, 0, 0, 0),                // 19: return r0
    ]
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::testbed::{TestbedError, VethPair, wait_until};

    #[test]
    fn without_a_socket_everything_still_reaches_the_kernel() {
        let pair = VethPair::simple().expect("a pair");
        let redirect = Redirect::attach(&pair.right, &pair.right_end.interface).expect("attached");
        let second = Redirect::attach(&pair.right, &pair.right_end.interface);
        assert!(second.is_err(), "one program an interface");
        let ends = pair.right_end.addresses().into_iter().zip(pair.left_end.addresses());
        for (address, client_address) in ends {
            let server =
                pair.right.run(|| UdpSocket::bind((address, 4000))).expect("entered").expect("bound");
            server.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
            let client =
                pair.left.run(|| UdpSocket::bind((client_address, 0))).expect("entered").expect("bound");
            // UDP may lose one, where a machine has other things to do.
            let received = wait_until("a datagram past the program", Duration::from_secs(10), || {
                client.send_to(b"ping", (address, 4000)).map_err(TestbedError::io("send"))?;
                Ok(server.recv_from(&mut [0; 8]).ok())
            });
            assert_eq!(received.expect("received").0, 4);
        }
        drop(redirect);
        Redirect::attach(&pair.right, &pair.right_end.interface).expect("the first is gone");
    }
}
