//! One io_uring (`io_uring(7)`), used from the thread that made it: what is to be done is pushed, submitted with the next
//! [`Ring::enter`], and told as a [`Completion`].
//!
//! It defers all of the kernel's work to `enter` (`IORING_SETUP_DEFER_TASKRUN`), so that nothing happens behind the
//! worker's back, and a worker that spins enters only when the kernel says that there is work
//! (`IORING_SETUP_TASKRUN_FLAG`) or something was pushed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use arrayvec::ArrayVec;
use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};

use super::error::KernelError;
use crate::time::NS_PER_S;

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
    /// The descriptor of this number among those that are waited for is readable.
    Ready(u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Accept(number) => (1, number),
            Self::Datagram(number) => (2, number),
            Self::Reply(number) => (3, number),
            Self::Receive(number) => (4, number),
            Self::Send(number) => (5, number),
            Self::Ready(number) => (6, number),
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
            6 => Self::Ready(number),
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
        Ok(Self { uring, in_flight: 0 })
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

    /// Has it tell once when a descriptor is readable.
    pub(super) fn wait_for(&mut self, descriptor: BorrowedFd<'_>, number: u32) {
        let entry = opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), libc::POLLIN as u32).build();
        // SAFETY: the entry points to no memory; the kernel holds the file itself once this is submitted, and until then
        // the worst that a closed descriptor does is to be refused.
        unsafe { self.push(entry, Token::Ready(number)) };
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

    /// Submits what was pushed and sleeps until something completes, at most so long. Returns sooner at a signal.
    pub(super) fn sleep(&mut self, timeout_ns: u64) {
        if !self.uring.completion().is_empty() {
            return;
        }
        let timeout = Timespec::new()
            .sec(timeout_ns / NS_PER_S)
            .nsec(u32::try_from(timeout_ns % NS_PER_S).unwrap_or(0));
        let _ = self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout));
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
    use std::os::fd::AsFd;

    use super::*;
    use crate::worker::wake::Wake;

    #[test]
    fn a_token_comes_back_as_it_went() {
        for number in [0, 1, u32::MAX] {
            for token in [
                Token::Accept(number),
                Token::Datagram(number),
                Token::Reply(number),
                Token::Receive(number),
                Token::Send(number),
                Token::Ready(number),
            ] {
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
        assert_eq!(Token::unpack(7), None);
    }

    #[test]
    fn a_readable_descriptor_ends_the_sleep_and_a_timeout_does_too() {
        let mut ring = Ring::new().expect("io_uring");
        let wake = Wake::new().expect("an eventfd");
        ring.wait_for(wake.as_fd(), 3);
        let mut taken = ArrayVec::new();
        ring.sleep(1_000_000);
        ring.take(&mut taken);
        assert!(taken.is_empty(), "nobody woke it: {taken:?}");
        let waker = wake.clone();
        let other = std::thread::spawn(move || waker.wake());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while taken.is_empty() && std::time::Instant::now() < deadline {
            ring.sleep(10 * NS_PER_S);
            ring.take(&mut taken);
        }
        other.join().expect("it woke");
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].token, Token::Ready(3));
        assert!(ring.retire());
    }

    #[test]
    fn a_ring_that_ends_has_nothing_under_way() {
        let mut ring = Ring::new().expect("io_uring");
        let wakes: Vec<Wake> = (0..2 * SUBMISSIONS).map(|_| Wake::new().expect("an eventfd")).collect();
        for (number, wake) in wakes.iter().enumerate() {
            ring.wait_for(wake.as_fd(), number as u32);
        }
        assert!(ring.in_flight == wakes.len());
        assert!(ring.retire());
    }
}
