//! The rig: two namespaces, a veth pair, the generator on the left with its core, a server on the right with its.
//!
//! On a veth pair the sender's CPU runs the receiver's NAPI. The server's is threaded and pinned to the server's core, as
//! an interrupt would be; the generator's is left to whoever sends to it, the server's core, which pays for it with
//! every system alike.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dataplane::port::Port;
use dataplane::port::xsk::{self, Opened, XskConfig, XskPort, XskQueue};
use dataplane::steer::{self, inspect::SteerStatus};
use dataplane::testbed::redirect::Redirect;
use dataplane::testbed::{ChildGuard, Daemon, Namespace, VethPair, cpu, daemon};

use super::settings::Setting;
use super::survey::{Drops, Survey};
use super::systems::{Running, System};
use crate::client::Client;
use crate::generator::{Endpoint, Flow, Generator, Load, Outcome, Reflector};
use crate::host::clocks::{Clocks, Spent, Watched, Where};
use crate::host::sysctl::Sysctl;

/// Port of every server.
const SERVER_PORT: u16 = 11_211;
/// Port of the generator.
const GENERATOR_PORT: u16 = 40_000;
/// How long memcached may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of receive buffer that memcached's socket gets: room for every request under way, each in a page or two.
const RECEIVE_BUFFER_BYTES: u64 = 4 << 20;
/// How long the kernel counts the run time of XDP programs.
const XDP_WINDOW: Duration = Duration::from_millis(200);

/// One measured slot.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) outcome: Outcome,
    /// Share of the slot that the server's core was busy, 0 to 1, polling without work taken out; `None` when that
    /// polling is not counted.
    pub(super) server_busy: Option<f64>,
    /// Share of the slot that the generator's core was busy, 0 to 1; it polls for its replies.
    pub(super) generator_busy: f64,
    /// Share of the run that the server's core was halted; `None` when the kernel does not count that.
    pub(super) server_halted: Option<f64>,
    /// Busy seconds of both cores.
    pub(super) cpu_s: f64,
    /// Where the time of the server's core went.
    pub(super) place: Where,
    /// What was dropped on the way, by those who count it.
    pub(super) drops: Drops,
}

#[derive(Debug)]
pub(super) struct Rig {
    // What is attached goes before the namespaces it is attached in.
    generator: Generator<XskPort, XskQueue>,
    _redirect: Redirect,
    pair: VethPair,
    generator_core: usize,
    server_core: usize,
    server_napi: Vec<u32>,
    /// How long what runs now polls before it sleeps, in microseconds.
    spin_us: u32,
    binary: PathBuf,
    capacity: String,
    refused: Vec<String>,
}

impl Rig {
    pub(super) fn create(binary: PathBuf, capacity: String) -> Result<Self> {
        let cores = cpu::usable_cores();
        let [generator_core, server_core, ..] = cores[..] else {
            bail!("this measurement needs two cores: one for the generator, one for the server");
        };
        let pair = VethPair::simple()?;
        let end = &pair.left_end;
        let redirect = Redirect::attach(&pair.left, &end.interface)?;
        let Opened { port, queue, .. } = open(&pair.left, &end.interface)?;
        redirect.feed(0, port.wait_handle().context("an AF_XDP port has a socket")?)?;
        let local = Endpoint { mac: end.mac, address: end.v4, port: GENERATOR_PORT };
        let server = &pair.right_end;
        let peer = Endpoint { mac: server.mac, address: server.v4, port: SERVER_PORT };
        Ok(Self {
            generator: Generator::new(port, queue, Flow::new(local, peer)),
            _redirect: redirect,
            pair,
            generator_core,
            server_core,
            server_napi: Vec::new(),
            spin_us: 0,
            binary,
            capacity,
            refused: Vec::new(),
        })
    }

    /// The generator's core and the server's.
    pub(super) fn cores(&self) -> [usize; 2] {
        [self.generator_core, self.server_core]
    }

    /// Puts the calling thread on the generator's core.
    pub(super) fn pin_generator(&self) -> Result<()> {
        Ok(cpu::pin_this_thread(self.generator_core)?)
    }

    /// Settings of the kernel that memcached was to have and did not get, each with the reason.
    pub(super) fn refused(&self) -> Vec<String> {
        self.refused.clone()
    }

    /// The server's side, to ask what runs there.
    pub(super) fn server_side(&self) -> &Namespace {
        &self.pair.right
    }

    /// Starts a system and waits until it serves.
    pub(super) fn start(&mut self, system: System, setting: &Setting) -> Result<Running> {
        self.spin_us = setting.spin_us;
        let running = match system {
            System::Reflect => self.start_reflector()?,
            System::Dataplane => {
                let config = DaemonConfig {
                    interface: &self.pair.right_end.interface,
                    client: self.pair.left_end.v4,
                    worker_core: self.server_core,
                    housekeeping_core: self.generator_core,
                    capacity: &self.capacity,
                    spin_us: self.spin_us,
                };
                let config = config.to_toml();
                Running::Dataplane(Daemon::start(&self.pair.right, &self.binary, &config)?)
            }
            System::Memcached => self.start_memcached()?,
        };
        let (namespace, interface) = (&self.pair.right, &self.pair.right_end.interface);
        self.server_napi = setting.napi.arrange(namespace, interface, self.server_core)?;
        self.pin_generator()?;
        Ok(running)
    }

    /// One load, not measured.
    pub(super) fn run(&mut self, load: &Load) -> Result<Outcome> {
        self.generator.run(load, &mut || Ok(()))
    }

    /// One load, with the time of both cores while it counts.
    pub(super) fn measure(&mut self, running: &mut Running, load: &Load) -> Result<Measured> {
        let watched = Watched {
            server_core: self.server_core,
            generator_core: self.generator_core,
            napi: self.server_napi.clone(),
            server: running.threads(self.server_core)?,
        };
        let before = Survey::make(running, &self.pair, self.server_core)?;
        let mut readings = Vec::new();
        let outcome = self.generator.run(load, &mut || {
            readings.push(Clocks::read(&watched)?);
            Ok(())
        })?;
        let after = Survey::make(running, &self.pair, self.server_core)?;
        let [first, last] = &readings[..] else { bail!("interrupted; everything is cleaned up") };
        let lost = self.generator.frames_lost();
        ensure!(lost == 0, "the generator lost {lost} frames");
        let Spent { shares, generator_busy, cpu_s } = last.since(first);
        let around = after.since(&before);
        // A worker that sleeps at once polls as much as its work asks for.
        let spun = if self.spin_us == 0 { Some(0.0) } else { around.spun };
        let [worker_busy, worker_idle, worker_asleep] =
            around.worker.map_or([None; 3], |shares| shares.map(Some));
        Ok(Measured {
            outcome,
            server_busy: spun.map(|spun| (1.0 - shares.idle - spun).max(0.0)),
            generator_busy,
            server_halted: around.halted,
            cpu_s,
            place: Where { worker_busy, worker_idle, worker_asleep, ..shares },
            drops: around.drops,
        })
    }

    /// Nanoseconds of the daemon's XDP program a packet under a load; `None` for other systems. In a slot of its own:
    /// while the kernel counts them, every packet costs more.
    pub(super) fn xdp_ns_per_packet(&mut self, running: &Running, load: &Load) -> Result<Option<f64>> {
        if running.system() != System::Dataplane {
            return Ok(None);
        }
        let Self { generator, pair, .. } = self;
        let (namespace, interface) = (&pair.right, &pair.right_end.interface);
        let load = Load { warm_up: Duration::ZERO, length: XDP_WINDOW * 2, ..*load };
        let status = std::thread::scope(|scope| -> Result<SteerStatus> {
            let pins = PathBuf::from(NO_PINS);
            let asked = scope.spawn(move || namespace.run(|| steer::status(&pins, XDP_WINDOW)));
            let ran = generator.run(&load, &mut || Ok(()));
            let status = asked.join().map_err(|_| anyhow!("asking the kernel panicked"))?;
            ran?;
            Ok(status??)
        })?;
        let ours = status.programs.iter().find(|program| {
            program.links.iter().any(|link| link.interface.as_deref() == Some(interface.as_str()))
        });
        let ours = ours.with_context(|| format!("the kernel knows no steering program on {interface}"))?;
        Ok(ours.ns_per_packet)
    }

    fn start_reflector(&self) -> Result<Running> {
        let interface = &self.pair.right_end.interface;
        let redirect = Redirect::attach(&self.pair.right, interface)?;
        let Opened { port, queue, .. } = open(&self.pair.right, interface)?;
        redirect.feed(0, port.wait_handle().context("an AF_XDP port has a socket")?)?;
        let spin = Duration::from_micros(self.spin_us.into());
        Ok(Running::Reflect(Reflector::start(port, queue, self.server_core, spin)?, redirect))
    }

    /// Changes a setting of the host's kernel, or notes why it could not.
    fn change(&mut self, name: &str, value: u64) -> Option<Sysctl> {
        match Sysctl::set(name, value) {
            Ok(changed) => Some(changed),
            Err(reason) => {
                if !self.refused.contains(&reason) {
                    self.refused.push(reason);
                }
                None
            }
        }
    }

    /// memcached as a careful operator would run it against us: one thread, on the server's core, with room for
    /// everything, a socket buffer that holds every request under way, and, where the other servers poll before they
    /// sleep, the kernel's busy polling for as long (Linux `Documentation/networking/napi.rst`).
    fn start_memcached(&mut self) -> Result<Running> {
        // Sockets take these over when they are made; the kernel's polling of many sockets lasts as long as it is on.
        let _buffer = self.change("rmem_default", RECEIVE_BUFFER_BYTES);
        let polls = self.spin_us > 0;
        let _reading = if polls { self.change("busy_read", self.spin_us.into()) } else { None };
        let polling = if polls { self.change("busy_poll", self.spin_us.into()) } else { None };
        let namespace = &self.pair.right;
        let mut command = namespace.command("memcached");
        command.args(["-u", "root", "-p", "0", "-t", "1", "-m", "1024", "-U", &SERVER_PORT.to_string()]);
        command.args(["-l", &self.pair.right_end.v4.to_string()]);
        let mut child = ChildGuard::spawn("memcached", &mut command)?;
        let server = self.pair.right_end.v4;
        let socket = namespace.run(|| {
            let socket = std::net::UdpSocket::bind((server, 0))?;
            socket.connect((server, SERVER_PORT))?;
            std::io::Result::Ok(socket)
        })??;
        let mut client = Client::new(socket, Duration::from_millis(50));
        child.wait_for("memcached answering", START_LIMIT, || Ok(client.call(b"version\r\n").ok()))?;
        let directory = format!("/proc/{}/task", child.pid());
        for entry in std::fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
            let name = entry?.file_name();
            let thread = name.to_str().and_then(|name| name.parse().ok()).context("a thread has a number")?;
            cpu::pin_thread(thread, self.server_core)?;
        }
        Ok(Running::Memcached(child, polling))
    }
}

/// What the daemon is told.
struct DaemonConfig<'a> {
    interface: &'a str,
    client: Ipv4Addr,
    worker_core: usize,
    housekeeping_core: usize,
    capacity: &'a str,
    spin_us: u32,
}

impl DaemonConfig<'_> {
    fn to_toml(&self) -> String {
        format!(
            r#"
[daemon]
admin = "{admin}"
housekeeping_cores = [{housekeeping_core}]
log = "warn"
[[interface]]
name = "{interface}"
mode = "native"
[workers]
cores = [{worker_core}]
idle = "adaptive"
spin_us = {spin_us}
[table]
capacity = "{capacity}"
[[listener]]
service = "memcached"
port = {SERVER_PORT}
allow = ["{client}/32"]
"#,
            admin = daemon::ADMIN,
            housekeeping_core = self.housekeeping_core,
            interface = self.interface,
            worker_core = self.worker_core,
            spin_us = self.spin_us,
            capacity = self.capacity,
            client = self.client,
        )
    }
}

/// The same socket for generator and reflector: neither has an advantage.
fn open(namespace: &Namespace, interface: &str) -> Result<Opened> {
    let config = XskConfig::new(interface, 0);
    Ok(namespace.run(|| xsk::open(&config))??)
}

/// A directory without pins: what is asked for is what the daemon itself has attached.
const NO_PINS: &str = "/sys/fs/bpf/no-such-directory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_the_daemon_takes() {
        let text = DaemonConfig {
            interface: "dpr1-1",
            client: Ipv4Addr::new(10, 77, 0, 1),
            worker_core: 1,
            housekeeping_core: 0,
            capacity: "1GiB",
            spin_us: 0,
        };
        let config = dataplane::config::parse(&text.to_toml()).expect("valid");
        assert_eq!(config.table.capacity_bytes, 1 << 30);
        assert_eq!(config.workers.idle, dataplane::config::Idle::Adaptive { spin_us: 0 });
    }
}
