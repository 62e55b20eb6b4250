//! `bench udp`: raw reflection, this daemon and memcached in alternating rounds on one veth rig.
//!
//! The generator has one core, the server the other. Both ends' NAPI run in threads pinned to their own side's
//! core, so that each side pays for its own packets, and the server's core is the one that saturates; where it
//! does not, the row says so.

mod provenance;
mod ratios;
mod report;
mod rig;
mod row;
mod settings;
mod survey;
mod systems;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dataplane::testbed::{daemon, requirements, signals};

use crate::generator::{Keys, Load, Outcome};
use crate::hiccup::Gaps;
use crate::host::awake::Awake;
use crate::workload::Operation;
pub use provenance::{Parameters, Provenance};
pub use ratios::{Details, Ratio, Ratios};
pub use report::Report;
use rig::Rig;
pub use row::Row;
use row::Sample;
use settings::{Setting, Stage};
pub use survey::Drops;
use systems::Running;
pub use systems::System;

/// Keys stored before anything is measured.
const KEYS: u32 = 100_000;
/// Passes of a quick run, there and back, and the length of its slots.
const QUICK_PASSES: usize = 2;
const QUICK_SLOT: Duration = Duration::from_millis(200);

/// What the suite is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// One short pass there and back: shows that everything works, not how fast.
    pub quick: bool,
    /// One JSON object on the last line of standard output, and nothing else there.
    pub json: bool,
    /// Bytes of arena, as the daemon's configuration has them.
    pub capacity: String,
    /// How long each server polls before it sleeps, in microseconds, in every setting. Without it, with one request
    /// under way as long as the daemon does by default, and above that not at all.
    pub spin_us: Option<u32>,
    /// Passes over all systems; each second one goes backwards.
    pub passes: usize,
    /// Seconds of each measured slot.
    pub slot_s: f64,
    /// Lets idle cores halt, as they do by default; see `awake`.
    pub cores_may_halt: bool,
    /// Systems left out.
    pub without: Vec<System>,
}

impl Options {
    /// Systems that are measured, in the order of the first pass.
    #[must_use]
    pub fn systems(&self) -> Vec<System> {
        System::ALL.into_iter().filter(|system| !self.without.contains(system)).collect()
    }

    fn passes(&self) -> usize {
        if self.quick { QUICK_PASSES } else { self.passes }
    }

    fn slot(&self) -> Duration {
        if self.quick { QUICK_SLOT } else { Duration::from_secs_f64(self.slot_s) }
    }
}

/// Runs the suite and prints its report.
///
/// # Errors
/// What is missing on this host, what failed, or that a reply was wrong.
pub fn run(options: &Options) -> Result<()> {
    requirements::check()?;
    let systems = options.systems();
    if systems.contains(&System::Memcached) {
        requirements::program("memcached", "memcached")?;
    }
    let binary = if systems.contains(&System::Dataplane) { daemon::find_binary()? } else { PathBuf::new() };
    let report = measure(options, binary)?;
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

fn measure(options: &Options, binary: PathBuf) -> Result<Report> {
    let mut rig = Rig::create(binary, options.capacity.clone())?;
    let awake = if options.cores_may_halt { Awake::leave() } else { Awake::keep() };
    let mut provenance = Provenance::gather(options, rig.cores());
    provenance.machine.idle_cores = awake.told().to_owned();
    for warning in provenance.warnings() {
        eprintln!("warning: {warning}");
    }
    let settings = settings::settings(options.spin_us);
    let mut order = options.systems();
    let mut samples = Vec::new();
    for pass in 0..options.passes() {
        for &system in &order {
            eprintln!("pass {} of {}: {}", pass + 1, options.passes(), system.name());
            for setting in &settings {
                let mut running = rig.start(system, setting)?;
                if let Some(mode) = running.mode(rig.server_side())? {
                    provenance.af_xdp_mode = Some(mode);
                }
                preload(&mut rig, &mut running)?;
                samples.extend(slots(&mut rig, &mut running, setting, pass, options.slot())?);
                running.stop()?;
            }
        }
        order.reverse();
    }
    provenance.memcached_refused = rig.refused();
    Ok(Report::new(&samples, provenance))
}

/// Every slot of one system in one setting.
fn slots(
    rig: &mut Rig,
    running: &mut Running,
    setting: &Setting,
    pass: usize,
    length: Duration,
) -> Result<Vec<Sample>> {
    let system = running.system();
    let mut samples = Vec::new();
    for &operation in setting.operations {
        for &outstanding in setting.outstandings {
            let gaps = Gaps::watch(&rig.cores(), length / 4)?;
            rig.pin_generator()?;
            let load = load(system, operation, Keys::Random(KEYS), outstanding, length);
            let mut measured = rig.measure(running, &load)?;
            if setting.stage == Stage::Saturating && !signals::caught() {
                measured.place.xdp_ns_per_packet = rig.xdp_ns_per_packet(running, &load)?;
            }
            if signals::caught() {
                bail!("interrupted; everything is cleaned up");
            }
            let Setting { stage, spin_us, .. } = *setting;
            samples.push(Sample { pass, stage, spin_us, system, operation, outstanding, measured, gaps });
        }
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
    // A late reply has stored its item as well.
    let stored = outcome.replies + outcome.late;
    if outcome.wrong > 0 || outcome.missing > 0 || stored != u64::from(KEYS) {
        bail!(
            "storing {KEYS} items in {}: {stored} replies, {} wrong, {} missing{}",
            system.name(),
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
