//! Why ordinary sockets cannot be served.

use std::io;

/// Oldest kernel whose io_uring has all that is needed (`IORING_SETUP_DEFER_TASKRUN`).
pub const KERNEL_MIN: &str = "6.1";

/// Why there is no kernel transport.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel, its settings or a container's seccomp filter keep io_uring from this process.
    #[error(
        "io_uring is not to be had: {0}; sysctl kernel.io_uring_disabled must be 0 (or 1 with CAP_SYS_ADMIN), and a \
         container's seccomp profile must allow io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Refused(io::Error),
    /// The kernel does not know what is asked of it.
    #[error(
        "this kernel's io_uring is too old: {0}; serving ordinary sockets takes Linux {KERNEL_MIN} or newer"
    )]
    TooOld(io::Error),
    /// The kernel refused otherwise: for want of memory or descriptors.
    #[error("{what}: {source}")]
    System {
        /// What it was to do.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

impl KernelError {
    /// Names what failed.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// Why `io_uring_setup` failed.
    pub(super) fn setup(source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Self::Refused(source),
            Some(libc::EINVAL) => Self::TooOld(source),
            _ => Self::System { what: "setting up io_uring", source },
        }
    }
}
