//! Timers: a hierarchical wheel (Varghese and Lauck, 1987) of four levels of 64 slots. Each timer has a number
//! below the count it was made for and at most one time; setting, moving and cancelling one costs the same however
//! many there are. Timers never fire early, and at most one tick late.

use super::pool::NIL;

/// Bits of nanoseconds in a tick: 262 us.
const TICK_BITS: u32 = 18;
const LEVELS: usize = 4;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Ticks the wheel reaches ahead (73 minutes); what is due later waits in its last slot and is hung again from there.
const REACH: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;
const UNSET: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Timer {
    next: u32,
    previous: u32,
    /// Level and slot it hangs in.
    slot: u16,
    due: u64,
}

/// The wheel.
pub(super) struct Wheel {
    /// The tick up to which timers have fired.
    current: u64,
    heads: [[u32; SLOTS]; LEVELS],
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    timers: Box<[Timer]>,
}

impl Wheel {
    pub(super) fn new(timers: usize) -> Self {
        Self {
            current: 0,
            heads: [[NIL; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            timers: vec![Timer { next: NIL, previous: NIL, slot: UNSET, due: 0 }; timers].into_boxed_slice(),
        }
    }

    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: u32, now_ns: u64, due_ns: u64) {
        self.cancel(timer);
        if self.occupied == [0; LEVELS] {
            // Nobody looked while there was nothing to fire: it goes on from now, as if somebody had.
            self.current = self.current.max(now_ns >> TICK_BITS);
        }
        self.timers[timer as usize].due = due_ns.div_ceil(1 << TICK_BITS).max(self.current + 1);
        self.hang(timer);
    }

    /// A timer that is not set may be cancelled too.
    pub(super) fn cancel(&mut self, timer: u32) {
        let Timer { next, previous, slot, .. } = self.timers[timer as usize];
        if slot == UNSET {
            return;
        }
        let (level, index) = (usize::from(slot) / SLOTS, usize::from(slot) % SLOTS);
        if previous == NIL {
            self.heads[level][index] = next;
            if next == NIL {
                self.occupied[level] &= !(1 << index);
            }
        } else {
            self.timers[previous as usize].next = next;
        }
        if next != NIL {
            self.timers[next as usize].previous = previous;
        }
        self.timers[timer as usize].slot = UNSET;
    }

    /// Hangs a timer into the slot of its time, which is not before the current tick.
    fn hang(&mut self, timer: u32) {
        let ahead = (self.timers[timer as usize].due - self.current).min(REACH);
        let due = self.current + ahead;
        let level = (0..LEVELS - 1)
            .find(|&level| ahead < 1 << (SLOT_BITS * (level as u32 + 1)))
            .unwrap_or(LEVELS - 1);
        let index = (due >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let next = self.heads[level][index];
        if next != NIL {
            self.timers[next as usize].previous = timer;
        }
        self.heads[level][index] = timer;
        self.occupied[level] |= 1 << index;
        let record = &mut self.timers[timer as usize];
        (record.next, record.previous, record.slot) = (next, NIL, (level * SLOTS + index) as u16);
    }

    /// The next timer whose time has come, which is unset with that; `None` when no more has. A timer that is set
    /// while these are gone through does not fire in the same tick.
    pub(super) fn expire(&mut self, now_ns: u64) -> Option<u32> {
        let now = now_ns >> TICK_BITS;
        loop {
            let timer = self.heads[0][self.current as usize % SLOTS];
            if timer != NIL {
                self.cancel(timer);
                return Some(timer);
            }
            if self.current >= now {
                return None;
            }
            self.step(now);
        }
    }

    /// Goes on to the next tick at which anything can happen, and no further than `now`.
    fn step(&mut self, now: u64) {
        let next = match self.occupied.iter().position(|&occupied| occupied != 0) {
            None => now,
            Some(0) => {
                let start = self.current % SLOTS as u64;
                match self.occupied[0] >> start >> 1 {
                    0 => self.current - start + SLOTS as u64,
                    ahead => self.current + 1 + u64::from(ahead.trailing_zeros()),
                }
            }
            // Nothing can come down to the levels below before the next turn of this one.
            Some(level) => {
                let shift = SLOT_BITS * level as u32;
                ((self.current >> shift) + 1) << shift
            }
        };
        self.current = next.min(now);
        if self.current.is_multiple_of(SLOTS as u64) {
            self.cascade();
        }
    }

    /// At the start of a turn, the timers of the coming turn come down from the levels above.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let index = (self.current >> (SLOT_BITS * level as u32)) as usize % SLOTS;
            let mut timer = std::mem::replace(&mut self.heads[level][index], NIL);
            self.occupied[level] &= !(1 << index);
            while timer != NIL {
                let next = self.timers[timer as usize].next;
                self.hang(timer);
                timer = next;
            }
            if index != 0 {
                break;
            }
        }
    }

    /// A time before which no timer fires, in nanoseconds; `None` when none is set. It may be earlier than the
    /// first: nobody is told too late.
    pub(super) fn next_ns(&self) -> Option<u64> {
        (0..LEVELS)
            .filter(|&level| self.occupied[level] != 0)
            .map(|level| {
                let shift = SLOT_BITS * level as u32;
                let at = self.current >> shift;
                // The current slot comes last: on the first level it has been emptied, above it comes round again.
                let ahead = self.occupied[level].rotate_right((at as u32 + 1) % SLOTS as u32);
                (at + 1 + u64::from(ahead.trailing_zeros())) << shift << TICK_BITS
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK_NS: u64 = 1 << TICK_BITS;

    proptest! {
        #[test]
        fn timers_fire_in_time_and_never_early(
            start_ns in 0u64..1 << 45,
            // Or the first timer is set before anybody asked for one.
            looked in any::<bool>(),
            steps in proptest::collection::vec(
                (0u32..20, prop_oneof![0u64..1 << 20, 0u64..1 << 30, 0u64..1 << 38, 0u64..1 << 41], any::<bool>()),
                1..100
            ),
        ) {
            let mut wheel = Wheel::new(20);
            let mut now_ns = start_ns;
            if looked {
                prop_assert_eq!(wheel.expire(now_ns), None);
            }
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (timer, ns, sets) in steps {
                if sets {
                    wheel.set(timer, now_ns, now_ns + ns);
                    model.insert(timer, now_ns + ns);
                } else {
                    if ns % 5 == 0 {
                        wheel.cancel(timer);
                        model.remove(&timer);
                    }
                    now_ns += ns / 4;
                    while let Some(timer) = wheel.expire(now_ns) {
                        let due_ns = model.remove(&timer).expect("a timer that was set");
                        prop_assert!(due_ns <= now_ns, "early by {}", due_ns - now_ns);
                    }
                    for (&timer, &due_ns) in &model {
                        prop_assert!(due_ns + 2 * TICK_NS > now_ns, "timer {timer} is late");
                    }
                }
                match wheel.next_ns() {
                    Some(next_ns) => {
                        let first_ns = *model.values().min().expect("a timer is set");
                        prop_assert!(next_ns <= first_ns.max(now_ns) + 2 * TICK_NS);
                    }
                    None => prop_assert!(model.is_empty()),
                }
            }
        }
    }

    #[test]
    fn the_next_time_draws_near_until_the_timer_fires() {
        let mut wheel = Wheel::new(1);
        wheel.set(0, 0, 3_600 * 1_000_000_000);
        let mut wakes = 0;
        while let Some(next_ns) = wheel.next_ns() {
            wakes += 1;
            assert!(wakes < 20, "an idle hour needs few wakes");
            wheel.expire(next_ns);
        }
    }

    #[test]
    fn a_clock_that_has_run_for_years_is_caught_up_with_at_once() {
        let mut wheel = Wheel::new(1);
        assert_eq!(wheel.expire(u64::MAX / 2), None);
        wheel.set(0, u64::MAX / 2, u64::MAX / 2 + (1 << 40));
        assert_eq!(wheel.expire(u64::MAX / 2 + (1 << 39)), None);
        assert_eq!(wheel.expire(u64::MAX / 2 + (1 << 41)), Some(0));
    }

    #[test]
    fn the_first_timer_of_a_wheel_does_not_fire_early_however_long_the_host_has_run() {
        const DAY_NS: u64 = 24 * 3_600 * 1_000_000_000;
        let mut wheel = Wheel::new(2);
        wheel.set(0, 3 * DAY_NS, 3 * DAY_NS + (1 << 30));
        assert_eq!(wheel.expire(3 * DAY_NS), None);
        assert_eq!(wheel.expire(3 * DAY_NS + (1 << 30) + TICK_NS), Some(0));
        // Nor does one beyond the wheel's reach.
        wheel.set(1, 3 * DAY_NS, 4 * DAY_NS);
        assert_eq!(wheel.expire(4 * DAY_NS - TICK_NS), None);
        assert_eq!(wheel.expire(4 * DAY_NS + TICK_NS), Some(1));
    }

    #[test]
    fn a_timer_set_while_others_fire_waits_for_the_next_tick() {
        let mut wheel = Wheel::new(1);
        wheel.set(0, 0, 0);
        assert_eq!(wheel.expire(TICK_NS), Some(0));
        wheel.set(0, TICK_NS, 0);
        assert_eq!(wheel.expire(TICK_NS), None);
        assert_eq!(wheel.expire(2 * TICK_NS), Some(0));
    }
}
