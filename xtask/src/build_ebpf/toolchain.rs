//! The eBPF toolchain: rustup's nightly with its sources where there is one, else the one Debian builds for its
//! browsers, which has the same LLVM as bpf-linker can be had for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// What installs the toolchain.
const ADVICE: &str = "\
install one of the two:
  with rustup:
    rustup toolchain install nightly --profile minimal --component rust-src
    cargo install bpf-linker
    apt-get install llvm
  on Debian, without rustup's sources:
    apt-get install rustc-web cargo-web rust-web-src llvm-22-dev llvm-22
    LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --no-default-features --features llvm-22";

/// How to call the compiler for the kernel's target.
enum Kind {
    /// `rustup run nightly`.
    Nightly,
    /// Debian's `rustc-web`, a stable compiler told to take unstable flags.
    Debian,
}

/// A toolchain that was found whole.
pub(super) struct Toolchain {
    kind: Kind,
    /// Where the standard library's sources lie.
    pub(super) sysroot: PathBuf,
    /// Where cargo keeps registry sources.
    pub(super) cargo_home: PathBuf,
    /// `llvm-strip`.
    pub(super) strip: PathBuf,
    /// Versions by tool: what the instructions depend on.
    pub(super) versions: BTreeMap<String, String>,
}

impl Toolchain {
    /// Finds a toolchain.
    pub(super) fn find() -> Result<Self> {
        let linker = first_line(Command::new("bpf-linker").arg("--version"))
            .with_context(|| format!("bpf-linker is missing; {ADVICE}"))?;
        let strip = find_strip().with_context(|| format!("llvm-strip is missing; {ADVICE}"))?;
        let (kind, rustc, sysroot) = find_compiler()?;
        let cargo_home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
            .context("neither CARGO_HOME nor a home directory is known")?;
        let versions = BTreeMap::from([("rustc".to_owned(), rustc), ("linker".to_owned(), linker)]);
        Ok(Self { kind, sysroot, cargo_home, strip, versions })
    }

    /// A cargo that builds with it.
    pub(super) fn cargo(&self) -> Command {
        match self.kind {
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]).env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
                command
            }
            Kind::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }
}

impl std::fmt::Display for Toolchain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let versions: Vec<&str> = self.versions.values().map(String::as_str).collect();
        formatter.write_str(&versions.join(", "))
    }
}

fn find_compiler() -> Result<(Kind, String, PathBuf)> {
    let nightly = |arguments: &[&str]| {
        first_line(Command::new("rustup").args(["run", "nightly", "rustc"]).args(arguments))
    };
    if let (Ok(sysroot), Ok(version)) = (nightly(&["--print", "sysroot"]), nightly(&["--version"]))
        && has_sources(Path::new(&sysroot))
    {
        return Ok((Kind::Nightly, version, sysroot.into()));
    }
    let debian = |arguments: &[&str]| first_line(Command::new(DEBIAN_RUSTC).args(arguments));
    if let (Ok(sysroot), Ok(version)) = (debian(&["--print", "sysroot"]), debian(&["--version"]))
        && Path::new(DEBIAN_CARGO).exists()
        && has_sources(Path::new(&sysroot))
    {
        return Ok((Kind::Debian, version, sysroot.into()));
    }
    bail!("no Rust compiler with the sources of its standard library was found; {ADVICE}")
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn find_strip() -> Option<PathBuf> {
    let versioned = (18..=30).rev().map(|version| format!("llvm-strip-{version}"));
    versioned
        .chain(["llvm-strip".to_owned()])
        .map(PathBuf::from)
        .find(|name| first_line(Command::new(name).arg("--version")).is_ok())
}

/// First line a command prints, when it succeeds.
fn first_line(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
