//! The smallest XDP program that feeds AF_XDP sockets: every IPv4 and IPv6 packet of one transport protocol goes to
//! the socket of its queue, everything else to the kernel. For load generators, reflectors and tests of sockets; the
//! daemon's own steering is in [`steer`](crate::steer).

use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_sys as bpf;

use super::bpf::{Attached, Instruction, LOAD_MAP, Map, attach_xdp_here, instruction, load_xdp};
use super::{Namespace, TestbedError};
use crate::limits::QUEUES_MAX;

/// The attached program and its XSKMAP. Dropping it detaches it.
#[derive(Debug)]
pub struct Redirect {
    map: Map,
    _attached: Attached,
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
        let map = Map::create(bpf::BPF_MAP_TYPE_XSKMAP, c"testbed_xsks", 4, QUEUES_MAX as u32)?;
        let program = load_xdp(c"testbed_redir", &program(map.number(), carried))?;
        let attached = namespace.run(|| attach_xdp_here(program, interface))??;
        Ok(Self { map, _attached: attached })
    }

    /// Sends what arrives on `queue` to this AF_XDP socket, which must be bound to it.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the kernel refuses.
    pub fn feed(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), TestbedError> {
        self.map.put(queue, &socket.as_raw_fd().to_ne_bytes())
    }
}

fn program(map: i32, carried: Carried) -> Vec<Instruction> {
    const PASS: i32 = 2;
    const REDIRECT_MAP: i32 = 51;
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
