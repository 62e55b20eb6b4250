//! No request over RESP allocates, whatever it asks and however its reply comes out.

mod counting;

use std::net::SocketAddr;

use counting::allocations;
use dataplane::memory::Placement;
use dataplane::metrics::WorkerMetrics;
use dataplane::protocol::resp::Resp;
use dataplane::protocol::resp::connection::OUTPUT_BYTES_MIN;
use dataplane::protocol::resp::conversation::{SendBuffer, roomy_setup};
use dataplane::service::{Context, Next, Output as _, StreamService};
use dataplane::table::Table as _;
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::time::{NS_PER_MS, Now};

/// A service on a full memory table, and what requests make it allocate.
struct Rig {
    service: Resp,
    table: MemoryTable,
    metrics: WorkerMetrics,
    now: Now,
    output: SendBuffer,
}

impl Rig {
    fn new() -> Self {
        let config = MemoryTableConfig {
            capacity_bytes: 4 << 20,
            item_bytes_max: 200_000,
            expected_item_bytes: 500,
            placement: Placement::default(),
        };
        let capacity = 4 * OUTPUT_BYTES_MIN;
        let mut service = Resp::new(&roomy_setup());
        let address = SocketAddr::from(([127, 0, 0, 1], 6379));
        service.opened(0, address, address);
        Self {
            service,
            table: MemoryTable::new(config).expect("a table"),
            metrics: WorkerMetrics::default(),
            now: Now { monotonic_ns: 0, unix_ms: 1_700_000_000_000 },
            output: SendBuffer { bytes: Vec::with_capacity(capacity), capacity },
        }
    }

    /// Allocations for a request, and bytes of its reply.
    fn ask(&mut self, request: &[u8]) -> (u64, usize) {
        let (mut start, mut replied_bytes) = (0, 0);
        let before = allocations();
        loop {
            let mut context = Context { now: self.now, table: &mut self.table, metrics: &self.metrics };
            let progress = self.service.advance(&mut context, 0, &request[start..], &mut self.output);
            start += progress.consumed;
            replied_bytes += self.output.capacity() - self.output.room();
            self.output.bytes.clear();
            if !matches!(progress.next, Next::Room { .. }) {
                break;
            }
        }
        assert_eq!(start, request.len(), "all of it was read");
        self.table.poll(self.now, &mut |_, _| {});
        (allocations() - before, replied_bytes)
    }
}

#[test]
fn a_full_table_and_every_command_allocate_nothing() {
    let mut rig = Rig::new();
    let values = [10, 700, 5_000, 150_000].map(|bytes| "x".repeat(bytes));
    for turn in 0..20_000 {
        rig.now.unix_ms += 1;
        rig.now.monotonic_ns += NS_PER_MS;
        let value = &values[if turn % 50 == 0 { 3 } else { turn % 3 }];
        let (key, old) = (turn % 9_000, (turn * 7) % 9_000);
        let request = match turn % 40 {
            0..12 => format!("*3\r\n$3\r\nSET\r\n$5\r\nk{key:04}\r\n${}\r\n{value}\r\n", value.len()),
            12 => format!("MGET k{old:04} k{key:04} nope k{old:04} k{:04}\r\n", key + 1),
            13 => format!("APPEND k{old:04} 0123456789\r\n"),
            14 => format!("INCRBY n{old} 7\r\n"),
            15 => format!("INCRBYFLOAT f{old} 0.1\r\n"),
            16 => format!("SET k{old:04} v PX 20 GET\r\n"),
            17 => format!("EXPIRE k{old:04} 100 NX\r\n"),
            18 => format!("RENAME k{old:04} r{key}\r\n"),
            19 => format!("DEL k{old:04} k{key:04}\r\n"),
            20 => format!("SCAN {turn} MATCH k*1 COUNT 50\r\n"),
            21 => "RANDOMKEY\r\n".to_owned(),
            22 => "INFO\r\n".to_owned(),
            23 => "CLIENT LIST\r\n".to_owned(),
            24 => "HELLO 3 SETNAME me\r\n".to_owned(),
            25 => "HELLO 2\r\n".to_owned(),
            26 => "CONFIG GET max* save\r\n".to_owned(),
            27 => "COMMAND INFO get mset client\r\n".to_owned(),
            28 => "COMMAND DOCS get mset client\r\n".to_owned(),
            29 => format!("GETEX k{old:04} EX 5\r\n"),
            30 => format!("MSET a{key} 1 b{key} 2 c{key} \"3 \\x41\"\r\n"),
            31 => format!("SETRANGE k{old:04} 30 abc\r\n"),
            32 => format!("GETDEL k{old:04}\r\n"),
            33 => "nonsense with some arguments\r\n".to_owned(),
            34 => format!("TTL k{old:04}\r\n"),
            35 => "KEYS a1*\r\n".to_owned(),
            36 if turn % 5_000 == 36 => "FLUSHALL\r\n".to_owned(),
            36 => "COMMAND\r\n".to_owned(),
            _ => format!("GET k{old:04}\r\n"),
        };
        let (allocations, replied_bytes) = rig.ask(request.as_bytes());
        assert_eq!(allocations, 0, "{}", &request[..request.len().min(60)]);
        assert!(replied_bytes > 0, "{}", &request[..request.len().min(60)]);
    }
    let statistics = rig.table.statistics();
    assert!(statistics.evictions > 1_000 && statistics.expirations > 0, "it was not full: {statistics:?}");
}
