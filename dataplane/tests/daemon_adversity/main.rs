//! What goes wrong around a daemon, with clients beside it that must not notice: a wire that loses frames, floods, clients
//! that die in the middle of a word, crowds, and nonsense. Needs root, `ip` (iproute2), redis-server, redis-tools and python3.
//!
//! | file | what it holds |
//! |---|---|
//! | `traffic.rs` | clients that check every byte and note how long each answer took |
//! | `loss.rs` | frames lost on the wire, both ways |
//! | `syn_flood.rs` | connections asked for by nobody |
//! | `killed_clients.rs`, `half_said.py` | clients that are gone in the middle of a request or an answer |
//! | `crowd.rs` | ten thousand connections |
//! | `nonsense.rs` | bytes that are no requests |

mod crowd;
#[path = "../daemon_support/mod.rs"]
mod daemon_support;
mod killed_clients;
mod loss;
mod nonsense;
mod syn_flood;
mod traffic;
