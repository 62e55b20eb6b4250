//! Many seeds, or the one that failed.

use dataplane::port::sim::{Faults, Random};

const SEEDS: u64 = 200;

/// Runs the budget of seeds, or the one that `SIMULATION_SEED` names, with faults drawn from each.
pub(crate) fn run_all(
    faults: impl Fn(&mut Random) -> Faults,
    run: impl Fn(u64, Faults) -> Result<(), String>,
) {
    let chosen = std::env::var("SIMULATION_SEED").ok();
    let chosen = chosen.map(|seed| seed.parse::<u64>().expect("SIMULATION_SEED is a number"));
    let seeds = chosen.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let faults = faults(&mut Random::new(!seed));
        if let Err(failure) = run(seed, faults) {
            panic!("seed {seed}, {faults:?}: {failure}");
        }
    }
}
