//! The companion of listeners for streams: a kernel TCP socket that keeps the port, and tells whoever reaches it that the
//! service is unavailable: clients while a worker is stale or not yet there, and clients on this very host, whose
//! packets pass no NIC.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::CompanionSocket;
use crate::net::allow::AllowList;

/// Connections that are told at the same time; more wait in the kernel's queue.
const TOLD_AT_ONCE_MAX: usize = 256;
/// Longest a client may take to hear it.
const TELL_TIME_MAX: Duration = Duration::from_secs(1);
/// Pause after the kernel would not hand over a connection: most often for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is known of one listener for streams.
#[derive(Clone, Debug)]
pub struct StreamPolicy {
    /// Sources that are answered at all.
    pub allow: AllowList,
    /// The protocol's "temporarily unavailable"; empty when it has none.
    pub words: &'static [u8],
}

/// Answers on these sockets until the runtime ends. `policy` is asked by the listener's number.
///
/// # Errors
/// When the runtime cannot wait for a socket.
pub fn tell_streams(
    runtime: &Handle,
    sockets: Vec<CompanionSocket>,
    policy: impl Fn(usize) -> StreamPolicy,
) -> io::Result<()> {
    let limit = Arc::new(Semaphore::new(TOLD_AT_ONCE_MAX));
    for socket in sockets {
        let policy = policy(socket.listener());
        let listener = TcpListener::from(socket.into_fd());
        // Registers with the runtime that is entered.
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(accept(listener, policy, Arc::clone(&limit)));
    }
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, policy: StreamPolicy, limit: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) if admits(&policy, peer) => {
                tokio::spawn(async move {
                    // Who does not listen in time is not waited for.
                    let _ = tokio::time::timeout(TELL_TIME_MAX, tell(stream, policy.words)).await;
                    drop(permit);
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a companion socket cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admits(policy: &StreamPolicy, peer: SocketAddr) -> bool {
    policy.allow.contains(peer.ip())
}

/// Says it, and reads what the client had to say: closing with bytes unread would reset the connection, and the words
/// would be lost with it.
async fn tell(mut stream: TcpStream, words: &[u8]) -> io::Result<()> {
    stream.write_all(words).await?;
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::config::{ListenerConfig, ListenerProtocol, private_sources};

    /// A companion on a port of its own that serves these networks, for as long as its runtime lives.
    fn companion(allow: AllowList) -> (tokio::runtime::Runtime, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let config = ListenerConfig {
            protocol: ListenerProtocol::Tcp,
            addresses: vec!["127.0.0.1".parse().expect("an address")],
            ..ListenerConfig::new("memcached", 0)
        };
        let sockets = CompanionSocket::bind_all(&[config]).expect("any port");
        let address = sockets[0].address();
        let policy = move |_| StreamPolicy { allow: allow.clone(), words: b"NOT NOW\r\n" };
        tell_streams(runtime.handle(), sockets, policy).expect("it waits");
        (runtime, address)
    }

    #[test]
    fn a_client_hears_it_though_it_has_asked_already() {
        let (_runtime, address) = companion(AllowList::new(&private_sources()));
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        client.write_all(b"get a\r\n").expect("it takes bytes");
        client.shutdown(std::net::Shutdown::Write).expect("connected");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).expect("not reset");
        assert_eq!(heard, b"NOT NOW\r\n");
    }

    #[test]
    fn nobody_else_hears_anything() {
        let (_runtime, address) = companion(AllowList::new(&["192.0.2.0/24".parse().expect("a network")]));
        let mut client = std::net::TcpStream::connect(address).expect("the kernel connects");
        let mut heard = Vec::new();
        // Reset or closed: nothing was said either way.
        let _ = client.read_to_end(&mut heard);
        assert!(heard.is_empty(), "{heard:?}");
    }
}
