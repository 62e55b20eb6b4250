//! `dataplane run`.

use std::env::VarError;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use dataplane::config::{self, Config};
use dataplane::daemon::Daemon;
use tracing_subscriber::EnvFilter;

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file (TOML; see dataplane.example.toml).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replaces a value: listen.SERVICE=ADDRESS:PORT, transport=bypass|kernel|auto, daemon.admin=ADDRESS:PORT,
    /// table.capacity=SIZE, workers.cores=N,N, workers.spin_us=N|busy. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = super::load_or_builtin(arguments.config.as_deref(), &arguments.assignments)?;
    log_to_stderr(&config)?;
    Daemon::new().run(config)?;
    Ok(ExitCode::SUCCESS)
}

/// To standard error: systemd's journal takes it from there. `RUST_LOG` overrides the configuration for one run; an
/// empty one counts as none.
fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) if !text.trim().is_empty() => config::log_filter(&text)
            .map_err(anyhow::Error::msg)
            .context("the environment variable RUST_LOG")?,
        Err(VarError::NotUnicode(_)) => anyhow::bail!("the environment variable RUST_LOG is not text"),
        _ => config.daemon.log.clone(),
    };
    let filter = EnvFilter::try_new(filter)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}
