//! Any segments, times and failures thrown at live TCP flows: no promise is broken, and in the end nothing is held.
#![no_main]

use dataplane::net::tcp::hostile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hostile::run(input));
