//! What is measured under which conditions: who runs the server's NAPI, how long a server polls before it sleeps, how
//! many requests are under way.

use dataplane::config::Idle;

use crate::generator::OUTSTANDING_MAX;
use crate::host::napi::NapiBy;
use crate::workload::Operation;

/// What a setting shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Latency of one request at a time; each server polls as long before it sleeps.
    Unloaded,
    /// The same with servers that sleep at once: what is left without the polling.
    UnloadedWithoutSpin,
    /// Requests a second of a core that has all it can do.
    Saturating,
}

/// One set of conditions. Every system is started anew for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) stage: Stage,
    pub(super) napi: NapiBy,
    /// How long each server polls before it sleeps, in microseconds.
    pub(super) spin_us: u32,
    pub(super) operations: &'static [Operation],
    /// Requests under way.
    pub(super) outstandings: &'static [usize],
}

/// Requests under way in each stage.
const ONE: &[usize] = &[1];
const MANY: &[usize] = &[64, 256];
const _: () = assert!(MANY[MANY.len() - 1] <= OUTSTANDING_MAX);
const BOTH: &[Operation] = &[Operation::Set, Operation::Get];

/// All conditions, with one polling time for all of them when one was asked for. Otherwise servers poll as long as
/// the daemon does by default where they have their core to themselves, and not at all where they share it with the
/// NAPI thread, which a polling server would only keep from bringing it packets (docs/operating.md).
pub(super) fn settings(spin_us: Option<u32>) -> Vec<Setting> {
    let unloaded = Setting {
        stage: Stage::Unloaded,
        napi: NapiBy::Sender,
        spin_us: spin_us.unwrap_or(spin_us_default()),
        operations: BOTH,
        outstandings: ONE,
    };
    let without_spin =
        Setting { stage: Stage::UnloadedWithoutSpin, spin_us: 0, operations: &[Operation::Get], ..unloaded };
    let saturating = Setting {
        stage: Stage::Saturating,
        napi: NapiBy::Thread,
        spin_us: spin_us.unwrap_or(0),
        operations: BOTH,
        outstandings: MANY,
    };
    let all = [unloaded, without_spin, saturating];
    // Where nobody polls anyway, that need not be measured twice.
    all.into_iter()
        .filter(|setting| setting.stage != Stage::UnloadedWithoutSpin || unloaded.spin_us > 0)
        .collect()
}

/// How long the daemon's worker polls before it sleeps, by default.
fn spin_us_default() -> u32 {
    match Idle::default() {
        Idle::Adaptive { spin_us } => spin_us,
        Idle::Busy => unreachable!("the default worker sleeps"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polling_time_that_was_asked_for_holds_everywhere() {
        let by_default: Vec<(Stage, u32)> =
            settings(None).iter().map(|setting| (setting.stage, setting.spin_us)).collect();
        let expected =
            [(Stage::Unloaded, spin_us_default()), (Stage::UnloadedWithoutSpin, 0), (Stage::Saturating, 0)];
        assert_eq!(by_default, expected);
        for setting in settings(Some(7)) {
            assert!(setting.spin_us == 7 || setting.stage == Stage::UnloadedWithoutSpin, "{setting:?}");
        }
        assert_eq!(settings(Some(0)).len(), 2, "nothing twice");
    }
}
