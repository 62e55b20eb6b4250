//! The companion's kernel sockets, for datagrams and for streams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{datagram, holder};
use crate::config::{ListenerConfig, ListenerProtocol};

/// Bytes the kernel may queue on each socket: some thousand small requests, for a burst while the worker is busy.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// Connections the kernel keeps until they are taken: a pool of clients that all connect at once.
const BACKLOG: i32 = 1_024;
/// Longest that accepting from a listening socket waits for somebody who was there and has gone again. The socket itself
/// blocks, as io_uring wants it (see [`KernelSetup`](crate::transport::kernel::KernelSetup)), and has the sentinel beside it.
const ACCEPT_TIME_MAX: Duration = Duration::from_millis(10);
/// Longest that a port is waited for which no process has: an io_uring is taken apart somewhat later than the process that was
/// killed with it, and has the sockets until then.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);
const RELEASE_LOOK: Duration = Duration::from_millis(10);
/// Silence after which the kernel asks a peer whether it is still there, time between such questions, and how many: as our
/// own TCP has it ([`net::tcp::Config`](crate::net::tcp::Config)).
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 5;

/// Why a companion socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CompanionError {
    /// The port is another process's.
    #[error(
        "listener[{listener}]: {} port {address} is taken{}; stop what has it, or choose another port",
        .protocol.label().to_uppercase(),
        .holder.as_ref().map_or(String::new(), |holder| format!(" by {holder}"))
    )]
    Taken {
        /// Number of the listener.
        listener: usize,
        /// Its protocol.
        protocol: ListenerProtocol,
        /// The address.
        address: SocketAddr,
        /// Who has it, when that can be found.
        holder: Option<String>,
    },
    /// The address is none of this host's.
    #[error(
        "listener[{listener}]: {address} is none of this host's addresses; assign it first (ip address add), or \
         leave listener.addresses out to answer on all"
    )]
    NotOurs {
        /// Number of the listener.
        listener: usize,
        /// The address.
        address: SocketAddr,
    },
    /// The kernel refused otherwise.
    #[error("listener[{listener}]: cannot bind {} {address}: {source}", .protocol.label().to_uppercase())]
    Bind {
        /// Number of the listener.
        listener: usize,
        /// Its protocol.
        protocol: ListenerProtocol,
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// One bound socket.
#[derive(Debug)]
pub struct CompanionSocket {
    fd: OwnedFd,
    listener: usize,
    worker: usize,
    protocol: ListenerProtocol,
    address: SocketAddr,
}

/// Whether the kernel spreads the port over several sockets (`SO_REUSEPORT`, socket(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Alone,
    WithOtherWorkers,
}

impl CompanionSocket {
    /// Binds the sockets of every listener: one an address, or one an address family for a listener on every
    /// address. Each worker has its own, among which the kernel chooses by a client's address and port.
    ///
    /// # Errors
    /// Every address that cannot be had.
    pub fn bind_all(listeners: &[ListenerConfig], workers: usize) -> Result<Vec<Self>, Vec<CompanionError>> {
        let (mut sockets, mut errors) = (Vec::new(), Vec::new());
        for (listener, config) in listeners.iter().enumerate() {
            let anywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
            let addresses = if config.addresses.is_empty() { &anywhere[..] } else { &config.addresses };
            for &ip in addresses {
                match Self::bind_for(workers, listener, config.protocol, SocketAddr::new(ip, config.port)) {
                    Ok(bound) => sockets.extend(bound),
                    Err(CompanionError::Bind { address, source, .. })
                        if ip.is_unspecified() && address.is_ipv6() && is_without_ipv6(&source) =>
                    {
                        tracing::info!(listener, %source, "this kernel has no IPv6: listening on IPv4 only");
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        if errors.is_empty() { Ok(sockets) } else { Err(errors) }
    }

    /// Binds one socket for each worker.
    fn bind_for(
        workers: usize,
        listener: usize,
        protocol: ListenerProtocol,
        address: SocketAddr,
    ) -> Result<Vec<Self>, CompanionError> {
        // Alone, for a moment at least: sockets that share a port would share it with a second daemon's too.
        let alone = Self::bind(listener, protocol, address)?;
        if workers == 1 {
            return Ok(vec![alone]);
        }
        let address = alone.address;
        drop(alone);
        let shared = |worker| Self::open(listener, worker, protocol, address, Sharing::WithOtherWorkers);
        (0..workers).map(shared).collect()
    }

    /// Binds one socket, that of the only worker.
    ///
    /// # Errors
    /// [`CompanionError`].
    pub fn bind(
        listener: usize,
        protocol: ListenerProtocol,
        address: SocketAddr,
    ) -> Result<Self, CompanionError> {
        Self::open(listener, 0, protocol, address, Sharing::Alone)
    }

    fn open(
        listener: usize,
        worker: usize,
        protocol: ListenerProtocol,
        address: SocketAddr,
        sharing: Sharing,
    ) -> Result<Self, CompanionError> {
        let deadline = Instant::now() + RELEASE_TIME_MAX;
        let fd = loop {
            let opened = match protocol {
                ListenerProtocol::Udp => Self::open_datagrams(address, sharing),
                ListenerProtocol::Tcp => Self::open_streams(address, sharing),
            };
            let source = match opened {
                Ok(fd) => break fd,
                Err(source) => source,
            };
            match source.kind() {
                io::ErrorKind::AddrInUse => {
                    let holder = holder::port_holder(protocol, address);
                    if holder.is_some() || Instant::now() >= deadline {
                        return Err(CompanionError::Taken { listener, protocol, address, holder });
                    }
                    std::thread::sleep(RELEASE_LOOK);
                }
                io::ErrorKind::AddrNotAvailable => return Err(CompanionError::NotOurs { listener, address }),
                _ => return Err(CompanionError::Bind { listener, protocol, address, source }),
            }
        };
        let bound = rustix::net::getsockname(&fd).ok().and_then(|bound| SocketAddr::try_from(bound).ok());
        Ok(Self { fd, listener, worker, protocol, address: bound.unwrap_or(address) })
    }

    fn open_any(kind: SocketType, address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if address.is_ipv6() {
            // Each family has a socket of its own, so that an IPv4 source is never read as ::ffff:a.b.c.d and
            // slips past an allow-list of IPv4 networks.
            sockopt::set_ipv6_v6only(&fd, true)?;
        }
        sockopt::set_socket_reuseport(&fd, sharing == Sharing::WithOtherWorkers)?;
        Ok(fd)
    }

    fn open_datagrams(address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
        let fd = Self::open_any(SocketType::DGRAM, address, sharing)?;
        datagram::ask_for_destination(fd.as_fd(), address.is_ipv6())?;
        // More than rmem_max needs a privilege; without it the kernel gives what it allows.
        sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES))?;
        // No SO_REUSEADDR: with it a second daemon could bind the port and share the traffic.
        rustix::net::bind(&fd, &address)?;
        Ok(fd)
    }

    fn open_streams(address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
        let fd = Self::open_any(SocketType::STREAM, address, sharing)?;
        // Connections of an earlier daemon that are in TIME_WAIT still; a second listener it does not allow.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        // Connections take these over from their listener (Linux `net/ipv4/tcp_minisocks.c`, `tcp_create_openreq_child`).
        sockopt::set_tcp_nodelay(&fd, true)?;
        sockopt::set_socket_keepalive(&fd, true)?;
        sockopt::set_tcp_keepidle(&fd, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(&fd, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&fd, KEEPALIVE_PROBES)?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ACCEPT_TIME_MAX))?;
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, BACKLOG)?;
        Ok(fd)
    }

    /// What it carries.
    #[must_use]
    pub fn protocol(&self) -> ListenerProtocol {
        self.protocol
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// When the process has none left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let Self { fd, listener, worker, protocol, address } = self;
        Ok(Self {
            fd: fd.try_clone()?,
            listener: *listener,
            worker: *worker,
            protocol: *protocol,
            address: *address,
        })
    }

    /// The socket alone.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Number of the listener it is for.
    #[must_use]
    pub fn listener(&self) -> usize {
        self.listener
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of the worker that serves it.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

impl AsFd for CompanionSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_holder() {
        let first =
            CompanionSocket::bind(0, ListenerProtocol::Udp, "127.0.0.1:0".parse().expect("an address"))
                .expect("a free port");
        let error = CompanionSocket::bind(3, ListenerProtocol::Udp, first.address())
            .expect_err("it is taken")
            .to_string();
        assert!(error.starts_with("listener[3]: UDP port 127.0.0.1:"), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[test]
    fn an_address_of_another_host_is_told() {
        let error =
            CompanionSocket::bind(0, ListenerProtocol::Udp, "192.0.2.1:9".parse().expect("an address"))
                .expect_err("not ours");
        assert!(error.to_string().contains("none of this host's addresses"), "{error}");
    }

    #[test]
    fn a_listener_on_every_address_has_a_socket_for_each_family() {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a free port").port();
        let config = ListenerConfig::new("echo", port);
        let sockets = CompanionSocket::bind_all(std::slice::from_ref(&config), 1).expect("both families");
        let addresses: Vec<String> = sockets.iter().map(|socket| socket.address().to_string()).collect();
        assert_eq!(addresses, [format!("0.0.0.0:{port}"), format!("[::]:{port}")]);
        let errors = CompanionSocket::bind_all(&[config], 1).expect_err("both are taken now");
        assert_eq!(errors.len(), 2, "each is told: {errors:?}");
    }

    #[test]
    fn workers_share_a_port_that_a_second_daemon_cannot_have() {
        for protocol in [ListenerProtocol::Udp, ListenerProtocol::Tcp] {
            let config = |port| ListenerConfig {
                protocol,
                addresses: vec!["127.0.0.1".parse().expect("an address")],
                ..ListenerConfig::new("echo", port)
            };
            let sockets = CompanionSocket::bind_all(&[config(0)], 3).expect("any port");
            let workers: Vec<usize> = sockets.iter().map(CompanionSocket::worker).collect();
            assert_eq!(workers, [0, 1, 2]);
            let port = sockets[0].address().port();
            assert!(sockets.iter().all(|socket| socket.address().port() == port));
            let errors = CompanionSocket::bind_all(&[config(port)], 3).expect_err("it is taken");
            assert!(matches!(errors[..], [CompanionError::Taken { .. }]), "{errors:?}");
        }
    }
}
