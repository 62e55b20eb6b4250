//! The perf rig: clients, load generators, peers and reports.
//!
//! | module | what it owns |
//! |---|---|
//! | [`client`] | a small memcached client over UDP |
//! | [`functional`] | what any memcached has to do right |
//! | [`workload`] | keys, values and what a reply to them must be |
//! | [`latency`] | latencies and the figures made of them |
//! | [`generator`] | a closed loop over a port, and the raw reflector |
//! | [`streams`] | a closed or open loop of TCP connections over a port |
//! | [`hiccup`] | the machine's own gaps |
//! | [`host`] | the machine: its clocks, its settings, what it is |
//! | [`verdict`] | bounds, and whether they are kept |
//! | [`udp`] | `bench udp`: raw reflection, this daemon and memcached compared |
//! | [`tcp`] | `bench tcp`: this daemon, memcached, Redis and Valkey compared |
//! | [`demo`] | `bench demo`: the whole way shown on one machine |

pub mod client;
pub mod demo;
pub mod functional;
pub mod generator;
pub mod hiccup;
pub mod host;
pub mod latency;
pub mod streams;
pub mod tcp;
pub mod udp;
pub mod verdict;
pub mod workload;
