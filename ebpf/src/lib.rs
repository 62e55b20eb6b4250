//! What the XDP program and user space share. No dependencies, no allocation, no standard library: the same source
//! is compiled into the program that the kernel runs and into the daemon.
//!
//! | module | what it owns |
//! |---|---|
//! | [`packet`] | the parser: Ethernet to UDP or TCP, over any bounds-checked [`packet::Reader`] |
//! | [`address`] | one form for both families: IPv6, with IPv4 in its mapped range |
//! | [`flow`] | the five-tuple |
//! | [`verdict`] | what became of a packet and why: one counter each |
//! | [`layout`] | name, key, value and size of every map, and the version of it all |
#![no_std]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod flow;
pub mod layout;
pub mod packet;
pub mod verdict;
