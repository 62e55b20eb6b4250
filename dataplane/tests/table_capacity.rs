//! What a full table does: it never fails, never does more than its bound at once, keeps what is worth keeping, and
//! wastes little.

#[path = "table_model/traces.rs"]
mod traces;

use dataplane::memory::Placement;
use dataplane::request::{Delete, Get, Op, Reply, Request, Store};
use dataplane::table::memory::{
    MemoryTable, MemoryTableConfig, RECLAIM_BYTES_BASE, RECLAIM_BYTES_PER_BYTE, RECLAIM_MOVES_BASE,
    RECLAIM_MOVES_BYTES,
};
use dataplane::table::{Submission, Table};
use dataplane::time::{Expiry, Now};
use traces::{Etc, Random, Zipf};

const NOW: Now = Now { monotonic_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };

fn table(capacity_bytes: u64, item_bytes_max: u32, expected_item_bytes: u32) -> MemoryTable {
    let config = MemoryTableConfig {
        capacity_bytes,
        item_bytes_max,
        expected_item_bytes,
        placement: Placement::default(),
    };
    MemoryTable::with_hash_seed(config, 7).expect("a table")
}

fn set(table: &mut MemoryTable, key: &[u8], value: &[u8]) {
    let request = Request::new(key, Op::Store(Store::set(value)));
    let Submission::Done(reply) = table.submit(NOW, &request) else { panic!("it answers at once") };
    assert!(matches!(reply, Reply::Stored { .. }), "{reply:?}");
}

fn get<'t>(table: &'t mut MemoryTable, key: &[u8]) -> Option<&'t [u8]> {
    match table.submit(NOW, &Request::new(key, Op::Get(Get::default()))) {
        Submission::Done(Reply::Value(item)) => Some(item.value),
        Submission::Done(Reply::NotFound) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ten_times_its_capacity_is_stored_and_the_last_is_always_there() {
    let mut table = table(8 << 20, 1 << 20, 500);
    let mut random = Random::new(1);
    let value = vec![7; 1 << 20];
    let mut stored_bytes = 0;
    let mut count = 0_u64;
    while stored_bytes < 80 << 20 {
        let bytes = match random.below(50) {
            0 => random.below((1 << 20) - 16),
            1..5 => random.below(20_000),
            _ => random.below(600),
        } as usize;
        let key = format!("key{count}");
        set(&mut table, key.as_bytes(), &value[..bytes]);
        assert_eq!(get(&mut table, key.as_bytes()).map(<[u8]>::len), Some(bytes));
        stored_bytes += bytes + key.len();
        count += 1;
        if count.is_multiple_of(200) {
            table.verify();
        }
    }
    let statistics = table.statistics();
    assert_eq!(statistics.items_total, count);
    assert_eq!(statistics.items + statistics.evictions, count);
    assert!(statistics.used_bytes <= statistics.capacity_bytes);
}

#[test]
fn no_request_moves_more_than_its_bound() {
    let mut table = table(8 << 20, 1 << 20, 200);
    let mut random = Random::new(2);
    let value = vec![1; 1 << 20];
    // Everything is read, so everything at the tail wants to stay; resized items leave dead room to compact.
    for count in 0..200_000_u64 {
        let key = random.below(30_000).to_le_bytes();
        let bytes = if count % 5_000 == 0 { 1 << 19 } else { random.below(400) as usize };
        let before = table.reclaim_work();
        set(&mut table, &key, &value[..bytes]);
        let after = table.reclaim_work();
        let span = bytes + 64;
        let moves = after.moves_total - before.moves_total;
        assert!(
            moves <= u64::from(RECLAIM_MOVES_BASE) + (span / RECLAIM_MOVES_BYTES) as u64,
            "{moves} moves"
        );
        let moved = after.moved_bytes_total - before.moved_bytes_total;
        let bound = RECLAIM_BYTES_BASE + RECLAIM_BYTES_PER_BYTE * span + (1 << 20) + 64;
        assert!(moved <= bound as u64, "{moved} bytes moved for {bytes}");
        for _ in 0..2 {
            get(&mut table, &random.below(30_000).to_le_bytes());
        }
    }
    table.verify();
    let work = table.reclaim_work();
    println!("{work:?}");
    assert!(work.moves_total > 10_000, "the bound was not put to the test: {work:?}");
}

#[test]
fn a_full_table_is_nearly_all_keys_and_values() {
    let mut random = Random::new(3);
    let etc = Etc::new();
    let mean: f64 = {
        let samples = 200_000;
        let mut random = Random::new(4);
        (0..samples).map(|_| etc.key_bytes(&mut random) + etc.value_bytes(&mut random)).sum::<usize>() as f64
            / f64::from(samples)
    };
    let mut table = table(256 << 20, (1 << 20) + 250, mean as u32);
    let value = vec![9; 1 << 20];
    let mut key = [0; 250];
    for count in 0..2_000_000_u64 {
        let key_bytes = etc.key_bytes(&mut random);
        key[..8].copy_from_slice(&count.to_le_bytes());
        set(&mut table, &key[..key_bytes], &value[..etc.value_bytes(&mut random)]);
    }
    let statistics = table.statistics();
    let efficiency = statistics.live_bytes as f64 / statistics.capacity_bytes as f64;
    println!(
        "ETC, mean item {mean:.1} bytes: {:.2} % of {} MiB are keys and values of {} live items; {} of {} evictions \
         for want of an index entry",
        efficiency * 100.0,
        statistics.capacity_bytes >> 20,
        statistics.items,
        table.evictions_index(),
        statistics.evictions
    );
    assert!(statistics.evictions > 0, "the table was not full");
    assert!(efficiency >= 0.95, "efficiency {efficiency}");
}

/// One request of a trace.
#[derive(Clone, Copy, Debug)]
enum Access {
    /// A get, and a set if it misses.
    Read(u64),
    /// A set, whether or not the key is there.
    Write(u64),
}

/// Share of gets that hit; `(ours, quick_cache's)` at the same bytes.
fn hit_ratios(
    name: &str,
    capacity_bytes: u64,
    trace: impl Iterator<Item = Access>,
    value_bytes: fn(u64) -> usize,
) -> (f64, f64) {
    #[derive(Clone)]
    struct Weigh;
    impl quick_cache::Weighter<u64, usize> for Weigh {
        fn weight(&self, _key: &u64, bytes: &usize) -> u64 {
            (8 + *bytes) as u64
        }
    }
    let mean = 8 + (0..1_000).map(value_bytes).sum::<usize>() / 1_000;
    let mut ours = table(capacity_bytes, 100_000, mean as u32);
    let mut theirs = quick_cache::unsync::Cache::with_weighter(
        (capacity_bytes / mean as u64) as usize,
        capacity_bytes,
        Weigh,
    );
    let value = [0; 100_000];
    let (mut gets, mut our_hits, mut their_hits) = (0_u64, 0_u64, 0_u64);
    for access in trace {
        let key = match access {
            Access::Read(key) => key,
            Access::Write(key) => {
                let bytes = value_bytes(key);
                set(&mut ours, &key.to_le_bytes(), &value[..bytes]);
                theirs.insert(key, bytes);
                continue;
            }
        };
        let bytes = value_bytes(key);
        gets += 1;
        if get(&mut ours, &key.to_le_bytes()).is_some() {
            our_hits += 1;
        } else {
            set(&mut ours, &key.to_le_bytes(), &value[..bytes]);
        }
        if theirs.get(&key).is_some() {
            their_hits += 1;
        } else {
            theirs.insert(key, bytes);
        }
    }
    ours.verify();
    let ratio = |hits: u64| hits as f64 / gets as f64;
    println!(
        "{name}: hit ratio {:.4}, quick_cache {:.4} ({} index evictions of {})",
        ratio(our_hits),
        ratio(their_hits),
        ours.evictions_index(),
        ours.statistics().evictions
    );
    (ratio(our_hits), ratio(their_hits))
}

fn sizes(key: u64) -> usize {
    100 + (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 55) as usize
}

#[test]
fn it_keeps_as_much_worth_keeping_as_quick_cache() {
    let keys = 200_000;
    for (skew, part) in [(0.7, 10), (0.9, 10), (0.99, 10), (0.99, 50), (1.2, 100)] {
        let zipf = Zipf::new(keys, skew);
        let mut random = Random::new(5);
        let name = format!("zipf {skew}, room for 1/{part} of {keys} keys");
        let trace = (0..1_500_000).map(|_| Access::Read(zipf.sample(&mut random)));
        let (ours, theirs) = hit_ratios(&name, keys as u64 * 380 / part, trace, sizes);
        assert!(ours >= theirs - 0.02, "{name}: {ours} against {theirs}");
    }
    for part in [10, 50] {
        // Every 50 000 requests a scan of as many keys as the table holds, none ever asked for again.
        let zipf = Zipf::new(keys, 0.9);
        let mut random = Random::new(6);
        let scan = keys as u64 / part;
        let trace = (0..1_500_000_u64).map(|at| {
            let (period, phase) = (at / 50_000, at % 50_000);
            Access::Read(if phase < scan { 1 << 40 | period << 20 | phase } else { zipf.sample(&mut random) })
        });
        let name = format!("zipf 0.9 with scans, room for 1/{part} of {keys} keys");
        let (ours, theirs) = hit_ratios(&name, keys as u64 * 380 / part, trace, sizes);
        assert!(ours >= theirs - 0.02, "{name}: {ours} against {theirs}");
    }
    // What is popular changes: a table must also let go.
    let zipf = Zipf::new(keys, 0.99);
    let mut random = Random::new(7);
    let trace = (0..1_500_000_u64)
        .map(|at| Access::Read((zipf.sample(&mut random) + at / 100_000 * 7_919) % keys as u64));
    let (ours, theirs) = hit_ratios("zipf 0.99 that shifts", keys as u64 * 380 / 10, trace, sizes);
    assert!(ours >= theirs - 0.02, "{ours} against {theirs}");
    // Most requests write: what is written often is popular too.
    for (skew, writes) in [(0.9, 5), (0.99, 9)] {
        let zipf = Zipf::new(keys, skew);
        let mut random = Random::new(8);
        let trace = (0..1_500_000).map(|_| {
            let key = zipf.sample(&mut random);
            if random.below(10) < writes { Access::Write(key) } else { Access::Read(key) }
        });
        let name = format!("zipf {skew}, {writes} of 10 requests write, room for 1/10 of {keys} keys");
        let (ours, theirs) = hit_ratios(&name, keys as u64 * 380 / 10, trace, sizes);
        assert!(ours >= theirs - 0.02, "{name}: {ours} against {theirs}");
    }
}

#[test]
fn what_was_just_stored_is_not_evicted_by_the_next_request() {
    let mut table = table(1 << 20, 10_000, 200);
    let value = [5; 200];
    let mut next = 0_u64;
    let peek = Op::Get(Get { peek: true, ..Get::default() });
    let is_there = |table: &mut MemoryTable, key: u64| {
        matches!(
            table.submit(NOW, &Request::new(&key.to_le_bytes(), peek)),
            Submission::Done(Reply::Value(_))
        )
    };
    for _ in 0..1_000 {
        let before = table.statistics().evictions;
        while table.statistics().evictions == before {
            set(&mut table, &next.to_le_bytes(), &value);
            next += 1;
        }
        // New items leave in the order they came, so the next to go came right after the last that went.
        let last = (0..next).rev().find(|&key| !is_there(&mut table, key)).expect("one was evicted");
        set(&mut table, &(last + 1).to_le_bytes(), &value);
        set(&mut table, &next.to_le_bytes(), &value);
        next += 1;
        assert!(is_there(&mut table, last + 1), "{} of {next} was evicted at once", last + 1);
    }
    table.verify();
}

#[test]
fn a_long_item_takes_another_expiry_or_cas_where_it_lies() {
    let mut table = table(4 << 20, 1 << 20, 4_096);
    let key = b"long";
    let value = vec![6; 1 << 19];
    set(&mut table, key, &value);
    let before = table.statistics().used_bytes;
    let later = Expiry::at_unix_ms(NOW.unix_ms + 60_000);
    let stale = Delete { mark_stale: true, touch: Some(later), new_cas: Some(u64::MAX), ..Delete::default() };
    let ops = [
        Op::Touch(later),
        Op::Touch(Expiry::NEVER),
        Op::Get(Get { touch: Some(later), ..Get::default() }),
        Op::Delete(stale),
        Op::Delete(Delete { touch: Some(Expiry::NEVER), new_cas: None, ..stale }),
    ];
    for op in ops {
        let Submission::Done(reply) = table.submit(NOW, &Request::new(key, op)) else {
            panic!("it answers at once")
        };
        assert!(!matches!(reply, Reply::NotFound), "{op:?}");
        assert_eq!(table.statistics().used_bytes, before, "{op:?} moved it");
    }
    assert_eq!(get(&mut table, key), Some(&value[..]));
    table.verify();
}
