//! Datagrams and streams for services: over a port, or over ordinary sockets.

pub mod bypass;
pub mod kernel;
pub mod server;
pub mod streams;
