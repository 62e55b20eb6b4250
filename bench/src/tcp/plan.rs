//! What is measured under which conditions.

use dataplane::config::Idle;

use crate::host::napi::NapiBy;
use crate::streams::{Pace, VALUE_BYTES_MAX};
use crate::workload::{Operation, VALUE_BYTES};

/// What a stage shows. Every system is started anew for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Latency of one request at a time; each server polls as long before it sleeps, and the generator's core runs the
    /// server's NAPI.
    Unloaded,
    /// Requests a second of a core that has all it can do; servers sleep at once.
    Saturating,
    /// Latency at the same rate for all, half of what the best peer can do.
    EqualLoad,
    /// What `redis-benchmark` says, from the kernel's sockets.
    Stock,
}

/// Which rows are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    All,
    /// Those that ratios are made of.
    Ratios,
    /// A row with many connections is enough, and they are fewer.
    Quick,
}

/// One row's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) operation: Operation,
    pub(super) value_bytes: usize,
    pub(super) connections: usize,
    /// Requests under way on each connection.
    pub(super) pipeline: usize,
    /// Requests under way on all of them together, where that is less than each can have.
    pub(super) under_way: Option<usize>,
}

/// Both sizes of values.
pub(super) const VALUES: [usize; 2] = [VALUE_BYTES, VALUE_BYTES_MAX];
/// Set before get: what is stored is found.
const BOTH: [Operation; 2] = [Operation::Set, Operation::Get];
/// Connections of the main rows.
const CONNECTIONS: [usize; 3] = [1, 50, 1_000];
/// Requests under way on each connection.
const PIPELINES: [usize; 2] = [1, 16];

/// Connections whose costs a request are compared.
pub(super) const FEW: usize = 100;
const MANY: usize = 10_000;
const MANY_QUICK: usize = 1_000;

/// The row that most ratios are of: unpipelined, as most clients are.
pub(super) const BASE: Case = Case {
    operation: Operation::Get,
    value_bytes: VALUE_BYTES,
    connections: 50,
    pipeline: 1,
    under_way: None,
};

impl Case {
    /// Requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.unwrap_or(self.connections * self.pipeline)
    }

    /// How the generator goes about it.
    pub(super) fn pace(&self) -> Pace {
        match self.under_way {
            Some(under_way) => Pace::Rotating { under_way },
            None => Pace::Closed { pipeline: self.pipeline },
        }
    }
}

/// Connections of the row with most of them.
pub(super) const fn many(extent: Extent) -> usize {
    match extent {
        Extent::All | Extent::Ratios => MANY,
        Extent::Quick => MANY_QUICK,
    }
}

/// Rows of a stage.
pub(super) fn cases(stage: Stage, extent: Extent) -> Vec<Case> {
    let base_at = |connections, under_way| Case { connections, under_way, ..BASE };
    let rows = main_rows(extent).into_iter();
    match stage {
        Stage::Unloaded => rows.filter(|case| case.under_way() == 1).collect(),
        Stage::Saturating => {
            let mut cases: Vec<Case> = rows.filter(|case| case.under_way() > 1).collect();
            // Of most connections each has its request under way, or no more of them than there are few: each of those has
            // been silent for longest.
            for case in [base_at(FEW, None), base_at(many(extent), None), base_at(many(extent), Some(FEW))] {
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
            cases
        }
        Stage::EqualLoad => vec![BASE],
        Stage::Stock if extent == Extent::Ratios => Vec::new(),
        Stage::Stock => rows.filter(|case| case.connections == BASE.connections).collect(),
    }
}

/// Operations, values, connections and pipelines, each with each, as far as they are wanted.
fn main_rows(extent: Extent) -> Vec<Case> {
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        for pipeline in PIPELINES {
            for value_bytes in VALUES {
                for operation in BOTH {
                    rows.push(Case { operation, value_bytes, connections, pipeline, under_way: None });
                }
            }
        }
    }
    rows.retain(|row| match extent {
        Extent::All => true,
        Extent::Ratios => *row == BASE,
        Extent::Quick => {
            row.connections <= BASE.connections || Case { connections: BASE.connections, ..*row } == BASE
        }
    });
    rows
}

impl Stage {
    /// Who runs the server's NAPI.
    pub(super) const fn napi(self) -> NapiBy {
        match self {
            Self::Unloaded => NapiBy::Sender,
            Self::Saturating | Self::EqualLoad | Self::Stock => NapiBy::Thread,
        }
    }

    /// How long each server polls before it sleeps, in microseconds: as long as the daemon does by default where it has
    /// its core to itself, and not at all where it shares that with the NAPI thread (docs/operating.md).
    pub(super) fn spin_us(self) -> u32 {
        match (self, Idle::default()) {
            (Self::Unloaded, Idle::Adaptive { spin_us }) => spin_us,
            _ => 0,
        }
    }

    /// As reports name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Saturating => "saturating",
            Self::EqualLoad => "equal load",
            Self::Stock => "redis-benchmark",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_row_once() {
        let all = [cases(Stage::Unloaded, Extent::All), cases(Stage::Saturating, Extent::All)].concat();
        assert_eq!(all.len(), 2 * 2 * 3 * 2 + 3);
        for (index, case) in all.iter().enumerate() {
            assert!(!all[..index].contains(case), "{case:?} twice");
        }
        for extent in [Extent::All, Extent::Ratios, Extent::Quick] {
            let saturating = cases(Stage::Saturating, extent);
            let case = |connections, under_way| Case { connections, under_way, ..BASE };
            for case in [BASE, case(FEW, None), case(many(extent), None), case(many(extent), Some(FEW))] {
                assert!(saturating.contains(&case), "{case:?}, {extent:?}");
            }
            assert!(cases(Stage::EqualLoad, extent).contains(&BASE));
        }
        assert_eq!(cases(Stage::Unloaded, Extent::Ratios), []);
        assert!(cases(Stage::Unloaded, Extent::All).iter().all(|case| case.under_way() == 1));
        assert_eq!((Stage::Unloaded.spin_us() > 0, Stage::Saturating.spin_us()), (true, 0));
    }
}
