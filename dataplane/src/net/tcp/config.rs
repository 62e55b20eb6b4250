//! Sizes and times of a stack. Every size is fixed when the stack is made.

use super::congestion::Algorithm;
use super::options::SHIFT_MAX;
use super::pool::{CLASSES, Class};
use super::segment::{IPV4_BYTES, IPV6_BYTES, TCP_BYTES};
use crate::config::ChecksumPolicy;
use crate::time::{NS_PER_MS, NS_PER_S};

/// Smallest packet every link of a path carries, in bytes: what we go down to and no further (RFC 8200 section 5;
/// for IPv4 what Linux takes for `min_pmtu`, since smaller ones only come from attackers).
pub(super) const MTU_BYTES_MIN: [usize; 2] = [552, 1_280];
/// Segment size of a peer that names none (RFC 9293 section 3.7.1), and the least we believe in: a peer that wants
/// smaller ones wants to see us work.
pub(super) const SEGMENT_BYTES_DEFAULT: [u16; 2] = [536, 1_220];
pub(super) const SEGMENT_BYTES_MIN: u16 = 88;

/// A peer that takes no more than this in [`SLOW_FACTOR`] times `Config::stalled_ns` does not read: it would hold send
/// buffers for ever. A path on which everything is lost time and again gets that far.
pub(super) const SLOW_BYTES: u32 = 16 << 10;
pub(super) const SLOW_FACTOR: u64 = 5;

/// What a stack is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Open flows.
    pub flows: usize,
    /// Flows whose handshake is under way. When they are used up, SYN cookies take over.
    pub half_open: usize,
    /// Flows that we closed first, and whose late segments are waited for. When they are used up, the oldest goes.
    pub waiting: usize,
    /// Chunks for bytes to be sent, of all flows together. When they are used up, `send` takes nothing.
    pub chunks: usize,
    /// Bytes of one chunk.
    pub chunk_bytes: usize,
    /// Segments of all flows under way. When they are used up, nothing new is sent until something is acknowledged.
    pub segments: usize,
    /// Bytes one flow may have to be sent.
    pub send_bytes_max: usize,
    /// Blocks for bytes received that are not taken at once, in rising sizes. When they are used up, such bytes are
    /// dropped, and the peer sends them again.
    pub blocks: [Class; CLASSES],
    /// Window promised to a peer, in bytes.
    pub window_bytes: usize,
    /// Window promised beyond what a handler says it needs, in bytes.
    pub window_slack_bytes: usize,
    /// Largest IP packet that the interface takes, in bytes.
    pub mtu_bytes: usize,
    /// What to make of checksums.
    pub checksums: ChecksumPolicy,
    /// Congestion control.
    pub algorithm: Algorithm,
    /// Use timestamps with peers that know them.
    pub timestamps: bool,
    /// Use selective acknowledgements with peers that know them; without, losses are told by duplicates alone.
    pub selective: bool,
    /// Time-out before a round trip was measured.
    pub timeout_initial_ns: u64,
    /// Least time that a time-out is longer than the round trip.
    pub timeout_min_ns: u64,
    /// Time-outs in a row after which a flow is given up.
    pub timeouts_max: u8,
    /// How long our acknowledgement waits for data to ride on.
    pub ack_delay_ns: u64,
    /// How long a peer is expected to do the same, at first; who proves slower is given more, up to `ack_delay_max`.
    pub peer_ack_delay_ns: u64,
    /// The most a peer is given. A lost answer is found lost no sooner than this when nothing follows it.
    pub peer_ack_delay_max_ns: u64,
    /// Silence after which a peer is asked whether it is still there; 0 never asks.
    pub keepalive_ns: u64,
    /// Time between such questions.
    pub keepalive_interval_ns: u64,
    /// Unanswered questions after which a flow is given up.
    pub keepalive_probes: u8,
    /// Time without a byte of data either way after which a flow is given up; 0 never.
    pub idle_ns: u64,
    /// Time a peer may keep its window shut, or our bytes unacknowledged, before the flow is given up. For what it is to
    /// get, or for 16 KiB of it when that is more, it may take five times as long, if it takes a little all the while.
    pub stalled_ns: u64,
    /// Time a peer may take for one message, from when the first bytes of it have come to when the handler takes any; 0
    /// lets it take for ever. While the handler waits for room it does not run.
    pub request_ns: u64,
    /// How long a handshake may take.
    pub half_open_ns: u64,
    /// How long late segments of a closed flow are waited for (twice the maximum segment lifetime).
    pub time_wait_ns: u64,
    /// How long a peer may take to close after we have.
    pub close_ns: u64,
    /// Challenge acknowledgements one flow sends in a second (RFC 5961 section 7).
    pub challenges_per_s: u8,
    /// Resets the stack sends in a second to those who belong to no flow, a tenth of them at once.
    pub resets_per_s: u32,
}

impl Default for Config {
    /// For one worker of a daemon: 16 384 flows; some 150 MiB, of which untouched pages cost nothing.
    fn default() -> Self {
        let class = |bytes, count| Class { bytes, count };
        Self {
            flows: 1 << 14,
            half_open: 1 << 12,
            waiting: 1 << 14,
            chunks: 1 << 14,
            chunk_bytes: 2 << 10,
            segments: 1 << 15,
            send_bytes_max: 2 << 20,
            blocks: [
                class(2 << 10, 4_096),
                class(16 << 10, 1_024),
                class(128 << 10, 256),
                class((1 << 20) + (256 << 10), 32),
            ],
            window_bytes: 128 << 10,
            window_slack_bytes: 64 << 10,
            mtu_bytes: 1_500,
            checksums: ChecksumPolicy::Verify,
            algorithm: Algorithm::Cubic,
            timestamps: true,
            selective: true,
            timeout_initial_ns: NS_PER_S,
            timeout_min_ns: 20 * NS_PER_MS,
            timeouts_max: 12,
            ack_delay_ns: 5 * NS_PER_MS,
            peer_ack_delay_ns: 10 * NS_PER_MS,
            peer_ack_delay_max_ns: 45 * NS_PER_MS,
            keepalive_ns: 60 * NS_PER_S,
            keepalive_interval_ns: 10 * NS_PER_S,
            keepalive_probes: 5,
            idle_ns: 0,
            stalled_ns: 60 * NS_PER_S,
            request_ns: 60 * NS_PER_S,
            half_open_ns: 10 * NS_PER_S,
            time_wait_ns: 60 * NS_PER_S,
            close_ns: 60 * NS_PER_S,
            challenges_per_s: 10,
            resets_per_s: 1_000,
        }
    }
}

/// Why a configuration is no good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A size or time that must not be 0 is, or one is beyond its bound.
    #[error("tcp: `{name}` is {value}; it must be {bound}")]
    OutOfBounds {
        /// Which.
        name: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        bound: &'static str,
    },
}

impl Config {
    /// Checks every bound that holds between the sizes.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, name, value: u64, bound| {
            if holds { Ok(()) } else { Err(ConfigError::OutOfBounds { name, value, bound }) }
        };
        let count = 1..1usize << 28;
        for (name, value) in [
            ("flows", self.flows),
            ("half_open", self.half_open),
            ("waiting", self.waiting),
            ("chunks", self.chunks),
            ("segments", self.segments),
        ] {
            check(count.contains(&value), name, value as u64, "from 1 to 2^28 - 1")?;
        }
        check(
            (64..=1 << 20).contains(&self.chunk_bytes),
            "chunk_bytes",
            self.chunk_bytes as u64,
            "from 64 to 2^20",
        )?;
        let send = self.send_bytes_max;
        check((1..=1 << 29).contains(&send), "send_bytes_max", send as u64, "from 1 to 2^29")?;
        for pair in self.blocks.windows(2) {
            check(
                pair[0].bytes < pair[1].bytes,
                "blocks",
                pair[1].bytes as u64,
                "larger than the size before",
            )?;
        }
        let [smallest, .., largest] = self.blocks;
        check(smallest.bytes > 0, "blocks", 0, "at least 1 byte")?;
        check(largest.bytes <= 1 << 29, "blocks", largest.bytes as u64, "at most 2^29 bytes")?;
        let window = self.window_bytes;
        check(
            (1..=largest.bytes).contains(&window),
            "window_bytes",
            window as u64,
            "from 1 to the largest block",
        )?;
        let mtu = self.mtu_bytes;
        check((MTU_BYTES_MIN[1]..=65_535).contains(&mtu), "mtu_bytes", mtu as u64, "from 1280 to 65535")?;
        for (name, value) in [
            ("timeout_initial_ns", self.timeout_initial_ns),
            ("timeout_min_ns", self.timeout_min_ns),
            ("timeouts_max", u64::from(self.timeouts_max)),
            ("ack_delay_ns", self.ack_delay_ns),
            ("keepalive_interval_ns", self.keepalive_interval_ns),
            ("stalled_ns", self.stalled_ns),
            ("half_open_ns", self.half_open_ns),
            ("time_wait_ns", self.time_wait_ns),
            ("close_ns", self.close_ns),
            ("resets_per_s", u64::from(self.resets_per_s)),
        ] {
            check(value > 0, name, value, "more than 0")?;
        }
        // RFC 9293 section 3.8.6.3 (SHLD-18).
        let delay = self.ack_delay_ns;
        check(delay <= 500 * NS_PER_MS, "ack_delay_ns", delay, "at most 500 ms")
    }

    /// Bytes of a segment that fits the interface, headers taken off.
    pub(super) fn segment_bytes(&self, v4: bool) -> u16 {
        segment_bytes(self.mtu_bytes, v4)
    }

    /// How far our windows are shifted: as little as lets the largest block be promised.
    pub(super) fn window_shift(&self) -> u8 {
        let largest = self.blocks[CLASSES - 1].bytes;
        (0..SHIFT_MAX).find(|&shift| largest >> shift <= usize::from(u16::MAX)).unwrap_or(SHIFT_MAX)
    }
}

/// Bytes of data in a packet of this size.
pub(super) fn segment_bytes(mtu_bytes: usize, v4: bool) -> u16 {
    let headers = TCP_BYTES + if v4 { IPV4_BYTES } else { IPV6_BYTES };
    u16::try_from(mtu_bytes.saturating_sub(headers)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good_and_each_bound_is_named() {
        let good = Config::default();
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(good.window_shift(), 5);
        assert_eq!((good.segment_bytes(true), good.segment_bytes(false)), (1_460, 1_440));
        let mut bad = good.clone();
        bad.flows = 0;
        assert!(bad.validate().expect_err("no flows").to_string().contains("`flows` is 0"));
        let mut bad = good.clone();
        bad.window_bytes = 2 << 20;
        assert!(bad.validate().expect_err("a window beyond").to_string().contains("largest block"));
        let mut bad = good;
        bad.blocks[1].bytes = 1;
        assert!(bad.validate().is_err());
    }
}
