//! `kill -9` of clients in the middle of a request or an answer: the kernel closes for them, with FIN or, where it has
//! something unread, with a reset.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::testbed::{ChildGuard, requirements};

use crate::daemon_support::SOON;
use crate::daemon_support::bed::{Bed, Place, Transport, connections, events, over_every_transport};
use crate::traffic::{self, Load, command};

over_every_transport!(clients_that_are_killed_leave_nothing_behind);

/// Connections of each client that is killed.
const HELD: usize = 20;
/// Clients that go on beside it.
const BESIDE: usize = 4;
/// Bytes of a large value.
const LARGE: usize = 1_000_000;

/// Starts a client that says so much and no more, and waits until it has read its share of the answer.
fn half_said(place: Place<'_>, message: &[u8], to_read: usize) -> ChildGuard {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), message).expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon_adversity/half_said.py");
    let mut python = place.command(requirements::PYTHON);
    python.arg("-B").arg(script).args([place.host(), place.port(), HELD.to_string()]);
    python.arg(file.path()).arg(to_read.to_string());
    let mut child = ChildGuard::spawn("a client", &mut python).expect("python3 runs");
    child.wait_for_output("ready", SOON).unwrap_or_else(|error| panic!("{error}"));
    child
}

fn clients_that_are_killed_leave_nothing_behind(transport: Transport) {
    let mut bed = Bed::start(transport);
    let beside = Load { clients: BESIDE, seed: 5, large_one_in: 10 };
    let over = AtomicBool::new(false);
    let beside = traffic::connect(bed.resp(), &beside);
    let figures = std::thread::scope(|scope| {
        // Taken down with the scope when an assertion fails.
        let _over = Raised(&over);
        let beside = scope.spawn(|| traffic::ask_all(beside, || !over.load(Ordering::Relaxed)));
        let value = vec![b'v'; LARGE];
        let set = command(&[b"SET", b"large", &value]);
        let whole = [set.as_slice(), &command(&[b"GET", b"large"]).repeat(50)].concat();
        let classic = [format!("set large 0 0 {LARGE}\r\n").as_bytes(), &value, b"\r\n"].concat();
        // Half a request; a whole one, and the beginning of what it is answered; for both protocols.
        let reads = [classic.as_slice(), &b"get large\r\n".repeat(50)].concat();
        for (resp, message, to_read) in [
            (true, &set[..LARGE / 2], 0),
            (true, &b"*3\r\n$3\r\nSET\r\n$5\r\nlar"[..], 0),
            (true, &whole[..], 0),
            (true, &command(&[b"GET", b"absent"]).repeat(1_000)[..], 100),
            (false, &classic[..LARGE / 2], 0),
            (false, &b"set large 0 0 1"[..], 0),
            (false, &reads[..], 0),
            (false, &b"get large\r\n".repeat(50)[..], 0),
        ] {
            let place = if resp { bed.resp() } else { bed.memcached() };
            let mut child = half_said(place, message, to_read);
            let held = (HELD + BESIDE) as u64;
            bed.wait_for("all of them to be connected", |status| connections(status) == held);
            child.kill();
            let what = "nobody but those beside to be connected";
            bed.wait_for(what, |status| connections(status) == BESIDE as u64);
        }
        killed_at_work(&mut bed);
        over.store(true, Ordering::Relaxed);
        beside.join().expect("the clients beside")
    });
    println!("{transport:?}: beside those who were killed {figures}");
    assert!(figures.answers() > 1_000, "{figures}");
    bed.assert_nothing_left();
}

/// A load generator, killed with a thousand requests under way.
fn killed_at_work(bed: &mut Bed) {
    requirements::program("redis-benchmark", "redis-tools").unwrap_or_else(|error| panic!("{error}"));
    let place = bed.resp();
    let mut benchmark = place.command("redis-benchmark");
    benchmark.args(["-h", &place.host(), "-p", &place.port(), "-c", "100", "-P", "16", "-d", "10000"]);
    benchmark.args(["-n", "100000000", "-t", "set,get", "-r", "1000"]);
    let mut benchmark = ChildGuard::spawn("redis-benchmark", &mut benchmark).expect("it runs");
    let before = events(&bed.status(), "accepted");
    let stores = |status: &dataplane::control::status::StatusReport| -> u64 {
        status.workers.iter().map(|worker| worker.requests["store"]).sum()
    };
    let stored = stores(&bed.status());
    bed.wait_for("it to be at work", |status| {
        stores(status) > stored + 2_000 && events(status, "accepted") >= before
    });
    benchmark.kill();
    bed.wait_for("nobody of it to be connected", |status| connections(status) == BESIDE as u64);
}

/// Raises a flag when it goes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
