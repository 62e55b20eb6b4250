//! What happens to lanes while the daemon runs: an interface that goes is given up, one that comes back is attached and
//! bound again, and the state says at any time how it stands.
//!
//! A deleted interface shows itself to a worker only when it sends, so the supervisor also looks each second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::DaemonError;
use super::run::{Interfaces, lock};
use super::workers::{WorkerHandle, XskCommand};
use crate::control::state::DaemonState;
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

/// A lane that is not served: worker and lane number.
type Place = (usize, usize);

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
        let mut down: BTreeSet<Place> = BTreeSet::new();
        loop {
            match self.events.recv_timeout(LOOK) {
                Ok(Event::LaneFailed { worker, lane, error }) => {
                    tracing::warn!(worker, lane, %error, "a queue is no longer served");
                    self.mark((worker, lane), &error.to_string());
                    down.insert((worker, lane));
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
                Err(RecvTimeoutError::Timeout) if !self.state.is_stopping() => self.look(&mut down),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Gives up lanes whose interface is gone, and opens those whose interface is back.
    fn look(&self, down: &mut BTreeSet<Place>) {
        for (place, name, queue) in self.places() {
            let mut interfaces = lock(&self.interfaces);
            if self.state.is_stopping() {
                return;
            }
            let Some(interface) = interfaces.iter_mut().find(|interface| interface.name() == name) else {
                continue;
            };
            if !interface.is_there() {
                if down.insert(place) {
                    tracing::warn!(
                        interface = name,
                        queue,
                        "the interface is gone; waiting for it to come back"
                    );
                    self.workers[place.0].command(XskCommand::DropLane { number: place.1 });
                    self.mark(place, "the interface is gone");
                }
                continue;
            }
            match interface.follow(&self.rules) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(interface = name, "the interface was made anew; attached again");
                    // Sockets of the old one are dead, whatever their workers know of it.
                    let others = self.places().filter(|(_, other, _)| *other == name);
                    for (other, _, _) in others {
                        self.workers[other.0].command(XskCommand::DropLane { number: other.1 });
                        down.insert(other);
                    }
                }
                Err(error) => {
                    self.mark(place, &error.to_string());
                    continue;
                }
            }
            if !down.contains(&place) {
                self.mark(place, interface.link_state());
                continue;
            }
            // The worker may not have met the failure yet: its old socket would keep the queue busy.
            self.workers[place.0].command(XskCommand::DropLane { number: place.1 });
            match interface.open(queue, self.plan[place.0].node, place.0) {
                Ok(lane) => {
                    let (beat, bypass) = (lane.beat, Box::new(lane.bypass));
                    self.workers[place.0].command(XskCommand::ReplaceLane {
                        number: place.1,
                        lane: bypass,
                        beat,
                    });
                    self.mark(place, "up");
                    down.remove(&place);
                    tracing::info!(interface = name, queue, "the queue is served again");
                }
                Err(error) => self.mark(place, &error.to_string()),
            }
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

    /// Says in the state how a lane stands.
    fn mark(&self, place: Place, standing: &str) {
        let Some((_, name, queue)) = self.places().find(|(other, _, _)| *other == place) else { return };
        let mut queues = self.state.queues();
        let Some(status) = queues.iter_mut().find(|status| status.interface == name && status.queue == queue)
        else {
            return;
        };
        if status.state != standing {
            tracing::info!(
                interface = name,
                queue,
                was = status.state,
                now = standing,
                "a queue's state changed"
            );
            status.state = standing.to_owned();
            self.state.set_queues(queues);
        }
    }
}
