//! Who runs an interface's NAPI. On veth the sender's CPU runs the receiver's unless told otherwise.

use anyhow::Result;
use dataplane::testbed::{Namespace, napi};

/// Who runs the server's NAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NapiBy {
    /// A thread on the server's core, so that this core is what saturates.
    Thread,
    /// The generator's core, within its sending system call: for one request at a time, where a thread would only add its
    /// own wake-up to every system's latency.
    Sender,
}

impl NapiBy {
    /// Arranges it, and returns the threads that run the NAPI now: none where the sender does. To be said anew for
    /// each system: an XDP program that came or went has changed the NAPI.
    pub(crate) fn arrange(self, namespace: &Namespace, interface: &str, core: usize) -> Result<Vec<u32>> {
        Ok(match self {
            Self::Thread => napi::pin_threads(namespace, interface, core)?,
            Self::Sender => {
                napi::leave_to_sender(namespace, interface)?;
                Vec::new()
            }
        })
    }
}
