//! A flood of SYNs from addresses that the listener allows and nobody has: who is connected is served on, who comes is let
//! in, and nothing is kept of what nobody follows up.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::testbed::{VethPair, wait_until};

use crate::daemon_support::SOON;
use crate::daemon_support::bed::{Bed, RESP_PORT, Transport, connections, events, over_every_transport};
use crate::traffic::{self, Dice, Load};

over_every_transport!(a_flood_of_syns_disturbs_nobody);

/// SYNs in all: many times what there are records for.
const SYNS: u64 = 60_000;
/// SYNs sent at once; between two such salvos the flood takes breath, as the one other core has to do for client and server.
const SALVO: u64 = 64;
const BREATH: Duration = Duration::from_micros(500);
/// Clients that are connected before it begins, and clients that come while it lasts.
const BEFORE: usize = 8;
const DURING: usize = 20;
/// What a daemon may take in addition: the records of handshakes under way, and pages of tables touched for the first time.
const MEMORY_BYTES_MAX: u64 = 32 << 20;

/// A socket for whole frames on the clients' end of the wire.
struct Forger {
    socket: OwnedFd,
    frame: [u8; FRAME_BYTES],
    /// Of the forged addresses; the last byte is free.
    network: [u8; 4],
    dice: Dice,
}

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const FRAME_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES;

impl Forger {
    /// Opens it in the calling thread's namespace.
    fn open(pair: &VethPair) -> Self {
        // SAFETY: no pointers are passed.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just opened and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = std::ffi::CString::new(pair.left_end.interface.as_str()).expect("a name without NUL");
        // SAFETY: an all-zero address is a valid value of the plain C struct.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        // SAFETY: the name ends in NUL and outlives the call.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        // SAFETY: the address is a `sockaddr_ll` of the length given, and outlives the call.
        let bound = unsafe {
            let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length)
        };
        assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
        let mut frame = [0; FRAME_BYTES];
        frame[..6].copy_from_slice(&pair.right_end.mac);
        frame[6..12].copy_from_slice(&pair.left_end.mac);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let packet = &mut frame[ETHERNET_BYTES..];
        // Version 4, five words; total length; time to live; TCP.
        (packet[0], packet[8], packet[9]) = (0x45, 64, 6);
        packet[2..4].copy_from_slice(&((IPV4_BYTES + TCP_BYTES) as u16).to_be_bytes());
        packet[16..20].copy_from_slice(&pair.right_end.v4.octets());
        let segment = &mut packet[IPV4_BYTES..];
        segment[2..4].copy_from_slice(&RESP_PORT.to_be_bytes());
        // Five words; SYN; window.
        (segment[12], segment[13]) = (0x50, 0x02);
        segment[14..16].copy_from_slice(&[0xff, 0xff]);
        Self { socket, frame, network: pair.left_end.v4.octets(), dice: Dice::new(3) }
    }

    /// Sends one SYN: from somebody else each time.
    fn send(&mut self) {
        // Of the network that is allowed, but neither of the two who are there.
        let [a, b, c, _] = self.network;
        let source = Ipv4Addr::new(a, b, c, 3 + self.dice.roll(250) as u8);
        let port = 1_024 + self.dice.roll(60_000) as u16;
        let sequence = self.dice.roll(1 << 32) as u32;
        let packet = &mut self.frame[ETHERNET_BYTES..];
        packet[10..12].fill(0);
        packet[12..16].copy_from_slice(&source.octets());
        let sum = checksum(packet[..IPV4_BYTES].iter().copied(), 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let (header, segment) = packet.split_at_mut(IPV4_BYTES);
        segment[..2].copy_from_slice(&port.to_be_bytes());
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment[16..18].fill(0);
        // The pseudo-header: both addresses, the protocol and the length.
        let sum = checksum(header[12..20].iter().chain(segment.iter()).copied(), 6 + TCP_BYTES as u32);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        // SAFETY: the frame is readable for the length given, and outlives the call.
        let sent = unsafe {
            libc::send(self.socket.as_raw_fd(), self.frame.as_ptr().cast(), FRAME_BYTES, libc::MSG_DONTWAIT)
        };
        // Full queues are what a flood is about.
        assert!(sent >= 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS));
    }
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: impl Iterator<Item = u8>, start: u32) -> u16 {
    let mut sum = start;
    for (place, byte) in bytes.enumerate() {
        sum += u32::from(byte) << if place % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn a_flood_of_syns_disturbs_nobody(transport: Transport) {
    let mut bed = Bed::start(transport);
    let memory = bed.resident_bytes();
    let Bed { rig, .. } = &bed;
    let place = bed.resp();
    let mut forger = rig.pair.left.run(|| Forger::open(&rig.pair)).expect("the clients' namespace");
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, during) = std::thread::scope(|scope| {
        let (over, sent) = (&over, &sent);
        let load = Load { clients: BEFORE, seed: 1, large_one_in: 20 };
        let before = traffic::connect(place, &load);
        let before = scope.spawn(move || traffic::ask_all(before, || !over.load(Ordering::Relaxed)));
        scope.spawn(move || {
            while sent.load(Ordering::Relaxed) < SYNS {
                (0..SALVO).for_each(|_| forger.send());
                sent.fetch_add(SALVO, Ordering::Relaxed);
                std::thread::sleep(BREATH);
            }
            over.store(true, Ordering::Relaxed);
        });
        // Once there are more than there are records for.
        wait_until("the flood to rise", SOON, || Ok((sent.load(Ordering::Relaxed) > SYNS / 4).then_some(())))
            .unwrap_or_else(|error| panic!("{error}"));
        let start = Instant::now();
        for number in 0..DURING {
            let load = Load { clients: 1, seed: 100 + number as u64, large_one_in: 2 };
            let asked = AtomicU64::new(0);
            let figures = traffic::run(place, &load, || asked.fetch_add(1, Ordering::Relaxed) < 5);
            assert!(figures.answers() > 0, "{figures}");
        }
        let took = start.elapsed();
        assert!(!over.load(Ordering::Relaxed), "the flood was over before all had come, after {took:?}");
        (before.join().expect("the clients"), took)
    });
    println!("{transport:?}: beside the flood {before}; {DURING} came within {during:?}");
    assert!(before.answers() > 1_000, "{before}");
    // To those who are there nothing of it is more than a busy neighbour.
    assert!(before.percentile(0.99) < Duration::from_millis(50), "{before}");
    let grown = bed.resident_bytes().saturating_sub(memory);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes more");
    let status = bed.status();
    // Nobody of the flood counts as connected.
    assert!(connections(&status) <= (BEFORE + DURING) as u64, "{:?}", status.workers);
    if transport == Transport::Bypass {
        let cookies = events(&status, "cookie");
        assert!(cookies > SYNS / 10, "{cookies} SYNs were answered with a cookie");
        assert_eq!(events(&status, "accepted"), (BEFORE + DURING) as u64);
    }
    let status = bed.assert_nothing_left();
    assert_eq!(events(&status, "broken"), 0, "{:?}", status.workers);
}
