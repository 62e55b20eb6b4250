//! `bench tcp`: this daemon past the kernel and over its sockets, memcached, Redis and Valkey, in alternating rounds on
//! one veth pair, asked over TCP.
//!
//! The generator has one core, the server the other. The server's NAPI runs in a thread pinned to the server's core, so
//! that the server pays for its packets, and that core is the one that saturates; where it does not, the row says so.
//! Requests are counted by the time that the server's threads took, this NAPI among them.

mod config;
mod hold;
mod plan;
mod provenance;
mod ratios;
mod report;
mod rig;
mod row;
mod stock;
mod systems;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dataplane::testbed::{daemon, requirements, signals};

use crate::hiccup::Gaps;
use crate::host::awake::Awake;
use crate::streams::{Dialect, Keys, Load, Pace, Shape};
use crate::workload::Operation;
use plan::{Case, Extent, Stage, VALUES, cases};
pub use provenance::{Parameters, Provenance};
pub use ratios::{Ratio, Ratios};
pub use report::Report;
pub use rig::Losses;
use rig::{Bed, Rig, warm_up};
pub use row::Row;
use row::{Figures, Sample};
pub use systems::System;
use systems::{Running, port};

/// Keys of each size of value, stored before anything is measured.
const KEYS: u32 = 100_000;
/// The same of a quick run.
const KEYS_QUICK: u32 = 10_000;
/// Passes of a quick run, and the length of its slots.
const QUICK_PASSES: usize = 1;
const QUICK_SLOT: Duration = Duration::from_millis(50);
/// Connections and pipeline by which keys are stored.
const PRELOAD_CONNECTIONS: usize = 16;
const PRELOAD_PIPELINE: usize = 16;
/// Share of the best peer's peak that is the same load for all.
const EQUAL_LOAD: f64 = 0.5;

/// What the suite is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// One short pass with fewer rows: shows that everything works, not how fast.
    pub quick: bool,
    /// Only the rows that ratios are made of.
    pub ratios_only: bool,
    /// One JSON object on the last line of standard output, and nothing else there.
    pub json: bool,
    /// Bytes of arena, as the daemon's configuration has them.
    pub capacity: String,
    /// Passes over all systems; each second one goes backwards.
    pub passes: usize,
    /// Seconds of each measured slot.
    pub slot_s: f64,
    /// Lets idle cores halt, as they do by default.
    pub cores_may_halt: bool,
    /// Systems left out.
    pub without: Vec<System>,
    /// The generator's core runs the NAPI of the generator's end, as a client's host would; otherwise the server's core
    /// does, within what it sends.
    pub client_pays: bool,
    /// Instead of measuring, keeps one system under load for so many seconds, to be looked at.
    pub hold_s: Option<f64>,
}

impl Options {
    /// Systems that are asked for, in the order of the first pass.
    #[must_use]
    pub fn systems(&self) -> Vec<System> {
        System::ALL.into_iter().filter(|system| !self.without.contains(system)).collect()
    }

    fn extent(&self) -> Extent {
        match (self.quick, self.ratios_only) {
            (true, _) => Extent::Quick,
            (false, true) => Extent::Ratios,
            (false, false) => Extent::All,
        }
    }

    fn passes(&self) -> usize {
        if self.quick { QUICK_PASSES } else { self.passes }
    }

    fn slot(&self) -> Duration {
        if self.quick { QUICK_SLOT } else { Duration::from_secs_f64(self.slot_s) }
    }

    fn keys(&self) -> u32 {
        if self.quick { KEYS_QUICK } else { KEYS }
    }
}

/// Runs the suite and prints its report.
///
/// # Errors
/// What is missing on this host, what failed, or that a reply was wrong.
pub fn run(options: &Options) -> Result<()> {
    requirements::check()?;
    let binary = daemon::find_binary()?;
    requirements::open_files((systems::CONNECTIONS + systems::FILES_BESIDE) as u64)?;
    let (systems, unavailable) = available(options, &binary)?;
    if let Some(seconds) = options.hold_s {
        return hold::hold(options, binary, &systems, Duration::from_secs_f64(seconds));
    }
    let report = Suite::new(options, binary, systems, unavailable)?.measure()?;
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

/// Systems that this host can run; and the others, each with the reason.
fn available(options: &Options, binary: &std::path::Path) -> Result<(Vec<System>, Vec<String>)> {
    let mut unavailable = Vec::new();
    let mut systems = Vec::new();
    for system in options.systems() {
        match system.lacks(binary)? {
            None => systems.push(system),
            Some(reason) => {
                eprintln!("{} is not measured: {reason}", system.name());
                unavailable.push(format!("{}: {reason}", system.name()));
            }
        }
    }
    if systems.is_empty() {
        bail!("there is nothing to measure");
    }
    Ok((systems, unavailable))
}

/// A run of the suite.
struct Suite<'a> {
    options: &'a Options,
    rig: Rig,
    /// Another pair for `redis-benchmark`, whose end has no XDP program that its packets would have to pass.
    stock: Option<Bed>,
    systems: Vec<System>,
    provenance: Provenance,
    samples: Vec<Sample>,
    start: Instant,
}

impl<'a> Suite<'a> {
    fn new(
        options: &'a Options,
        binary: PathBuf,
        systems: Vec<System>,
        unavailable: Vec<String>,
    ) -> Result<Self> {
        let wanted = !cases(Stage::Stock, options.extent()).is_empty();
        let stock = if !wanted {
            None
        } else if stock::is_there() {
            Some(Bed::create(binary.clone(), options.capacity.clone())?)
        } else {
            eprintln!("redis-benchmark is not on PATH (apt-get install redis-tools): its rows are left out");
            None
        };
        let rig = Rig::create(Bed::create(binary, options.capacity.clone())?, options.client_pays)?;
        let mut provenance = Provenance::gather(options, rig.bed.cores());
        provenance.unavailable = unavailable;
        Ok(Self { options, rig, stock, systems, provenance, samples: Vec::new(), start: Instant::now() })
    }

    fn measure(mut self) -> Result<Report> {
        let awake = if self.options.cores_may_halt { Awake::leave() } else { Awake::keep() };
        awake.told().clone_into(&mut self.provenance.machine.idle_cores);
        for warning in self.provenance.warnings() {
            eprintln!("warning: {warning}");
        }
        let mut order = self.systems.clone();
        for pass in 0..self.options.passes() {
            for stage in [Stage::Unloaded, Stage::Saturating, Stage::EqualLoad] {
                let offered = if stage == Stage::EqualLoad { self.equal_load(pass) } else { None };
                if stage == Stage::EqualLoad && offered.is_none() {
                    eprintln!("without a peer there is no load that is equal: its rows are left out");
                    continue;
                }
                for &system in &order {
                    self.stage(pass, stage, system, offered)?;
                }
            }
            if self.stock.is_some() {
                for &system in order.iter().filter(|system| system.dialects().contains(&Dialect::Resp)) {
                    self.progress(pass, Stage::Stock, system);
                    self.stock(pass, system)?;
                }
            }
            order.reverse();
        }
        self.provenance.peers_refused.clone_from(&self.rig.bed.refused);
        Ok(Report::new(&self.samples, self.provenance))
    }

    fn progress(&self, pass: usize, stage: Stage, system: System) {
        let seconds = self.start.elapsed().as_secs();
        eprintln!(
            "{seconds:>5} s: pass {} of {}, {}: {}",
            pass + 1,
            self.options.passes(),
            stage.name(),
            system.name()
        );
    }

    /// Half of what the best peer did in this pass, in requests a second.
    fn equal_load(&self, pass: usize) -> Option<f64> {
        let peaks = self.samples.iter().filter(|sample| {
            let of_peer = sample.system.is_peer() && sample.stage == Stage::Saturating;
            of_peer && sample.pass == pass && sample.case == plan::BASE
        });
        let peak = peaks.map(|sample| sample.figures.rate).max_by(f64::total_cmp)?;
        Some(peak * EQUAL_LOAD)
    }

    /// Every slot of one system in one stage.
    fn stage(&mut self, pass: usize, stage: Stage, system: System, offered: Option<f64>) -> Result<()> {
        let cases = cases(stage, self.options.extent());
        if cases.is_empty() {
            return Ok(());
        }
        self.progress(pass, stage, system);
        let mut running = self.rig.bed.start(system, stage)?;
        let done = self.slots(pass, stage, &mut running, &cases, offered);
        if let Err(error) = done {
            return Err(error.context(running.last_words()));
        }
        running.stop()
    }

    fn slots(
        &mut self,
        pass: usize,
        stage: Stage,
        running: &mut Running,
        cases: &[Case],
        offered: Option<f64>,
    ) -> Result<()> {
        if let Some(mode) = running.mode(self.rig.bed.server_side())? {
            self.provenance.af_xdp_mode = Some(mode);
        }
        let keys = self.options.keys();
        preload(&mut self.rig, running, keys)?;
        for &dialect in running.system.dialects() {
            let mut connections = 0;
            for case in cases {
                if case.connections != connections {
                    self.rig.disconnect()?;
                    self.rig.connect(case.connections, port(dialect))?;
                    connections = case.connections;
                }
                let sample = self.slot(pass, stage, running, dialect, case, offered).with_context(|| {
                    let Case { operation, value_bytes, connections, pipeline, .. } = *case;
                    format!(
                        "{} {}, {} of {value_bytes} bytes, {connections} connections, pipeline {pipeline}",
                        running.system.name(),
                        dialect.name(),
                        operation.name()
                    )
                })?;
                self.samples.push(sample);
            }
            self.rig.disconnect()?;
        }
        Ok(())
    }

    fn slot(
        &mut self,
        pass: usize,
        stage: Stage,
        running: &mut Running,
        dialect: Dialect,
        case: &Case,
        offered: Option<f64>,
    ) -> Result<Sample> {
        let length = self.options.slot();
        let gaps = self.watch_gaps(length)?;
        let pace = offered.map_or(case.pace(), |rate| Pace::Open { rate });
        let load = load(dialect, case, self.options.keys(), pace, length);
        let (outcome, times, losses) = self.rig.measure(running, &load)?;
        if signals::caught() {
            bail!("interrupted; everything is cleaned up");
        }
        let (system, figures) = (running.system, Figures::from(&outcome));
        Ok(Sample { pass, stage, system, dialect, case: *case, offered, figures, times, losses, gaps })
    }

    /// The machine's own gaps, and this thread back on its core.
    fn watch_gaps(&self, length: Duration) -> Result<Gaps> {
        let gaps = Gaps::watch(&self.rig.bed.cores(), length / 8)?;
        dataplane::testbed::cpu::pin_this_thread(self.rig.bed.generator_core)?;
        Ok(gaps)
    }

    /// Every slot of `redis-benchmark`.
    fn stock(&mut self, pass: usize, system: System) -> Result<()> {
        let length = self.options.slot();
        let Some(bed) = &mut self.stock else { return Ok(()) };
        let mut running = bed.start(system, Stage::Stock)?;
        for case in cases(Stage::Stock, self.options.extent()) {
            let gaps = Gaps::watch(&bed.cores(), length / 8)?;
            let measured = stock::measure(bed, &mut running, &case, length);
            let (figures, times, losses) = measured.map_err(|error| error.context(running.last_words()))?;
            let (stage, dialect, offered) = (Stage::Stock, Dialect::Resp, None);
            self.samples.push(Sample {
                pass,
                stage,
                system,
                dialect,
                case,
                offered,
                figures,
                times,
                losses,
                gaps,
            });
        }
        running.stop()
    }
}

/// Stores every key with both sizes of values, and is sure that each was.
fn preload(rig: &mut Rig, running: &Running, keys: u32) -> Result<()> {
    let dialect = running.system.dialects()[0];
    rig.connect(PRELOAD_CONNECTIONS, port(dialect))?;
    for value_bytes in VALUES {
        let case = Case { operation: Operation::Set, value_bytes, ..plan::BASE };
        let pace = Pace::Closed { pipeline: PRELOAD_PIPELINE };
        let mut load = load(dialect, &case, keys, pace, Duration::ZERO);
        load.keys.each_once = true;
        let outcome =
            rig.run(&load).with_context(|| format!("store {keys} values of {value_bytes} bytes"))?;
        if signals::caught() {
            bail!("interrupted; everything is cleaned up");
        }
        if outcome.missing > 0 || outcome.replies != u64::from(keys) {
            bail!("storing {keys} items: {} replies, {} missing", outcome.replies, outcome.missing);
        }
    }
    rig.disconnect()
}

fn load(dialect: Dialect, case: &Case, keys: u32, pace: Pace, length: Duration) -> Load {
    let Case { operation, value_bytes, .. } = *case;
    // Each size has keys of its own.
    let first = if value_bytes == VALUES[0] { 0 } else { KEYS };
    Load {
        shape: Shape { dialect, operation, value_bytes },
        keys: Keys { first, count: keys, each_once: false },
        pace,
        warm_up: warm_up(length),
        length,
    }
}
