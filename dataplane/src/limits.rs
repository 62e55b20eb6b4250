//! The bounds of the request path, in one place, with what must hold between them. What an operator may choose has
//! its bounds in `config` (and an AF_XDP socket's rings in [`port::xsk`](crate::port::xsk)), checked against these.

/// Longest key, in bytes (memcached's `KEY_MAX_LENGTH`).
pub const KEY_BYTES_MAX: usize = 250;

/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Largest item, in bytes: the largest value under the longest key.
pub const ITEM_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX;

/// Frames handled in one poll of a port: large enough to spread a doorbell over, small enough that the first
/// reply of a batch does not wait long for the last.
pub const BATCH_FRAMES: usize = 64;

/// Bytes of a UMEM chunk: one page, so that aligned mode never makes a frame cross a page.
pub const FRAME_BYTES: usize = 4096;

/// Bytes the kernel keeps free before a received packet (`XDP_PACKET_HEADROOM`).
pub const FRAME_HEADROOM_BYTES: usize = 256;

/// Largest packet that fits a chunk behind its headroom; a longer one is passed to the kernel.
pub const PACKET_BYTES_MAX: usize = FRAME_BYTES - FRAME_HEADROOM_BYTES;

/// Largest UDP payload memcached puts in one reply datagram, with its 8-byte frame header
/// (memcached's `UDP_MAX_PAYLOAD_SIZE`).
pub const MEMCACHED_DATAGRAM_BYTES_MAX: usize = 1400;

/// Most keys that one datagram may ask for: what a miss costs is not bounded by its reply, which has no bytes. More than
/// fill a 1400-byte datagram.
pub const MEMCACHED_DATAGRAM_KEYS_MAX: usize = 1024;

/// Largest reply to one request that a listener may allow, in bytes over all its datagrams: what the smallest TX
/// ring takes.
pub const REPLY_BYTES_MAX: usize = 64 << 10;

/// Frames a request finds at hand for its reply, if there are any: those of the longest reply a listener may give.
pub const REPLY_FRAMES_AT_HAND: usize = REPLY_BYTES_MAX.div_ceil(MEMCACHED_DATAGRAM_BYTES_MAX);

/// Most free frames kept ready for one port: what a few batches of short replies take.
pub const SUPPLY_FRAMES_MAX: usize = 4 * BATCH_FRAMES;

/// Sources a rate limiter remembers.
pub const RATE_LIMITED_SOURCES: usize = 1 << 14;

/// Places of a rate limiter's table that one source may have.
pub const RATE_LIMITER_WAYS: usize = 4;

/// Ethernet, two VLAN tags, IPv6 and UDP: the longest headers written in front of a reply.
pub const REPLY_HEADERS_BYTES_MAX: usize = 14 + 2 * 4 + 40 + 8;

/// Chunks of 2 KiB for what is to be sent over the TCP of one queue: 128 MiB, of which untouched pages cost nothing. So much
/// that clients who ask for much and read nothing, until they are closed for it, leave enough for the others.
pub const STREAM_CHUNKS: usize = 1 << 16;

/// Largest datagram an ordinary socket takes or sends (the largest UDP payload over IPv4).
pub const KERNEL_DATAGRAM_BYTES_MAX: usize = 65_507;

/// Buffers for datagrams received on ordinary sockets, of one worker; a power of two.
pub const KERNEL_DATAGRAMS: u16 = 64;

/// Replies that may be on their way out of a worker's ordinary sockets: several of the longest.
pub const KERNEL_REPLIES: usize = 256;

/// Buffers that bytes of ordinary connections are received into, of one worker; a power of two.
pub const KERNEL_RECEIVE_BUFFERS: u16 = 256;

/// Bytes of such a buffer.
pub const KERNEL_RECEIVE_BYTES: usize = 16 << 10;

/// Bytes of the beginning of a request that every ordinary connection may have unread at the same time.
pub const KERNEL_BEGINNING_BYTES: usize = 1 << 10;

/// Chunks for what is to be sent to ordinary connections, of one worker: 128 MiB, of which untouched pages cost nothing.
pub const KERNEL_CHUNKS: usize = 8_192;

/// Bytes of such a chunk.
pub const KERNEL_CHUNK_BYTES: usize = 16 << 10;

/// Bytes one ordinary connection may have to be sent before further replies wait.
pub const KERNEL_OUTPUT_BYTES_LONG: usize = 256 << 10;

/// Bytes one ordinary connection may have to be sent: the longest reply.
pub const STREAM_OUTPUT_BYTES_MAX: usize = 2 << 20;

/// Bytes of a stream that may lie unread in one piece: what the longest message of any protocol takes before it is whole.
pub const STREAM_INPUT_BYTES_MAX: usize = (2 << 20) + (64 << 10);

/// Connections of one queue that may have more than [`STREAM_INPUT_BYTES_LONG`] bytes unread at the same time; the
/// others' windows wait.
pub const STREAM_INPUTS_LONG_MAX: usize = 16;

/// What lies unread of nearly every stream, at most.
pub const STREAM_INPUT_BYTES_LONG: usize = 128 << 10;

/// A worker whose heartbeat is older than this is passed over by the XDP program.
pub const STALE_NS: u64 = 1_000_000_000;

/// Longest sleep of a worker: an idle worker's heartbeat must stay fresh with room for a late wake-up.
pub const SLEEP_NS_MAX: u64 = STALE_NS / 4;

/// Workers one daemon may run.
pub const WORKERS_MAX: usize = 64;

/// NIC queues one XDP program may feed.
pub const QUEUES_MAX: usize = 256;

const _: () = {
    // A reply goes out whole or not at all, so its datagrams must fit the smallest ring, which holds one batch.
    assert!(REPLY_BYTES_MAX.div_ceil(MEMCACHED_DATAGRAM_BYTES_MAX) <= BATCH_FRAMES);
    assert!(REPLY_HEADERS_BYTES_MAX + MEMCACHED_DATAGRAM_BYTES_MAX <= PACKET_BYTES_MAX);
    assert!(FRAME_BYTES.is_power_of_two());
    assert!(REPLY_FRAMES_AT_HAND <= SUPPLY_FRAMES_MAX);
    assert!(KERNEL_REPLIES >= REPLY_FRAMES_AT_HAND);
    assert!(KERNEL_DATAGRAMS.is_power_of_two() && KERNEL_RECEIVE_BUFFERS.is_power_of_two());
    assert!(KERNEL_BEGINNING_BYTES < KERNEL_RECEIVE_BYTES && KERNEL_RECEIVE_BYTES < STREAM_INPUT_BYTES_LONG);
    // The longest reply fits the quarter of the chunks that one connection may have.
    assert!(STREAM_OUTPUT_BYTES_MAX <= KERNEL_CHUNKS / 4 * KERNEL_CHUNK_BYTES);
    assert!((RATE_LIMITED_SOURCES / RATE_LIMITER_WAYS).is_power_of_two());
    assert!(SLEEP_NS_MAX * 4 <= STALE_NS);
    assert!(KEY_BYTES_MAX <= u8::MAX as usize);
    assert!(WORKERS_MAX <= QUEUES_MAX);
};
