//! Two network namespaces joined by a veth pair, removed when dropped.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use dataplane::testbed::ethtool::{self, Offload};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's end of the veth pair.
pub(crate) const SERVER: &str = "xsk-server";
/// The peer's end.
pub(crate) const PEER: &str = "xsk-peer";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two network namespaces joined by a veth pair.
pub(crate) struct Pair {
    server: String,
    peer: String,
}

impl Pair {
    /// With one queue at each end.
    pub(crate) fn new() -> Self {
        Self::with_queues(1)
    }

    pub(crate) fn with_queues(queues: u32) -> Self {
        Self::with_queues_each_way(queues, queues)
    }

    pub(crate) fn with_queues_each_way(receive: u32, transmit: u32) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("xsk-{}-{number}-{side}", std::process::id());
        let pair = Self { server: name("s"), peer: name("p") };
        for namespace in [&pair.server, &pair.peer] {
            ip(&["netns", "add", namespace]);
            // No router solicitations among the packets that the tests count.
            pair.within(namespace, || {
                for scope in ["all", "default"] {
                    let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                    if std::path::Path::new(&path).exists() {
                        std::fs::write(path, "1").expect("the namespace is ours");
                    }
                }
            });
        }
        let (receive, transmit) = (receive.to_string(), transmit.to_string());
        let counts = ["numrxqueues", &receive, "numtxqueues", &transmit];
        let mut create = vec!["link", "add", SERVER, "netns", &pair.server];
        create.extend(counts);
        create.extend(["type", "veth", "peer", "name", PEER, "netns", &pair.peer]);
        create.extend(counts);
        ip(&create);
        pair.server_link(&["up"]);
        pair.peer_link(&["up"]);
        pair
    }

    /// `ip link set` on the server's end.
    pub(crate) fn server_link(&self, arguments: &[&str]) {
        set_link(&self.server, SERVER, arguments);
    }

    /// `ip link set` on the peer's end.
    pub(crate) fn peer_link(&self, arguments: &[&str]) {
        set_link(&self.peer, PEER, arguments);
    }

    /// Leaves the packets of both ends to a timer instead of the sender's softirq.
    pub(crate) fn defer_interrupts(&self) {
        self.tune("napi_defer_hard_irqs", "100");
        self.tune("gro_flush_timeout", "200000");
    }

    /// Has a kernel thread handle the packets of each end: the server's on core 0, the peer's on core 1.
    pub(crate) fn thread_napi(&self) {
        for (namespace, link, core) in [(&self.server, SERVER, "0"), (&self.peer, PEER, "1")] {
            // A veth has NAPI contexts only while it has an XDP program or does GRO.
            self.within(namespace, || {
                ethtool::set_here(link, Offload::GenericReceive, true).expect("a veth can");
            });
            ip(&[
                "netns",
                "exec",
                namespace,
                "sh",
                "-c",
                &format!("echo 1 > /sys/class/net/{link}/threaded"),
            ]);
            let thread = format!("napi/{link}");
            for entry in std::fs::read_dir("/proc").expect("procfs").flatten() {
                let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                if comm.starts_with(&thread) {
                    let pid = entry.file_name().to_string_lossy().into_owned();
                    let _ = Command::new("taskset").args(["-pc", core, &pid]).output();
                }
            }
        }
    }

    fn tune(&self, knob: &str, value: &str) {
        for (namespace, link) in [(&self.server, SERVER), (&self.peer, PEER)] {
            let command = format!("echo {value} > /sys/class/net/{link}/{knob}");
            ip(&["netns", "exec", namespace, "sh", "-c", &command]);
        }
    }

    /// Deletes the pair under whoever uses it.
    pub(crate) fn delete_link(&self) {
        ip(&["-n", &self.server, "link", "delete", SERVER]);
    }

    /// Moves the calling thread into the server's namespace. What it opens stays there.
    pub(crate) fn enter_server(&self) {
        enter(&self.server);
    }

    /// Moves the calling thread into the peer's namespace.
    pub(crate) fn enter_peer(&self) {
        enter(&self.peer);
    }

    fn within<R: Send>(&self, namespace: &str, action: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(namespace);
                action()
            });
            thread.join().expect("no panic")
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.peer] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// Runs a test on a thread of its own, as it changes the thread's namespace.
pub(crate) fn isolated(test: impl FnOnce(&Pair) + Send) {
    isolated_with(Pair::new(), test);
}

pub(crate) fn isolated_with(pair: Pair, test: impl FnOnce(&Pair) + Send) {
    let outcome = std::thread::scope(|scope| scope.spawn(|| test(&pair)).join());
    drop(pair);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn set_link(namespace: &str, link: &str, arguments: &[&str]) {
    let mut all = vec!["-n", namespace, "link", "set", link];
    all.extend(arguments);
    ip(&all);
}

fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace exists");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("needs CAP_SYS_ADMIN");
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("needs iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error} (needs root)", arguments.join(" "));
}
