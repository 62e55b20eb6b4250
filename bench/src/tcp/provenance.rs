//! Where figures come from: machine, versions and parameters, so that they can be made again and compared.

use std::process::Command;

use serde::Serialize;

use super::plan::Stage;
use super::systems::System;
use super::{Options, stock};
use crate::host::machine::{Machine, commit, said_by};
use crate::workload::KEY_BYTES;

/// All of it. What cannot be told is `null`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Provenance {
    /// Commit of the source, `-dirty` behind it when the work tree had changes.
    pub commit: Option<String>,
    /// The machine.
    pub machine: Machine,
    /// What each peer, and `redis-benchmark`, says of its version.
    pub versions: Vec<String>,
    /// How the daemon's XDP program and sockets ran: `native, copy`.
    pub af_xdp_mode: Option<String>,
    /// Systems that this host could not run, with the reason.
    pub unavailable: Vec<String>,
    /// Settings of the kernel that peers were to have and did not get: busy polling where the daemon polls.
    pub peers_refused: Vec<String>,
    /// What was asked for.
    pub parameters: Parameters,
}

/// Parameters of the run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Parameters {
    /// Passes over all systems.
    pub passes: usize,
    /// Seconds of each measured slot.
    pub slot_s: f64,
    /// Keys stored with each size of value, and asked for.
    pub keys: u32,
    /// Bytes of each key.
    pub key_bytes: usize,
    /// The daemon's arena.
    pub capacity: String,
    /// How long each server polls before it sleeps with one request under way, in microseconds.
    pub spin_us_unloaded: u32,
    /// The same everywhere else, where the server shares its core with the NAPI thread.
    pub spin_us_saturating: u32,
    /// The generator's core ran the NAPI of the generator's end; otherwise the server's core did, within what it sent.
    pub client_pays: bool,
    /// Bytes of the largest packet on the link.
    pub mtu_bytes: u32,
    /// Offloads of both ends.
    pub offloads: &'static str,
}

/// Checksums are finished in software, which takes segmentation offload with it, and an XDP program at the other end
/// forbids segmentation by the kernel's software on the link as well: nobody sends frames longer than the link takes, and
/// the kernel cuts what a peer writes at once into such frames before they leave.
const OFFLOADS: &str = "tx checksum off, TSO off, GRO on";

impl Provenance {
    pub(super) fn gather(options: &Options, cores: [usize; 2]) -> Self {
        let mut versions = Vec::new();
        let programs = System::ALL.iter().filter_map(|system| system.program());
        for program in programs.map(|[program, _]| program).chain([stock::PROGRAM]) {
            let said = said_by(Command::new(program).arg("--version"));
            versions.extend(said.and_then(|said| Some(said.lines().next()?.to_owned())));
        }
        Self {
            commit: commit(),
            machine: Machine::gather(cores),
            versions,
            parameters: Parameters {
                passes: options.passes(),
                slot_s: options.slot().as_secs_f64(),
                keys: options.keys(),
                key_bytes: KEY_BYTES,
                capacity: options.capacity.clone(),
                spin_us_unloaded: Stage::Unloaded.spin_us(),
                spin_us_saturating: Stage::Saturating.spin_us(),
                client_pays: options.client_pays,
                mtu_bytes: dataplane::testbed::VethPair::MTU_DEFAULT,
                offloads: OFFLOADS,
            },
            ..Self::default()
        }
    }

    /// What makes the figures worse than the machine could have them.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.machine.warning().into_iter().collect();
        for refused in &self.peers_refused {
            warnings.push(format!("peers ran without a setting that they were to have: {refused}"));
        }
        warnings
    }
}

impl std::fmt::Display for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let Parameters { passes, slot_s, keys, capacity, mtu_bytes, offloads, client_pays, .. } =
            &self.parameters;
        let side = if *client_pays { "generator" } else { "server" };
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{}", self.versions.join("; "))?;
        write!(
            f,
            "commit {}; AF_XDP {}; {passes} passes of {slot_s} s; {keys} keys of each size, arena {capacity}; link of \
             {mtu_bytes} bytes, {offloads}; NAPI of the generator's end on the {side}'s core; servers poll for {} us before they sleep with one request under way, {} us \
             above",
            known(&self.commit),
            known(&self.af_xdp_mode),
            self.parameters.spin_us_unloaded,
            self.parameters.spin_us_saturating,
        )?;
        for unavailable in &self.unavailable {
            write!(f, "\nnot measured: {unavailable}")?;
        }
        Ok(())
    }
}
