//! Two namespaces and a veth pair: whoever asks on the left with its core, a server on the right with its. As in the UDP
//! suite the server's NAPI is threaded and pinned to the server's core, as an interrupt would be, and the left end's is
//! left to whoever sends to it: the server's core, which pays for it with every system alike. That brings ratios nearer to
//! one than they would be between two hosts; `--client-pays` has the generator's core run it.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dataplane::net::tcp::Seeds;
use dataplane::port::Port;
use dataplane::port::xsk::{self, Opened, XskConfig, XskPort, XskQueue};
use dataplane::testbed::redirect::{Carried, Redirect};
use dataplane::testbed::{Namespace, VethPair, cpu};
use serde::Serialize;

use super::plan::Stage;
use super::systems::{Place, Running, System};
use crate::host::clocks::{Clocks, Spent, Watched, Where};
use crate::host::link;
use crate::host::napi::NapiBy;
use crate::streams::{Generator, Link, Load, Outcome};

/// Frames of the generator's socket, and descriptors in each of its rings: room for every reply that can be under way.
const GENERATOR_FRAMES: u32 = 1 << 15;
const GENERATOR_RING: u32 = 1 << 14;
/// Packets that may wait for veth's ring, of which it has 256 entries.
const QUEUED_PACKETS: &str = "4096";

/// Both namespaces, and who runs where.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) pair: VethPair,
    pub(super) generator_core: usize,
    pub(super) server_core: usize,
    binary: PathBuf,
    capacity: String,
    /// Settings of the kernel that a peer was to have and did not get.
    pub(super) refused: Vec<String>,
    /// Threads that run the server's NAPI.
    napi: Vec<u32>,
}

/// A bed with the generator over AF_XDP on the left.
pub(super) struct Rig {
    // What is attached goes before the namespaces it is attached in.
    generator: Generator<XskPort, XskQueue>,
    _redirect: Redirect,
    pub(super) bed: Bed,
}

/// What was dropped or sent again, over a whole run, warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Packets dropped by veth, either end, either direction: a ring was full.
    pub link: u64,
    /// By the daemon, for any reason.
    pub daemon: u64,
    /// Segments that the generator sent again.
    pub sent_again: u64,
}

/// What a slot's clocks say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Seconds of the server's threads, of its NAPI's and of its core's `ksoftirqd`.
    pub(super) server_cpu_s: f64,
    /// Share of the slot that they took of the server's core, 0 to 1.
    pub(super) server_busy: f64,
    /// Share of the slot that the generator's core was busy.
    pub(super) generator_busy: f64,
    /// Busy seconds of both cores.
    pub(super) cpu_s: f64,
    pub(super) place: Where,
}

impl Bed {
    pub(super) fn create(binary: PathBuf, capacity: String) -> Result<Self> {
        let cores = cpu::usable_cores();
        let [generator_core, server_core, ..] = cores[..] else {
            bail!("this measurement needs two cores: one for the generator, one for the server");
        };
        let pair = VethPair::simple()?;
        Ok(Self {
            pair,
            generator_core,
            server_core,
            binary,
            capacity,
            refused: Vec::new(),
            napi: Vec::new(),
        })
    }

    /// The generator's core and the server's.
    pub(super) fn cores(&self) -> [usize; 2] {
        [self.generator_core, self.server_core]
    }

    /// The server's side, to ask what runs there.
    pub(super) fn server_side(&self) -> &Namespace {
        &self.pair.right
    }

    /// Starts a system and waits until it serves.
    pub(super) fn start(&mut self, system: System, stage: Stage) -> Result<Running> {
        let interface = &self.pair.right_end.interface;
        let place = Place {
            namespace: &self.pair.right,
            interface,
            address: self.pair.right_end.v4,
            client: self.pair.left_end.v4,
            core: self.server_core,
            housekeeping_core: self.generator_core,
            spin_us: stage.spin_us(),
            capacity: &self.capacity,
            binary: &self.binary,
        };
        let running = Running::start(system, &place)?;
        for refused in &running.refused {
            if !self.refused.contains(refused) {
                self.refused.push(refused.clone());
            }
        }
        self.napi = stage.napi().arrange(&self.pair.right, interface, self.server_core)?;
        cpu::pin_this_thread(self.generator_core)?;
        Ok(running)
    }

    /// Whose time is read.
    pub(super) fn watched(&self, running: &mut Running) -> Result<Watched> {
        let mut napi = self.napi.clone();
        // What softirqs leave over is the server's as well.
        napi.extend(kernel_thread(&format!("ksoftirqd/{}", self.server_core)));
        Ok(Watched {
            server_core: self.server_core,
            generator_core: self.generator_core,
            napi,
            server: running.threads(self.server_core)?,
        })
    }

    /// Packets that veth dropped so far, and those the daemon did.
    pub(super) fn losses(&self, running: &mut Running) -> Result<Losses> {
        let VethPair { left, right, left_end, right_end } = &self.pair;
        Ok(Losses {
            link: link::drops(left, &left_end.interface)? + link::drops(right, &right_end.interface)?,
            daemon: running.drops(right)?,
            sent_again: 0,
        })
    }
}

impl Times {
    pub(super) fn between(first: &Clocks, last: &Clocks) -> Self {
        let Spent { shares, generator_busy, cpu_s } = last.since(first);
        let server_busy = shares.napi + shares.server_user + shares.server_system;
        Self {
            server_cpu_s: server_busy * last.seconds_since(first),
            server_busy,
            generator_busy,
            cpu_s,
            place: shares,
        }
    }
}

impl Losses {
    pub(super) fn since(&self, earlier: &Self, sent_again: u64) -> Self {
        Self {
            link: self.link.saturating_sub(earlier.link),
            daemon: self.daemon.saturating_sub(earlier.daemon),
            sent_again,
        }
    }
}

impl Rig {
    /// `client_pays`: the generator's core runs the NAPI of its own end.
    pub(super) fn create(bed: Bed, client_pays: bool) -> Result<Self> {
        let VethPair { left, left_end, right_end, .. } = &bed.pair;
        let interface = &left_end.interface;
        // A queue in front of veth's ring makes the ring hold the sender up instead of dropping (Linux
        // `drivers/net/veth.c`, `veth_xmit`); a NIC's rings are some times as long.
        let mut command = left.command("tc");
        command.args(["qdisc", "replace", "dev", interface, "root", "pfifo", "limit", QUEUED_PACKETS]);
        let output = command.output().context("cannot run `tc`, which comes with iproute2")?;
        ensure!(output.status.success(), "tc: {}", String::from_utf8_lossy(&output.stderr).trim());

        let redirect = Redirect::attach_for(left, interface, Carried::Tcp)?;
        let config = XskConfig {
            frames: GENERATOR_FRAMES,
            ring_entries: GENERATOR_RING,
            ..XskConfig::new(interface, 0)
        };
        let Opened { port, queue, .. } = left.run(|| xsk::open(&config))??;
        redirect.feed(0, port.wait_handle().context("an AF_XDP port has a socket")?)?;
        let link =
            Link { local_mac: left_end.mac, local: left_end.v4, peer_mac: right_end.mac, peer: right_end.v4 };
        // As random as the standard library's tables are.
        let secret = || RandomState::new().hash_one(());
        let seeds = Seeds { table: secret(), sequence: [secret(), secret()] };
        let mut generator = Generator::new(port, queue, link, seeds)?;
        if client_pays {
            NapiBy::Thread.arrange(left, interface, bed.generator_core)?;
            generator.share_core();
        }
        Ok(Self { generator, _redirect: redirect, bed })
    }

    /// As many connections as are wanted, to the port given.
    pub(super) fn connect(&mut self, connections: usize, port: u16) -> Result<()> {
        self.generator.open(connections, port)
    }

    /// Closes all of them.
    pub(super) fn disconnect(&mut self) -> Result<()> {
        self.generator.close()
    }

    /// One load, not measured.
    pub(super) fn run(&mut self, load: &Load) -> Result<Outcome> {
        self.generator.run(load, &mut || Ok(()))
    }

    /// One load, with the time of both cores while it counts.
    pub(super) fn measure(&mut self, running: &mut Running, load: &Load) -> Result<(Outcome, Times, Losses)> {
        let watched = self.bed.watched(running)?;
        let before = self.bed.losses(running)?;
        let mut readings = Vec::new();
        let outcome = self.generator.run(load, &mut || {
            readings.push(Clocks::read(&watched)?);
            Ok(())
        })?;
        let [first, last] = &readings[..] else { bail!("interrupted; everything is cleaned up") };
        let losses = self.bed.losses(running)?.since(&before, outcome.retransmissions);
        let lost = self.generator.frames_lost();
        ensure!(lost == 0, "the generator lost {lost} frames");
        Ok((outcome, Times::between(first, last), losses))
    }
}

/// A kernel thread by its name.
fn kernel_thread(name: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?;
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|number| {
        std::fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|comm| comm.trim() == name)
    })
}

/// How long a slot warms up.
pub(super) fn warm_up(length: Duration) -> Duration {
    (length / 4).min(Duration::from_millis(300))
}
