//! Crates of Rust.

use std::collections::BTreeSet;

use redis::{Commands, Connection, ErrorKind, ExistenceCheck, Expiry, RedisError, SetExpiry, SetOptions};

use crate::cli::redis_cli;
use crate::daemon_support::bed::{Bed, Place, RESP_PORT, Transport, over_every_transport};
use crate::daemon_support::{Family, SOON};
use crate::real_redis::RealRedis;

over_every_transport!(
    the_redis_crate_is_served_in_both_versions,
    memcached_and_redis_clients_see_each_others_items,
);

/// Bytes of a value as large as an item may be, but for its key.
const LARGE: usize = (1 << 20) - 256;

#[derive(Clone, Copy, Debug)]
enum Version {
    Resp2,
    Resp3,
}

fn open(place: Place<'_>, version: Version) -> redis::Client {
    let protocol = match version {
        Version::Resp2 => "resp2",
        Version::Resp3 => "resp3",
    };
    redis::Client::open(format!("redis://{}/?protocol={protocol}", place.server)).expect("a good URL")
}

fn connect(client: &redis::Client) -> Connection {
    let connection = client.get_connection_with_timeout(SOON).expect("it connects");
    connection.set_read_timeout(Some(SOON)).expect("a time");
    connection.set_write_timeout(Some(SOON)).expect("a time");
    connection
}

/// Bytes that differ from place to place, all 256 of them.
fn bytes(seed: usize, count: usize) -> Vec<u8> {
    (0..count).map(|place| ((place * 31 + seed * 7) ^ (place >> 8)) as u8).collect()
}

fn error<T: std::fmt::Debug>(answer: Result<T, RedisError>) -> String {
    let error = answer.expect_err("an error");
    format!("{} {}", error.code().unwrap_or("-"), error.detail().unwrap_or("-"))
}

/// What people do with the crate. Written against its documentation, and true of a real Redis too.
fn ordinary_calls(place: Place<'_>, version: Version) {
    let client = open(place, version);
    let mut connection = connect(&client);
    let it = &mut connection;
    let () = it.flushdb().expect("flushed");
    assert_eq!(it.ping::<String>().expect("pong"), "PONG");

    let () = it.set("key", "value").expect("stored");
    assert_eq!(it.get::<_, Option<String>>("key").expect("read"), Some("value".to_owned()));
    assert_eq!(it.get::<_, Option<String>>("absent").expect("read"), None);
    let () = it.mset(&[("a", 1), ("b", 2)]).expect("stored");
    assert_eq!(
        it.mget::<_, Vec<Option<i64>>>(&["a", "absent", "b"]).expect("read"),
        [Some(1), None, Some(2)]
    );
    assert!(!it.mset_nx::<_, _, bool>(&[("b", 3), ("c", 4)]).expect("judged"));
    assert!(it.set_nx::<_, _, bool>("c", 4).expect("judged"));
    assert_eq!(it.incr::<_, _, i64>("a", 41).expect("a number"), 42);
    assert_eq!(it.decr::<_, _, i64>("a", 2).expect("a number"), 40);
    assert_eq!(it.incr::<_, _, f64>("float", 1.5).expect("a number"), 1.5);
    assert_eq!(it.append::<_, _, usize>("key", "!").expect("a length"), 6);
    assert_eq!(it.strlen::<_, usize>("key").expect("a length"), 6);
    assert_eq!(it.getrange::<_, String>("key", 1, 3).expect("read"), "alu");
    assert_eq!(it.setrange::<_, _, usize>("key", 5, "?").expect("a length"), 6);
    assert_eq!(it.get_del::<_, String>("key").expect("read"), "value?");
    assert!(!it.exists::<_, bool>("key").expect("judged"));

    let options =
        SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::EX(1_000));
    let () = it.set_options("key", "value", options.clone()).expect("stored");
    assert_eq!(it.set_options::<_, _, Option<String>>("key", "other", options).expect("judged"), None);
    let options = SetOptions::default().get(true).with_expiration(SetExpiry::KEEPTTL);
    assert_eq!(it.set_options::<_, _, String>("key", "second", options).expect("read"), "value");
    assert!((980..=1_000).contains(&it.ttl::<_, i64>("key").expect("seconds")));
    assert_eq!(it.get_ex::<_, String>("key", Expiry::PERSIST).expect("read"), "second");
    assert_eq!(it.ttl::<_, i64>("key").expect("none"), -1);
    assert!(it.pexpire::<_, bool>("key", 50_000).expect("set"));
    assert!((30_000..=50_000).contains(&it.pttl::<_, i64>("key").expect("milliseconds")));
    assert!(it.persist::<_, bool>("key").expect("taken off"));
    assert_eq!(it.rename::<_, _, String>("key", "moved").expect("renamed"), "OK");
    assert_eq!(it.del::<_, usize>(&["moved", "absent"]).expect("a count"), 1);

    for number in 0..500 {
        let () = it.set(format!("scan:{number}"), number).expect("stored");
    }
    let found: BTreeSet<String> =
        it.scan_match("scan:*").expect("a scan").map(|key| key.expect("a key")).collect();
    assert_eq!(found, (0..500).map(|number| format!("scan:{number}")).collect());

    refused_and_going_on(it);
    pipelined(it);
    binary_and_large(it);
}

fn refused_and_going_on(it: &mut Connection) {
    let () = it.set("word", "forty").expect("stored");
    let refused = it.incr::<_, _, i64>("word", 1);
    assert!(refused.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Server(_))), "{refused:?}");
    assert_eq!(error(refused), "ERR value is not an integer or out of range");
    assert_eq!(it.get::<_, String>("word").expect("the connection goes on"), "forty");
    let unknown = redis::cmd("NOSUCH").arg("x").query::<String>(it);
    assert_eq!(error(unknown), "ERR unknown command 'NOSUCH', with args beginning with: 'x' ");
}

fn pipelined(it: &mut Connection) {
    let mut pipeline = redis::pipe();
    for number in 0..1_000 {
        pipeline.set(format!("p{number}"), number).ignore().get(format!("p{number}"));
    }
    let read: Vec<i64> = pipeline.query(it).expect("every reply");
    assert_eq!(read, (0..1_000).collect::<Vec<_>>());
    // More than what is on the way at once, both ways.
    let (mut stores, mut reads) = (redis::pipe(), redis::pipe());
    for number in 0..20 {
        stores.set(format!("l{number}"), bytes(number, LARGE)).ignore();
        reads.get(format!("l{number}"));
    }
    let () = stores.query(it).expect("stored");
    let read: Vec<Vec<u8>> = reads.query(it).expect("every reply");
    assert!(read.len() == 20 && read.iter().enumerate().all(|(number, got)| *got == bytes(number, LARGE)));
}

fn binary_and_large(it: &mut Connection) {
    let key: Vec<u8> = (0..=249).collect();
    for count in [0, 1, 255, 1_459, 1_460, 65_536, LARGE] {
        let value = bytes(count, count);
        let () = it.set(&key, &value).expect("stored");
        assert!(it.get::<_, Vec<u8>>(&key).expect("read") == value, "a value of {count} bytes");
    }
}

fn the_redis_crate_is_served_in_both_versions(transport: Transport) {
    let real = RealRedis::start();
    let mut bed = Bed::start(transport);
    for version in [Version::Resp2, Version::Resp3] {
        ordinary_calls(Place { clients: None, server: real.server.address }, version);
        for family in [Family::V4, Family::V6] {
            let place = bed.place(family, RESP_PORT);
            place.run(|| ordinary_calls(place, version));
        }
    }
    // Version 3 was not only asked for.
    let hello = bed.resp().run(|| {
        let mut connection = connect(&open(bed.resp(), Version::Resp3));
        redis::cmd("CLIENT").arg("INFO").query::<String>(&mut connection).expect("a line")
    });
    assert!(hello.contains(" resp=3"), "{hello}");
    bed.assert_nothing_left();
}

fn memcached_and_redis_clients_see_each_others_items(transport: Transport) {
    let mut bed = Bed::start(transport);
    assert_eq!(redis_cli(bed.resp(), &["SET", "shared", "by redis"]), "OK");
    let place = bed.memcached();
    let url =
        format!("memcache://{}?protocol=ascii&tcp_nodelay=true&timeout={}", place.server, SOON.as_secs());
    let seen = place.run(|| {
        let client = memcache::connect(url).expect("it connects");
        client.set("mine", "by memcached", 0).expect("it stores");
        client.get::<String>("shared").expect("it reads")
    });
    assert_eq!(seen.as_deref(), Some("by redis"));
    assert_eq!(redis_cli(bed.resp(), &["GET", "mine"]), "by memcached");
    bed.assert_nothing_left();
}
