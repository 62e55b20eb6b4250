//! `bench udp`: raw reflection, this daemon and memcached in alternating rounds on one veth rig.
//!
//! The generator has one core, the server the other. Both ends' NAPI run in threads pinned to their own side's
//! core, so that each side pays for its own packets, and the server's core is the one that saturates; where it
//! does not, the row says so.

mod awake;
mod report;
mod rig;
mod systems;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dataplane::testbed::{daemon, requirements, signals};

use crate::generator::{Keys, Load, OUTSTANDING_MAX, Outcome};
use crate::hiccup::Gaps;
use crate::workload::Operation;
use awake::Awake;
use report::Sample;
pub use report::{Ratios, Report, Row};
use rig::{NapiBy, Rig};
use systems::Running;
pub use systems::System;

/// Keys stored before anything is measured.
const KEYS: u32 = 100_000;
/// Requests under way, unloaded and up to saturation, and who runs the server's NAPI meanwhile.
const LOADS: [(NapiBy, &[usize]); 2] = [(NapiBy::Sender, &[1]), (NapiBy::Thread, &[64, 256])];
const _: () = assert!(LOADS[1].1[1] <= OUTSTANDING_MAX);

/// What the suite is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// One short pass there and back: shows that everything works, not how fast.
    pub quick: bool,
    /// One JSON object on the last line of standard output, and nothing else there.
    pub json: bool,
    /// Bytes of arena, as the daemon's configuration has them.
    pub capacity: String,
    /// How long the daemon's worker polls before it sleeps, in microseconds.
    pub spin_us: u32,
    /// Passes over all systems; each second one goes backwards.
    pub passes: usize,
    /// Seconds of each measured slot.
    pub slot_s: f64,
    /// Lets idle cores halt, as they do by default; see `awake`.
    pub cores_may_halt: bool,
    /// Systems left out.
    pub without: Vec<System>,
}

/// Runs the suite and prints its report.
///
/// # Errors
/// What is missing on this host, what failed, or that a reply was wrong.
pub fn run(options: &Options) -> Result<()> {
    requirements::check()?;
    requirements::program("memcached", "memcached")?;
    let binary =
        if options.without.contains(&System::Dataplane) { PathBuf::new() } else { daemon::find_binary()? };
    let samples = measure(options, binary)?;
    let report = Report::new(&samples);
    if options.json {
        println!("{}", serde_json::to_string(&report).context("write the report")?);
    } else {
        println!("{report}");
    }
    let problems = report.problems();
    if !problems.is_empty() {
        bail!("the figures do not count: {}", problems.join("; "));
    }
    Ok(())
}

fn measure(options: &Options, binary: PathBuf) -> Result<Vec<Sample>> {
    let mut rig = Rig::create(binary, options.capacity.clone(), options.spin_us)?;
    let _awake = if options.cores_may_halt { None } else { Some(Awake::keep(&rig.cores())?) };
    let mut order: Vec<System> = System::ALL.to_vec();
    order.retain(|system| !options.without.contains(system));
    let slot = Duration::from_secs_f64(if options.quick { 0.2 } else { options.slot_s });
    let passes = if options.quick { 2 } else { options.passes };
    let mut samples = Vec::new();
    for pass in 0..passes {
        for &system in &order {
            eprintln!("pass {} of {passes}: {}", pass + 1, system.name());
            for (napi, outstandings) in LOADS {
                let mut running = rig.start(system, napi)?;
                preload(&mut rig, &mut running)?;
                for operation in [Operation::Set, Operation::Get] {
                    for &outstanding in outstandings {
                        let gaps = Gaps::watch(&rig.cores(), slot / 4)?;
                        rig.pin_generator()?;
                        let load = load(system, operation, Keys::Random(KEYS), outstanding, slot);
                        let measured = rig.measure(&mut running, &load)?;
                        if signals::caught() {
                            bail!("interrupted; everything is cleaned up");
                        }
                        samples.push(Sample { system, operation, outstanding, measured, gaps });
                    }
                }
                running.stop()?;
            }
        }
        order.reverse();
    }
    Ok(samples)
}

/// Stores every key, and is sure that each was.
fn preload(rig: &mut Rig, running: &mut Running) -> Result<()> {
    let system = running.system();
    let load = load(system, Operation::Set, Keys::EachOnce(KEYS), 64, Duration::ZERO);
    let outcome: Outcome = rig.run(&load)?;
    if signals::caught() {
        bail!("interrupted; everything is cleaned up");
    }
    if outcome.wrong > 0 || outcome.missing > 0 || outcome.replies != u64::from(KEYS) {
        bail!(
            "storing {KEYS} items in {}: {} replies, {} wrong, {} missing{}",
            system.name(),
            outcome.replies,
            outcome.wrong,
            outcome.missing,
            running.last_words(),
        );
    }
    Ok(())
}

fn load(system: System, operation: Operation, keys: Keys, outstanding: usize, length: Duration) -> Load {
    let warm_up =
        if length.is_zero() { Duration::ZERO } else { (length / 4).min(Duration::from_millis(300)) };
    Load { operation, keys, outstanding, expect: system.expect(), warm_up, length }
}
