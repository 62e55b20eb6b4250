//! A real Redis on loopback, and a client that knows where its replies end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use dataplane::protocol::resp::BULK_BYTES_MAX;

use crate::differential_support::server::{Program, RealServer};

const REDIS: Program = Program {
    name: "redis-server",
    package: "redis-server",
    question: b"INFO server\r\nQUIT\r\n",
    process_label: "process_id:",
};

/// The request behind all others, which tells that all were answered.
pub(crate) const MARK: &[u8] = b"*2\r\n$4\r\nECHO\r\n$13\r\nthe-very-last\r\n";
pub(crate) const MARK_REPLY: &[u8] = b"$13\r\nthe-very-last\r\n";

/// A Redis.
pub(crate) struct RealRedis {
    pub(crate) server: RealServer,
    _directory: tempfile::TempDir,
}

impl RealRedis {
    /// Starts one that keeps nothing and has one database.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let server = RealServer::start(&REDIS, |command, port| {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--databases", "1"]);
            command.args(["--proto-max-bulk-len", &BULK_BYTES_MAX.to_string()]);
            command.args(["--port", &port.to_string()]).arg("--dir").arg(directory.path());
        });
        Self { server, _directory: directory }
    }

    pub(crate) fn connect(&self) -> Client {
        Client(self.server.connect())
    }

    /// Everything it replies to these bytes on a connection of their own.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        self.connect().ask(bytes)
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
