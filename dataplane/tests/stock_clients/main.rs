//! Programs and libraries that everybody has, unchanged, against the daemon. Needs root, `ip` (iproute2), redis-tools,
//! redis-server, memcached, libmemcached-tools, python3-redis and python3-pymemcache.
//!
//! | file | what it holds |
//! |---|---|
//! | `cli.rs` | `redis-cli`, `redis-benchmark` and `memccapable` |
//! | `python.rs`, `python/` | redis-py and pymemcache, whose answers are laid beside those of the real servers |
//! | `crates.rs` | the crates `redis` and `memcache` |

mod cli;
mod crates;
#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../differential_support/mod.rs"]
mod differential_support;
mod python;
#[path = "../memcached_support/server.rs"]
#[allow(dead_code, reason = "only the server is used here, not its clients")]
mod real_memcached;
#[path = "../resp_redis/server.rs"]
#[allow(dead_code, reason = "only the server is used here, not its clients")]
mod real_redis;
