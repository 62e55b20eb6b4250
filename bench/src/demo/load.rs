//! The demo's load: one thread, several ordinary kernel UDP sockets, a closed loop, and a look at every reply.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrayvec::ArrayVec;
use dataplane::testbed::signals;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::mmsg::Batch;
use crate::latency::Latencies;
use crate::workload::{Operation, Random, Request, split_reply};

/// Requests each socket has under way; with the demo's four sockets, 32 in all.
pub(super) const OUTSTANDING_PER_SOCKET: usize = 8;
/// Keys that are stored and read back.
pub(super) const KEYS: u32 = 10_000;
/// A reply that takes longer is missing.
const REPLY_LIMIT: Duration = Duration::from_millis(500);
/// How long it tries to send a first read: without an answered store there is nothing to read.
const UNBEGUN_LIMIT: Duration = Duration::from_secs(1);
/// How often the live line changes.
const TICK: Duration = Duration::from_millis(200);

/// What happened to the requests of one operation.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests sent.
    pub requests: u64,
    /// Replies to them, right or wrong.
    pub replies: u64,
    /// Replies that were not what they had to be.
    pub wrong: u64,
    /// Requests without a reply.
    pub missing: u64,
    /// Time it took.
    pub elapsed: Duration,
    /// Latencies of the replies.
    pub latencies: Latencies,
}

/// A request under way.
struct UnderWay {
    id: u16,
    request: Request,
    sent: Instant,
}

struct Connection {
    socket: UdpSocket,
    slots: [Option<UnderWay>; OUTSTANDING_PER_SOCKET],
    next_id: u16,
}

/// The load, in a state that goes from storing to reading.
pub(super) struct Load {
    connections: Vec<Connection>,
    /// What each key holds; 0 is nothing that can be counted on.
    versions: Vec<u32>,
    next_key: u32,
    random: Random,
    outgoing: Batch,
    incoming: Batch,
}

impl Load {
    pub(super) fn new(sockets: Vec<UdpSocket>) -> Self {
        let connections = sockets
            .into_iter()
            .map(|socket| Connection { socket, slots: [const { None }; OUTSTANDING_PER_SOCKET], next_id: 0 })
            .collect();
        Self {
            connections,
            versions: vec![0; KEYS as usize],
            next_key: 0,
            random: Random::new(1),
            outgoing: Batch::new(OUTSTANDING_PER_SOCKET),
            incoming: Batch::new(OUTSTANDING_PER_SOCKET * 2),
        }
    }

    /// Keeps `operation` going for `length`, then waits for what is under way. `Set` goes on until every key was
    /// stored, even if that takes longer. `tick` sees the tally a few times a second.
    pub(super) fn run(
        &mut self,
        operation: Operation,
        length: Duration,
        tick: &mut dyn FnMut(&Tally),
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        let start = Instant::now();
        let mut next_tick = start + TICK;
        loop {
            let now = Instant::now();
            if now >= next_tick {
                tally.elapsed = now - start;
                tick(&tally);
                next_tick = now + TICK;
            }
            let unfinished = operation == Operation::Set && tally.requests < u64::from(KEYS);
            // Reading begins even where storing has taken all the time there was.
            let unbegun = operation == Operation::Get && tally.requests == 0;
            let open = !signals::caught()
                && (now - start < length
                    || unfinished && tally.missing == 0
                    || unbegun && now - start < UNBEGUN_LIMIT);
            if open {
                self.fill(operation, now, &mut tally)?;
            } else if self.connections.iter().all(|connection| connection.slots.iter().all(Option::is_none)) {
                tally.elapsed = now - start;
                return Ok(tally);
            }
            self.wait()?;
            self.drain(&mut tally)?;
        }
    }

    /// Gives every free slot a request.
    fn fill(&mut self, operation: Operation, now: Instant, tally: &mut Tally) -> Result<()> {
        for index in 0..self.connections.len() {
            let mut filled = ArrayVec::<usize, OUTSTANDING_PER_SOCKET>::new();
            for slot in 0..OUTSTANDING_PER_SOCKET {
                if self.connections[index].slots[slot].is_some() {
                    continue;
                }
                let Some(request) = self.next_request(operation) else { continue };
                let connection = &mut self.connections[index];
                // The low bits name the slot, the others tell its requests apart.
                let id = connection.next_id.wrapping_mul(OUTSTANDING_PER_SOCKET as u16) + slot as u16;
                connection.next_id = connection.next_id.wrapping_add(1);
                connection.slots[slot] = Some(UnderWay { id, request, sent: now });
                filled.push(slot);
                self.outgoing.push(|buffer| request.write(id, buffer));
            }
            let connection = &mut self.connections[index];
            let sent = self.outgoing.send(connection.socket.as_fd()).context("send requests")?;
            tally.requests += sent as u64;
            // What the socket had no room for is asked another time.
            for &slot in &filled[sent..] {
                connection.slots[slot] = None;
            }
        }
        Ok(())
    }

    fn next_request(&mut self, operation: Operation) -> Option<Request> {
        match operation {
            Operation::Set => {
                let key = self.next_key;
                self.next_key = (key + 1) % KEYS;
                // Until it is answered, nobody knows what the key holds.
                let version = self.random.next_u64() as u32 | 1;
                self.versions[key as usize] = 0;
                Some(Request { operation, key, version })
            }
            Operation::Get => {
                let key = self.random.below(KEYS);
                let version = self.versions[key as usize];
                (version != 0).then_some(Request { operation, key, version })
            }
        }
    }

    /// Sleeps until a reply is there, for a millisecond at most.
    fn wait(&self) -> Result<()> {
        let mut handles = ArrayVec::<PollFd<'_>, 16>::new();
        for connection in &self.connections {
            handles.push(PollFd::new(&connection.socket, PollFlags::IN));
        }
        let limit = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        match rustix::event::poll(&mut handles, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("wait for replies"),
        }
    }

    /// Takes every reply there is, checks it, and gives up on requests that had their time.
    fn drain(&mut self, tally: &mut Tally) -> Result<()> {
        for connection in &mut self.connections {
            loop {
                let received = self.incoming.receive(connection.socket.as_fd()).context("receive replies")?;
                let now = Instant::now();
                for index in 0..received {
                    let datagram = self.incoming.datagram(index);
                    settle(connection, &mut self.versions, datagram, now, tally);
                }
                if received < OUTSTANDING_PER_SOCKET {
                    break;
                }
            }
            let now = Instant::now();
            for slot in &mut connection.slots {
                if slot.take_if(|waiting| now - waiting.sent > REPLY_LIMIT).is_some() {
                    tally.missing += 1;
                }
            }
        }
        Ok(())
    }
}

fn settle(
    connection: &mut Connection,
    versions: &mut [u32],
    datagram: &[u8],
    now: Instant,
    tally: &mut Tally,
) {
    let Some((id, body)) = split_reply(datagram) else {
        tally.replies += 1;
        tally.wrong += 1;
        return;
    };
    let slot = &mut connection.slots[usize::from(id) % OUTSTANDING_PER_SOCKET];
    // Nothing waits for it: a second reply, or one whose time was up.
    let Some(answered) = slot.take_if(|waiting| waiting.id == id) else {
        tally.wrong += 1;
        return;
    };
    tally.replies += 1;
    tally.latencies.record(now - answered.sent);
    if !answered.request.answered_by(body) {
        tally.wrong += 1;
    } else if answered.request.operation == Operation::Set {
        versions[answered.request.key as usize] = answered.request.version;
    }
}

#[cfg(test)]
mod tests {
    use dataplane::testbed::{ChildGuard, Namespace, requirements, wait_until};

    use super::*;
    use crate::client::Client;

    /// Two sockets to a server in `namespace`.
    fn sockets(namespace: &Namespace, port: u16) -> Vec<UdpSocket> {
        let connected = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
            socket.connect(("127.0.0.1", port)).expect("connected");
            socket
        };
        namespace.run(|| vec![connected(), connected()]).expect("entered")
    }

    #[test]
    fn memcached_passes_the_load() {
        requirements::program("memcached", "memcached").expect("this test needs memcached");
        let namespace = Namespace::create("load").expect("a namespace");
        let mut command = namespace.command("memcached");
        command.args(["-u", "root", "-l", "127.0.0.1", "-p", "0", "-t", "1", "-U", "11211"]);
        let _child = ChildGuard::spawn("memcached", &mut command).expect("started");
        let mut probe = sockets(&namespace, 11_211);
        let mut client = Client::new(probe.remove(0), Duration::from_millis(50));
        wait_until("memcached answering", Duration::from_secs(10), || Ok(client.call(b"version\r\n").ok()))
            .expect("it answers");

        let mut load = Load::new(sockets(&namespace, 11_211));
        let sets = load.run(Operation::Set, Duration::from_millis(100), &mut |_| {}).expect("ran");
        assert!(sets.requests >= u64::from(KEYS), "every key is stored: {sets:?}");
        assert_eq!((sets.replies, sets.wrong, sets.missing), (sets.requests, 0, 0));
        let gets = load.run(Operation::Get, Duration::from_millis(300), &mut |_| {}).expect("ran");
        assert!(gets.requests > 0, "{gets:?}");
        assert_eq!((gets.replies, gets.wrong, gets.missing), (gets.requests, 0, 0));
    }

    #[test]
    fn wrong_and_missing_replies_are_told() {
        let namespace = Namespace::create("load").expect("a namespace");
        let server = namespace.run(|| UdpSocket::bind("127.0.0.1:11211")).expect("entered").expect("bound");
        let stop = std::sync::atomic::AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            // Answers every second request, and always the same.
            scope.spawn(|| {
                server.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
                let mut request = [0; 2048];
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok((_, from)) = server.recv_from(&mut request) else { continue };
                    count += 1;
                    if count % 2 == 0 {
                        let mut reply = request[..8].to_vec();
                        reply.extend_from_slice(b"SERVER_ERROR out of memory\r\n");
                        server.send_to(&reply, from).expect("sent");
                    }
                }
            });
            let mut load = Load::new(sockets(&namespace, 11_211));
            let outcome = load.run(Operation::Set, Duration::from_millis(100), &mut |_| {});
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            outcome.expect("ran")
        });
        assert!(outcome.wrong > 0 && outcome.wrong == outcome.replies, "{outcome:?}");
        assert!(outcome.missing > 0, "{outcome:?}");
        assert_eq!(outcome.replies + outcome.missing, outcome.requests);
    }
}
