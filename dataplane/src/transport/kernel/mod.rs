//! Datagrams and streams over ordinary sockets, through one io_uring of the worker's own. It takes no privilege.
//!
//! It serves the listeners that are not steered past the kernel, and the same sockets of those that are: what the XDP
//! program does not see or passes on, such as clients on this host (through `lo`) and fragments.
//!
//! | file | what it holds |
//! |---|---|
//! | `ring` | the io_uring: what is pushed, what completes, sleeping |
//! | `buffers` | provided buffers, which the kernel takes when it receives |
//! | `datagrams` | sockets for datagrams, and replies on their way |
//! | `message` | the addresses of a datagram, as the kernel writes them |
//! | `connections` | accepting, reading, answering, closing |
//! | `connection` | one connection and what is kept of it |
//! | `gather` | sending what lies in several places at once |
//! | `error` | [`KernelError`] |
//!
//! Like every transport it is a step, [`Kernel::poll`], that never waits.

mod buffers;
mod connection;
mod connections;
mod datagrams;
mod error;
mod gather;
pub mod message;
mod ring;

pub use connections::Patience;
pub use error::{KERNEL_MIN, KernelError};

use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;

use self::connections::Connections;
use self::datagrams::Datagrams;
use self::ring::{COMPLETIONS_MAX, Completion, Ring, Token};
use super::server::Server;
use super::streams::StreamListeners;
use crate::metrics::{TcpEvent, WorkerMetrics};
use crate::time::Now;

/// Numbers of the two groups of provided buffers.
const DATAGRAM_GROUP: u16 = 1;
const STREAM_GROUP: u16 = 2;

/// What a worker's ordinary sockets are.
#[derive(Debug)]
pub struct KernelSetup {
    /// Bound sockets for datagrams that tell each one's destination, with their ports. They block: see below.
    pub datagrams: Vec<(OwnedFd, u16)>,
    /// Listening sockets. Neither may these be `O_NONBLOCK`: io_uring would then say `EAGAIN` instead of waiting for what
    /// comes (Linux `io_uring/io_uring.c`, `REQ_F_NOWAIT`).
    pub streams: Vec<OwnedFd>,
    /// The services of the latter.
    pub listeners: StreamListeners,
    /// Connections that may be open at once.
    pub connections_max: usize,
    /// When connections are closed.
    pub patience: Patience,
}

/// The ordinary sockets of one worker. It is made and used on the worker's thread.
pub struct Kernel {
    ring: Ring,
    /// Dropped only once the ring has ended everything that uses its memory.
    parts: ManuallyDrop<Parts>,
    taken: ArrayVec<Completion, COMPLETIONS_MAX>,
}

struct Parts {
    datagrams: Datagrams,
    connections: Connections,
}

impl Kernel {
    /// Serves these sockets.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn new(setup: KernelSetup) -> Result<Self, KernelError> {
        let KernelSetup { datagrams, streams, listeners, connections_max, patience } = setup;
        let mut ring = Ring::new()?;
        let mut datagrams = Datagrams::new(&ring, DATAGRAM_GROUP, datagrams)?;
        let mut connections =
            Connections::new(&ring, STREAM_GROUP, streams, listeners, connections_max, patience)?;
        datagrams.arm(&mut ring);
        connections.accept(&mut ring);
        Ok(Self { ring, parts: ManuallyDrop::new(Parts { datagrams, connections }), taken: ArrayVec::new() })
    }

    /// Whether this process can have one at all.
    ///
    /// # Errors
    /// [`KernelError`]: why not.
    pub fn probe() -> Result<(), KernelError> {
        // On a thread of its own, which ends with it: the kernel takes a ring apart some milliseconds later, and then
        // notifies the thread that made it (Linux `io_uring/io_uring.c`, `io_ring_exit_work`). Whatever that thread does by
        // then is interrupted: a program that it loads is refused with `EAGAIN`.
        let probe = || Ring::new().map(drop);
        std::thread::scope(|scope| {
            let probing = std::thread::Builder::new().spawn_scoped(scope, probe);
            let probing = probing.map_err(KernelError::system("starting a thread"))?;
            probing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Serves what has come, and sends the replies. Returns how many datagrams and pieces of streams it took.
    pub fn poll(&mut self, metrics: &WorkerMetrics, server: &mut impl Server) -> usize {
        let Self { ring, parts, taken } = self;
        let Parts { datagrams, connections } = &mut **parts;
        if taken.is_empty() {
            ring.take(taken);
            if taken.is_empty() && ring.is_due() {
                ring.enter();
                ring.take(taken);
            }
        }
        if taken.is_empty() && !connections.is_due() {
            return 0;
        }
        let mut served = 0;
        for completion in taken.drain(..) {
            match completion.token {
                Token::Datagram(number) => {
                    datagrams.received(ring, number, completion, metrics, server);
                    served += 1;
                }
                Token::Reply(slot) => datagrams.replied(slot, completion, metrics),
                Token::Accept(number) => {
                    connections.accepted(number, completion, metrics, server.now());
                    served += 1;
                }
                Token::Receive(number) => {
                    connections.received(number, completion, server);
                    served += 1;
                }
                Token::Send(number) => {
                    connections.sent(number, completion, server.now());
                    // Requests may have waited for it.
                    served += 1;
                }
            }
        }
        connections.settle(ring, server);
        datagrams.publish();
        datagrams.arm(ring);
        if ring.is_due() {
            ring.enter();
        }
        served
    }

    /// Before a sleep: what becomes readable when there is something to poll for; `None` when there is already. Afterwards
    /// [`Kernel::awake`] has to be called.
    pub fn asleep(&mut self) -> Option<BorrowedFd<'_>> {
        self.ring.asleep()
    }

    /// The sleep is over.
    pub fn awake(&mut self) {
        self.ring.awake();
    }

    /// Closes the connections whose time is over; wanted some times a second.
    pub fn sweep(&mut self, now: Now) {
        self.parts.connections.sweep(&mut self.ring, now);
    }

    /// Accepts nobody any more, and ends each connection once its replies have gone.
    pub fn close_all(&mut self) {
        self.parts.connections.close_all();
    }

    /// Says whether another worker stands still: then who connects to a listener that is steered is told that it is
    /// unavailable.
    pub fn set_suspended(&mut self, suspended: bool) {
        self.parts.connections.set_suspended(suspended);
    }

    /// Whether replies are still on their way.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.parts.connections.is_sending()
    }

    /// Whether it wants a poll though nothing came.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.parts.connections.is_due()
    }

    /// Connections open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.parts.connections.open()
    }

    /// How often each event has happened, in the order of [`TcpEvent::ALL`].
    #[must_use]
    pub fn events(&self) -> &[u64; TcpEvent::ALL.len()] {
        self.parts.connections.counts()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.ring.retire() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.parts) };
        } else {
            // Its memory is the kernel's still, so that it is left to the end of the process.
            tracing::error!("ordinary sockets did not let go of their memory");
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Kernel").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;
    use std::time::{Duration, Instant};

    use libbpf_sys as bpf;

    use super::*;

    /// Has the kernel look at a long program, once: it says `EAGAIN` to a thread that is to be notified of something.
    fn load_program() -> std::io::Result<OwnedFd> {
        let instruction = |code| bpf::bpf_insn { code, ..Default::default() };
        // `r0 = 0`, time and again, and the end.
        let mut program = vec![instruction(0xb7); 4_000];
        program.push(instruction(0x95));
        let mut options = bpf::bpf_prog_load_opts {
            sz: size_of::<bpf::bpf_prog_load_opts>() as bpf::size_t,
            attempts: 1,
            ..Default::default()
        };
        // SAFETY: the names are C strings, the instructions live during the call and are as many as said, and the options
        // say their own size.
        let descriptor = unsafe {
            bpf::bpf_prog_load(
                bpf::BPF_PROG_TYPE_SOCKET_FILTER,
                c"long".as_ptr(),
                c"Dual MIT/GPL".as_ptr(),
                program.as_ptr(),
                program.len() as bpf::size_t,
                &raw mut options,
            )
        };
        if descriptor < 0 {
            return Err(std::io::Error::from_raw_os_error(-descriptor));
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    #[test]
    fn a_probe_leaves_nothing_behind_that_interrupts_its_caller() {
        for _ in 0..20 {
            Kernel::probe().expect("io_uring");
            // A ring is taken apart some milliseconds later.
            let deadline = Instant::now() + Duration::from_millis(50);
            while Instant::now() < deadline {
                load_program().expect("root, and nothing that interrupts it");
            }
        }
    }
}
