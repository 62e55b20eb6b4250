//! Puts the data plane together from a configuration and a plan, keeps it going, and takes it apart again.
//!
//! | file | what it holds |
//! |---|---|
//! | `registry` | [`Registry`]: which services there are |
//! | `error` | [`DaemonError`] |
//! | `run` | the order in which everything comes up and goes down |
//! | `steering` | the NICs, or why listeners do without them |
//! | `interface` | one NIC: its steering program, and the lanes opened on its queues |
//! | `heartbeat` | each worker's heartbeat, for the sentinel and the control plane |
//! | `descriptors` | how many open files there may be |
//! | `listeners` | what a worker serves, made of the configuration |
//! | `workers` | the workers' threads |
//! | `supervisor` | what happens to lanes that fail while it runs |

mod descriptors;
mod error;
mod heartbeat;
mod interface;
mod listeners;
mod registry;
mod run;
mod steering;
mod supervisor;
mod workers;

pub use error::DaemonError;
pub use registry::Registry;

use self::steering::Steering;
use crate::config::Config;
use crate::service::{Service, ServiceError, ServiceSetup};
use crate::topology::{self, Plan};

/// The daemon: what it can serve. [`Daemon::run`] serves it.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    registry: Registry,
}

impl Daemon {
    /// With the services that come with it: `memcached` and `resp`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service of one's own under the name that a configuration's listener calls it by. `create` makes the
    /// instance of each worker.
    #[must_use]
    pub fn with_service<F>(mut self, name: &str, create: F) -> Self
    where
        F: Fn(&ServiceSetup) -> Result<Box<dyn Service>, ServiceError> + Send + Sync + 'static,
    {
        self.registry.register_with(name, create);
        self
    }

    /// What it can serve.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Serves until SIGTERM or SIGINT. To be called from the process's main thread, and after
    /// [`Daemon::run_if_sentinel`].
    ///
    /// # Errors
    /// [`DaemonError`]: why it could not start, or had to end.
    pub fn run(self, config: Config) -> Result<(), DaemonError> {
        config.check(&self.registry.names().collect::<Vec<_>>())?;
        run::run(&config, &self.registry)
    }

    /// Who would do what where on this host. Nothing is touched.
    ///
    /// # Errors
    /// [`DaemonError`]: why there is no plan.
    pub fn plan(config: &Config) -> Result<Plan, DaemonError> {
        Ok(Steering::plan(&topology::discover()?, config)?.plan)
    }

    /// Becomes the sentinel when this process was started as one (its first argument is `sentinel`): a program of
    /// one's own calls this first in `main`. True when it was, and has ended.
    ///
    /// # Errors
    /// [`DaemonError::Sentinel`].
    pub fn run_if_sentinel(&self) -> Result<bool, DaemonError> {
        if std::env::args_os().nth(1).is_none_or(|argument| argument != "sentinel") {
            return Ok(false);
        }
        crate::control::sentinel::run(&|name, setup| {
            self.registry.get(name).map(|factory| factory.create(setup))
        })?;
        Ok(true)
    }
}
