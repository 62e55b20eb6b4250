//! Two namespaces joined by a veth pair, set up so that AF_XDP works on both ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::ethtool::{self, Offload};
use super::{Namespace, TestbedError, Wire, wait_until};

/// How long the kernel may take to bring a link up.
const LINK_UP_LIMIT: Duration = Duration::from_secs(5);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One end of the pair, as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethEnd {
    /// Interface name.
    pub interface: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// IPv4 address, in a /24.
    pub v4: Ipv4Addr,
    /// IPv6 address, in a /64.
    pub v6: Ipv6Addr,
    /// Queues in each direction.
    pub queues: u32,
    /// Leaves checksums unfinished, as veth does by default: nobody computes them, and who verifies them drops.
    pub transmit_checksum_offload: bool,
    /// Generic receive offload, which gives the end a NAPI of its own even without an XDP program.
    pub generic_receive_offload: bool,
}

impl VethEnd {
    /// The left end: 10.77.0.1, fd77::1. Names are unique on the host, so that kernel threads named after
    /// interfaces are told apart.
    #[must_use]
    pub fn left() -> Self {
        Self::numbered('l', 1)
    }

    /// The right end: 10.77.0.2, fd77::2.
    #[must_use]
    pub fn right() -> Self {
        Self::numbered('r', 2)
    }

    fn numbered(letter: char, number: u8) -> Self {
        Self {
            interface: format!("dp{letter}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
            mac: [0x02, 0xd9, 0, 0, 0, number],
            v4: Ipv4Addr::new(10, 77, 0, number),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)),
            queues: 1,
            transmit_checksum_offload: false,
            generic_receive_offload: true,
        }
    }

    /// Hardware address in text.
    #[must_use]
    pub fn mac_text(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }

    /// Both addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// Two namespaces and the pair between them. Dropping it takes all of it away.
#[derive(Debug)]
pub struct VethPair {
    /// Namespace of the left end.
    pub left: Namespace,
    /// Namespace of the right end.
    pub right: Namespace,
    /// The left end.
    pub left_end: VethEnd,
    /// The right end.
    pub right_end: VethEnd,
}

impl VethPair {
    /// Bytes of the largest IP packet on an ordinary Ethernet.
    pub const MTU_DEFAULT: u32 = 1500;

    /// Makes both namespaces and the pair; when it returns, both ends are up and know each other's hardware
    /// address, so that no packet waits for neighbour discovery.
    ///
    /// # Errors
    /// [`TestbedError`] when something is missing or `ip` fails.
    pub fn create(left_end: VethEnd, right_end: VethEnd, mtu: u32) -> Result<Self, TestbedError> {
        let left = Namespace::create("left")?;
        let right = Namespace::create("right")?;
        let pair = Self { left, right, left_end, right_end };
        pair.join(mtu)?;
        Ok(pair)
    }

    /// Like [`create`](Self::create), but what lies between the ends is a wire that can lose frames.
    ///
    /// # Errors
    /// As [`create`](Self::create), and when the kernel refuses the wire's programs.
    pub fn across(left_end: VethEnd, right_end: VethEnd, mtu: u32) -> Result<(Self, Wire), TestbedError> {
        let left = Namespace::create("left")?;
        let middle = Namespace::create("wire")?;
        let right = Namespace::create("right")?;
        for (namespace, end) in [(&left, &left_end), (&right, &right_end)] {
            namespace.ip_batch(&format!(
                "link add {interface} mtu {mtu} address {mac} numtxqueues {queues} numrxqueues {queues} type veth \
                 peer name {peer} mtu {mtu} netns {middle}\n",
                interface = end.interface,
                mac = end.mac_text(),
                queues = end.queues,
                peer = Wire::interface_towards(end),
                middle = middle.name(),
            ))?;
        }
        set_up(&left, &left_end, &right_end)?;
        set_up(&right, &right_end, &left_end)?;
        let wire = Wire::join(middle, [&left_end, &right_end])?;
        wait_for_link(&left, &left_end)?;
        wait_for_link(&right, &right_end)?;
        Ok((Self { left, right, left_end, right_end }, wire))
    }

    /// Deletes both ends; the namespaces stay.
    ///
    /// # Errors
    /// [`TestbedError::Command`] when they are gone already.
    pub fn delete(&self) -> Result<(), TestbedError> {
        self.right.ip(&["link", "del", &self.right_end.interface]).map(|_| ())
    }

    /// Makes both ends and waits until they are up: after [`VethPair::delete`], under the same names and addresses,
    /// as a driver that is loaded again does. The kernel gives them other numbers.
    ///
    /// # Errors
    /// As [`VethPair::create`].
    pub fn join(&self, mtu: u32) -> Result<(), TestbedError> {
        let Self { left, right, left_end, right_end } = self;
        left.ip_batch(&format!(
            "link add {li} mtu {mtu} address {lm} numtxqueues {lq} numrxqueues {lq} type veth \
             peer name {ri} mtu {mtu} address {rm} numtxqueues {rq} numrxqueues {rq} netns {rn}\n",
            li = left_end.interface,
            lm = left_end.mac_text(),
            lq = left_end.queues,
            ri = right_end.interface,
            rm = right_end.mac_text(),
            rq = right_end.queues,
            rn = right.name(),
        ))?;
        set_up(left, left_end, right_end)?;
        set_up(right, right_end, left_end)?;
        wait_for_link(left, left_end)?;
        wait_for_link(right, right_end)
    }

    /// A pair with one queue an end and everything else as usual.
    ///
    /// # Errors
    /// As [`VethPair::create`].
    pub fn simple() -> Result<Self, TestbedError> {
        Self::create(VethEnd::left(), VethEnd::right(), Self::MTU_DEFAULT)
    }
}

fn set_up(namespace: &Namespace, end: &VethEnd, peer: &VethEnd) -> Result<(), TestbedError> {
    let interface = &end.interface;
    ethtool::set(namespace, interface, Offload::TransmitChecksum, end.transmit_checksum_offload)?;
    ethtool::set(namespace, interface, Offload::GenericReceive, end.generic_receive_offload)?;
    namespace.ip_batch(&format!(
        "addr add {v4}/24 dev {interface}\n\
         addr add {v6}/64 dev {interface} nodad\n\
         link set {interface} up\n\
         neigh replace {peer4} lladdr {mac} dev {interface} nud permanent\n\
         neigh replace {peer6} lladdr {mac} dev {interface} nud permanent\n",
        v4 = end.v4,
        v6 = end.v6,
        peer4 = peer.v4,
        peer6 = peer.v6,
        mac = peer.mac_text(),
    ))
}

/// The kernel brings links up from a work queue; what is sent before is lost.
fn wait_for_link(namespace: &Namespace, end: &VethEnd) -> Result<(), TestbedError> {
    wait_until(&format!("the link of {} coming up", end.interface), LINK_UP_LIMIT, || {
        let shown = namespace.ip(&["-oneline", "link", "show", "dev", &end.interface])?;
        Ok(shown.contains("state UP").then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::testbed::{UdpCounters, cpu, napi};

    #[test]
    fn datagrams_cross_in_both_families_and_are_counted() {
        let pair = VethPair::simple().expect("a pair");
        for (server_address, client_address) in
            pair.right_end.addresses().into_iter().zip(pair.left_end.addresses())
        {
            let server = pair.right.run(|| UdpSocket::bind((server_address, 4000))).expect("entered");
            let server = server.expect("bound");
            let client = pair.left.run(|| UdpSocket::bind((client_address, 0))).expect("entered");
            let client = client.expect("bound");
            let before = UdpCounters::read(&pair.right).expect("counters");
            client.send_to(b"ping", (server_address, 4000)).expect("sent");
            server.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
            let mut buffer = [0; 16];
            let (length, from) = server.recv_from(&mut buffer).expect("received");
            assert_eq!((&buffer[..length], from.ip()), (&b"ping"[..], client_address));
            let counted = UdpCounters::read(&pair.right).expect("counters").since(&before);
            assert_eq!(counted.in_datagrams, 1);
        }
    }

    #[test]
    fn queue_counts_are_as_asked() {
        let mut right_end = VethEnd::right();
        right_end.queues = 2;
        let pair = VethPair::create(VethEnd::left(), right_end, 9000).expect("a pair");
        let path = format!("/sys/class/net/{}/", pair.right_end.interface);
        let output = pair.right.command("ls").arg(format!("{path}queues")).output().expect("ls runs");
        let queues = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(queues.contains("rx-1") && !queues.contains("rx-2"), "{queues}");
        let output = pair.right.command("cat").arg(format!("{path}mtu")).output().expect("cat runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "9000");
    }

    #[test]
    fn napi_threads_run_on_the_core_named() {
        let pair = VethPair::simple().expect("a pair");
        let core = *cpu::usable_cores().last().expect("a core");
        let threads = napi::pin_threads(&pair.right, &pair.right_end.interface, core).expect("threaded");
        assert_eq!(threads.len(), 1);
        assert_eq!(cpu::threads_pinned_to(threads[0], core).expect("alive"), threads);
    }
}
