//! Open files: each connection over an ordinary socket is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files left to the rest of the process: sockets, maps, the admin API, the sentinel's pipe.
const RESERVE: u64 = 256;

/// Raises this process's limit of open files as far as it may, and returns how many ordinary connections each of so many
/// workers may have: as many as were asked for, or else what the limit allows, which is told in the log.
pub(super) fn connections_max(wanted: u32, workers: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let connections = within(wanted, workers, allowed);
    if connections < wanted as usize {
        tracing::warn!(
            wanted,
            connections,
            "this process may not open files enough for tcp.connections over ordinary sockets: raise its limit \
             (LimitNOFILE= in the unit, ulimit -n)"
        );
    }
    connections
}

/// Connections a worker may have; `None` is no limit.
fn within(wanted: u32, workers: usize, allowed: Option<u64>) -> usize {
    let each = allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(RESERVE) / workers.max(1) as u64);
    u64::from(wanted).min(each.max(1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        assert_eq!(within(16_384, 4, None), 16_384);
        assert_eq!(within(16_384, 2, Some(1 << 20)), 16_384);
        assert_eq!(within(16_384, 2, Some(1_256)), 500);
        assert_eq!(within(16_384, 1, Some(64)), 1, "it starts, at least");
    }
}
