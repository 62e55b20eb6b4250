//! The memory table against a plain model: random requests, sizes and times, in arenas from ample to so tiny that
//! they wrap all the time.

#[path = "table_model/mod.rs"]
mod table_model;

use std::collections::HashMap;

use dataplane::memory::Placement;
use dataplane::request::{Arithmetic, Delete, Direction, Get, Op, Request, Store, StoreMode};
use dataplane::table::memory::{MemoryTable, MemoryTableConfig};
use dataplane::table::{Submission, Table};
use dataplane::time::{Expiry, Now};
use proptest::prelude::*;
use table_model::{Model, OwnedItem, OwnedReply};

/// One step, in numbers: proptest shrinks them, and the same numbers make the same request each time.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    mode: u8,
    key: u16,
    value_bytes: usize,
    number: Option<u64>,
    expiry_ms: Option<u32>,
    touch_ms: Option<u32>,
    cas: CasChoice,
    new_cas: Option<u64>,
    flags: u32,
    switches: [bool; 3],
    advance_ms: u32,
}

#[derive(Clone, Copy, Debug)]
enum CasChoice {
    None,
    Match,
    Lower,
    Other,
}

fn step(value_bytes_max: usize) -> impl Strategy<Value = Step> {
    let size = prop_oneof![
        4 => 0..64_usize,
        3 => 0..1_000_usize,
        1 => 0..=value_bytes_max,
        1 => value_bytes_max.saturating_sub(300)..=value_bytes_max,
    ];
    let cas = prop_oneof![
        6 => Just(CasChoice::None),
        2 => Just(CasChoice::Match),
        1 => Just(CasChoice::Lower),
        1 => Just(CasChoice::Other)
    ];
    let wide =
        prop_oneof![8 => Just(None), 1 => any::<u64>().prop_map(Some), 1 => (0..50_u64).prop_map(Some)];
    let flags = prop_oneof![3 => Just(0), 1 => any::<u32>()];
    (
        (0..26_u8, 0..9_u8, 0..400_u16, size, proptest::option::weighted(0.2, any::<u64>())),
        (proptest::option::weighted(0.3, 0..20_000_u32), proptest::option::weighted(0.3, 0..20_000_u32)),
        (cas, wide, flags, any::<[bool; 3]>()),
        prop_oneof![8 => 0..20_u32, 1 => 0..5_000_u32],
    )
        .prop_map(
            |(
                (kind, mode, key, value_bytes, number),
                (expiry_ms, touch_ms),
                (cas, new_cas, flags, switches),
                advance_ms,
            )| {
                Step {
                    kind,
                    mode,
                    key,
                    value_bytes,
                    number,
                    expiry_ms,
                    touch_ms,
                    cas,
                    new_cas,
                    flags,
                    switches,
                    advance_ms,
                }
            },
        )
}

fn key_of(number: u16) -> Vec<u8> {
    // Lengths from 1 to 250, and the one that is too long.
    let length = match number % 16 {
        0 => 250,
        1 => 1,
        2 if number == 2 => 251,
        other => 4 + usize::from(other) * 3,
    };
    let mut key = vec![b'k'; length];
    for (at, byte) in key.iter_mut().zip(number.to_string().bytes()) {
        *at = byte;
    }
    key
}

struct Rig {
    table: MemoryTable,
    model: Model,
    now: Now,
    evictions: u64,
    ample: bool,
}

impl Rig {
    fn new(capacity_bytes: u64, item_bytes_max: u32, expected_item_bytes: u32, ample: bool) -> Self {
        let config = MemoryTableConfig {
            capacity_bytes,
            item_bytes_max,
            expected_item_bytes,
            placement: Placement::default(),
        };
        Self {
            table: MemoryTable::with_hash_seed(config, 42).expect("a table"),
            model: Model::new(item_bytes_max),
            now: Now { monotonic_ns: 5_000_000_000, unix_ms: 1_700_000_000_000 },
            evictions: 0,
            ample,
        }
    }

    fn run(&mut self, step: &Step) {
        self.now.unix_ms += u64::from(step.advance_ms);
        self.now.monotonic_ns += u64::from(step.advance_ms) * 1_000_000;
        let key = key_of(step.key);
        let value = match step.number {
            Some(number) if step.switches[1] => number.cast_signed().to_string().into_bytes(),
            Some(number) => number.to_string().into_bytes(),
            None => vec![step.key as u8 ^ step.value_bytes as u8; step.value_bytes],
        };
        let expiry = |ms: Option<u32>| match ms {
            Some(ms) => Expiry::at_unix_ms(self.now.unix_ms + u64::from(ms)),
            None => Expiry::NEVER,
        };
        let touch = step.touch_ms.map(|ms| expiry(Some(ms).filter(|ms| ms % 5 != 0)));
        self.model.advance(self.now);
        let bytes_max = (step.flags % 3 == 1).then_some(step.value_bytes);
        let present = self.model.items.get(&key).map(|item| item.scanned(self.now).cas);
        let compare_cas = match step.cas {
            CasChoice::None => None,
            CasChoice::Match => present,
            CasChoice::Lower => present.map(|cas| cas.saturating_sub(1)),
            CasChoice::Other => Some(u64::from(step.flags)),
        };
        let op = match step.kind {
            0..=7 => Op::Get(Get {
                claim: !step.value_bytes.is_multiple_of(3),
                touch: touch.filter(|_| step.switches[0]),
                vivify: step.switches[1].then(|| expiry(step.expiry_ms)).filter(|_| step.mode == 0),
                recache_below_s: (step.mode < 3).then_some(step.value_bytes as u64 % 20),
                new_cas: step.new_cas,
                peek: step.switches[2],
                value_bytes_max: bytes_max,
            }),
            8..=16 => Op::Store(Store {
                mode: [
                    StoreMode::Set,
                    StoreMode::Set,
                    StoreMode::Set,
                    StoreMode::Set,
                    StoreMode::Add,
                    StoreMode::Replace,
                    StoreMode::Append,
                    StoreMode::Prepend,
                    // Near the item's end, or anywhere, or far beyond every limit.
                    StoreMode::Range {
                        offset: match step.flags % 8 {
                            7 => step.flags,
                            _ => step.flags % 1_500,
                        },
                    },
                ][usize::from(step.mode)],
                value: &value,
                flags: step.flags,
                expiry: expiry(step.expiry_ms),
                keep_expiry: step.switches[2],
                compare_cas,
                new_cas: step.new_cas,
                invalidate: step.switches[0],
                vivify: touch.filter(|_| step.switches[1]),
                old_bytes_max: bytes_max,
            }),
            24..=25 => Op::Add(step.number.unwrap_or(u64::from(step.flags)).cast_signed()),
            17..=18 => Op::Arithmetic(Arithmetic {
                direction: if step.switches[0] { Direction::Increment } else { Direction::Decrement },
                delta: step.number.unwrap_or(1),
                initial: step.switches[1].then(|| (u64::from(step.flags), expiry(step.expiry_ms))),
                touch: touch.filter(|_| step.switches[2]),
                compare_cas,
                new_cas: step.new_cas,
            }),
            19..=20 => Op::Delete(Delete {
                compare_cas,
                mark_stale: step.mode >= 4,
                drop_value: step.mode % 4 == 3,
                touch: touch.filter(|_| step.switches[2]),
                new_cas: step.new_cas,
                old_bytes_max: bytes_max,
            }),
            21..=22 => Op::Touch(expiry(step.touch_ms)),
            // Rarely, or nothing would live long.
            _ if step.mode == 0 => Op::FlushAll {
                at_unix_ms: if step.switches[0] { 0 } else { self.now.unix_ms + step.value_bytes as u64 },
            },
            _ => Op::Get(Get::default()),
        };
        let request = Request::new(&key, op);
        let expected = self.model.submit(self.now, &request);
        let Submission::Done(reply) = self.table.submit(self.now, &request) else {
            panic!("a memory table answers at once")
        };
        assert_eq!(OwnedReply::from(reply), expected, "{op:?} of {key:?}");
        if step.switches == [true; 3] {
            self.table.poll(self.now, &mut |_, _| panic!("nothing was pending"));
        }
        self.forget_evicted();
    }

    /// What the table evicted is no longer in the model either.
    fn forget_evicted(&mut self) {
        let evictions = self.table.statistics().evictions;
        if evictions != self.evictions {
            assert!(!self.ample, "a table with room for everything evicted");
            self.evictions = evictions;
            let present = self.contents();
            self.model.items.retain(|key, _| present.contains_key(key));
        }
    }

    fn contents(&self) -> HashMap<Vec<u8>, OwnedItem> {
        let mut contents = HashMap::new();
        let mut cursor = 0;
        loop {
            cursor = self.table.scan(self.now, cursor, 97, &mut |key, item| {
                assert!(contents.insert(key.to_vec(), item.into()).is_none(), "visited twice: {key:?}");
            });
            if cursor == 0 {
                return contents;
            }
        }
    }

    fn check(&mut self) {
        self.table.verify();
        self.model.advance(self.now);
        let contents = self.contents();
        assert_eq!(contents.len(), self.model.items.len());
        for (key, item) in &self.model.items {
            assert_eq!(contents.get(key), Some(&item.scanned(self.now)), "{key:?}");
        }
        assert!(self.table.statistics().items >= contents.len() as u64);
        for random in [0, 1, u64::MAX, self.model.cas_given().wrapping_mul(0x9E37_79B9_7F4A_7C15)] {
            match self.table.random_key(self.now, random) {
                Some(key) => assert!(contents.contains_key(key), "{key:?} is not there"),
                None => assert!(contents.is_empty(), "a table with keys has one"),
            }
        }
    }

    fn run_all(&mut self, steps: &[Step]) {
        for (number, step) in steps.iter().enumerate() {
            self.run(step);
            if number.is_multiple_of(32) {
                self.check();
            }
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_ample_table_is_the_model(steps in proptest::collection::vec(step(4_000), 1..600)) {
        Rig::new(8 << 20, 4_250, 256, true).run_all(&steps);
    }

    #[test]
    fn a_tiny_table_is_the_model_less_what_it_evicted(steps in proptest::collection::vec(step(1_000), 1..1_200)) {
        Rig::new(6_000, 1_250, 64, false).run_all(&steps);
    }

    #[test]
    fn a_table_with_a_tiny_index_is_the_model_less_what_it_evicted(
        steps in proptest::collection::vec(step(200), 1..1_200)
    ) {
        Rig::new(200_000, 450, 100_000, false).run_all(&steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn items_of_up_to_a_mebibyte_wrap_a_small_arena(steps in proptest::collection::vec(step(1 << 20), 1..300)) {
        Rig::new(3 << 20, (1 << 20) + 250, 4_096, false).run_all(&steps);
    }
}
