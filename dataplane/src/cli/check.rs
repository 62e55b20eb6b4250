//! `dataplane check`.

use std::process::ExitCode;

use clap::Args;
use dataplane::config::{Config, ConfigError, ConfigErrors};
use serde::Serialize;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: super::ConfigFile,
    /// Prints one JSON object: `{"file", "valid", "errors": [{"line", "key", "message"}]}`.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verdict {
    file: String,
    valid: bool,
    errors: Vec<ConfigError>,
}

pub(super) fn check(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let checked = super::load(&arguments.file.config);
    let file = arguments.file.config.display().to_string();
    if arguments.json {
        let valid = checked.is_ok();
        let errors = checked.err().map_or_else(Vec::new, |errors| errors.errors);
        super::print(&serde_json::to_string(&Verdict { file, valid, errors })?)?;
        return Ok(if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let config = checked.map_err(|errors| counted(&errors, &file))?;
    super::print(&format!(
        "{file}: no errors: {}; whether this host can run it: dataplane doctor --config {file}",
        summary(&config)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the errors; what is left to say is how many there were.
fn counted(errors: &ConfigErrors, file: &str) -> anyhow::Error {
    let count = errors.errors.len();
    eprintln!("{errors}");
    anyhow::anyhow!("{count} error{} in {file}", if count == 1 { "" } else { "s" })
}

fn summary(config: &Config) -> String {
    let interfaces: Vec<&str> = config.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let listeners: Vec<String> = config
        .listeners
        .iter()
        .map(|listener| {
            let protocol = listener.protocol.label().to_uppercase();
            format!("{} on {protocol} port {}", listener.service, listener.port)
        })
        .collect();
    format!("{} at {}", listeners.join(", "), interfaces.join(", "))
}
