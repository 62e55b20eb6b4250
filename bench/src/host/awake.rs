//! Keeps cores awake between requests. A core with nothing to do halts, and on a virtual machine waking it costs tens
//! of microseconds, which would hide what is compared. An operator who cares boots with `idle=poll`; this asks the
//! kernel for the same while it runs: with `/dev/cpu_dma_latency` held at 0 (Linux `Documentation/power/
//! pm_qos_interface.rst`) a cpuidle governor takes no state but polling. Nothing is preempted by it, as it would be by a
//! spinning thread even of the lowest class. How long a core halted all the same is measured and told.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// Where the kernel takes the request.
const DEVICE: &str = "/dev/cpu_dma_latency";
/// The cpuidle driver in use. Without one, the request has nobody to act on it.
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";
/// Longest time a core may take to wake, in microseconds.
const LATENCY_US_MAX: i32 = 0;
/// The state in which a core polls instead of halting.
const POLLING_STATE: &str = "POLL";

/// The request, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Awake {
    _request: Option<File>,
    told: String,
}

impl Awake {
    /// Keeps all cores awake where the kernel can.
    pub(crate) fn keep() -> Self {
        let driver = std::fs::read_to_string(DRIVER).unwrap_or_default().trim().to_owned();
        if driver.is_empty() || driver == "none" {
            return Self::not(
                "may halt: the kernel has no cpuidle driver (boot with idle=poll to keep them awake)",
            );
        }
        let request = File::create(DEVICE).and_then(|mut device| {
            device.write_all(&LATENCY_US_MAX.to_ne_bytes())?;
            Ok(device)
        });
        match request {
            Ok(request) => Self {
                _request: Some(request),
                told: format!("kept awake by {DEVICE} (cpuidle driver {driver})"),
            },
            Err(error) => Self::not(&format!("may halt: {DEVICE}: {error}")),
        }
    }

    /// Lets them halt, as they do by default.
    pub(crate) fn leave() -> Self {
        Self::not("may halt, as was asked for")
    }

    fn not(told: &str) -> Self {
        Self { _request: None, told: told.to_owned() }
    }

    /// What idle cores do, in words.
    pub(crate) fn told(&self) -> &str {
        &self.told
    }
}

/// Microseconds a core has been halted since the machine was started, by its cpuidle driver's own count (Linux
/// `Documentation/admin-guide/pm/cpuidle.rst`); `None` without one.
pub(crate) fn halted_us(core: usize) -> Option<u64> {
    let directory = PathBuf::from(format!("/sys/devices/system/cpu/cpu{core}/cpuidle"));
    let mut sum_us = None;
    for state in std::fs::read_dir(directory).ok()?.flatten() {
        let read = |file: &str| std::fs::read_to_string(state.path().join(file)).ok();
        let (name, time) = (read("name")?, read("time")?);
        let time_us: u64 = time.trim().parse().ok()?;
        let halted_us = if name.trim() == POLLING_STATE { 0 } else { time_us };
        sum_us = Some(sum_us.unwrap_or(0) + halted_us);
    }
    sum_us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_idle_cores_do_is_told_either_way() {
        assert!(Awake::leave().told().contains("halt"));
        let kept = Awake::keep();
        assert_eq!(kept._request.is_some(), kept.told().starts_with("kept awake"), "{}", kept.told());
    }
}
