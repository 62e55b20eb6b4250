//! A real Redis on loopback, and a client that knows where its replies end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dataplane::protocol::resp::BULK_BYTES_MAX;

const DEADLINE: Duration = Duration::from_secs(10);

/// The request behind all others, which tells that all were answered.
pub(crate) const MARK: &[u8] = b"*2\r\n$4\r\nECHO\r\n$13\r\nthe-very-last\r\n";
pub(crate) const MARK_REPLY: &[u8] = b"$13\r\nthe-very-last\r\n";

/// A Redis process, stopped when dropped.
pub(crate) struct RealRedis {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl RealRedis {
    /// Starts one on a free port, which keeps nothing and has one database.
    pub(crate) fn start() -> Self {
        let started = Instant::now();
        loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("bound");
            drop(listener);
            let directory = tempfile::tempdir().expect("a directory");
            let child = Command::new("redis-server")
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--databases",
                    "1",
                    "--port",
                ])
                .arg(address.port().to_string())
                .args(["--proto-max-bulk-len", &BULK_BYTES_MAX.to_string()])
                .arg("--dir")
                .arg(directory.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server did not start: install it (apt-get install redis-server)");
            let mut server = Self { child, address, _directory: directory };
            // Another process may take the port between the two binds: then it exits, and the next port is tried. That
            // process may be a Redis too, of another test.
            while server.child.try_wait().expect("a child of ours").is_none() {
                if process_at(address) == Some(server.child.id()) {
                    return server;
                }
                assert!(started.elapsed() < DEADLINE, "redis-server does not listen on {address}");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(started.elapsed() < DEADLINE, "redis-server exits at once: run it by hand to see why");
        }
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        Client(stream)
    }

    /// Everything it replies to these bytes on a connection of their own.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        self.connect().ask(bytes)
    }
}

/// Which process answers `INFO` there, if one does.
fn process_at(address: SocketAddr) -> Option<u32> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    reply.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to it.
pub(crate) struct Client(TcpStream);

impl Client {
    /// Sends bytes and a mark, and gives back every reply up to the mark's, or to the close.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        let sent = [bytes, MARK].concat();
        // A server that has closed meanwhile has answered before.
        let _ = self.0.write_all(&sent);
        let (mut replies, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while !replies.ends_with(MARK_REPLY) {
            match self.0.read(&mut buffer) {
                Ok(0) => return replies,
                Ok(count) => replies.extend_from_slice(&buffer[..count]),
                // It closed with bytes unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return replies,
                Err(error) => panic!("{error} after {} to {}", replies.escape_ascii(), bytes.escape_ascii()),
            }
        }
        replies.truncate(replies.len() - MARK_REPLY.len());
        replies
    }
}
