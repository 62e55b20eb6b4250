//! The program's own log, from the kernel into `tracing`, and what the kernel tells of the program. Needs root.

use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dataplane::config::SteerLogLevel;
use dataplane::limits::STALE_NS;
use dataplane::steer::inspect::inspect;
use dataplane::steer::{ServiceProtocol, ServiceRule, Steer};
use dataplane::time::Now;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

#[path = "../../ebpf/src/packet/tests/build.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "documented and used in full by the parser's tests"
)]
mod build;

/// What was logged so far.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn take(&self) -> String {
        let mut bytes = self.0.lock().expect("nobody panics while writing");
        String::from_utf8(std::mem::take(&mut bytes)).expect("text")
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics while writing").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn rare_events_are_logged_once_each_at_the_level_set() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();

    for level in [SteerLogLevel::Off, SteerLogLevel::Warn, SteerLogLevel::Info] {
        let mut steer = Steer::load(level).expect("the program loads; this test needs root");
        let allow = vec!["10.0.0.0/8".parse().expect("a network")];
        let rule = ServiceRule { protocol: ServiceProtocol::Udp, port: 7, addresses: vec![], allow };
        steer.set_services(&[rule]).expect("the service goes in");
        let socket =
            rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .expect("an AF_XDP socket");
        steer.register_socket(0, socket.as_fd()).expect("the socket goes in");
        let mut log = steer.log().expect("the log opens");
        steer.log().expect_err("two readers would share its records");
        let heartbeats = steer.heartbeats().expect("heartbeats");
        let beat = |age_ns| heartbeats.slot(0).expect("queue 0").beat(Now::read().monotonic_ns - age_ns);
        let ten = |last| (IpAddr::from([10, 0, 0, last]), 7);
        let packet = build::PacketBuilder::udp(ten(1), ten(2)).build();
        let mut after = |age_ns| {
            beat(age_ns);
            for _ in 0..5 {
                steer.test_run(&packet).expect("the program runs");
            }
            log.drain();
            lines.take()
        };

        assert_eq!(after(0), "", "nothing to tell of a worker that beats");
        let stale = after(STALE_NS + STALE_NS / 2);
        let back = after(0);
        match level {
            SteerLogLevel::Off => assert_eq!((stale.as_str(), back.as_str()), ("", "")),
            _ => {
                assert_eq!(stale.lines().count(), 1, "five packets, one line: {stale}");
                let text = "queue 0: the worker has not beaten for 1";
                assert!(stale.contains("WARN") && stale.contains(text), "{stale}");
            }
        }
        match level {
            SteerLogLevel::Info => {
                assert_eq!(back.lines().count(), 1, "{back}");
                assert!(back.contains("INFO") && back.contains("the worker is back"), "{back}");
            }
            _ => assert_eq!(back, "", "that it came back is information"),
        }
    }
}

#[test]
fn the_kernel_tells_what_it_runs_and_what_a_packet_costs() {
    let steer = Steer::load(SteerLogLevel::Off).expect("the program loads; this test needs root");
    let packet =
        build::PacketBuilder::udp((IpAddr::from([10, 0, 0, 1]), 1), (IpAddr::from([10, 0, 0, 2]), 2)).build();
    let directory = std::path::Path::new("/nowhere");
    let until = Instant::now() + Duration::from_millis(500);
    let status = std::thread::scope(|scope| {
        let status =
            scope.spawn(|| inspect(directory, Duration::from_millis(200)).expect("the kernel answers"));
        while Instant::now() < until && !status.is_finished() {
            steer.test_run(&packet).expect("the program runs");
        }
        status.join().expect("the thread ends")
    });
    let program =
        status.programs.iter().find(|program| program.id == steer.program_id()).expect("it is listed");
    assert!(program.run_count > 0 && program.ns_per_packet.is_some_and(|ns| ns > 0.0), "{program:?}");
    assert!(program.verdicts["pass_no_service"] >= program.run_count, "{program:?}");
    assert_eq!(program.links, [], "it is attached nowhere");
    let names: Vec<&str> = program.maps.iter().map(|map| map.name.as_str()).collect();
    for name in dataplane_ebpf::layout::MAPS {
        assert!(names.contains(name), "{names:?}");
    }
    assert!(status.pinned.is_empty());
}
