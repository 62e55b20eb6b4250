//! `dataplane plan`.

use std::process::ExitCode;

use clap::Args;
use dataplane::daemon::Daemon;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: super::ConfigFile,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn plan(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = super::load(&arguments.file.config)?;
    let plan = Daemon::plan(&config)?;
    super::print(&if arguments.json { serde_json::to_string(&plan)? } else { plan.to_string() })?;
    Ok(ExitCode::SUCCESS)
}
