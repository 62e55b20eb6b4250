//! The validated configuration. [`load`] reads TOML and reports every error at once, each with its line and key
//! path; what comes out has been checked, so that nothing below has to ask again.
//!
//! | file | what it holds |
//! |---|---|
//! | `model` | [`Config`] and its parts: what the rest of the program sees |
//! | `defaults` | what a key is when it is left out |
//! | `bounds` | the least and the most each value may be, and why |
//! | `error` | [`ConfigErrors`] |
//! | `reader` | walks a TOML document and gathers errors |
//! | `sections` | each table of the document to its part of the model |
//! | `checks` | what must hold between values |
//! | `sources` | allow-lists: what counts as a limit |
//! | `size` | `"1GiB"` |

mod bounds;
mod checks;
mod defaults;
mod error;
mod model;
mod reader;
mod sections;
mod size;
mod sources;

use std::path::Path;

pub use error::{ConfigError, ConfigErrors};
pub use model::*;
pub use size::display_size;
pub use sources::private_sources;

/// Reads and checks a configuration file.
///
/// # Errors
/// Every error in the file, or why it could not be read.
pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigErrors> {
    let path = path.as_ref();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|errors| errors.in_file(path)),
        Err(source) => Err(ConfigErrors::unreadable(path, &source)),
    }
}

/// Checks a configuration.
///
/// # Errors
/// Every error in the text.
pub fn parse(text: &str) -> Result<Config, ConfigErrors> {
    let report = reader::Report::new(text);
    let root = reader::document(&report);
    let config = sections::config(root);
    report.finish()?;
    Ok(config)
}
