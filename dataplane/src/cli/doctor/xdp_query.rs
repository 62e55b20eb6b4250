//! What the kernel says of an interface's XDP: which programs sit on it, and what its driver can do.

use std::io;

/// Bits of `feature_flags` (`enum netdev_xdp_act`, Linux `include/uapi/linux/netdev.h`).
const BASIC: u64 = 1 << 0;
const REDIRECT: u64 = 1 << 1;
const ZERO_COPY: u64 = 1 << 3;
const RECEIVE_FRAGMENTS: u64 = 1 << 5;

/// What the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct XdpState {
    /// Identifier of the program that is attached; 0 when there is none.
    pub(super) program: u32,
    /// What the driver can do; `None` on kernels before 6.3, which do not say.
    pub(super) features: Option<Features>,
}

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Native XDP with redirection into AF_XDP.
    pub(super) native: bool,
    /// Zero-copy.
    pub(super) zero_copy: bool,
    /// Packets of several buffers.
    pub(super) fragments: bool,
}

/// Asks the kernel about an interface of this network namespace.
pub(super) fn query(interface: u32) -> io::Result<XdpState> {
    let index = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut answer = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: the call writes within the struct, whose size it is told in `sz`, and keeps no pointer to it.
    let result = unsafe { libbpf_sys::bpf_xdp_query(index, 0, &raw mut answer) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    let programs = [answer.prog_id, answer.drv_prog_id, answer.hw_prog_id, answer.skb_prog_id];
    let flags = answer.feature_flags;
    let features = Features {
        native: flags & BASIC != 0 && flags & REDIRECT != 0,
        zero_copy: flags & ZERO_COPY != 0,
        fragments: flags & RECEIVE_FRAGMENTS != 0,
    };
    Ok(XdpState {
        program: programs.into_iter().find(|&id| id != 0).unwrap_or(0),
        features: says_features().then_some(features),
    })
}

/// Whether the kernel has the netlink family that tells features; without it the flags are zero, which would read
/// as a driver that can do nothing.
fn says_features() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    super::kernel::parse_release(&release).is_some_and(|version| version >= (6, 3))
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_has_no_program_and_no_native_xdp() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let index = rustix::net::netdevice::name_to_index(&socket, "lo").expect("loopback is there");
        let state = super::query(index).expect("the kernel says");
        assert_eq!(state.program, 0);
        assert!(state.features.is_none_or(|features| !features.native && !features.zero_copy));
    }
}
