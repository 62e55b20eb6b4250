//! Datagrams and streams for services: over a port, or from the companion socket.

pub mod bypass;
pub mod companion;
pub mod streams;
