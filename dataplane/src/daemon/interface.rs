//! One NIC as the daemon has it: its steering program, and the lanes opened on its queues.

use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketType};

use super::DaemonError;
use crate::config::{Attachment, Config, InterfaceConfig, SteerLogLevel};
use crate::control::status::QueueStatus;
use crate::port::xsk::{self, Opened, XskConfig, XskPort, XskQueue};
use crate::steer::{AttachedMode, ServiceRule, Steer, SteerError};
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
    /// Number of the interface the program was attached to: another one means that it was made anew.
    index: Option<u32>,
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
            steer,
            index,
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
        let mut slot = self.steer.heartbeats()?.slot(queue)?;
        self.steer.register_socket(queue, std::os::fd::AsFd::as_fd(&port))?;
        let status = QueueStatus {
            interface: config.name.clone(),
            queue,
            xdp_mode: self.steer.mode().map_or("none", AttachedMode::label).to_owned(),
            copy_mode: report.copy_mode().to_owned(),
            attachment: match config.attachment {
                Attachment::Owned => "owned",
                Attachment::Adopted => "adopted",
            }
            .to_owned(),
            huge_pages: report.huge_pages,
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

    /// Attaches anew when the interface was made anew since. True when it was.
    pub(super) fn follow(&mut self, rules: &[ServiceRule]) -> Result<bool, SteerError> {
        let index = index_of(&self.config.name);
        if index == self.index {
            return Ok(false);
        }
        // The old program's pins are locked until it is let go of, by this daemon too.
        self.steer.let_go();
        self.steer = attach(&self.config, &self.pin_directory, self.log_level)?;
        self.steer.set_services(rules)?;
        self.index = index;
        Ok(true)
    }
}

fn attach(config: &InterfaceConfig, pins: &Path, level: SteerLogLevel) -> Result<Steer, SteerError> {
    match config.attachment {
        Attachment::Owned => Steer::attach_owned(&config.name, config.mode, level),
        Attachment::Adopted => {
            let mut steer = Steer::adopt(&config.name, pins, level)?;
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
