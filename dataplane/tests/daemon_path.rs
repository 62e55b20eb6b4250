//! A link on the way that takes smaller packets than those at either end: the router before it says so by ICMP, which the
//! daemon hears of though its TCP is past the kernel. Needs root and `ip` (iproute2).

mod daemon_support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use dataplane::testbed::{Daemon, Namespace};

use daemon_support::{Family, Rig, SOON};

/// Bytes of a value that takes many segments, and more than one flight.
const VALUE_BYTES: usize = 300_000;
/// MTU of the narrow link in the direction of the client.
const NARROW_BYTES: usize = 1_300;
/// The client behind the router, and the router's address on its side.
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1);

/// The left end of the rig's pair is a router, behind which a client is, over a link that takes [`NARROW_BYTES`] towards
/// the client; of which the client knows nothing, so that it promises to take larger segments.
fn put_a_router_between(rig: &Rig) -> Namespace {
    let (router, client) = (&rig.pair.left, Namespace::create("far").expect("root and iproute2"));
    let name = rig.pair.left_end.interface.replace("dpl", "dpn");
    let far = rig.pair.left_end.interface.replace("dpl", "dpf");
    router
        .run(|| {
            for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{forwarding}"), "1").expect("a router's sysctl");
            }
        })
        .expect("the router's namespace");
    router
        .ip_batch(&format!(
            "link add {name} mtu 1500 type veth peer name {far} mtu 1500 netns {client}\n\
             addr add 10.78.0.2/24 dev {name}\n\
             addr add fd78::2/64 dev {name} nodad\n\
             link set {name} mtu {NARROW_BYTES} up\n",
            client = client.name(),
        ))
        .expect("the narrow link");
    client
        .ip_batch(&format!(
            "addr add {CLIENT_V4}/24 dev {far}\n\
             addr add {CLIENT_V6}/64 dev {far} nodad\n\
             link set {far} up\n\
             route add default via 10.78.0.2\n\
             route add default via fd78::2\n",
        ))
        .expect("the client's end");
    // The daemon's TCP answers where requests come from; its host's kernel asks for the way.
    let (v4, v6) = (rig.pair.left_end.v4, rig.pair.left_end.v6);
    let ways_back = format!("route add 10.78.0.0/24 via {v4}\nroute add fd78::/64 via {v6}\n");
    rig.pair.right.ip_batch(&ways_back).expect("ways back");
    client
}

fn start(rig: &Rig) -> Daemon {
    let networks = r#"["10.78.0.0/24", "fd78::/64""#;
    let config = rig.config("", "", "protocol = \"tcp\"");
    rig.start_with(&config.replace(r#"["10.77.0.0/24""#, &format!(r#"{networks}, "10.77.0.0/24""#)))
}

fn a_large_value_comes_whole(family: Family) {
    let rig = Rig::new();
    let client = put_a_router_between(&rig);
    let mut daemon = start(&rig);
    let server: SocketAddr = rig.server(family);
    let mut stream = dataplane::testbed::wait_until("the way being there", SOON, || {
        Ok(client.run(|| TcpStream::connect_timeout(&server, SOON))?.ok())
    })
    .unwrap_or_else(|error| panic!("{error}"));
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    let value: Vec<u8> = (0..VALUE_BYTES).map(|place| (place % 251) as u8).collect();
    let mut request = format!("set key 0 0 {VALUE_BYTES}\r\n").into_bytes();
    request.extend_from_slice(&value);
    request.extend_from_slice(b"\r\nget key\r\n");
    stream.write_all(&request).expect("it takes bytes");
    let mut expected = format!("STORED\r\nVALUE key 0 {VALUE_BYTES}\r\n").into_bytes();
    expected.extend_from_slice(&value);
    expected.extend_from_slice(b"\r\nEND\r\n");
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).expect("the whole reply");
    assert!(got == expected);
    rig.wait_for_status(&mut daemon, "the path to have shrunk", |status| {
        status.workers[0].tcp_events["path_shrunk"] == 1
    });
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn a_large_value_comes_whole_over_a_narrow_link_of_ipv4() {
    a_large_value_comes_whole(Family::V4);
}

#[test]
fn a_large_value_comes_whole_over_a_narrow_link_of_ipv6() {
    a_large_value_comes_whole(Family::V6);
}

/// Raw sockets that any process has in the daemon's namespace.
fn raw_sockets(rig: &Rig) -> usize {
    let count = || {
        let tables = ["/proc/thread-self/net/raw", "/proc/thread-self/net/raw6"];
        tables.map(|table| std::fs::read_to_string(table).expect("procfs").lines().count() - 1).iter().sum()
    };
    rig.pair.right.run(count).expect("entered")
}

#[test]
fn only_a_daemon_with_streams_listens_to_routers() {
    let rig = Rig::new();
    let daemon = rig.start();
    assert_eq!(raw_sockets(&rig), 0);
    daemon.stop().unwrap_or_else(|error| panic!("{error}"));
    let _daemon = start(&rig);
    assert_eq!(raw_sockets(&rig), 2, "one for each IP version");
}
