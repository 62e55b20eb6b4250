//! The command line: one file a command. Errors go to standard error with exit code 1; wrong usage is 2.

mod check;
mod doctor;
mod plan;
mod run;
mod sentinel;
mod status;
mod steer;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dataplane::config::{self, Config, ConfigErrors};
use dataplane::daemon::Daemon;

/// Serves memory and storage requests past the kernel's network stack, while the kernel keeps the NIC.
#[derive(Parser)]
#[command(
    name = "dataplane",
    version,
    arg_required_else_help = true,
    propagate_version = true,
    after_help = "Example:\n  dataplane check --config /etc/dataplane/dataplane.toml    # is the file right?\n  \
                  dataplane doctor --config /etc/dataplane/dataplane.toml   # can this host run it?\n  \
                  dataplane run --config /etc/dataplane/dataplane.toml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT; a second one ends at once. Without a configuration file it serves memcached on
    /// 127.0.0.1:11211 (UDP and TCP) and RESP on 127.0.0.1:6379 over ordinary sockets, which takes no privilege.
    #[command(after_help = "Example:\n  dataplane run\n  \
                            dataplane run --set listen.memcached=127.0.0.1:21211 --set listen.resp=127.0.0.1:16379\n  \
                            dataplane run --config /etc/dataplane/dataplane.toml")]
    Run(run::Arguments),
    /// Reports every error in a configuration file at once.
    #[command(after_help = "Example:\n  dataplane check --config /etc/dataplane/dataplane.toml")]
    Check(check::Arguments),
    /// Shows which worker would serve which queue on which core, without touching anything.
    #[command(after_help = "Example:\n  dataplane plan --config /etc/dataplane/dataplane.toml --json")]
    Plan(plan::Arguments),
    /// Says what this host lacks, and the command that mends it; exit code 1 when something required is missing.
    #[command(after_help = "Example:\n  dataplane doctor --config /etc/dataplane/dataplane.toml")]
    Doctor(doctor::Arguments),
    /// Shows what a running daemon does.
    #[command(after_help = "Example:\n  dataplane status --admin 127.0.0.1:9190 --json")]
    Status(status::Arguments),
    /// Loads, unloads or shows the XDP program by itself, for a daemon to adopt.
    #[command(after_help = "Example:\n  dataplane steer load --config /etc/dataplane/dataplane.toml")]
    Steer(steer::Arguments),
    /// Started by `run` alone: answers while the daemon is stopped.
    #[command(hide = true)]
    Sentinel,
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file (TOML; see dataplane.example.toml).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Steer(arguments) => steer::steer(&arguments),
        Command::Sentinel => sentinel::sentinel(),
    };
    outcome.unwrap_or_else(|error| {
        // `{:#}` joins an error with its causes in one line.
        let _ = writeln!(io::stderr(), "dataplane: {error:#}");
        ExitCode::FAILURE
    })
}

/// Reads a configuration for the services that this daemon has.
fn load(file: &Path) -> Result<Config, ConfigErrors> {
    config::load_for(file, &Daemon::new().registry().names().collect::<Vec<_>>())
}

/// The configuration of a file, or else what is built in, with values from the command line.
fn load_or_builtin(file: Option<&Path>, assignments: &[String]) -> Result<Config, ConfigErrors> {
    config::load_with(file, &Daemon::new().registry().names().collect::<Vec<_>>(), assignments)
}

/// Prints to standard output. A reader that has gone (`dataplane status | head -1`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
