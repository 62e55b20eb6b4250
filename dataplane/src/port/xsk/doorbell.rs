//! When the transmit doorbell is rung, and how often.

use crate::port::PortError;

use super::ring::{Descriptor, Producer};
use super::socket::Socket;

/// How the doorbell has to be rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doorbell {
    /// The driver takes packets by itself once awake, and raises a flag when it went to sleep. In copy mode
    /// nothing is ever sent but inside the doorbell's system call.
    pub(super) zero_copy: bool,
    /// The doorbell drives reception too, so it is rung at every flush.
    pub(super) busy_poll: bool,
    /// Packets one doorbell sends in copy mode.
    pub(super) budget: u32,
}

/// What the kernel said to a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rang {
    /// It did what can be done now.
    Done,
    /// It wants to be asked again: its budget is spent, or there is no room.
    Again,
}

/// Copy mode: rings until all is taken, or until a ring takes nothing.
///
/// A kernel before 6.17 that stops at its budget says so, but shows what it took only once it finds the ring
/// empty. So while it says "again" it is asked again without any progress to be seen, as often as its budget
/// needs for all there is.
#[inline]
pub(super) fn send_by_copy(
    transmit: &mut Producer<Descriptor>,
    socket: &Socket,
    budget: u32,
    mut ring: impl FnMut() -> Result<Rang, PortError>,
) -> Result<(), PortError> {
    let mut pending = transmit.pending();
    let mut unseen = 0;
    loop {
        let rang = ring()?;
        let left = transmit.refresh().map_err(|fault| socket.corrupt("TX", fault))?;
        if left == 0 {
            return Ok(());
        }
        if left < pending {
            // This ends, as `left` falls each time.
            (pending, unseen) = (left, 0);
            continue;
        }
        // The device or the completion ring is full. That takes others to change, so the next flush tries
        // again.
        if rang == Rang::Done || unseen == pending / budget {
            return Ok(());
        }
        unseen += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::ring::Consumer;
    use super::super::ring::tests::ends;
    use super::*;

    const ENTRIES: u32 = 256;

    fn ring_of(packets: u32) -> (Producer<Descriptor>, Consumer<Descriptor>) {
        let (_, mut transmit, kernel) = ends(ENTRIES, u32::MAX - 100);
        for number in 0..packets {
            let packet = Descriptor { address: u64::from(number), length: 60, options: 0 };
            assert_eq!(transmit.push(packet), Ok(Ok(())));
        }
        transmit.publish();
        (transmit, kernel)
    }

    fn stand_in() -> Socket {
        Socket::stand_in(std::os::unix::net::UnixDatagram::unbound().expect("a descriptor").into())
    }

    /// A kernel that takes `budget` packets a doorbell, of which it has room for `room` in all. What it took it
    /// shows at once, or only when it finds nothing more to take.
    struct Kernel {
        ring: Consumer<Descriptor>,
        budget: u32,
        room: u32,
        shows_at_once: bool,
        unshown: u32,
        doorbells: u32,
    }

    impl Kernel {
        fn new(ring: Consumer<Descriptor>, budget: u32, room: u32, shows_at_once: bool) -> RefCell<Self> {
            RefCell::new(Self { ring, budget, room, shows_at_once, unshown: 0, doorbells: 0 })
        }

        fn ring(&mut self) -> Rang {
            self.doorbells += 1;
            let waiting = self.ring.refresh().expect("an honest user") - self.unshown;
            let taken = waiting.min(self.budget).min(self.room);
            self.room -= taken;
            self.unshown += taken;
            let all = taken == waiting;
            if self.shows_at_once || all {
                self.ring.release(std::mem::take(&mut self.unshown));
            }
            if all { Rang::Done } else { Rang::Again }
        }
    }

    #[test]
    fn all_packets_leave_at_one_flush_whatever_the_kernel_shows_meanwhile() {
        for shows_at_once in [true, false] {
            for packets in [1, 31, 32, 33, 64, 200, 255, 256] {
                let (mut transmit, ring) = ring_of(packets);
                let kernel = Kernel::new(ring, 32, u32::MAX, shows_at_once);
                let ring = || Ok(kernel.borrow_mut().ring());
                send_by_copy(&mut transmit, &stand_in(), 32, ring).expect("up");
                assert_eq!(transmit.pending(), 0, "{packets} packets, shown at once: {shows_at_once}");
                assert_eq!(kernel.borrow().doorbells, packets.div_ceil(32), "{packets} packets");
            }
        }
    }

    #[test]
    fn a_kernel_without_room_is_not_asked_for_ever() {
        for (shows_at_once, budget) in [(true, 32), (false, 32), (true, ENTRIES)] {
            let (mut transmit, ring) = ring_of(200);
            let kernel = Kernel::new(ring, budget, 100, shows_at_once);
            let ring = || Ok(kernel.borrow_mut().ring());
            send_by_copy(&mut transmit, &stand_in(), budget, ring).expect("no room is no error");
            assert!(transmit.pending() >= 100);
            // As many as its packets need, and one to be sure, and those that did show something.
            let most = 200 / budget + 1 + 100u32.div_ceil(budget);
            assert!(kernel.borrow().doorbells <= most, "{} doorbells", kernel.borrow().doorbells);
        }
    }

    #[test]
    fn a_kernel_that_did_what_it_could_is_asked_once() {
        let (mut transmit, _kernel) = ring_of(200);
        let mut doorbells = 0;
        let ring = || {
            doorbells += 1;
            Ok(Rang::Done)
        };
        send_by_copy(&mut transmit, &stand_in(), 32, ring).expect("no room is no error");
        assert_eq!((doorbells, transmit.pending()), (1, 200));
    }
}
