//! `INFO`: what this worker knows of itself, in Redis's words.

use std::fmt::Write as _;

use super::super::Arguments;
use super::super::VERSION;
use super::super::text::Text;
use super::{Exchange, Outcome};
use crate::metrics::OpKind;
use crate::time::{MS_PER_S, NS_PER_S};

/// Seconds in a day.
const DAY_S: u64 = 86_400;

/// The sections, by name, in order.
const SECTIONS: [&str; 8] =
    ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "Cluster", "Keyspace"];

/// Which sections are asked for, one bit each.
fn sections(arguments: Arguments<'_>) -> u32 {
    let all = (1 << SECTIONS.len()) - 1;
    if arguments.len() == 0 {
        return all;
    }
    arguments.fold(0, |bits, word| {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if ["default", "all", "everything"].into_iter().any(is) {
            return all;
        }
        SECTIONS.iter().position(|name| is(name)).map_or(bits, |index| bits | 1 << index)
    })
}

pub(super) fn info<'a>(exchange: &mut Exchange<'_>, arguments: Arguments<'a>) -> Outcome<'a> {
    let asked = sections(arguments);
    let mut text = Text::default();
    for (_, name) in SECTIONS.into_iter().enumerate().filter(|(index, _)| asked & (1 << index) != 0) {
        let gap = if text.as_bytes().is_empty() { "" } else { "\r\n" };
        // A text takes all that is written to it.
        let _ = write!(text, "{gap}# {name}\r\n").and_then(|()| section(&mut text, exchange, name));
    }
    exchange.text(&text)
}

/// The lines of one section.
fn section(text: &mut Text, exchange: &Exchange<'_>, name: &str) -> std::fmt::Result {
    let Exchange { worker, shard, metrics, .. } = exchange;
    let table = shard.table.statistics();
    match name {
        "Server" => {
            let up_s = shard.now.monotonic_ns.saturating_sub(worker.started.monotonic_ns) / NS_PER_S;
            write!(
                text,
                "redis_version:{VERSION}\r\ndataplane_version:{}\r\nredis_mode:standalone\r\narch_bits:{}\r\n\
                 worker:{}\r\nworkers:{}\r\nserver_time_usec:{}\r\nuptime_in_seconds:{up_s}\r\n\
                 uptime_in_days:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                usize::BITS,
                worker.number,
                worker.count,
                shard.now.unix_ms * MS_PER_S,
                up_s / DAY_S,
            )
        }
        "Clients" => write!(text, "connected_clients:{}\r\nblocked_clients:0\r\n", worker.connected),
        "Memory" => write!(
            text,
            "used_memory:{}\r\nused_memory_dataset:{}\r\nmaxmemory:{}\r\nmaxmemory_policy:allkeys-lru\r\n",
            table.used_bytes, table.live_bytes, table.capacity_bytes,
        ),
        "Persistence" => write!(text, "loading:0\r\naof_enabled:0\r\nrdb_bgsave_in_progress:0\r\n"),
        "Stats" => write!(
            text,
            "total_connections_received:{}\r\ntotal_commands_processed:{}\r\nexpired_keys:{}\r\n\
             evicted_keys:{}\r\nkeyspace_hits:{}\r\nkeyspace_misses:{}\r\ntotal_error_replies:{}\r\n",
            worker.connections,
            worker.commands,
            table.expirations,
            table.evictions,
            metrics.hits.get(),
            metrics.misses.get(),
            metrics.requests(OpKind::Invalid),
        ),
        "Replication" => write!(text, "role:master\r\nconnected_slaves:0\r\n"),
        "Cluster" => write!(text, "cluster_enabled:0\r\n"),
        // Which of them expire is not counted.
        _ if table.items > 0 => write!(text, "db0:keys={},expires=0,avg_ttl=0\r\n", table.items),
        _ => Ok(()),
    }
}
