//! The admin API over HTTP: `/metrics`, `/status`, `/healthz`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::{TcpListener, TcpSocket};

use super::metrics::{CONTENT_TYPE, Exposition};
use super::state::DaemonState;

/// Connections that may wait to be taken.
const BACKLOG_CONNECTIONS: u32 = 128;

/// Why the admin API cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "daemon.admin: cannot listen on {address}: {source}; another daemon may be running, or choose another address"
)]
pub struct AdminError {
    /// The address.
    pub address: SocketAddr,
    /// The kernel's reason.
    pub source: io::Error,
}

#[derive(Clone)]
struct Shared {
    state: Arc<DaemonState>,
    exposition: Arc<Exposition>,
}

/// The admin API's address, taken before there is anything to tell: nobody can connect yet.
#[derive(Debug)]
pub struct BoundAdmin {
    address: SocketAddr,
    socket: TcpSocket,
}

impl BoundAdmin {
    /// Takes it; needs a tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A daemon that is started again must not wait for its predecessor's last connections to time out.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| AdminError { address, source })?;
        Ok(Self { address, socket })
    }

    /// Lets clients connect; needs a tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn listen(self, state: Arc<DaemonState>) -> Result<Admin, AdminError> {
        let Self { address, socket } = self;
        let listener = socket.listen(BACKLOG_CONNECTIONS).map_err(|source| AdminError { address, source })?;
        Ok(Admin { listener, state })
    }
}

/// The admin API, listening.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    state: Arc<DaemonState>,
}

impl Admin {
    /// Where it is bound; the kernel chose the port when the configuration's was 0.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the runtime ends.
    ///
    /// # Errors
    /// When the listening socket fails.
    pub async fn serve(self) -> io::Result<()> {
        axum::serve(self.listener, router(self.state)).await
    }
}

fn router(state: Arc<DaemonState>) -> Router {
    let exposition = Arc::new(Exposition::new(Arc::clone(&state)));
    Router::new()
        .route("/", get(|| async { "/metrics (Prometheus), /status (JSON), /healthz\n" }))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/healthz", get(healthz))
        .with_state(Shared { state, exposition })
}

/// Both ask the kernel for the verdicts, and wait while an interface is attached anew: not on the runtime's few
/// threads, which `/healthz` and the signals need.
async fn status(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || shared.state.report()).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => failure(&error),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || shared.exposition.text()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failure(&error),
        Err(error) => failure(&error),
    }
}

fn failure(error: &dyn std::error::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

async fn healthz(State(shared): State<Shared>) -> Response {
    if shared.state.is_healthy() {
        return "ready\n".into_response();
    }
    let why = match shared.state.stale_workers() {
        _ if shared.state.is_stopping() => "stopping\n".to_owned(),
        stale if stale.is_empty() => "starting\n".to_owned(),
        stale => format!("no heartbeat of workers {stale:?}\n"),
    };
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
