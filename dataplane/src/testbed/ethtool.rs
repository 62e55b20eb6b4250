//! Offloads and queues of an interface, set as `ethtool -K` and `-L` do (`SIOCETHTOOL`, Linux
//! `include/uapi/linux/ethtool.h`).

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

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    /// RX, TX, other and combined; the kernel does not read them.
    most: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// Switches an offload of an interface on or off.
///
/// # Errors
/// [`TestbedError::Io`] when the kernel refuses.
pub fn set(namespace: &Namespace, interface: &str, offload: Offload, on: bool) -> Result<(), TestbedError> {
    namespace.run(|| set_here(interface, offload, on))?
}

/// Like [`set`], in the calling thread's namespace.
///
/// # Errors
/// [`TestbedError::Io`] when the kernel refuses.
pub fn set_here(interface: &str, offload: Offload, on: bool) -> Result<(), TestbedError> {
    let mut value = EthtoolValue { command: offload.command(), data: u32::from(on) };
    // SAFETY: these commands read a `struct ethtool_value`, which this is.
    unsafe { command(interface, &mut value, || format!("set {offload:?} of {interface} to {on}")) }
}

/// Gives an interface of the calling thread's namespace so many queues each way (`ETHTOOL_SCHANNELS`), of those it
/// was made with.
///
/// # Errors
/// [`TestbedError::Io`] when the kernel refuses: with EINVAL one of the queues to go has an AF_XDP socket.
pub fn set_queues_here(interface: &str, receive: u32, transmit: u32) -> Result<(), TestbedError> {
    const SCHANNELS: u32 = 0x3d;
    let mut channels =
        EthtoolChannels { command: SCHANNELS, receive, transmit, ..EthtoolChannels::default() };
    let what = || format!("give {interface} {receive} receive and {transmit} transmit queues");
    // SAFETY: this command reads a `struct ethtool_channels`, which this is.
    unsafe { command(interface, &mut channels, what) }
}

/// Runs an ethtool command in the calling thread's namespace.
///
/// # Safety
/// `value` must be the `repr(C)` struct of integers that the command in its first word has the kernel read.
unsafe fn command<T>(
    interface: &str,
    value: &mut T,
    what: impl FnOnce() -> String,
) -> Result<(), TestbedError> {
    let name = interface_c_string(interface)?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").map_err(TestbedError::io("make a socket"))?;
    // SAFETY: an all-zero `ifreq` is a valid value of the plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the descriptor is open; `request` is a NUL-terminated name and a pointer to a value as long as its
    // command reads, by the caller's promise; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 {
        return Ok(());
    }
    Err(TestbedError::Io { what: what(), source: std::io::Error::last_os_error() })
}
