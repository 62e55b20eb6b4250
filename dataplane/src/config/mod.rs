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
//! | `log_filter` | [`log_filter()`]: `"info,dataplane::control=debug"` |
//! | `size` | `"1GiB"` |
//! | `builtin` | [`Config::builtin`]: what is served without a file |
//! | `overrides` | [`Config::set`]: values from the command line |

mod bounds;
mod builtin;
mod checks;
mod defaults;
mod error;
mod log_filter;
mod model;
mod overrides;
mod reader;
mod sections;
mod size;
mod sources;

use std::path::Path;

pub use error::{ConfigError, ConfigErrors};
pub use log_filter::log_filter;
pub use model::*;
pub use size::display_size;
pub use sources::private_sources;

/// Reads and checks a configuration file. A listener may name any service.
///
/// # Errors
/// Every error in the file, or why it could not be read.
pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigErrors> {
    read(path.as_ref(), None, &[])
}

/// Like [`load`], for a daemon with these services: a listener that names another is an error too.
///
/// # Errors
/// Every error in the file, or why it could not be read.
pub fn load_for(path: impl AsRef<Path>, services: &[&str]) -> Result<Config, ConfigErrors> {
    read(path.as_ref(), Some(services), &[])
}

/// Like [`load_for`], of a file or else of what is built in, with values in the place of others (see [`Config::set`]). What
/// must hold between values is looked at afterwards.
///
/// # Errors
/// Every error in the file and in the values, or why the file could not be read.
pub fn load_with(
    path: Option<&Path>,
    services: &[&str],
    assignments: &[String],
) -> Result<Config, ConfigErrors> {
    match path {
        Some(path) => read(path, Some(services), assignments),
        None => {
            let mut config = Config::builtin();
            config.set(assignments)?;
            config.check(services)?;
            Ok(config)
        }
    }
}

/// Checks a configuration. A listener may name any service.
///
/// # Errors
/// Every error in the text.
pub fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_for(text, None, &[])
}

fn read(path: &Path, services: Option<&[&str]>, assignments: &[String]) -> Result<Config, ConfigErrors> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse_for(&text, services, assignments).map_err(|errors| errors.in_file(path)),
        Err(source) => Err(ConfigErrors::unreadable(path, &source)),
    }
}

fn parse_for(text: &str, services: Option<&[&str]>, assignments: &[String]) -> Result<Config, ConfigErrors> {
    let report = reader::Report::new(text);
    let root = reader::document(&report);
    let mut config = sections::config(root);
    if let Err(errors) = config.set(assignments) {
        report.take_over(errors);
    }
    checks::between_values(&config, services, &report);
    report.finish()?;
    Ok(config)
}

impl Config {
    /// Checks a configuration that was made in code, not read from a file, for a daemon with these services: that no
    /// listener is open to the world, and that its values fit together. [`Daemon::run`](crate::daemon::Daemon::run)
    /// does this first.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn check(&self, services: &[&str]) -> Result<(), ConfigErrors> {
        let report = reader::Report::new("");
        checks::between_values(self, Some(services), &report);
        report.finish()
    }
}
