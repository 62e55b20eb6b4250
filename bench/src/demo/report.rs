//! What the demo found.

use std::fmt;

use dataplane::control::status::StatusReport;
use dataplane::testbed::UdpCounters;
use serde::Serialize;

use super::load::Tally;
use crate::latency::Latencies;

/// The demo's result, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Requests sent under load.
    pub requests: u64,
    /// Replies to them, each compared with what it had to be.
    pub replies: u64,
    /// Replies that were not what they had to be.
    pub wrong: u64,
    /// Requests without a reply.
    pub missing: u64,
    /// Replies a second, over all of the load.
    pub rps: f64,
    /// Median latency, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile, in microseconds.
    pub p999_us: f64,
    /// How XDP and AF_XDP run: `native, copy`.
    pub mode: String,
    /// Packets the XDP program gave to the daemon.
    pub xdp_redirected: u64,
    /// Datagrams the server namespace's UDP stack delivered.
    pub kernel_udp_in_datagrams: u64,
    /// Datagrams it had no port for.
    pub kernel_udp_no_ports: u64,
    /// UMEM frames nobody has.
    pub frames_lost: u64,
    /// Datagrams it dropped for any other reason.
    #[serde(skip)]
    kernel_udp_in_errors: u64,
    #[serde(skip)]
    by_operation: [(&'static str, u64, f64); 2],
}

impl Report {
    pub(super) fn new(sets: &Tally, gets: &Tally, status: &StatusReport, counted: &UdpCounters) -> Self {
        let mut latencies = Latencies::new();
        latencies.add(&sets.latencies);
        latencies.add(&gets.latencies);
        let replies = sets.replies + gets.replies;
        let rate = |replies: u64, seconds: f64| if seconds > 0.0 { replies as f64 / seconds } else { 0.0 };
        let seconds = (sets.elapsed + gets.elapsed).as_secs_f64();
        Self {
            requests: sets.requests + gets.requests,
            replies,
            wrong: sets.wrong + gets.wrong,
            missing: sets.missing + gets.missing,
            rps: rate(replies, seconds).round(),
            p50_us: latencies.quantile_us(0.5),
            p99_us: latencies.quantile_us(0.99),
            p999_us: latencies.quantile_us(0.999),
            mode: mode(status),
            xdp_redirected: redirected(status),
            kernel_udp_in_datagrams: counted.in_datagrams,
            kernel_udp_no_ports: counted.no_ports,
            frames_lost: frames_lost(status),
            kernel_udp_in_errors: counted.in_errors,
            by_operation: [
                ("set", sets.replies, rate(sets.replies, sets.elapsed.as_secs_f64())),
                ("get", gets.replies, rate(gets.replies, gets.elapsed.as_secs_f64())),
            ],
        }
    }

    /// What keeps the demo from having succeeded; nothing when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        for (operation, replies, _) in self.by_operation {
            require(replies > 0, format!("there was no reply to a {operation} at all"));
        }
        require(self.wrong == 0, format!("{} replies were wrong", self.wrong));
        require(self.missing == 0, format!("{} replies were missing", self.missing));
        require(
            self.replies == self.requests,
            format!("{} requests, {} replies", self.requests, self.replies),
        );
        require(
            self.xdp_redirected >= self.requests,
            format!("XDP redirected {} packets of {} requests", self.xdp_redirected, self.requests),
        );
        require(
            (self.kernel_udp_in_datagrams, self.kernel_udp_no_ports, self.kernel_udp_in_errors) == (0, 0, 0),
            format!(
                "the server's kernel UDP stack saw {} datagrams, had no port for {} and dropped {}",
                self.kernel_udp_in_datagrams, self.kernel_udp_no_ports, self.kernel_udp_in_errors
            ),
        );
        require(self.frames_lost == 0, format!("{} UMEM frames were lost", self.frames_lost));
        problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &str| writeln!(f, "  {name:<28} {value}");
        row("requests", &self.requests.to_string())?;
        for (operation, replies, rate) in &self.by_operation {
            row(&format!("  {operation}"), &format!("{replies} ({rate:.0} a second)"))?;
        }
        let verified = format!("{} (wrong = {}, missing = {})", self.replies, self.wrong, self.missing);
        row("replies, all verified", &verified)?;
        row("requests per second", &format!("{:.0}", self.rps))?;
        let latency = format!("{:.1} / {:.1} / {:.1} us", self.p50_us, self.p99_us, self.p999_us);
        row("latency p50 / p99 / p99.9", &latency)?;
        row("AF_XDP mode", &self.mode)?;
        row("packets redirected by XDP", &self.xdp_redirected.to_string())?;
        row("kernel UDP InDatagrams", &format!("+{} (server namespace)", self.kernel_udp_in_datagrams))?;
        row("kernel UDP NoPorts", &format!("+{} (server namespace)", self.kernel_udp_no_ports))?;
        write!(f, "  {:<28} {}", "UMEM frames lost", self.frames_lost)
    }
}

/// UMEM frames nobody has, over all workers.
pub(super) fn frames_lost(status: &StatusReport) -> u64 {
    status.workers.iter().map(|worker| worker.frames_lost).sum()
}

fn mode(status: &StatusReport) -> String {
    let mut modes: Vec<String> =
        status.queues.iter().map(|queue| format!("{}, {}", queue.xdp_mode, queue.copy_mode)).collect();
    modes.dedup();
    modes.join("; ")
}

/// The XDP program counts by verdict and reason; every label that starts with `redirect` went to a worker.
fn redirected(status: &StatusReport) -> u64 {
    let verdicts = status.verdicts.values().flatten();
    verdicts.filter(|(label, _)| label.starts_with("redirect")).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusReport {
        let mut status = StatusReport::default();
        let verdicts = [("redirected".to_owned(), 10), ("passed_port".to_owned(), 99)];
        status.verdicts.insert("eth1".to_owned(), verdicts.into_iter().collect());
        status
    }

    fn tally() -> Tally {
        Tally { requests: 5, replies: 5, elapsed: std::time::Duration::from_secs(1), ..Tally::default() }
    }

    #[test]
    fn a_good_run_has_no_problem_and_the_keys_that_were_promised() {
        let report = Report::new(&tally(), &tally(), &status(), &UdpCounters::default());
        assert_eq!(report.problems(), Vec::<String>::new());
        let json = serde_json::to_value(&report).expect("serialised");
        let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
        let promised = "frames_lost kernel_udp_in_datagrams kernel_udp_no_ports missing mode p50_us p999_us p99_us \
                        replies requests rps wrong xdp_redirected";
        let mut sorted: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        sorted.sort_unstable();
        assert_eq!(sorted.join(" "), promised);
    }

    #[test]
    fn each_way_to_fail_is_told() {
        let mut wrong = tally();
        wrong.wrong = 1;
        let mut missing = tally();
        missing.missing = 1;
        let seen = UdpCounters { in_datagrams: 1, ..UdpCounters::default() };
        let dropped = UdpCounters { in_errors: 1, ..UdpCounters::default() };
        let none = UdpCounters::default();
        for (sets, status, counted) in [
            (&wrong, status(), &none),
            (&missing, status(), &none),
            (&tally(), StatusReport::default(), &none),
            (&tally(), status(), &seen),
            (&tally(), status(), &dropped),
            (&Tally::default(), status(), &none),
        ] {
            let report = Report::new(sets, &tally(), &status, counted);
            assert_eq!(report.problems().len(), 1, "{report}");
        }
    }
}
