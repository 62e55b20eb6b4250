//! The client against memcached itself: what it says to the daemon is what memcached understands.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use bench::client::{Client, Store, Stored};
use dataplane::testbed::{ChildGuard, Namespace, requirements};

const PORT: u16 = 11_211;

/// memcached in a namespace of its own, and a client beside it.
fn memcached() -> (Namespace, ChildGuard, Client) {
    requirements::program("memcached", "memcached").expect("this test needs memcached");
    let namespace = Namespace::create("memcached").expect("a namespace");
    let mut command: Command = namespace.command("memcached");
    command.args(["-u", "root", "-l", "127.0.0.1", "-p", "0", "-t", "1", "-U", &PORT.to_string()]);
    let mut child = ChildGuard::spawn("memcached", &mut command).expect("started");
    let socket = namespace.run(|| UdpSocket::bind("127.0.0.1:0")).expect("entered").expect("bound");
    socket.connect(("127.0.0.1", PORT)).expect("an address");
    let mut client = Client::new(socket, Duration::from_millis(200));
    child
        .wait_for("memcached answering", Duration::from_secs(5), || {
            Ok(client.call(b"version\r\n").ok().filter(|reply| reply.starts_with(b"VERSION ")))
        })
        .expect("it answers");
    let client = Client::new(client_socket(&namespace), Duration::from_secs(2));
    (namespace, child, client)
}

fn client_socket(namespace: &Namespace) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind("127.0.0.1:0")).expect("entered").expect("bound");
    socket.connect(("127.0.0.1", PORT)).expect("an address");
    socket
}

#[test]
fn stores_and_reads_every_kind_of_item() {
    let (_namespace, _child, mut client) = memcached();
    bench::functional::check(&mut client).expect("memcached passes the check the daemon has to pass");

    assert_eq!(client.store(Store::Set, "k", 42, 0, b"a\r\nb").expect("answered"), Stored::Stored);
    let item = client.get("k").expect("answered").expect("stored");
    assert_eq!((item.flags, item.value.as_slice()), (42, &b"a\r\nb"[..]));
    assert!(item.cas > 0);
}

#[test]
fn puts_replies_of_many_datagrams_together() {
    let (_namespace, _child, mut client) = memcached();
    // A request is one datagram, so the value is grown on the server.
    let piece = vec![b'x'; 1000];
    client.set("large", &piece).expect("stored");
    for _ in 0..9 {
        let stored = client.store(Store::Append, "large", 0, 0, &piece).expect("answered");
        assert_eq!(stored, Stored::Stored);
    }
    let item = client.get("large").expect("answered").expect("stored");
    assert_eq!(item.value, vec![b'x'; 10_000]);
}

#[test]
fn a_closed_port_and_a_refused_request_are_errors() {
    let (namespace, child, mut client) = memcached();
    let error = client.set(&"k".repeat(251), b"value").expect_err("a key of 251 bytes");
    assert!(error.to_string().contains("CLIENT_ERROR"), "{error}");
    drop(child);
    let mut client = Client::new(client_socket(&namespace), Duration::from_millis(100));
    client.set("k", b"v").expect_err("nobody is there");
}
