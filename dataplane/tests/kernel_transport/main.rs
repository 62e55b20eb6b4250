//! A worker of ordinary sockets alone, served to real clients on loopback: addresses, pieces, slow and silent clients,
//! limits, and its end.

mod rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dataplane::config::{Idle, ListenerConfig, ListenerProtocol};
use dataplane::control::companion::CompanionSocket;
use dataplane::metrics::{DropReason, TcpEvent};
use dataplane::time::NS_PER_MS;
use dataplane::transport::kernel::Patience;
use dataplane::worker::driver::Event;
use rig::{Rig, SOON, VALUE_BYTES_MAX, Wish};

/// Sends, and expects exactly this.
#[track_caller]
fn call(stream: &mut TcpStream, request: &[u8], reply: &[u8]) {
    stream.write_all(request).expect("it is sent");
    expect(stream, reply);
}

#[track_caller]
fn expect(stream: &mut TcpStream, reply: &[u8]) {
    let mut got = vec![0; reply.len()];
    stream.read_exact(&mut got).expect("a reply");
    assert!(got == reply, "{:?} is not {:?}", text(&got), text(reply));
}

/// Whether it ends without a word: closed or reset, within the time-out.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 8]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned()
}

fn set(key: &str, value: &[u8]) -> Vec<u8> {
    [format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

fn value(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 255 + seed) as u8).collect()
}

fn item(key: &str, value: &[u8]) -> Vec<u8> {
    [format!("VALUE {key} 0 {}\r\n", value.len()).as_bytes(), value, b"\r\nEND\r\n"].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0, 7, 0, 0, 0, 1, 0, 0], message].concat()
}

fn datagram_client(from: &str) -> UdpSocket {
    let client = UdpSocket::bind((from, 0)).expect("a free port");
    client.set_read_timeout(Some(SOON)).expect("a time-out");
    client
}

#[test]
fn a_datagram_is_answered_from_the_address_that_was_asked() {
    let rig = Rig::with(Wish { allow: "127.0.0.0/8 ::1/128", ..Wish::default() });
    let mut buffer = vec![0; 2_048];
    for (from, to) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.99"), ("::1", "::1")] {
        let client = datagram_client(from);
        client.connect((to, rig.memcached_udp)).expect("a connected socket hears this address only");
        // More than there are buffers and slots: each comes back.
        for round in 0..1_000 {
            client.send(&framed(format!("set key 0 0 4\r\n{round:04}\r\n").as_bytes())).expect("it is sent");
            let length = client.recv(&mut buffer).expect("a reply");
            assert_eq!(text(&buffer[8..length]), "STORED\r\n");
        }
        client.send(&framed(b"get key\r\n")).expect("it is sent");
        let length = client.recv(&mut buffer).expect("a reply");
        assert_eq!(text(&buffer[8..length]), "VALUE key 0 4\r\n0999\r\nEND\r\n");
    }
    // Told by the next completion: the last reply may be on its way still.
    rig.until("all are counted", |metrics| metrics.kernel_sent.get() == 3 * 1_001);
    assert_eq!(rig.metrics.kernel_received.get(), 3 * 1_001);
}

#[test]
fn datagrams_of_strangers_and_of_those_who_ask_too_much_are_dropped_and_counted() {
    let wish = Wish { allow: "127.0.0.1/32", requests_per_s: Some(3), ..Wish::default() };
    let rig = Rig::with(wish);
    let stranger = datagram_client("127.0.0.2");
    stranger.send_to(&framed(b"get a\r\n"), ("127.0.0.1", rig.memcached_udp)).expect("it is sent");
    rig.until("it is dropped", |metrics| metrics.drops(DropReason::SourceNotAllowed) == 1);
    let client = datagram_client("127.0.0.1");
    client.connect(("127.0.0.1", rig.memcached_udp)).expect("connected");
    for _ in 0..20 {
        client.send(&framed(b"get a\r\n")).expect("it is sent");
    }
    rig.until("all are counted", |metrics| metrics.kernel_received.get() == 21);
    // A slow machine may let a fourth one in a third of a second later.
    let limited = rig.metrics.drops(DropReason::RateLimited);
    assert!((10..=17).contains(&limited), "{limited}");
    // Cut short by our buffer it cannot be; sent to everybody it can.
    client.set_broadcast(true).expect("a socket");
    let anywhere = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    anywhere.set_broadcast(true).expect("a socket");
    anywhere.send_to(&framed(b"get a\r\n"), ("127.255.255.255", rig.memcached_udp)).expect("it is sent");
    rig.until("it is not answered", |metrics| metrics.drops(DropReason::Malformed) == 1);
}

#[test]
fn requests_come_in_pieces_and_many_at_once_and_are_answered_in_order() {
    let rig = Rig::new();
    let mut client = rig.connect(rig.memcached);
    for byte in set("key", b"value") {
        client.write_all(&[byte]).expect("it is sent");
    }
    expect(&mut client, b"STORED\r\n");
    let requests: Vec<u8> =
        (0..10_000).flat_map(|number| set(&format!("key-{number}"), &value(100, number))).collect();
    let mut writer = client.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || writer.write_all(&requests).expect("it is read"));
    expect(&mut client, &b"STORED\r\n".repeat(10_000));
    writing.join().expect("it wrote");
    let requests: Vec<u8> =
        (0..10_000).flat_map(|number| format!("get key-{number}\r\n").into_bytes()).collect();
    client.write_all(&requests).expect("it is sent");
    for number in 0..10_000 {
        expect(&mut client, &item(&format!("key-{number}"), &value(100, number)));
    }
}

#[test]
fn the_largest_values_come_and_go_whole_for_many_at_once() {
    const CLIENTS: usize = 40;
    let rig = Rig::new();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let rig = &rig;
            scope.spawn(move || {
                let mut client = rig.connect(rig.memcached);
                // More clients at once than there are blocks of the largest size.
                for bytes in [VALUE_BYTES_MAX, 300_000, 16_384, 16_383] {
                    let (key, value) = (format!("large-{number}"), value(bytes, number));
                    call(&mut client, &set(&key, &value), b"STORED\r\n");
                    // The table has room for 60 of the largest, and 40 keys.
                    call(&mut client, format!("get {key}\r\n").as_bytes(), &item(&key, &value));
                }
            });
        }
    });
    rig.until("all have gone", |metrics| metrics.kernel_connections.get() == 0);
    assert_eq!(rig.metrics.kernel_tcp_events(TcpEvent::Finished), CLIENTS as u64);
    assert_eq!(rig.metrics.kernel_tcp_events(TcpEvent::NoRoom), 0);
}

#[test]
fn a_client_that_has_said_all_it_has_to_say_is_answered_in_full() {
    let rig = Rig::new();
    let mut client = rig.connect(rig.memcached);
    call(&mut client, &set("key", &value(500_000, 1)), b"STORED\r\n");
    client.write_all(&b"get key\r\n".repeat(30)).expect("it is sent");
    client.shutdown(Shutdown::Write).expect("connected");
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("not reset");
    assert!(all == item("key", &value(500_000, 1)).repeat(30), "{} bytes", all.len());
}

#[test]
fn quit_is_the_end_and_what_follows_is_not_answered() {
    let rig = Rig::new();
    let mut client = rig.connect(rig.memcached);
    client.write_all(b"version\r\nquit\r\nversion\r\n").expect("it is sent");
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("closed, not reset");
    assert_eq!(all.iter().filter(|&&byte| byte == b'\n').count(), 1, "{:?}", text(&all));
    let mut client = rig.connect(rig.resp);
    client.write_all(b"*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n").expect("it is sent");
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("closed, not reset");
    assert_eq!(text(&all), "+OK\r\n");
}

#[test]
fn who_talks_on_after_the_end_is_let_go_in_time() {
    let rig = Rig::new();
    let mut client = rig.connect(rig.memcached);
    client.write_all(b"quit\r\n").expect("it is sent");
    let deadline = Instant::now() + 2 * SOON;
    while client.write_all(b"version\r\n").is_ok() {
        assert!(Instant::now() < deadline, "it is listened to without end");
        std::thread::sleep(Duration::from_millis(50));
    }
    rig.until("it has gone", |metrics| metrics.kernel_connections.get() == 0);
}

#[test]
fn many_beginnings_of_requests_take_nothing_from_the_longest_one() {
    let rig = Rig::with(Wish { connections_max: 1_000, ..Wish::default() });
    // More than there are blocks of the two largest sizes together.
    let mut begun: Vec<TcpStream> = (0..400).map(|_| rig.connect(rig.memcached)).collect();
    for client in &mut begun {
        client.write_all(b"g").expect("it is sent");
    }
    let mut client = rig.connect(rig.memcached);
    call(&mut client, &set("key", &value(VALUE_BYTES_MAX, 5)), b"STORED\r\n");
    call(&mut client, b"get key\r\n", &item("key", &value(VALUE_BYTES_MAX, 5)));
    for client in &mut begun {
        call(client, b"et other\r\n", b"END\r\n");
    }
}

#[test]
fn who_waits_for_a_block_goes_on_when_its_holder_dies() {
    const LONGEST: usize = 16;
    let rig = Rig::new();
    let large = set("key", &value(VALUE_BYTES_MAX, 5));
    let mut holders: Vec<TcpStream> = (0..LONGEST).map(|_| rig.connect(rig.memcached)).collect();
    for holder in &mut holders {
        holder.write_all(&large[..large.len() - 1]).expect("it is read into its block");
    }
    let mut waiting = rig.connect(rig.memcached);
    let mut writer = waiting.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || writer.write_all(&large).expect("it is read in the end"));
    waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    assert!(waiting.read(&mut [0; 1]).is_err(), "there is no block for it");
    waiting.set_read_timeout(Some(SOON)).expect("a time-out");
    // Nothing else happens on this worker: its end alone has to bring it about.
    drop(holders.pop());
    expect(&mut waiting, b"STORED\r\n");
    writing.join().expect("it wrote");
}

#[test]
fn both_protocols_reach_the_same_items() {
    let rig = Rig::new();
    let (mut one, mut other) = (rig.connect(rig.memcached), rig.connect(rig.resp));
    call(&mut one, &set("key", b"value"), b"STORED\r\n");
    call(&mut other, b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", b"$5\r\nvalue\r\n");
    call(&mut other, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$2\r\nno\r\n", b"+OK\r\n");
    call(&mut one, b"get key\r\n", &item("key", b"no"));
}

#[test]
fn a_client_that_does_not_read_stops_being_read_from_and_nobody_else_notices() {
    const SLOW: usize = 60;
    let rig = Rig::new();
    let mut client = rig.connect(rig.memcached);
    call(&mut client, &set("key", &value(100_000, 7)), b"STORED\r\n");
    // Each asks for gigabytes and reads nothing: in the end the kernel takes no more from it.
    let mut slow: Vec<TcpStream> = (0..SLOW).map(|_| rig.connect(rig.memcached)).collect();
    let request = b"get key\r\n".repeat(1_000);
    for client in &mut slow {
        client.set_write_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        let deadline = Instant::now() + SOON;
        let mut sent = 0;
        let refused = loop {
            match client.write(&request[sent % request.len()..]) {
                Ok(more) => sent += more,
                Err(error) => break error,
            }
            assert!(Instant::now() < deadline, "it is read from without end");
        };
        assert!(matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{refused}");
    }
    for number in 0..100 {
        let value = value(50_000, number);
        call(&mut client, &set("other", &value), b"STORED\r\n");
        call(&mut client, b"get other\r\n", &item("other", &value));
    }
    // Those that read after all get what they asked for.
    let reply = item("key", &value(100_000, 7));
    for client in &mut slow[..3] {
        for _ in 0..100 {
            expect(client, &reply);
        }
    }
    drop(slow);
    rig.until("all but one have gone", |metrics| metrics.kernel_connections.get() == 1);
}

#[test]
fn who_is_silent_or_never_finishes_a_request_is_closed_in_time() {
    let patience = Patience { idle_ns: 0, request_ns: 200 * NS_PER_MS };
    let rig = Rig::with(Wish { patience, ..Wish::default() });
    let mut half = rig.connect(rig.memcached);
    half.write_all(b"set key 0 0 10\r\n0123").expect("it is sent");
    // A line that never ends is no request, however often something of it comes.
    let mut drop_by_drop = rig.connect(rig.memcached);
    let dripping = std::thread::spawn(move || {
        let deadline = Instant::now() + SOON;
        while drop_by_drop.write_all(b"g").is_ok() {
            assert!(Instant::now() < deadline, "it is listened to without end");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let mut silent = rig.connect(rig.memcached);
    call(&mut silent, b"version\r\n", b"VERSION");
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest);
    assert!(rest.is_empty() && start.elapsed() < SOON);
    dripping.join().expect("it is closed too");
    rig.until("they have gone", |metrics| metrics.kernel_connections.get() == 1);
    let mut line = [0; 64];
    let _ = silent.read(&mut line).expect("the rest of the version");
    call(&mut silent, b"version\r\n", b"VERSION");

    let patience = Patience { idle_ns: 1_000 * NS_PER_MS, request_ns: 0 };
    let rig = Rig::with(Wish { patience, ..Wish::default() });
    let mut silent = rig.connect(rig.memcached);
    call(&mut silent, b"version\r\n", b"VERSION");
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    rig.until("it has gone", |metrics| metrics.kernel_connections.get() == 0);
}

#[test]
fn strangers_and_those_too_many_are_closed_unheard() {
    let wish = Wish { allow: "127.0.0.1/32", connections_max: 2, ..Wish::default() };
    let rig = Rig::with(wish);
    let mut clients = [rig.connect(rig.memcached), rig.connect(rig.memcached)];
    for client in &mut clients {
        call(client, b"get a\r\n", b"END\r\n");
    }
    let mut third = rig.connect(rig.memcached);
    assert!(is_closed(&mut third));
    rig.until("it is counted", |metrics| metrics.kernel_tcp_events(TcpEvent::NoConnection) == 1);
    let [_, freed] = clients;
    drop(freed);
    rig.until("a place is free", |metrics| metrics.kernel_connections.get() == 1);
    call(&mut rig.connect(rig.memcached), b"get a\r\n", b"END\r\n");
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let socket = socket.expect("a socket");
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0))).expect("an address of lo");
    let server = SocketAddr::from(([127, 0, 0, 1], rig.memcached));
    rustix::net::connect(&socket, &server).expect("the kernel connects");
    let mut stranger = TcpStream::from(socket);
    stranger.set_read_timeout(Some(SOON)).expect("a time-out");
    assert!(is_closed(&mut stranger));
    assert_eq!(rig.metrics.drops(DropReason::SourceNotAllowed), 1);
}

#[test]
fn while_another_worker_stands_still_nobody_is_served_from_a_table_that_is_not_his() {
    let rig = Rig::with(Wish { steered: true, ..Wish::default() });
    let mut old = rig.connect(rig.memcached);
    call(&mut old, &set("key", b"value"), b"STORED\r\n");
    rig.others_stale.store(true, Ordering::Relaxed);
    let client = datagram_client("127.0.0.1");
    client.connect(("127.0.0.1", rig.memcached_udp)).expect("connected");
    let mut buffer = [0; 256];
    let ask = |buffer: &mut [u8; 256]| {
        client.send(&framed(b"get key\r\n")).expect("it is sent");
        let length = client.recv(buffer).expect("a reply");
        text(&buffer[8..length])
    };
    let deadline = Instant::now() + SOON;
    while !ask(&mut buffer).contains("temporarily unavailable") {
        assert!(Instant::now() < deadline, "it is told");
    }
    let mut told = Vec::new();
    rig.connect(rig.memcached).read_to_end(&mut told).expect("closed, not reset");
    assert!(text(&told).contains("temporarily unavailable"), "{:?}", text(&told));
    let mut told = Vec::new();
    rig.connect(rig.resp).read_to_end(&mut told).expect("closed, not reset");
    assert!(text(&told).starts_with('-'), "{:?}", text(&told));
    rig.others_stale.store(false, Ordering::Relaxed);
    let deadline = Instant::now() + SOON;
    while ask(&mut buffer) != "VALUE key 0 5\r\nvalue\r\nEND\r\n" {
        assert!(Instant::now() < deadline, "it is served again");
    }
}

#[test]
fn a_worker_that_ends_has_answered_what_it_had_and_its_clients_hear_of_it() {
    let mut rig = Rig::with(Wish { idle: Idle::Busy, ..Wish::default() });
    let mut clients: Vec<TcpStream> = (0..20).map(|_| rig.connect(rig.memcached)).collect();
    for client in &mut clients {
        call(client, &set("key", &value(200_000, 3)), b"STORED\r\n");
        client.write_all(b"get key\r\n").expect("it is sent");
    }
    rig.stop();
    assert!(matches!(rig.events.lock().expect("nobody panics").try_recv(), Ok(Event::Stopped { .. })));
    for client in &mut clients {
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("closed, not reset");
        assert!(all == item("key", &value(200_000, 3)), "{} bytes", all.len());
    }
    // The ports are free again.
    let again = ListenerConfig {
        protocol: ListenerProtocol::Tcp,
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        ..ListenerConfig::new("memcached", rig.memcached)
    };
    CompanionSocket::bind_all(&[again], 1).expect("it can be bound");
}
