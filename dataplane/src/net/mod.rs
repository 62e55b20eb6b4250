//! Frames to datagrams and streams and back, and who may send them: parsing and checksums, reply headers, TCP,
//! allow-lists and rate limits. Pure functions and fixed tables; no port, no request.

pub mod allow;
pub mod checksum;
pub mod rate_limit;
pub mod reply;
pub mod tcp;
pub mod udp;
