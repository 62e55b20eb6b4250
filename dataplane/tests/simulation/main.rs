//! Worker, codec and table in one thread on faulty wires, from many seeds, and at the end every frame must be
//! accounted for. A failure names its seed; the same seed replays it:
//! `SIMULATION_SEED=N cargo test -p dataplane --test simulation`.
//!
//! | file | what it holds |
//! |---|---|
//! | `model.rs` | what a request makes of an item |
//! | `rounds.rs` | what each client sees, who knows only what it asked |
//! | `record.rs` | every reply that leaves, against every request that arrives, in any order and from many at once |
//! | `streams.rs` | what each client hears over TCP, to the byte, however the wire treats it |
//! | `rules.rs` | limits, expiry, long replies and the link's MTU |
//! | `failures.rs` | links that go down, interfaces that go away, rings that cannot be trusted |

mod failures;
mod model;
mod record;
mod rounds;
mod rules;
mod seeds;
mod streams;
