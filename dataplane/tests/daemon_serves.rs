//! What clients get from the daemon, over each way that a datagram can take to a worker, and what nobody gets.
//! Needs root and `ip` (iproute2).

mod daemon_support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use dataplane::control::status::StatusReport;
use dataplane::testbed::{Daemon, UdpCounters, wait_until};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};

use daemon_support::{Client, Family, PORT, Rig, SOON, drops, verdict};

/// An address of the client's host that is on no allow-list of these tests.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Value that needs several datagrams one way and IP fragments the other.
fn large_value(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| b'a' + (place % 23) as u8).collect()
}

fn large_item(key: &str, value: &[u8]) -> Vec<u8> {
    let mut reply = format!("VALUE {key} 0 {}\r\n", value.len()).into_bytes();
    reply.extend_from_slice(value);
    reply.extend_from_slice(b"\r\nEND\r\n");
    reply
}

/// Requests of [`exercise`].
const REQUESTS: u64 = 8;

/// Stores, appends and reads back; the last reply needs several datagrams.
fn exercise(client: &mut Client) {
    client.expect("get absent\r\n", "END\r\n");
    client.set("key", b"value");
    client.assert_holds("key", "value");
    client.set("large", &large_value(1_300));
    for _ in 0..2 {
        let mut append = b"append large 0 0 1300\r\n".to_vec();
        append.extend_from_slice(&large_value(1_300));
        append.extend_from_slice(b"\r\n");
        assert_eq!(client.call(&append), b"STORED\r\n");
    }
    let (reply, datagrams) = client.call_within(b"get large\r\n", SOON).expect("a whole reply");
    assert!(reply == large_item("large", &large_value(1_300).repeat(3)), "{} bytes", reply.len());
    assert_eq!(datagrams, 3, "of at most 1 400 bytes");
    client.expect("delete key\r\n", "DELETED\r\n");
}

fn serves_past_the_kernel(family: Family) {
    let rig = Rig::new();
    let mut daemon = rig.start();
    let before = UdpCounters::read(&rig.pair.right).expect("counters");
    exercise(&mut rig.client(family));
    rig.wait_for_verdict(&mut daemon, "redirected", REQUESTS);
    let counted = UdpCounters::read(&rig.pair.right).expect("counters").since(&before);
    assert_eq!(counted, UdpCounters::default(), "the kernel's UDP stack has seen none of it");
    rig.assert_no_frame_lost(&mut daemon);
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.workers[0].frames_received, REQUESTS);
    assert_eq!(status.workers[0].frames_sent, REQUESTS + 2, "two more for the reply of three datagrams");
    assert_eq!(status.workers[0].kernel_received, 0);
}

#[test]
fn requests_over_ipv4_are_served_past_the_kernel() {
    serves_past_the_kernel(Family::V4);
}

#[test]
fn requests_over_ipv6_are_served_past_the_kernel() {
    serves_past_the_kernel(Family::V6);
}

#[test]
fn clients_on_the_same_host_are_served_through_the_companion() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    for (local, server) in [
        ("127.0.0.1:0", format!("127.0.0.1:{PORT}")),
        ("[::1]:0", format!("[::1]:{PORT}")),
        // Through `lo` too, whatever the address.
        ("10.77.0.2:0", format!("10.77.0.2:{PORT}")),
    ] {
        let (local, server) = (local.parse().expect("valid"), server.parse().expect("valid"));
        exercise(&mut Client::open(&rig.pair.right, local, server));
    }
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.workers[0].kernel_received, 3 * REQUESTS);
    assert_eq!(verdict(&status, rig.interface(), "redirected"), 0);
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn ip_fragments_are_served_through_the_companion() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    for (family, verdicts) in [(Family::V4, "pass_fragment"), (Family::V6, "pass_fragment")] {
        let before = rig.verdict(&mut daemon, verdicts);
        let mut client = rig.client(family);
        client.set("fragmented", &large_value(3_000));
        let reply = client.call(b"get fragmented\r\n");
        assert!(reply == large_item("fragmented", &large_value(3_000)), "{family:?}: {} bytes", reply.len());
        let status = daemon.status(&rig.pair.right).expect("it runs");
        assert_eq!(verdict(&status, rig.interface(), verdicts), before + 3, "{family:?}: {status:#?}");
    }
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.workers[0].kernel_received, 2);
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn a_source_that_is_not_allowed_is_never_answered() {
    let rig = Rig::new();
    rig.add_client_address(STRANGER);
    let mut daemon = rig.start();
    let local = SocketAddr::new(STRANGER.into(), 0);
    let mut stranger = Client::open(&rig.pair.left, local, rig.server(Family::V4));
    let mut client = rig.client(Family::V4);
    client.set("key", b"value");

    for _ in 0..10 {
        stranger.send(b"get key\r\n");
        stranger.send(b"set key 0 0 5\r\nwrong\r\n");
    }
    rig.wait_for_verdict(&mut daemon, "drop_source_denied", 20);

    // In fragments it passes the XDP program, which sees no ports there, and the companion refuses it.
    let mut fragmented = b"set key 0 0 3000\r\n".to_vec();
    fragmented.extend_from_slice(&large_value(3_000));
    fragmented.extend_from_slice(b"\r\n");
    stranger.send(&fragmented);
    rig.wait_for_metric("dataplane_drops_total{worker=\"0\",reason=\"source_not_allowed\"}", 1);

    client.assert_holds("key", "value");
    assert!(stranger.heard_nothing());
    rig.assert_no_frame_lost(&mut daemon);
}

/// Sends a UDP datagram whose checksum is `checksum`, whatever is in it.
fn send_with_checksum(rig: &Rig, checksum: u16, message: &[u8]) {
    let mut datagram = Vec::new();
    let length = 8 + 8 + u16::try_from(message.len()).expect("short");
    for word in [4_000, PORT, length, checksum, 77, 0, 1, 0] {
        datagram.extend_from_slice(&word.to_be_bytes());
    }
    datagram.extend_from_slice(message);
    let server = SocketAddrV4::new(rig.pair.right_end.v4, 0);
    let send = || {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::UDP))?;
        rustix::net::sendto(&socket, &datagram, SendFlags::empty(), &server)
    };
    rig.pair.left.run(send).expect("entered").expect("sent");
}

/// The daemon answers this client and nobody's frames are missing.
#[track_caller]
fn assert_well(rig: &Rig, daemon: &mut Daemon, client: &mut Client) {
    client.set("well", b"yes");
    client.assert_holds("well", "yes");
    rig.assert_no_frame_lost(daemon);
}

#[test]
fn bad_input_over_the_wire_is_answered_or_counted_and_serving_goes_on() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    let mut client = rig.client(Family::V4);
    let counted = |daemon: &mut Daemon, reason: &str, count: u64| {
        rig.wait_for_status(daemon, &format!("{count} drops for {reason}"), |status| {
            drops(status, reason) == count
        });
    };

    // The frame header cut short at every byte, and none at all.
    let header = [0, 1, 0, 0, 0, 1, 0, 0];
    for length in 0..header.len() {
        client.socket.send(&header[..length]).expect("sent");
    }
    counted(&mut daemon, "frame_header", 8);
    // Both halves of a request in two datagrams, one beyond the last, and a message of no datagrams.
    for (place, total) in [(0, 2), (1, 2), (3, 2), (0, 0)] {
        client.socket.send(&[&[0, 9, 0, place, 0, total, 0, 0][..], b"get well\r\n"].concat()).expect("sent");
    }
    counted(&mut daemon, "split_request", 4);
    assert_well(&rig, &mut daemon, &mut client);

    for (request, reply) in [
        (&b"\xff\xfe\x00garbage\r\n"[..], "ERROR"),
        (b"nonsense\r\n", "ERROR"),
        (b"get\r\n", "ERROR"),
        (b"set key 0 0 -1\r\n\r\n", "CLIENT_ERROR"),
        (b"set key 0 0 5\r\nabcdefgh\r\n", "CLIENT_ERROR"),
        (b"set key 0 0 99999999999999999999\r\n\r\n", "CLIENT_ERROR"),
        (b"incr key notanumber\r\n", "CLIENT_ERROR"),
    ] {
        let got = String::from_utf8_lossy(&client.call(request)).into_owned();
        assert!(got.starts_with(reply), "{:?} was answered {got:?}", String::from_utf8_lossy(request));
    }
    let key = "k".repeat(251);
    assert!(client.call(format!("get {key}\r\n").as_bytes()).starts_with(b"CLIENT_ERROR"));
    assert_well(&rig, &mut daemon, &mut client);

    send_with_checksum(&rig, 0xdead, b"set well 0 0 2\r\nno\r\n");
    counted(&mut daemon, "udp_checksum", 1);
    client.assert_holds("well", "yes");
    // Zero is no checksum, which IPv4 allows.
    send_with_checksum(&rig, 0, b"set unsummed 0 0 2\r\nok\r\n");
    client.ask_until("get unsummed\r\n", daemon_support::item("unsummed", "ok").as_bytes(), SOON);
    assert_well(&rig, &mut daemon, &mut client);

    // A valid request cut at every byte is answered or dropped, and never takes from the next one.
    let request = b"set cut 0 0 10\r\n0123456789\r\n";
    for length in 0..request.len() {
        client.send(&request[..length]);
        client.expect("get cut\r\n", "END\r\n");
    }
    assert_well(&rig, &mut daemon, &mut client);
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.workers[0].kernel_received, 0, "all of it came over the bypass");
}

#[test]
fn with_an_mtu_of_9000_it_attaches_natively_and_serves() {
    let rig = Rig::with_mtu(9_000);
    let mut daemon = rig.start();
    for family in [Family::V4, Family::V6] {
        let mut client = rig.client(family);
        exercise(&mut client);
        client.set("one-frame", &large_value(3_000));
        assert!(client.call(b"get one-frame\r\n") == large_item("one-frame", &large_value(3_000)));
        assert_eq!(rig.verdict(&mut daemon, "pass_too_long"), 0, "it fits a frame");
    }
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.queues[0].xdp_mode, "native");
    assert_eq!(status.workers[0].kernel_received, 0);
    // More than a frame holds comes through the companion.
    for family in [Family::V4, Family::V6] {
        let mut client = rig.client(family);
        client.set("beyond-a-frame", &large_value(8_000));
        let reply = client.call(b"get beyond-a-frame\r\n");
        assert!(reply == large_item("beyond-a-frame", &large_value(8_000)), "{} bytes", reply.len());
    }
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.workers[0].kernel_received, 2, "{status:#?}");
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn an_independent_client_gets_along_with_it() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    let before = UdpCounters::read(&rig.pair.right).expect("counters");
    let server = rig.pair.right_end.v4;
    // Reads and arithmetic are left out: over UDP this client leaves them in its buffer and never sends them.
    let converse = || -> Result<(), memcache::MemcacheError> {
        let address = format!("memcache+udp://{server}:{PORT}?protocol=ascii");
        let client = memcache::Client::with_pool_size(address, 1)?;
        client.set_read_timeout(Some(SOON))?;
        assert_eq!(client.version()?.len(), 1);
        client.set("greeting", "hello", 0)?;
        client.append("greeting", ", world")?;
        client.prepend("greeting", "well: ")?;
        // Not stored, which this client does not tell.
        client.add("greeting", 1, 0)?;
        client.add("number", 41, 0)?;
        client.replace("number", 42, 0)?;
        client.replace("absent", 1, 0)?;
        assert!(client.touch("number", 1_000)?);
        assert!(!client.touch("absent", 1_000)?);
        client.set("gone", "soon", 0)?;
        assert!(client.delete("gone")?);
        assert!(!client.delete("gone")?);
        client.set("large", String::from_utf8(large_value(1_200)).expect("letters").as_str(), 0)?;
        Ok(())
    };
    rig.pair.left.run(converse).expect("entered").unwrap_or_else(|error| panic!("{error}"));
    let mut client = rig.client(Family::V4);
    client.assert_holds("greeting", "well: hello, world");
    client.assert_holds("number", "42");
    client.expect("get gone absent\r\n", "END\r\n");
    assert!(client.call(b"get large\r\n") == large_item("large", &large_value(1_200)));
    let counted = UdpCounters::read(&rig.pair.right).expect("counters").since(&before);
    assert_eq!(counted, UdpCounters::default(), "the kernel's UDP stack has seen none of it");
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn a_source_over_its_rate_limit_is_not_answered_and_others_are() {
    let rig = Rig::new();
    let limit = "rate_limit = { requests_per_s = 10, burst = 5 }";
    let mut daemon = rig.start_with(&rig.config("", "", limit));
    let mut client = rig.client(Family::V4);
    for _ in 0..100 {
        client.send(b"get key\r\n");
    }
    let status = rig.wait_for_status(&mut daemon, "100 requests taken", |status| {
        status.workers[0].requests["get"] + drops(status, "rate_limited") == 100
    });
    let limited = drops(&status, "rate_limited");
    let mut answered = 0;
    wait_until("a reply to each of the others", SOON, || {
        answered += u64::from(client.receive(Duration::from_millis(10)).is_some());
        Ok((answered == 100 - limited).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {answered} answered, {limited} limited"));
    // A burst of 5, and 10 more for each second that the sending took.
    assert!((5..=50).contains(&answered), "{answered} answered");
    assert!(client.heard_nothing());
    // Another source has a limit of its own.
    let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 3)), 0);
    rig.pair.left.ip(&["addr", "add", "10.77.0.3/24", "dev", &rig.pair.left_end.interface]).expect("added");
    Client::open(&rig.pair.left, other, rig.server(Family::V4)).expect("get key\r\n", "END\r\n");
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn other_hosts_packets_are_the_kernels_and_a_new_address_is_served() {
    /// An address that is nobody's at first.
    const LATER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

    let rig = Rig::new();
    let later = format!("{LATER}/32");
    let (near, mac) = (&rig.pair.left_end.interface, rig.pair.right_end.mac_text());
    let left = |arguments: &[&str]| rig.pair.left.ip(arguments).expect("done");
    left(&["route", "add", &later, "dev", near]);
    // The packets have the daemon's MAC address, as those have that it is to forward.
    left(&["neigh", "replace", &LATER.to_string(), "lladdr", &mac, "dev", near, "nud", "permanent"]);
    let mut daemon = rig.start();
    let mut client = rig.client(Family::V4);
    client.set("key", b"value");
    let local = SocketAddr::new(rig.pair.left_end.v4.into(), 0);
    let mut foreign = Client::open(&rig.pair.left, local, SocketAddr::new(LATER.into(), PORT));

    let redirected = rig.verdict(&mut daemon, "redirected");
    for _ in 0..10 {
        foreign.send(b"set key 0 0 5\r\nwrong\r\n");
    }
    rig.wait_for_verdict(&mut daemon, "pass_no_service", 10);
    assert_eq!(rig.verdict(&mut daemon, "redirected"), redirected);
    assert!(foreign.heard_nothing());
    client.assert_holds("key", "value");

    // From now on it is this host's: answered by the companion at first, and past the kernel within a moment.
    rig.pair.right.ip(&["addr", "add", &later, "dev", rig.interface()]).expect("added");
    wait_until("the new address being served past the kernel", SOON, || {
        foreign.assert_holds("key", "value");
        Ok((rig.verdict(&mut daemon, "redirected") > redirected + 1).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    // And no longer once it has gone.
    rig.pair.right.ip(&["addr", "del", &later, "dev", rig.interface()]).expect("removed");
    let passed = rig.verdict(&mut daemon, "pass_no_service");
    wait_until("the address being somebody else's again", SOON, || {
        foreign.send(b"get key\r\n");
        Ok((rig.verdict(&mut daemon, "pass_no_service") > passed).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    client.assert_holds("key", "value");
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn two_workers_serve_two_queues_and_two_listeners_each_on_its_addresses() {
    const CLIENTS: usize = 32;

    let rig = Rig::with_queues(2);
    let second = PORT + 1;
    let server = rig.pair.right_end.v4;
    let listener = format!(
        r#"[[listener]]
service = "memcached"
port = {second}
addresses = ["{server}"]
allow = ["10.77.0.0/24", "fd77::/64"]
"#
    );
    let cores = dataplane::testbed::cpu::usable_cores();
    let [first, other, ..] = cores[..] else { panic!("two workers take two cores") };
    let last = cores.last().expect("a core");
    let config = rig.config("", "", &listener);
    let config = config.replace(&format!("cores = [{last}]"), &format!("cores = [{first}, {other}]"));
    let mut daemon = rig.start_with(&config);

    // Each socket's packets go to one queue, and so to one worker and its table.
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| rig.client(Family::V4)).collect();
    let local = |family: Family| SocketAddr::new(family.of(&rig.pair.left_end), 0);
    clients.extend((0..CLIENTS).map(|_| {
        let server = SocketAddr::new(server.into(), second);
        Client::open(&rig.pair.left, local(Family::V4), server)
    }));
    for (number, client) in clients.iter_mut().enumerate() {
        client.set(&format!("key-{number}"), b"value");
        client.assert_holds(&format!("key-{number}"), "value");
    }
    // Gauges are brought up to date some times a second.
    let items = |status: &StatusReport| status.workers.iter().map(|worker| worker.items).sum::<u64>();
    let status = rig
        .wait_for_status(&mut daemon, "every client's item", |status| items(status) == clients.len() as u64);
    let queues: Vec<(u32, usize)> = status.queues.iter().map(|queue| (queue.queue, queue.worker)).collect();
    assert_eq!(queues, [(0, 0), (1, 1)]);
    for worker in &status.workers {
        assert!(worker.frames_received > 0 && worker.items > 0, "{status:#?}");
        assert_eq!(worker.kernel_received, 0);
    }

    // The second listener's address is not the host's other one.
    let elsewhere = SocketAddr::new(Family::V6.of(&rig.pair.right_end), second);
    let mut stranger = Client::open(&rig.pair.left, local(Family::V6), elsewhere);
    let passed = verdict(&status, rig.interface(), "pass_no_service");
    stranger.send(b"get key-0\r\n");
    rig.wait_for_verdict(&mut daemon, "pass_no_service", passed + 1);
    assert!(stranger.heard_nothing());
    rig.assert_no_frame_lost(&mut daemon);
    assert!(daemon.stop().unwrap_or_else(|error| panic!("{error}")).success());
}
