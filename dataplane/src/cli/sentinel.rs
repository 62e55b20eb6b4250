//! `dataplane sentinel`: hidden, for the daemon alone.

use std::process::ExitCode;

use dataplane::daemon::Daemon;

pub(super) fn sentinel() -> anyhow::Result<ExitCode> {
    Daemon::new().run_if_sentinel()?;
    Ok(ExitCode::SUCCESS)
}
