//! Log filters: `tracing`'s directives, without the ways in which `tracing` would silence the log or panic.
//!
//! A bare word that is no level means a target to `tracing`, so `log = "warning"` would show nothing but what a
//! target of that name says: nothing at all. A bare word here must be a level, or a target of the data plane.

use super::reader::nearest;

/// The levels `tracing` knows by name.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// First part of the targets that may stand without a level.
const OWN_TARGET: &str = "dataplane";

/// Reads a log filter, as `daemon.log` and `RUST_LOG` have it: directives with commas between them, each a level
/// (`info`) or a target with its level (`dataplane::control=debug`). Spaces around them do not count. What comes
/// back is the same filter as `tracing` wants it.
///
/// # Errors
/// What is wrong with it and how to write it.
pub fn log_filter(text: &str) -> Result<String, String> {
    if !text.is_ascii() {
        return Err(format!(
            "{text:?} is not a log filter: levels and targets are ASCII; write it like \
             \"info,dataplane::control=debug\""
        ));
    }
    let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let directives = directives.map(directive).collect::<Result<Vec<_>, _>>()?;
    if directives.is_empty() {
        return Err(format!("is empty; write one of {}", LEVELS.join(", ")));
    }
    Ok(directives.join(","))
}

fn directive(text: &str) -> Result<String, String> {
    let written = match text.rsplit_once('=') {
        // A span's fields have an equals sign of their own, within the brackets.
        Some((target, level)) if !level.contains(']') => {
            let level = level.trim();
            if !is_level(level) {
                return Err(format!("{level:?} in {text:?} is no level; {}", advice(level)));
            }
            format!("{}={level}", target.trim())
        }
        None if !text.contains('[') => {
            if !is_level(text) && !is_own_target(text) {
                return Err(format!(
                    "{text:?} is no level; {}; a target needs one, like {text}=debug",
                    advice(text)
                ));
            }
            text.to_owned()
        }
        _ => text.to_owned(),
    };
    match tracing_subscriber::EnvFilter::try_new(&written) {
        Ok(_) => Ok(written),
        Err(error) => Err(format!(
            "{text:?} is not a log filter ({error}); write it like \"info,dataplane::control=debug\""
        )),
    }
}

fn is_level(word: &str) -> bool {
    word.parse::<tracing::level_filters::LevelFilter>().is_ok() && !word.is_empty()
}

fn is_own_target(word: &str) -> bool {
    word.split("::").next() == Some(OWN_TARGET)
}

/// The level that was most likely meant: the nearest, or the one that a longer word begins with (`warning`).
fn advice(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    let meant = nearest(&word, &LEVELS).or_else(|| LEVELS.into_iter().find(|level| word.starts_with(level)));
    match meant {
        Some(level) => format!("did you mean {level}?"),
        None => format!("the levels are {}", LEVELS.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_handed_on_as_tracing_wants_them() {
        for (text, handed_on) in [
            ("info", "info"),
            (" WARN ", "WARN"),
            ("3", "3"),
            ("info, dataplane::control=debug", "info,dataplane::control=debug"),
            ("info,aya = off,", "info,aya=off"),
            ("warn,dataplane", "warn,dataplane"),
            ("warn,dataplane::steer", "warn,dataplane::steer"),
            ("warn,[serving{queue=3}]=trace", "warn,[serving{queue=3}]=trace"),
            ("warn,[serving]", "warn,[serving]"),
        ] {
            assert_eq!(log_filter(text).as_deref(), Ok(handed_on), "{text}");
        }
    }

    #[test]
    fn what_would_silence_the_log_or_panic_is_refused_with_the_way_out() {
        for (text, part) in [
            (" é=info", "ASCII"),
            ("warning", "did you mean warn?"),
            ("inof", "the levels are off, error"),
            ("infos", "did you mean info?"),
            ("info,hyper", "like hyper=debug"),
            ("dataplanes", "like dataplanes=debug"),
            ("info,dataplane=debgu", "the levels are"),
            ("info,dataplane=debugg", "did you mean debug?"),
            ("info,dataplane=", "is no level"),
            ("", "is empty"),
            (" , ", "is empty"),
            ("info,[", "is not a log filter"),
            ("info,%=debug", "is not a log filter"),
        ] {
            let error = log_filter(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_passes_is_a_filter(text in "[a-z:=,\\[\\]{} é0-9\"-]{0,24}|.{0,24}") {
            if let Ok(filter) = log_filter(&text) {
                prop_assert!(tracing_subscriber::EnvFilter::try_new(filter).is_ok());
            }
        }
    }
}
