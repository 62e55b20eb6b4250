//! What systemd is told (sd_notify(3)); without it, nothing happens here.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::state::DaemonState;

/// Says that the daemon serves.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the daemon is on its way out.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("answering what was asked, then detaching")]);
}

/// Feeds the unit's watchdog, if it has one, twice as often as it asks; but not while a worker is stale, so that
/// systemd restarts a daemon that hangs.
pub async fn watchdog(state: Arc<DaemonState>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        if state.stale_workers().is_empty() || state.is_stopping() {
            send(&[NotifyState::Watchdog]);
        }
    }
}

fn send(what: &[NotifyState<'_>]) {
    // systemd going away is no reason to stop serving.
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
