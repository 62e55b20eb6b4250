//! What the memory table costs a request, beside a hash map and another cache doing the same.
//!
//! `cargo bench -p dataplane --bench table [-- --smoke]`; `cargo test` runs the smoke. Systems take turns, round by round, and medians are
//! printed: what else runs on the machine then hits all of them. Keys are asked for in random order, so nearly every
//! access misses the CPU's caches. Beside the longest single operation stands the machine's own longest gap: a loop
//! that only reads the clock, for as long.

#[path = "../tests/table_model/traces.rs"]
mod traces;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use dataplane::memory::Placement;
use dataplane::request::{Get, Op, Reply, Request, Store};
use dataplane::table::memory::{KeyHash, MemoryTable, MemoryTableConfig};
use dataplane::table::{Submission, Table};
use dataplane::time::Now;
use rapidhash::fast::RandomState;
use traces::{Etc, Random};

const NOW: Now = Now { monotonic_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };
const BATCH: usize = 64;
const ITEM_BYTES_MAX: usize = (1 << 20) + 250;

#[derive(Clone, Debug)]
struct Scale {
    keys: u64,
    operations: usize,
    rounds: usize,
}

/// Keys and value sizes, made from a number without touching much memory: a request's own bytes are hot.
struct Workload {
    name: &'static str,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u32>,
}

impl Workload {
    fn fixed(keys: u64) -> Self {
        let keys = keys as usize;
        Self { name: "32-byte values", key_bytes: vec![16; keys], value_bytes: vec![32; keys] }
    }

    fn etc(keys: u64) -> Self {
        let mut random = Random::new(1);
        let sizes = (0..keys).map(|_| {
            let key_bytes = Etc::new().key_bytes(&mut random) as u8;
            (key_bytes, Etc::new().value_bytes(&mut random) as u32)
        });
        let (key_bytes, value_bytes) = sizes.unzip();
        Self { name: "ETC sizes", key_bytes, value_bytes }
    }

    fn keys(&self) -> u64 {
        self.key_bytes.len() as u64
    }

    fn mean_bytes(&self) -> u64 {
        let keys = self.key_bytes.iter().map(|&bytes| u64::from(bytes)).sum::<u64>();
        (keys + self.value_bytes.iter().map(|&bytes| u64::from(bytes)).sum::<u64>()) / self.keys()
    }

    /// Writes key `number` to `buffer`; numbers past the last key are keys that nobody stored.
    fn key<'b>(&self, number: u64, buffer: &'b mut [u8; 250]) -> &'b [u8] {
        buffer[..8].copy_from_slice(&number.to_le_bytes());
        &buffer[..usize::from(self.key_bytes[(number % self.keys()) as usize])]
    }

    fn value<'v>(&self, number: u64, values: &'v [u8]) -> &'v [u8] {
        &values[..self.value_bytes[(number % self.keys()) as usize] as usize]
    }
}

struct Systems {
    table: MemoryTable,
    map: HashMap<Box<[u8]>, Box<[u8]>, RandomState>,
    cache: quick_cache::unsync::Cache<Box<[u8]>, Box<[u8]>, Weigh, RandomState>,
}

#[derive(Clone)]
struct Weigh;

impl quick_cache::Weighter<Box<[u8]>, Box<[u8]>> for Weigh {
    fn weight(&self, key: &Box<[u8]>, value: &Box<[u8]>) -> u64 {
        (key.len() + value.len()) as u64
    }
}

impl Systems {
    fn new(workload: &Workload, capacity_bytes: u64) -> Self {
        let config = MemoryTableConfig {
            capacity_bytes,
            item_bytes_max: ITEM_BYTES_MAX as u32,
            expected_item_bytes: workload.mean_bytes() as u32,
            placement: Placement::default(),
        };
        Self {
            table: MemoryTable::new(config).expect("a table"),
            map: HashMap::default(),
            cache: quick_cache::unsync::Cache::with(
                (capacity_bytes / workload.mean_bytes()) as usize,
                capacity_bytes,
                Weigh,
                RandomState::default(),
                quick_cache::unsync::DefaultLifecycle::default(),
            ),
        }
    }
}

fn set(table: &mut MemoryTable, key: &[u8], value: &[u8]) {
    let request = Request::new(key, Op::Store(Store::set(value)));
    let Submission::Done(Reply::Stored { cas, .. }) = table.submit(NOW, &request) else {
        panic!("not stored")
    };
    black_box(cas);
}

fn table_get(table: &mut MemoryTable, key: &[u8]) -> u64 {
    seen(table.submit(NOW, &Request::new(key, Op::Get(Get::default()))))
}

fn seen(submission: Submission<'_>) -> u64 {
    match submission {
        Submission::Done(Reply::Value(item)) => touched(item.value),
        Submission::Done(_) | Submission::Pending => 0,
    }
}

/// A hit, the value's first byte read as a reply would.
fn touched(value: &[u8]) -> u64 {
    black_box(value[0]);
    1
}

/// A way through `numbers`; returns how many it found, so that nothing is optimised away.
type Pass<'a> = Box<dyn FnMut(&mut Systems, &[u64]) -> u64 + 'a>;

/// A system's name and its way.
type Run<'a> = (&'static str, Pass<'a>);

/// Processor time of this thread: what others take of the core in between is not the table's.
fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs all in turn, `rounds` times, and prints each one's median in nanoseconds of processor time an operation.
fn compare(
    name: &str,
    scale: &Scale,
    systems: &mut Systems,
    range: std::ops::Range<u64>,
    found: bool,
    mut runs: Vec<Run<'_>>,
) {
    let mut times = vec![Vec::new(); runs.len()];
    let mut random = Random::new(2);
    for _ in 0..scale.rounds {
        let numbers: Vec<u64> =
            (0..scale.operations).map(|_| range.start + random.below(range.end - range.start)).collect();
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let start_ns = thread_cpu_ns();
            let hits = run.1(systems, &numbers);
            times.push((thread_cpu_ns() - start_ns) as f64 / numbers.len() as f64);
            assert_eq!(hits, if found { numbers.len() as u64 } else { 0 }, "{}: {name}", run.0);
        }
    }
    for (run, times) in runs.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("  {name:<28} {:<24} {:>8.1} ns", run.0, times[times.len() / 2]);
    }
}

fn each<'a>(workload: &'a Workload, mut one: impl FnMut(&mut Systems, &[u8]) -> u64 + 'a) -> Pass<'a> {
    let mut buffer = [0; 250];
    Box::new(move |systems, numbers| {
        numbers.iter().map(|&number| one(systems, workload.key(number, &mut buffer))).sum()
    })
}

/// Gets in batches, as a worker serves the frames of one poll.
fn batched(workload: &Workload) -> Pass<'_> {
    let mut buffers = vec![[0; 250]; BATCH];
    Box::new(move |systems, numbers| {
        let table = &mut systems.table;
        let mut hits = 0;
        for batch in numbers.chunks(BATCH) {
            let mut keys = [(KeyHash::default(), &[][..]); BATCH];
            for ((key, buffer), &number) in keys.iter_mut().zip(&mut buffers).zip(batch) {
                let bytes = workload.key(number, buffer);
                *key = (table.prepare(bytes), bytes);
            }
            for (hash, _) in &keys[..batch.len()] {
                table.prefetch_item(*hash);
            }
            for (hash, key) in &keys[..batch.len()] {
                hits += seen(table.submit_hashed(NOW, *hash, &Request::new(key, Op::Get(Get::default()))));
            }
        }
        hits
    })
}

fn gets(workload: &Workload, scale: &Scale, values: &[u8]) {
    let keys = workload.keys();
    let mut systems = Systems::new(workload, keys * (workload.mean_bytes() + 40) * 5 / 4 + (8 << 20));
    let mut buffer = [0; 250];
    for number in 0..keys {
        let (key, value) = (workload.key(number, &mut buffer), workload.value(number, values));
        set(&mut systems.table, key, value);
        systems.map.insert(key.into(), value.into());
        systems.cache.insert(key.into(), value.into());
    }
    assert_eq!(systems.table.statistics().items, keys);
    println!("{}, {keys} keys, huge pages: {}", workload.name, systems.table.huge_pages());
    for (name, range, found) in [("get, hit", 0..keys, true), ("get, miss", keys..2 * keys, false)] {
        let runs: Vec<Run<'_>> = vec![
            ("table", each(workload, |systems, key| table_get(&mut systems.table, key))),
            ("table, batches of 64", batched(workload)),
            (
                "std HashMap",
                each(workload, |systems, key| systems.map.get(key).map_or(0, |value| touched(value))),
            ),
            (
                "quick_cache",
                each(workload, |systems, key| systems.cache.get(key).map_or(0, |value| touched(value))),
            ),
        ];
        compare(name, scale, &mut systems, range, found, runs);
    }
    sets(workload, "set, overwrite", scale, &mut systems, 0..keys, values);
}

fn sets(
    workload: &Workload,
    name: &str,
    scale: &Scale,
    systems: &mut Systems,
    range: std::ops::Range<u64>,
    values: &[u8],
) {
    let value_of =
        |key: &[u8]| workload.value(u64::from_le_bytes(key[..8].try_into().expect("8 bytes")), values);
    let runs: Vec<Run<'_>> = vec![
        (
            "table",
            each(workload, move |systems, key| {
                set(&mut systems.table, key, value_of(key));
                1
            }),
        ),
        (
            "quick_cache",
            each(workload, move |systems, key| {
                systems.cache.insert(key.into(), value_of(key).into());
                1
            }),
        ),
    ];
    compare(name, scale, systems, range, true, runs);
}

fn sets_with_eviction(workload: &Workload, scale: &Scale, values: &[u8]) {
    // Room for half of the keys, and keys from twice as many: nearly every set evicts.
    let keys = workload.keys();
    let mut systems = Systems::new(workload, (keys * workload.mean_bytes() / 2).max(4 << 20));
    let mut buffer = [0; 250];
    for number in 0..keys {
        let (key, value) = (workload.key(number, &mut buffer), workload.value(number, values));
        set(&mut systems.table, key, value);
        systems.cache.insert(key.into(), value.into());
    }
    sets(workload, "set, evicting", scale, &mut systems, keys..1 << 40, values);
    longest(&mut systems.table, "set, evicting", scale, |table, random| {
        let number = keys + random.below(1 << 40);
        let mut buffer = [0; 250];
        set(table, workload.key(number, &mut buffer), workload.value(number, values));
    });
    // Everything is read again and again, so that reclaiming has to move what it finds.
    longest(&mut systems.table, "get or set, all read", scale, |table, random| {
        let number = random.below(keys);
        let mut buffer = [0; 250];
        let key = workload.key(number, &mut buffer);
        if table_get(table, key) == 0 {
            set(table, key, workload.value(number, values));
        }
    });
    let few = Scale { operations: (scale.operations / 1_000).max(10), ..scale.clone() };
    longest(&mut systems.table, "set of 1 MiB among these", &few, |table, random| {
        set(table, &random.next().to_le_bytes(), &values[..1 << 20]);
    });
}

fn longest(
    table: &mut MemoryTable,
    name: &str,
    scale: &Scale,
    mut operation: impl FnMut(&mut MemoryTable, &mut Random),
) {
    let mut random = Random::new(3);
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..scale.operations {
        let start = Instant::now();
        operation(table, &mut random);
        longest = longest.max(start.elapsed());
    }
    let took = begin.elapsed();
    println!(
        "  {name:<28} {:<24} {:>8.1} us, the machine's own gap in as long {:.1} us",
        "longest of table",
        longest.as_nanos() as f64 / 1e3,
        machine_gap(took).as_nanos() as f64 / 1e3
    );
}

/// The longest time between two readings of the clock, by a loop that does nothing else.
fn machine_gap(during: Duration) -> Duration {
    let begin = Instant::now();
    let mut last = begin;
    let mut longest = Duration::ZERO;
    while last - begin < during {
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
    }
    longest
}

fn main() {
    // `cargo bench` says so; `cargo test` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let smoke = !is_measuring || std::env::args().any(|argument| argument == "--smoke");
    let scale = if smoke {
        Scale { keys: 20_000, operations: 20_000, rounds: 3 }
    } else {
        Scale { keys: 1_000_000, operations: 500_000, rounds: 9 }
    };
    let values = vec![0xA5; ITEM_BYTES_MAX];
    for workload in [Workload::fixed(scale.keys), Workload::etc(scale.keys)] {
        gets(&workload, &scale, &values);
        sets_with_eviction(&workload, &scale, &values);
    }
}
