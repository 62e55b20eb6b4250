//! Seen from the clients: each has one item of its own and one request under way at a time, and knows nothing of what
//! the wire did to it. A request may be lost or carried out twice, so an item can be in one of several states; the
//! model keeps the set of them. A reply must follow from one of them, and narrows the set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dataplane::port::sim::{Faults, Random, SimConfig};
use dataplane::simulation::{Scenario, Simulation};

use crate::model::{Item, Request, VALUE_BYTES_MAX, frame_header, framed, memcached};
use crate::seeds::run_all;

const CLIENTS: u16 = 12;
const ROUNDS: u32 = 60;

/// A client, and the states its item may be in.
struct Client {
    address: SocketAddr,
    key: String,
    states: BTreeSet<Item>,
}

impl Client {
    /// Checks the replies to one request and narrows the states. It may have been carried out never, once or, when
    /// the wire doubled it, twice.
    fn check(
        &mut self,
        request: &Request,
        replies: &BTreeSet<Vec<u8>>,
        lossless: bool,
    ) -> Result<(), String> {
        let mut after = BTreeSet::new();
        for state in &self.states {
            let (once, first) = request.carry_out(&self.key, state);
            let (twice, second) = request.carry_out(&self.key, &once);
            if replies.is_empty() && !lossless {
                after.extend([state.clone(), once, twice]);
                continue;
            }
            if replies.is_empty() {
                continue;
            }
            if replies.iter().all(|reply| *reply == first) {
                after.insert(once);
            }
            if !lossless && replies.iter().all(|reply| *reply == first || *reply == second) {
                after.insert(twice);
            }
        }
        if after.is_empty() {
            let replies: Vec<_> = replies.iter().map(|reply| String::from_utf8_lossy(reply)).collect();
            return Err(format!(
                "{}: {request:?} was answered {replies:?}, from {:?}",
                self.key, self.states
            ));
        }
        self.states = after;
        Ok(())
    }
}

/// Joins the datagrams of each reply; replies with a datagram missing are left out, as a client would.
fn replies(simulation: &mut Simulation, lossless: bool) -> BTreeMap<SocketAddr, BTreeSet<Vec<u8>>> {
    type Parts = BTreeMap<u16, Vec<u8>>;
    // A doubled request is answered twice under the same number, possibly differently: each distinct run counts.
    let mut parts: BTreeMap<(SocketAddr, u16, u16), Vec<Parts>> = BTreeMap::new();
    while let Some((client, datagram)) = simulation.receive() {
        let (id, number, total) = frame_header(&datagram);
        let runs = parts.entry((client, id, total)).or_default();
        match runs.iter_mut().find(|run| !run.contains_key(&number)) {
            Some(run) => drop(run.insert(number, datagram[8..].to_vec())),
            None => runs.push(BTreeMap::from([(number, datagram[8..].to_vec())])),
        }
    }
    let mut whole: BTreeMap<SocketAddr, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for ((client, _, total), runs) in parts {
        let whole_runs = runs.iter().filter(|run| run.len() == usize::from(total)).count();
        assert!(!lossless || (whole_runs, runs.len()) == (1, 1), "{client} was answered twice or in part");
        for run in runs.into_iter().filter(|run| run.len() == usize::from(total)) {
            whole.entry(client).or_default().insert(run.into_values().flatten().collect());
        }
    }
    whole
}

fn run(seed: u64, queue: SimConfig, faults: Faults) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut simulation = Simulation::new(Scenario { queue, faults, ..Scenario::of(seed, memcached()) });
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| Client {
            address: SocketAddr::from(([10, 0, 0, 2], 4_000 + number)),
            key: format!("key-{number}"),
            states: BTreeSet::from([None]),
        })
        .collect();
    let lossless = faults == Faults::default();
    for round in 0..ROUNDS {
        let requests: Vec<Request> = clients
            .iter()
            .map(|client| {
                let largest = client.states.iter().flatten().map(Vec::len).max().unwrap_or(0);
                let many = client.states.len() > 32 || largest > VALUE_BYTES_MAX;
                if many { Request::Delete } else { Request::random(&mut random) }
            })
            .collect();
        for (client, request) in clients.iter().zip(&requests) {
            simulation.send(client.address, &framed(round as u16, &request.bytes(&client.key)));
        }
        simulation.settle();
        let replies = replies(&mut simulation, lossless);
        for (client, request) in clients.iter_mut().zip(&requests) {
            let none = BTreeSet::new();
            client.check(request, replies.get(&client.address).unwrap_or(&none), lossless)?;
        }
        simulation.advance_ms(random.below(50) as u64);
    }
    let accounts = simulation.accounts();
    if accounts.owned() != accounts.total
        || accounts.sending != 0
        || accounts.held != 0
        || accounts.received != 0
    {
        return Err(format!("frames are missing or stuck: {accounts:?}"));
    }
    Ok(())
}

#[test]
fn a_perfect_wire_answers_every_request_once_and_rightly() {
    // Room for the longest reply to every client at once.
    let queue = SimConfig { frames: 1_024, ring_entries: 256, ..SimConfig::default() };
    run_all(|_| Faults::default(), |seed, faults| run(seed, queue, faults));
}

#[test]
fn on_a_faulty_wire_every_reply_follows_from_a_state_the_item_may_be_in() {
    // So little room that rings and frames run out too.
    let queue = SimConfig { frames: 64, ring_entries: 16, kick_frames: 8, ..SimConfig::default() };
    let faults = |random: &mut Random| Faults {
        loss: random.below(200) as u32,
        duplication: random.below(100) as u32,
        corruption: random.below(100) as u32,
        truncation: random.below(100) as u32,
        // With one request under way there is nothing that it could meet: `record.rs` has these.
        reordering: 0,
        delay: 0,
    };
    run_all(faults, |seed, faults| run(seed, queue, faults));
}
