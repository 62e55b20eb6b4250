//! A wire that loses frames: a namespace between two others, where an XDP program hands each frame on to the other side
//! or drops it. Neither end has a program for it, so whatever serves there, the kernel or the daemon, suffers the same.

use std::ffi::CStr;

use libbpf_sys as bpf;

use super::bpf::{
    Attached, Instruction, LOAD_MAP, Map, attach_xdp_here, instruction, interface_index_here, load_64,
    load_xdp,
};
use super::ethtool::{self, Offload};
use super::{Namespace, TestbedError, VethEnd};

/// Losses are in parts of this.
pub const SHARE: u32 = 1_000_000;

/// Where a direction's numbers are in its map: the generator's state, the bound below which a frame is lost, and what
/// was counted. Each has 8 bytes.
const STATE: u32 = 0;
const BOUND: u32 = 1;
const PASSED: u32 = 2;
const LOST: u32 = 3;
const NUMBERS: u32 = 4;
const NUMBER_BYTES: usize = 8;

const NAME: &CStr = c"testbed_wire";

/// The wire. Dropping it cuts it.
#[derive(Debug)]
pub struct Wire {
    /// By the end that sends: left, right.
    directions: [Direction; 2],
    _namespace: Namespace,
}

#[derive(Debug)]
struct Direction {
    numbers: Map,
    _attached: Attached,
}

/// What a direction has done with its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Handed on.
    pub passed: u64,
    /// Dropped.
    pub lost: u64,
}

impl Wire {
    /// Names of the middle's interfaces towards an end's.
    pub(super) fn interface_towards(end: &VethEnd) -> String {
        format!("{}m", end.interface)
    }

    /// Joins the middle's interfaces, whose other ends are in other namespaces already. Nothing is lost yet.
    pub(super) fn join(namespace: Namespace, ends: [&VethEnd; 2]) -> Result<Self, TestbedError> {
        let interfaces = ends.map(Self::interface_towards);
        for interface in &interfaces {
            ethtool::set(&namespace, interface, Offload::TransmitChecksum, false)?;
            // The wire has no address and nothing to say by itself.
            namespace
                .ip_batch(&format!("link set dev {interface} addrgenmode none\nlink set {interface} up\n"))?;
        }
        let direction = |from: &str, to: &str| -> Result<Direction, TestbedError> {
            let numbers = numbers()?;
            let attached = namespace.run(|| {
                let program = program(numbers.number(), interface_index_here(to)?);
                attach_xdp_here(load_xdp(NAME, &program)?, from)
            })??;
            Ok(Direction { numbers, _attached: attached })
        };
        let [left, right] = &interfaces;
        let directions = [direction(left, right)?, direction(right, left)?];
        Ok(Self { directions, _namespace: namespace })
    }

    /// From now on `parts` of [`SHARE`] frames are lost, each way, and which ones follows from the seed. Starts counting anew.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the kernel refuses.
    ///
    /// # Panics
    /// When more than all are to be lost.
    pub fn lose(&self, parts: u32, seed: u64) -> Result<(), TestbedError> {
        assert!(parts <= SHARE, "{parts} of {SHARE}");
        let [left, right] = &self.directions;
        set(&left.numbers, parts, seed)?;
        set(&right.numbers, parts, !seed)
    }

    /// What became of the frames the left and the right end sent, since [`lose`](Self::lose) was last called.
    ///
    /// # Errors
    /// [`TestbedError::Io`] when the kernel refuses.
    pub fn frames(&self) -> Result<[Frames; 2], TestbedError> {
        let mut frames = [Frames::default(); 2];
        for (frames, direction) in frames.iter_mut().zip(&self.directions) {
            *frames = counted(&direction.numbers)?;
        }
        Ok(frames)
    }
}

fn numbers() -> Result<Map, TestbedError> {
    Map::create(bpf::BPF_MAP_TYPE_ARRAY, NAME, NUMBERS as usize * NUMBER_BYTES, 1)
}

fn set(map: &Map, parts: u32, seed: u64) -> Result<(), TestbedError> {
    let mut numbers = [0; NUMBERS as usize];
    numbers[STATE as usize] = seed;
    numbers[BOUND as usize] = (u64::from(parts) << 32) / u64::from(SHARE);
    let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_ne_bytes).collect();
    map.put(0, &bytes)
}

fn counted(map: &Map) -> Result<Frames, TestbedError> {
    let bytes = map.get(0)?;
    let number = |place: u32| {
        let at = place as usize * NUMBER_BYTES;
        u64::from_ne_bytes(bytes[at..at + NUMBER_BYTES].try_into().expect("eight bytes"))
    };
    Ok(Frames { passed: number(PASSED), lost: number(LOST) })
}

/// One queue, so one processor at a time: its numbers need no lock. A linear congruential generator modulo 2^64 (Knuth's
/// MMIX) is asked for its high bits, which are good enough to spread losses.
fn program(numbers: i32, to: i32) -> Vec<Instruction> {
    const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
    const INCREMENT: u64 = 1_442_695_040_888_963_407;
    const ABORTED: i32 = 0;
    const DROP: i32 = 1;
    const LOOKUP: i32 = 1;
    const REDIRECT: i32 = 23;
    const fn at(place: u32) -> i16 {
        place as i16 * NUMBER_BYTES as i16
    }
    let mut program = vec![
        instruction(0x62, 10, 0, -4, 0),            //  0: the key = 0
        instruction(0xbf, 2, 10, 0, 0),             //  1: r2 = frame pointer
        instruction(0x07, 2, 0, 0, -4),             //  2: r2 = address of the key
        instruction(0x18, 1, LOAD_MAP, 0, numbers), //  3: r1 = map (two slots)
        instruction(0x00, 0, 0, 0, 0),              //  4
        instruction(0x85, 0, 0, 0, LOOKUP),         //  5: r0 = bpf_map_lookup_elem(r1, r2)
        instruction(0x55, 0, 0, 2, 0),              //  6: found: to 9
        instruction(0xb7, 0, 0, 0, ABORTED),        //  7: never
        instruction(0x95, 0, 0, 0, 0),              //  8: return
        instruction(0x79, 1, 0, at(STATE), 0),      //  9: r1 = state
    ];
    program.extend(load_64(2, MULTIPLIER)); //             10: r2 = multiplier
    program.push(instruction(0x2f, 1, 2, 0, 0)); //        12: r1 *= r2
    program.extend(load_64(2, INCREMENT)); //              13: r2 = increment
    program.extend([
        instruction(0x0f, 1, 2, 0, 0),          // 15: r1 += r2
        instruction(0x7b, 0, 1, at(STATE), 0),  // 16: state = r1
        instruction(0x77, 1, 0, 0, 32),         // 17: r1 >>= 32
        instruction(0x79, 2, 0, at(BOUND), 0),  // 18: r2 = bound
        instruction(0xad, 1, 2, 7, 0),          // 19: below it: to 27
        instruction(0x79, 1, 0, at(PASSED), 0), // 20: r1 = passed
        instruction(0x07, 1, 0, 0, 1),          // 21: r1 += 1
        instruction(0x7b, 0, 1, at(PASSED), 0), // 22: passed = r1
        instruction(0xb7, 1, 0, 0, to),         // 23: r1 = the other side
        instruction(0xb7, 2, 0, 0, 0),          // 24: r2 = no flags
        instruction(0x85, 0, 0, 0, REDIRECT),   // 25: r0 = bpf_redirect(r1, r2)
        instruction(0x95, 0, 0, 0, 0),          // 26: return r0
        instruction(0x79, 1, 0, at(LOST), 0),   // 27: r1 = lost
        instruction(0x07, 1, 0, 0, 1),          // 28: r1 += 1
        instruction(0x7b, 0, 1, at(LOST), 0),   // 29: lost = r1
        instruction(0xb7, 0, 0, 0, DROP),       // 30: r0 = drop
        instruction(0x95, 0, 0, 0, 0),          // 31: return r0
    ]);
    program
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;
    use crate::testbed::{VethPair, wait_until};

    const DATAGRAMS: u64 = 2_000;

    fn socket(namespace: &Namespace, end: &VethEnd) -> UdpSocket {
        let address = SocketAddr::new(end.v4.into(), 4_000);
        let socket = namespace.run(|| UdpSocket::bind(address)).expect("entered").expect("bound");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time");
        socket
    }

    /// Sends a while; how many arrived.
    fn send(pair: &VethPair, [left, right]: [&UdpSocket; 2]) -> u64 {
        let to = SocketAddr::new(pair.right_end.v4.into(), 4_000);
        let mut arrived = 0;
        let mut buffer = [0; 64];
        for number in 0..DATAGRAMS {
            left.send_to(&number.to_ne_bytes(), to).expect("sent");
            // Taken out at once where it has come already: no receive buffer runs full.
            right.set_nonblocking(true).expect("set");
            while right.recv(&mut buffer).is_ok() {
                arrived += 1;
            }
        }
        right.set_nonblocking(false).expect("set");
        while right.recv(&mut buffer).is_ok() {
            arrived += 1;
        }
        arrived
    }

    #[test]
    fn what_is_to_be_lost_is_lost_and_all_else_arrives() {
        let (pair, wire) =
            VethPair::across(VethEnd::left(), VethEnd::right(), VethPair::MTU_DEFAULT).expect("root and ip");
        let [left, right] = [socket(&pair.left, &pair.left_end), socket(&pair.right, &pair.right_end)];
        // A link that has just come up may say a word of its own: the sockets alone are counted.
        for (parts, expected) in [(0, 0..=0), (SHARE / 10, 140..=260), (SHARE, DATAGRAMS..=DATAGRAMS)] {
            wire.lose(parts, 7).expect("set");
            let arrived = send(&pair, [&left, &right]);
            let lost = DATAGRAMS - arrived;
            assert!(expected.contains(&lost), "{lost} lost of {parts} in {SHARE}");
            let [frames, _] = wire.frames().expect("read");
            assert!(frames.passed >= arrived && frames.lost >= lost, "{frames:?}, {arrived} arrived");
        }
        // And back.
        wire.lose(0, 7).expect("set");
        let to = SocketAddr::new(pair.left_end.v4.into(), 4_000);
        wait_until("a datagram back", Duration::from_secs(5), || {
            right.send_to(b"back", to).map_err(TestbedError::io("send"))?;
            Ok(left.recv(&mut [0; 8]).ok())
        })
        .expect("received");
    }

    /// Which of 64 frames are lost, asked of the kernel without an interface.
    fn which(parts: u32, seed: u64) -> u64 {
        const LOOPBACK: i32 = 1;
        let numbers = numbers().expect("a map");
        let program = load_xdp(NAME, &program(numbers.number(), LOOPBACK)).expect("it is verified");
        set(&numbers, parts, seed).expect("set");
        let frame = [0_u8; 64];
        let mut lost = 0;
        for place in 0..64 {
            let before = counted(&numbers).expect("read");
            let mut options = bpf::bpf_test_run_opts {
                sz: size_of::<bpf::bpf_test_run_opts>() as bpf::size_t,
                data_in: frame.as_ptr().cast(),
                data_size_in: frame.len() as u32,
                repeat: 1,
                ..Default::default()
            };
            // SAFETY: the descriptor is that of a program; the options say their own size, and the frame is as long as
            // they say; both live during the call.
            let result = unsafe { bpf::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
            assert_eq!(result, 0);
            let after = counted(&numbers).expect("read");
            assert_eq!(after.passed + after.lost, before.passed + before.lost + 1);
            lost |= (after.lost - before.lost) << place;
        }
        lost
    }

    #[test]
    fn a_seed_tells_which_frames_are_lost() {
        let first = which(SHARE / 4, 3);
        assert!((4..=32).contains(&first.count_ones()), "{first:064b}");
        assert_eq!(which(SHARE / 4, 3), first);
        assert_ne!(which(SHARE / 4, 4), first);
        assert_eq!((which(0, 3), which(SHARE, 3)), (0, u64::MAX));
    }
}
