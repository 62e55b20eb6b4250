//! A load generator for TCP services: our own TCP in the client's role over a [`Port`](dataplane::port::Port), many
//! connections in one stack, and a look at every byte of every reply.
//!
//! | module | what it owns |
//! |---|---|
//! | [`dialect`] | requests and what their replies must be, in memcached's and in Redis's words |
//! | [`load`] | what is asked for, how fast, and what came of it |
//! | `clients` | the connections: what each was asked and has not answered |
//! | [`generator`] | the loop that drives all of it |

mod clients;
pub mod dialect;
pub mod generator;
pub mod load;
#[cfg(test)]
mod tests;

pub use dialect::{Dialect, Exchange, Shape, VALUE_BYTES_MAX};
pub use generator::{Generator, Link};
pub use load::{Keys, Load, Outcome, PIPELINE_MAX, Pace};
