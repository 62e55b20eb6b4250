//! `build-ebpf`: builds the steering program from source into the object that is kept in git, so that users need no
//! eBPF toolchain; `--check` rebuilds it elsewhere and says whether the two hold the same instructions, map definitions and constants.
//!
//! ```text
//! ebpf/object/steer.bpf.o     the object: program, maps, BTF; no DWARF
//! ebpf/object/steer.bpf.txt   what it was built with, and the hash of what it loads
//! ```

mod elf;
mod toolchain;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use toolchain::Toolchain;

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "ebpf/object/steer.bpf.o";
const RECORD: &str = "ebpf/object/steer.bpf.txt";

/// Builds the object. With `check`, the one in git stays untouched and is compared with what was built.
///
/// The rebuilt object is left at `target/ebpf/steer.bpf.o` either way; tests load it in place of the one in git
/// when `DATAPLANE_EBPF_OBJECT` names it.
///
/// # Errors
/// When a tool is missing (the message names the commands that install it), the build fails, or, with `check`, the
/// instructions differ though the toolchain is the recorded one.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = workspace_root()?;
    let toolchain = Toolchain::find()?;
    println!("building the eBPF object with {toolchain}");
    let built = build(&root, &toolchain)?;
    let object = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let sections = elf::loaded_sections(&object).with_context(|| format!("reading {}", built.display()))?;
    let record = Record::new(&toolchain, &sections);
    if check {
        return compare(&root, &record);
    }
    let directory = root.join(OBJECT).parent().map(Path::to_path_buf).context("the object has a folder")?;
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    write(&root.join(OBJECT), &object)?;
    write(&root.join(RECORD), record.to_string().as_bytes())?;
    println!("{OBJECT}: {} bytes, {} instructions", object.len(), record.instructions);
    Ok(())
}

/// Compares what was built with what git has.
fn compare(root: &Path, built: &Record) -> Result<()> {
    let kept = fs::read(root.join(OBJECT)).with_context(|| format!("reading {OBJECT}"))?;
    let kept_sections = elf::loaded_sections(&kept).with_context(|| format!("reading {OBJECT}"))?;
    let text = fs::read_to_string(root.join(RECORD)).with_context(|| format!("reading {RECORD}"))?;
    let recorded = Record::parse(&text).with_context(|| format!("reading {RECORD}"))?;
    let kept_hash = elf::hash(&kept_sections);
    ensure!(
        recorded.hash == kept_hash,
        "{RECORD} does not belong to {OBJECT}: it says {:016x}, the object has {kept_hash:016x}; \
         run `cargo xtask build-ebpf` and commit both files",
        recorded.hash,
    );
    if built.hash == kept_hash {
        println!("{OBJECT} is what the source builds to ({} instructions)", built.instructions);
        return Ok(());
    }
    if built.tools != recorded.tools {
        println!("the instructions differ from {OBJECT}, which another toolchain built:");
        for (tool, version) in &recorded.tools {
            let here = built.tools.get(tool).map_or("none", String::as_str);
            if here != version {
                println!("  {tool}: recorded {version}, here {here}");
            }
        }
        println!("whether source and object belong together cannot be said here");
        return Ok(());
    }
    bail!(
        "{OBJECT} is not what the source builds to: {} instructions with hash {kept_hash:016x} in git, {} with \
         {:016x} from source, by the recorded toolchain; run `cargo xtask build-ebpf` and commit {OBJECT} and {RECORD}",
        recorded.instructions,
        built.instructions,
        built.hash,
    )
}

/// Builds, strips, and returns where the object is.
fn build(root: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let target_directory = root.join("target/ebpf");
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(root)
        .args(["build", "--release", "--locked", "--package", "dataplane-ebpf", "--bin", "steer"])
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(&target_directory)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(root, toolchain))
        // Variables of the cargo that runs us must not choose for the one we run.
        .env_remove("RUSTUP_TOOLCHAIN_SOURCE")
        .env_remove("RUSTFLAGS");
    execute(&mut cargo)?;
    let linked = target_directory.join(TARGET).join("release/steer");
    let stripped = target_directory.join("steer.bpf.o");
    // DWARF goes, BTF stays: the kernel, bpftool and the verifier's log read it.
    execute(Command::new(&toolchain.strip).arg("--strip-debug").arg(&linked).arg("-o").arg(&stripped))?;
    Ok(stripped)
}

/// What the program is built with. Version 3 of the instruction set has 32-bit arithmetic and jumps (Linux 5.1);
/// misaligned access reads an address in two loads in place of sixteen, on the machines whose kernel allows it (x86-64
/// and arm64 do).
const RUST_FLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--btf",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];

/// Flags that give the same object wherever the sources lie.
fn rust_flags(root: &Path, toolchain: &Toolchain) -> OsString {
    let mut flags = OsString::from(RUST_FLAGS.join("\u{1f}"));
    let mut remap = |from: &Path, to: &str| {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    remap(root, "");
    remap(&toolchain.cargo_home, "cargo");
    remap(&toolchain.sysroot, "rust");
    flags
}

/// What an object was built with, and a hash of its instructions.
struct Record {
    tools: BTreeMap<String, String>,
    instructions: usize,
    hash: u64,
}

impl Record {
    fn new(toolchain: &Toolchain, sections: &[elf::Loaded]) -> Self {
        Self {
            tools: toolchain.versions.clone(),
            instructions: sections.iter().map(elf::Loaded::instructions).sum(),
            hash: elf::hash(sections),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut fields: BTreeMap<String, String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut take =
            |name: &str| fields.remove(name).with_context(|| format!("there is no line `{name}: ...`"));
        let instructions = take("instructions")?.parse().context("`instructions` is not a number")?;
        let hash = u64::from_str_radix(&take("hash")?, 16).context("`hash` is not hexadecimal")?;
        Ok(Self { tools: fields, instructions, hash })
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::from("# Written by `cargo xtask build-ebpf`; `--check` compares with it.\n");
        for (tool, version) in &self.tools {
            writeln!(text, "{tool}: {version}")?;
        }
        writeln!(text, "instructions: {}", self.instructions)?;
        writeln!(text, "hash: {:016x}", self.hash)?;
        formatter.write_str(&text)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}

fn workspace_root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("xtask lies in the workspace")?;
    root.canonicalize().with_context(|| format!("looking for the workspace at {}", root.display()))
}
