//! Where figures come from: machine, versions and parameters, so that they can be made again and compared.

use std::process::{Command, Stdio};

use serde::Serialize;

use super::settings::{Stage, settings};
use super::{KEYS, Options};
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

/// The machine and its cores.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Model of its processor.
    pub cpu: Option<String>,
    /// Cores this process may use.
    pub cores: usize,
    /// Release of its kernel.
    pub kernel: Option<String>,
    /// What idle cores did.
    pub idle_cores: String,
    /// The generator's core.
    pub generator_core: usize,
    /// The server's core.
    pub server_core: usize,
    /// Both are threads of one physical core, so that each slows the other down; `null` when the kernel does not say.
    pub smt_siblings: Option<bool>,
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
    pub(super) fn gather(options: &Options, [generator_core, server_core]: [usize; 2]) -> Self {
        let spin_us = |stage: Stage| {
            let found = settings(options.spin_us).into_iter().find(|setting| setting.stage == stage);
            found.map(|setting| setting.spin_us).unwrap_or_default()
        };
        Self {
            commit: commit(),
            machine: Machine {
                cpu: cpu_model(),
                cores: dataplane::testbed::cpu::usable_cores().len(),
                kernel: trimmed("/proc/sys/kernel/osrelease"),
                idle_cores: String::new(),
                generator_core,
                server_core,
                smt_siblings: smt_siblings(generator_core, server_core),
            },
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
        let mut warnings = Vec::new();
        let Machine { generator_core, server_core, .. } = self.machine;
        if self.machine.smt_siblings == Some(true) {
            warnings.push(format!(
                "cores {generator_core} and {server_core} are threads of one physical core: each slows the other down; \
                 choose others with taskset"
            ));
        }
        for refused in &self.memcached_refused {
            warnings.push(format!("memcached ran without a setting that it was to have: {refused}"));
        }
        warnings
    }
}

impl std::fmt::Display for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let Machine { cores, generator_core, server_core, idle_cores, .. } = &self.machine;
        let Parameters { passes, slot_s, keys, value_bytes, capacity, .. } = &self.parameters;
        writeln!(
            f,
            "{}, {cores} cores, Linux {}; generator on core {generator_core}, server on core {server_core}; idle cores \
             {idle_cores}",
            known(&self.machine.cpu),
            known(&self.machine.kernel),
        )?;
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

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        said_by(Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments))
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if changed { format!("{commit}-dirty") } else { commit })
}

/// First thing a program says; `None` when it is not there or fails.
fn said_by(command: &mut Command) -> Option<String> {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    // x86 says `model name`; what other architectures say is good enough to tell machines apart.
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// True when both cores are threads of one (Linux `Documentation/admin-guide/cputopology.rst`).
fn smt_siblings(one: usize, other: usize) -> Option<bool> {
    let siblings = trimmed(&format!("/sys/devices/system/cpu/cpu{one}/topology/thread_siblings_list"))?;
    Some(lists(&siblings, other))
}

/// True when a list like `0-1,4` has a number.
fn lists(list: &str, number: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>(), last.parse::<usize>());
        matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

fn trimmed(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_read_from_lists_and_ranges() {
        assert!(lists("0,4", 4) && lists("0-1", 1) && lists("1", 1));
        assert!(!lists("0,14", 4) && !lists("2-3", 1) && !lists("", 0));
    }

    #[test]
    fn siblings_and_refusals_are_warned_of() {
        let mut provenance = Provenance::default();
        assert!(provenance.warnings().is_empty());
        provenance.machine.smt_siblings = Some(true);
        provenance.memcached_refused.push("net.core.busy_poll: no such file".to_owned());
        assert_eq!(provenance.warnings().len(), 2);
    }
}
