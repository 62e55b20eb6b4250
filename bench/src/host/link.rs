//! What an interface drops.

use anyhow::{Context, Result};
use dataplane::testbed::Namespace;

/// Packets an interface dropped, in both directions (proc_pid_net(5), `/proc/net/dev`).
pub(crate) fn drops(namespace: &Namespace, interface: &str) -> Result<u64> {
    let path = "/proc/thread-self/net/dev";
    let text =
        namespace.run(|| std::fs::read_to_string(path))?.with_context(|| format!("cannot read {path}"))?;
    drops_in(&text, interface).with_context(|| format!("{path} does not say what {interface} dropped"))
}

fn drops_in(text: &str, interface: &str) -> Option<u64> {
    let fields =
        text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let fields: Vec<u64> = fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // Received: bytes, packets, errs, drop, fifo, frame, compressed, multicast; sent: the same up to drop.
    Some(fields.get(3)? + fields.get(11)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_dropped_is_its_own() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop ...\n\
                    dpr1-1: 10 2 0 3 0 0 0 0 20 4 0 5 0 0 0 0\n dpr1-10: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(drops_in(text, "dpr1-1"), Some(8));
        assert_eq!(drops_in(text, "lo"), None);
    }
}
