//! Whether the listeners' ports are free: by binding them, and letting go at once.

use std::io;
use std::net::{SocketAddr, TcpListener};

use dataplane::config::{Config, ListenerProtocol};
use dataplane::control::companion::{CompanionError, CompanionSocket};

use super::report::{Finding, Verdict};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = match CompanionSocket::bind_all(&config.listeners, 1) {
        Ok(_) => vec![Finding::good("ports", "those of all listeners are free")],
        Err(errors) => errors.iter().map(judge).collect(),
    };
    if let Err(error) = TcpListener::bind(config.daemon.admin) {
        findings.push(admin(config.daemon.admin, &error, are_a_daemons(&findings)));
    }
    findings
}

/// Whether a daemon of this program has the ports.
pub(super) fn are_a_daemons(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.verdict == Verdict::Note)
}

fn admin(address: SocketAddr, error: &io::Error, beside_a_daemon: bool) -> Finding {
    const SUBJECT: &str = "admin port";
    let detail = format!("{address}: {error}");
    match error.kind() {
        io::ErrorKind::AddrInUse if beside_a_daemon => {
            Finding::note(SUBJECT, format!("{address} is the running daemon's, presumably"))
        }
        io::ErrorKind::AddrInUse => Finding::lacking(
            SUBJECT,
            detail,
            format!("ss -ltnp 'sport = :{}'   # stop what has it", address.port()),
        ),
        _ => Finding::with_command(Verdict::Lacking, SUBJECT, detail, cure(error, address)),
    }
}

fn judge(error: &CompanionError) -> Finding {
    const SUBJECT: &str = "ports";
    let detail = error.to_string();
    match error {
        CompanionError::Taken { protocol, address, holder: Some(holder), .. } if is_own(holder) => {
            let address =
                format!("{} {address} is a running daemon's, {holder}", protocol.label().to_uppercase());
            Finding::note(SUBJECT, format!("{address}, which has to end before another starts"))
        }
        CompanionError::Taken { protocol, address, .. } => Finding::lacking(
            SUBJECT,
            detail,
            format!(
                "ss -l{}np 'sport = :{}'   # stop what has it",
                match protocol {
                    ListenerProtocol::Udp => 'u',
                    ListenerProtocol::Tcp => 't',
                },
                address.port()
            ),
        ),
        CompanionError::NotOurs { address, .. } => {
            Finding::lacking(SUBJECT, detail, format!("ip address add {} dev INTERFACE", address.ip()))
        }
        CompanionError::Bind { address, source, .. } => {
            Finding::with_command(Verdict::Lacking, SUBJECT, detail, cure(source, *address))
        }
    }
}

/// Whether a port's holder, `name (pid 42)`, is a daemon of this program or its sentinel.
fn is_own(holder: &str) -> bool {
    ["dataplane (", "sentinel ("].iter().any(|name| holder.starts_with(name))
}

/// What mends the kernel's refusal to bind.
fn cure(error: &io::Error, address: SocketAddr) -> Option<String> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Some(format!(
            "sysctl -w net.ipv4.ip_unprivileged_port_start={}   # or run it as root",
            address.port()
        )),
        io::ErrorKind::AddrNotAvailable if address.ip().is_loopback() => Some("ip link set lo up".to_owned()),
        io::ErrorKind::AddrNotAvailable => Some(format!("ip address add {} dev INTERFACE", address.ip())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_lacks_a_link_and_another_an_interface() {
        let of = |address: &str| {
            let error = io::ErrorKind::AddrNotAvailable.into();
            cure(&error, address.parse().expect("an address")).expect("there is a cure")
        };
        assert_eq!(of("127.0.0.1:9190"), "ip link set lo up");
        assert_eq!(of("192.0.2.1:53"), "ip address add 192.0.2.1 dev INTERFACE");
    }

    #[test]
    fn a_running_daemon_is_no_fault_of_the_host_and_others_are() {
        let address: SocketAddr = "127.0.0.1:11211".parse().expect("an address");
        let taken = |holder: &str| CompanionError::Taken {
            listener: 0,
            protocol: ListenerProtocol::Udp,
            address,
            holder: Some(holder.to_owned()),
        };
        assert_eq!(judge(&taken("dataplane (pid 42)")).verdict, Verdict::Note);
        let other = judge(&taken("memcached (pid 42)"));
        assert_eq!(other.verdict, Verdict::Lacking);
        assert!(other.command.is_some_and(|command| command.starts_with("ss -lunp")));
        let denied = CompanionError::Bind {
            listener: 0,
            protocol: ListenerProtocol::Udp,
            address,
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let command = judge(&denied).command.expect("there is one");
        assert!(command.contains("ip_unprivileged_port_start=11211"), "{command}");
        let odd = CompanionError::Bind {
            listener: 0,
            protocol: ListenerProtocol::Udp,
            address,
            source: io::ErrorKind::OutOfMemory.into(),
        };
        assert_eq!(judge(&odd).command, None, "no command mends that");
    }
}
