//! A daemon that serves memcached and RESP over one table, however its packets reach it, and where its clients are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use dataplane::control::status::{StatusReport, WorkerStatus};
use dataplane::testbed::daemon::ADMIN;
use dataplane::testbed::{Daemon, Namespace};

use super::{Family, PORT, Rig};

/// Redis's own port.
pub(crate) const RESP_PORT: u16 = 6_379;

/// How the daemon's packets reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Past the kernel's stack: AF_XDP.
    Bypass,
    /// Ordinary sockets.
    Kernel,
}

impl Transport {
    /// As a configuration calls it.
    const fn label(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Kernel => "kernel",
        }
    }
}

/// Makes a test of each function, for each transport.
macro_rules! over_every_transport {
    ($($test:ident),+ $(,)?) => {
        mod bypass {
            $(#[test] fn $test() { super::$test($crate::daemon_support::bed::Transport::Bypass); })+
        }
        mod kernel {
            $(#[test] fn $test() { super::$test($crate::daemon_support::bed::Transport::Kernel); })+
        }
    };
}
pub(crate) use over_every_transport;

/// A server, and the namespace its clients run in: all that a run of clients has to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// `None` is the host's own.
    pub(crate) clients: Option<&'a Namespace>,
    pub(crate) server: SocketAddr,
}

impl Place<'_> {
    /// A client program, to be run where the clients are.
    pub(crate) fn command(&self, program: &str) -> Command {
        match self.clients {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        }
    }

    /// Runs a client of this process where the clients are.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.clients {
            Some(namespace) => namespace.run(work).expect("the clients' namespace"),
            None => work(),
        }
    }

    pub(crate) fn host(&self) -> String {
        self.server.ip().to_string()
    }

    pub(crate) fn port(&self) -> String {
        self.server.port().to_string()
    }
}

/// The daemon on one end of a veth pair; its clients on the other.
pub(crate) struct Bed {
    pub(crate) rig: Rig,
    pub(crate) daemon: Daemon,
    transport: Transport,
}

impl Bed {
    pub(crate) fn start(transport: Transport) -> Self {
        Self::on(Rig::new(), transport)
    }

    pub(crate) fn on(rig: Rig, transport: Transport) -> Self {
        let daemon = rig.start_with(&config(&rig, transport));
        Self { rig, daemon, transport }
    }

    pub(crate) fn memcached(&self) -> Place<'_> {
        self.place(Family::V4, PORT)
    }

    pub(crate) fn resp(&self) -> Place<'_> {
        self.place(Family::V4, RESP_PORT)
    }

    pub(crate) fn place(&self, family: Family, port: u16) -> Place<'_> {
        let server = SocketAddr::new(family.of(&self.rig.pair.right_end), port);
        Place { clients: Some(&self.rig.pair.left), server }
    }

    #[track_caller]
    pub(crate) fn status(&mut self) -> StatusReport {
        self.daemon.status(&self.rig.pair.right).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&StatusReport) -> bool) -> StatusReport {
        self.rig.wait_for_status(&mut self.daemon, what, wanted)
    }

    /// Waits until no connection is left, and then no frame is lost; the clients came the way they were to come.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&mut self) -> StatusReport {
        let status = self.wait_for("every connection to be closed", |status| {
            let [accepted, finished, broken] =
                ["accepted", "finished", "broken"].map(|label| events(status, label));
            connections(status) == 0 && accepted > 0 && accepted == finished + broken
        });
        let accepted = |events: fn(&WorkerStatus) -> &BTreeMap<String, u64>| -> u64 {
            status.workers.iter().map(|worker| events(worker)["accepted"]).sum()
        };
        let (past, through) =
            (accepted(|worker| &worker.tcp_events), accepted(|worker| &worker.kernel_tcp_events));
        match self.transport {
            Transport::Bypass => {
                assert!(past > 0 && through == 0, "{:?}", status.workers);
                self.rig.assert_no_frame_lost(&mut self.daemon);
            }
            Transport::Kernel => assert!(past == 0 && through > 0, "{:?}", status.workers),
        }
        status
    }

    /// Memory of the daemon's process that is really there, in bytes.
    pub(crate) fn resident_bytes(&mut self) -> u64 {
        let status = format!("/proc/{}/status", self.daemon.child().pid());
        let status = std::fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is told");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes << 10
    }
}

/// Open connections, of all workers.
pub(crate) fn connections(status: &StatusReport) -> u64 {
    status.workers.iter().map(|worker| worker.tcp_connections + worker.kernel_connections).sum()
}

/// How often something happened in TCP, over all workers. Ordinary sockets tell less than our own TCP.
pub(crate) fn events(status: &StatusReport, label: &str) -> u64 {
    let told = |worker: &WorkerStatus| {
        let [past, through] =
            [&worker.tcp_events, &worker.kernel_tcp_events].map(|events| events.get(label).copied());
        past.unwrap_or(0) + through.unwrap_or(0)
    };
    status.workers.iter().map(told).sum()
}

/// memcached and RESP over one table, past the kernel by the daemon's end of the wire or over ordinary sockets alone.
fn config(rig: &Rig, transport: Transport) -> String {
    let interface = match transport {
        Transport::Bypass => format!("[[interface]]\nname = \"{}\"\n", rig.interface()),
        Transport::Kernel => String::new(),
    };
    let listener = |service: &str, port: u16| {
        format!(
            "[[listener]]\nservice = \"{service}\"\nprotocol = \"tcp\"\nport = {port}\ntransport = \"{}\"\n\
             allow = [\"10.77.0.0/24\", \"fd77::/64\"]\n",
            transport.label()
        )
    };
    let core = *dataplane::testbed::cpu::usable_cores().last().expect("a core");
    format!(
        "[daemon]\nadmin = \"{ADMIN}\"\nlog = \"info\"\n{interface}\
         [workers]\ncores = [{core}]\n[table]\ncapacity = \"64MiB\"\n{}{}",
        listener("memcached", PORT),
        listener("resp", RESP_PORT)
    )
}
