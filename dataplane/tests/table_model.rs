//! The memory table against the model table, request by request: two tables written apart from each other agree on
//! every reply, for every kind of request the front ends can make.

use dataplane::request::{Arithmetic, Delete, Direction, Get, Item, Op, Reply, Request, Store, StoreMode};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::model::ModelTable;
use dataplane::table::{Submission, Table};
use dataplane::time::{Expiry, Now};
use proptest::prelude::*;

const START_UNIX_MS: u64 = 1_700_000_000_000;

/// A request without borrows, and how long the client waited before it.
#[derive(Clone, Debug)]
struct Step {
    key: u8,
    wait_ms: u64,
    op: Owned,
}

#[derive(Clone, Debug)]
enum Owned {
    Get(Get),
    Store {
        mode: StoreMode,
        value: Vec<u8>,
        flags: u32,
        expiry: Expiry,
        cas: Cas,
        invalidate: bool,
        vivify: bool,
        keep_expiry: bool,
        old_bytes_max: Option<usize>,
    },
    Arithmetic {
        up: bool,
        delta: u64,
        initial: Option<u64>,
        touch: Option<Expiry>,
        cas: Cas,
    },
    Delete {
        mark_stale: bool,
        drop_value: bool,
        touch: Option<Expiry>,
        cas: Cas,
        old_bytes_max: Option<usize>,
    },
    Touch(Expiry),
    Add(i64),
    Flush {
        delay_ms: u64,
    },
}

/// Compare with the item's own CAS, plus this; and a CAS to give it.
#[derive(Clone, Copy, Debug)]
struct Cas {
    compare: Option<i8>,
    new: Option<u64>,
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        3 => Just(Expiry::NEVER),
        2 => (0u64..20_000).prop_map(|after_ms| Expiry::at_unix_ms(START_UNIX_MS + after_ms)),
    ]
}

fn cas() -> impl Strategy<Value = Cas> {
    let compare = prop_oneof![3 => Just(None), 2 => Just(Some(0i8)), 1 => (-2i8..3).prop_map(Some)];
    let new = prop_oneof![4 => Just(None), 1 => (1u64..1_000).prop_map(Some)];
    (compare, new).prop_map(|(compare, new)| Cas { compare, new })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        (-30i64..30).prop_map(|number| number.to_string().into_bytes()),
        Just(i64::MAX.to_string().into_bytes()),
        Just(b"-0".to_vec()),
        Just(b"18446744073709551615".to_vec()),
        Just(b"99999999999999999999".to_vec()),
    ]
}

fn bytes_max() -> impl Strategy<Value = Option<usize>> {
    proptest::option::weighted(0.3, prop_oneof![0..40usize, 0..300usize])
}

fn op() -> impl Strategy<Value = Owned> {
    let get = (
        proptest::option::weighted(0.2, expiry()),
        proptest::option::weighted(0.2, expiry()),
        proptest::option::weighted(0.3, 0u64..30),
        any::<bool>(),
        any::<bool>(),
        bytes_max(),
    )
        .prop_map(|(touch, vivify, recache_below_s, claim, peek, value_bytes_max)| {
            Owned::Get(Get { touch, vivify, recache_below_s, claim, peek, new_cas: None, value_bytes_max })
        });
    let mode = prop_oneof![
        Just(StoreMode::Set),
        Just(StoreMode::Add),
        Just(StoreMode::Replace),
        Just(StoreMode::Append),
        Just(StoreMode::Prepend),
        (0u32..300).prop_map(|offset| StoreMode::Range { offset }),
    ];
    let switches = any::<[bool; 3]>();
    let store = (mode, value(), any::<u32>(), expiry(), cas(), switches, bytes_max()).prop_map(
        |(mode, value, flags, expiry, cas, [invalidate, vivify, keep_expiry], old_bytes_max)| Owned::Store {
            mode,
            value,
            flags,
            expiry,
            cas,
            invalidate,
            vivify,
            keep_expiry,
            old_bytes_max,
        },
    );
    let delta = prop_oneof![0u64..10, any::<u64>()];
    let touch = || proptest::option::weighted(0.3, expiry());
    let arithmetic = (any::<bool>(), delta, proptest::option::of(0u64..100), touch(), cas())
        .prop_map(|(up, delta, initial, touch, cas)| Owned::Arithmetic { up, delta, initial, touch, cas });
    let delete = (any::<bool>(), any::<bool>(), touch(), cas(), bytes_max()).prop_map(
        |(mark_stale, drop_value, touch, cas, old_bytes_max)| Owned::Delete {
            mark_stale,
            drop_value,
            touch,
            cas,
            old_bytes_max,
        },
    );
    prop_oneof![
        8 => get,
        8 => store,
        4 => arithmetic,
        3 => delete,
        2 => expiry().prop_map(Owned::Touch),
        2 => prop_oneof![-20i64..20, any::<i64>()].prop_map(Owned::Add),
        1 => (0u64..3_000).prop_map(|delay_ms| Owned::Flush { delay_ms }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![3 => Just(0u64), 2 => 0u64..2_000];
    proptest::collection::vec(
        (0u8..4, wait, op()).prop_map(|(key, wait_ms, op)| Step { key, wait_ms, op }),
        1..120,
    )
}

/// The operation, its CAS made concrete from the item's present one.
fn concrete(owned: &Owned, now: Now, present_cas: u64) -> Op<'_> {
    let compare = |cas: &Cas| cas.compare.map(|offset| present_cas.wrapping_add_signed(i64::from(offset)));
    match owned {
        Owned::Get(get) => Op::Get(*get),
        Owned::Store { mode, value, flags, expiry, cas, invalidate, vivify, keep_expiry, old_bytes_max } => {
            Op::Store(Store {
                mode: *mode,
                value,
                flags: *flags,
                expiry: *expiry,
                compare_cas: compare(cas),
                new_cas: cas.new,
                invalidate: *invalidate,
                vivify: vivify.then_some(*expiry),
                keep_expiry: *keep_expiry,
                old_bytes_max: *old_bytes_max,
            })
        }
        Owned::Arithmetic { up, delta, initial, touch, cas } => Op::Arithmetic(Arithmetic {
            direction: if *up { Direction::Increment } else { Direction::Decrement },
            delta: *delta,
            initial: initial.map(|initial| (initial, Expiry::NEVER)),
            touch: *touch,
            compare_cas: compare(cas),
            new_cas: cas.new,
        }),
        Owned::Delete { mark_stale, drop_value, touch, cas, old_bytes_max } => Op::Delete(Delete {
            compare_cas: compare(cas),
            mark_stale: *mark_stale,
            drop_value: *drop_value,
            touch: *touch,
            new_cas: cas.new,
            old_bytes_max: *old_bytes_max,
        }),
        Owned::Add(delta) => Op::Add(*delta),
        Owned::Touch(expiry) => Op::Touch(*expiry),
        Owned::Flush { delay_ms } => {
            let at_unix_ms = if *delay_ms < 1_000 { now.unix_ms } else { now.unix_ms + delay_ms };
            Op::FlushAll { at_unix_ms }
        }
    }
}

fn submit(table: &mut dyn Table, now: Now, key: &[u8], op: Op<'_>) -> String {
    match table.submit(now, &Request::new(key, op)) {
        // Not compared: `idle_s`. Which writes count as a use is left to the table.
        Submission::Done(Reply::Value(Item {
            value, flags, cas, expiry, fetched, stale, recache, ..
        })) => {
            let value = String::from_utf8_lossy(value);
            format!("{value} {flags} {cas} {expiry:?} {fetched} {stale} {recache:?}")
        }
        Submission::Done(reply) => format!("{reply:?}"),
        Submission::Pending => "pending".to_owned(),
    }
}

/// Every key and value, in order, however many steps it takes.
fn scanned(table: &dyn Table, now: Now, budget: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut cursor = 0;
    loop {
        cursor =
            table.scan(now, cursor, budget, &mut |key, item| found.push((key.to_vec(), item.value.to_vec())));
        if cursor == 0 {
            found.sort_unstable();
            return found;
        }
    }
}

fn present_cas(table: &mut ModelTable, now: Now, key: &[u8]) -> u64 {
    let peek = Get { peek: true, ..Get::default() };
    match table.submit(now, &Request::new(key, Op::Get(peek))) {
        Submission::Done(Reply::Value(item)) => item.cas,
        _ => 7,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_model_give_the_same_replies(steps in steps()) {
        let config = MemoryTableConfig { capacity_bytes: 8 << 20, ..MemoryTableConfig::default() };
        let mut memory = MemoryTable::with_hash_seed(config, 1).expect("memory for a small table");
        let mut model = ModelTable::default();
        let mut now = Now { monotonic_ns: 0, unix_ms: START_UNIX_MS };
        for (place, step) in steps.iter().enumerate() {
            now.unix_ms += step.wait_ms;
            now.monotonic_ns += step.wait_ms * 1_000_000;
            let key = format!("key-{}", step.key);
            let cas = present_cas(&mut model, now, key.as_bytes());
            let op = concrete(&step.op, now, cas);
            let expected = submit(&mut model, now, key.as_bytes(), op);
            let found = submit(&mut memory, now, key.as_bytes(), op);
            prop_assert_eq!(found, expected, "step {}: {:?}", place, step);
            memory.poll(now, &mut |_, _| {});
        }
        prop_assert_eq!(scanned(&memory, now, 256), scanned(&model, now, 3));
        for table in [&memory as &dyn Table, &model] {
            let there = scanned(table, now, 1 << 20);
            match table.random_key(now, steps.len() as u64) {
                Some(key) => prop_assert!(there.iter().any(|(found, _)| found == key)),
                None => prop_assert!(there.is_empty()),
            }
        }
    }
}

/// Clients ask for ten keys at a time, over the network: a table with room for many more than it has must not cost them
/// a question for each place.
#[test]
fn a_scan_of_a_nearly_empty_table_is_short() {
    let mut table = MemoryTable::new(MemoryTableConfig::default()).expect("a table");
    let now = Now { monotonic_ns: 0, unix_ms: START_UNIX_MS };
    for key in ["a", "b", "c"] {
        submit(&mut table, now, key.as_bytes(), Op::Store(Store::set(b"value")));
    }
    let (mut cursor, mut questions, mut found) = (0, 0, Vec::new());
    loop {
        cursor = table.scan(now, cursor, 10, &mut |key, _| found.push(key.to_vec()));
        questions += 1;
        if cursor == 0 {
            break;
        }
    }
    found.sort_unstable();
    assert_eq!(found, [b"a", b"b", b"c"]);
    assert!(questions < 50, "{questions} questions for 3 keys");
}
