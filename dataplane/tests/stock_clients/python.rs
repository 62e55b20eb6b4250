//! Libraries of Python, as the distribution has them. Each script checks every answer and writes it down; the real
//! server, asked by the same script, must have given the same.

use std::net::SocketAddr;
use std::path::Path;

use dataplane::testbed::requirements;

use crate::daemon_support::Family;
use crate::daemon_support::bed::{Bed, Place, RESP_PORT, Transport, over_every_transport};
use crate::real_memcached::RealMemcached;
use crate::real_redis::RealRedis;

over_every_transport!(
    pymemcache_is_answered_as_by_memcached,
    redis_py_is_answered_as_by_redis,
    redis_py_is_told_what_is_not_served,
);

/// Runs a script against a server; what it wrote.
fn answers(place: Place<'_>, script: &str) -> String {
    for (module, package) in [("redis", "python3-redis"), ("pymemcache", "python3-pymemcache")] {
        requirements::python_module(module, package).unwrap_or_else(|error| panic!("{error}"));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock_clients/python").join(script);
    let mut command = place.command(requirements::PYTHON);
    // -B: leaves no compiled files beside the scripts.
    command.arg("-B").arg(path).args([place.host(), place.port()]);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.ends_with("done\n"),
        "{script}: {complained}; before that:\n{said}"
    );
    said
}

fn on_this_host(server: SocketAddr) -> Place<'static> {
    Place { clients: None, server }
}

/// Line by line, so that a difference is short.
#[track_caller]
fn assert_same(ours: &str, theirs: &str) {
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs, "ours, and the real server's");
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

fn pymemcache_is_answered_as_by_memcached(transport: Transport) {
    let real = RealMemcached::start();
    let theirs = answers(on_this_host(real.0.address), "memcached_calls.py");
    let mut bed = Bed::start(transport);
    assert_same(&answers(bed.memcached(), "memcached_calls.py"), &theirs);
    bed.assert_nothing_left();
}

fn redis_py_is_answered_as_by_redis(transport: Transport) {
    let real = RealRedis::start();
    let theirs = answers(on_this_host(real.server.address), "redis_calls.py");
    let mut bed = Bed::start(transport);
    assert_same(&answers(bed.resp(), "redis_calls.py"), &theirs);
    bed.assert_nothing_left();
}

fn redis_py_is_told_what_is_not_served(transport: Transport) {
    let mut bed = Bed::start(transport);
    for family in [Family::V4, Family::V6] {
        answers(bed.place(family, RESP_PORT), "redis_refusals.py");
    }
    bed.assert_nothing_left();
}
