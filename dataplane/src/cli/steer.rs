//! `dataplane steer`: the XDP program by itself, pinned for a daemon with `attachment = "adopted"`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use dataplane::config::{self, Attachment, Config, DaemonConfig, XdpMode};
use dataplane::steer::inspect::SteerStatus;
use dataplane::steer::{self, LoadReport};

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
    Unload(Target),
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
        Action::Load(arguments) => load(arguments)?,
        Action::Unload(target) => unload(target)?,
        Action::Status(arguments) => status(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn load(arguments: &LoadArguments) -> anyhow::Result<()> {
    let mode = match arguments.mode {
        Mode::Auto => XdpMode::Auto,
        Mode::Native => XdpMode::Native,
        Mode::Generic => XdpMode::Generic,
    };
    let (chosen, daemon) = resolve(&arguments.target, mode)?;
    let mut reports: Vec<LoadReport> = Vec::new();
    for Chosen { interface, mode } in chosen {
        let report = steer::load(&interface, mode, daemon.steer_log, &[], &daemon.pin_directory)?;
        if !arguments.json {
            let LoadReport { program_id, mode, path, .. } = &report;
            super::print(&format!(
                "{interface}: program {program_id} attached in {mode} mode, pinned at {path}"
            ))?;
        }
        reports.push(report);
    }
    if arguments.json {
        super::print(&serde_json::to_string(&serde_json::json!({ "loaded": reports }))?)?;
    }
    Ok(())
}

fn unload(target: &Target) -> anyhow::Result<()> {
    let (chosen, daemon) = resolve(target, XdpMode::Auto)?;
    for Chosen { interface, .. } in chosen {
        steer::unload(&interface, &daemon.pin_directory)?;
        super::print(&format!("{interface}: detached and unpinned"))?;
    }
    Ok(())
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
            ("steer load", false),
            ("steer load --config a.toml --interface eth1", false),
            ("steer load --config a.toml --mode native", false),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), accepted, "{line}");
        }
    }

    #[test]
    fn a_log_level_is_the_daemons_own_when_only_interfaces_are_named() {
        let target = Target { config: None, interface: vec!["eth1".to_owned()], pin_directory: None };
        let (chosen, daemon) = resolve(&target, XdpMode::Native).expect("nothing to read");
        assert_eq!((chosen[0].interface.as_str(), chosen[0].mode), ("eth1", XdpMode::Native));
        assert_eq!(daemon.steer_log, SteerLogLevel::default());
    }
}
