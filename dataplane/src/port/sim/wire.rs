//! The wire, and both ends of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;

use super::Random;
use crate::limits::{FRAME_BYTES, FRAME_HEADROOM_BYTES, PACKET_BYTES_MAX};
use crate::memory::Placement;
use crate::port::{
    Frame, FrameAccounts, FrameBatch, Port, PortDrops, PortError, PortSurvey, QueueOwner, Umem, UmemError,
};

/// What the wire does to packets, each in thousandths, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lost.
    pub loss: u32,
    /// Delivered twice.
    pub duplication: u32,
    /// Delivered before packets sent earlier.
    pub reordering: u32,
    /// One bit flipped.
    pub corruption: u32,
    /// Cut short.
    pub truncation: u32,
    /// Delivered up to [`DELAY_POLLS_MAX`] polls later.
    pub delay: u32,
}

/// Longest delay, in polls of the port: many times as long as a request takes to be answered.
pub const DELAY_POLLS_MAX: usize = 60;

/// Bytes of an Ethernet header, which an MTU does not count.
const ETHERNET_BYTES: usize = 14;

/// What is wrong with the port, for as long as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The link is set down: nothing arrives, and a flush says so. It goes on by itself.
    LinkDown,
    /// The interface is gone: nothing arrives, and a flush with something to send says so.
    Gone,
    /// The RX ring cannot be trusted: what had arrived is received, and then said so.
    Corrupt,
}

/// What the port handed to the worker and what it was given to send, since it was last asked; before faults on the
/// way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Packets received, in the order in which the worker took them.
    pub received: Vec<Vec<u8>>,
    /// Packets sent, in the order in which they left.
    pub sent: Vec<Vec<u8>>,
}

/// Sizes of a simulated queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Frames in its UMEM.
    pub frames: usize,
    /// Descriptors in each ring.
    pub ring_entries: usize,
    /// Frames one kick sends, as a copy-mode kick sends 32.
    pub kick_frames: usize,
    /// Bytes of the longest packet, without its Ethernet header, that the link carries.
    pub mtu_bytes: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self { frames: 256, ring_entries: 64, kick_frames: 32, mtu_bytes: FRAME_BYTES }
    }
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Delivered into a frame of the port.
    pub delivered: u64,
    /// Lost for want of a frame or of room in the RX ring, as a NIC would.
    pub overrun: u64,
    /// Lost by a fault or with the link, either way.
    pub lost: u64,
    /// Longer than the link's MTU, either way, and lost for it.
    pub too_long: u64,
    /// Changed by a fault, either way.
    pub damaged: u64,
    /// Sent by the port.
    pub sent: u64,
}

#[derive(Debug)]
struct State {
    umem: Arc<Umem>,
    config: SimConfig,
    faults: Faults,
    random: Random,
    /// Packets on their way to the port, and from it.
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
    /// Those that are late, each with the poll it arrives at, and whether it goes to the port.
    late: Vec<(usize, bool, Vec<u8>)>,
    polls: usize,
    failure: Option<Failure>,
    record: Option<Record>,
    /// The queue's rings.
    fill: VecDeque<Frame>,
    received: VecDeque<Frame>,
    transmit: VecDeque<Frame>,
    completed: VecDeque<Frame>,
    free: Vec<Frame>,
    counts: WireCounts,
}

/// The client's end of the wire.
#[derive(Clone, Debug)]
pub struct Wire(Rc<RefCell<State>>);

/// The worker's end.
#[derive(Debug)]
pub struct SimPort {
    state: Rc<RefCell<State>>,
    umem: Arc<Umem>,
}

/// Owner of the simulated fill and completion rings.
#[derive(Debug)]
pub struct SimQueue(Rc<RefCell<State>>);

/// Makes a wire and its two ends from a seed.
///
/// # Errors
/// [`UmemError`] when the frames cannot be had.
pub fn simulated(
    seed: u64,
    config: SimConfig,
    faults: Faults,
) -> Result<(Wire, SimPort, SimQueue), UmemError> {
    let (umem, free) = Umem::allocate(config.frames, Placement::default())?;
    let umem = Arc::new(umem);
    let state = State {
        umem: Arc::clone(&umem),
        config,
        faults,
        random: Random::new(seed),
        inbound: VecDeque::new(),
        outbound: VecDeque::new(),
        late: Vec::new(),
        polls: 0,
        failure: None,
        record: None,
        fill: VecDeque::new(),
        received: VecDeque::new(),
        transmit: VecDeque::new(),
        completed: VecDeque::new(),
        free,
        counts: WireCounts::default(),
    };
    let state = Rc::new(RefCell::new(state));
    Ok((Wire(Rc::clone(&state)), SimPort { state: Rc::clone(&state), umem }, SimQueue(state)))
}

impl State {
    /// Puts a packet on one of the two directions, with its faults.
    fn carry(&mut self, mut packet: Vec<u8>, inbound: bool) {
        let Self { faults, random, counts, config, failure, .. } = self;
        if packet.len() > ETHERNET_BYTES + config.mtu_bytes {
            counts.too_long += 1;
            return;
        }
        if random.chance(faults.loss) || matches!(failure, Some(Failure::LinkDown | Failure::Gone)) {
            counts.lost += 1;
            return;
        }
        if random.chance(faults.corruption) && !packet.is_empty() {
            let bit = random.below(packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
            counts.damaged += 1;
        }
        if random.chance(faults.truncation) {
            packet.truncate(random.below(packet.len()));
            counts.damaged += 1;
        }
        let copies = if random.chance(faults.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if random.chance(faults.delay) {
                self.late.push((self.polls + 1 + random.below(DELAY_POLLS_MAX), inbound, packet.clone()));
                continue;
            }
            let overtakes = random.chance(faults.reordering);
            let direction = if inbound { &mut self.inbound } else { &mut self.outbound };
            let place = if overtakes { random.below(direction.len() + 1) } else { direction.len() };
            direction.insert(place, packet.clone());
        }
    }

    /// What the NIC does between polls: takes packets off the wire into frames.
    fn deliver(&mut self) {
        self.polls += 1;
        let due = self.late.extract_if(.., |(poll, _, _)| *poll <= self.polls);
        for (_, inbound, packet) in due {
            if inbound { self.inbound.push_back(packet) } else { self.outbound.push_back(packet) }
        }
        while let Some(packet) = self.inbound.pop_front() {
            let full = self.received.len() >= self.config.ring_entries;
            let frame = (!full && packet.len() <= PACKET_BYTES_MAX).then(|| self.fill.pop_front()).flatten();
            let Some(frame) = frame else {
                self.counts.overrun += 1;
                continue;
            };
            let chunk = frame.address() - frame.address() % FRAME_BYTES as u64;
            self.umem.surrender(frame);
            // As the kernel does: the packet lies behind the headroom.
            let address = chunk + FRAME_HEADROOM_BYTES as u64;
            let length = u32::try_from(packet.len()).expect("checked against the largest packet");
            // SAFETY: the token of this chunk was surrendered in the statement above, and one thread runs the wire.
            let frame = unsafe { self.umem.reclaim(address, length) };
            let mut frame = frame.expect("a packet that fits a chunk lies within it");
            self.umem.packet_mut(&mut frame).copy_from_slice(&packet);
            self.received.push_back(frame);
            self.counts.delivered += 1;
        }
    }

    fn kick(&mut self) {
        for _ in 0..self.config.kick_frames {
            let Some(frame) = self.transmit.pop_front() else { return };
            let packet = self.umem.packet(&frame).to_vec();
            self.completed.push_back(frame);
            self.counts.sent += 1;
            if let Some(record) = &mut self.record {
                record.sent.push(packet.clone());
            }
            self.carry(packet, false);
        }
    }

    fn error(&self, failure: Failure) -> PortError {
        let (interface, queue) = ("simulated".to_owned(), 0);
        let down = |errno| std::io::Error::from_raw_os_error(errno);
        match failure {
            Failure::LinkDown => PortError::Down { interface, queue, reason: down(libc::ENETDOWN) },
            Failure::Gone => PortError::Down { interface, queue, reason: down(libc::ENXIO) },
            Failure::Corrupt => {
                PortError::Corrupt { interface, queue, ring: "RX", detail: "an injected failure".to_owned() }
            }
        }
    }
}

impl Wire {
    /// Sends a packet towards the port.
    pub fn send(&self, packet: Vec<u8>) {
        self.0.borrow_mut().carry(packet, true);
    }

    /// Takes a packet the port sent.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.0.borrow_mut().outbound.pop_front()
    }

    /// Changes the faults from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// Makes the port fail from here on, or mends it.
    pub fn set_failure(&self, failure: Option<Failure>) {
        self.0.borrow_mut().failure = failure;
    }

    /// Changes the link's MTU from here on.
    pub fn set_mtu(&self, mtu_bytes: usize) {
        self.0.borrow_mut().config.mtu_bytes = mtu_bytes;
    }

    /// Takes the record since the last call; recording starts with the first.
    pub fn record(&self) -> Record {
        self.0.borrow_mut().record.replace(Record::default()).unwrap_or_default()
    }

    /// True when no packet is on its way to the port, and none late in either direction.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let state = self.0.borrow();
        state.inbound.is_empty() && state.late.is_empty()
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn counts(&self) -> WireCounts {
        self.0.borrow().counts
    }
}

impl Port for SimPort {
    fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), PortError> {
        let mut state = self.state.borrow_mut();
        state.deliver();
        let count = state.received.len().min(batch.remaining_capacity());
        let State { received, record, umem, .. } = &mut *state;
        if let Some(record) = record {
            let packets = received.iter().take(count).map(|frame| umem.packet(frame).to_vec());
            record.received.extend(packets);
        }
        batch.extend(received.drain(..count));
        match state.failure {
            Some(Failure::Corrupt) => Err(state.error(Failure::Corrupt)),
            _ => Ok(()),
        }
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.state.borrow_mut().free.pop()
    }

    fn available(&self) -> usize {
        self.state.borrow().free.len()
    }

    fn transmit_room(&self) -> usize {
        let state = self.state.borrow();
        state.config.ring_entries - state.transmit.len()
    }

    fn release(&mut self, frame: Frame) {
        self.state.borrow_mut().free.push(frame);
    }

    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        let mut state = self.state.borrow_mut();
        if state.transmit.len() >= state.config.ring_entries {
            return Err(frame);
        }
        state.transmit.push_back(frame);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        let mut state = self.state.borrow_mut();
        match state.failure {
            Some(Failure::LinkDown) => return Err(state.error(Failure::LinkDown)),
            // As the kernel has it: without anything to send there is no doorbell to say so.
            Some(Failure::Gone) if !state.transmit.is_empty() => return Err(state.error(Failure::Gone)),
            _ => {}
        }
        state.kick();
        Ok(())
    }

    fn survey(&mut self) -> PortSurvey {
        let state = self.state.borrow();
        PortSurvey {
            mtu_bytes: (state.failure != Some(Failure::Gone)).then_some(state.config.mtu_bytes),
            drops: PortDrops { ring_full: state.counts.overrun, ..PortDrops::default() },
        }
    }

    fn backlog(&self) -> usize {
        self.state.borrow().transmit.len()
    }

    fn wait_handle(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn accounts(&self) -> FrameAccounts {
        let state = self.state.borrow();
        FrameAccounts { received: state.received.len() as u64, ..FrameAccounts::default() }
    }
}

impl QueueOwner for SimQueue {
    fn poll(&mut self) -> Result<(), PortError> {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        state.free.extend(state.completed.drain(..));
        // Half of the frames are for receiving, so that replies never starve.
        let reserve = state.config.frames / 2;
        while state.fill.len() < state.config.ring_entries && state.free.len() > reserve {
            let frame = state.free.pop().expect("more than the reserve is free");
            state.fill.push_back(frame);
        }
        Ok(())
    }

    fn accounts(&self) -> FrameAccounts {
        let state = self.0.borrow();
        FrameAccounts {
            total: u64::from(state.umem.frames()),
            filling: state.fill.len() as u64,
            sending: (state.transmit.len() + state.completed.len()) as u64,
            free: state.free.len() as u64,
            ..FrameAccounts::default()
        }
    }
}
