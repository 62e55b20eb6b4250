//! The connections: what each was asked and has not answered, and what becomes of a reply.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use dataplane::net::tcp::{Admission, Closed, FlowId, Handler, Io, Taken};

use super::dialect::{Exchange, Judged};
use super::load::{Keys, Load, Outcome, PIPELINE_MAX, Pace};
use crate::workload::Random;

const _: () = assert!(PIPELINE_MAX.is_power_of_two());

/// Connections that get their first request in one turn: all at once they would be one burst.
const STARTS_PER_TURN: usize = 8;
/// Latencies that a closed loop takes at least.
const LATENCIES_MIN: u64 = 100;
/// Bytes of a wrong reply that are shown.
const SHOWN_BYTES_MAX: usize = 80;

/// One connection. Requests are numbered from 0; those from `answered` to `asked` are under way.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    asked: u32,
    answered: u32,
}

/// A request under way.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// When it was sent, or due.
    at_ns: u64,
    key: u32,
}

/// What the requests of a run are, and how far it is.
#[derive(Debug)]
pub(super) struct Run {
    exchange: Exchange,
    keys: Keys,
    next_key: u32,
    pub(super) pace: Pace,
    start_ns: u64,
    /// Where counting starts and ends.
    counted_ns: [u64; 2],
    phase: Phase,
    /// Connections that were started.
    started: usize,
    /// Requests that may be under way by now, of [`Pace::Rotating`].
    under_way_max: usize,
    /// Requests of an open loop that were sent.
    sent: u64,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmingUp,
    Counting,
    /// What is under way is waited for.
    Ending,
}

impl Run {
    pub(super) fn new(load: &Load, now_ns: u64) -> Self {
        let Load { shape, keys, pace, warm_up, length } = *load;
        let nanoseconds = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = now_ns + nanoseconds(warm_up);
        Self {
            exchange: Exchange::new(shape),
            keys,
            next_key: 0,
            pace,
            start_ns: now_ns,
            counted_ns: [from_ns, from_ns + nanoseconds(length)],
            phase: Phase::WarmingUp,
            started: 0,
            under_way_max: 0,
            sent: 0,
            outcome: Outcome::default(),
        }
    }

    /// True at both edges: when counting starts and when it ends.
    pub(super) fn advance(&mut self, now_ns: u64) -> bool {
        let [from_ns, to_ns] = self.counted_ns;
        let next = match self.phase {
            Phase::WarmingUp if now_ns >= from_ns => Phase::Counting,
            Phase::Counting if self.is_over(now_ns, to_ns) => Phase::Ending,
            _ => return false,
        };
        if next == Phase::Ending {
            self.outcome.elapsed = Duration::from_nanos(now_ns - from_ns);
        }
        self.phase = next;
        true
    }

    /// Counting starts here: what the edge itself took is in no figure.
    pub(super) fn count_from(&mut self, now_ns: u64) {
        if self.phase == Phase::Counting {
            let [from_ns, to_ns] = self.counted_ns;
            self.counted_ns = [now_ns, to_ns + (now_ns - from_ns)];
        }
    }

    /// A figure needs some replies to what was asked in its slot: where the machine stood still, that lasts longer.
    fn is_over(&self, now_ns: u64, to_ns: u64) -> bool {
        if self.keys.each_once {
            return self.next_key >= self.keys.count;
        }
        let enough = match self.pace {
            Pace::Open { .. } => self.outcome.replies > 0,
            _ => self.outcome.latencies.count() >= LATENCIES_MIN,
        };
        now_ns >= to_ns && self.unsent() == 0 && enough
    }

    /// A turn that found something to do took so long.
    pub(super) fn worked(&mut self, turn_ns: u64) {
        if self.phase == Phase::Counting {
            self.outcome.worked += Duration::from_nanos(turn_ns);
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.phase == Phase::Ending
    }

    /// Time between two requests of an open loop.
    fn interval_ns(rate: f64) -> f64 {
        1e9 / rate
    }

    /// When the next request of an open loop is due; `None` when the last was sent.
    fn due_ns(&self, rate: f64) -> Option<u64> {
        let due_ns = self.start_ns + (self.sent as f64 * Self::interval_ns(rate)) as u64;
        (due_ns < self.counted_ns[1]).then_some(due_ns)
    }

    /// Requests of an open loop that were due and not sent.
    pub(super) fn unsent(&self) -> u64 {
        let Pace::Open { rate } = self.pace else { return 0 };
        let all_ns = (self.counted_ns[1] - self.start_ns) as f64;
        ((all_ns / Self::interval_ns(rate)) as u64).saturating_sub(self.sent)
    }

    fn key(&mut self, random: &mut Random) -> Option<u32> {
        let Keys { first, count, each_once } = self.keys;
        if !each_once {
            return Some(first + random.below(count));
        }
        let key = self.next_key;
        self.next_key += u32::from(key < count);
        (key < count).then_some(first + key)
    }

    fn count(&mut self, asked_ns: u64, now_ns: u64) {
        let counting = self.phase == Phase::Counting;
        self.outcome.replies += u64::from(counting || self.keys.each_once);
        // In an open loop those count that were due in time, however late their replies are.
        let counts = match self.pace {
            Pace::Open { .. } => asked_ns >= self.counted_ns[0] && self.phase != Phase::WarmingUp,
            _ => counting && asked_ns >= self.counted_ns[0],
        };
        if counts {
            let latency_ns = now_ns.saturating_sub(asked_ns);
            self.outcome.latencies.record_ns(latency_ns);
            self.outcome.latency_sum += Duration::from_nanos(latency_ns);
        }
    }
}

/// All connections of a generator.
#[derive(Debug)]
pub(super) struct Clients {
    connections: Box<[Connection]>,
    /// [`PIPELINE_MAX`] for each connection.
    asked: Box<[Asked]>,
    /// Every open flow.
    pub(super) flows: Vec<FlowId>,
    /// Flows without a request under way, the longest silent first.
    silent: VecDeque<FlowId>,
    /// Flows that are being opened.
    pub(super) opening: usize,
    /// Flows that we close.
    closing: bool,
    /// Requests under way.
    pub(super) under_way: usize,
    pub(super) run: Option<Run>,
    random: Random,
    pub(super) now_ns: u64,
    /// When a reply came last.
    pub(super) answered_ns: u64,
    /// What ended the run.
    pub(super) failure: Option<String>,
}

impl Clients {
    /// For so many flows; the last time it allocates, but for a run's templates.
    pub(super) fn new(flows: usize) -> Self {
        Self {
            connections: vec![Connection::default(); flows].into_boxed_slice(),
            asked: vec![Asked::default(); flows * PIPELINE_MAX].into_boxed_slice(),
            flows: Vec::with_capacity(flows),
            silent: VecDeque::with_capacity(flows),
            opening: 0,
            closing: false,
            under_way: 0,
            run: None,
            random: Random::new(2),
            now_ns: 0,
            answered_ns: 0,
            failure: None,
        }
    }

    pub(super) fn begin(&mut self, run: Run) {
        self.silent.clear();
        if !matches!(run.pace, Pace::Closed { .. }) {
            self.silent.extend(&self.flows);
        }
        self.run = Some(run);
        self.answered_ns = self.now_ns;
    }

    pub(super) fn expect_closing(&mut self, closing: bool) {
        self.closing = closing;
    }

    /// A flow that is to have a request now, how many, and when they count as sent. To be asked until there is none.
    pub(super) fn wanting(&mut self) -> Option<(FlowId, usize, u64)> {
        let Self { run, flows, silent, under_way, now_ns, .. } = self;
        let run = run.as_mut()?;
        match run.pace {
            Pace::Closed { pipeline } => {
                let flow = *flows.get(run.started).filter(|_| !run.is_ending())?;
                run.started += 1;
                Some((flow, pipeline, *now_ns))
            }
            Pace::Rotating { .. } => {
                let may = !run.is_ending() && *under_way < run.under_way_max;
                if may { Some((silent.pop_front()?, 1, *now_ns)) } else { None }
            }
            Pace::Open { rate } => {
                let due_ns = run.due_ns(rate).filter(|due_ns| due_ns <= now_ns)?;
                let flow = silent.pop_front()?;
                run.sent += 1;
                Some((flow, 1, due_ns))
            }
        }
    }

    /// How many flows may be given their first requests in one turn.
    pub(super) fn starts(&mut self) -> usize {
        let Some(run) = &mut self.run else { return 0 };
        match run.pace {
            Pace::Closed { .. } => STARTS_PER_TURN,
            Pace::Rotating { under_way } => {
                run.under_way_max = (run.under_way_max + STARTS_PER_TURN).min(under_way);
                usize::MAX
            }
            Pace::Open { .. } => usize::MAX,
        }
    }

    /// Sends a connection its next request.
    #[inline]
    pub(super) fn ask(&mut self, flow: FlowId, at_ns: u64, io: &mut Io<'_>) {
        let Self { connections, asked, run, random, under_way, failure, .. } = self;
        let Some(run) = run else { return };
        let Some(key) = run.key(random) else { return };
        let request = run.exchange.request(key);
        if io.room() < request.len() {
            *failure = Some("the generator has no room left to send".to_owned());
            return;
        }
        io.send(request);
        let connection = &mut connections[flow.index()];
        asked[flow.index() * PIPELINE_MAX + connection.asked as usize % PIPELINE_MAX] = Asked { at_ns, key };
        connection.asked = connection.asked.wrapping_add(1);
        *under_way += 1;
    }

    /// Takes one reply from the front of what came.
    #[inline]
    fn take(&mut self, flow: FlowId, bytes: &[u8]) -> Judged {
        let Self { connections, asked, run, under_way, now_ns, .. } = self;
        let connection = &mut connections[flow.index()];
        let Some(run) = run.as_mut().filter(|_| connection.asked != connection.answered) else {
            return Judged::Wrong;
        };
        let slot = flow.index() * PIPELINE_MAX + connection.answered as usize % PIPELINE_MAX;
        let Asked { at_ns, key } = asked[slot];
        let judged = run.exchange.judge(key, bytes);
        if matches!(judged, Judged::Right(_)) {
            connection.answered = connection.answered.wrapping_add(1);
            *under_way -= 1;
            run.count(at_ns, *now_ns);
        }
        judged
    }

    fn fail_wrong(&mut self, flow: FlowId, bytes: &[u8]) {
        let Connection { asked, answered } = self.connections[flow.index()];
        let about = if asked == answered {
            "nothing".to_owned()
        } else {
            let slot = flow.index() * PIPELINE_MAX + answered as usize % PIPELINE_MAX;
            format!("a request about key number {}", self.asked[slot].key)
        };
        let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
        self.failure.get_or_insert_with(|| {
            format!("a wrong reply to {about}: {:?}", shown.escape_ascii().to_string())
        });
    }
}

impl Handler for Clients {
    fn admit(&mut self, _local: SocketAddr, _peer: SocketAddr) -> Admission {
        Admission::Refuse
    }

    fn opened(&mut self, flow: FlowId, _local: SocketAddr, _peer: SocketAddr, _io: &mut Io<'_>) {
        self.opening -= 1;
        self.connections[flow.index()] = Connection::default();
        self.flows.push(flow);
    }

    #[inline]
    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken {
        let mut consumed = 0;
        while consumed < bytes.len() {
            match self.take(flow, &bytes[consumed..]) {
                Judged::Right(length) => {
                    consumed += length;
                    self.answered_ns = self.now_ns;
                    match &self.run {
                        Some(Run { pace: Pace::Closed { .. }, phase, .. }) => {
                            if *phase != Phase::Ending {
                                self.ask(flow, self.now_ns, io);
                            }
                        }
                        _ => self.silent.push_back(flow),
                    }
                }
                Judged::Part(needed) => return Taken { consumed, needed },
                Judged::Wrong => {
                    self.fail_wrong(flow, &bytes[consumed..]);
                    return Taken::all(bytes.len());
                }
            }
        }
        Taken::all(consumed)
    }

    fn closed(&mut self, flow: FlowId, reason: Closed) {
        let was_open = self.flows.iter().position(|&open| open == flow);
        match was_open {
            Some(at) => {
                self.flows.swap_remove(at);
            }
            None => self.opening -= 1,
        }
        if !self.closing || reason != Closed::Finished {
            self.failure.get_or_insert_with(|| format!("a connection ended: {reason:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{Dialect, Shape};
    use crate::workload::Operation;

    #[test]
    fn a_slot_lasts_until_it_has_latencies_of_its_own() {
        let load = Load {
            shape: Shape { dialect: Dialect::Resp, operation: Operation::Get, value_bytes: 8 },
            keys: Keys { first: 0, count: 1, each_once: false },
            pace: Pace::Closed { pipeline: 1 },
            warm_up: Duration::from_nanos(1_000),
            length: Duration::from_nanos(1_000),
        };
        let mut run = Run::new(&load, 0);
        assert!(run.advance(1_000));
        run.count_from(1_000);
        // The machine stood still until the slot was nearly over: what comes now was asked before it began.
        (0..2 * LATENCIES_MIN).for_each(|_| run.count(500, 1_999));
        assert!(!run.advance(2_000), "no latency was taken");
        (0..LATENCIES_MIN).for_each(|_| run.count(1_999, 2_500));
        assert!(run.advance(2_500));
        assert_eq!((run.outcome.replies, run.outcome.latencies.count()), (3 * LATENCIES_MIN, LATENCIES_MIN));
    }
}
