//! A real server on loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a server.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// How a server is started and known again.
pub(crate) struct Program {
    /// Its name, and that of the Debian package that has it.
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// What makes it tell of itself and close.
    pub(crate) question: &'static [u8],
    /// What its process's number stands behind in the answer.
    pub(crate) process_label: &'static str,
}

/// A process, stopped when dropped.
pub(crate) struct RealServer {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl RealServer {
    /// Starts one on a free port, with what `arguments` adds for it.
    pub(crate) fn start(program: &Program, arguments: impl Fn(&mut Command, u16)) -> Self {
        let Program { name, package, .. } = program;
        let started = Instant::now();
        loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("bound");
            drop(listener);
            let mut command = Command::new(name);
            arguments(&mut command, address.port());
            let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().unwrap_or_else(|error| {
                panic!("{name} did not start ({error}): install it (apt-get install {package})")
            });
            let mut server = Self { child, address };
            // Another process may take the port between the two binds: then it exits, and the next port is tried. That
            // process may be such a server too, of another test.
            while server.child.try_wait().expect("a child of ours").is_none() {
                if program.process_at(address) == Some(server.child.id()) {
                    return server;
                }
                assert!(started.elapsed() < DEADLINE, "{name} does not listen on {address}");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(started.elapsed() < DEADLINE, "{name} exits at once: run it by hand to see why");
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        stream
    }
}

impl Program {
    /// Which process answers there, if one does.
    fn process_at(&self, address: SocketAddr) -> Option<u32> {
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream.write_all(self.question).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        reply.lines().find_map(|line| line.strip_prefix(self.process_label))?.trim().parse().ok()
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
