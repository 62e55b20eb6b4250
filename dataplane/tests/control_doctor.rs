//! What `doctor` and `plan` say of real interfaces: root and veth pairs.

mod daemon_support;

use daemon_support::Rig;
use serde_json::Value;

/// What doctor says of one subject.
#[derive(Debug)]
struct Finding {
    verdict: String,
    detail: String,
    command: Option<String>,
}

/// A pin directory, which is taken away with whatever was left in it.
struct Pins(String);

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The finding of `doctor` about a subject, on the daemon's side.
fn doctor(rig: &Rig, config: &str, subject: &str) -> Finding {
    let report = told(rig, "doctor", config);
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["subject"] == subject);
    let found = found.unwrap_or_else(|| panic!("{subject} in {report:#}"));
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    Finding {
        verdict: text("verdict").expect("each has one"),
        detail: text("detail").expect("each has one"),
        command: text("command"),
    }
}

/// What a command prints for programs.
fn told(rig: &Rig, command: &str, config: &str) -> Value {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("dataplane.toml");
    std::fs::write(&path, config).expect("a file");
    let output = rig.command(&[command, "--json", "--config", &path.to_string_lossy()]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_running_daemon_is_known_as_ones_own() {
    let rig = Rig::new();
    let config = rig.config("", "", "");
    let subjects = [format!("{}: XDP program", rig.interface()), "ports".to_owned()];
    for subject in &subjects {
        assert_eq!(doctor(&rig, &config, subject).verdict, "good");
    }
    let daemon = rig.start_with(&config);
    for subject in subjects.iter().map(String::as_str).chain(["admin port", "huge pages"]) {
        let finding = doctor(&rig, &config, subject);
        assert_eq!((finding.verdict.as_str(), finding.command), ("note", None), "{}", finding.detail);
    }
    daemon.stop().expect("it ends");
}

#[test]
fn what_is_adopted_must_be_what_load_pinned() {
    let rig = Rig::new();
    let pins = Pins(format!("/sys/fs/bpf/doctor-{}", rig.interface()));
    let pins = pins.0.as_str();
    let subject = format!("{}: XDP program", rig.interface());
    let adopting =
        |pins: &str| rig.config(&format!("pin_directory = \"{pins}\""), "attachment = \"adopted\"", "");
    assert_eq!(doctor(&rig, &adopting(pins), &subject).verdict, "lacking", "there is none");
    let steer = |action: &str| {
        let output = rig.command(&["steer", action, "--interface", rig.interface(), "--pin-directory", pins]);
        assert!(output.status.success(), "{output:?}");
    };
    steer("load");
    let finding = doctor(&rig, &adopting(pins), &subject);
    assert_eq!(finding.verdict, "good", "{}", finding.detail);
    let elsewhere = doctor(&rig, &adopting("/sys/fs/bpf/no-such-directory"), &subject);
    assert!(elsewhere.verdict == "lacking" && elsewhere.detail.contains("not pinned under"), "{elsewhere:?}");
    let owned = doctor(&rig, &rig.config(&format!("pin_directory = \"{pins}\""), "", ""), &subject);
    assert!(owned.verdict == "lacking", "{owned:?}");
    // What it says mends it, does.
    let command = owned.command.expect("there is one");
    let arguments: Vec<&str> = command.split("   #").next().unwrap_or_default().split(' ').skip(1).collect();
    assert!(rig.command(&arguments).status.success(), "{command}");
    assert_eq!(doctor(&rig, &rig.config("", "", ""), &subject).verdict, "good");
}

#[test]
fn queues_that_only_receive_are_not_planned_and_told_with_their_cure() {
    let rig = Rig::new();
    let name = format!("odd{}", std::process::id());
    let pair = &rig.pair.right;
    pair.ip_batch(&format!(
        "link add {name} numrxqueues 3 numtxqueues 1 type veth peer name {name}p mtu 1280\n"
    ))
    .expect("iproute2");
    pair.ip_batch(&format!("link set {name} mtu 1400\n")).expect("iproute2");
    let config = rig.config("", "", "").replace(rig.interface(), &name);
    let plan = told(&rig, "plan", &config);
    let queues = plan["workers"][0]["queues"].as_array().expect("a list");
    assert_eq!(queues.len(), 1, "{plan}");
    let finding = doctor(&rig, &config, &format!("{name}: queues"));
    assert_eq!(finding.verdict, "advice", "{}", finding.detail);
    assert_eq!(finding.command, Some(format!("ethtool -L {name} rx 1 tx 1")));
    let mtu = doctor(&rig, &config, &format!("{name}: MTU"));
    assert!(mtu.verdict == "advice" && mtu.detail.contains("1448"), "{mtu:?}");
}
