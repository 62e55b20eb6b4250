//! Sizes with a unit: `"64KiB"`.

/// Units, largest first. Only powers of two: `1GB` would leave open which of two it is.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a size; the error says what is wrong with it.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let Ok(number) = number.replace('_', "").parse::<u64>() else {
        return Err(format!("{text:?} is not a size; write it like \"64KiB\" or \"1GiB\""));
    };
    let Some(&(_, factor)) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        return Err(match unit {
            "" => format!("{text:?} has no unit; write it like \"{number}MiB\""),
            _ => format!("{unit:?} is not a unit; the units are B, KiB, MiB, GiB and TiB"),
        });
    };
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is larger than any memory"))
}

/// Writes a size in the largest unit that divides it.
#[must_use]
pub fn display_size(bytes: u64) -> String {
    let (unit, factor) = UNITS
        .into_iter()
        .find(|&(_, factor)| bytes >= factor && bytes.is_multiple_of(factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1 gib"), Ok(1 << 30));
        assert_eq!(parse_size("1_400B"), Ok(1_400));
    }

    #[test]
    fn what_is_no_size_is_told_so() {
        for (text, part) in [
            ("", "is not a size"),
            ("big", "is not a size"),
            ("-1KiB", "is not a size"),
            ("64", "has no unit"),
            ("64KB", "is not a unit"),
            ("99999999999TiB", "larger than any memory"),
        ] {
            let error = parse_size(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes: u64) {
            prop_assert_eq!(parse_size(&display_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = parse_size(&text);
        }
    }
}
