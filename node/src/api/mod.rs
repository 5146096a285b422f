//! The node's HTTP API: how the command line, scripts and dashboards talk to a node.
//!
//! ```text
//!   client ── HTTP/1.1 ──► guard ──► routes ──► Backend (the node)
//!                          Host,     token,      answers, feeds
//!                          Origin,   limits,
//!                          rate      JSON
//! ```
//!
//! `/livez`, `/readyz` and `/metrics` answer anybody; all else is under `/api/v1/` and needs the token of the data
//! directory. Answers are JSON ([`types`]) or server-sent events; every error is
//! `{"error":{"code","message","hint"}}`. `GET /api/v1/openapi.json` describes it all.
//!
//! A thin shell: it checks who asks and what, hands it to the [`Backend`], and writes the answer down. It decides
//! nothing about the mesh.
//!
//! Bounds: connections, open streams, what a stream holds for a slow reader, the size of a body, the time for a
//! request's head, body and answer, and requests per second: [`ApiConfig`] and [`Timeouts`]. A refusal names its setting.
//!
//! What it does not do: TLS (put a proxy before it to leave the host), roles (there is one token), HTTP/2, and JSON for
//! what is not HTTP at all: bytes that cannot be parsed get a bare 400, 408 or 431, and the connection closes.

pub mod backend;
pub mod token;
pub mod types;

mod error;
mod guard;
mod metrics;
mod openapi;
mod rate;
mod routes;
mod sse;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::http::header::{self, HeaderMap};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use omnimesh_protocol::config::ApiConfig;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use self::backend::Backend;
use self::guard::{Client, Hosts};
pub use self::metrics::ApiMetrics;
use self::rate::RateLimiter;
use self::token::ApiToken;

/// Threads that serve. Handlers only pass on, so two keep one slow answer from holding up the rest.
const WORKERS: usize = 2;
/// The shortest timeout that the server below can keep: its clock ticks twice a second.
const SERVER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// How long open requests may take when the API stops.
const STOP_TIMEOUT_S: u64 = 2;

/// How long things may take: no settings, for nobody has yet had to change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The head of a request (at least 1 s), its body, and the node's answer, each. Default 10 s (guess).
    pub request: Duration,
    /// An idle connection of a client with the token, at least 1 s. Default 15 s (guess).
    pub keep_alive: Duration,
    /// The silence of a stream, after which it says that it is alive; must be shorter than what proxies wait. Default
    /// 15 s: the WHATWG HTML specification's advice.
    pub stream_keep_alive: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            request: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
            stream_keep_alive: Duration::from_secs(15),
        }
    }
}

/// Why the API does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process listens there.
    #[error(
        "the API address {address} is in use by another process: stop it, or set `api.listen` (`--api`) to another \
         address"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("the API cannot listen on {address}: {error}; set `api.listen` (`--api`) to another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// A setting is wrong.
    #[error("`{setting}`: {reason}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Starts the API on threads of its own. Must be called within a Tokio or Actix runtime.
///
/// # Errors
/// The address cannot be listened on, or a setting is wrong.
pub fn serve(
    config: ApiConfig,
    timeouts: Timeouts,
    backend: Arc<dyn Backend>,
    token: ApiToken,
    metrics: ApiMetrics,
) -> Result<ApiServer, ServeError> {
    let listener = TcpListener::bind(config.listen).map_err(|error| listen_error(config.listen, error))?;
    let address = listener.local_addr().map_err(|error| listen_error(config.listen, error))?;
    let hosts = Hosts::new(address, &config.allowed_hosts, &config.allowed_origins)
        .map_err(|(setting, reason)| ServeError::Setting { setting, reason })?;
    let (stop, stopping) = watch::channel(false);
    let shared = web::Data::new(Shared {
        rate: Mutex::new(RateLimiter::new(config.requests_per_s, config.requests_burst)),
        streams: Arc::new(Semaphore::new(config.streams_max.min(Semaphore::MAX_PERMITS))),
        started: Instant::now(),
        address,
        hosts,
        token,
        backend,
        metrics,
        stopping,
        config,
        timeouts,
    });
    let state = shared.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(guard::guard))
            .configure(routes::configure)
            .default_service(web::to(routes::not_found))
    })
    .workers(WORKERS)
    .max_connections(shared.config.connections_max.div_ceil(WORKERS).max(1))
    .client_request_timeout(shared.timeouts.request.max(SERVER_TIMEOUT_MIN))
    .keep_alive(shared.timeouts.keep_alive.max(SERVER_TIMEOUT_MIN))
    // A subscriber that closes its end is gone: its subscription must not outlive it.
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .shutdown_timeout(STOP_TIMEOUT_S)
    .disable_signals()
    .listen(listener)
    .map_err(|error| listen_error(address, error))?
    .run();
    let handle = server.handle();
    Ok(ApiServer { address, stop, handle, task: Some(tokio::spawn(server)) })
}

fn listen_error(address: SocketAddr, error: io::Error) -> ServeError {
    if error.kind() == io::ErrorKind::AddrInUse {
        ServeError::AddressInUse { address }
    } else {
        ServeError::Listen { address, error }
    }
}

/// The running API. Dropping it stops it at once; [`ApiServer::stop`] lets open requests finish.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    handle: ServerHandle,
    task: Option<JoinHandle<io::Result<()>>>,
}

impl ApiServer {
    /// Where it listens, with the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: ends the event streams now, lets open requests finish for two seconds, then closes what is left.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.handle.stop(true).await;
        if let Some(task) = self.task.take()
            && let Ok(Err(error)) = task.await
        {
            tracing::warn!(%error, "the API did not stop cleanly");
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if self.task.is_some() {
            self.stop.send_replace(true);
            // The command is sent by the call; only its completion would have to be awaited.
            drop(self.handle.stop(false));
        }
    }
}

/// What all handlers share.
struct Shared {
    config: ApiConfig,
    timeouts: Timeouts,
    address: SocketAddr,
    hosts: Hosts,
    token: ApiToken,
    backend: Arc<dyn Backend>,
    metrics: ApiMetrics,
    rate: Mutex<RateLimiter<Client>>,
    started: Instant,
    streams: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Shared {
    fn carries_token(&self, headers: &HeaderMap) -> bool {
        headers.get(header::AUTHORIZATION).is_some_and(|value| self.token.is_carried_by(value.as_bytes()))
    }

    fn admit_rate(&self, client: Client) -> Result<(), Duration> {
        let now = self.started.elapsed();
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).admit(client, now)
    }
}
