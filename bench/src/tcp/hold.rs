//! One system kept under the load that most ratios are of, to be looked at with `perf`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dataplane::testbed::signals;

use super::plan::{BASE, Stage};
use super::rig::{Bed, Rig};
use super::systems::{System, port};
use super::{Options, load, preload};

/// How often it says how fast it goes.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn hold(options: &Options, binary: PathBuf, systems: &[System], length: Duration) -> Result<()> {
    let &[system] = systems else {
        bail!("only one system can be kept under load: leave the others out with --without");
    };
    let mut rig = Rig::create(Bed::create(binary, options.capacity.clone())?, options.client_pays)?;
    let mut running = rig.bed.start(system, Stage::Saturating)?;
    preload(&mut rig, &running, options.keys())?;
    let dialect = system.dialects()[0];
    rig.connect(BASE.connections, port(dialect))?;
    let core = rig.bed.server_core;
    eprintln!(
        "{} (process {}) is under load on core {core}: {} connections, one request under way on each. From another \
         terminal:\n  perf stat -C {core} -e cycles,instructions,cache-misses sleep 2\n  \
         perf record -C {core} -g -o /tmp/perf.data sleep 2 && perf report -i /tmp/perf.data --no-children",
        system.name(),
        running.pid(),
        BASE.connections
    );
    let end = Instant::now() + length;
    while Instant::now() < end && !signals::caught() {
        let slot = load(dialect, &BASE, options.keys(), BASE.pace(), REPORT_INTERVAL);
        let (outcome, times, _) = rig.measure(&mut running, &slot)?;
        eprintln!(
            "  {:.0} requests a second, {:.0} a server CPU-second; server's core {:.0}% busy: NAPI {:.0}%, user {:.0}%, \
             system {:.0}%; generator {:.0}%",
            outcome.rate(),
            outcome.replies as f64 / times.server_cpu_s,
            times.server_busy * 100.0,
            times.place.napi * 100.0,
            times.place.server_user * 100.0,
            times.place.server_system * 100.0,
            100.0 * outcome.worked.as_secs_f64() / outcome.elapsed.as_secs_f64()
        );
    }
    rig.disconnect()?;
    running.stop()
}
