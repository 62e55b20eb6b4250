//! `dataplane check`.

use std::path::Path;
use std::process::ExitCode;

use dataplane::config;

pub(super) fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let config = match config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            let count = errors.errors.len();
            eprintln!("{errors}");
            anyhow::bail!("{count} error{} in {}", if count == 1 { "" } else { "s" }, file.display());
        }
    };
    let interfaces: Vec<&str> = config.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let listeners: Vec<String> = config
        .listeners
        .iter()
        .map(|listener| format!("{} on UDP port {}", listener.service, listener.port))
        .collect();
    super::print(&format!(
        "{}: no errors: {} at {}; whether this host can run it: dataplane doctor --config {}",
        file.display(),
        listeners.join(", "),
        interfaces.join(", "),
        file.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
