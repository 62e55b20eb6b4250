//! memcached over TCP past the kernel: ordinary clients with ordinary sockets on one side, the daemon's own TCP over AF_XDP
//! on the other. Needs root and `ip` (iproute2).

mod daemon_support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use dataplane::testbed::Daemon;
use rustix::net::{AddressFamily, SocketType};

use daemon_support::{Family, Rig, SOON};

/// An address of the client's host that is on no allow-list of these tests.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// Bytes of a value as large as any.
const LARGE: usize = 1 << 20;

fn start(rig: &Rig) -> Daemon {
    rig.start_with(&rig.config("", "", "protocol = \"tcp\""))
}

/// A connection from `local`, by the kernel's TCP of the client's side.
fn connect_from(rig: &Rig, local: IpAddr, server: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    rig.pair
        .left
        .run(|| {
            let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
            rustix::net::bind(&socket, &SocketAddr::new(local, 0))?;
            // A connection attempt keeps to the time-out for sending (socket(7)).
            let timeout = Some(limit);
            rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, timeout)?;
            rustix::net::connect(&socket, &server)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(SOON))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
        .expect("the client's namespace")
}

fn connect(rig: &Rig, family: Family) -> TcpStream {
    let local = family.of(&rig.pair.left_end);
    connect_from(rig, local, rig.server(family), SOON).expect("the daemon accepts")
}

fn expect(stream: &mut TcpStream, reply: &[u8]) {
    let mut got = vec![0; reply.len()];
    stream.read_exact(&mut got).expect("a reply");
    assert!(got == reply, "{:?} and not {:?}", text(&got), text(reply));
}

fn call(stream: &mut TcpStream, request: &[u8], reply: &[u8]) {
    stream.write_all(request).expect("it takes bytes");
    expect(stream, reply);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

fn value(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place % 251) as u8).collect()
}

fn set(key: &str, value: &[u8]) -> Vec<u8> {
    let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
    request.extend_from_slice(value);
    request.extend_from_slice(b"\r\n");
    request
}

fn item(key: &str, value: &[u8]) -> Vec<u8> {
    let mut reply = format!("VALUE {key} 0 {}\r\n", value.len()).into_bytes();
    reply.extend_from_slice(value);
    reply.extend_from_slice(b"\r\nEND\r\n");
    reply
}

fn serves(family: Family) {
    let rig = Rig::new();
    let mut daemon = start(&rig);
    let before = passive_opens(&rig);
    let mut client = connect(&rig, family);
    call(&mut client, b"get absent\r\n", b"END\r\n");
    call(&mut client, &set("key", b"value"), b"STORED\r\n");
    call(&mut client, b"get key\r\n", &item("key", b"value"));
    // Pipelined, and cut in the middle of a word.
    client.write_all(b"get key\r\nincr n").expect("it takes bytes");
    expect(&mut client, &item("key", b"value"));
    call(&mut client, b"umber 1\r\nget absent\r\n", b"NOT_FOUND\r\nEND\r\n");
    client.write_all(b"quit\r\n").expect("it takes bytes");
    assert_eq!(client.read(&mut [0; 1]).expect("an orderly end"), 0);
    drop(client);
    assert_eq!(passive_opens(&rig), before, "the kernel's TCP has seen none of it");
    rig.assert_no_frame_lost(&mut daemon);
    rig.wait_for_status(&mut daemon, "the connection to be counted", |status| {
        let worker = &status.workers[0];
        worker.tcp_connections == 0
            && worker.tcp_events["accepted"] == 1
            && worker.tcp_events["finished"] == 1
    });
}

/// Connections that the kernel's TCP accepted on the daemon's side, of either family.
fn passive_opens(rig: &Rig) -> u64 {
    let snmp = rig.pair.right.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let snmp = snmp.expect("entered").expect("procfs");
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let names = lines.next().expect("a line of names").split_whitespace();
    let values = lines.next().expect("a line of values").split_whitespace();
    let found = names.zip(values).find(|(name, _)| *name == "PassiveOpens");
    found.expect("it is counted").1.parse().expect("a number")
}

#[test]
fn requests_over_ipv4_are_served_past_the_kernel() {
    serves(Family::V4);
}

#[test]
fn requests_over_ipv6_are_served_past_the_kernel() {
    serves(Family::V6);
}

#[test]
fn the_largest_values_go_both_ways_pipelined() {
    let rig = Rig::new();
    let mut daemon = rig.start_with(
        &rig.config("", "", "protocol = \"tcp\"").replace("capacity = \"16MiB\"", "capacity = \"64MiB\""),
    );
    let mut client = connect(&rig, Family::V4);
    let value = value(LARGE);
    for round in 0..8 {
        call(&mut client, &set(&format!("large-{round}"), &value), b"STORED\r\n");
    }
    // More replies than any send buffer holds, asked for before one is read.
    let keys: Vec<String> = (0..8).map(|round| format!("large-{round}")).collect();
    for key in &keys {
        client.write_all(format!("get {key}\r\n").as_bytes()).expect("it takes bytes");
    }
    for key in &keys {
        expect(&mut client, &item(key, &value));
    }
    // One read of all of them: a reply far beyond what a send buffer holds.
    client.write_all(format!("get {}\r\n", keys.join(" ")).as_bytes()).expect("it takes bytes");
    for key in &keys {
        let mut one = item(key, &value);
        one.truncate(one.len() - b"END\r\n".len());
        expect(&mut client, &one);
    }
    expect(&mut client, b"END\r\n");
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn many_connections_are_served_at_once_and_none_disturbs_another() {
    let rig = Rig::new();
    let mut daemon = start(&rig);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(&rig, Family::V4)).collect();
    // One that never reads, one that never finishes its request, one that is gone without a word.
    let mut deaf = connect(&rig, Family::V4);
    call(&mut deaf, &set("big", &value(500_000)), b"STORED\r\n");
    deaf.write_all("get big\r\n".repeat(64).as_bytes()).expect("it takes bytes");
    let mut slow = connect(&rig, Family::V4);
    slow.write_all(b"set slow 0 0 1000\r\nabc").expect("it takes bytes");
    connect(&rig, Family::V4).shutdown(Shutdown::Both).expect("connected");
    for (number, client) in clients.iter_mut().enumerate() {
        let key = format!("key-{number}");
        let value = value(number * 7);
        client.write_all(&set(&key, &value)).expect("it takes bytes");
        client.write_all(format!("get {key}\r\n").as_bytes()).expect("it takes bytes");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        expect(client, b"STORED\r\n");
        expect(client, &item(&format!("key-{number}"), &value(number * 7)));
    }
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn a_request_that_does_not_end_is_waited_for_so_long() {
    let rig = Rig::new();
    let config = format!("{}\n[tcp]\nrequest_s = 1\n", rig.config("", "", "protocol = \"tcp\""));
    let mut daemon = rig.start_with(&config);
    let mut silent = connect(&rig, Family::V4);
    let mut slow = connect(&rig, Family::V4);
    call(&mut silent, b"version\r\n", b"VERSION ");
    slow.write_all(b"set key 0 0 1000\r\nabc").expect("it takes bytes");
    let error = slow.read(&mut [0; 1]).expect_err("a reset, not an answer");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    rig.wait_for_status(&mut daemon, "it to be counted", |status| {
        let worker = &status.workers[0];
        worker.tcp_connections == 1 && worker.tcp_events["unfinished"] == 1
    });
    // Whoever has asked nothing may be silent: what is left of the version, and then the answer.
    silent.write_all(b"get key\r\n").expect("it is open");
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\nEND\r\n") {
        let mut byte = [0];
        silent.read_exact(&mut byte).expect("an answer");
        heard.push(byte[0]);
    }
}

#[test]
fn a_source_that_is_not_allowed_does_not_even_connect() {
    let rig = Rig::new();
    let _daemon = start(&rig);
    rig.add_client_address(STRANGER);
    let server = rig.server(Family::V4);
    let error = connect_from(&rig, STRANGER.into(), server, Duration::from_millis(300))
        .expect_err("there is no answer");
    assert!(matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EAGAIN)), "{error}");
    // Who is allowed is served all the while.
    call(&mut connect(&rig, Family::V4), b"version\r\n", b"VERSION ");
}

#[test]
fn a_client_on_this_very_host_is_served_from_the_same_table() {
    let rig = Rig::new();
    let mut daemon = start(&rig);
    call(&mut connect(&rig, Family::V4), &set("key", b"value"), b"STORED\r\n");
    let mut client = rig
        .pair
        .right
        .run(|| TcpStream::connect(("127.0.0.1", daemon_support::PORT)))
        .expect("the namespace")
        .expect("the kernel connects");
    client.set_read_timeout(Some(SOON)).expect("a time-out");
    call(&mut client, b"get key\r\n", b"VALUE key 0 5\r\nvalue\r\nEND\r\n");
    let status = rig.wait_for_status(&mut daemon, "both ways", |status| {
        let worker = &status.workers[0];
        (worker.kernel_connections, worker.kernel_tcp_events["accepted"]) == (1, 1)
    });
    assert_eq!(status.workers[0].tcp_events["accepted"], 1);
}

#[test]
fn clients_hear_at_once_that_the_daemon_ends() {
    let rig = Rig::new();
    let daemon = start(&rig);
    let mut clients: Vec<TcpStream> = (0..100).map(|_| connect(&rig, Family::V4)).collect();
    for client in &mut clients {
        call(client, b"version\r\n", b"VERSION ");
    }
    daemon.stop().unwrap_or_else(|error| panic!("{error}"));
    for client in &mut clients {
        // Without a word of ours, and without waiting for a time-out: FIN, or the reset with which the kernel, which has
        // the port again, answers the client's own FIN.
        let mut rest = Vec::new();
        match client.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.ends_with(b"\r\n"), "the rest of the version: {:?}", text(&rest)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

#[test]
fn who_connects_to_a_frozen_daemon_is_told_and_others_go_on_once_it_does() {
    let rig = Rig::new();
    let daemon = start(&rig);
    let mut old = connect(&rig, Family::V4);
    call(&mut old, &set("key", b"value"), b"STORED\r\n");
    daemon.freeze().unwrap_or_else(|error| panic!("{error}"));
    let start = Instant::now();
    // Until it counts as stale its SYN waits in the worker's ring, and is sent again a second later.
    let mut new = connect(&rig, Family::V4);
    new.write_all(b"get key\r\n").expect("it takes bytes");
    let mut heard = Vec::new();
    new.read_to_end(&mut heard).expect("an orderly end");
    assert_eq!(text(&heard), text(daemon_support::UNAVAILABLE));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    // What is asked meanwhile is neither answered nor reset.
    old.write_all(b"get key\r\n").expect("it takes bytes");
    daemon.thaw().unwrap_or_else(|error| panic!("{error}"));
    expect(&mut old, &item("key", b"value"));
    call(&mut connect(&rig, Family::V4), b"get key\r\n", &item("key", b"value"));
}
