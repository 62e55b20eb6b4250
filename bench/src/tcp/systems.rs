//! The systems compared, each started on the server's side of a veth pair.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use dataplane::testbed::{ChildGuard, Daemon, Namespace, TemporaryDirectory, cpu, requirements};

use super::config::{DaemonConfig, Transport};
use crate::host::sysctl::Sysctl;
use crate::streams::Dialect;

/// Port of every server that speaks memcached's protocol.
pub(super) const MEMCACHED_PORT: u16 = 11_211;
/// Port of every server that speaks Redis's.
pub(super) const RESP_PORT: u16 = 6_379;
/// Connections that every server takes.
pub(super) const CONNECTIONS: usize = 16_384;
/// Files that a server has open besides.
pub(super) const FILES_BESIDE: usize = 1_024;
/// Connections that may wait for a server to accept them.
const BACKLOG: usize = 1_024;
/// How long a peer may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a peer's port may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_millis(50);

/// One of the systems compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// This daemon past the kernel.
    Bypass,
    /// This daemon over the kernel's sockets.
    Kernel,
    /// `memcached -t 1`.
    Memcached,
    /// `redis-server`.
    Redis,
    /// `valkey-server`.
    Valkey,
}

impl System {
    /// Each of them, in the order of the first pass.
    pub const ALL: [Self; 5] = [Self::Bypass, Self::Kernel, Self::Memcached, Self::Redis, Self::Valkey];

    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Kernel => "kernel",
            Self::Memcached => "memcached",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }

    /// In whose words it can be asked.
    #[must_use]
    pub const fn dialects(self) -> &'static [Dialect] {
        match self {
            Self::Bypass | Self::Kernel => &[Dialect::Memcached, Dialect::Resp],
            Self::Memcached => &[Dialect::Memcached],
            Self::Redis | Self::Valkey => &[Dialect::Resp],
        }
    }

    /// True of those that this daemon is compared with.
    #[must_use]
    pub const fn is_peer(self) -> bool {
        matches!(self, Self::Memcached | Self::Redis | Self::Valkey)
    }

    /// Its program, where it is not ours, and the package that has it.
    pub(super) const fn program(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Bypass | Self::Kernel => None,
            Self::Memcached => Some(["memcached", "memcached"]),
            Self::Redis => Some(["redis-server", "redis-server"]),
            Self::Valkey => Some(["valkey-server", "valkey-server"]),
        }
    }

    /// Why this host cannot run it; `None` when it can.
    pub(super) fn lacks(self, binary: &Path) -> Result<Option<String>> {
        if let Some([program, package]) = self.program() {
            return Ok(requirements::program(program, package).err().map(|error| error.to_string()));
        }
        if self == Self::Bypass {
            return Ok(None);
        }
        let config = DaemonConfig::example(Transport::Kernel).to_toml();
        let directory = TemporaryDirectory::create()?;
        let path = directory.path().join("dataplane.toml");
        std::fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        let output = Command::new(binary).arg("check").arg("--config").arg(&path).output();
        let output = output.with_context(|| format!("cannot run {}", binary.display()))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok((!output.status.success())
            .then(|| format!("`dataplane check` refuses its configuration:\n{said}")))
    }
}

/// Port of the server for a protocol.
pub(super) const fn port(dialect: Dialect) -> u16 {
    match dialect {
        Dialect::Memcached => MEMCACHED_PORT,
        Dialect::Resp => RESP_PORT,
    }
}

/// Where a server runs and what it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) interface: &'a str,
    pub(super) address: Ipv4Addr,
    pub(super) client: Ipv4Addr,
    pub(super) core: usize,
    pub(super) housekeeping_core: usize,
    /// How long it polls before it sleeps, in microseconds.
    pub(super) spin_us: u32,
    /// The daemon's table, as its configuration has it.
    pub(super) capacity: &'a str,
    pub(super) binary: &'a Path,
}

/// A system that runs. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) system: System,
    process: Process,
    /// What was changed in the kernel for it.
    _changed: Vec<Sysctl>,
    /// Where it would write, if it wrote.
    _directory: Option<TemporaryDirectory>,
    /// Settings of the kernel that a peer was to have and did not get.
    pub(super) refused: Vec<String>,
}

#[derive(Debug)]
enum Process {
    Ours(Daemon),
    Peer(ChildGuard),
}

impl Running {
    /// Starts a system and waits until it serves.
    pub(super) fn start(system: System, place: &Place<'_>) -> Result<Self> {
        let transport = match system {
            System::Bypass => Transport::Bypass,
            System::Kernel => Transport::Kernel,
            System::Memcached | System::Redis | System::Valkey => return Self::start_peer(system, place),
        };
        let config = DaemonConfig { transport, ..DaemonConfig::new(place) }.to_toml();
        let process = Process::Ours(Daemon::start(place.namespace, place.binary, &config)?);
        Ok(Self { system, process, _changed: Vec::new(), _directory: None, refused: Vec::new() })
    }

    /// A peer as a careful operator would run it against us: one thread, on the server's core, nothing written to disk,
    /// room for everything, and, where the daemon polls before it sleeps, the kernel's busy polling for as long (Linux
    /// `Documentation/networking/napi.rst`).
    fn start_peer(system: System, place: &Place<'_>) -> Result<Self> {
        let mut refused = Vec::new();
        let mut changed = Vec::new();
        if place.spin_us > 0 {
            for name in ["busy_read", "busy_poll"] {
                match Sysctl::set(name, place.spin_us.into()) {
                    Ok(setting) => changed.push(setting),
                    Err(reason) => refused.push(reason),
                }
            }
        }
        let directory = TemporaryDirectory::create()?;
        let [program, _] = system.program().context("a peer has a program")?;
        let mut command = place.namespace.command(program);
        let address = place.address.to_string();
        let (connections, backlog) = (CONNECTIONS.to_string(), BACKLOG.to_string());
        let port = if system == System::Memcached {
            command.args(["-u", "root", "-t", "1", "-U", "0", "-m", "2048", "-l", &address]);
            command.args(["-p", &MEMCACHED_PORT.to_string(), "-c", &connections, "-b", &backlog]);
            MEMCACHED_PORT
        } else {
            command.args(["--bind", &address, "--port", &RESP_PORT.to_string(), "--protected-mode", "no"]);
            command.args(["--save", "", "--appendonly", "no", "--io-threads", "1", "--daemonize", "no"]);
            command.args(["--maxclients", &connections, "--tcp-backlog", &backlog, "--dir"]);
            command.arg(directory.path());
            RESP_PORT
        };
        let mut child = ChildGuard::spawn(system.name(), &mut command)?;
        let server = SocketAddr::from((place.address, port));
        child.wait_for(&format!("{} listening", system.name()), START_LIMIT, || {
            Ok(place.namespace.run(|| TcpStream::connect_timeout(&server, CONNECT_LIMIT))?.ok())
        })?;
        pin_all(child.pid(), place.core)?;
        let process = Process::Peer(child);
        Ok(Self { system, process, _changed: changed, _directory: Some(directory), refused })
    }

    /// Its process, and its threads that are pinned to the server's core.
    pub(super) fn threads(&mut self, core: usize) -> Result<(u32, Vec<u32>)> {
        let process = self.pid();
        Ok((process, cpu::threads_pinned_to(process, core)?))
    }

    /// Its process.
    pub(super) fn pid(&mut self) -> u32 {
        match &mut self.process {
            Process::Ours(daemon) => daemon.child().pid(),
            Process::Peer(child) => child.pid(),
        }
    }

    /// How the daemon's XDP program and sockets run, `native, copy`; `None` of others.
    pub(super) fn mode(&mut self, namespace: &Namespace) -> Result<Option<String>> {
        let Process::Ours(daemon) = &mut self.process else { return Ok(None) };
        let status = daemon.status(namespace)?;
        Ok(status.queues.first().map(|queue| format!("{}, {}", queue.xdp_mode, queue.copy_mode)))
    }

    /// Packets and requests that it says it dropped.
    pub(super) fn drops(&mut self, namespace: &Namespace) -> Result<u64> {
        let Process::Ours(daemon) = &mut self.process else { return Ok(0) };
        let workers = daemon.status(namespace)?.workers;
        Ok(workers.iter().map(|worker| worker.drops.values().sum::<u64>()).sum())
    }

    /// What it printed, for an error that needs it.
    pub(super) fn last_words(&mut self) -> String {
        let output = match &mut self.process {
            Process::Ours(daemon) => daemon.child().output(),
            Process::Peer(child) => child.output(),
        };
        format!("{} said:\n{}", self.system.name(), output.trim_end())
    }

    pub(super) fn stop(self) -> Result<()> {
        match self.process {
            Process::Ours(daemon) => Ok(daemon.stop().map(|_| ())?),
            Process::Peer(mut child) => {
                child.kill();
                Ok(())
            }
        }
    }
}

/// Puts every thread of a process on a core.
fn pin_all(process: u32, core: usize) -> Result<()> {
    let directory = format!("/proc/{process}/task");
    for entry in std::fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
        let name = entry?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).context("a thread has a number")?;
        cpu::pin_thread(thread, core)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_speaks_one_protocol_and_we_speak_both() {
        for system in System::ALL {
            assert_eq!(system.dialects().len(), if system.is_peer() { 1 } else { 2 });
            assert_eq!(system.is_peer(), system.program().is_some());
        }
    }
}
