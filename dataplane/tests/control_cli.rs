//! The commands as a user runs them: what they print where, and their exit codes.

use std::path::Path;
use std::process::{Command, Output};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dataplane.example.toml");

fn dataplane(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dataplane")).args(arguments).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("dataplane.toml");
    std::fs::write(&path, text).expect("a file");
    path.to_string_lossy().into_owned()
}

/// On loopback, which every host has and which no test of this file attaches anything to.
const ON_LOOPBACK: &str = "interface = [{ name = \"lo\" }]\nlistener = [{ service = \"memcached\", port = 21399 }]\ndaemon = { admin = \"127.0.0.1:0\" }\n";

#[test]
fn check_accepts_the_example_and_reports_every_error_of_another() {
    let output = dataplane(&["check", "--config", EXAMPLE]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("memcached on UDP port 11211 at eth1"));

    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(directory.path(), "[daemon]\nadmin = 1\n[[listener]]\nservice = \"s\"\nport = 0\n");
    let output = dataplane(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let errors = stderr(&output);
    for key in ["daemon.admin", "interface", "listener[0].port", "listener[0].service", "4 errors in"] {
        assert!(errors.contains(key), "{key} in\n{errors}");
    }
    let output = dataplane(&["doctor", "--config", &path]);
    assert!(
        stderr(&output).contains("no service \"s\""),
        "doctor knows the services too: {}",
        stderr(&output)
    );
}

#[test]
fn check_tells_json_with_the_same_exit_codes() {
    let output = dataplane(&["check", "--config", EXAMPLE, "--json"]);
    let verdict: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
    assert!(output.status.success());
    assert_eq!(verdict, serde_json::json!({ "file": EXAMPLE, "valid": true, "errors": [] }));

    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(directory.path(), "interface = []\n[[listener]]\nservice = \"memcached\"\nport = 0\n");
    let output = dataplane(&["check", "--config", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let verdict: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
    assert_eq!(verdict["valid"], false);
    let errors = verdict["errors"].as_array().expect("a list");
    let places: Vec<_> = errors.iter().map(|error| (&error["line"], &error["key"])).collect();
    assert_eq!(places, [(&1.into(), &"interface".into()), (&4.into(), &"listener[0].port".into())]);
}

#[test]
fn a_log_filter_in_the_environment_is_checked_too() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(directory.path(), &ON_LOOPBACK.replace("\"lo\"", "\"no-such-nic\""));
    for (filter, part) in
        [("warning", "RUST_LOG: \"warning\" is no level; did you mean warn?"), ("", "no-such-nic")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dataplane"));
        let output =
            command.args(["run", "--config", &path]).env("RUST_LOG", filter).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn plan_prints_before_anything_runs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(directory.path(), ON_LOOPBACK);
    let output = dataplane(&["plan", "--config", &path]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("lo:0") && stdout(&output).contains("control plane on"));
    let json = stdout(&dataplane(&["plan", "--config", &path, "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!(json["workers"][0]["queues"][0]["interface"], "lo");

    let path = file(directory.path(), &ON_LOOPBACK.replace("\"lo\"", "\"no-such-nic\""));
    let output = dataplane(&["plan", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no interface no-such-nic"), "{}", stderr(&output));
}

#[test]
fn doctor_tells_json_and_fails_when_something_is_lacking() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(directory.path(), &ON_LOOPBACK.replace("\"lo\"", "\"no-such-nic\""));
    let output = dataplane(&["doctor", "--config", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
    assert_eq!(report["fit"], false);
    let findings = report["findings"].as_array().expect("a list");
    let lacking: Vec<_> = findings.iter().filter(|finding| finding["verdict"] == "lacking").collect();
    let nic = lacking.iter().find(|finding| finding["subject"] == "no-such-nic").expect("it is lacking");
    assert!(
        nic["command"].is_null() && nic["detail"].as_str().is_some_and(|detail| detail.contains("lo")),
        "{nic}"
    );
}

#[test]
fn doctor_names_who_has_the_port() {
    let taken = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(directory.path(), &ON_LOOPBACK.replace("21399", &port.to_string()));
    let output = dataplane(&["doctor", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    assert!(text.contains(&format!("ss -lunp 'sport = :{port}'")), "{text}");
}

#[test]
fn wrong_usage_is_two_and_help_has_examples() {
    assert_eq!(dataplane(&["run", "--confg", "x"]).status.code(), Some(2));
    assert_eq!(dataplane(&["no-such-command"]).status.code(), Some(2));
    for command in
        [&["run"][..], &["check"], &["plan"], &["doctor"], &["status"], &["steer"], &["steer", "load"]]
    {
        let output = dataplane(&[command, &["--help"]].concat());
        assert!(output.status.success() && stdout(&output).contains("Example:\n  dataplane "), "{command:?}");
    }
    let help = stdout(&dataplane(&["--help"]));
    assert!(help.contains("Example:\n  dataplane "), "{help}");
    assert!(!help.contains("sentinel"), "it is not for users");
}

#[test]
fn every_value_that_cannot_be_set_is_told() {
    let output = dataplane(&["run", "--set", "listen.redis=127.0.0.1:1", "--set", "table.capacity=1GB"]);
    assert_eq!(output.status.code(), Some(1));
    for part in ["--set listen.redis=127.0.0.1:1: there is no listener", "--set table.capacity=1GB: "] {
        assert!(stderr(&output).contains(part), "{part} in {}", stderr(&output));
    }
}

#[test]
fn a_sentinel_started_by_hand_says_that_it_is_not() {
    let output = dataplane(&["sentinel"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the daemon starts its sentinel itself"), "{}", stderr(&output));
}

#[test]
fn status_without_a_daemon_is_an_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let output = dataplane(&["status", "--admin", &free.expect("a free port").to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no daemon answers"), "{}", stderr(&output));
}
