//! One io_uring (`io_uring(7)`), used from the thread that made it: what is to be done is pushed, submitted with the next
//! [`Ring::enter`], and told as a [`Completion`].
//!
//! It defers all of the kernel's work to `enter` (`IORING_SETUP_DEFER_TASKRUN`), so that nothing happens behind the
//! worker's back, and a worker that spins enters only when the kernel says that there is work
//! (`IORING_SETUP_TASKRUN_FLAG`) or something was pushed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use io_uring::squeue::Entry;
use io_uring::types::CancelBuilder;
use io_uring::{EnterFlags, IoUring, cqueue};
use rustix::event::{EventfdFlags, eventfd};

use super::error::KernelError;

/// Completions taken in one poll: enough to spread an `enter` over, few enough that the first reply does not wait long for
/// the last.
pub(super) const COMPLETIONS_MAX: usize = 256;
/// What can be pushed before it is submitted.
const SUBMISSIONS: u32 = 1_024;
/// Completions that wait at most before the kernel keeps them in a list of its own.
const COMPLETIONS: u32 = 8_192;
/// How often a ring that ends asks for the last completions.
const RETIRE_ROUNDS_MAX: usize = 64;

/// What an operation was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A connection on the listening socket of this number.
    Accept(u32),
    /// A datagram on the socket of this number.
    Datagram(u32),
    /// A datagram sent from the reply slot of this number.
    Reply(u32),
    /// Bytes of the connection of this number.
    Receive(u32),
    /// Bytes sent to the connection of this number.
    Send(u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Accept(number) => (1, number),
            Self::Datagram(number) => (2, number),
            Self::Reply(number) => (3, number),
            Self::Receive(number) => (4, number),
            Self::Send(number) => (5, number),
        };
        kind << 32 | u64::from(number)
    }

    /// `None` for what was not pushed with a token.
    fn unpack(user_data: u64) -> Option<Self> {
        let number = user_data as u32;
        Some(match user_data >> 32 {
            1 => Self::Accept(number),
            2 => Self::Datagram(number),
            3 => Self::Reply(number),
            4 => Self::Receive(number),
            5 => Self::Send(number),
            _ => return None,
        })
    }
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) token: Token,
    /// What the system call would have returned; negative is an error's number.
    pub(super) result: i32,
    /// Flags of the completion.
    flags: u32,
}

impl Completion {
    /// Whether further completions of the same operation follow.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer it was received into.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// The ring.
pub(super) struct Ring {
    uring: IoUring,
    /// Is signalled when there is something to enter for, while a sleep has asked for that.
    signal: OwnedFd,
    /// Operations whose last completion has not been taken.
    in_flight: usize,
}

impl Ring {
    pub(super) fn new() -> Result<Self, KernelError> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS)
            .map_err(KernelError::setup)?;
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| KernelError::System { what: "making an eventfd", source: error.into() })?;
        uring
            .submitter()
            .register_eventfd(signal.as_raw_fd())
            .map_err(KernelError::system("registering an eventfd with io_uring"))?;
        let mut ring = Self { uring, signal, in_flight: 0 };
        ring.uring.completion().disable_eventfd();
        Ok(ring)
    }

    /// To register buffers with it.
    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// All memory that the entry points to must stay valid until the operation's last completion was taken, must not be
    /// changed meanwhile if the operation reads it, and not be touched at all if it writes it.
    pub(super) unsafe fn push(&mut self, entry: Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        loop {
            // SAFETY: the caller keeps what the entry points to; nothing else is asked of an entry.
            let pushed = unsafe { self.uring.submission().push(&entry) };
            if pushed.is_ok() {
                self.in_flight += 1;
                return;
            }
            self.enter();
        }
    }

    /// Whether [`Ring::enter`] would do anything.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        let submissions = self.uring.submission();
        !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow()
    }

    /// Submits what was pushed, and lets the kernel complete what it can. Does not wait.
    pub(super) fn enter(&mut self) {
        let to_submit = self.uring.submission().len();
        // SAFETY: no argument is passed, and the count is that of the queue. What fails (interrupted, short of memory, or
        // completions to be taken first) stays queued for the next time.
        let _ = unsafe {
            self.uring.submitter().enter::<libc::sigset_t>(
                to_submit as u32,
                0,
                EnterFlags::GETEVENTS.bits(),
                None,
            )
        };
    }

    /// Before a sleep: what becomes readable when there is something to do here; `None` when there is already. Afterwards
    /// [`Ring::awake`] has to be called.
    ///
    /// An eventfd, and not the wait of `io_uring_enter`, because that would need a poll of the ring's on each AF_XDP socket. A
    /// poll that stays costs every packet a look at whom to wake, and one that is under way keeps its file open for as long as
    /// the ring of a killed process takes to be taken apart.
    pub(super) fn asleep(&mut self) -> Option<BorrowedFd<'_>> {
        if self.is_due() {
            self.enter();
        }
        self.uring.completion().enable_eventfd();
        // What came before the kernel could see that is not signalled, so that it is looked for now: the store above first.
        fence(Ordering::SeqCst);
        if !self.uring.completion().is_empty() || self.is_due() {
            self.awake();
            return None;
        }
        Some(self.signal.as_fd())
    }

    /// Nobody sleeps any more: while the worker polls, a signal would be work for nothing.
    pub(super) fn awake(&mut self) {
        self.uring.completion().disable_eventfd();
        // Nothing to read is the usual case.
        let _ = rustix::io::read(&self.signal, &mut [0u8; 8]);
    }

    /// Takes completions, as many as there is room for.
    #[inline]
    pub(super) fn take(&mut self, taken: &mut ArrayVec<Completion, COMPLETIONS_MAX>) {
        for entry in self.uring.completion().take(taken.remaining_capacity()) {
            if !cqueue::more(entry.flags()) {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            if let Some(token) = Token::unpack(entry.user_data()) {
                taken.push(Completion { token, result: entry.result(), flags: entry.flags() });
            }
        }
    }

    /// Ends every operation. True once the kernel uses none of their memory any more.
    pub(super) fn retire(&mut self) -> bool {
        let mut taken = ArrayVec::new();
        for _ in 0..RETIRE_ROUNDS_MAX {
            self.enter();
            // Nothing to cancel is no failure.
            let _ = self.uring.submitter().register_sync_cancel(None, CancelBuilder::any());
            self.enter();
            loop {
                taken.clear();
                self.take(&mut taken);
                for completion in &taken {
                    close_accepted(completion);
                }
                if taken.is_empty() {
                    break;
                }
            }
            if self.in_flight == 0 {
                return true;
            }
        }
        false
    }
}

/// Somebody whose connection nobody takes over any more.
fn close_accepted(completion: &Completion) {
    if matches!(completion.token, Token::Accept(_)) && completion.result >= 0 {
        // SAFETY: the completion of an accept carries a new descriptor, and hands it over.
        drop(unsafe { OwnedFd::from_raw_fd(completion.result) });
    }
}

/// The error of a completion, for a log.
pub(super) fn error_of(result: i32) -> io::Error {
    io::Error::from_raw_os_error(result.wrapping_neg())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use io_uring::opcode;
    use io_uring::types::Fd;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::worker::wake::Wake;

    /// Has the ring tell when something can be read.
    fn watch(ring: &mut Ring, source: &impl AsFd, number: u32) {
        let entry = opcode::PollAdd::new(Fd(source.as_fd().as_raw_fd()), libc::POLLIN as u32).build();
        // SAFETY: the entry points to no memory.
        unsafe { ring.push(entry, Token::Receive(number)) };
    }

    /// Sleeps for at most so long; whether there is something to do.
    fn sleep(ring: &mut Ring, milliseconds: i64) -> bool {
        let told = match ring.asleep() {
            None => return true,
            Some(handle) => {
                let timeout =
                    Timespec { tv_sec: milliseconds / 1_000, tv_nsec: milliseconds % 1_000 * 1_000_000 };
                poll(&mut [PollFd::from_borrowed_fd(handle, PollFlags::IN)], Some(&timeout)) == Ok(1)
            }
        };
        ring.awake();
        told
    }

    #[test]
    fn a_token_comes_back_as_it_went() {
        for number in [0, 1, u32::MAX] {
            for token in [
                Token::Accept(number),
                Token::Datagram(number),
                Token::Reply(number),
                Token::Receive(number),
                Token::Send(number),
            ] {
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
        assert_eq!(Token::unpack(7), None);
    }

    #[test]
    fn what_completes_ends_the_sleep_and_a_timeout_does_too() {
        let mut ring = Ring::new().expect("io_uring");
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        sender.connect(receiver.local_addr().expect("it is bound")).expect("connected");
        let mut taken = ArrayVec::new();
        // Time and again: neither a signal that was left nor one that was missed shows at once.
        for round in 0..20 {
            watch(&mut ring, &receiver, round);
            assert!(!sleep(&mut ring, 1), "nothing came");
            let other = sender.try_clone().expect("a descriptor");
            let sending = std::thread::spawn(move || other.send(b"x").expect("it is sent"));
            assert!(sleep(&mut ring, 10_000), "it is told");
            sending.join().expect("it sent");
            ring.enter();
            ring.take(&mut taken);
            assert_eq!(taken.pop().map(|completion| completion.token), Some(Token::Receive(round)));
            receiver.recv(&mut [0; 8]).expect("it is there");
        }
        // What came while nobody slept is found without a signal.
        watch(&mut ring, &receiver, 99);
        ring.enter();
        sender.send(b"x").expect("it is sent");
        assert!(sleep(&mut ring, 10_000), "it is there already");
        assert!(ring.retire());
    }

    #[test]
    fn a_ring_that_ends_has_nothing_under_way() {
        let mut ring = Ring::new().expect("io_uring");
        let wakes: Vec<Wake> = (0..2 * SUBMISSIONS).map(|_| Wake::new().expect("an eventfd")).collect();
        for (number, wake) in wakes.iter().enumerate() {
            watch(&mut ring, wake, number as u32);
        }
        assert!(ring.in_flight == wakes.len());
        assert!(ring.retire());
    }
}
