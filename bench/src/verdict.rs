//! Bounds, and whether what was measured pass by pass keeps to them.

use serde::Serialize;

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

/// Whether a bound is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// In every pass.
    Reached,
    /// In none.
    NotReached,
    /// In some, or a row it is made of is a bound itself.
    Undecided,
}

impl Target {
    /// True when this ratio keeps to it.
    #[must_use]
    pub fn kept_by(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound:.2}"),
            Self::AtMost(bound) => write!(f, "<= {bound:.2}"),
        }
    }
}

impl Verdict {
    /// Of a ratio's passes; undecided where a row that it is made of is `bounded` itself.
    #[must_use]
    pub fn of(passes: &[f64], target: Target, bounded: bool) -> Self {
        match passes.iter().filter(|&&ratio| target.kept_by(ratio)).count() {
            _ if bounded => Self::Undecided,
            0 => Self::NotReached,
            kept if kept == passes.len() => Self::Reached,
            _ => Self::Undecided,
        }
    }

    /// In words; `why` it is undecided.
    #[must_use]
    pub fn told(self, why: Option<&str>) -> String {
        match self {
            Self::Reached => "reached in every pass".to_owned(),
            Self::NotReached => "not reached in any pass".to_owned(),
            Self::Undecided => format!("undecided: {}", why.unwrap_or("unknown")),
        }
    }
}

/// Why a ratio is undecided whose rows are all in order.
pub const BOTH_SIDES: &str = "the passes lie on both sides of it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_some_passes_keep_is_undecided() {
        let least = Target::AtLeast(2.0);
        assert_eq!(Verdict::of(&[2.0, 2.5], least, false), Verdict::Reached);
        assert_eq!(Verdict::of(&[1.9, 1.0], least, false), Verdict::NotReached);
        assert_eq!(Verdict::of(&[1.9, 2.0], least, false), Verdict::Undecided);
        assert_eq!(Verdict::of(&[2.0, 2.5], least, true), Verdict::Undecided);
        assert_eq!(Verdict::of(&[0.5], Target::AtMost(0.5), false), Verdict::Reached);
        assert!(Verdict::Undecided.told(Some(BOTH_SIDES)).contains("both sides"));
    }
}
