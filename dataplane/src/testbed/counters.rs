//! The kernel's own UDP counters of a namespace: what its stack saw. What XDP took, it did not see.

use super::{Namespace, TestbedError};

/// Sums over IPv4 (`/proc/net/snmp`, RFC 4113) and IPv6 (`/proc/net/snmp6`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpCounters {
    /// Datagrams delivered to sockets.
    pub in_datagrams: u64,
    /// Datagrams to ports nobody listens on.
    pub no_ports: u64,
    /// Datagrams dropped for any other reason.
    pub in_errors: u64,
    /// Datagrams sent.
    pub out_datagrams: u64,
}

impl UdpCounters {
    /// Reads them.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when procfs cannot be read; a host without IPv6 counts as zero there.
    pub fn read(namespace: &Namespace) -> Result<Self, TestbedError> {
        // `/proc/net` is that of the main thread; only `thread-self` follows a thread into its namespace.
        namespace.run(|| {
            let path = "/proc/thread-self/net/snmp";
            let v4 = std::fs::read_to_string(path).map_err(TestbedError::io(format!("read {path}")))?;
            let v6 = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap_or_default();
            Ok(Self::parse(&v4, &v6))
        })?
    }

    /// Counted since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            in_datagrams: self.in_datagrams - earlier.in_datagrams,
            no_ports: self.no_ports - earlier.no_ports,
            in_errors: self.in_errors - earlier.in_errors,
            out_datagrams: self.out_datagrams - earlier.out_datagrams,
        }
    }

    fn parse(v4: &str, v6: &str) -> Self {
        let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let names = lines.next().unwrap_or_default();
        let values = lines.next().unwrap_or_default();
        let mut counters = Self::default();
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            counters.add(name, value);
        }
        for line in v6.lines().filter_map(|line| line.strip_prefix("Udp6")) {
            if let Some((name, value)) = line.split_once(char::is_whitespace) {
                counters.add(name, value.trim());
            }
        }
        counters
    }

    fn add(&mut self, name: &str, value: &str) {
        let counter = match name {
            "InDatagrams" => &mut self.in_datagrams,
            "NoPorts" => &mut self.no_ports,
            "InErrors" => &mut self.in_errors,
            "OutDatagrams" => &mut self.out_datagrams,
            _ => return,
        };
        *counter += value.parse::<u64>().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_summed_by_name() {
        let v4 = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 5 1 2 7 0\n\
                  UdpLite: InDatagrams NoPorts\nUdpLite: 100 100\n";
        let v6 =
            "Ip6InReceives \t9\nUdp6InDatagrams                 \t3\nUdp6NoPorts \t4\nUdpLite6NoPorts \t50\n";
        let expected = UdpCounters { in_datagrams: 8, no_ports: 5, in_errors: 2, out_datagrams: 7 };
        assert_eq!(UdpCounters::parse(v4, v6), expected);
    }

    #[test]
    fn a_datagram_to_a_socket_is_counted_in_its_namespace_only() {
        let namespace = Namespace::create("t").expect("root and iproute2");
        let before = UdpCounters::read(&namespace).expect("counters");
        namespace
            .run(|| {
                let receiver = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
                let to = receiver.local_addr().expect("an address");
                let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
                sender.send_to(b"x", to).expect("sent");
                receiver.recv_from(&mut [0; 8]).expect("received");
            })
            .expect("entered");
        let counted = UdpCounters::read(&namespace).expect("counters").since(&before);
        assert_eq!(counted, UdpCounters { in_datagrams: 1, out_datagrams: 1, ..UdpCounters::default() });
    }
}
