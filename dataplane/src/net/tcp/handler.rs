//! What a stack asks of those around it: somebody who takes what arrives, and something that takes frames.

use std::net::SocketAddr;

use super::pool::Chunks;
use super::send::{Fin, Sender};

/// Names an open flow. When the flow is over its name is never used again, though its number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId {
    pub(super) number: u32,
    pub(super) generation: u32,
}

impl FlowId {
    /// A number below `Config::flows` that no other open flow has: an index for what a handler keeps of a flow.
    #[must_use]
    pub const fn index(self) -> usize {
        self.number as usize
    }
}

/// What becomes of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Open a flow.
    Accept,
    /// Say that nobody is there (RST).
    Refuse,
    /// Say nothing.
    Ignore,
}

/// What a handler knows of bytes that it has not been shown yet; a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreseen(pub u64);

/// Why a flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Both sides said all they had to say.
    Finished,
    /// The peer reset it, or refused to open it.
    Reset,
    /// We aborted it.
    Aborted,
    /// The peer does not answer any more.
    TimedOut,
    /// Nothing was said for longer than `Config::idle_ns`.
    Idle,
    /// The peer answers, but takes next to nothing of what it is to get, or does not close.
    Stalled,
    /// A message was begun and not ended within `Config::request_ns`.
    Unfinished,
}

impl Closed {
    /// Every reason, in the order of [`Closed::index`].
    pub const ALL: [Self; 7] = [
        Self::Finished,
        Self::Reset,
        Self::Aborted,
        Self::TimedOut,
        Self::Idle,
        Self::Stalled,
        Self::Unfinished,
    ];

    /// Its place in [`Closed::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a handler took of the bytes it was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes from the start that are done with.
    pub consumed: usize,
    /// How many bytes there must be behind them before it is worth being asked again; 0 when any will do. The
    /// peer's window grows as far as that takes, so that a long message can arrive whole; more than the largest of
    /// `Config::blocks` never does.
    pub needed: usize,
}

impl Taken {
    /// All of this many bytes.
    #[must_use]
    pub const fn all(bytes: usize) -> Self {
        Self { consumed: bytes, needed: 0 }
    }
}

/// A flow's sending side, for as long as its handler is asked.
pub struct Io<'a> {
    pub(super) sender: &'a mut Sender,
    pub(super) chunks: &'a mut Chunks,
    pub(super) peer_finished: bool,
    pub(super) send_bytes_max: u32,
    pub(super) abort: &'a mut bool,
}

impl Io<'_> {
    /// Appends bytes to what is to be sent; returns how many were taken, from the start. When that is not all, the
    /// handler is told with [`Handler::writable`] once there is room again.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        if self.sender.fin != Fin::None || *self.abort {
            return 0;
        }
        let taken = self.sender.chain.push(self.chunks, bytes, self.send_bytes_max);
        self.sender.wanting |= taken < bytes.len();
        taken
    }

    /// Bytes that can be sure to be taken now, of this flow alone; 0 once it is closed.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.sender.fin != Fin::None || *self.abort {
            return 0;
        }
        let own = self.send_bytes_max.saturating_sub(self.sender.chain.bytes()) as usize;
        own.min(self.chunks.available() * self.chunks.chunk_bytes())
    }

    /// Bytes that can be taken at most, once the peer has acknowledged all that was taken.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.send_bytes_max as usize
    }

    /// Asks for [`Handler::writable`], and for what was not taken to be shown again, once there is room, as if
    /// [`Io::send`] had taken less than it was given.
    pub const fn wait_for_room(&mut self) {
        self.sender.wanting = true;
    }

    /// True while room is asked for: after [`Io::wait_for_room`], or after [`Io::send`] took less than it was given.
    #[must_use]
    pub const fn waits_for_room(&self) -> bool {
        self.sender.wanting
    }

    /// The peer will send nothing more: what is shown is the last of it.
    #[must_use]
    pub const fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    /// Bytes taken and not yet acknowledged by the peer.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.sender.chain.bytes() as usize
    }

    /// Nothing more will be sent: what was taken is sent still, then FIN. The peer's bytes are handed on until it
    /// closes too; what the handler has not taken when both have closed is dropped, so who reads slowly closes late.
    pub fn close(&mut self) {
        if self.sender.fin == Fin::None {
            self.sender.fin = Fin::Wanted;
        }
    }

    /// Resets the flow. The handler is told with [`Handler::closed`] at the next poll.
    pub fn abort(&mut self) {
        *self.abort = true;
    }
}

/// Who is told what happens. None of its methods may block or allocate.
pub trait Handler {
    /// Somebody wants to open a flow. Asked once for each SYN; nothing is kept of those that are not accepted.
    fn admit(&mut self, local: SocketAddr, peer: SocketAddr) -> Admission {
        let _ = (local, peer);
        Admission::Accept
    }

    /// A flow is open, whoever opened it.
    fn opened(&mut self, flow: FlowId, local: SocketAddr, peer: SocketAddr, io: &mut Io<'_>);

    /// Bytes arrived: all that are there and were not taken before, contiguous. As a rule they lie in the frame they
    /// came in; what is not taken is kept and shown again with what follows.
    fn data(&mut self, flow: FlowId, bytes: &[u8], io: &mut Io<'_>) -> Taken;

    /// Bytes that came for a flow are about to be shown, if nothing is in their way; none of those before them was yet.
    /// Who knows from a look at them which memory they will need starts it on its way into the cache, and says what is to
    /// be done next. Only a hint: it changes nothing.
    fn foresee(&self, flow: FlowId, bytes: &[u8]) -> Option<Foreseen> {
        let _ = (flow, bytes);
        None
    }

    /// The second step of [`Handler::foresee`], when all that came together was looked at.
    fn anticipate(&self, foreseen: Foreseen) {
        let _ = foreseen;
    }

    /// There is room again after [`Io::send`] or `Stack::send` took less than it was given. Bytes that were not
    /// taken are shown again right after this.
    fn writable(&mut self, flow: FlowId, io: &mut Io<'_>) {
        let _ = (flow, io);
    }

    /// The peer will send nothing more, and all it sent was shown. What was not taken of it is shown again as ever; who
    /// has an answer to it still must not close yet.
    fn finished(&mut self, flow: FlowId, io: &mut Io<'_>) {
        let _ = flow;
        io.close();
    }

    /// The flow is over; its name means nothing any more. Told once for each flow that was opened or that
    /// `Stack::connect` gave a name to.
    fn closed(&mut self, flow: FlowId, reason: Closed);
}

/// What takes frames.
pub trait Output {
    /// Hands a whole writable buffer for one frame to `build`, which returns how long the frame is, and sends it.
    /// False, without calling `build`, when there is no room now. A length of 0 sends nothing: the buffer was too
    /// short, which it must not be for a frame of `Config::mtu_bytes` and 22 bytes of Ethernet header.
    fn frame(&mut self, build: impl FnOnce(&mut [u8]) -> usize) -> bool;
}
