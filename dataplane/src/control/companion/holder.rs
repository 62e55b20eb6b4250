//! Who has a port: the kernel lists sockets by inode, and each process's descriptors name inodes.

use std::fs;
use std::net::SocketAddr;

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
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            if inodes.iter().any(|inode| target.as_os_str() == inode.as_str()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!("{} (pid {pid})", name.trim()));
            }
        }
    }
    None
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
    fn inodes_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            12: 0100007F:2BCB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n\
            13: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n\
            garbage\n";
        assert_eq!(inodes_on_port(table, 0x2BCB), [4711]);
        assert_eq!(inodes_on_port(table, 9), Vec::<u64>::new());
    }
}
