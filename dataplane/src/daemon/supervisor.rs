//! What happens to lanes while the daemon runs: an interface that goes is given up, one that comes back is attached and
//! bound again, and the state says at any time how it stands.
//!
//! A deleted interface shows itself to a worker only when it sends, a program that somebody detached to nobody, and a new
//! address of this host neither: so the supervisor also looks each second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::DaemonError;
use super::interface::{Change, Interface};
use super::run::{Interfaces, lock};
use super::workers::{WorkerHandle, XskCommand};
use crate::control::state::DaemonState;
use crate::control::status::QueueStatus;
use crate::steer::ServiceRule;
use crate::topology::WorkerPlan;
use crate::worker::driver::Event;

/// Time between two looks at the interfaces.
const LOOK: Duration = Duration::from_secs(1);

/// What it watches.
pub(super) struct Supervisor {
    pub(super) plan: Vec<WorkerPlan>,
    pub(super) rules: Vec<ServiceRule>,
    pub(super) interfaces: Interfaces,
    pub(super) workers: Arc<Vec<WorkerHandle>>,
    pub(super) state: Arc<DaemonState>,
    pub(super) events: Receiver<Event>,
    /// Where programs' logs are followed.
    pub(super) runtime: Handle,
}

/// The running supervisor.
pub(super) struct Running {
    thread: JoinHandle<()>,
    failure: Option<oneshot::Receiver<DaemonError>>,
}

impl Running {
    /// Resolves when the daemon cannot go on.
    pub(super) fn failure(&mut self) -> impl Future<Output = DaemonError> + use<> {
        let failure = self.failure.take();
        async move {
            match failure {
                // A supervisor that ends without a word has nothing left to watch.
                Some(failure) => match failure.await {
                    Ok(error) => error,
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for its end, which comes with that of the last worker.
    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the supervisor's thread had panicked");
        }
    }
}

/// Where a lane is: worker and lane number.
type Place = (usize, usize);

/// What is known of lanes.
#[derive(Default)]
struct Lanes {
    /// Those that are not served.
    down: BTreeSet<Place>,
    /// How often each was replaced.
    generations: BTreeMap<Place, u64>,
}

impl Lanes {
    fn generation(&self, place: Place) -> u64 {
        self.generations.get(&place).copied().unwrap_or(0)
    }
}

impl Supervisor {
    /// Starts it.
    pub(super) fn start(self) -> Result<Running, DaemonError> {
        let (failed, failure) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || self.run(failed))
            .map_err(DaemonError::system("starting the supervisor's thread"))?;
        Ok(Running { thread, failure: Some(failure) })
    }

    fn run(self, failed: oneshot::Sender<DaemonError>) {
        let mut failed = Some(failed);
        let mut lanes = Lanes::default();
        loop {
            match self.events.recv_timeout(LOOK) {
                Ok(Event::LaneFailed { worker, lane, generation, error }) => {
                    let place = (worker, lane);
                    // What is told of a lane that was replaced meanwhile says nothing of the one in its place.
                    if generation == lanes.generation(place) && lanes.down.insert(place) {
                        tracing::warn!(worker, lane, %error, "a queue is no longer served");
                        self.mark(place, &error.to_string());
                    }
                }
                Ok(Event::Panicked { worker }) => {
                    tracing::error!(worker, "a worker hit a broken invariant");
                    if let Some(failed) = failed.take() {
                        // The receiver goes only when the daemon is ending already.
                        let _ = failed.send(DaemonError::WorkerPanicked { worker });
                    }
                }
                Ok(Event::Stopped { worker, accounts }) => {
                    let lost = accounts.lost();
                    tracing::info!(worker, frames = accounts.total, lost, "worker ended");
                }
                Err(RecvTimeoutError::Timeout) if !self.state.is_stopping() => self.look(&mut lanes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Gives up lanes whose interface is gone, and opens those whose interface is back.
    fn look(&self, lanes: &mut Lanes) {
        // Lanes given up in this look are opened in the next one: by then their workers have let go of the old sockets,
        // and the kernel of their memory, which the new ones may want in huge pages again.
        let waiting = lanes.down.clone();
        let count = lock(&self.interfaces).len();
        for number in 0..count {
            // Let go of in between, so that the admin API never waits for all of it.
            let mut interfaces = lock(&self.interfaces);
            if self.state.is_stopping() {
                return;
            }
            self.look_at(&mut interfaces[number], lanes);
        }
        for place in waiting {
            self.reopen(place, lanes);
        }
    }

    /// Keeps one interface's program attached and fed, and says how its queues stand.
    fn look_at(&self, interface: &mut Interface, lanes: &mut Lanes) {
        let name = interface.name().to_owned();
        if !interface.is_there() {
            self.give_up(&name, lanes, "the interface is gone");
            return;
        }
        match interface.follow(&self.rules, &self.runtime) {
            Ok(Change::None) => {}
            Ok(Change::Reattached) => {
                tracing::warn!(interface = name, "somebody had detached the XDP program; attached again");
            }
            Ok(Change::MadeAnew) => {
                tracing::info!(interface = name, "the interface was made anew; attached again");
                // Sockets of the old one are dead, whatever their workers know of it.
                self.give_up(&name, lanes, "the interface was made anew");
            }
            Err(error) => {
                let standing = error.to_string();
                self.places_of(&name).for_each(|(place, _)| self.mark(place, &standing));
                return;
            }
        }
        match interface.follow_addresses(&self.rules) {
            Ok(false) => {}
            Ok(true) => tracing::info!(interface = name, "this host's addresses have changed; followed them"),
            Err(error) => {
                tracing::error!(interface = name, %error, "new addresses are served by the companion socket only");
            }
        }
        for (place, queue) in self.places_of(&name) {
            self.revise(place, |status| {
                status.xdp_mode = interface.xdp_mode().to_owned();
                status.fallback = interface.fallback().map(str::to_owned);
                status.stale_episodes = interface.stale_episodes(queue);
                if !lanes.down.contains(&place) {
                    status.state = interface.link_state().to_owned();
                }
            });
        }
    }

    /// Takes an interface's lanes out of their workers.
    fn give_up(&self, name: &str, lanes: &mut Lanes, why: &str) {
        for (place, queue) in self.places_of(name) {
            // Told also to one that is down: the worker may not have met the failure yet.
            self.workers[place.0].command(XskCommand::DropLane { number: place.1 });
            if lanes.down.insert(place) {
                tracing::warn!(interface = name, queue, "given up: {why}");
            }
            self.mark(place, why);
        }
    }

    /// Opens a lane that was given up, if its interface is there.
    fn reopen(&self, place: Place, lanes: &mut Lanes) {
        let Some((_, name, queue)) = self.places().find(|(other, _, _)| *other == place) else { return };
        let mut interfaces = lock(&self.interfaces);
        if self.state.is_stopping() {
            return;
        }
        let Some(interface) = interfaces.iter_mut().find(|interface| interface.name() == name) else {
            return;
        };
        if !interface.is_there() {
            return;
        }
        match interface.open(queue, self.plan[place.0].node, place.0) {
            Ok(lane) => {
                let generation = lanes.generation(place) + 1;
                lanes.generations.insert(place, generation);
                lanes.down.remove(&place);
                self.workers[place.0].command(XskCommand::ReplaceLane {
                    number: place.1,
                    generation,
                    lane: Box::new(lane.bypass),
                    beat: lane.beat,
                });
                self.revise(place, |status| *status = lane.status);
                tracing::info!(interface = name, queue, "the queue is served again");
            }
            Err(error) => self.mark(place, &error.to_string()),
        }
    }

    /// Every lane: its place, its interface and its queue.
    fn places(&self) -> impl Iterator<Item = (Place, &str, u32)> {
        self.plan.iter().flat_map(|worker| {
            worker
                .queues
                .iter()
                .enumerate()
                .map(|(lane, assigned)| ((worker.worker, lane), assigned.interface.as_str(), assigned.queue))
        })
    }

    /// The lanes of one interface: their places and queues.
    fn places_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Place, u32)> + 'a {
        self.places().filter(move |(_, other, _)| *other == name).map(|(place, _, queue)| (place, queue))
    }

    /// Says in the state how a lane stands.
    fn mark(&self, place: Place, standing: &str) {
        self.revise(place, |status| status.state = standing.to_owned());
    }

    /// Brings up to date what the state says of a lane.
    fn revise(&self, place: Place, revise: impl FnOnce(&mut QueueStatus)) {
        let Some((_, name, queue)) = self.places().find(|(other, _, _)| *other == place) else { return };
        let mut queues = self.state.queues();
        let Some(status) = queues.iter_mut().find(|status| status.interface == name && status.queue == queue)
        else {
            return;
        };
        let before = status.clone();
        revise(status);
        if status.state != before.state {
            let (was, now) = (&before.state, &status.state);
            tracing::info!(interface = name, queue, was, now, "a queue's state changed");
        }
        if *status != before {
            self.state.set_queues(queues);
        }
    }
}
