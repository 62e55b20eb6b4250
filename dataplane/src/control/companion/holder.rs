//! Who has a port: the kernel lists sockets by inode, and each process's descriptors name inodes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::ListenerProtocol;

/// The process that has a port, as `name (pid 42)`; `None` when it is in another namespace, or hidden.
#[must_use]
pub fn port_holder(protocol: ListenerProtocol, address: SocketAddr) -> Option<String> {
    let table = format!("/proc/thread-self/net/{}", protocol.label());
    let inodes: Vec<String> = [table.clone(), format!("{table}6")]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| inodes_on_port(&table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let holders: Vec<Holder> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter(|process| has_any(&process.path(), &inodes))
        .filter_map(|process| Holder::read(&process.path()))
        .collect();
    // A child that was given the socket holds it for its parent, as our own sentinel does.
    let first = holders.iter().find(|holder| !holders.iter().any(|other| other.pid == holder.parent));
    first.or(holders.first()).map(|holder| format!("{} (pid {})", holder.name, holder.pid))
}

/// A process that has the socket.
struct Holder {
    pid: u32,
    parent: u32,
    name: String,
}

impl Holder {
    fn read(process: &Path) -> Option<Self> {
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // Behind the name in parentheses: the state, then the parent (proc_pid_stat(5)).
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        Some(Self { pid, parent: parent.unwrap_or(0), name })
    }
}

/// Whether one of a process's descriptors is one of these sockets.
fn has_any(process: &Path, inodes: &[String]) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
}

/// Inodes of the sockets on a port, from a table as `/proc/net/udp` has it.
fn inodes_on_port(table: &str, port: u16) -> Vec<u64> {
    let of_line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
        let matches = u16::from_str_radix(local_port, 16).ok()? == port;
        fields.nth(7)?.parse().ok().filter(|_| matches)
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let holder = port_holder(ListenerProtocol::Udp, address).expect("it is us");
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        drop(socket);
    }

    #[test]
    fn a_child_that_was_given_the_socket_is_not_named() {
        use std::process::{Command, Stdio};

        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let given = std::os::fd::OwnedFd::from(socket.try_clone().expect("a descriptor"));
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(given)).spawn().expect("it starts");
        let holder = port_holder(ListenerProtocol::Udp, address);
        child.kill().and_then(|()| child.wait()).expect("it ends");
        let holder = holder.expect("two have it");
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }

    #[test]
    fn inodes_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            12: 0100007F:2BCB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n\
            13: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n\
            garbage\n";
        assert_eq!(inodes_on_port(table, 0x2BCB), [4711]);
        assert_eq!(inodes_on_port(table, 9), Vec::<u64>::new());
    }
}
