//! The workspace's folders, cargo, and the programs it builds.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs this command, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata says")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(directory.into())
}

/// The release programs.
pub(crate) struct Programs {
    directory: PathBuf,
}

/// The command that builds the programs a user runs.
pub(crate) fn release_build() -> Command {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "dataplane", "--package", "bench"]);
    command
}

/// Builds the release programs, with cargo's own progress on standard error.
pub(crate) fn build_release() -> Result<Programs> {
    eprintln!("building dataplane and bench (release) ...");
    let status = release_build().stdin(Stdio::null()).status().context("cannot run cargo build")?;
    if !status.success() {
        bail!("the release build failed ({status}); `cargo xtask setup` installs what it needs");
    }
    Programs::find()
}

impl Programs {
    /// Where they were built.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { directory: target_directory()?.join("release") })
    }

    /// True when it was built.
    pub(crate) fn has(&self, program: &str) -> bool {
        self.directory.join(program).is_file()
    }

    /// Becomes one of them: signals and the exit code are its own.
    pub(crate) fn exec(&self, program: &str, arguments: Vec<OsString>) -> Result<()> {
        let path = self.directory.join(program);
        let error = Command::new(&path).args(arguments).exec();
        Err(error).with_context(|| format!("cannot run {}", path.display()))
    }

    /// A command for one of them.
    pub(crate) fn command(&self, program: &str) -> Command {
        Command::new(self.directory.join(program))
    }
}
