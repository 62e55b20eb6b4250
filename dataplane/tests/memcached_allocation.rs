//! The request path allocates nothing: a counting allocator says so.

mod counting;

use std::net::SocketAddr;

use counting::allocations;
use dataplane::memory::Placement;
use dataplane::metrics::WorkerMetrics;
use dataplane::protocol::memcached::Memcached;
use dataplane::protocol::memcached::conversation::roomy_setup;
use dataplane::protocol::memcached::reply::ReplyBuffer;
use dataplane::protocol::memcached::session::Session;
use dataplane::protocol::memcached::stream::Stream;
use dataplane::protocol::resp::encode::{Encoder, Version};
use dataplane::protocol::resp::inline::Scratch;
use dataplane::protocol::resp::parse::{Parsed, Place, parse};
use dataplane::request::Origin;
use dataplane::service::{Context, Datagram, Next, Progress, Replies, Service, Via};
use dataplane::table::Table;
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::model::ModelTable;
use dataplane::time::{NS_PER_MS, Now};

/// Counts what is sent and keeps nothing.
#[derive(Default)]
struct Discarded {
    datagrams: usize,
}

impl Replies for Discarded {
    fn payload_bytes_max(&self) -> usize {
        1400
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        self.datagrams += usize::from(!parts.is_empty());
        true
    }
}

/// A service on a table, and what each request makes it allocate.
struct Rig<T> {
    service: Memcached,
    table: T,
    metrics: WorkerMetrics,
    now: Now,
}

impl<T: Table> Rig<T> {
    fn new(table: T) -> Self {
        let service = Memcached::new(&roomy_setup()).expect("a valid setup");
        Self { service, table, metrics: WorkerMetrics::default(), now: Now::default() }
    }

    /// Allocations for one message, and for a poll of the table.
    fn ask(&mut self, message: &str, replies: &mut Discarded) -> u64 {
        let source = SocketAddr::from(([127, 0, 0, 1], 11211));
        let payload = [b"\0\x07\0\0\0\x01\0\0", message.as_bytes()].concat();
        let mut context = Context { now: self.now, table: &mut self.table, metrics: &self.metrics };
        let datagram = Datagram { source, destination: source, payload: &payload, via: Via::Bypass };
        let before = allocations();
        self.service.datagram(&mut context, &datagram, replies);
        self.table.poll(self.now, &mut |_, _| {});
        allocations() - before
    }
}

#[test]
fn a_full_memory_table_allocates_nothing_whatever_is_asked() {
    let config = MemoryTableConfig {
        capacity_bytes: 4 << 20,
        item_bytes_max: 200_000,
        expected_item_bytes: 500,
        placement: Placement::default(),
    };
    let mut rig = Rig::new(MemoryTable::new(config).expect("a table"));
    let mut replies = Discarded::default();
    let values = [10, 700, 5_000, 150_000].map(|bytes| "x".repeat(bytes));
    let turns = 20_000;
    for turn in 0..turns {
        rig.now.unix_ms += 1;
        rig.now.monotonic_ns += NS_PER_MS;
        let value = &values[if turn % 50 == 0 { 3 } else { turn % 3 }];
        let (key, expiry, old) = (turn % 9_000, turn % 4, (turn * 7) % 9_000);
        let message = match turn % 12 {
            0..5 => format!("set k{key} {expiry} {expiry} {}\r\n{value}\r\n", value.len()),
            5 => format!("get k{old} k{key} k{}\r\n", key + 1),
            6 => format!("append k{old} 0 0 300\r\n{}\r\n", &values[1][..300]),
            7 => format!("ma n{old} N{expiry} J5 v\r\n"),
            8 => format!("mg k{old} v c T60 N30 R10\r\n"),
            9 => format!("md k{old} I T30 E99999999999999\r\n"),
            10 => format!("gat 60 k{old}\r\n"),
            _ if turn % 5_000 == 11 => "flush_all\r\n".to_owned(),
            _ => format!("touch k{old} 0\r\n"),
        };
        assert_eq!(rig.ask(&message, &mut replies), 0, "{}", &message[..message.len().min(60)]);
    }
    let statistics = rig.table.statistics();
    assert!(statistics.evictions > 1_000 && statistics.expirations > 0, "it was not full: {statistics:?}");
    assert!(replies.datagrams >= turns, "each was answered");
}

#[test]
fn nothing_is_allocated_for_a_request() {
    let mut rig = Rig::new(ModelTable::new());
    let mut ask = |message: &str, replies: &mut Discarded| rig.ask(message, replies);
    let mut replies = Discarded::default();
    let large = "x".repeat(100_000);
    // The model table itself allocates for what it stores; reads, misses and errors reach nothing that may.
    ask("set a 0 0 1\r\nx\r\n", &mut replies);
    ask(&format!("set large 0 0 {}\r\n{large}\r\n", large.len()), &mut replies);
    assert!(ask("set counted 0 0 1\r\nx\r\n", &mut replies) > 0, "the count counts");
    let stored = replies.datagrams;
    let messages = [
        "get a\r\n",
        "gets a b a\r\n",
        "gat 0 a\r\n",
        "get large\r\n",
        "mg a v c t h l k Oabc\r\n",
        "mg YQ== b k v\r\n",
        "mg nope v\r\n",
        "me a\r\n",
        "mn\r\n",
        "stats\r\n",
        "stats settings\r\n",
        "version\r\n",
        "touch a 0\r\n",
        "delete nope\r\n",
        "replace nope 0 0 1\r\nx\r\n",
        "add a 0 0 1\r\nx\r\n",
        "cas a 0 0 1 9\r\nx\r\n",
        "incr a 1\r\n",
        "bogus\r\n",
        "set a 0 0 9\r\nx\r\n",
        "set a x 0 1\r\nx\r\n",
        "mg a !\r\n",
        "flush_all 60\r\n",
    ];
    for message in messages {
        assert_eq!(ask(message, &mut replies), 0, "{message}");
    }
    assert_eq!(replies.datagrams - stored, messages.len() + 100_000 / 1392, "each was answered");
}

#[test]
fn nothing_is_allocated_for_a_stream() {
    let config = MemoryTableConfig { capacity_bytes: 4 << 20, ..MemoryTableConfig::default() };
    let mut table =
        MemoryTable::new(MemoryTableConfig { item_bytes_max: 200_000, ..config }).expect("a table");
    let metrics = WorkerMetrics::default();
    let (mut session, mut stream) = (Session::new(&roomy_setup()), Stream::default());
    let mut output = ReplyBuffer::new(8192);
    let value = "x".repeat(3000);
    // Pipelined, with values in pieces, replies that wait for room, and refusals.
    let messages = format!(
        "set a 0 0 3000\r\n{value}\r\nget a nope a a a a a\r\nmg a v c t\r\nms b 3 T9\r\nabc\r\nincr a 1\r\nstats\r\n\
         set a 0 0 300000\r\n{}\r\nbogus\r\ngat 0\r\n",
        "y".repeat(300_000)
    );
    let (mut replied_bytes, mut waits) = (0, 0);
    for piece in [messages.len(), 1000] {
        let (mut start, mut end) = (0, 0);
        while start < messages.len() {
            end = messages.len().min(end.max(start) + piece);
            loop {
                let mut context = Context { now: Now::default(), table: &mut table, metrics: &metrics };
                let before = allocations();
                let Progress { consumed, next } = stream.advance(
                    &mut session,
                    &mut context,
                    Origin(7),
                    200_000,
                    &messages.as_bytes()[start..end],
                    &mut output,
                );
                assert_eq!(allocations() - before, 0, "at {start}");
                start += consumed;
                replied_bytes += output.len();
                output.clear();
                match next {
                    Next::Room { .. } => waits += 1,
                    Next::Input { .. } => break,
                    Next::Close => panic!("it closes at {start}"),
                }
            }
        }
    }
    assert!(replied_bytes > 40_000 && waits > 2, "{replied_bytes} bytes, {waits} waits");
}

#[test]
fn nothing_is_allocated_for_a_resp_request() {
    let requests = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nab\r\nset k \"quoted \\x41\"\r\n*0\r\n*1\r\n$-1\r\n";
    let (mut scratch, mut place) = (Scratch::default(), Place::default());
    let mut output = ReplyBuffer::new(1024);
    let before = allocations();
    let (mut start, mut arguments_total) = (0, 0);
    loop {
        match parse(&requests[start..], &mut place, &mut scratch) {
            Parsed::Request(arguments, bytes) => {
                arguments_total += arguments.map(|argument| usize::from(!argument.is_empty())).sum::<usize>();
                Encoder::new(&mut output, Version::Three).integer(bytes as i64);
                start += bytes;
            }
            Parsed::Nothing(bytes) => start += bytes,
            Parsed::Invalid(error) => {
                Encoder::new(&mut output, Version::Two).protocol_error(error);
                break;
            }
            Parsed::Incomplete(_) | Parsed::TooLarge(..) => panic!("the last is refused"),
        }
    }
    assert_eq!((allocations() - before, arguments_total), (0, 6));
    assert!(output.as_bytes().ends_with(b"-ERR Protocol error: invalid bulk length\r\n"));
}
