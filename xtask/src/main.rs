//! `cargo xtask`: set-up, build, demo, test and bench commands. It needs nothing but the Rust toolchain, so that
//! it builds on a bare machine; what links C libraries lives in `dataplane` and `bench`, which it calls.

mod build_ebpf;
mod cargo;
mod licences;
mod packages;
mod setup;
mod steps;
mod suite;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Sets up, builds, demonstrates, tests and measures the data plane.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs what is missing on this machine, and says why for each package.
    #[command(after_help = "Example: cargo xtask setup --profile demo")]
    Setup {
        /// What the machine is to be ready for.
        #[arg(long, value_enum, default_value = "all")]
        profile: setup::Profile,
    },
    /// Builds the XDP program from source.
    #[command(after_help = "Example: cargo xtask build-ebpf --check")]
    BuildEbpf {
        /// Compares the result with the object kept in git instead of replacing that.
        #[arg(long)]
        check: bool,
    },
    /// Attaches the steering program and pins it under bpffs, for a daemon to adopt.
    #[command(
        after_help = "Example: cargo xtask load --interface eth1\nArguments go to `dataplane steer load`."
    )]
    Load(Passed),
    /// Detaches what `load` attached and removes its pins.
    #[command(
        after_help = "Example: cargo xtask unload --interface eth1\nArguments go to `dataplane steer unload`."
    )]
    Unload(Passed),
    /// Asks the kernel about the steering program: programs, links, maps, runs, nanoseconds a packet.
    #[command(after_help = "Example: cargo xtask status --json\nArguments go to `dataplane steer status`.")]
    Status(Passed),
    /// Serves real items past the kernel's stack on this machine alone, and proves it.
    #[command(after_help = "Example: sudo -E env \"PATH=$PATH\" cargo xtask demo --seconds 10 --json")]
    Demo {
        /// Seconds of load.
        #[arg(long)]
        seconds: Option<f64>,
        /// Prints one JSON object on the last line of standard output.
        #[arg(long)]
        json: bool,
    },
    /// Runs every test there is, privileged ones included.
    #[command(after_help = "Example: sudo -E env \"PATH=$PATH\" cargo xtask test --quick")]
    Test {
        /// 5 seconds for each fuzz target instead of 20; everything else runs as ever.
        #[arg(long)]
        quick: bool,
        /// Steps to run, by the first word of their names; all of them without this.
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
    },
    /// Measures: `bench udp`, `bench tcp` and whatever else `bench --help` names.
    #[command(
        after_help = "Example: sudo -E env \"PATH=$PATH\" cargo xtask bench tcp --quick --json\nArguments go to `bench`."
    )]
    Bench(Passed),
    /// Formatting, clippy, licences and, where cargo-deny is installed, advisories.
    #[command(after_help = "Example: cargo xtask lint")]
    Lint,
}

#[derive(Debug, Args)]
struct Passed {
    /// Passed on as they are; `-- --help` shows the called program's own help.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    // Wrong usage ends here with 2.
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup { profile } => setup::run(profile),
        Command::BuildEbpf { check } => {
            setup::run(setup::Profile::Ebpf)?;
            build_ebpf::run(check)
        }
        Command::Load(passed) => steer("load", passed),
        Command::Unload(passed) => steer("unload", passed),
        Command::Status(passed) => steer("status", passed),
        Command::Demo { seconds, json } => demo(seconds, json),
        Command::Test { quick, only } => suite::test(quick, &only),
        Command::Bench(passed) => bench(passed),
        Command::Lint => suite::lint(),
    }
}

fn steer(command: &str, passed: Passed) -> Result<()> {
    setup::run(setup::Profile::Build)?;
    let programs = cargo::build_release()?;
    let mut arguments: Vec<OsString> = vec!["steer".into(), command.into()];
    arguments.extend(passed.arguments);
    programs.exec("dataplane", arguments)
}

fn bench(passed: Passed) -> Result<()> {
    if asks_for_help(&passed.arguments) {
        // Help needs neither root nor a build; the program's own is shown where it was built.
        let programs = cargo::Programs::find()?;
        if programs.has("bench") {
            return programs.exec("bench", passed.arguments);
        }
        println!("{BENCH_HELP}");
        return Ok(());
    }
    setup::require_root("network namespaces, XDP and AF_XDP")?;
    setup::run(setup::Profile::Bench)?;
    let programs = cargo::build_release()?;
    programs.exec("bench", passed.arguments)
}

/// What can be said of `bench` before it is built.
const BENCH_HELP: &str = "\
Usage: cargo xtask bench <COMMAND>

Commands:
  udp   Compares raw AF_XDP reflection, the daemon and memcached over UDP
  tcp   Compares the daemon, past the kernel and over its sockets, with memcached, Redis and Valkey over TCP
  demo  Serves real items past the kernel's stack and proves it

Options of each are shown by `cargo xtask bench <COMMAND> --help` once `bench` is built:
  cargo build --release --package bench";

fn asks_for_help(arguments: &[OsString]) -> bool {
    let first = arguments.first();
    first.is_none_or(|first| first == "help")
        || arguments.iter().any(|argument| argument == "--help" || argument == "-h")
}

fn demo(seconds: Option<f64>, json: bool) -> Result<()> {
    setup::require_root("network namespaces, XDP and AF_XDP")?;
    setup::run(setup::Profile::Demo)?;
    let programs = cargo::build_release()?;
    let mut arguments: Vec<OsString> = vec!["demo".into()];
    if let Some(seconds) = seconds {
        arguments.extend(["--seconds".into(), seconds.to_string().into()]);
    }
    if json {
        arguments.push("--json".into());
    }
    programs.exec("bench", arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_asked_for_in_every_usual_way() {
        let asks =
            |line: &str| asks_for_help(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert!(asks("") && asks("help udp") && asks("udp --help") && asks("udp -h") && asks("--help"));
        assert!(!asks("udp --quick"));
    }
}
