//! `dataplane steer`: the XDP program by itself, pinned for a daemon with `attachment = "adopted"`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use dataplane::config::{self, Attachment, Config, DaemonConfig, XdpMode};
use dataplane::steer::inspect::SteerStatus;
use dataplane::steer::{self, LoadReport, SteerError};
use serde::Serialize;

/// Time for which `status` has the kernel count runs and nanoseconds.
const WINDOW_DEFAULT_MS: u64 = 1_000;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Attaches the program and pins it for a daemon to adopt; until one does, every packet goes to the kernel.
    #[command(after_help = "Example:\n  dataplane steer load --interface eth1 --mode native\n  \
                            dataplane steer load --config /etc/dataplane/dataplane.toml")]
    Load(LoadArguments),
    /// Detaches and unpins what `load` has pinned.
    #[command(after_help = "Example:\n  dataplane steer unload --interface eth1")]
    Unload(UnloadArguments),
    /// Asks the kernel: programs, links, maps, run count and nanoseconds per packet.
    #[command(after_help = "Example:\n  dataplane steer status --json")]
    Status(StatusArguments),
}

/// Which interfaces: those named, or the adopted ones of a configuration.
#[derive(Args)]
struct Target {
    /// The configuration file: all its interfaces with `attachment = "adopted"`.
    #[arg(long, value_name = "FILE", required_unless_present = "interface", conflicts_with = "interface")]
    config: Option<PathBuf>,
    /// An interface; may be given more than once.
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Where it is pinned: a directory on a bpffs, which is mounted if need be.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "config")]
    pin_directory: Option<PathBuf>,
}

#[derive(Args)]
struct LoadArguments {
    #[command(flatten)]
    target: Target,
    /// How the program runs; `auto` takes the generic hook where the driver has no native one.
    #[arg(long, value_enum, default_value_t, conflicts_with = "config")]
    mode: Mode,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct UnloadArguments {
    #[command(flatten)]
    target: Target,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StatusArguments {
    /// The configuration file, for its pin directory.
    #[arg(long, value_name = "FILE", conflicts_with = "pin_directory")]
    config: Option<PathBuf>,
    /// Where it is pinned; else the default place.
    #[arg(long, value_name = "DIRECTORY")]
    pin_directory: Option<PathBuf>,
    /// How long to count runs, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = WINDOW_DEFAULT_MS)]
    window_ms: u64,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Mode {
    #[default]
    Auto,
    Native,
    Generic,
}

/// One interface to load or unload.
struct Chosen {
    interface: String,
    mode: XdpMode,
}

pub(super) fn steer(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.action {
        Action::Load(arguments) => load(arguments),
        Action::Unload(arguments) => unload(arguments),
        Action::Status(arguments) => status(arguments).map(|()| ExitCode::SUCCESS),
    }
}

/// One interface that could not be loaded or unloaded.
#[derive(Serialize)]
struct Failure {
    interface: String,
    error: String,
}

/// Does something to each interface, whatever became of the others, and tells of each.
fn each<T: Serialize>(
    chosen: Vec<Chosen>,
    json: bool,
    done: &str,
    act: impl Fn(&Chosen) -> Result<T, SteerError>,
    tell: impl Fn(&T) -> String,
) -> anyhow::Result<ExitCode> {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for chosen in chosen {
        match act(&chosen) {
            Ok(report) => {
                if !json {
                    super::print(&tell(&report))?;
                }
                reports.push(report);
            }
            Err(error) => {
                let error = error.to_string();
                // Also beside JSON: whoever looks at the exit code reads this.
                let _ = writeln!(io::stderr(), "dataplane: {}: {error}", chosen.interface);
                failures.push(Failure { interface: chosen.interface, error });
            }
        }
    }
    if json {
        super::print(&serde_json::to_string(&serde_json::json!({ done: reports, "failed": failures }))?)?;
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(arguments: &LoadArguments) -> anyhow::Result<ExitCode> {
    let mode = match arguments.mode {
        Mode::Auto => XdpMode::Auto,
        Mode::Native => XdpMode::Native,
        Mode::Generic => XdpMode::Generic,
    };
    let (chosen, daemon) = resolve(&arguments.target, mode)?;
    let act = |Chosen { interface, mode }: &Chosen| {
        steer::load(interface, *mode, daemon.steer_log, &[], &daemon.pin_directory)
    };
    each(chosen, arguments.json, "loaded", act, |report| {
        let LoadReport { interface, program_id, mode, fallback, path } = report;
        let fallback = fallback.as_ref().map_or(String::new(), |reason| format!(" (native: {reason})"));
        format!("{interface}: program {program_id} attached in {mode} mode{fallback}, pinned at {path}")
    })
}

fn unload(arguments: &UnloadArguments) -> anyhow::Result<ExitCode> {
    let (chosen, daemon) = resolve(&arguments.target, XdpMode::Auto)?;
    let act = |Chosen { interface, .. }: &Chosen| {
        steer::unload(interface, &daemon.pin_directory).map(|()| interface.clone())
    };
    each(chosen, arguments.json, "unloaded", act, |interface| format!("{interface}: detached and unpinned"))
}

fn resolve(target: &Target, mode: XdpMode) -> anyhow::Result<(Vec<Chosen>, DaemonConfig)> {
    let Some(file) = &target.config else {
        let mut daemon = DaemonConfig::default();
        if let Some(directory) = &target.pin_directory {
            daemon.pin_directory.clone_from(directory);
        }
        let chosen = target.interface.iter().map(|name| Chosen { interface: name.clone(), mode });
        return Ok((chosen.collect(), daemon));
    };
    let Config { interfaces, daemon, .. } = config::load(file)?;
    let adopted = interfaces.into_iter().filter(|interface| interface.attachment == Attachment::Adopted);
    let chosen: Vec<Chosen> =
        adopted.map(|interface| Chosen { interface: interface.name, mode: interface.mode }).collect();
    ensure!(
        !chosen.is_empty(),
        "no interface of {} has attachment = \"adopted\"; the daemon attaches owned ones by itself",
        file.display()
    );
    Ok((chosen, daemon))
}

fn status(arguments: &StatusArguments) -> anyhow::Result<()> {
    let directory = match (&arguments.config, &arguments.pin_directory) {
        (Some(file), _) => config::load(file)?.daemon.pin_directory,
        (None, Some(directory)) => directory.clone(),
        (None, None) => DaemonConfig::default().pin_directory,
    };
    let status = steer::status(&directory, Duration::from_millis(arguments.window_ms))?;
    if arguments.json {
        return super::print(&serde_json::to_string(&status)?);
    }
    super::print(&text(&status))
}

/// The status as a person reads it.
fn text(status: &SteerStatus) -> String {
    use std::fmt::Write;

    let mut text = String::new();
    if status.programs.is_empty() {
        text.push_str("no steering program is loaded\n");
    }
    for program in &status.programs {
        let cost =
            program.ns_per_packet.map_or("no packet".to_owned(), |cost| format!("{cost:.0} ns a packet"));
        let _ = writeln!(
            text,
            "program {} (tag {}): {} runs, {cost} in the last {} ms",
            program.id, program.tag, program.run_count, program.window_ms
        );
        for link in &program.links {
            let interface = link.interface.clone().unwrap_or_else(|| format!("#{}", link.interface_index));
            let mode = link.mode.as_deref().unwrap_or("unknown");
            let _ = writeln!(text, "  link {} on {interface}, {mode}", link.id);
        }
        for (verdict, count) in program.verdicts.iter().filter(|(_, count)| **count > 0) {
            let _ = writeln!(text, "  {verdict:<28} {count}");
        }
        for map in &program.maps {
            let _ =
                writeln!(text, "  map {} {} ({}, {} entries)", map.id, map.name, map.kind, map.entries_max);
        }
    }
    for pinned in &status.pinned {
        let held = if pinned.held { "in use by a daemon" } else { "waiting for a daemon" };
        let _ = writeln!(text, "pinned at {} for {}: {held}", pinned.path, pinned.interface);
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use dataplane::config::SteerLogLevel;
    use dataplane::steer::AttachedMode;
    use dataplane::steer::inspect::Foreign;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_target_is_a_configuration_or_interfaces_but_one_of_them() {
        for (line, accepted) in [
            ("steer load --interface eth1", true),
            ("steer load --config a.toml", true),
            ("steer unload --interface eth1 --interface eth2", true),
            ("steer unload --interface eth1 --json", true),
            ("steer load", false),
            ("steer load --config a.toml --interface eth1", false),
            ("steer load --config a.toml --mode native", false),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), accepted, "{line}");
        }
    }

    /// The command lines in an error's text that are this command's.
    fn commands(text: &str) -> Vec<String> {
        let lines = text.split('`').skip(1).step_by(2).filter(|line| line.starts_with("dataplane "));
        lines.map(|line| line.trim_start_matches("dataplane ").to_owned()).collect()
    }

    #[test]
    fn commands_that_errors_name_are_this_programs() {
        let interface = || "eth1".to_owned();
        let usual = DaemonConfig::default().pin_directory;
        for directory in [usual.clone(), PathBuf::from("/sys/fs/bpf/elsewhere")] {
            let (attached, wanted) = (AttachedMode::Generic, AttachedMode::Native);
            for (error, count) in [
                (SteerError::NotLoaded { interface: interface(), directory: directory.clone() }, 1),
                (SteerError::AlreadyLoaded { interface: interface(), directory: directory.clone() }, 1),
                (SteerError::Detached { interface: interface(), directory: directory.clone() }, 2),
                (
                    SteerError::Layout {
                        interface: interface(),
                        directory: directory.clone(),
                        found: None,
                        needed: 2,
                    },
                    2,
                ),
                (
                    SteerError::ModeDiffers {
                        interface: interface(),
                        directory: directory.clone(),
                        attached,
                        wanted,
                    },
                    2,
                ),
            ] {
                let text = error.to_string();
                let commands = commands(&text);
                assert_eq!(commands.len(), count, "{text}");
                for command in commands {
                    let line = Cli::try_parse_from(command.split(' ')).unwrap_or_else(|error| {
                        panic!("{command}: {error}");
                    });
                    let (Action::Load(LoadArguments { target, .. })
                    | Action::Unload(UnloadArguments { target, .. })) = line.arguments.action
                    else {
                        panic!("{command} neither loads nor unloads");
                    };
                    let (chosen, daemon) = resolve(&target, XdpMode::Auto).expect("nothing to read");
                    assert_eq!((chosen[0].interface.as_str(), &daemon.pin_directory), ("eth1", &directory));
                }
            }
        }
        let foreign = Foreign {
            interface: interface(),
            program_id: 7,
            program_name: Some("steer".to_owned()),
            link_id: None,
        };
        let text = foreign.to_string();
        let [command] = &commands(&text)[..] else { panic!("{text}") };
        assert!(Cli::try_parse_from(command.split(' ')).is_ok(), "{command}");
    }

    #[test]
    fn a_log_level_is_the_daemons_own_when_only_interfaces_are_named() {
        let target = Target { config: None, interface: vec!["eth1".to_owned()], pin_directory: None };
        let (chosen, daemon) = resolve(&target, XdpMode::Native).expect("nothing to read");
        assert_eq!((chosen[0].interface.as_str(), chosen[0].mode), ("eth1", XdpMode::Native));
        assert_eq!(daemon.steer_log, SteerLogLevel::default());
    }
}
