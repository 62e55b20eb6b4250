//! The machine a figure was made on, and the source it was made with.

use std::process::{Command, Stdio};

use dataplane::testbed::cpu;
use serde::Serialize;

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

impl Machine {
    /// As it is, with the cores that are used.
    pub(crate) fn gather([generator_core, server_core]: [usize; 2]) -> Self {
        Self {
            cpu: cpu_model(),
            cores: cpu::usable_cores().len(),
            kernel: trimmed("/proc/sys/kernel/osrelease"),
            idle_cores: String::new(),
            generator_core,
            server_core,
            smt_siblings: smt_siblings(generator_core, server_core),
        }
    }

    /// What makes the figures worse than the machine could have them.
    pub(crate) fn warning(&self) -> Option<String> {
        let Self { generator_core, server_core, .. } = self;
        (self.smt_siblings == Some(true)).then(|| {
            format!(
                "cores {generator_core} and {server_core} are threads of one physical core: each slows the other down; \
                 choose others with taskset"
            )
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let Self { cores, generator_core, server_core, idle_cores, .. } = self;
        write!(
            f,
            "{}, {cores} cores, Linux {}; generator on core {generator_core}, server on core {server_core}; idle cores \
             {idle_cores}",
            known(&self.cpu),
            known(&self.kernel),
        )
    }
}

/// Commit of the source, `-dirty` behind it when the work tree has changes.
pub(crate) fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        said_by(Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments))
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if changed { format!("{commit}-dirty") } else { commit })
}

/// First thing a program says; `None` when it is not there or fails.
pub(crate) fn said_by(command: &mut Command) -> Option<String> {
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
}
