//! Time and the table: expiry, flushes, the sweep that frees what nobody asks for, and cursors.

use std::collections::{HashMap, HashSet};

use dataplane::memory::Placement;
use dataplane::request::{Delete, Get, Item, Op, Recache, Reply, Request, Store};
use dataplane::table::memory::{
    MemoryTable, MemoryTableConfig, SWEEP_INTERVAL_NS, SWEEP_RECORDS_MAX, TableError,
};
use dataplane::table::{Submission, Table};
use dataplane::time::{Expiry, Now};

const START_MS: u64 = 1_700_000_000_000;

const CONFIG: MemoryTableConfig = MemoryTableConfig {
    capacity_bytes: 4 << 20,
    item_bytes_max: 100_000,
    expected_item_bytes: 100,
    placement: Placement { node: None, huge_pages: dataplane::memory::HugePages::Auto },
};

fn table() -> MemoryTable {
    MemoryTable::with_hash_seed(CONFIG, 1).expect("a table")
}

fn at(ms: u64) -> Now {
    Now { monotonic_ns: ms * 1_000_000, unix_ms: START_MS + ms }
}

fn submit<'t>(table: &'t mut MemoryTable, ms: u64, key: &[u8], op: Op<'_>) -> Reply<'t> {
    match table.submit(at(ms), &Request::new(key, op)) {
        Submission::Done(reply) => reply,
        Submission::Pending => panic!("a memory table answers at once"),
    }
}

fn set(table: &mut MemoryTable, ms: u64, key: &[u8], value: &[u8], expiry: Expiry) {
    let reply = submit(table, ms, key, Op::Store(Store { expiry, ..Store::set(value) }));
    assert!(matches!(reply, Reply::Stored { .. }), "{reply:?}");
}

fn get<'t>(table: &'t mut MemoryTable, ms: u64, key: &[u8]) -> Option<Item<'t>> {
    match submit(table, ms, key, Op::Get(Get::default())) {
        Reply::Value(item) => Some(item),
        Reply::NotFound => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_item_is_there_until_the_millisecond_it_expires() {
    let mut table = table();
    set(&mut table, 0, b"k", b"v", Expiry::at_unix_ms(START_MS + 50));
    assert_eq!(get(&mut table, 49, b"k").map(|item| item.value.to_vec()), Some(b"v".to_vec()));
    assert!(get(&mut table, 50, b"k").is_none());
    assert_eq!((table.statistics().items, table.statistics().expirations), (0, 1));
    table.verify();
}

#[test]
fn idle_seconds_and_the_fetched_mark_tell_of_the_reads_before() {
    let mut table = table();
    set(&mut table, 0, b"k", b"v", Expiry::NEVER);
    let seen: Vec<_> = [3_500, 3_600, 10_000]
        .into_iter()
        .map(|ms| get(&mut table, ms, b"k").map(|item| (item.idle_s, item.fetched)).expect("it is there"))
        .collect();
    assert_eq!(seen, [(3, false), (0, true), (7, true)]);
}

#[test]
fn a_flush_takes_what_was_written_before_it_and_nothing_else() {
    let mut table = table();
    set(&mut table, 0, b"before", b"1", Expiry::NEVER);
    let flush = |at_ms| Op::FlushAll { at_unix_ms: START_MS + at_ms };
    assert!(matches!(submit(&mut table, 1, b"", flush(100)), Reply::Done));
    set(&mut table, 99, b"also before", b"2", Expiry::NEVER);
    assert!(get(&mut table, 99, b"before").is_some());
    set(&mut table, 100, b"after", b"3", Expiry::NEVER);
    assert!(get(&mut table, 100, b"before").is_none());
    assert!(get(&mut table, 100, b"also before").is_none());
    assert!(get(&mut table, 100, b"after").is_some());
    submit(&mut table, 101, b"", flush(0));
    assert!(get(&mut table, 101, b"after").is_none(), "a time in the past acts at once");
    table.verify();
}

#[test]
fn the_sweep_frees_what_expired_or_was_flushed_in_bounded_steps() {
    let mut table = table();
    let count = 5_000_u32;
    for number in 0..count {
        let expiry = if number % 2 == 0 { Expiry::at_unix_ms(START_MS + 10) } else { Expiry::NEVER };
        set(&mut table, 0, &number.to_le_bytes(), &[1; 60], expiry);
    }
    let poll = |table: &mut MemoryTable, ms| table.poll(at(ms), &mut |_, _| panic!("nothing was pending"));
    let step_ms = SWEEP_INTERVAL_NS / 1_000_000;
    let mut ms = 10;
    let sweep = |table: &mut MemoryTable, ms: &mut u64, until: u64| {
        let steps_max = 3 * u64::from(count) / u64::from(SWEEP_RECORDS_MAX);
        for _ in 0..steps_max {
            let before = table.statistics().expirations;
            poll(table, *ms);
            let found = table.statistics().expirations - before;
            assert!(found <= u64::from(SWEEP_RECORDS_MAX), "one step freed {found}");
            poll(table, *ms);
            assert_eq!(table.statistics().expirations, before + found, "two steps within the interval");
            *ms += step_ms;
        }
        assert_eq!(table.statistics().items, until);
        table.verify();
    };
    sweep(&mut table, &mut ms, u64::from(count) / 2);
    assert_eq!(table.statistics().live_bytes, u64::from(count) / 2 * 64);
    submit(&mut table, ms, b"", Op::FlushAll { at_unix_ms: 0 });
    let flushed = table.statistics();
    assert_eq!((flushed.items, flushed.live_bytes), (0, 0), "what was flushed is not told");
    assert_eq!(flushed.expirations, u64::from(count) / 2, "a flush touches no item");
    assert!(flushed.used_bytes > 0);
    table.verify();
    sweep(&mut table, &mut ms, 0);
    assert_eq!(table.statistics().expirations, u64::from(count));
    assert_eq!(table.statistics().used_bytes, 0, "room is free once the sweep has passed");
}

#[test]
fn one_reader_at_a_time_wins_the_right_to_recache() {
    let mut table = table();
    let read = |table: &mut MemoryTable, get| match submit(table, 0, b"k", Op::Get(get)) {
        Reply::Value(item) => (item.recache, item.stale),
        other => panic!("{other:?}"),
    };
    let claim = Get { claim: true, ..Get::default() };
    let vivify = Get { vivify: Some(Expiry::NEVER), claim: true, ..Get::default() };
    assert_eq!(read(&mut table, vivify), (Recache::Won, false));
    assert_eq!(read(&mut table, vivify), (Recache::Sent, false));
    set(&mut table, 0, b"k", b"v", Expiry::at_unix_ms(START_MS + 30_000));
    assert_eq!(read(&mut table, claim), (Recache::None, false));
    let below = |seconds| Get { recache_below_s: Some(seconds), claim: true, ..Get::default() };
    assert_eq!(read(&mut table, below(30)), (Recache::None, false));
    assert_eq!(read(&mut table, below(31)), (Recache::Won, false));
    assert_eq!(read(&mut table, below(31)), (Recache::Sent, false));
    let stale = Delete { mark_stale: true, ..Delete::default() };
    assert!(matches!(submit(&mut table, 0, b"k", Op::Delete(stale)), Reply::Deleted));
    assert_eq!(read(&mut table, claim), (Recache::Won, true));
    assert_eq!(read(&mut table, claim), (Recache::Sent, true));
    set(&mut table, 0, b"k", b"v", Expiry::NEVER);
    assert!(matches!(submit(&mut table, 0, b"k", Op::Delete(stale)), Reply::Deleted));
    assert_eq!(
        read(&mut table, Get::default()),
        (Recache::None, true),
        "a reader that cannot be told wins nothing"
    );
    assert_eq!(read(&mut table, claim), (Recache::Won, true));
    table.verify();
}

#[test]
fn a_scan_sees_every_key_that_stays_whatever_is_written_in_between() {
    for budget in [1, 10, 1_000] {
        let mut table = table();
        let stays: HashSet<Vec<u8>> = (0..2_000_u32).map(|number| number.to_le_bytes().to_vec()).collect();
        for key in &stays {
            set(&mut table, 0, key, b"stays", Expiry::NEVER);
        }
        let mut seen: HashMap<Vec<u8>, u32> = HashMap::new();
        let (mut cursor, mut number) = (0, 1 << 20);
        loop {
            cursor =
                table.scan(at(0), cursor, budget, &mut |key, _| *seen.entry(key.to_vec()).or_default() += 1);
            // Keys come and go and those that stay are rewritten, longer each time, so that records and entries move.
            for _ in 0..20 {
                number += 1;
                set(&mut table, 0, &u32::to_le_bytes(number), &[2; 40], Expiry::NEVER);
                submit(&mut table, 0, &u32::to_le_bytes(number - 3_000), Op::Delete(Delete::default()));
                let key = (number * 7 % 2_000).to_le_bytes();
                set(&mut table, 0, &key, &vec![3; number as usize % 200], Expiry::NEVER);
            }
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(table.statistics().evictions, 0, "the table has room for all");
        for key in &stays {
            assert_eq!(seen.get(key), Some(&1), "{key:?} with a budget of {budget}");
        }
        table.verify();
    }
}

#[test]
fn any_cursor_is_as_good_as_another() {
    let mut table = table();
    set(&mut table, 0, b"k", b"v", Expiry::NEVER);
    for cursor in [u64::MAX, u64::MAX / 2, 1 << 40, 255, 256] {
        table.scan(at(0), cursor, 1 << 20, &mut |_, _| {});
    }
}

#[test]
fn sizes_that_do_not_go_together_are_refused_with_what_would_do() {
    let small = MemoryTableConfig { capacity_bytes: 100_000, ..CONFIG };
    let Err(error @ TableError::CapacityTooSmall { capacity_bytes_min, .. }) = MemoryTable::new(small) else {
        panic!("too small a table was made")
    };
    assert!(error.to_string().contains(&capacity_bytes_min.to_string()), "{error}");
    MemoryTable::new(MemoryTableConfig { capacity_bytes: capacity_bytes_min, ..small }).expect("as it said");
    for item_bytes_max in [0, (1 << 20) + 251] {
        let config = MemoryTableConfig { item_bytes_max, ..CONFIG };
        assert!(matches!(MemoryTable::new(config), Err(TableError::ItemSize { .. })));
    }
    let config = MemoryTableConfig { expected_item_bytes: 0, ..CONFIG };
    assert!(matches!(MemoryTable::new(config), Err(TableError::ExpectedItemSize)));
}
