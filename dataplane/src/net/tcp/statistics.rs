//! What a stack counts.

use super::handler::Closed;

/// Counts since the stack was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames given to `receive`.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes handed to handlers.
    pub bytes_in: u64,
    /// Bytes of data sent for the first time.
    pub bytes_out: u64,
    /// Dropped: no whole segment, or from or to somebody who cannot be.
    pub malformed: u64,
    /// Dropped: a checksum of IPv4 is wrong.
    pub ipv4_checksum: u64,
    /// Dropped: a checksum of TCP is wrong.
    pub tcp_checksum: u64,
    /// Dropped: belongs to no flow.
    pub stray: u64,
    /// Dropped: sequence number outside the window.
    pub out_of_window: u64,
    /// Dropped: acknowledges what cannot be (RFC 5961 section 5).
    pub bad_acknowledgement: u64,
    /// Dropped: an old timestamp (RFC 7323 section 5).
    pub old_timestamp: u64,
    /// Dropped: no room for its bytes.
    pub no_block: u64,
    /// SYNs a handler did not accept.
    pub not_admitted: u64,
    /// SYNs and ends of handshakes dropped because every flow is open.
    pub no_flow: u64,
    /// SYN cookies sent.
    pub cookies_sent: u64,
    /// Flows opened with a cookie.
    pub cookies_opened: u64,
    /// Handshakes given up.
    pub half_open_expired: u64,
    /// Waiting records that gave way before their time.
    pub waiting_evicted: u64,
    /// Flows opened by peers.
    pub accepted: u64,
    /// Flows opened by us.
    pub connected: u64,
    /// Flows over, by [`Closed::index`].
    pub closed: [u64; Closed::ALL.len()],
    /// Segments sent again.
    pub retransmissions: u64,
    /// Time-outs.
    pub timeouts: u64,
    /// Tail-loss probes.
    pub tail_probes: u64,
    /// Probes of a shut window.
    pub window_probes: u64,
    /// Questions whether the peer is still there.
    pub keepalives: u64,
    /// Challenge acknowledgements sent (RFC 5961).
    pub challenges: u64,
    /// Challenge acknowledgements not sent, for there were too many.
    pub challenges_withheld: u64,
    /// Resets sent.
    pub resets_out: u64,
    /// Resets not sent to those who belong to no flow, for there were too many.
    pub resets_withheld: u64,
    /// Frames that had to wait, or whose answer was given up, because the output had no room.
    pub no_output: u64,
    /// Segments that had to wait for a record.
    pub no_segment: u64,
    /// Paths found to take smaller packets.
    pub path_shrunk: u64,
}

/// What is held now; everything free again means that nothing was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Open flows.
    pub flows: usize,
    /// Handshakes under way.
    pub half_open: usize,
    /// Closed flows whose late segments are waited for.
    pub waiting: usize,
    /// Chunks of bytes to be sent.
    pub chunks: usize,
    /// Segments under way.
    pub segments: usize,
    /// Receive blocks of all sizes.
    pub blocks: usize,
}
