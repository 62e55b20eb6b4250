//! `dataplane run`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use dataplane::config::{self, Config};
use dataplane::daemon::Daemon;
use tracing_subscriber::EnvFilter;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    log_to_stderr(&config)?;
    Daemon::new().run(config)?;
    Ok(ExitCode::SUCCESS)
}

/// To standard error: systemd's journal takes it from there. `RUST_LOG` overrides the configuration for one run.
fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => EnvFilter::try_new(directives).context("RUST_LOG is not a log filter")?,
        Err(_) => EnvFilter::try_new(&config.daemon.log)?,
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}
