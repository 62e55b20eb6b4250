//! The `bench` command.

use std::process::ExitCode;

use anyhow::Result;
use bench::{demo, tcp, udp};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use dataplane::testbed::signals;

/// Demonstrates and measures the data plane on one machine.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves real items past the kernel's stack and proves it.
    ///
    /// Example: bench demo --seconds 10 --json
    Demo {
        /// Seconds of load.
        #[arg(long, default_value_t = 6.0, value_parser = seconds)]
        seconds: f64,
        /// Prints one JSON object on the last line of standard output.
        #[arg(long)]
        json: bool,
    },
    /// Compares raw AF_XDP reflection, the daemon and memcached over UDP.
    ///
    /// Example: bench udp --quick --json
    Udp {
        /// One short pass there and back: shows that everything works, not how fast.
        #[arg(long)]
        quick: bool,
        /// Prints one JSON object on the last line of standard output.
        #[arg(long)]
        json: bool,
        /// Bytes of the daemon's table.
        #[arg(long, default_value = "1GiB")]
        capacity: String,
        /// Microseconds each server polls before it sleeps, in every setting. Without it, with one request under way
        /// as long as the daemon does by default, and above that not at all: there the server's core is shared with
        /// the NAPI thread that brings it packets, which a polling server would only keep from running.
        #[arg(long)]
        spin_us: Option<u32>,
        /// Passes over all systems; each second one goes backwards.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
        passes: u16,
        /// Seconds of each measured slot.
        #[arg(long, default_value_t = 2.0, value_parser = seconds)]
        slot_seconds: f64,
        /// Lets idle cores halt between requests; otherwise the kernel is asked to keep them awake, as booting with
        /// idle=poll would.
        #[arg(long)]
        cores_may_halt: bool,
        /// Leaves a system out; can be given more than once, but not for all three.
        #[arg(long, value_enum)]
        without: Vec<udp::System>,
    },
    /// Compares the daemon, past the kernel and over its sockets, with memcached, Redis and Valkey over TCP.
    ///
    /// Example: bench tcp --quick --json
    Tcp {
        /// One short pass with fewer rows: shows that everything works, not how fast.
        #[arg(long)]
        quick: bool,
        /// Only the rows that the ratios are made of.
        #[arg(long, conflicts_with = "quick")]
        ratios_only: bool,
        /// Prints one JSON object on the last line of standard output.
        #[arg(long)]
        json: bool,
        /// Bytes of the daemon's table.
        #[arg(long, default_value = "512MiB")]
        capacity: String,
        /// Passes over all systems; each second one goes backwards.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
        passes: u16,
        /// Seconds of each measured slot.
        #[arg(long, default_value_t = 1.0, value_parser = seconds)]
        slot_seconds: f64,
        /// Lets idle cores halt between requests; otherwise the kernel is asked to keep them awake, as booting with
        /// idle=poll would.
        #[arg(long)]
        cores_may_halt: bool,
        /// Leaves a system out; can be given more than once, but not for all of them.
        #[arg(long, value_enum)]
        without: Vec<tcp::System>,
        /// Has the generator's core run the packet processing of the generator's end, as a client's host would. Otherwise
        /// the server's core does, as part of what it sends, with every system alike.
        #[arg(long)]
        client_pays: bool,
        /// Measures nothing, but keeps one system (leave the others out) under load for so many seconds, to be looked
        /// at with perf.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        hold: Option<f64>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    signals::catch();
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
        Command::Demo { seconds, json } => demo::run(&demo::Options { seconds, json }),
        Command::Udp { quick, json, capacity, spin_us, passes, slot_seconds, cores_may_halt, without } => {
            let passes = usize::from(passes);
            let slot_s = slot_seconds;
            let options =
                udp::Options { quick, json, capacity, spin_us, passes, slot_s, cores_may_halt, without };
            if options.systems().is_empty() {
                no_system();
            }
            udp::run(&options)
        }
        Command::Tcp {
            quick,
            ratios_only,
            json,
            capacity,
            passes,
            slot_seconds,
            cores_may_halt,
            without,
            client_pays,
            hold,
        } => {
            let options = tcp::Options {
                quick,
                ratios_only,
                json,
                capacity,
                passes: usize::from(passes),
                slot_s: slot_seconds,
                cores_may_halt,
                without,
                client_pays,
                hold_s: hold,
            };
            if options.systems().is_empty() {
                no_system();
            }
            tcp::run(&options)
        }
    }
}

/// Ends as wrong usage does.
fn no_system() -> ! {
    Arguments::command().error(ErrorKind::ArgumentConflict, "--without leaves no system to measure").exit()
}

/// A length of time that makes sense for a load.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("give it 0.1 to 86400 seconds".to_owned())
    }
}
