//! Offloads of an interface, set as `ethtool -K` does (`SIOCETHTOOL`, Linux `include/uapi/linux/ethtool.h`).

use std::os::fd::AsRawFd;

use super::namespace::interface_c_string;
use super::{Namespace, TestbedError};

/// An offload that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Leaves the checksums of what is sent to the NIC. On veth nobody then computes them.
    TransmitChecksum,
    /// Joins received packets; on veth it also gives the interface a NAPI of its own.
    GenericReceive,
}

impl Offload {
    /// `ETHTOOL_S...` command.
    const fn command(self) -> u32 {
        match self {
            Self::TransmitChecksum => 0x17,
            Self::GenericReceive => 0x2c,
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Switches an offload of an interface on or off.
///
/// # Errors
/// [`TestbedError::Io`] when the kernel refuses.
pub fn set(namespace: &Namespace, interface: &str, offload: Offload, on: bool) -> Result<(), TestbedError> {
    let name = interface_c_string(interface)?;
    namespace.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").map_err(TestbedError::io("make a socket"))?;
        let mut value = EthtoolValue { command: offload.command(), data: u32::from(on) };
        // SAFETY: an all-zero `ifreq` is a valid value of the plain C struct.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the descriptor is open; `request` is a NUL-terminated name and a pointer to a value as long
        // as this command reads; both outlive the call.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result == 0 {
            return Ok(());
        }
        let source = std::io::Error::last_os_error();
        Err(TestbedError::Io { what: format!("set {offload:?} of {interface} to {on}"), source })
    })?
}
