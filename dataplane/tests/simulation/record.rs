//! Seen from the ports: clients share keys, each has many requests under way, and the wires lose, double, delay,
//! reorder and damage them. What the ports handed to the worker is on record, in order, so there is no doubt which
//! state an item is in: each whole request has exactly one answer, and exactly those leave, in order, but for those
//! that the worker counted as dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use dataplane::config::ChecksumPolicy;
use dataplane::metrics::DropReason;
use dataplane::net::udp;
use dataplane::port::sim::{Faults, Random, SimConfig};
use dataplane::simulation::{Scenario, Simulation};

use crate::model::{Item, Request, VALUE_BYTES_MAX, frame_header, framed, memcached};
use crate::seeds::run_all;

const CLIENTS: usize = 8;
const KEYS: usize = 3;
const LANES: usize = 2;
const STEPS: usize = 400;

/// Whom an answer is for, which request it answers, and its text.
type Answer = (SocketAddr, u16, Vec<u8>);

struct Run {
    simulation: Simulation,
    random: Random,
    clients: Vec<SocketAddr>,
    items: BTreeMap<usize, Item>,
    /// Every request ever sent, by client and number.
    asked: BTreeMap<(SocketAddr, u16), (usize, Request)>,
    /// Answers that are due by each lane, and those that left by it.
    due: [Vec<Answer>; LANES],
    left: [Vec<Vec<u8>>; LANES],
    received: u64,
}

impl Run {
    fn new(seed: u64, queue: SimConfig, faults: Faults) -> Self {
        let mut scenario = Scenario { lanes: LANES, queue, faults, ..Scenario::of(seed, memcached()) };
        let mut host: IpAddr = IpAddr::from([10, 0, 0, 2]);
        if seed % 2 == 1 {
            scenario.server = "[fd00::1]:7".parse().expect("an address");
            host = "fd00::2".parse().expect("an address");
        }
        let simulation = Simulation::new(scenario);
        for wire in simulation.wires() {
            let _ = wire.record();
        }
        Self {
            simulation,
            random: Random::new(seed ^ 0x5eed),
            clients: (0..CLIENTS).map(|number| SocketAddr::new(host, 4_000 + number as u16)).collect(),
            items: (0..KEYS).map(|key| (key, None)).collect(),
            asked: BTreeMap::new(),
            due: Default::default(),
            left: Default::default(),
            received: 0,
        }
    }

    /// A client asks something, through its lane.
    fn ask(&mut self) {
        let client = self.clients[self.random.below(CLIENTS)];
        let key = self.random.below(KEYS);
        let large = self.items[&key].as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX);
        let request = if large { Request::Delete } else { Request::random(&mut self.random) };
        let id = self.asked.len() as u16;
        let datagram = framed(id, &request.bytes(&format!("key-{key}")));
        self.asked.insert((client, id), (key, request));
        self.simulation.send(client, &datagram);
    }

    /// One poll of the worker; then the model does what the record says it did.
    fn step(&mut self) {
        self.simulation.step();
        for lane in 0..LANES {
            let record = self.simulation.wires()[lane].record();
            self.received += record.received.len() as u64;
            for packet in record.received {
                // What was damaged on the way is nobody's request.
                let Ok(request) = udp::receive(&packet, ChecksumPolicy::Verify) else { continue };
                let id = u16::from_be_bytes([request.payload[0], request.payload[1]]);
                let answer = self.answer(request.source, id);
                self.due[lane].push(answer);
            }
            self.left[lane].extend(record.sent);
        }
    }

    fn answer(&mut self, client: SocketAddr, id: u16) -> Answer {
        let (key, request) = &self.asked[&(client, id)];
        let item = self.items.get_mut(key).expect("one of the keys");
        let (after, text) = request.carry_out(&format!("key-{key}"), item);
        *item = after;
        (client, id, text)
    }

    /// Compares what left with what was due. Returns how many answers never left.
    fn check(&mut self) -> Result<usize, String> {
        let mut seen = BTreeSet::new();
        let mut missing = 0;
        for (due, left) in self.due.iter().zip(&self.left) {
            let datagrams = left.iter().map(|packet| {
                let reply =
                    udp::receive(packet, ChecksumPolicy::Verify).expect("the worker sends whole datagrams");
                (reply.destination, reply.payload.to_vec())
            });
            let datagrams: Vec<_> = datagrams.collect();
            missing += missing_from(due, &datagrams)?;
            seen.extend(datagrams);
        }
        // The wire damages replies, too, but what passes for a whole one at a client must be one.
        while let Some(reply) = self.simulation.receive() {
            if !seen.contains(&reply) {
                return Err(format!("{} got what was never sent", reply.0));
            }
        }
        Ok(missing)
    }
}

/// Joins the datagrams of each reply and finds each among those due, in order. Returns how many were not sent.
fn missing_from(due: &[Answer], datagrams: &[(SocketAddr, Vec<u8>)]) -> Result<usize, String> {
    let mut due = due.iter();
    let mut missing = 0;
    let mut datagrams: VecDeque<_> = datagrams.iter().collect();
    while let Some((client, first)) = datagrams.front() {
        let (id, _, total) = frame_header(first);
        let mut text = Vec::new();
        for number in 0..total {
            let Some((to, datagram)) = datagrams.pop_front() else {
                return Err(format!("the reply to {client}, request {id}, ends in its midst"));
            };
            if (*to, frame_header(datagram)) != (*client, (id, number, total)) {
                return Err(format!(
                    "the reply to {client}, request {id}, is interrupted at {number} of {total}"
                ));
            }
            text.extend(&datagram[8..]);
        }
        let reply = (*client, id, text);
        let Some(skipped) = due.clone().position(|answer| *answer == reply) else {
            return Err(format!("{client}, request {id}: no such reply was due there: {}", shown(&reply.2)));
        };
        due.nth(skipped);
        missing += skipped;
    }
    Ok(missing + due.len())
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(100)]).into_owned()
}

fn run(seed: u64, queue: SimConfig, faults: Faults) -> Result<(), String> {
    let mut run = Run::new(seed, queue, faults);
    for _ in 0..STEPS {
        for _ in 0..run.random.below(4) {
            run.ask();
        }
        run.step();
        run.simulation.advance_ms(run.random.below(3) as u64);
    }
    // What is late still comes, and is answered.
    while run.simulation.wires().iter().any(|wire| !wire.is_quiet()) || run.simulation.accounts().sending > 0
    {
        run.step();
    }
    let missing = run.check()?;
    let metrics = run.simulation.metrics();
    let reasons = [DropReason::NoFrame, DropReason::TransmitFull];
    let dropped: u64 = reasons.iter().map(|&reason| metrics.drops(reason)).sum();
    if missing as u64 != dropped {
        return Err(format!("{missing} replies are missing and {dropped} were counted as dropped"));
    }
    if faults == Faults::default() && run.due.iter().map(Vec::len).sum::<usize>() == 0 {
        return Err("nothing was asked".to_owned());
    }
    let sent: usize = run.left.iter().map(Vec::len).sum();
    let counted = (metrics.frames_received.get(), metrics.frames_sent.get());
    if counted != (run.received, sent as u64) {
        return Err(format!("{counted:?} frames were counted, not {:?}", (run.received, sent)));
    }
    let accounts = run.simulation.accounts();
    if accounts.owned() != accounts.total || accounts.sending + accounts.held + accounts.received != 0 {
        return Err(format!("frames are missing, stuck or doubled: {accounts:?}"));
    }
    Ok(())
}

#[test]
fn on_perfect_wires_exactly_the_answers_that_are_due_leave() {
    let queue = SimConfig { frames: 1_024, ring_entries: 256, ..SimConfig::default() };
    run_all(|_| Faults::default(), |seed, faults| run(seed, queue, faults));
}

#[test]
fn whatever_the_wires_do_each_request_that_arrives_is_answered_exactly_once() {
    let queue = SimConfig { frames: 128, ring_entries: 32, kick_frames: 16, ..SimConfig::default() };
    let faults = |random: &mut Random| Faults {
        loss: random.below(200) as u32,
        duplication: random.below(200) as u32,
        reordering: random.below(300) as u32,
        corruption: random.below(100) as u32,
        truncation: random.below(100) as u32,
        delay: random.below(300) as u32,
    };
    run_all(faults, |seed, faults| run(seed, queue, faults));
}

#[test]
fn a_reply_that_is_missing_wrong_doubled_or_out_of_order_is_found() {
    let client = SocketAddr::from(([10, 0, 0, 2], 4_000));
    let answer = |id: u16, text: &[u8]| (client, id, text.to_vec());
    let datagram = |id: u16, text: &[u8]| (client, framed(id, text));
    let due = [answer(1, b"END\r\n"), answer(2, b"STORED\r\n"), answer(3, b"END\r\n")];
    let [one, two, three] = [datagram(1, b"END\r\n"), datagram(2, b"STORED\r\n"), datagram(3, b"END\r\n")];
    assert_eq!(missing_from(&due, &[one.clone(), two.clone(), three.clone()]), Ok(0));
    assert_eq!(missing_from(&due, &[one.clone(), three.clone()]), Ok(1));
    assert_eq!(missing_from(&due, &[]), Ok(3));
    for wrong in [
        vec![one.clone(), two.clone(), three.clone(), three.clone()],
        vec![one.clone(), one.clone(), two.clone(), three.clone()],
        vec![two, one.clone(), three],
        vec![one, datagram(2, b"NOT_STORED\r\n")],
    ] {
        assert!(missing_from(&due, &wrong).is_err(), "{wrong:?}");
    }
}
