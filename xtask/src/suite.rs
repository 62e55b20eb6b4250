//! `test` and `lint`: every check there is, in the order in which they are quick to fail.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{Programs, cargo, release_build, root, target_directory};
use crate::licences;
use crate::packages::find_program;
use crate::setup;
use crate::steps::{Step, Steps};

/// The object built from source, which the verdict tests run on too.
const OBJECT_VARIABLE: &str = "DATAPLANE_EBPF_OBJECT";
/// Where `build-ebpf` leaves it.
const BUILT_OBJECT: &str = "target/ebpf/steer.bpf.o";

/// A check: what it is called and what it does.
type Check = (&'static str, fn(&mut Step<'_>, &Budget) -> Result<()>);

/// What the checks are told.
struct Budget {
    quick: bool,
}

const CHECKS: &[Check] = &[
    ("format: rustfmt", |step, _| format(step)),
    ("clippy: all targets, warnings are errors", |step, _| clippy(step)),
    ("tests: workspace, privileged ones included", |step, _| tests(step)),
    ("doctests: examples in the documentation", |step, _| doctests(step)),
    ("licences: every dependency's, against deny.toml", |_, _| licences()),
    ("docs: rustdoc, warnings are errors", |step, _| docs(step)),
    ("ebpf: XDP program from source, and its verdicts", |step, _| ebpf(step)),
    ("fuzz: every target", |step, budget| fuzz(step, budget.quick)),
    ("table: memory table's benchmark, smoke", |step, _| table(step)),
    ("bench: udp, smoke", |step, _| bench(step)),
    ("bench-tcp: smoke", |step, _| bench_tcp(step)),
    ("demo: 3 seconds", |step, _| demo(step)),
];

/// Runs the checks whose names start with one of `only`, or all.
pub(crate) fn test(quick: bool, only: &[String]) -> Result<()> {
    let chosen: Vec<&Check> = CHECKS
        .iter()
        .filter(|(name, _)| only.is_empty() || only.iter().any(|word| name.split(':').next() == Some(word)))
        .collect();
    ensure!(!chosen.is_empty(), "no step is called {only:?}; there are: {}", names().join(", "));
    setup::require_root("the privileged tests")?;
    setup::run(setup::Profile::Test)?;
    let budget = Budget { quick };
    let mut steps = Steps::new(chosen.len());
    for (name, check) in chosen {
        steps.run(name, |step| check(step, &budget))?;
    }
    steps.finish();
    Ok(())
}

/// Formatting, clippy, licences and advisories.
pub(crate) fn lint() -> Result<()> {
    setup::run(setup::Profile::Build)?;
    let deny = find_program("cargo-deny");
    let mut steps = Steps::new(3 + usize::from(deny));
    steps.run("format", format)?;
    steps.run("clippy", clippy)?;
    steps.run("licences and sources", |_| licences())?;
    if deny {
        let check = |step: &mut Step<'_>| step.command(cargo().args(["deny", "check"])).map(|_| ());
        steps.run("advisories, bans (cargo-deny)", check)?;
    } else {
        eprintln!("not looked at: advisories; `cargo install --locked cargo-deny`, then run this again");
    }
    steps.finish();
    Ok(())
}

fn names() -> Vec<&'static str> {
    CHECKS.iter().filter_map(|(name, _)| name.split(':').next()).collect()
}

fn format(step: &mut Step<'_>) -> Result<()> {
    step.command(cargo().args(["fmt", "--all", "--check"])).map(|_| ())
}

fn clippy(step: &mut Step<'_>) -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    step.command(cargo().args(arguments)).map(|_| ())
}

fn tests(step: &mut Step<'_>) -> Result<()> {
    let mut command = cargo();
    if find_program("cargo-nextest") {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        // What failed comes last, where it is not cut off, and what passed does not fill the log.
        command.args(["--status-level", "fail", "--final-status-level", "fail", "--failure-output", "final"]);
    } else {
        command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"]);
    }
    step.command(&mut command).map(|_| ())
}

fn doctests(step: &mut Step<'_>) -> Result<()> {
    step.command(cargo().args(["test", "--workspace", "--doc"])).map(|_| ())
}

/// Licences and sources as cargo-deny would look at them, without cargo-deny, whose build takes minutes.
fn licences() -> Result<()> {
    let metadata = licences::metadata_command(&mut cargo()).output().context("cannot run cargo metadata")?;
    ensure!(
        metadata.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&metadata.stderr).trim()
    );
    let policy = root().join("deny.toml");
    let policy =
        std::fs::read_to_string(&policy).with_context(|| format!("cannot read {}", policy.display()))?;
    licences::check(&metadata.stdout, &policy)
}

fn docs(step: &mut Step<'_>) -> Result<()> {
    let mut command = cargo();
    command.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    step.command(&mut command).map(|_| ())
}

/// Builds the XDP program, compares it with the one in git, and runs the verdict tests on what was built.
fn ebpf(step: &mut Step<'_>) -> Result<()> {
    let xtask = std::env::current_exe().context("cannot find the running program")?;
    step.command(Command::new(xtask).args(["build-ebpf", "--check"]))?;
    let object = root().join(BUILT_OBJECT);
    ensure!(object.is_file(), "build-ebpf --check left no object at {}", object.display());
    let mut command = cargo();
    command.args(["test", "--package", "dataplane", "--test", "steer_verdicts"]).env(OBJECT_VARIABLE, object);
    let before = step.tests();
    step.command(&mut command)?;
    ensure!(step.tests() > before, "no verdict test ran on the rebuilt object");
    Ok(())
}

fn fuzz(step: &mut Step<'_>, quick: bool) -> Result<()> {
    let package = root().join("dataplane");
    ensure!(package.join("fuzz/Cargo.toml").is_file(), "dataplane/fuzz has no fuzz targets");
    let target = target_directory()?.join("fuzz");
    let listed = step.command(fuzz_command(&package).arg("list"))?;
    let targets: Vec<&str> = listed.stdout.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if targets.is_empty() {
        bail!("dataplane/fuzz has no fuzz targets");
    }
    let seconds = if quick { 5 } else { 20 };
    for name in targets {
        // What is found goes to the target directory; seeds that are kept are read from the package.
        let found = target.join("corpus").join(name);
        std::fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let seeds = package.join("fuzz/seeds").join(name);
        let mut command = fuzz_command(&package);
        command.arg("run").arg("--target-dir").arg(&target).arg(name).arg(&found);
        if seeds.is_dir() {
            command.arg(&seeds);
        }
        command.args(["--", &format!("-max_total_time={seconds}"), "-rss_limit_mb=4096"]);
        // One dictionary a protocol: the first word of the target's name.
        let protocol = name.split('_').next().unwrap_or(name);
        let dictionary = package.join("fuzz/dictionaries").join(protocol).with_extension("dict");
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        step.command(&mut command)?;
    }
    Ok(())
}

/// libFuzzer's instrumentation is a nightly option; where nightly is not installed, the pinned compiler is told to
/// accept it.
fn fuzz_command(package: &Path) -> Command {
    let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "--version"]).output();
    let mut command = Command::new("cargo");
    command.current_dir(package);
    // Set by the cargo that runs this command, these would choose its toolchain again.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(variable);
    }
    if nightly.is_ok_and(|output| output.status.success()) {
        command.arg("+nightly");
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command.arg("fuzz");
    command
}

/// In the profile of the tests, for which everything is built already: that it works is the question, not how fast.
fn table(step: &mut Step<'_>) -> Result<()> {
    let arguments =
        ["test", "--package", "dataplane", "--bench", "table", "--bench", "streams", "--", "--smoke"];
    let output = step.command(cargo().args(arguments))?;
    ensure!(output.stdout.lines().any(|line| !line.trim().is_empty()), "the benchmark printed no figure");
    Ok(())
}

/// Three systems, two operations, three numbers of requests under way.
const BENCH_ROWS: usize = 3 * 2 * 3;

fn bench(step: &mut Step<'_>) -> Result<()> {
    let programs = release(step)?;
    let output = step.command(programs.command("bench").args(["udp", "--quick", "--json"]))?;
    check_bench(&last_line_json(&output.stdout)?)
}

fn check_bench(report: &serde_json::Value) -> Result<()> {
    let rows = report["rows"].as_array().context("bench udp --json has no `rows`")?;
    ensure!(rows.len() >= BENCH_ROWS, "bench udp has {} rows of {BENCH_ROWS}", rows.len());
    for row in rows {
        for key in ["outstanding", "rps", "rps_per_cpu_s", "p50_us", "p99_us", "p999_us"] {
            ensure!(row[key].as_f64().is_some_and(|figure| figure > 0.0), "bench udp: no {key} in {row}");
        }
    }
    for key in ["get_over_reflect", "get_over_memcached", "p50_over_memcached"] {
        let ratio = report["ratios"][key].as_f64();
        ensure!(ratio.is_some_and(|ratio| ratio > 0.0), "bench udp says {key} = {ratio:?}");
    }
    Ok(())
}

fn bench_tcp(step: &mut Step<'_>) -> Result<()> {
    let programs = release(step)?;
    let output = step.command(programs.command("bench").args(["tcp", "--quick", "--json"]))?;
    check_bench_tcp(&last_line_json(&output.stdout)?)
}

/// Rows of a quick run for each protocol of a system, by stage; `redis-benchmark` asks whoever speaks Redis's.
const BENCH_TCP_ROWS: [(&str, usize); 4] =
    [("unloaded", 4), ("saturating", 15), ("equal load", 1), ("redis-benchmark", 8)];
/// Systems that must be there, and what they speak. Others are measured where they can be.
const BENCH_TCP_SYSTEMS: [(&str, &str); 6] = [
    ("bypass", "memcached"),
    ("bypass", "resp"),
    ("kernel", "memcached"),
    ("kernel", "resp"),
    ("memcached", "memcached"),
    ("redis", "resp"),
];
const BENCH_TCP_RATIOS: [&str; 4] =
    ["per_cpu_over_best_peer", "p999_over_best_peer", "kernel_over_best_peer", "cost_10k_over_100"];

fn check_bench_tcp(report: &serde_json::Value) -> Result<()> {
    let rows = report["rows"].as_array().context("bench tcp --json has no `rows`")?;
    for (system, protocol) in BENCH_TCP_SYSTEMS {
        for (stage, wanted) in BENCH_TCP_ROWS {
            if stage == "redis-benchmark" && protocol != "resp" {
                continue;
            }
            let of_stage = |row: &&serde_json::Value| {
                (&row["system"], &row["protocol"], &row["stage"])
                    == (&system.into(), &protocol.into(), &stage.into())
            };
            let found = rows.iter().filter(of_stage).count();
            ensure!(
                found == wanted,
                "bench tcp has {found} rows of {wanted} for {system} {protocol}, {stage}"
            );
        }
    }
    for row in rows {
        let mut keys = vec!["connections", "pipeline", "rps", "rps_per_cpu_s", "p50_us", "p99_us", "replies"];
        if row["stage"] != "redis-benchmark" {
            keys.push("p999_us");
        }
        for key in keys {
            ensure!(row[key].as_f64().is_some_and(|figure| figure > 0.0), "bench tcp: no {key} in {row}");
        }
        ensure!(row["missing"] == 0, "bench tcp: replies are missing in {row}");
    }
    for key in BENCH_TCP_RATIOS {
        let ratio = report["ratios"][key].as_f64();
        ensure!(ratio.is_some_and(|ratio| ratio > 0.0), "bench tcp says {key} = {ratio:?}");
    }
    Ok(())
}

fn demo(step: &mut Step<'_>) -> Result<()> {
    let programs = release(step)?;
    let output = step.command(programs.command("bench").args(["demo", "--seconds", "3", "--json"]))?;
    let report = last_line_json(&output.stdout)?;
    for key in ["wrong", "missing", "frames_lost", "kernel_udp_in_datagrams", "kernel_udp_no_ports"] {
        ensure!(report[key] == 0, "the demo says {key} = {}", report[key]);
    }
    ensure!(report["replies"].as_u64().is_some_and(|replies| replies > 0), "the demo had no replies");
    Ok(())
}

/// The release programs, built as part of the step so that a failure shows what the compiler said.
fn release(step: &mut Step<'_>) -> Result<Programs> {
    step.command(&mut release_build())?;
    Programs::find()
}

/// The last line of standard output, which is to be one JSON object.
fn last_line_json(stdout: &str) -> Result<serde_json::Value> {
    let line = stdout.lines().last().context("nothing on standard output")?;
    let value: serde_json::Value =
        serde_json::from_str(line).with_context(|| format!("the last line is no JSON: {line}"))?;
    ensure!(value.is_object(), "the last line is no JSON object: {line}");
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_has_to_be_the_very_last_line() {
        assert_eq!(last_line_json("noise\n{\"a\": 1}\n").expect("it is")["a"], 1);
        for stdout in ["", "{\"a\": 1}\ndone\n", "[1]\n", "1\n"] {
            last_line_json(stdout).expect_err(stdout);
        }
    }

    #[test]
    fn a_tcp_benchmark_without_a_row_or_a_reply_does_not_pass() {
        let mut rows = Vec::new();
        for (system, protocol) in BENCH_TCP_SYSTEMS {
            for (stage, count) in BENCH_TCP_ROWS {
                if stage == "redis-benchmark" && protocol != "resp" {
                    continue;
                }
                let row = json!({
                    "system": system, "protocol": protocol, "stage": stage, "connections": 1, "pipeline": 1,
                    "rps": 1.0, "rps_per_cpu_s": 1.0, "p50_us": 1.0, "p99_us": 1.0, "p999_us": 1.0, "replies": 1,
                    "missing": 0
                });
                rows.extend(std::iter::repeat_n(row, count));
            }
        }
        let ratios: serde_json::Map<_, _> =
            BENCH_TCP_RATIOS.iter().map(|key| ((*key).to_owned(), json!(1.0))).collect();
        let good = json!({ "rows": rows, "ratios": ratios });
        check_bench_tcp(&good).expect("all is there");
        let changed = |pointer: &str, value: serde_json::Value| {
            let mut report = good.clone();
            *report.pointer_mut(pointer).expect("it is there") = value;
            report
        };
        check_bench_tcp(&changed("/rows", json!(rows[1..]))).expect_err("a row too few");
        check_bench_tcp(&changed("/rows/3/rps", json!(null))).expect_err("no figure");
        check_bench_tcp(&changed("/rows/3/missing", json!(1))).expect_err("a reply is missing");
        check_bench_tcp(&changed("/ratios/cost_10k_over_100", json!(null))).expect_err("no ratio");
    }

    #[test]
    fn a_benchmark_without_figures_does_not_pass() {
        let row = json!({
            "outstanding": 1, "rps": 1.0, "rps_per_cpu_s": 1.0, "p50_us": 1.0, "p99_us": 1.0, "p999_us": 1.0
        });
        let good = json!({
            "rows": vec![row.clone(); BENCH_ROWS],
            "ratios": { "get_over_reflect": 0.8, "get_over_memcached": 3.0, "p50_over_memcached": 0.5 }
        });
        check_bench(&good).expect("all is there");
        let changed = |pointer: &str, value: serde_json::Value| {
            let mut report = good.clone();
            *report.pointer_mut(pointer).expect("it is there") = value;
            report
        };
        check_bench(&changed("/rows", json!(vec![row; BENCH_ROWS - 1]))).expect_err("a row too few");
        check_bench(&changed("/rows/3/rps", json!(null))).expect_err("no figure");
        check_bench(&changed("/ratios/get_over_reflect", json!(null))).expect_err("no ratio");
    }
}
