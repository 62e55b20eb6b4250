//! Datagrams for services: over a port, or from the companion socket.

pub mod bypass;
pub mod companion;
