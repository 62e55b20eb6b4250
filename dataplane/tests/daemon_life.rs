//! The daemon's life and death on a real interface: what stays attached, who answers, and what an operator is told.
//! Needs root and `ip` (iproute2).

mod daemon_support;
#[path = "steer_bed/link.rs"]
mod link;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dataplane::limits::STALE_NS;
use dataplane::steer::inspect::{Foreign, SteerStatus};
use dataplane::testbed::daemon::{ADMIN, http_get};
use dataplane::testbed::redirect::Redirect;
use dataplane::testbed::{Daemon, VethPair, wait_until};

use rustix::process::Signal;

use daemon_support::{BINARY, Client, Family, PORT, Rig, SOON, UNAVAILABLE, item, verdict};

/// An address of the client's host that is on no allow-list of these tests.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Who is attached to the daemon's interface.
fn attached(rig: &Rig) -> Option<Foreign> {
    rig.pair.right.run(|| Foreign::find(rig.interface())).expect("entered").expect("the interface is there")
}

/// Takes the service's port with a kernel socket, as soon as it is free.
#[track_caller]
fn kernel_socket(rig: &Rig, limit: Duration) -> UdpSocket {
    let socket = wait_until("the port being free", limit, || {
        Ok(rig.pair.right.run(|| UdpSocket::bind(("0.0.0.0", PORT)))?.ok())
    });
    let socket = socket.unwrap_or_else(|error| panic!("{error}"));
    socket.set_read_timeout(Some(SOON)).expect("a timeout above zero");
    socket
}

/// The client's next datagram comes to a kernel socket.
#[track_caller]
fn assert_kernel_has_traffic(rig: &Rig, socket: &UdpSocket) {
    rig.client(Family::V4).send(b"get kernel\r\n");
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).expect("the datagram comes to the kernel's socket");
    assert_eq!(&buffer[8..length], b"get kernel\r\n");
    assert_eq!(from.ip(), rig.pair.left_end.v4);
}

/// A folder on the host's bpffs that goes with its guard.
struct Pins(PathBuf);

impl Pins {
    fn new(rig: &Rig) -> Self {
        Self(Path::new("/sys/fs/bpf").join(format!("pins-{}", rig.interface())))
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("plain characters")
    }

    fn line(&self) -> String {
        format!("pin_directory = \"{}\"", self.text())
    }

    /// What is pinned for an interface.
    fn entries(&self, interface: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.join(interface)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn sigterm_answers_detaches_frees_the_port_and_exits_with_zero() {
    let rig = Rig::new();
    // On a machine that is slow enough the daemon counts as stale before it has been sent everything; then again.
    let sent = wait_until("requests sent to a daemon that is not stale yet", SOON * 3, || {
        let mut daemon = rig.start();
        assert!(attached(&rig).is_some());
        let mut client = rig.client(Family::V4);
        client.set("key", b"value");
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let mut local = Client::open(&rig.pair.right, loopback(0), loopback(PORT));
        local.assert_holds("key", "value");

        // Nothing is answered before it has been told to end.
        let start = Instant::now();
        daemon.freeze()?;
        let asked: Vec<u16> = (0..64).map(|_| client.send(b"get key\r\n")).collect();
        let asked_locally: Vec<u16> = (0..48).map(|_| local.send(b"get key\r\n")).collect();
        let quiet = client.heard_nothing() && local.heard_nothing();
        daemon.child().signal(Signal::TERM)?;
        daemon.thaw()?;
        let soon_enough = start.elapsed() < Duration::from_nanos(STALE_NS) / 2;
        assert!(quiet || !soon_enough, "who answered for a daemon that stands still?");
        Ok(soon_enough.then_some((daemon, client, asked, local, asked_locally)))
    });
    let (mut daemon, client, asked, local, asked_locally) = sent.unwrap_or_else(|error| panic!("{error}"));
    // It has been told already; a second signal would end it at once.
    let status = daemon.child().wait_for_end(SOON).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(0));
    assert_eq!(attached(&rig), None);
    let socket = rig.pair.right.run(|| UdpSocket::bind(("0.0.0.0", PORT))).expect("entered");
    socket.expect("the port is free once the daemon has ended");

    for (mut client, asked) in [(client, asked), (local, asked_locally)] {
        let mut answered: Vec<u16> = Vec::new();
        while answered.len() < asked.len() {
            // All of it was sent before the daemon ended.
            let (id, _, _, text) = client.receive(Duration::from_secs(1)).unwrap_or_else(|| {
                panic!("of {} requests {} were answered", asked.len(), answered.len());
            });
            assert_eq!(String::from_utf8_lossy(&text), item("key", "value"));
            answered.push(id);
        }
        answered.sort_unstable();
        assert_eq!(answered, asked);
    }
}

#[test]
fn killed_owned_leaves_nothing_and_the_kernel_has_the_port_at_once() {
    let rig = Rig::new();
    let pins = Pins::new(&rig);
    let mut daemon = rig.start_with(&rig.config(&pins.line(), "", ""));
    rig.client(Family::V4).set("key", b"value");
    daemon.child().kill();
    // The sentinel, which has the port too, is killed by the kernel as the daemon dies.
    let socket = kernel_socket(&rig, Duration::from_secs(1));
    assert_kernel_has_traffic(&rig, &socket);
    assert_eq!(attached(&rig), None);
    assert!(!pins.0.exists(), "an owned program is never pinned");
}

#[test]
fn killed_adopted_leaves_the_pinned_program_which_passes_and_is_adopted_again() {
    let rig = Rig::new();
    let pins = Pins::new(&rig);
    let target = ["--interface", rig.interface(), "--pin-directory", pins.text()];
    let steer = |action: &str| rig.command(&[&["steer", action][..], &target].concat());
    let loaded = steer("load");
    assert!(loaded.status.success(), "{loaded:?}");
    let program = attached(&rig).expect("it is attached").program_id;
    let config = rig.config(&pins.line(), "attachment = \"adopted\"", "");

    let mut daemon = rig.start_with(&config);
    let mut client = rig.client(Family::V4);
    client.set("key", b"value");
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.queues[0].attachment, "adopted");
    let redirected = verdict(&status, rig.interface(), "redirected");
    assert!(redirected > 0, "{status:#?}");
    let held = steer("unload");
    assert_eq!(held.status.code(), Some(1), "a running daemon has it: {held:?}");

    daemon.child().kill();
    assert_eq!(attached(&rig).map(|found| found.program_id), Some(program));
    assert!(!pins.entries(rig.interface()).is_empty());
    let socket = kernel_socket(&rig, Duration::from_secs(1));
    assert_kernel_has_traffic(&rig, &socket);
    // The allow-list died with the daemon: what it kept out is the kernel's affair again.
    let prefix = format!("{STRANGER}/24");
    rig.pair.left.ip(&["addr", "add", &prefix, "dev", &rig.pair.left_end.interface]).expect("added");
    let local = SocketAddr::new(STRANGER.into(), 0);
    Client::open(&rig.pair.left, local, rig.server(Family::V4)).send(b"get stranger\r\n");
    let (_, from) =
        socket.recv_from(&mut [0; 64]).expect("a denied source's datagram comes to the kernel too");
    assert_eq!(from.ip(), STRANGER);
    drop(socket);
    let told =
        rig.command(&["steer", "status", "--json", "--window-ms", "0", "--pin-directory", pins.text()]);
    let told: SteerStatus =
        serde_json::from_slice(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    assert!(
        told.pinned.iter().any(|pinned| pinned.interface == rig.interface() && !pinned.held),
        "{told:#?}"
    );
    let of_link = told.programs.iter().find(|found| found.id == program).expect("it is still loaded");
    assert_eq!(of_link.links[0].interface.as_deref(), Some(rig.interface()));

    let mut second = rig.start_with(&config);
    rig.client(Family::V4).set("key", b"of the second");
    let status = second.status(&rig.pair.right).expect("it runs");
    assert!(verdict(&status, rig.interface(), "redirected") > redirected, "it counts on: {status:#?}");
    assert_eq!(attached(&rig).map(|found| found.program_id), Some(program));
    assert!(second.stop().unwrap_or_else(|error| panic!("{error}")).success());
    assert_eq!(attached(&rig).map(|found| found.program_id), Some(program), "it belongs to `load`");

    let unloaded = steer("unload");
    assert!(unloaded.status.success(), "{unloaded:?}");
    assert_eq!(attached(&rig), None);
    assert_eq!(pins.entries(rig.interface()), Vec::<PathBuf>::new());
}

#[test]
fn a_frozen_daemons_clients_hear_of_it_within_two_seconds_and_are_served_once_it_goes_on() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    let mut client = rig.client(Family::V4);
    client.set("key", b"value");
    daemon.freeze().expect("it runs");
    client.ask_until("get key\r\n", UNAVAILABLE, Duration::from_secs(2));
    daemon.thaw().expect("it is there");
    client.ask_until("get key\r\n", item("key", "value").as_bytes(), SOON);
    let before = rig.verdict(&mut daemon, "redirected");
    wait_until("packets taking the bypass again", SOON, || {
        client.assert_holds("key", "value");
        Ok((rig.verdict(&mut daemon, "redirected") > before).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn somebody_elses_xdp_program_is_named_and_left_alone() {
    let rig = Rig::new();
    let _foreign = Redirect::attach(&rig.pair.right, rig.interface()).expect("attached");
    let theirs = attached(&rig).expect("it is attached");
    let (code, said) = rig.refused(&rig.config("", "", ""));
    assert_eq!(code, Some(1), "{said}");
    let name = theirs.program_name.clone().expect("root may ask");
    for word in ["another XDP program is already attached", rig.interface(), &name] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    assert_eq!(attached(&rig), Some(theirs));
}

#[test]
fn a_program_detached_by_somebody_is_attached_again_unless_another_took_its_place() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    let mut client = rig.client(Family::V4);
    client.set("key", b"value");
    let ours = attached(&rig).expect("it is attached").program_id;
    let detach = || rig.pair.right.run(|| link::detach_link(rig.interface())).expect("entered");

    detach();
    wait_until("the program being attached again", SOON, || {
        Ok(attached(&rig).filter(|found| found.program_id == ours))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let before = rig.verdict(&mut daemon, "redirected");
    client.assert_holds("key", "value");
    rig.wait_for_verdict(&mut daemon, "redirected", before + 1);

    // It may be attached again before the other one is; then once more.
    let foreign = wait_until("another program taking its place", SOON, || {
        detach();
        Ok(Redirect::attach(&rig.pair.right, rig.interface()).ok())
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let theirs = attached(&rig).expect("it is attached");
    let name = theirs.program_name.clone().expect("root may ask");
    rig.wait_for_status(&mut daemon, "the status naming it", |status| status.queues[0].state.contains(&name));
    assert_eq!(attached(&rig), Some(theirs), "it is left alone");
    client.ask_until("get key\r\n", item("key", "value").as_bytes(), SOON);
    drop(foreign);
    rig.wait_for_status(&mut daemon, "the queue being up again", |status| status.queues[0].state == "up");
    assert_eq!(attached(&rig).map(|found| found.program_id), Some(ours));
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn an_adopted_program_in_another_mode_is_refused_or_told_of() {
    let rig = Rig::new();
    let pins = Pins::new(&rig);
    let target = ["--interface", rig.interface(), "--pin-directory", pins.text()];
    let loaded = rig.command(&[&["steer", "load", "--mode", "generic"][..], &target].concat());
    assert!(loaded.status.success(), "{loaded:?}");
    let config = |mode| rig.config(&pins.line(), &format!("attachment = \"adopted\"\nmode = \"{mode}\""), "");
    let (code, said) = rig.refused(&config("native"));
    assert_eq!(code, Some(1), "{said}");
    for word in ["runs in generic mode", "steer unload --interface", "--mode native"] {
        assert!(said.contains(word), "{word:?} in {said}");
    }

    let mut daemon = rig.start_with(&config("auto"));
    assert!(daemon.child().output().contains("runs in generic mode"), "{}", daemon.child().output());
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(status.queues[0].xdp_mode, "generic");
    assert!(status.queues[0].fallback.is_some(), "{status:#?}");
    let shown = rig.command(&["status", "--admin", ADMIN]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("fell back to generic XDP"), "{shown:?}");
    let address = ADMIN.parse().expect("an address");
    let metrics = rig.pair.right.run(|| http_get(address, "/metrics")).expect("entered").expect("an answer");
    assert!(metrics.contains("fell_back=\"true\""), "{metrics}");

    // The log of a program that another process loaded is read too.
    let mut client = rig.client(Family::V4);
    client.set("key", b"value");
    daemon.freeze().expect("it runs");
    client.ask_until("get key\r\n", UNAVAILABLE, SOON);
    daemon.thaw().expect("it is there");
    wait_until("the program telling of it", SOON, || {
        Ok(daemon.child().output().contains("the worker has not beaten").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}; the daemon said {}", daemon.child().output()));
    assert!(daemon.stop().unwrap_or_else(|error| panic!("{error}")).success());
    let unloaded = rig.command(&[&["steer", "unload", "--json"][..], &target].concat());
    let json: serde_json::Value = serde_json::from_slice(&unloaded.stdout).expect("one object");
    assert_eq!(json, serde_json::json!({ "unloaded": [rig.interface()], "failed": [] }));
}

#[test]
fn one_interface_that_cannot_be_loaded_keeps_no_other_from_it() {
    let rig = Rig::new();
    let pins = Pins::new(&rig);
    let target =
        ["--interface", "nowhere0", "--interface", rig.interface(), "--pin-directory", pins.text(), "--json"];
    for (action, done) in [("load", "loaded"), ("unload", "unloaded")] {
        let output = rig.command(&[&["steer", action][..], &target].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
        assert_eq!(json[done].as_array().map(Vec::len), Some(1), "{json}");
        assert_eq!(json["failed"][0]["interface"], "nowhere0");
        assert_eq!(attached(&rig).is_some(), action == "load");
    }
}

#[test]
fn a_load_that_would_pin_into_a_mount_that_goes_is_refused() {
    let rig = Rig::new();
    let namespace = rig.pair.right.name();
    let arguments = ["netns", "exec", namespace, BINARY, "steer", "load", "--interface", rig.interface()];
    let output = std::process::Command::new("ip").args(arguments).output().expect("iproute2");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nsenter --net="), "{said}");
    assert_eq!(attached(&rig), None);
}

#[test]
fn told_to_end_while_it_starts_it_ends_in_order() {
    let rig = Rig::new();
    let config = rig.config("", "", "").replace("capacity = \"16MiB\"", "capacity = \"256MiB\"");
    let mut daemon = Daemon::spawn(&rig.pair.right, Path::new(BINARY), &config).expect("it can be started");
    wait_until("the table being made", SOON, || {
        Ok(daemon.child().output().contains("faulting in the table's memory").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let status = daemon.stop().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(0));
    assert_eq!(attached(&rig), None);
}

#[test]
fn a_port_of_another_process_is_an_error_that_names_it() {
    let rig = Rig::new();
    let _taken = kernel_socket(&rig, SOON);
    let (code, said) = rig.refused(&rig.config("", "", ""));
    assert_eq!(code, Some(1), "{said}");
    let holder = format!("(pid {})", std::process::id());
    for word in ["listener[0]", "11211", "taken by", &holder] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    assert_eq!(attached(&rig), None, "it looked before it touched the NIC");
}

#[test]
fn an_admin_address_of_another_process_is_an_error_and_leaves_nothing_behind() {
    let rig = Rig::new();
    let taken = rig.pair.right.run(|| std::net::TcpListener::bind(ADMIN)).expect("entered");
    let _taken = taken.expect("a fresh namespace has every port free");
    let (code, said) = rig.refused(&rig.config("", "", ""));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("daemon.admin") && said.contains(ADMIN), "{said}");
    assert!(!said.contains("queue opened"), "it looked before it touched the NIC: {said}");
    assert_eq!(attached(&rig), None);
}

/// The items are still there, and after a moment at the companion packets are redirected.
#[track_caller]
fn assert_served_over_the_bypass(rig: &Rig, daemon: &mut Daemon) {
    let mut client = rig.client(Family::V4);
    wait_until("requests over the bypass", SOON, || {
        client.ask_until("get key\r\n", item("key", "value").as_bytes(), SOON);
        let status = daemon.status(&rig.pair.right)?;
        let up = status.queues[0].state == "up";
        Ok((up && verdict(&status, rig.interface(), "redirected") > 0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}; the daemon said {}", daemon.child().output()));
}

#[test]
fn an_interface_made_anew_is_served_again() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    rig.client(Family::V4).set("key", b"value");

    rig.pair.delete().expect("deleted");
    rig.wait_for_status(&mut daemon, "the status saying that it is gone", |status| {
        status.queues[0].state.contains("gone")
    });
    rig.pair.join(VethPair::MTU_DEFAULT).expect("made anew");
    rig.wait_for_status(&mut daemon, "the queue being up again", |status| status.queues[0].state == "up");
    assert_served_over_the_bypass(&rig, &mut daemon);

    // So quickly that nobody saw it gone.
    rig.pair.delete().expect("deleted");
    rig.pair.join(VethPair::MTU_DEFAULT).expect("made anew");
    wait_until("the new interface having a program", SOON, || Ok(attached(&rig)))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_served_over_the_bypass(&rig, &mut daemon);
    rig.assert_no_frame_lost(&mut daemon);

    // The program's log is the new program's.
    let mut client = rig.client(Family::V4);
    daemon.freeze().expect("it runs");
    client.ask_until("get key\r\n", UNAVAILABLE, SOON);
    daemon.thaw().expect("it is there");
    let told = wait_until("the program telling of it", SOON, || {
        Ok(daemon.child().output().contains("the worker has not beaten").then_some(()))
    });
    told.unwrap_or_else(|error| panic!("{error}; the daemon said {}", daemon.child().output()));
    rig.wait_for_status(&mut daemon, "the status counting it", |status| status.queues[0].stale_episodes == 1);
    assert!(daemon.stop().unwrap_or_else(|error| panic!("{error}")).success());
    assert_eq!(attached(&rig), None);
}

#[test]
fn a_link_that_went_down_and_up_goes_on() {
    let rig = Rig::new();
    let mut daemon = rig.start();
    let mut client = rig.client(Family::V4);
    client.set("key", b"value");
    for _ in 0..3 {
        rig.pair.right.ip(&["link", "set", rig.interface(), "down"]).expect("down");
        rig.wait_for_status(&mut daemon, "the status saying so", |status| {
            status.queues[0].state == "link down"
        });
        rig.pair.right.ip(&["link", "set", rig.interface(), "up"]).expect("up");
        rig.wait_for_status(&mut daemon, "the queue being up", |status| status.queues[0].state == "up");
        client.ask_until("get key\r\n", item("key", "value").as_bytes(), SOON);
    }
    let before = rig.verdict(&mut daemon, "redirected");
    client.assert_holds("key", "value");
    rig.wait_for_verdict(&mut daemon, "redirected", before + 1);
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn restarts_in_a_row_on_one_interface_all_get_ready() {
    let rig = Rig::new();
    let config = rig.config("", "", "").replace("log = \"info\"", "log = \"warn\"");
    for round in 0..10 {
        let mut daemon: Daemon = rig.start_with(&config);
        rig.client(Family::V4).set("key", b"value");
        if round % 2 == 0 {
            assert!(daemon.stop().unwrap_or_else(|error| panic!("{error}")).success());
        } else {
            daemon.child().kill();
            // A service manager waits for the whole control group.
            drop(kernel_socket(&rig, SOON));
        }
    }
}
