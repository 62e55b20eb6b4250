//! What a worker counts. Each worker writes its own [`WorkerMetrics`] and nobody else does, so a count is a plain
//! load and store; the control plane reads them at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may.
    #[inline]
    pub fn add(&self, amount: u64) {
        // One writer: no other addition can be lost between the load and the store.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Replaces the value: for gauges.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The count.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares an enum whose variants index an array of counters, each with its metric label.
macro_rules! labelled {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name { $($(#[$inner])* $variant,)+ }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label in metrics and `status`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labelled! {
    /// Why a worker dropped a frame or a request.
    DropReason {
        /// Not a whole Ethernet, IP and UDP packet.
        Malformed => "malformed",
        /// The IPv4 header checksum is wrong.
        Ipv4Checksum => "ipv4_checksum",
        /// The UDP checksum is wrong, or zero over IPv6.
        UdpChecksum => "udp_checksum",
        /// No service on that port.
        NoService => "no_service",
        /// The source is not on the listener's allow-list.
        SourceNotAllowed => "source_not_allowed",
        /// It comes from the listener's own port: answering could start two servers talking for ever.
        SourcePort => "source_port",
        /// The source sends faster than its limit.
        RateLimited => "rate_limited",
        /// The protocol's frame header is wrong.
        FrameHeader => "frame_header",
        /// The request is spread over several datagrams.
        SplitRequest => "split_request",
        /// No free frame for the reply.
        NoFrame => "no_frame",
        /// The TX ring was full.
        TransmitFull => "transmit_full",
        /// The reply is larger than the listener allows.
        ReplyTooLarge => "reply_too_large",
        /// An ordinary socket had no room for the reply.
        SocketFull => "socket_full",
        /// Too many replies were on their way out of ordinary sockets.
        NoReplySlot => "no_reply_slot",
        /// The kernel found the socket's RX ring full: the worker is too slow.
        SocketRingFull => "socket_ring_full",
        /// The kernel found no free frame for a packet, or it was too long for one.
        SocketNoFrame => "socket_no_frame",
        /// The packet came in several frames.
        InPieces => "in_pieces",
        /// The kernel refused a free frame; zero unless there is a bug.
        FillInvalid => "fill_invalid",
        /// The kernel refused a packet to send; zero unless there is a bug.
        TransmitInvalid => "transmit_invalid",
    }
}

labelled! {
    /// Kinds of request, for counting.
    OpKind {
        /// Reads (each key counts).
        Get => "get",
        /// Stores of every mode.
        Store => "store",
        /// Increments and decrements.
        Arithmetic => "arithmetic",
        /// Deletes.
        Delete => "delete",
        /// Touches.
        Touch => "touch",
        /// Flushes.
        Flush => "flush",
        /// Everything else: version, stats, no-ops.
        Other => "other",
        /// What was answered with a protocol error.
        Invalid => "invalid",
    }
}

labelled! {
    /// What happens in TCP, for counting.
    TcpEvent {
        /// A connection was opened by a client.
        Accepted => "accepted",
        /// A connection ended because both sides had said all they had to say.
        Finished => "finished",
        /// A connection ended for any other reason.
        Broken => "broken",
        /// A SYN found every connection open.
        NoConnection => "no_connection",
        /// A SYN was answered with a cookie, for want of a half-open record.
        Cookie => "cookie",
        /// A segment was sent again.
        Retransmitted => "retransmitted",
        /// A retransmission timer ran out.
        Timeout => "timeout",
        /// A reset was sent.
        ResetSent => "reset_sent",
        /// A segment was dropped: not whole.
        Malformed => "malformed",
        /// A segment was dropped: a checksum is wrong.
        Checksum => "checksum",
        /// A segment was dropped: it belongs to no connection.
        Stray => "stray",
        /// A segment was dropped: it lies outside of its connection's window, or is an old duplicate.
        OutOfWindow => "out_of_window",
        /// A segment was dropped: no room for its bytes.
        NoRoom => "no_room",
        /// A segment had to wait, for want of a frame.
        NoFrame => "no_frame",
        /// A router said that a packet was too large, and the connection sends smaller ones from then on.
        PathShrunk => "path_shrunk",
        /// A connection was reset: a request was not whole within `tcp.request_s`. Counted in `broken` too.
        Unfinished => "unfinished",
        /// A connection was reset: its client did not read, or did not close. Counted in `broken` too.
        Stalled => "stalled",
        /// A reset was not sent, for there were too many.
        ResetWithheld => "reset_withheld",
    }
}

/// What is told of connections on ordinary sockets: the rest the kernel's own TCP keeps to itself.
pub const KERNEL_TCP_EVENTS: [TcpEvent; 5] =
    [TcpEvent::Accepted, TcpEvent::Finished, TcpEvent::Broken, TcpEvent::NoConnection, TcpEvent::NoRoom];

/// Buckets of [`LatencyHistogram`]: four a power of two, from 64 ns to some 137 s.
const LATENCY_BUCKETS: usize = 31 * 4;
/// Lower bound of the first bucket, as a power of two.
const LATENCY_SHIFT_MIN: u32 = 6;

/// Latencies in buckets of a quarter of a power of two: at most 25 % wide, and a write costs one add.
#[derive(Debug)]
pub struct LatencyHistogram {
    buckets: [Counter; LATENCY_BUCKETS],
    sum_ns: Counter,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum_ns: Counter::default() }
    }
}

impl LatencyHistogram {
    /// Records `count` requests that took this long.
    #[inline]
    pub fn record(&self, latency_ns: u64, count: u64) {
        self.buckets[Self::bucket_of(latency_ns)].add(count);
        self.sum_ns.add(latency_ns.saturating_mul(count));
    }

    fn bucket_of(latency_ns: u64) -> usize {
        let value = latency_ns.max(1 << LATENCY_SHIFT_MIN);
        let power = value.ilog2();
        let quarter = (value >> (power - 2)) & 3;
        let index = u64::from(power - LATENCY_SHIFT_MIN) * 4 + quarter;
        usize::try_from(index).map_or(LATENCY_BUCKETS - 1, |index| index.min(LATENCY_BUCKETS - 1))
    }

    /// Each bucket's upper bound in nanoseconds, with its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(index, count)| (Self::upper_bound_ns(index), count.get()))
    }

    /// Sum of all latencies, in nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.get()
    }

    fn upper_bound_ns(index: usize) -> u64 {
        let power = LATENCY_SHIFT_MIN as usize + index / 4;
        let quarter = (index % 4) as u64;
        (1 << power) + ((quarter + 1) << (power - 2))
    }
}

/// What one worker counts. Aligned so that no two workers share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// Frames received.
    pub frames_received: Counter,
    /// Frames handed to the TX ring.
    pub frames_sent: Counter,
    /// Datagrams received on ordinary sockets.
    pub kernel_received: Counter,
    /// Datagrams sent from ordinary sockets.
    pub kernel_sent: Counter,
    /// Frames and requests dropped, by [`DropReason`].
    drops: [Counter; DropReason::ALL.len()],
    /// Requests, by [`OpKind`].
    requests: [Counter; OpKind::ALL.len()],
    /// What happened in TCP, by [`TcpEvent`].
    tcp_events: [Counter; TcpEvent::ALL.len()],
    /// TCP connections open; a gauge.
    pub tcp_connections: Counter,
    /// What happened on ordinary sockets, by [`TcpEvent`]; of them only [`KERNEL_TCP_EVENTS`] do.
    kernel_tcp_events: [Counter; TcpEvent::ALL.len()],
    /// Connections open on ordinary sockets; a gauge.
    pub kernel_connections: Counter,
    /// Reads that found their item.
    pub hits: Counter,
    /// Reads that did not.
    pub misses: Counter,
    /// Polls that found work.
    pub polls_busy: Counter,
    /// Polls that found none.
    pub polls_idle: Counter,
    /// Nanoseconds in polls that found work.
    pub busy_ns: Counter,
    /// Nanoseconds in polls that found none.
    pub idle_ns: Counter,
    /// Nanoseconds asleep.
    pub asleep_ns: Counter,
    /// Times it went to sleep.
    pub sleeps: Counter,
    /// Times a port had to be bound again.
    pub rebinds: Counter,
    /// Times the kernel found no free frame to receive into.
    pub fill_ring_empty: Counter,
    /// Frames its UMEMs have; a gauge.
    pub frames_total: Counter,
    /// Frames nobody has, or several have; a gauge that is zero unless there is a bug.
    pub frames_lost: Counter,
    /// Items live; a gauge.
    pub items: Counter,
    /// Bytes of keys and values live; a gauge.
    pub live_bytes: Counter,
    /// Bytes of arena in use; a gauge.
    pub used_bytes: Counter,
    /// Bytes of arena and index; a gauge.
    pub capacity_bytes: Counter,
    /// 1 when the table lies in huge pages, else 0; a gauge.
    pub table_huge_pages: Counter,
    /// Items evicted.
    pub evictions: Counter,
    /// Time from a batch's arrival in user space to its replies' doorbell.
    pub latency: LatencyHistogram,
}

impl WorkerMetrics {
    /// Counts a drop.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Counts drops that happened since the last count.
    #[inline]
    pub fn dropped_many(&self, reason: DropReason, count: u64) {
        self.drops[reason as usize].add(count);
    }

    /// Counts requests.
    #[inline]
    pub fn requested(&self, kind: OpKind, count: u64) {
        self.requests[kind as usize].add(count);
    }

    /// Sets how often something happened in TCP so far.
    pub fn tcp_happened(&self, event: TcpEvent, count: u64) {
        self.tcp_events[event as usize].set(count);
    }

    /// How often something happened in TCP.
    #[must_use]
    pub fn tcp_events(&self, event: TcpEvent) -> u64 {
        self.tcp_events[event as usize].get()
    }

    /// Sets how often something happened on ordinary sockets so far.
    pub fn kernel_tcp_happened(&self, event: TcpEvent, count: u64) {
        self.kernel_tcp_events[event as usize].set(count);
    }

    /// How often something happened on ordinary sockets.
    #[must_use]
    pub fn kernel_tcp_events(&self, event: TcpEvent) -> u64 {
        self.kernel_tcp_events[event as usize].get()
    }

    /// Drops for one reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// Requests of one kind.
    #[must_use]
    pub fn requests(&self, kind: OpKind) -> u64 {
        self.requests[kind as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_a_bucket_that_bounds_it_within_a_quarter() {
        for latency_ns in [0u64, 1, 63, 64, 65, 100, 1_000, 12_345, 1_000_000, 999_999_999] {
            let histogram = LatencyHistogram::default();
            histogram.record(latency_ns, 3);
            let (bound, count) =
                histogram.buckets().find(|&(_, count)| count > 0).expect("it was recorded somewhere");
            assert_eq!(count, 3);
            assert!(bound > latency_ns, "{latency_ns} under {bound}");
            assert!(bound <= latency_ns.max(64) * 5 / 4 + 16, "{latency_ns} near {bound}");
        }
    }

    #[test]
    fn absurd_latencies_land_in_the_last_bucket() {
        let histogram = LatencyHistogram::default();
        histogram.record(u64::MAX, 1);
        assert_eq!(histogram.buckets().last().map(|(_, count)| count), Some(1));
    }
}
