//! The addresses this host has, which a service without addresses of its own is served on: the same that a kernel
//! socket on the wildcard address answers for, so that other hosts' packets, which a forwarding or promiscuous NIC sees
//! too, go their way.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// Every address of this network namespace but the loopback ones, which no NIC may receive (RFC 1122, section
/// 3.2.1.3; RFC 4291, section 2.5.3). Addresses that an operator put on `lo`, as behind a load balancer, are among them.
///
/// # Errors
/// When the kernel does not tell.
pub fn local_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let mut list = ptr::null_mut();
    // SAFETY: the call writes one pointer, to a list that is ours to free.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = BTreeSet::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` is an entry of the list, which is freed below and not changed by anybody.
        let entry = unsafe { &*next };
        // SAFETY: an entry's address is null or a socket address of the family it names.
        addresses.extend(unsafe { ip_of(entry.ifa_addr) }.filter(|address| !address.is_loopback()));
        next = entry.ifa_next;
    }
    // SAFETY: the list is `getifaddrs`'s and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}

/// The IP address in a socket address; `None` for another family, and for none.
///
/// # Safety
/// The pointer is null, or points to a socket address that is as long as its family has them.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address starts with its family. Reads are unaligned, so that nothing hangs on how it lies.
    let family = unsafe { ptr::read_unaligned(&raw const (*address).sa_family) };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one.
            let address = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is one.
            let address = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_reaches_out_has_one_of_them() {
        let addresses = local_addresses().expect("the kernel tells");
        assert!(addresses.iter().all(|address| !address.is_loopback()), "{addresses:?}");
        // Connecting a datagram socket sends nothing: it chooses a route and with it a source.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        if socket.connect("192.0.2.1:9").is_ok() {
            let source = socket.local_addr().expect("it is connected").ip();
            assert!(addresses.contains(&source), "{source} in {addresses:?}");
        }
    }
}
