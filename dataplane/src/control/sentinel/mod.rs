//! The sentinel: a tiny child process that answers for workers that stand still.
//!
//! A daemon that is stopped (SIGSTOP, a debugger, a frozen cgroup) can answer nothing, and neither can a worker that hangs,
//! yet their clients must hear "temporarily unavailable" soon. The sentinel has the companion sockets and the heartbeat map.
//! It looks at the heartbeats ten times a second, and reads a worker's sockets only while that worker is stale; the
//! allow-list holds here too, and a cap keeps it from being of use as a reflector.
//!
//! It never outlives the daemon, else it would keep the port. Two things see to that, as each alone has a gap:
//! - its standard input is a pipe that only the daemon has the other end of; the kernel closes that end when the
//!   daemon dies, whatever of, and the sentinel's poll returns at once;
//! - `PR_SET_PDEATHSIG` kills it even when it is not polling. That one is tied to the *thread* that started it
//!   (prctl(2)), and set only once it runs, so it then looks whether its parent is still the daemon.
//!
//! | file | what it holds |
//! |---|---|
//! | `spec` | what the daemon tells the sentinel |
//! | `parent` | [`Sentinel`]: the daemon's side |
//! | `child` | [`run`]: the sentinel's side |

mod child;
mod parent;
mod spec;

pub use child::{SentinelError, ServiceResult, run};
pub use parent::{Sentinel, SentinelProgram, SentinelSetup};
