//! `bench` as a user runs it: real namespaces, real AF_XDP, real memcached, and nothing left behind.

use std::process::Command;
use std::time::Duration;

use dataplane::testbed::ChildGuard;
use rustix::process::Signal;

/// A short comparison of what needs no daemon.
fn udp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["udp", "--json", "--without", "dataplane"]);
    command
}

/// Namespaces that a process made and that are still there.
fn namespaces_of(pid: u32) -> Vec<String> {
    let prefix = format!("dp-{pid}-");
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

#[test]
fn the_comparison_runs_and_says_what_it_promised() {
    let output = udp().arg("--quick").output().expect("started");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value =
        serde_json::from_str(stdout.lines().last().expect("a last line")).expect("which is JSON");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2 * 2 * 3, "systems, operations, requests under way");
    for row in rows {
        for key in ["rps", "rps_per_cpu_s", "p50_us", "p99_us", "p999_us", "outstanding"] {
            assert!(row[key].as_f64().is_some_and(|figure| figure > 0.0), "{key} in {row}");
        }
        assert_eq!(row["wrong"], 0, "{row}");
    }
    for key in ["get_over_reflect", "get_over_memcached", "p50_over_memcached"] {
        assert!(report["ratios"].get(key).is_some(), "{key}");
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let mut bench = ChildGuard::spawn("bench", &mut udp()).expect("started");
    let pid = bench.pid();
    bench
        .wait_for("both namespaces", Duration::from_secs(10), || {
            Ok((namespaces_of(pid).len() == 2).then_some(()))
        })
        .expect("made");
    bench.signal(Signal::INT).expect("it runs");
    let status = bench.wait_for_end(Duration::from_secs(10)).expect("it ends by itself");
    assert_eq!(status.code(), Some(1), "{}", bench.output());
    assert_eq!(namespaces_of(pid), Vec::<String>::new());
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["udp", "--passes", "0"][..], &["demo", "--seconds", "-1"], &["nonsense"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().expect("started");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
