//! The rig: two namespaces, a veth pair, the generator on the left with its core, a server on the right with its.
//!
//! On a veth pair the sender's CPU runs the receiver's NAPI. The server's is threaded and pinned to the server's core, as
//! an interrupt would be; the generator's is left to whoever sends to it, the server's core, which pays for it with
//! every system alike.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::port::Port;
use dataplane::port::xsk::{self, Opened, XskConfig, XskPort, XskQueue};
use dataplane::testbed::redirect::Redirect;
use dataplane::testbed::{ChildGuard, Daemon, Namespace, VethPair, cpu, daemon, napi};

use super::systems::{Running, ServerTime, System};
use crate::client::Client;
use crate::generator::{Endpoint, Flow, Generator, Load, Outcome, Reflector};

/// Port of every server.
const SERVER_PORT: u16 = 11_211;
/// Port of the generator.
const GENERATOR_PORT: u16 = 40_000;
/// How long memcached may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Who runs the server's NAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NapiBy {
    /// A thread on the server's core, so that this core is what saturates. A worker that shares its core so does not spin.
    Thread,
    /// The generator's core, within its sending system call: for one request at a time, where a thread would only add its
    /// own wake-up to every system's latency. The worker has its core to itself, and spins as long as it does by default.
    Sender,
}

/// The daemon's default for `workers.spin_us`.
const SPIN_US_OWN_CORE: u32 = 50;

/// One measured slot.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) outcome: Outcome,
    /// Share of the slot that the server's core was busy with the server, 0 to 1.
    pub(super) server_busy: f64,
    /// Share of the slot that the generator's core was busy with the generator, 0 to 1.
    pub(super) generator_busy: f64,
    /// Busy seconds of both cores.
    pub(super) cpu_s: f64,
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
    binary: PathBuf,
    capacity: String,
    spin_us: u32,
}

impl Rig {
    pub(super) fn create(binary: PathBuf, capacity: String, spin_us: u32) -> Result<Self> {
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
            binary,
            capacity,
            spin_us,
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

    /// Starts a system and waits until it serves.
    pub(super) fn start(&mut self, system: System, napi: NapiBy) -> Result<Running> {
        let spin_us = match napi {
            NapiBy::Thread => self.spin_us,
            NapiBy::Sender => SPIN_US_OWN_CORE,
        };
        let running = match system {
            System::Reflect => self.start_reflector(spin_us)?,
            System::Dataplane => {
                let config = DaemonConfig {
                    interface: &self.pair.right_end.interface,
                    client: self.pair.left_end.v4,
                    worker_core: self.server_core,
                    housekeeping_core: self.generator_core,
                    capacity: &self.capacity,
                    spin_us,
                };
                let config = config.to_toml();
                Running::Dataplane(Daemon::start(&self.pair.right, &self.binary, &config)?)
            }
            System::Memcached => self.start_memcached()?,
        };
        self.run_server_napi(napi)?;
        self.pin_generator()?;
        Ok(running)
    }

    /// To be said anew for each system: an XDP program that came or went has changed the NAPI.
    fn run_server_napi(&mut self, by: NapiBy) -> Result<()> {
        let (namespace, interface) = (&self.pair.right, &self.pair.right_end.interface);
        self.server_napi = match by {
            NapiBy::Thread => napi::pin_threads(namespace, interface, self.server_core)?,
            NapiBy::Sender => {
                napi::leave_to_sender(namespace, interface)?;
                Vec::new()
            }
        };
        Ok(())
    }

    /// One load, not measured.
    pub(super) fn run(&mut self, load: &Load) -> Result<Outcome> {
        self.generator.run(load, &mut || Ok(()))
    }

    /// One load, with the CPU time of both sides while it counts.
    pub(super) fn measure(&mut self, running: &mut Running, load: &Load) -> Result<Measured> {
        let core = self.server_core;
        let server_napi = self.server_napi.clone();
        let mut read = || -> Result<Reading> {
            Ok(Reading {
                at: Instant::now(),
                server: running.run_time_ns(core)?,
                server_napi_ns: sum_ns(&server_napi)?,
                generator_ns: cpu::this_thread_run_time_ns()?,
            })
        };
        let mut readings = Vec::new();
        let outcome = self.generator.run(load, &mut || {
            readings.push(read()?);
            Ok(())
        })?;
        let [first, last] = &readings[..] else { bail!("interrupted; everything is cleaned up") };
        let lost = self.generator.frames_lost();
        ensure!(lost == 0, "the generator lost {lost} frames");
        Ok(last.since(first, outcome))
    }

    fn start_reflector(&self, spin_us: u32) -> Result<Running> {
        let interface = &self.pair.right_end.interface;
        let redirect = Redirect::attach(&self.pair.right, interface)?;
        let Opened { port, queue, .. } = open(&self.pair.right, interface)?;
        redirect.feed(0, port.wait_handle().context("an AF_XDP port has a socket")?)?;
        Ok(Running::Reflect(
            Reflector::start(port, queue, self.server_core, Duration::from_micros(spin_us.into()))?,
            redirect,
        ))
    }

    /// memcached as a careful operator would run it against us: one thread, on the server's core, with room for
    /// everything.
    fn start_memcached(&self) -> Result<Running> {
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
        Ok(Running::Memcached(child))
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

fn sum_ns(threads: &[u32]) -> Result<u64> {
    threads.iter().map(|&thread| Ok(cpu::run_time_ns(thread)?)).sum()
}

/// CPU clocks of both sides.
struct Reading {
    at: Instant,
    server: ServerTime,
    server_napi_ns: u64,
    generator_ns: u64,
}

impl Reading {
    fn since(&self, first: &Self, outcome: Outcome) -> Measured {
        let wall_ns = (self.at - first.at).as_nanos() as f64;
        let server_ns = (self.server.pinned_ns - first.server.pinned_ns + self.server_napi_ns
            - first.server_napi_ns) as f64;
        let generator_ns = (self.generator_ns - first.generator_ns) as f64;
        let other_ns = self.server.other_ns.saturating_sub(first.server.other_ns) as f64;
        Measured {
            outcome,
            server_busy: server_ns / wall_ns,
            generator_busy: generator_ns / wall_ns,
            cpu_s: (server_ns + generator_ns + other_ns) / 1e9,
        }
    }
}

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
