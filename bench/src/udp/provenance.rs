//! Where figures come from: machine, versions and parameters, so that they can be made again and compared.

use std::process::Command;

use serde::Serialize;

use super::settings::{Stage, settings};
use super::{KEYS, Options};
use crate::host::machine::{Machine, commit, said_by};
use crate::workload::{KEY_BYTES, VALUE_BYTES};

/// All of it. What cannot be told is `null`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Provenance {
    /// Commit of the source, `-dirty` behind it when the work tree had changes.
    pub commit: Option<String>,
    /// The machine.
    pub machine: Machine,
    /// Version of memcached.
    pub memcached: Option<String>,
    /// How the daemon's XDP program and sockets ran: `native, copy`.
    pub af_xdp_mode: Option<String>,
    /// Settings of the kernel that memcached was to have and did not get: busy polling where the others poll, and a
    /// buffer for every request under way.
    pub memcached_refused: Vec<String>,
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
    /// Keys stored and asked for.
    pub keys: u32,
    /// Bytes of each key.
    pub key_bytes: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// The daemon's arena.
    pub capacity: String,
    /// How long each server polls before it sleeps with one request under way, in microseconds.
    pub spin_us_unloaded: u32,
    /// The same at saturation, where the server shares its core with the NAPI thread.
    pub spin_us_saturating: u32,
}

impl Provenance {
    pub(super) fn gather(options: &Options, cores: [usize; 2]) -> Self {
        let spin_us = |stage: Stage| {
            let found = settings(options.spin_us).into_iter().find(|setting| setting.stage == stage);
            found.map(|setting| setting.spin_us).unwrap_or_default()
        };
        Self {
            commit: commit(),
            machine: Machine::gather(cores),
            memcached: said_by(Command::new("memcached").arg("--version"))
                .and_then(|said| Some(said.split_whitespace().last()?.to_owned())),
            af_xdp_mode: None,
            memcached_refused: Vec::new(),
            parameters: Parameters {
                passes: options.passes(),
                slot_s: options.slot().as_secs_f64(),
                keys: KEYS,
                key_bytes: KEY_BYTES,
                value_bytes: VALUE_BYTES,
                capacity: options.capacity.clone(),
                spin_us_unloaded: spin_us(Stage::Unloaded),
                spin_us_saturating: spin_us(Stage::Saturating),
            },
        }
    }

    /// What makes the figures worse than the machine could have them.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.machine.warning().into_iter().collect();
        for refused in &self.memcached_refused {
            warnings.push(format!("memcached ran without a setting that it was to have: {refused}"));
        }
        warnings
    }
}

impl std::fmt::Display for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let Parameters { passes, slot_s, keys, value_bytes, capacity, .. } = &self.parameters;
        writeln!(f, "{}", self.machine)?;
        write!(
            f,
            "commit {}; memcached {}; AF_XDP {}; {passes} passes of {slot_s} s; {keys} keys, {value_bytes}-byte \
             values, arena {capacity}; servers poll for {} us before they sleep with one request under way, {} us above",
            known(&self.commit),
            known(&self.memcached),
            known(&self.af_xdp_mode),
            self.parameters.spin_us_unloaded,
            self.parameters.spin_us_saturating,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_and_refusals_are_warned_of() {
        let mut provenance = Provenance::default();
        assert!(provenance.warnings().is_empty());
        provenance.machine.smt_siblings = Some(true);
        provenance.memcached_refused.push("net.core.busy_poll: no such file".to_owned());
        assert_eq!(provenance.warnings().len(), 2);
    }
}
