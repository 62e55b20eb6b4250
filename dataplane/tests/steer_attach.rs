//! Attaching, owned and adopted, in network namespaces of their own. Needs root.

mod steer_bed;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use caps::{CapSet, Capability};
use dataplane::config::{Attachment, SteerLogLevel, XdpMode};
use dataplane::limits::QUEUES_MAX;
use dataplane::privileges::CAPABILITIES;
use dataplane::steer::inspect::Foreign;
use dataplane::steer::{self, AttachedMode, ServiceProtocol, ServiceRule, Steer, SteerError};
use dataplane::time::Now;
use rustix::fs::FlockOperation;
use steer_bed::{Bed, run, wait_for, xdp_socket};

const PORT: u16 = 11211;
const LEVEL: SteerLogLevel = SteerLogLevel::Off;
/// Set for the test that only runs in a process of its own: its bed's namespace.
const CHILD_NAMESPACE: &str = "STEER_ATTACH_NAMESPACE";

fn rule() -> ServiceRule {
    ServiceRule {
        protocol: ServiceProtocol::Udp,
        port: PORT,
        addresses: vec![],
        allow: vec!["10.0.0.0/8".parse().expect("a network")],
    }
}

fn attached() -> bool {
    Foreign::find(Bed::SERVER).expect("the kernel answers").is_some()
}

/// Detaches whatever link holds the program, as `bpftool link detach` does.
fn detach() {
    steer_bed::detach_link(Bed::SERVER);
    assert!(!attached());
}

fn attach(mode: XdpMode) -> Result<Steer, SteerError> {
    Steer::attach_owned(Bed::SERVER, mode, LEVEL)
}

/// What the worker of queue 0 does.
fn beat(steer: &Steer) {
    steer.heartbeats().expect("heartbeats").slot(0).expect("queue 0").beat(Now::read().monotonic_ns);
}

#[test]
fn owned_goes_with_its_handle() {
    Bed::new("own").in_server(|_| {
        let steer = attach(XdpMode::Native).expect("veth runs XDP natively");
        assert_eq!(steer.mode(), Some(AttachedMode::Native));
        assert_eq!(steer.attachment(), Some(Attachment::Owned));
        assert_eq!(steer.interface(), Some(Bed::SERVER));
        assert!(attached());
        drop(steer);
        wait_for("the program to be detached", || !attached());
        let steer = attach(XdpMode::Generic).expect("generic works everywhere");
        assert_eq!(steer.mode(), Some(AttachedMode::Generic));
    });
}

#[test]
fn the_capabilities_that_are_documented_are_enough_to_load_attach_and_adopt() {
    Bed::new("caps").in_server(|bed| {
        // Mounted as root does it at boot: that takes CAP_SYS_ADMIN, and is no part of the daemon's work.
        steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[rule()], bed.pin_directory()).expect("it loads");
        steer::unload(Bed::SERVER, bed.pin_directory()).expect("it unloads");
        // Capabilities belong to a thread, and this one ends with the test.
        let documented = CAPABILITIES.iter().map(|&(capability, _)| capability).collect();
        for set in [CapSet::Effective, CapSet::Permitted] {
            caps::set(None, set, &documented).expect("capabilities can be given up");
        }
        let mut steer = attach(XdpMode::Native).expect("the documented capabilities are enough");
        steer.set_services(&[rule()]).expect("the service goes in");
        steer.clear_services().expect("and out");
        steer.log().expect("its log opens");
        drop(steer);
        wait_for("the program to be detached", || !attached());
        steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[rule()], bed.pin_directory()).expect("it loads");
        let mut adopted =
            Steer::adopt(Bed::SERVER, XdpMode::Auto, bed.pin_directory(), LEVEL).expect("it is adopted");
        adopted.log().expect("its log opens");
    });
}

#[test]
fn each_missing_capability_is_named() {
    Bed::new("uncap").in_server(|_| {
        for missing in [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN] {
            let error = std::thread::scope(|scope| {
                let without = || {
                    let rest = CAPABILITIES.iter().map(|&(capability, _)| capability);
                    let rest = rest.filter(|&capability| capability != missing).collect();
                    caps::set(None, CapSet::Effective, &rest).expect("capabilities can be given up");
                    attach(XdpMode::Native).expect_err("a capability is missing").to_string()
                };
                scope.spawn(without).join().expect("the thread ends")
            });
            assert!(error.contains(&format!("this process lacks {missing};")), "{missing}: {error}");
        }
    });
}

#[test]
fn owned_goes_with_a_killed_process() {
    Bed::new("kill").in_server(|bed| {
        let mut child = Command::new(std::env::current_exe().expect("this test's own path"))
            .args(["--exact", "process_that_is_killed", "--nocapture"])
            .env(CHILD_NAMESPACE, bed.server_namespace())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let said = output.lines().map_while(Result::ok).any(|line| line.contains("attached"));
        assert!(said, "it says when it has attached");
        assert!(attached());
        child.kill().expect("SIGKILL");
        child.wait().expect("it is gone");
        wait_for("the program to be detached", || !attached());
    });
}

/// Not a test by itself: what [`owned_goes_with_a_killed_process`] starts and kills.
#[test]
fn process_that_is_killed() {
    let Ok(namespace) = std::env::var(CHILD_NAMESPACE) else { return };
    steer_bed::enter(&namespace);
    let _steer = attach(XdpMode::Native).expect("it attaches");
    println!("attached");
    std::thread::park();
}

#[test]
fn native_at_a_jumbo_mtu() {
    Bed::new("mtu").in_server(|bed| {
        run(&format!("ip link set {} mtu 9000", Bed::SERVER));
        bed.in_client(|| run(&format!("ip link set {} mtu 9000", Bed::CLIENT)));
        let mut steer = attach(XdpMode::Native).expect("the program takes multi-buffer packets");
        assert_eq!(steer.mode(), Some(AttachedMode::Native));
        assert_eq!(steer.fallback(), None);
        // What no frame holds goes through it to the kernel, whole.
        steer.set_services(&[rule()]).expect("the service goes in");
        let kernel = UdpSocket::bind((Bed::SERVER_ADDRESS, PORT)).expect("a kernel socket");
        bed.deliver(&kernel, &[7; 8_900]);
        assert!(steer.counters().expect("counters")["pass_too_long"] >= 1);
    });
}

#[test]
fn packets_are_redirected_only_to_a_live_worker_with_a_socket() {
    Bed::new("redir").in_server(|bed| {
        let mut steer = attach(XdpMode::Native).expect("it attaches");
        steer.set_services(&[rule()]).expect("the service goes in");
        let kernel = UdpSocket::bind((Bed::SERVER_ADDRESS, PORT)).expect("a kernel socket");
        let server = SocketAddr::new(Bed::SERVER_ADDRESS, PORT);
        let count = |steer: &Steer, label| steer.counters().expect("counters")[label];

        bed.deliver(&kernel, b"to the kernel");
        assert!(count(&steer, "pass_no_socket") >= 1);

        let socket = xdp_socket();
        steer.register_socket(0, socket.as_fd()).expect("the socket goes in");
        wait_for("a packet to be redirected", || {
            beat(&steer);
            bed.send(server, b"to the worker");
            count(&steer, "redirected") >= 1
        });

        drop(socket);
        kernel.set_nonblocking(true).expect("a mode");
        assert!(kernel.recv_from(&mut [0; 64]).is_err(), "what was redirected never reaches the kernel");
        kernel.set_nonblocking(false).expect("a mode");
        bed.deliver(&kernel, b"to the kernel again");
    });
}

#[test]
fn adopted_outlives_its_daemon_and_goes_with_unload() {
    Bed::new("adopt").in_server(|bed| {
        let directory = bed.pin_directory();
        let report = steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[rule()], directory).expect("it loads");
        assert_eq!(report.mode, "native");
        assert!(attached(), "it stays when `load` is done");
        let again = steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[], directory);
        assert!(matches!(again, Err(SteerError::AlreadyLoaded { .. })), "{again:?}");

        let mut daemon =
            Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL).expect("a daemon takes it over");
        assert_eq!(daemon.attachment(), Some(Attachment::Adopted));
        assert_eq!(daemon.program_id(), report.program_id);
        let second =
            Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL).expect_err("one daemon at a time");
        assert!(matches!(second, SteerError::Held { .. }), "{second}");
        let unload = steer::unload(Bed::SERVER, directory).expect_err("not while a daemon has it");
        assert!(matches!(unload, SteerError::Held { .. }), "{unload}");

        let socket = xdp_socket();
        daemon.register_socket(0, socket.as_fd()).expect("the socket goes in");
        let server = SocketAddr::new(Bed::SERVER_ADDRESS, PORT);
        let redirected = |steer: &Steer| steer.counters().expect("counters")["redirected"];
        wait_for("the services that `load` was given to steer", || {
            beat(&daemon);
            bed.send(server, b"to the worker");
            redirected(&daemon) >= 1
        });

        // It dies.
        drop((socket, daemon));
        assert!(attached(), "what `load` attached stays");
        let kernel = UdpSocket::bind((Bed::SERVER_ADDRESS, PORT)).expect("a kernel socket");
        bed.deliver(&kernel, b"after its death");

        // The next one finds the counters, but none of the old heartbeats.
        let next = Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL)
            .expect("the next daemon takes it over");
        assert!(redirected(&next) >= 1);
        assert_eq!(next.heartbeats().expect("heartbeats").beat_ns(0), None);
        drop(next);

        steer::unload(Bed::SERVER, directory).expect("it unloads");
        wait_for("the program to be detached", || !attached());
        let gone = steer::unload(Bed::SERVER, directory).expect_err("nothing is left");
        assert!(matches!(gone, SteerError::NotLoaded { .. }), "{gone}");
        let gone = Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL).expect_err("nothing is left");
        assert!(gone.to_string().contains("dataplane steer load --interface"), "{gone}");
    });
}

#[test]
fn an_adopted_programs_mode_is_held_against_the_one_asked_for() {
    Bed::new("mode").in_server(|bed| {
        let directory = bed.pin_directory();
        steer::load(Bed::SERVER, XdpMode::Generic, LEVEL, &[], directory).expect("it loads");
        let adopt = |mode| Steer::adopt(Bed::SERVER, mode, directory, LEVEL);
        let error = adopt(XdpMode::Native).expect_err("it runs in generic mode").to_string();
        let pins = directory.display();
        for part in [
            format!("`dataplane steer unload --interface {} --pin-directory {pins}`", Bed::SERVER),
            format!(
                "`dataplane steer load --interface {} --pin-directory {pins} --mode native`",
                Bed::SERVER
            ),
        ] {
            assert!(error.contains(&part), "{part} in {error}");
        }
        let steer = adopt(XdpMode::Generic).expect("as it was asked for");
        assert_eq!((steer.mode(), steer.fallback()), (Some(AttachedMode::Generic), None));
        drop(steer);
        let steer = adopt(XdpMode::Auto).expect("either is fine");
        assert!(steer.fallback().is_some_and(|reason| reason.contains("generic")), "{steer:?}");
    });
}

#[test]
fn a_detached_program_is_attached_again_unless_another_took_its_place() {
    Bed::new("stay").in_server(|bed| {
        let directory = bed.pin_directory();
        let mut owned = attach(XdpMode::Native).expect("it attaches");
        assert!(!owned.stay_attached(XdpMode::Native).expect("the kernel answers"), "it is attached");
        detach();
        assert!(owned.stay_attached(XdpMode::Native).expect("it is free"));
        assert!(attached());
        detach();
        steer_bed::attach_foreign_program(Bed::SERVER);
        let error = owned.stay_attached(XdpMode::Native).expect_err("it is taken").to_string();
        assert!(error.contains("name alien"), "{error}");
        run(&format!("ip link set dev {} xdp off", Bed::SERVER));
        drop(owned);
        wait_for("the program to be detached", || !attached());

        // An adopted one, whose new link has to outlive the daemon as the old one would have.
        steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[rule()], directory).expect("it loads");
        let adopt = || Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL);
        let mut adopted = adopt().expect("it is adopted");
        detach();
        assert!(adopted.stay_attached(XdpMode::Auto).expect("it is free"));
        drop(adopted);
        assert!(attached(), "it stays");
        let mut adopted = adopt().expect("the next daemon adopts it");
        assert!(!adopted.stay_attached(XdpMode::Auto).expect("the kernel answers"));
        detach();
        drop(adopted);
        let error = adopt().expect_err("it is attached no more");
        assert!(matches!(error, SteerError::Detached { .. }), "{error}");
    });
}

#[test]
fn a_load_that_meets_a_look_waits_for_its_end() {
    Bed::new("look").in_server(|bed| {
        let directory = bed.pin_directory();
        steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[], directory).expect("it loads");
        let looked = File::open(directory.join(Bed::SERVER)).expect("it is there");
        rustix::fs::flock(&looked, FlockOperation::LockShared).expect("nobody else has it");
        std::thread::scope(|scope| {
            let adopting = scope.spawn(|| {
                steer_bed::enter(&bed.server_namespace());
                Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL).map(drop)
            });
            // Part of what is tested: a look takes some time.
            std::thread::sleep(Duration::from_millis(20));
            drop(looked);
            adopting.join().expect("the thread ends").expect("it waits for the look's end");
        });
    });
}

#[test]
fn another_layout_is_refused_with_advice() {
    Bed::new("layout").in_server(|bed| {
        let directory = bed.pin_directory();
        steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[], directory).expect("it loads");
        let path = directory.join(Bed::SERVER).join("SETTINGS");
        let settings = libbpf_rs::MapHandle::from_pinned_path(path).expect("it is pinned");
        use libbpf_rs::MapCore as _;
        settings
            .update(&[0; 4], &[99, 0, 0, 0, 0, 0, 0, 0], libbpf_rs::MapFlags::ANY)
            .expect("it is written");
        let error = Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL)
            .expect_err("it is refused")
            .to_string();
        assert!(
            error.contains("layout 99") && error.contains("dataplane steer unload --interface"),
            "{error}"
        );
        steer::unload(Bed::SERVER, directory).expect("it can be removed all the same");
        wait_for("the program to be detached", || !attached());
    });
}

#[test]
fn an_interface_made_anew_is_not_taken_for_the_old() {
    Bed::new("anew").in_server(|bed| {
        let directory = bed.pin_directory();
        steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[], directory).expect("it loads");
        run(&format!("ip link del {0} && ip link add {0} type veth peer name other0", Bed::SERVER));
        let error =
            Steer::adopt(Bed::SERVER, XdpMode::Auto, directory, LEVEL).expect_err("it is another interface");
        assert!(matches!(error, SteerError::Detached { .. }), "{error}");
        steer::unload(Bed::SERVER, directory).expect("it can be removed all the same");
    });
}

#[test]
fn a_load_that_fails_leaves_nothing() {
    Bed::new("fail").in_server(|bed| {
        let directory = bed.pin_directory();
        let owner = attach(XdpMode::Native).expect("it attaches");
        let error = steer::load(Bed::SERVER, XdpMode::Auto, LEVEL, &[], directory).expect_err("it is taken");
        assert!(matches!(error, SteerError::Foreign { .. }), "{error}");
        assert!(!directory.join(Bed::SERVER).exists());
        drop(owner);
    });
}

#[test]
fn a_foreign_program_is_named_with_what_removes_it() {
    Bed::new("alien").in_server(|_| {
        steer_bed::attach_foreign_program(Bed::SERVER);
        for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
            let error = attach(mode).expect_err("the interface is taken").to_string();
            assert!(error.contains("name alien"), "{mode:?}: {error}");
            assert!(error.contains(&format!("ip link set dev {} xdp off", Bed::SERVER)), "{mode:?}: {error}");
        }
        // The advice works.
        run(&format!("ip link set dev {} xdp off", Bed::SERVER));
        attach(XdpMode::Native).expect("it is free");
    });
}

#[test]
fn another_steering_program_is_told_apart() {
    Bed::new("twice").in_server(|_| {
        let _owner = attach(XdpMode::Native).expect("it attaches");
        let error = attach(XdpMode::Auto).expect_err("the interface is taken").to_string();
        assert!(error.contains("it is a steering program"), "{error}");
        // Whoever may not ask says so, and does not guess.
        let documented = CAPABILITIES.iter().map(|&(capability, _)| capability).collect();
        caps::set(None, CapSet::Effective, &documented).expect("capabilities can be given up");
        let error = attach(XdpMode::Auto).expect_err("the interface is taken").to_string();
        assert!(error.contains("CAP_SYS_ADMIN") && !error.contains("xdp off"), "{error}");
        assert!(error.contains("bpftool prog show id"), "{error}");
    });
}

#[test]
fn only_auto_falls_back_and_says_so() {
    Bed::new("dummy").in_server(|_| {
        let error =
            Steer::attach_owned("lo", XdpMode::Native, LEVEL).expect_err("loopback has no driver hook");
        assert!(matches!(error, SteerError::NativeUnsupported { .. }), "{error}");
        let steer = Steer::attach_owned("lo", XdpMode::Auto, LEVEL).expect("it falls back");
        assert_eq!(steer.mode(), Some(AttachedMode::Generic));
        assert!(steer.fallback().is_some());
    });
}

#[test]
fn arguments_that_cannot_be_are_refused() {
    Bed::new("args").in_server(|bed| {
        let error =
            Steer::attach_owned("nowhere0", XdpMode::Auto, LEVEL).expect_err("there is none").to_string();
        assert!(error.contains("no interface nowhere0"), "{error}");
        let error = steer::unload("../etc", bed.pin_directory()).expect_err("it is no name");
        assert!(matches!(error, SteerError::BadName { .. }), "{error}");
        let mut steer = attach(XdpMode::Native).expect("it attaches");
        let queue = u32::try_from(QUEUES_MAX).expect("a small number");
        let socket = UdpSocket::bind((IpAddr::from([127, 0, 0, 1]), 0)).expect("a socket");
        assert!(matches!(steer.register_socket(queue, socket.as_fd()), Err(SteerError::NoQueue { .. })));
        assert!(matches!(
            steer.heartbeats().expect("heartbeats").slot(queue),
            Err(SteerError::NoQueue { .. })
        ));
        let error = steer.register_socket(0, socket.as_fd()).expect_err("it is no AF_XDP socket");
        assert!(matches!(error, SteerError::Map { map: "XSKS", .. }), "{error}");
    });
}
