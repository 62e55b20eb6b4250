//! The control plane as a whole, started and stopped in order.
//!
//! The assembly calls, from the main thread:
//! 1. [`CompanionSocket::bind_all`](super::companion::CompanionSocket::bind_all), which reserves the ports;
//! 2. [`Prepared::new`], which reserves the admin API's and takes over the signals;
//! 3. its own part: XDP program, ports, tables, workers, each with its companion sockets; and between them asks [`Prepared::signal`] whether to go on;
//! 4. [`Prepared::start`], once the heartbeat map is there;
//! 5. [`ControlPlane::ready`], once every worker serves;
//! 6. [`ControlPlane::wait_for_signal`], which returns when the daemon shall end;
//! 7. detaches the XDP program, then [`ControlPlane::stop`] while the workers still run, then stops those.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::CpuSet;
use tokio::runtime::{Builder, Handle, Runtime};

use super::admin::{AdminError, BoundAdmin};
use super::sentinel::{Sentinel, SentinelSetup};
use super::service_manager;
use super::shutdown::Signals;
use super::state::DaemonState;

/// Threads of the control plane's runtime: a scrape must not wait for a status.
const RUNTIME_THREADS: usize = 2;

/// Time between two looks at whether the sentinel lives; also what keeps one that cannot live from taking the core.
const SENTINEL_LOOK: Duration = Duration::from_secs(1);

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The admin API cannot be had.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The kernel refused something.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

/// Names what failed.
fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ControlError {
    move |source| ControlError::System { what, source }
}

/// What the control plane is made of.
pub struct ControlSetup {
    /// Where the admin API is served.
    pub admin: SocketAddr,
    /// The cores to stay on.
    pub housekeeping_cores: Vec<usize>,
    /// What is served at the admin API.
    pub state: Arc<DaemonState>,
    /// The sentinel; `None` for a daemon without one.
    pub sentinel: Option<SentinelSetup>,
}

/// The running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    runtime: Runtime,
    signals: Option<Signals>,
    state: Arc<DaemonState>,
    sentinel: Option<Watched>,
    admin: SocketAddr,
}

/// What of the control plane comes first: the admin API's port is had, or another's, before anything else is touched,
/// and a signal no longer kills the process half-way.
#[derive(Debug)]
pub struct Prepared {
    runtime: Runtime,
    signals: Signals,
    admin: BoundAdmin,
}

impl Prepared {
    /// Binds the admin API, which is not served yet, and takes over SIGTERM and SIGINT. Call this from the main thread,
    /// which moves to the housekeeping cores, and with it what it starts from then on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn new(admin: SocketAddr, housekeeping_cores: &[usize]) -> Result<Self, ControlError> {
        move_to(housekeeping_cores).map_err(failed("cannot move to the housekeeping cores"))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(failed("cannot start the control plane's threads"))?;
        let (signals, admin) = runtime.block_on(async {
            let signals = Signals::install().map_err(failed("cannot take over SIGTERM and SIGINT"))?;
            Ok::<_, ControlError>((signals, BoundAdmin::bind(admin)?))
        })?;
        Ok(Self { runtime, signals, admin })
    }

    /// The name of a signal that has come to end the process.
    pub fn signal(&mut self) -> Option<&'static str> {
        let Self { runtime, signals, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                signal = signals.next() => Some(signal),
                () = std::future::ready(()) => None,
            }
        })
    }

    /// Runs tasks beside the control plane.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Starts the control plane, from the same thread: the sentinel dies with it. What is said of `admin` and
    /// `housekeeping_cores` counted at [`Prepared::new`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn start(self, setup: ControlSetup) -> Result<ControlPlane, ControlError> {
        let Self { runtime, signals, admin } = self;
        let sentinel = setup.sentinel.map(Watched::start).transpose();
        let sentinel = sentinel.map_err(failed("cannot start the sentinel"))?;
        let admin = runtime.block_on(async { admin.listen(Arc::clone(&setup.state)) })?;
        let address = admin.address().map_err(failed("cannot tell the admin API's address"))?;
        runtime.spawn(async {
            if let Err(error) = admin.serve().await {
                tracing::error!(%error, "the admin API has ended");
            }
        });
        runtime.spawn(service_manager::watchdog(Arc::clone(&setup.state)));
        tracing::info!(admin = %address, "control plane started");
        Ok(ControlPlane { runtime, signals: Some(signals), state: setup.state, sentinel, admin: address })
    }
}

impl ControlPlane {
    /// Starts it with nothing in between: [`Prepared::new`] and [`Prepared::start`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn start(setup: ControlSetup) -> Result<Self, ControlError> {
        Prepared::new(setup.admin, &setup.housekeeping_cores)?.start(setup)
    }

    /// Where the admin API is served.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Says, here and to the service manager, that every worker serves.
    pub fn ready(&self) {
        self.state.set_ready();
        let (workers, queues) = (self.state.workers().len(), self.state.queues().len());
        service_manager::ready(&format!("{workers} workers serve {queues} queues"));
        tracing::info!(workers, queues, "ready");
    }

    /// Waits for SIGTERM or SIGINT, and looks after the sentinel meanwhile. A second signal, from then on, ends the
    /// process at once.
    ///
    /// # Errors
    /// What `failure` comes to, when it does: the daemon cannot go on.
    pub fn wait_for_signal<F>(&mut self, failure: impl Future<Output = F>) -> Result<(), F> {
        let Some(mut signals) = self.signals.take() else { return Ok(()) };
        let sentinel = &mut self.sentinel;
        // On this thread, not one of the runtime's: the sentinel dies with the thread that started it.
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                signal = signals.next() => {
                    tracing::info!(signal, "ending");
                    Ok(())
                }
                failed = failure => Err(failed),
                () = async {
                    let Some(sentinel) = sentinel else { return std::future::pending().await };
                    sentinel.look_after().await
                } => Ok(()),
            }
        });
        self.state.set_stopping();
        service_manager::stopping();
        self.runtime.spawn(signals.force());
        outcome
    }

    /// Ends it. The workers must still run, or the sentinel would answer for them.
    pub fn stop(self) {
        let Self { runtime, sentinel, .. } = self;
        drop(sentinel);
        runtime.shutdown_background();
    }
}

/// A sentinel that is started again when it ends.
#[derive(Debug)]
struct Watched {
    setup: SentinelSetup,
    sentinel: Sentinel,
}

impl Watched {
    fn start(setup: SentinelSetup) -> io::Result<Self> {
        Ok(Self { sentinel: Sentinel::spawn(&setup)?, setup })
    }

    /// Never returns.
    async fn look_after(&mut self) {
        let mut looks = tokio::time::interval(SENTINEL_LOOK);
        loop {
            looks.tick().await;
            let Some(status) = self.sentinel.ended() else { continue };
            tracing::error!(%status, "the sentinel has ended; starting it again");
            match Sentinel::spawn(&self.setup) {
                Ok(sentinel) => self.sentinel = sentinel,
                Err(error) => tracing::error!(%error, "cannot start the sentinel"),
            }
        }
    }
}

/// Moves the calling thread to these cores, and with it what it starts from now on.
fn move_to(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores.iter().filter(|&&core| core < CpuSet::MAX_CPU) {
        set.set(core);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
