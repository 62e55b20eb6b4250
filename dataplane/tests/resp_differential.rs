//! The RESP parser against a real Redis: the same bytes to both, the same replies from both, down to the error that
//! closes the connection. Redis is asked to echo, so that its replies tell what it understood.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dataplane::protocol::memcached::reply::ReplyBuffer;
use dataplane::protocol::resp::BULK_BYTES_MAX;
use dataplane::protocol::resp::encode::{Encoder, Version};
use dataplane::protocol::resp::inline::Scratch;
use dataplane::protocol::resp::parse::{Parsed, Place, parse};

const DEADLINE: Duration = Duration::from_secs(10);

/// The request behind all others, which tells that all were answered.
const MARK: &[u8] = b"*2\r\n$4\r\nECHO\r\n$13\r\nthe-very-last\r\n";
const MARK_REPLY: &[u8] = b"$13\r\nthe-very-last\r\n";

struct RealRedis {
    child: Child,
    address: SocketAddr,
}

impl RealRedis {
    fn start() -> Self {
        let started = Instant::now();
        loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("bound");
            drop(listener);
            let child = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
                .arg(address.port().to_string())
                .args(["--proto-max-bulk-len", &BULK_BYTES_MAX.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server did not start: install it (apt-get install redis-server)");
            let mut server = Self { child, address };
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

    /// Everything it replies to these bytes on a connection of their own, up to the mark's reply or the close.
    fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.write_all(&[bytes, MARK].concat()).expect("it reads");
        let (mut replies, mut buffer) = (Vec::new(), [0; 4096]);
        while !replies.ends_with(MARK_REPLY) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => replies.extend_from_slice(&buffer[..count]),
                // It closed with bytes unread.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {} to {}", replies.escape_ascii(), bytes.escape_ascii()),
            }
        }
        replies
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

/// What ours says: an echo for every `ECHO`, and the error that closes.
fn ours(bytes: &[u8]) -> Vec<u8> {
    let input = [bytes, MARK].concat();
    let (mut scratch, mut place) = (Scratch::default(), Place::default());
    let mut buffer = ReplyBuffer::new(1 << 20);
    let mut replies = Encoder::new(&mut buffer, Version::Two);
    let mut rest = &input[..];
    loop {
        match parse(rest, &mut place, &mut scratch) {
            Parsed::Request(mut arguments, consumed) => {
                let name = arguments.next().expect("a name");
                match (name.to_ascii_uppercase().as_slice(), arguments.next()) {
                    (b"ECHO", Some(text)) if arguments.len() == 0 => replies.bulk(text),
                    (b"ECHO", _) => replies.error(b"ERR wrong number of arguments for 'echo' command"),
                    (other, _) => panic!("not asked of Redis: {}", other.escape_ascii()),
                }
                rest = &rest[consumed..];
            }
            Parsed::Nothing(consumed) => rest = &rest[consumed..],
            Parsed::Incomplete(_) => break,
            Parsed::Invalid(error) => {
                replies.protocol_error(error);
                break;
            }
        }
    }
    buffer.as_bytes().to_vec()
}

#[test]
fn the_same_bytes_get_the_replies_of_redis() {
    let server = RealRedis::start();
    let fixed: &[&[u8]] = &[
        b"",
        b"ECHO x\r\n",
        b"echo x\n",
        b"  echo\tx  \r\n",
        b"echo\r\n",
        b"echo a b\r\n",
        b"\r\n\n \r\n",
        b"echo \"a b\\x41\\n\\q\"\r\n",
        b"echo 'it\\'s \\x41'\r\n",
        b"echo a\"b c\"\r\n",
        b"echo \"\"\r\n",
        b"echo \"a\r\n",
        b"echo \"a\"b\r\n",
        b"echo 'a'b\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*-9223372036854775808\r\n",
        b"*2\r\n$4\r\nEcho\r\n$0\r\n\r\n",
        b"*2\r\n$4\r\nECHO\r\n$3\r\n\r\n\0\r\n",
        // The bytes behind a bulk string are not looked at.
        b"*2\r\n$4\r\nECHOxy$1\r\nzxy",
        b"*2\rx$4\rxECHO\r\n$1\r\nz\r\n",
        b"*x\r\n",
        b"*\r\n",
        b"*+1\r\n",
        b"*01\r\n",
        b"* 1\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n:5\r\n",
        b"*1\r\n\xe9\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$+4\r\n",
        b"*1\r\n$04\r\n",
        b"*1\r\n$1048577\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*2\r\n$4\r\nECHO\r\n*1\r\n",
    ];
    for bytes in fixed {
        assert_eq!(
            ours(bytes).escape_ascii().to_string(),
            server.ask(bytes).escape_ascii().to_string(),
            "ours, Redis; asked {}",
            bytes.escape_ascii()
        );
    }
    // Two and three of them in one go.
    for (index, first) in fixed.iter().enumerate() {
        let second = fixed[(index * 7 + 3) % fixed.len()];
        let third = fixed[(index * 11 + 5) % fixed.len()];
        let bytes = [first, second, third].concat();
        assert_eq!(
            ours(&bytes).escape_ascii().to_string(),
            server.ask(&bytes).escape_ascii().to_string(),
            "ours, Redis; asked {}",
            bytes.escape_ascii()
        );
    }
}
