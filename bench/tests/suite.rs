//! `bench` as a user runs it: real namespaces, real AF_XDP, real memcached, and nothing left behind.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use dataplane::testbed::{ChildGuard, TemporaryDirectory, daemon, wait_until};
use rustix::process::{Pid, Signal};

/// A short comparison of what needs no daemon.
fn udp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["udp", "--json", "--without", "dataplane"]);
    command
}

/// The same over TCP, with this daemon past the kernel alone.
fn tcp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["tcp", "--quick", "--capacity", "64MiB"]);
    command.args(["kernel", "memcached", "redis", "valkey"].map(|system| ["--without", system]).concat());
    command
}

/// What a terminal does: the whole process group gets the signal, a child that is just running `ip` as well.
fn press_ctrl_c(pid: u32) {
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    rustix::process::kill_process_group(group, Signal::INT).expect("it runs");
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
    assert_eq!(stdout.lines().count(), 1, "nothing else on standard output: {stdout}");
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2 * 2 * 3, "systems, operations, requests under way");
    for row in rows {
        for key in ["rps", "rps_per_cpu_s", "p50_us", "p99_us", "p999_us", "outstanding"] {
            assert!(row[key].as_f64().is_some_and(|figure| figure > 0.0), "{key} in {row}");
        }
        assert_eq!(row["wrong"], 0, "{row}");
        let place = &row["where"];
        let shares = ["napi", "server_user", "server_system", "other", "idle"];
        let sum: f64 = shares.iter().map(|share| place[share].as_f64().expect("a share")).sum();
        // Clocks of threads move on in ticks, which in a quick run's slots are a few percent.
        assert!((0.8..1.2).contains(&sum), "{row}");
    }
    let without_spin = report["rows_without_spin"].as_array().expect("rows");
    assert_eq!(without_spin.len(), 2, "GET of both systems");
    assert!(without_spin.iter().all(|row| row["spin_us"] == 0 && row["outstanding"] == 1));
    for key in ["get_over_reflect", "get_over_memcached", "p50_over_memcached"] {
        assert!(report["ratios"].get(key).is_some(), "{key}");
    }
}

#[test]
fn the_comparison_over_tcp_checks_every_reply_of_both_protocols() {
    daemon::find_binary().expect("built with the workspace");
    let output = tcp().arg("--json").output().expect("started");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stdout.lines().count(), 1, "nothing else on standard output: {stdout}");
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    for protocol in ["memcached", "resp"] {
        for (stage, count) in [("unloaded", 4), ("saturating", 15), ("redis-benchmark", 8)] {
            if (protocol, stage) == ("memcached", "redis-benchmark") {
                continue;
            }
            let of_stage =
                rows.iter().filter(|row| row["protocol"] == protocol && row["stage"] == stage).count();
            assert_eq!(of_stage, count, "{protocol}, {stage}");
        }
    }
    for row in rows {
        for key in ["rps", "rps_per_cpu_s", "p50_us", "p99_us", "replies"] {
            assert!(row[key].as_f64().is_some_and(|figure| figure > 0.0), "{key} in {row}");
        }
        assert_eq!(row["missing"], 0, "{row}");
    }
    let cost = report["ratios"]["cost_10k_over_100"].as_f64();
    assert!(cost.is_some_and(|cost| cost > 0.0), "{cost:?}");
    for key in ["per_cpu_over_best_peer", "p999_over_best_peer", "kernel_over_best_peer"] {
        let ratio = report["ratios"].get(key);
        assert!(ratio.is_some_and(serde_json::Value::is_null), "there is no peer: {key} = {ratio:?}");
    }
}

#[test]
fn a_system_is_held_under_load_to_be_looked_at() {
    daemon::find_binary().expect("built with the workspace");
    let output = tcp().args(["--hold", "0.3"]).output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("perf record -C") && stderr.contains("requests a second"), "{stderr}");
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
    press_ctrl_c(pid);
    let status = bench.wait_for_end(Duration::from_secs(10)).expect("it ends by itself");
    assert_eq!(status.code(), Some(1), "{}", bench.output());
    // By itself, not because an `ip` was killed under it.
    assert!(bench.output().contains("interrupted"), "{}", bench.output());
    assert_eq!(namespaces_of(pid), Vec::<String>::new());
}

#[test]
fn ctrl_c_under_load_leaves_nothing_of_the_demo_behind() {
    daemon::find_binary().expect("built with the workspace");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["demo", "--seconds", "600"]);
    let mut demo = ChildGuard::spawn("bench demo", &mut command).expect("started");
    let pid = demo.pid();
    wait_until("the load", Duration::from_secs(60), || Ok(demo.output().contains("  load: ").then_some(())))
        .unwrap_or_else(|error| panic!("{error}: {}", demo.output()));
    let namespaces = namespaces_of(pid);
    assert_eq!(namespaces.len(), 2, "{namespaces:?}");
    let numbers: Vec<u64> = namespaces
        .iter()
        .map(|name| std::fs::metadata(format!("/run/netns/{name}")).expect("it is there").ino())
        .collect();
    assert!(!processes_in(&numbers).is_empty(), "the daemon runs in one of them");

    press_ctrl_c(pid);
    let status = demo.wait_for_end(Duration::from_secs(20)).expect("it ends by itself");
    assert_eq!(status.code(), Some(1), "{}", demo.output());
    assert!(demo.output().contains("interrupted"), "{}", demo.output());
    assert_eq!(namespaces_of(pid), Vec::<String>::new());
    assert_eq!(processes_in(&numbers), Vec::<PathBuf>::new());
    let pins = std::fs::read_dir("/sys/fs/bpf/dataplane").into_iter().flatten().flatten();
    let ours = format!("dpr{pid}-");
    let left =
        pins.map(|pin| pin.file_name().to_string_lossy().into_owned()).find(|pin| pin.starts_with(&ours));
    assert_eq!(left, None, "a pin");
}

/// Processes in network namespaces, by these namespaces' numbers.
fn processes_in(namespaces: &[u64]) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").expect("procfs").flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            // `net:[NUMBER]`; what has just ended has none.
            let namespace = std::fs::read_link(process.join("ns/net")).unwrap_or_default();
            namespaces.iter().any(|number| namespace.to_string_lossy() == format!("net:[{number}]"))
        })
        .collect()
}

#[test]
fn without_root_it_says_so_and_how_to_get_it() {
    // Nobody may read the build's folder, perhaps.
    let directory = TemporaryDirectory::create().expect("a directory");
    let program = directory.path().join("bench");
    std::fs::copy(env!("CARGO_BIN_EXE_bench"), &program).expect("copied");
    for arguments in [&["demo"][..], &["udp", "--quick"], &["tcp", "--quick"]] {
        let output =
            Command::new(&program).args(arguments).uid(65_534).gid(65_534).output().expect("started");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("missing: root"), "{stderr}");
        assert!(stderr.contains("sudo -E env \"PATH=$PATH\""), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let nothing = ["reflect", "dataplane", "memcached"].map(|system| ["--without", system]).concat();
    let nothing: Vec<&str> = std::iter::once("udp").chain(nothing).collect();
    let of_tcp =
        ["bypass", "kernel", "memcached", "redis", "valkey"].map(|system| ["--without", system]).concat();
    let of_tcp: Vec<&str> = std::iter::once("tcp").chain(of_tcp).collect();
    let wrong =
        [&["udp", "--passes", "0"][..], &["tcp", "--hold", "0"], &["demo", "--seconds", "-1"], &["nonsense"]];
    for arguments in wrong.into_iter().chain([&nothing[..], &of_tcp]) {
        let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().expect("started");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
