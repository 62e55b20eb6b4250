//! Ctrl-C and SIGTERM as a flag, so that a program leaves by its guards and nothing stays behind.

use std::sync::atomic::{AtomicBool, Ordering};

static CAUGHT: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP set a flag; a second one ends the process at once.
pub fn catch() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero `sigaction` is a valid value of the plain C struct: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note as *const () as libc::sighandler_t;
        // SAFETY: `action` is initialised, its handler has the signature that a handler without SA_SIGINFO
        // needs and is async-signal-safe; the old action is not asked for.
        let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        assert_eq!(result, 0, "signal {signal} can be caught");
    }
}

/// True once a signal came.
#[must_use]
pub fn caught() -> bool {
    CAUGHT.load(Ordering::Relaxed)
}

extern "C" fn note(_signal: libc::c_int) {
    if CAUGHT.swap(true, Ordering::Relaxed) {
        // SAFETY: `_exit` is async-signal-safe and does not return.
        unsafe { libc::_exit(130) }
    }
}
