//! The verdict on every kind of packet, asked of the kernel itself (`BPF_PROG_TEST_RUN`). Needs CAP_BPF and
//! CAP_NET_ADMIN. `DATAPLANE_EBPF_OBJECT` makes it run on another object than the built-in one.

#[path = "../../ebpf/src/packet/tests/build.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "documented and reachable where it belongs: in the parser's tests"
)]
mod build;

use std::cell::Cell;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use build::PacketBuilder;
use dataplane::config::SteerLogLevel;
use dataplane::limits::{PACKET_BYTES_MAX, STALE_NS};
use dataplane::steer::inspect::inspect;
use dataplane::steer::{Action, BEAT_INTERVAL_NS, ServiceProtocol, ServiceRule, Steer, Verdict};
use dataplane::time::Now;
use dataplane_ebpf::layout::{self, STICKY_TCP_NS, STICKY_UDP_NS};
use libbpf_rs::{MapCore as _, MapFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const PORT: u16 = 11211;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Bytes of the one page of a test run that are neither headroom nor `skb_shared_info`: what is longer lies in several
/// buffers. (Linux `bpf_prog_test_run_xdp`, on machines with pages of 4 KiB and cache lines of 64 bytes.)
const LINEAR_BYTES_MAX: usize = 4096 - 256 - 320;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// From an allowed client to the service on any address.
fn datagram() -> PacketBuilder {
    PacketBuilder::udp((ip("10.1.2.3"), 40_000), (ip("10.0.0.1"), PORT))
}

fn datagram_v6() -> PacketBuilder {
    PacketBuilder::udp((ip("fd00::7"), 40_000), (ip("fd00::1"), PORT))
}

fn segment(flags: u8) -> PacketBuilder {
    PacketBuilder::tcp((ip("10.1.2.3"), 40_000), (ip("10.0.0.1"), PORT), flags)
}

fn rules() -> Vec<ServiceRule> {
    let udp = |port, addresses: &[&str], allow: &[&str]| ServiceRule {
        protocol: ServiceProtocol::Udp,
        port,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        allow: allow.iter().map(|text| text.parse().expect("a network")).collect(),
    };
    vec![
        udp(PORT, &[], &["10.0.0.0/8", "fd00::/16"]),
        ServiceRule { protocol: ServiceProtocol::Tcp, ..udp(PORT, &[], &["10.0.0.0/8"]) },
        // Narrower than the one on any address: the exact address is looked up first.
        udp(PORT, &["10.0.0.99", "fd00::99"], &["10.9.0.0/16"]),
        udp(7, &["10.0.0.1"], &["::/0"]),
    ]
}

/// A loaded program with services, a socket on queue 0, and no worker yet.
struct Rig {
    steer: Steer,
    socket: Option<OwnedFd>,
    /// The worker beats before each packet, however slow the machine.
    beating: Cell<bool>,
}

impl Rig {
    fn new() -> Self {
        let mut steer = Steer::load(SteerLogLevel::Off).expect("the program loads; this test needs root");
        steer.set_services(&rules()).expect("the services go in");
        let socket =
            rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .expect("an AF_XDP socket");
        steer.register_socket(0, socket.as_fd()).expect("the socket goes in");
        Self { steer, socket: Some(socket), beating: Cell::new(false) }
    }

    /// With a worker that beats.
    fn alive() -> Self {
        let rig = Self::new();
        rig.come_back();
        rig
    }

    /// Closes the socket, which takes it out of the map.
    fn close_socket(&mut self) {
        self.socket = None;
        // A process that another test is just starting may hold a copy of it for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.verdict(&datagram().build()) != Verdict::NoSocket {
            assert!(Instant::now() < deadline, "the socket stays in the map");
        }
    }

    fn come_back(&self) {
        self.beating.set(true);
    }

    fn turn_stale(&self) {
        self.beating.set(false);
        self.beat(STALE_NS + STALE_NS / 2);
    }

    /// Beats as of some time ago.
    fn beat(&self, age_ns: u64) {
        let mut slot = self.steer.heartbeats().expect("heartbeats").slot(0).expect("queue 0");
        slot.beat(Now::read().monotonic_ns - age_ns);
    }

    /// The verdict on a packet: the one counter that moved.
    fn verdict(&self, packet: &[u8]) -> Verdict {
        if self.beating.get() {
            self.beat(0);
        }
        let before = self.steer.counters().expect("counters");
        let action = self.steer.test_run(packet).expect("the program runs");
        let after = self.steer.counters().expect("counters");
        let moved: Vec<Verdict> = Verdict::ALL
            .iter()
            .copied()
            .filter(|verdict| after[verdict.label()] != before[verdict.label()])
            .collect();
        let [verdict] = moved[..] else { panic!("one packet, one verdict: {moved:?}") };
        assert_eq!(after[verdict.label()], before[verdict.label()] + 1);
        assert_eq!(verdict.action(), action, "{verdict:?}");
        verdict
    }

    #[track_caller]
    fn expect(&self, what: &str, packet: &PacketBuilder, verdict: Verdict) {
        assert_eq!(self.verdict(&packet.build()), verdict, "{what}");
    }

    #[track_caller]
    fn expect_all(&self, cases: &[(&str, PacketBuilder, Verdict)]) {
        for (what, packet, verdict) in cases {
            self.expect(what, packet, *verdict);
        }
    }
}

#[test]
fn what_is_for_a_service_is_redirected() {
    let rig = Rig::alive();
    let options = vec![1; 40];
    let two_tags = vec![0x88a8, 0x8100];
    for (what, packet) in [
        ("IPv4", datagram()),
        ("IPv6", datagram_v6()),
        ("one tag", PacketBuilder { vlan_tags: vec![0x8100], ..datagram() }),
        ("two tags", PacketBuilder { vlan_tags: two_tags.clone(), ..datagram() }),
        ("two tags, IPv6", PacketBuilder { vlan_tags: two_tags.clone(), ..datagram_v6() }),
        ("an option", PacketBuilder { ip_options: vec![1; 4], ..datagram() }),
        ("all options there can be", PacketBuilder { ip_options: options.clone(), ..datagram() }),
        (
            "two tags and all options",
            PacketBuilder { vlan_tags: two_tags, ip_options: options.clone(), ..datagram() },
        ),
        ("no payload", PacketBuilder { payload: vec![], ..datagram() }),
        ("padding", PacketBuilder { payload: vec![1], padding: 17, ..datagram() }),
        ("datagram shorter than its IP packet", PacketBuilder { udp_length: Some(12), ..datagram() }),
        ("TCP SYN", segment(SYN)),
        ("TCP segment", segment(ACK)),
        ("TCP options", PacketBuilder { tcp_options: options, ..segment(ACK) }),
        ("TCP reset", segment(RST)),
        ("3 000 bytes", PacketBuilder { payload: vec![0; 3_000], ..datagram() }),
    ] {
        rig.expect(what, &packet, Verdict::Redirected);
    }
}

#[test]
fn what_cannot_be_parsed_goes_to_the_kernel_with_its_reason() {
    use Verdict::{Fragment, Ipv6Extension, Malformed, NotIp, OtherProtocol, Truncated, VlanDepth};
    Rig::alive().expect_all(&[
        ("ARP", PacketBuilder { ethertype: Some(0x0806), ..datagram() }, NotIp),
        ("three tags", PacketBuilder { vlan_tags: vec![0x88a8, 0x8100, 0x8100], ..datagram() }, VlanDepth),
        ("IPv6 in an IPv4 frame", PacketBuilder { ip_version: Some(6), ..datagram() }, Malformed),
        ("IPv4 in an IPv6 frame", PacketBuilder { ip_version: Some(4), ..datagram_v6() }, Malformed),
        ("short IPv4 header", PacketBuilder { ip_header_words: Some(4), ..datagram() }, Malformed),
        ("length within the header", PacketBuilder { ip_length: Some(19), ..datagram() }, Malformed),
        ("length beyond the packet", PacketBuilder { ip_length: Some(37), ..datagram() }, Truncated),
        ("no room for UDP", PacketBuilder { ip_length: Some(27), ..datagram() }, Malformed),
        ("UDP length 7", PacketBuilder { udp_length: Some(7), ..datagram() }, Malformed),
        ("UDP length beyond IP", PacketBuilder { udp_length: Some(17), ..datagram() }, Malformed),
        ("IPv6, UDP length 0", PacketBuilder { udp_length: Some(0), ..datagram_v6() }, Malformed),
        ("IPv6 beyond the packet", PacketBuilder { ip_length: Some(17), ..datagram_v6() }, Truncated),
        ("IPv6 jumbogram", PacketBuilder { ip_length: Some(0), ..datagram_v6() }, Malformed),
        ("first fragment", PacketBuilder { ip_fragment: 0x2000, ..datagram() }, Fragment),
        ("later fragment", PacketBuilder { ip_fragment: 0x0001, ..datagram() }, Fragment),
        ("IPv6 fragment", PacketBuilder { ip_extension: Some(44), ..datagram_v6() }, Fragment),
        ("hop-by-hop", PacketBuilder { ip_extension: Some(0), ..datagram_v6() }, Ipv6Extension),
        ("destination options", PacketBuilder { ip_extension: Some(60), ..datagram_v6() }, Ipv6Extension),
        ("ICMP", PacketBuilder { protocol: 1, ..datagram() }, OtherProtocol),
        ("ICMPv6", PacketBuilder { protocol: 58, ..datagram_v6() }, OtherProtocol),
        ("TCP header under 20", PacketBuilder { tcp_header_words: Some(4), ..segment(ACK) }, Malformed),
        ("TCP header beyond IP", PacketBuilder { tcp_header_words: Some(15), ..segment(ACK) }, Malformed),
    ]);
}

#[test]
fn a_packet_cut_short_anywhere_goes_to_the_kernel() {
    let rig = Rig::alive();
    for packet in [
        datagram(),
        datagram_v6(),
        segment(ACK),
        PacketBuilder { vlan_tags: vec![0x88a8, 0x8100], ip_options: vec![1; 40], ..datagram() },
    ] {
        let whole = packet.build();
        // The kernel runs no packet shorter than an Ethernet header.
        for length in 14..whole.len() {
            assert_eq!(rig.verdict(&whole[..length]), Verdict::Truncated, "{length} bytes of {packet:?}");
        }
    }
}

#[test]
fn every_other_packet_goes_to_the_kernel() {
    use Verdict::{Multicast, NoService};
    let elsewhere = ip("10.0.0.2");
    Rig::alive().expect_all(&[
        ("other port", PacketBuilder { destination_port: 53, ..datagram() }, NoService),
        (
            "the source port does not count",
            PacketBuilder { source_port: PORT, destination_port: 53, ..datagram() },
            NoService,
        ),
        ("other protocol's port", PacketBuilder { destination_port: 7, ..segment(SYN) }, NoService),
        (
            "other address",
            PacketBuilder { destination: elsewhere, destination_port: 7, ..datagram() },
            NoService,
        ),
        ("broadcast", PacketBuilder { destination_mac: [0xff; 6], ..datagram() }, Multicast),
        ("multicast", PacketBuilder { destination_mac: [1, 0, 0x5e, 0, 0, 1], ..datagram() }, Multicast),
    ]);
}

#[test]
fn the_allow_list_decides_who_is_served() {
    let rig = Rig::alive();
    for (source, destination, port, verdict) in [
        ("10.255.255.255", "10.0.0.1", PORT, Verdict::Redirected),
        ("11.0.0.0", "10.0.0.1", PORT, Verdict::SourceDenied),
        ("9.255.255.255", "10.0.0.1", PORT, Verdict::SourceDenied),
        ("fd00:ffff::1", "fd00::1", PORT, Verdict::Redirected),
        ("fd01::1", "fd00::1", PORT, Verdict::SourceDenied),
        ("::1", "fd00::1", PORT, Verdict::SourceDenied),
        // The exact address has a list of its own, for both families.
        ("10.1.2.3", "10.0.0.99", PORT, Verdict::SourceDenied),
        ("10.9.2.3", "10.0.0.99", PORT, Verdict::Redirected),
        ("fd00::7", "fd00::99", PORT, Verdict::SourceDenied),
        // All of IPv6 is not IPv4.
        ("10.1.2.3", "10.0.0.1", 7, Verdict::SourceDenied),
    ] {
        let packet = PacketBuilder::udp((ip(source), 40_000), (ip(destination), port));
        rig.expect(&format!("{source} to {destination} port {port}"), &packet, verdict);
    }
    let outside = PacketBuilder::tcp((ip("11.0.0.0"), 40_000), (ip("10.0.0.1"), PORT), SYN);
    rig.expect("TCP", &outside, Verdict::SourceDenied);
}

#[test]
fn a_denied_source_never_reaches_the_companion_socket() {
    let rig = Rig::new();
    let denied = PacketBuilder::udp((ip("11.0.0.0"), 40_000), (ip("10.0.0.1"), PORT));
    rig.expect("nobody serves", &denied, Verdict::SourceDenied);
    rig.turn_stale();
    rig.expect("stale", &denied, Verdict::SourceDenied);
    let long = PacketBuilder { payload: vec![0; PACKET_BYTES_MAX], ..denied };
    rig.expect("too long", &long, Verdict::SourceDenied);
}

#[test]
fn a_packet_longer_than_a_frame_or_in_pieces_goes_to_the_kernel() {
    let rig = Rig::alive();
    let headers = datagram().build().len() - datagram().payload.len();
    for (bytes, verdict) in [
        (LINEAR_BYTES_MAX, Verdict::Redirected),
        (LINEAR_BYTES_MAX + 1, Verdict::TooLong),
        (PACKET_BYTES_MAX, Verdict::TooLong),
        (PACKET_BYTES_MAX + 1, Verdict::TooLong),
        (9_014, Verdict::TooLong),
        (40_000, Verdict::TooLong),
    ] {
        let packet = PacketBuilder { payload: vec![0; bytes - headers], ..datagram() };
        rig.expect(&format!("{bytes} bytes"), &packet, verdict);
    }
    let padded = PacketBuilder { padding: PACKET_BYTES_MAX, ..datagram() };
    rig.expect("a short datagram with long padding", &padded, Verdict::TooLong);
}

#[test]
fn without_a_worker_or_a_socket_everything_goes_to_the_kernel() {
    let mut rig = Rig::new();
    rig.expect("not a beat yet", &datagram(), Verdict::NoSocket);
    rig.expect("not a beat yet, TCP", &segment(ACK), Verdict::NoSocket);
    rig.come_back();
    rig.expect("a beat", &datagram(), Verdict::Redirected);
    let denied = PacketBuilder { source: ip("11.0.0.0"), ..datagram() };
    rig.expect("not allowed", &denied, Verdict::SourceDenied);
    rig.close_socket();
    rig.expect("no socket", &datagram(), Verdict::NoSocket);
    rig.expect("no socket, not allowed", &denied, Verdict::NoSocket);
    // Its heartbeat grows old, but there is nobody whom its connections could wait for.
    rig.turn_stale();
    rig.expect("dead", &datagram(), Verdict::NoSocket);
    rig.expect("dead, not allowed", &denied, Verdict::NoSocket);
    rig.expect("dead, SYN", &segment(SYN), Verdict::NoSocket);
    rig.expect("dead, segment", &segment(ACK), Verdict::NoSocket);
}

#[test]
fn a_stale_workers_datagrams_go_to_the_companion_and_stick_for_a_while() {
    let rig = Rig::new();
    let other = PacketBuilder { source_port: 40_001, ..datagram() };
    let deadline = Instant::now() + Duration::from_secs(20);
    // On a machine that is slow enough the window closes before it is looked into; then again.
    loop {
        assert!(Instant::now() < deadline, "the machine is too slow to see a flow stick");
        let start = Instant::now();
        rig.turn_stale();
        rig.expect("stale", &datagram(), Verdict::Stale);
        rig.expect("stale, IPv6", &datagram_v6(), Verdict::Stale);
        rig.come_back();
        let back = [&datagram(), &datagram_v6(), &other].map(|packet| rig.verdict(&packet.build()));
        if start.elapsed() < Duration::from_nanos(STICKY_UDP_NS) / 2 {
            assert_eq!(
                back,
                [Verdict::Sticky, Verdict::Sticky, Verdict::Redirected],
                "only what was passed sticks"
            );
            break;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while rig.verdict(&datagram().build()) == Verdict::Sticky {
        assert!(Instant::now() < deadline, "the flow is stuck for good");
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.expect("free again", &datagram(), Verdict::Redirected);
}

#[test]
fn a_stale_workers_connections_wait_and_new_ones_stick_to_the_companion() {
    let rig = Rig::alive();
    let new = |flags| PacketBuilder { source_port: 40_001, ..segment(flags) };
    rig.expect("old connection", &segment(SYN), Verdict::Redirected);
    rig.turn_stale();
    rig.expect("old connection, stale", &segment(ACK), Verdict::StaleSegment);
    rig.expect("old connection reset, stale", &segment(RST), Verdict::StaleSegment);
    rig.expect("answer to nothing we sent", &segment(SYN | ACK), Verdict::StaleSegment);
    rig.expect("new connection", &new(SYN), Verdict::StaleSyn);
    rig.expect("new connection goes on", &new(ACK), Verdict::Sticky);
    rig.come_back();
    rig.expect("old connection, back", &segment(ACK), Verdict::Redirected);
    rig.expect("the companion keeps its own", &new(ACK), Verdict::Sticky);
    rig.expect("for good", &new(ACK), Verdict::Sticky);
    rig.expect("its reset still goes there", &new(RST), Verdict::Sticky);
    rig.expect("which anybody can forge", &new(ACK), Verdict::Sticky);
    rig.expect("its client starts anew", &new(SYN), Verdict::Sticky);
    rig.expect("a connection of the worker's", &segment(SYN), Verdict::Redirected);
}

#[test]
fn a_reset_or_syn_while_stale_frees_no_connection_of_the_companions() {
    let rig = Rig::new();
    rig.turn_stale();
    rig.expect("SYN", &segment(SYN), Verdict::StaleSyn);
    rig.expect("SYN again", &segment(SYN), Verdict::Sticky);
    rig.expect("RST", &segment(RST), Verdict::Sticky);
    rig.expect("goes on", &segment(ACK), Verdict::Sticky);
}

#[test]
fn a_connection_that_was_idle_for_too_long_is_the_workers_again() {
    let rig = Rig::new();
    rig.turn_stale();
    rig.expect("SYN", &segment(SYN), Verdict::StaleSyn);
    rig.come_back();
    rig.expect("sticks", &segment(ACK), Verdict::Sticky);
    let map = libbpf_rs::MapHandle::from_map_id(map_id(&rig.steer, layout::TCP_FLOWS)).expect("it is there");
    let keys: Vec<Vec<u8>> = map.keys().collect();
    let [key] = &keys[..] else { panic!("one connection sticks: {keys:?}") };
    let now_ns = Now::read().monotonic_ns;
    let until_ns = || {
        let value = map.lookup(key, MapFlags::ANY).expect("it can be read").expect("it is there");
        u64::from_ne_bytes(value.try_into().expect("one word"))
    };
    // The program's clock is that of the last tick.
    let tick_ns = 20_000_000;
    assert!((now_ns + STICKY_TCP_NS).abs_diff(until_ns()) < STICKY_TCP_NS / 2, "{} at {now_ns}", until_ns());
    let set = |until_ns: u64| map.update(key, &until_ns.to_ne_bytes(), MapFlags::ANY).expect("it is written");
    set(now_ns + STALE_NS * 60);
    rig.expect("a reset does not keep it", &segment(RST), Verdict::Sticky);
    rig.expect("nor does a SYN", &segment(SYN), Verdict::Sticky);
    assert_eq!(until_ns(), now_ns + STALE_NS * 60);
    rig.expect("a segment does", &segment(ACK), Verdict::Sticky);
    assert!(until_ns() + tick_ns >= now_ns + STICKY_TCP_NS);
    set(now_ns - tick_ns);
    rig.expect("idle for too long", &segment(ACK), Verdict::Redirected);
    rig.expect("and for good", &segment(ACK), Verdict::Redirected);
    rig.turn_stale();
    rig.expect("stale again", &segment(ACK), Verdict::StaleSegment);
    rig.expect("a new connection of the same ports", &segment(SYN), Verdict::StaleSyn);
}

#[test]
fn a_flood_of_datagrams_pushes_no_connection_out() {
    let rig = Rig::new();
    rig.turn_stale();
    rig.expect("SYN", &segment(SYN), Verdict::StaleSyn);
    let count = u16::try_from(layout::FLOWS_MAX * 2).expect("as many as there are ports");
    for port in 0..count {
        rig.steer.test_run(&PacketBuilder { source_port: port, ..datagram() }.build()).expect("it runs");
    }
    rig.turn_stale();
    rig.expect("goes on", &segment(ACK), Verdict::Sticky);
}

/// A map's number in the kernel.
fn map_id(steer: &Steer, name: &str) -> u32 {
    let status = inspect(std::path::Path::new("/nowhere"), Duration::ZERO).expect("the kernel answers");
    let program = status.programs.into_iter().find(|program| program.id == steer.program_id());
    let maps = program.expect("it is loaded").maps;
    maps.into_iter().find(|map| map.name == name).expect("it has the map").id
}

#[test]
fn stale_episodes_are_counted_once_each() {
    let rig = Rig::new();
    let heartbeats = rig.steer.heartbeats().expect("heartbeats");
    for episode in 1..=3 {
        rig.turn_stale();
        rig.expect("stale", &datagram(), Verdict::Stale);
        rig.expect("stale", &datagram(), Verdict::Stale);
        rig.come_back();
        rig.expect("back", &PacketBuilder { source_port: 1, ..datagram() }, Verdict::Redirected);
        assert_eq!(heartbeats.stale_episodes(0), episode);
    }
}

#[test]
fn services_change_without_a_moment_of_openness_and_unchanged_ones_are_left_alone() {
    let mut rig = Rig::alive();
    let narrow = ServiceRule { allow: vec!["10.1.0.0/16".parse().expect("a network")], ..rules()[0].clone() };
    let outside = PacketBuilder { source: ip("10.2.0.1"), ..datagram() };
    rig.expect("wide", &outside, Verdict::Redirected);
    rig.steer.set_services(std::slice::from_ref(&narrow)).expect("they change");
    rig.expect("narrow", &outside, Verdict::SourceDenied);
    rig.expect("inside", &datagram(), Verdict::Redirected);
    rig.expect("others are gone", &segment(SYN), Verdict::NoService);

    // The same sources on an address, in place of any: the allow-list is kept, the keys are exchanged.
    let bound = ServiceRule { addresses: vec![ip("10.0.0.1")], ..narrow };
    rig.steer.set_services(std::slice::from_ref(&bound)).expect("they change");
    rig.expect("bound", &datagram(), Verdict::Redirected);
    rig.expect("bound, outside", &outside, Verdict::SourceDenied);
    rig.expect("elsewhere", &PacketBuilder { destination: ip("10.0.0.2"), ..datagram() }, Verdict::NoService);

    // What cannot be is refused as a whole.
    let broken = ServiceRule { allow: vec![], port: 53, ..bound.clone() };
    rig.steer.set_services(&[broken]).expect_err("a service without allow-list");
    rig.expect("as before", &datagram(), Verdict::Redirected);

    rig.steer.clear_services().expect("they go");
    rig.expect("nothing is steered", &datagram(), Verdict::NoService);
    rig.expect("nothing is dropped", &outside, Verdict::NoService);
    rig.steer.set_services(&rules()).expect("they come back");
    rig.expect("again", &datagram_v6(), Verdict::Redirected);
}

#[test]
fn packets_that_meet_a_change_are_judged_by_the_old_list_or_the_new_one() {
    let mut rig = Rig::alive();
    let list = |allow: &[&str], addresses: &[&str]| ServiceRule {
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        allow: allow.iter().map(|text| text.parse().expect("a network")).collect(),
        ..rules()[0].clone()
    };
    let here = "10.0.0.1";
    // What every list allows and what none does, whether it hangs on the address or on any.
    let both = ["10.1.0.0/16"];
    let lists = [
        vec![list(&["10.1.0.0/16", "10.2.0.0/16"], &[])],
        vec![list(&both, &[here]), list(&["10.7.0.0/16"], &[])],
        vec![list(&["10.1.0.0/16", "10.3.0.0/16"], &[]), list(&["10.8.0.0/16"], &["10.0.0.2"])],
        vec![list(&["10.1.0.0/16", "10.4.0.0/16"], &[here, "10.0.0.2"])],
        vec![list(&["10.6.0.0/16"], &["10.0.0.2"]), list(&["10.1.0.0/16", "10.5.0.0/16"], &[here])],
    ];
    let allowed = PacketBuilder { source: ip("10.1.2.3"), ..datagram() }.build();
    let denied = PacketBuilder { source: ip("11.0.0.1"), ..datagram() }.build();
    let runner = rig.steer.test_runner().expect("a descriptor");
    let mut slot = rig.steer.heartbeats().expect("heartbeats").slot(0).expect("queue 0");
    rig.steer.set_services(&lists[0]).expect("they change");
    let (over, mut flips) = (AtomicBool::new(false), 0);
    let (runs, wrong) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let (mut runs, mut wrong) = (0u64, Vec::new());
            while !over.load(Ordering::Relaxed) {
                slot.beat(Now::read().monotonic_ns);
                for (packet, never) in [(&allowed, Action::Drop), (&denied, Action::Redirect)] {
                    let action = runner.test_run(packet).expect("the program runs");
                    if action == never {
                        wrong.push(action);
                    }
                }
                runs += 1;
            }
            (runs, wrong)
        });
        // For a time, and not for a number: were there no waiting in between, there would be thousands of them.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) || flips < lists.len() {
            flips += 1;
            rig.steer.set_services(&lists[flips % lists.len()]).expect("they change");
        }
        over.store(true, Ordering::Relaxed);
        looking.join().expect("it looks to the end")
    });
    assert!(runs > 1_000, "{runs} looks see next to nothing");
    assert!(wrong.is_empty(), "{flips} changes, {runs} looks, {} wrong: {:?}", wrong.len(), wrong.first());
}

#[test]
fn more_networks_than_the_map_holds_are_refused_before_anything_changes() {
    let mut rig = Rig::alive();
    let hosts = |count: u32| {
        let host = |number: u32| ipnet::IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        vec![ServiceRule { allow: (0..count).map(host).collect(), ..rules()[0].clone() }]
    };
    let error = rig.steer.set_services(&hosts(20_000)).expect_err("too many").to_string();
    assert!(error.contains("16384"), "{error}");
    rig.expect("as before", &datagram(), Verdict::Redirected);
    rig.steer.clear_services().expect("they go");
    rig.steer.set_services(&hosts(16_384)).expect("a full map");
    let inside = PacketBuilder { source: ip("10.0.63.255"), ..datagram() };
    rig.expect("the last one in", &inside, Verdict::Redirected);
    let outside = PacketBuilder { source: ip("10.0.64.0"), ..datagram() };
    rig.expect("the first one out", &outside, Verdict::SourceDenied);
}

#[test]
fn a_beat_is_written_once_in_an_interval_into_the_queues_own_slot() {
    let rig = Rig::new();
    let heartbeats = rig.steer.heartbeats().expect("heartbeats");
    let now_ns = Now::read().monotonic_ns;
    assert_eq!(heartbeats.beat_ns(3), None);
    let mut slot = heartbeats.slot(3).expect("queue 3");
    slot.beat(now_ns);
    assert_eq!(heartbeats.beat_ns(3), Some(now_ns));
    // One that polls all the time does not write each time.
    slot.beat(now_ns + BEAT_INTERVAL_NS - 1);
    assert_eq!(heartbeats.beat_ns(3), Some(now_ns));
    slot.beat(now_ns + BEAT_INTERVAL_NS);
    assert_eq!(heartbeats.beat_ns(3), Some(now_ns + BEAT_INTERVAL_NS));
    assert_eq!(heartbeats.beat_ns(2), None, "each queue has its own");
    assert_eq!(heartbeats.beat_ns(u32::MAX), None);
}

#[test]
fn want_of_privilege_is_explained() {
    // Capabilities belong to a thread.
    let error = std::thread::spawn(|| {
        caps::clear(None, caps::CapSet::Effective).expect("they can be given up");
        Steer::load(SteerLogLevel::Off).expect_err("it takes privilege").to_string()
    })
    .join()
    .expect("the thread ends");
    assert!(error.contains("CAP_BPF") && error.contains("CAP_NET_ADMIN"), "{error}");
}
