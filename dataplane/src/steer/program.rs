//! The handle of a loaded program: attached and owned, or adopted, and fed.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::EbpfLoader;
use aya::programs::Xdp;
use dataplane_ebpf::layout::{self, LAYOUT_VERSION, PROGRAM, Settings};
use dataplane_ebpf::verdict::{Action, Verdict};
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};

use super::attach::{self, Attached, AttachedMode, Interface};
use super::error::loading;
use super::heartbeat::HeartbeatMap;
use super::maps::{Flows, Maps, Plain};
use super::object::object;
use super::pin::PinFolder;
use super::services::{ServiceRule, Services};
use super::{ProgramLog, SteerError, kernel, log};
use crate::config::{Attachment, SteerLogLevel, XdpMode};
use crate::limits::{PACKET_BYTES_MAX, QUEUES_MAX};

const _: () = assert!(PACKET_BYTES_MAX == layout::PACKET_BYTES_MAX);

/// A loaded steering program.
///
/// Owned: dropping it, or the death of this process, detaches the program. Adopted: the program stays attached, and
/// with the sockets gone all traffic passes to the kernel.
pub struct Steer {
    program: OwnedFd,
    program_id: u32,
    maps: Maps,
    services: Services,
    /// Has the log's map until the log is taken.
    log: Option<aya::Ebpf>,
    attached: Option<Place>,
}

/// Where a program is attached.
struct Place {
    interface: Interface,
    mode: AttachedMode,
    fallback: Option<String>,
    attachment: Attachment,
    /// Owned: keeps the program attached. Adopted: the pin does.
    link: OwnedFd,
    /// Adopted: keeps other daemons out.
    folder: Option<PinFolder>,
}

/// A program in the kernel whose maps have yet to be taken.
struct Loaded {
    object: aya::Ebpf,
    program: OwnedFd,
    program_id: u32,
}

impl Loaded {
    fn load() -> Result<Self, SteerError> {
        loading(Self::try_load())
    }

    fn try_load() -> Result<Self, SteerError> {
        let bytes = object()?;
        let mut object = EbpfLoader::new().load(&bytes)?;
        let program: &mut Xdp =
            object.program_mut(PROGRAM).ok_or(SteerError::Incomplete { what: PROGRAM })?.try_into()?;
        program.load()?;
        let program_id = program.info()?.id();
        let descriptor = program
            .fd()?
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| SteerError::kernel("duplicating the program's descriptor", source))?;
        Ok(Self { object, program: descriptor, program_id })
    }

    fn pin(&self, folder: &PinFolder) -> Result<(), SteerError> {
        for &name in layout::MAPS {
            let map = self.object.map(name).ok_or(SteerError::Incomplete { what: name })?;
            let path = folder.map_path(name);
            map.pin(&path).map_err(|error| {
                SteerError::pin("pinning", path, std::io::Error::other(error.to_string()))
            })?;
        }
        let path = folder.program_path();
        kernel::pin(self.program.as_fd(), &path).map_err(|source| SteerError::pin("pinning", path, source))
    }

    fn into_steer(mut self, level: SteerLogLevel) -> Result<Steer, SteerError> {
        let maps = Maps::take(&mut self.object)?;
        let mut steer = Steer::new(self.program, self.program_id, maps, self.object)?;
        steer.write_settings(level)?;
        Ok(steer)
    }
}

impl Steer {
    /// Loads the program and attaches it nowhere: for [`Steer::test_run`].
    ///
    /// # Errors
    /// [`SteerError::NotPermitted`], or that the kernel does not accept the object.
    pub fn load(level: SteerLogLevel) -> Result<Self, SteerError> {
        Loaded::load()?.into_steer(level)
    }

    /// Loads the program and attaches it by a link that goes with this handle. It steers nothing until services are
    /// set and sockets registered.
    ///
    /// # Errors
    /// [`SteerError::NoInterface`], [`SteerError::Foreign`], [`SteerError::NativeUnsupported`] (never with
    /// [`XdpMode::Auto`]), [`SteerError::NotPermitted`], or that the kernel does not accept the object.
    pub fn attach_owned(interface: &str, mode: XdpMode, level: SteerLogLevel) -> Result<Self, SteerError> {
        let interface = Interface::find(interface)?;
        let mut steer = Self::load(level)?;
        let Attached { link, mode, fallback } = attach::attach(steer.program.as_fd(), &interface, mode)?;
        let attachment = Attachment::Owned;
        steer.attached = Some(Place { interface, mode, fallback, attachment, link, folder: None });
        Ok(steer)
    }

    /// Loads the program, attaches it and pins link, program and maps under `directory`, for a daemon to adopt.
    /// Dropping the handle leaves it all in place.
    ///
    /// # Errors
    /// As [`Steer::attach_owned`]; [`SteerError::AlreadyLoaded`], [`SteerError::Held`], [`SteerError::Pin`].
    pub fn load_and_pin(
        interface: &str,
        mode: XdpMode,
        level: SteerLogLevel,
        services: &[ServiceRule],
        directory: &Path,
    ) -> Result<Self, SteerError> {
        let interface = Interface::find(interface)?;
        let folder = PinFolder::create(directory, &interface.name)?;
        let mut place = None;
        let result = Loaded::load().and_then(|loaded| {
            loaded.pin(&folder)?;
            let mut steer = loaded.into_steer(level)?;
            steer.set_services(services)?;
            let attached = attach::attach(steer.program.as_fd(), &interface, mode)?;
            // Last, so that what is found pinned is whole.
            let path = folder.link_path();
            kernel::pin(attached.link.as_fd(), &path)
                .map_err(|source| SteerError::pin("pinning", path, source))?;
            place = Some(attached);
            Ok(steer)
        });
        let mut steer = match result {
            Ok(steer) => steer,
            Err(error) => {
                if let Err(second) = folder.remove() {
                    tracing::warn!(%second, "what was pinned so far could not be removed");
                }
                return Err(error);
            }
        };
        steer.attached = place.map(|Attached { link, mode, fallback }| Place {
            interface,
            mode,
            fallback,
            attachment: Attachment::Adopted,
            link,
            folder: Some(folder),
        });
        Ok(steer)
    }

    /// Takes over what [`Steer::load_and_pin`] left under `directory`. Services stay as they are until they are set;
    /// heartbeats and sticky flows of an earlier daemon are forgotten.
    ///
    /// # Errors
    /// [`SteerError::NotLoaded`], [`SteerError::Held`] while another daemon has it, [`SteerError::Layout`] when
    /// another version made it, [`SteerError::Detached`] when the interface was made anew since,
    /// [`SteerError::ModeDiffers`] when `mode` names another than it runs in.
    pub fn adopt(
        interface: &str,
        mode: XdpMode,
        directory: &Path,
        level: SteerLogLevel,
    ) -> Result<Self, SteerError> {
        let interface = Interface::find(interface)?;
        let folder = PinFolder::open(directory, &interface.name)?;
        check_layout(&folder, &interface.name, directory)?;
        let not_loaded =
            || SteerError::NotLoaded { interface: interface.name.clone(), directory: directory.to_owned() };
        let link = folder.open_object(&folder.link_path())?.ok_or_else(not_loaded)?;
        let program = folder.open_object(&folder.program_path())?.ok_or_else(not_loaded)?;
        let info = LinkInfo::from_fd(link.as_fd()).map_err(|error| SteerError::Kernel {
            action: "asking for the pinned link",
            source: std::io::Error::other(error),
        })?;
        let on = match info.info {
            LinkTypeInfo::Xdp(info) => info.ifindex,
            _ => 0,
        };
        let attached = kernel::query_xdp(interface.index)
            .map_err(|source| SteerError::kernel("asking what is attached to the interface", source))?;
        let attached = match attached {
            Some((program, Some(mode))) if on == interface.index && program == info.prog_id => mode,
            _ => {
                return Err(SteerError::Detached {
                    interface: interface.name.clone(),
                    directory: directory.to_owned(),
                });
            }
        };
        let fallback = adopted_fallback(&interface.name, attached, mode, directory)?;
        let maps = Maps::open(folder.path())?;
        let log = log::object_around(&folder.map_path(layout::LOG))?;
        let mut steer = Self::new(program, info.prog_id, maps, log)?;
        steer.forget_the_past()?;
        steer.write_settings(level)?;
        steer.attached = Some(Place {
            interface,
            mode: attached,
            fallback,
            attachment: Attachment::Adopted,
            link,
            folder: Some(folder),
        });
        Ok(steer)
    }

    fn new(program: OwnedFd, program_id: u32, maps: Maps, log: aya::Ebpf) -> Result<Self, SteerError> {
        let services = Services::new(&maps)?;
        Ok(Self { program, program_id, maps, services, log: Some(log), attached: None })
    }

    /// What an earlier daemon left says nothing of this one.
    fn forget_the_past(&mut self) -> Result<(), SteerError> {
        self.heartbeats()?.reset();
        forget_flows(&mut self.maps.udp_flows, layout::UDP_FLOWS)?;
        forget_flows(&mut self.maps.tcp_flows, layout::TCP_FLOWS)
    }

    /// Attaches the program again if somebody has detached its link since (`bpftool link detach`); sockets, services
    /// and heartbeats stay as they are. True when it was so. An adopted program's new link takes the place of the
    /// pinned one.
    ///
    /// # Errors
    /// [`SteerError::Foreign`] when another program is there now, or as [`Steer::attach_owned`].
    pub fn stay_attached(&mut self, mode: XdpMode) -> Result<bool, SteerError> {
        let Some(place) = &mut self.attached else { return Ok(false) };
        let attached = kernel::query_xdp(place.interface.index)
            .map_err(|source| SteerError::kernel("asking what is attached to the interface", source))?;
        if attached.is_some_and(|(program, _)| program == self.program_id) {
            return Ok(false);
        }
        // An adopted program goes on in the mode it was loaded in.
        let mode = match (place.attachment, place.mode) {
            (Attachment::Owned, _) => mode,
            (Attachment::Adopted, AttachedMode::Native) => XdpMode::Native,
            (Attachment::Adopted, AttachedMode::Generic) => XdpMode::Generic,
        };
        let Attached { link, mode, fallback } = attach::attach(self.program.as_fd(), &place.interface, mode)?;
        if let Some(folder) = &place.folder {
            folder.replace_link(link.as_fd())?;
        }
        place.link = link;
        place.mode = mode;
        if place.attachment == Attachment::Owned {
            place.fallback = fallback;
        }
        Ok(true)
    }

    /// Lets go of the interface: detaches an owned program, leaves an adopted one to whoever adopts it next. Dropping
    /// the handle does the same.
    pub fn let_go(&mut self) {
        self.attached = None;
    }

    /// The program's number in the kernel.
    #[must_use]
    pub fn program_id(&self) -> u32 {
        self.program_id
    }

    /// Name of the interface it is attached to; `None` when it was only loaded.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.attached.as_ref().map(|place| place.interface.name.as_str())
    }

    /// How it runs; `None` when it was only loaded.
    #[must_use]
    pub fn mode(&self) -> Option<AttachedMode> {
        self.attached.as_ref().map(|place| place.mode)
    }

    /// Why native mode was not had, when [`XdpMode::Auto`] came to generic.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.attached.as_ref()?.fallback.as_deref()
    }

    /// Who attached it; `None` when it was only loaded.
    #[must_use]
    pub fn attachment(&self) -> Option<Attachment> {
        self.attached.as_ref().map(|place| place.attachment)
    }

    /// Makes the program hand packets of a queue to an AF_XDP socket, which must be bound to that queue of this
    /// interface. The kernel takes the socket out again when it is closed. Packets go there once the worker beats.
    ///
    /// # Errors
    /// [`SteerError::NoQueue`], or what the kernel says of the descriptor.
    pub fn register_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), SteerError> {
        check_queue(queue)?;
        self.maps.sockets.set(queue, socket, 0).map_err(|source| SteerError::map(layout::XSKS, source))
    }

    /// Makes the program steer exactly these services. What does not change is not touched, and no packet meets a
    /// service whose allow-list is incomplete.
    ///
    /// # Errors
    /// [`SteerError::Service`], [`SteerError::Duplicate`] and [`SteerError::TooMany`] before anything is changed;
    /// [`SteerError::Map`] when the kernel refuses, with each service then either as before or as asked for.
    pub fn set_services(&mut self, rules: &[ServiceRule]) -> Result<(), SteerError> {
        self.services.set(&mut self.maps, rules)
    }

    /// Makes the program steer nothing: every packet goes to the kernel.
    ///
    /// # Errors
    /// [`SteerError::Map`] when the kernel refuses.
    pub fn clear_services(&mut self) -> Result<(), SteerError> {
        self.set_services(&[])
    }

    /// The workers' heartbeats, mapped into this process.
    ///
    /// # Errors
    /// [`SteerError::Mapping`].
    pub fn heartbeats(&self) -> Result<HeartbeatMap, SteerError> {
        HeartbeatMap::new(self.maps.queues.fd().as_fd())
    }

    /// Packets by verdict, under its label, summed over CPUs, since the program was loaded.
    ///
    /// # Errors
    /// [`SteerError::Map`] when the kernel refuses.
    pub fn counters(&self) -> Result<BTreeMap<&'static str, u64>, SteerError> {
        let mut counters = BTreeMap::new();
        for &verdict in Verdict::ALL {
            let values = self
                .maps
                .counters
                .get(&(verdict as u32), 0)
                .map_err(|source| SteerError::map(layout::COUNTERS, source))?;
            counters.insert(verdict.label(), values.iter().sum());
        }
        Ok(counters)
    }

    /// The program's own log. Taken once, by the control plane.
    ///
    /// # Errors
    /// [`SteerError::Log`], also when it was taken already.
    pub fn log(&mut self) -> Result<ProgramLog, SteerError> {
        let mut object = self.log.take().ok_or_else(|| SteerError::Log("it was taken already".to_owned()))?;
        ProgramLog::take(&mut object)
    }

    fn write_settings(&mut self, level: SteerLogLevel) -> Result<(), SteerError> {
        let settings = Settings { layout_version: LAYOUT_VERSION, log_level: level.number() };
        self.maps
            .settings
            .set(0, Plain(settings), 0)
            .map_err(|source| SteerError::map(layout::SETTINGS, source))
    }

    /// Runs the program on one packet, as if it had come in on queue 0 (`BPF_PROG_TEST_RUN`). Nothing is sent or
    /// received, but counters count and flows stick.
    ///
    /// # Errors
    /// What the kernel says: it takes no packet shorter than an Ethernet header.
    pub fn test_run(&self, packet: &[u8]) -> Result<Action, SteerError> {
        test_run(self.program.as_fd(), packet)
    }

    /// Runs the program from another thread, while this one changes what it is fed.
    ///
    /// # Errors
    /// [`SteerError::Kernel`] when the process has no descriptor left.
    pub fn test_runner(&self) -> Result<TestRunner, SteerError> {
        let program = self.program.try_clone();
        let program =
            program.map_err(|source| SteerError::kernel("duplicating the program's descriptor", source))?;
        Ok(TestRunner { program })
    }
}

/// Runs a program on packets; see [`Steer::test_runner`].
#[derive(Debug)]
pub struct TestRunner {
    program: OwnedFd,
}

impl TestRunner {
    /// As [`Steer::test_run`].
    ///
    /// # Errors
    /// As [`Steer::test_run`].
    pub fn test_run(&self, packet: &[u8]) -> Result<Action, SteerError> {
        test_run(self.program.as_fd(), packet)
    }
}

fn test_run(program: BorrowedFd<'_>, packet: &[u8]) -> Result<Action, SteerError> {
    kernel::test_run(program, packet)
        .map_err(|source| SteerError::kernel("running the XDP program on a packet", source))
}

impl std::fmt::Debug for Steer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Steer")
            .field("program_id", &self.program_id)
            .field("interface", &self.interface())
            .field("mode", &self.mode())
            .field("pinned", &self.attached.as_ref().and_then(|place| place.folder.as_ref()))
            .finish_non_exhaustive()
    }
}

fn forget_flows(flows: &mut Flows, map: &'static str) -> Result<(), SteerError> {
    let fail = |source| SteerError::map(map, source);
    let keys: Vec<_> = flows.keys().collect::<Result<_, _>>().map_err(fail)?;
    for key in keys {
        match flows.remove(&key) {
            // The program evicts flows too.
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
            Err(source) => return Err(fail(source)),
        }
    }
    Ok(())
}

fn check_queue(queue: u32) -> Result<(), SteerError> {
    let known = usize::try_from(queue).is_ok_and(|queue| queue < QUEUES_MAX);
    if known { Ok(()) } else { Err(SteerError::NoQueue { queue }) }
}

/// Holds an adopted program's mode against the one asked for. Why it is not native, when that was left open.
fn adopted_fallback(
    interface: &str,
    attached: AttachedMode,
    wanted: XdpMode,
    directory: &Path,
) -> Result<Option<String>, SteerError> {
    let wanted = match (wanted, attached) {
        (XdpMode::Auto, AttachedMode::Native) => return Ok(None),
        (XdpMode::Auto, AttachedMode::Generic) => {
            tracing::warn!(interface, "the adopted steering program runs in generic mode, which costs more");
            return Ok(Some("`steer load` attached it in generic mode".to_owned()));
        }
        (XdpMode::Native, _) => AttachedMode::Native,
        (XdpMode::Generic, _) => AttachedMode::Generic,
    };
    if wanted == attached {
        return Ok(None);
    }
    let (interface, directory) = (interface.to_owned(), directory.to_owned());
    Err(SteerError::ModeDiffers { interface, directory, attached, wanted })
}

/// Refuses what another version made, before anything else of it is believed.
fn check_layout(folder: &PinFolder, interface: &str, directory: &Path) -> Result<(), SteerError> {
    let fail = |found| {
        Err(SteerError::Layout {
            interface: interface.to_owned(),
            directory: directory.to_owned(),
            found,
            needed: LAYOUT_VERSION,
        })
    };
    match super::maps::layout_version(folder.path()) {
        Some(LAYOUT_VERSION) => Ok(()),
        found => fail(found),
    }
}
