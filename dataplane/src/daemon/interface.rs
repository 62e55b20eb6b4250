//! One NIC as the daemon has it: its steering program, and the lanes opened on its queues.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketType};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::DaemonError;
use crate::config::{Attachment, Config, InterfaceConfig, SteerLogLevel};
use crate::control::status::QueueStatus;
use crate::port::xsk::{self, Opened, XskConfig, XskPort, XskQueue};
use crate::steer::{AttachedMode, HeartbeatMap, ServiceRule, Steer, SteerError, local_addresses};
use crate::transport::bypass::Bypass;
use crate::worker::driver::Beat;

/// The lane of one queue, with the heartbeat that goes with it.
pub(super) struct Lane {
    pub(super) bypass: Bypass<XskPort, XskQueue>,
    pub(super) beat: Beat,
    pub(super) status: QueueStatus,
}

/// A NIC and its steering program.
pub(super) struct Interface {
    config: InterfaceConfig,
    pin_directory: PathBuf,
    log_level: SteerLogLevel,
    steer: Steer,
    heartbeats: HeartbeatMap,
    /// Number of the interface the program was attached to: another one means that it was made anew.
    index: Option<u32>,
    /// This host's addresses as the services were told last; `None` while nothing is steered.
    local: Option<BTreeSet<IpAddr>>,
    /// Follows the program's log.
    log: Option<AbortHandle>,
}

/// What became of an interface since it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that matters.
    None,
    /// Somebody had detached the program; it is attached again, and the sockets are as they were.
    Reattached,
    /// It was made anew, and has a program of its own again; the sockets of the old one are dead.
    MadeAnew,
}

impl Interface {
    /// Attaches the program, or adopts what is pinned. Nothing is steered yet.
    pub(super) fn attach(config: &InterfaceConfig, whole: &Config) -> Result<Self, SteerError> {
        let index = index_of(&config.name);
        let steer = attach(config, &whole.daemon.pin_directory, whole.daemon.steer_log)?;
        Ok(Self {
            config: config.clone(),
            pin_directory: whole.daemon.pin_directory.clone(),
            log_level: whole.daemon.steer_log,
            heartbeats: steer.heartbeats()?,
            steer,
            index,
            local: None,
            log: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    pub(super) fn steer(&mut self) -> &mut Steer {
        &mut self.steer
    }

    /// Opens a lane on a queue and registers its socket.
    pub(super) fn open(&mut self, queue: u32, node: Option<u32>, worker: usize) -> Result<Lane, DaemonError> {
        let config = &self.config;
        let generic_xdp = self.steer.mode() == Some(AttachedMode::Generic);
        let Opened { port, queue: owner, report } = xsk::open(&XskConfig {
            frames: config.frames,
            ring_entries: config.ring_entries,
            copy: config.copy,
            huge_pages: config.huge_pages,
            node,
            busy_poll: config.busy_poll,
            generic_xdp,
            ..XskConfig::new(&config.name, queue)
        })?;
        let mut slot = self.heartbeats.slot(queue)?;
        self.steer.register_socket(queue, std::os::fd::AsFd::as_fd(&port))?;
        let status = QueueStatus {
            interface: config.name.clone(),
            queue,
            xdp_mode: self.xdp_mode().to_owned(),
            copy_mode: report.copy_mode().to_owned(),
            attachment: match config.attachment {
                Attachment::Owned => "owned",
                Attachment::Adopted => "adopted",
            }
            .to_owned(),
            huge_pages: report.huge_pages,
            fallback: self.steer.fallback().map(str::to_owned),
            stale_episodes: self.stale_episodes(queue),
            state: "up".to_owned(),
            worker,
        };
        let (xdp_mode, copy_mode) = (&status.xdp_mode, &status.copy_mode);
        tracing::info!(interface = config.name, queue, worker, xdp_mode, copy_mode, "queue opened");
        let bypass = Bypass::new(port, owner, config.checksum);
        Ok(Lane { bypass, beat: Box::new(move |now_ns| slot.beat(now_ns)), status })
    }

    /// True while an interface of this name exists.
    pub(super) fn is_there(&self) -> bool {
        index_of(&self.config.name).is_some()
    }

    /// `up`, or what the link says of itself: the socket stays bound while it is down, and goes on by itself.
    pub(super) fn link_state(&self) -> &'static str {
        match xsk::link_of(&self.config.name) {
            Ok(xsk::Link::Down) => "link down",
            _ => "up",
        }
    }

    /// How the program runs: `native` or `generic`.
    pub(super) fn xdp_mode(&self) -> &'static str {
        self.steer.mode().map_or("none", AttachedMode::label)
    }

    /// Why the program does not run in native mode, when the mode was left open.
    pub(super) fn fallback(&self) -> Option<&str> {
        self.steer.fallback()
    }

    /// How often the program found a queue's worker stale.
    pub(super) fn stale_episodes(&self, queue: u32) -> u64 {
        self.heartbeats.stale_episodes(queue)
    }

    /// Steers these services from now on.
    pub(super) fn serve(&mut self, rules: &[ServiceRule]) -> Result<(), SteerError> {
        let local = local_addresses().map_err(SteerError::addresses)?;
        self.serve_on(local, rules)
    }

    /// Steers nothing any more.
    pub(super) fn serve_nothing(&mut self) -> Result<(), SteerError> {
        self.local = None;
        self.steer.clear_services()
    }

    fn serve_on(&mut self, local: BTreeSet<IpAddr>, rules: &[ServiceRule]) -> Result<(), SteerError> {
        let rules: Vec<ServiceRule> = rules.iter().filter_map(|rule| rule.on_this_host(&local)).collect();
        // Noted first: what cannot be had is not tried anew before the addresses change again.
        self.local = Some(local);
        self.steer.set_services(&rules)
    }

    /// Follows this host's addresses, while services are steered. True when they had changed.
    pub(super) fn follow_addresses(&mut self, rules: &[ServiceRule]) -> Result<bool, SteerError> {
        let Some(known) = &self.local else { return Ok(false) };
        let local = local_addresses().map_err(SteerError::addresses)?;
        if local == *known {
            return Ok(false);
        }
        self.serve_on(local, rules)?;
        Ok(true)
    }

    /// Attaches anew when the interface was made anew, or the program detached, since.
    pub(super) fn follow(&mut self, rules: &[ServiceRule], runtime: &Handle) -> Result<Change, SteerError> {
        let index = index_of(&self.config.name);
        if index == self.index {
            let reattached = self.steer.stay_attached(self.config.mode)?;
            return Ok(if reattached { Change::Reattached } else { Change::None });
        }
        // The old program's pins are locked until it is let go of, by this daemon too.
        self.steer.let_go();
        self.steer = attach(&self.config, &self.pin_directory, self.log_level)?;
        self.heartbeats = self.steer.heartbeats()?;
        self.follow_log(runtime);
        self.serve(rules)?;
        self.index = index;
        Ok(Change::MadeAnew)
    }

    /// Forwards the program's own log to the daemon's, in the place of an earlier program's.
    pub(super) fn follow_log(&mut self, runtime: &Handle) {
        if let Some(earlier) = self.log.take() {
            earlier.abort();
        }
        let name = self.config.name.clone();
        match self.steer.log() {
            Ok(log) => {
                let following = async move {
                    if let Err(error) = log.follow().await {
                        tracing::warn!(interface = name, %error, "the XDP program's log cannot be followed");
                    }
                };
                self.log = Some(runtime.spawn(following).abort_handle());
            }
            Err(error) => tracing::warn!(interface = name, %error, "the XDP program's log cannot be read"),
        }
    }
}

fn attach(config: &InterfaceConfig, pins: &Path, level: SteerLogLevel) -> Result<Steer, SteerError> {
    match config.attachment {
        Attachment::Owned => Steer::attach_owned(&config.name, config.mode, level),
        Attachment::Adopted => {
            let mut steer = Steer::adopt(&config.name, config.mode, pins, level)?;
            // What an earlier daemon served is not what this one serves: nothing is steered until it says so.
            steer.clear_services()?;
            Ok(steer)
        }
    }
}

/// The kernel's number for an interface; `None` when it is gone.
fn index_of(name: &str) -> Option<u32> {
    // Through a socket, not sysfs: that shows another network namespace's interfaces after `nsenter -n`.
    let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(any, name).ok()
}
