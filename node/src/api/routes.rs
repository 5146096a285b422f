//! The routes: one table, from which the router is built and which the OpenAPI document is checked against.

mod blob;
pub(super) mod job;
pub(super) mod log;
mod observer;
mod query;
mod registry;

use std::collections::BTreeMap;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::id::{MessageId, NodeId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::query::Query;
use super::backend::Answer;
use super::error::{ApiError, MESSAGE_CHARS_MAX, QUOTED_CHARS_MAX, cut, quoted};
use super::sse::{self, Slot};
use super::types::{ErrorCode, Health, InviteView, PublishRequest, ValueError, object, unfit_integer};
use super::{Shared, openapi};

/// The media type of `/metrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a body with a payload looks like.
const DATA: &str = "{\"data\": \"text\"} or {\"data_base64\": \"…\"}";

/// What to do about a body that does not come.
const SEND_AT_ONCE: &str = "send as many bytes as `Content-Length` says, without a pause; what is between client and node may be slow";

/// A method on a path.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// Whether it is answered without the token.
    pub(super) is_open: bool,
    /// What may follow the `?`.
    pub(super) parameters: &'static [&'static str],
    handler: Handler,
}

impl Route {
    const fn with(mut self, parameters: &'static [&'static str]) -> Self {
        self.parameters = parameters;
        self
    }
}

type Handler = fn(Call) -> LocalBoxFuture<'static, Result<HttpResponse, ApiError>>;

/// Everything there is. `HEAD` is answered wherever `GET` is.
#[rustfmt::skip]
pub(super) const ROUTES: [Route; 60] = [
    Route { method: Method::GET, path: "/livez", is_open: true, parameters: &[], handler: |call| Box::pin(livez(call)) },
    Route { method: Method::GET, path: "/readyz", is_open: true, parameters: &[], handler: |call| Box::pin(readyz(call)) },
    Route { method: Method::GET, path: "/metrics", is_open: true, parameters: &[], handler: |call| Box::pin(metrics(call)) },
    get("/api/v1/openapi.json", |call| Box::pin(openapi_document(call))),
    get("/api/v1/status", |call| Box::pin(status(call))),
    get("/api/v1/members", |call| Box::pin(members(call))),
    get("/api/v1/peers", |call| Box::pin(peers(call))),
    get("/api/v1/step", |call| Box::pin(step(call))),
    get("/api/v1/anomalies", |call| Box::pin(observer::anomalies(call))).with(&["kind", "accused", "since", "severity"]),
    get("/api/v1/events", |call| Box::pin(events(call))),
    get("/api/v1/invite", |call| Box::pin(invite(call))),
    get("/api/v1/why/messages/{id}", |call| Box::pin(why_message(call))),
    get("/api/v1/why/peers/{id}", |call| Box::pin(why_peer(call))),
    get("/api/v1/why/step", |call| Box::pin(observer::why_step(call))),
    get("/api/v1/why/steps/{step}", |call| Box::pin(observer::why_one_step(call))),
    get("/api/v1/alerts", |call| Box::pin(observer::alerts(call))),
    route(Method::POST, "/api/v1/alerts/{id}/ack", |call| Box::pin(observer::acknowledge(call))),
    get("/api/v1/monitor", |call| Box::pin(observer::monitor(call))),
    get("/api/v1/quarantine", |call| Box::pin(quarantines(call))),
    route(Method::DELETE, "/api/v1/quarantine/{peer}", |call| Box::pin(lift(call))),
    route(Method::POST, "/api/v1/channels/{name}/messages", |call| Box::pin(publish(call))),
    get("/api/v1/channels/{name}/events", |call| Box::pin(subscribe(call))),
    route(Method::POST, "/api/v1/log/entries", |call| Box::pin(log::append(call))),
    route(Method::POST, "/api/v1/log/batches", |call| Box::pin(log::append_batch(call))),
    get("/api/v1/log/entries", |call| Box::pin(log::entries(call))).with(&["author", "from", "limit"]),
    get("/api/v1/log/events", |call| Box::pin(log::events(call))),
    get("/api/v1/log/heads", |call| Box::pin(log::heads(call))),
    get("/api/v1/log/gaps", |call| Box::pin(log::gaps(call))),
    get("/api/v1/log/status", |call| Box::pin(log::status(call))),
    get("/api/v1/log/proofs", |call| Box::pin(log::proofs(call))),
    get("/api/v1/log/backup", |call| Box::pin(log::backup(call))),
    get("/api/v1/blobs", |call| Box::pin(blob::list(call))),
    route(Method::POST, "/api/v1/blobs", |call| Box::pin(blob::put(call))).with(&["pin"]),
    get("/api/v1/blobs/{hash}", |call| Box::pin(blob::get(call))),
    route(Method::DELETE, "/api/v1/blobs/{hash}", |call| Box::pin(blob::remove(call))),
    route(Method::PUT, "/api/v1/blobs/{hash}/pin", |call| Box::pin(blob::pin(call))),
    route(Method::DELETE, "/api/v1/blobs/{hash}/pin", |call| Box::pin(blob::unpin(call))),
    get("/api/v1/jobs", |call| Box::pin(job::list(call))).with(&["prefix", "state", "limit"]),
    route(Method::POST, "/api/v1/jobs", |call| Box::pin(job::submit(call))).with(&["check"]),
    get("/api/v1/jobs/events", |call| Box::pin(job::all_events(call))),
    get("/api/v1/jobs/{id}", |call| Box::pin(job::show(call))),
    get("/api/v1/jobs/{id}/tasks", |call| Box::pin(job::tasks(call))).with(&["state", "name", "from", "limit"]),
    get("/api/v1/jobs/{id}/graph", |call| Box::pin(job::graph(call))),
    get("/api/v1/jobs/{id}/log", |call| Box::pin(job::log(call))).with(&["format"]),
    get("/api/v1/jobs/{id}/events", |call| Box::pin(job::events(call))),
    route(Method::POST, "/api/v1/jobs/{id}/cancel", |call| Box::pin(job::cancel(call))),
    route(Method::POST, "/api/v1/jobs/{id}/retry", |call| Box::pin(job::retry(call))),
    get("/api/v1/why/jobs/{id}", |call| Box::pin(job::why(call))).with(&["task"]),
    get("/api/v1/workers", |call| Box::pin(job::workers(call))),
    get("/api/v1/registry", |call| Box::pin(registry::list(call))).with(&["kind", "prefix", "where", "after", "limit"]),
    get("/api/v1/registry/search", |call| Box::pin(registry::search(call))).with(&["q", "kind", "limit"]),
    get("/api/v1/registry/events", |call| Box::pin(registry::events(call))),
    route(Method::POST, "/api/v1/registry/links", |call| Box::pin(registry::link(call))),
    route(Method::DELETE, "/api/v1/registry/links", |call| Box::pin(registry::unlink(call))).with(&["from", "relation", "to", "replicas"]),
    get("/api/v1/registry/{kind}/{name}", |call| Box::pin(registry::get(call))),
    route(Method::PUT, "/api/v1/registry/{kind}/{name}", |call| Box::pin(registry::put(call))),
    route(Method::PATCH, "/api/v1/registry/{kind}/{name}", |call| Box::pin(registry::update(call))),
    route(Method::DELETE, "/api/v1/registry/{kind}/{name}", |call| Box::pin(registry::delete(call))).with(&["replicas"]),
    get("/api/v1/registry/{kind}/{name}/links", |call| Box::pin(registry::links(call))).with(&["relation", "direction"]),
    get("/api/v1/registry/{kind}/{name}/walk", |call| Box::pin(registry::walk(call))).with(&["relation", "direction", "depth", "limit"]),
];

const fn route(method: Method, path: &'static str, handler: Handler) -> Route {
    Route { method, path, is_open: false, parameters: &[], handler }
}

const fn get(path: &'static str, handler: Handler) -> Route {
    route(Method::GET, path, handler)
}

/// Builds the router from the table.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    let mut paths: BTreeMap<&str, Vec<Route>> = BTreeMap::new();
    for route in ROUTES {
        paths.entry(route.path).or_default().push(route);
    }
    for (path, routes) in paths {
        let mut resource = web::resource(path);
        let mut allowed = Vec::new();
        for Route { method, is_open, parameters, handler, .. } in routes {
            let methods = if method == Method::GET { vec![method, Method::HEAD] } else { vec![method] };
            for method in methods {
                resource = resource.route(web::method(method.clone()).to(
                    move |shared: web::Data<Shared>, request: HttpRequest, payload: web::Payload| {
                        let call = Call { shared, request, payload, query: Query::default() };
                        answer(is_open, parameters, handler, call)
                    },
                ));
                allowed.push(method);
            }
        }
        config.service(resource.default_service(web::to(move |request: HttpRequest| {
            let error = ApiError::new(
                ErrorCode::MethodNotAllowed,
                format!("{} is not a method of this path", request.method()),
                "the `Allow` header lists them",
            );
            std::future::ready(Err::<HttpResponse, _>(error.allow(allowed.clone())))
        })));
    }
}

/// What a path gets that is in no route.
pub(super) async fn not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(
        ErrorCode::NotFound,
        "there is nothing at this path",
        "/api/v1/openapi.json lists the paths",
    ))
}

async fn answer(
    is_open: bool,
    parameters: &[&str],
    handler: Handler,
    mut call: Call,
) -> Result<HttpResponse, ApiError> {
    if is_open {
        // Whoever probes or scrapes may add what it likes.
        return handler(call).await;
    }
    if !call.shared.carries_token(call.request.headers()) {
        return Err(ApiError::new(
            ErrorCode::Unauthorized,
            "the API token is missing or wrong",
            "send `Authorization: Bearer <token>` with the token in the file `api-token` of the node's data directory",
        ));
    }
    query::check_path(call.request.uri().path())?;
    call.query = Query::of(call.request.query_string(), parameters)?;
    handler(call).await
}

/// A request in its handler.
struct Call {
    shared: web::Data<Shared>,
    request: HttpRequest,
    payload: web::Payload,
    query: Query,
}

impl Call {
    /// Waits for the node, but not for ever.
    async fn wait<T, E>(&self, answer: Answer<'_, T, E>) -> Result<T, ApiError>
    where
        ApiError: From<E>,
    {
        let limit = self.shared.timeouts.request;
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(ApiError::from),
            Err(_) => Err(ApiError::new(
                ErrorCode::Timeout,
                format!("the node did not answer within {limit:?}"),
                "it is overloaded or stuck; its log tells more",
            )),
        }
    }

    async fn json<T: Serialize, E>(&self, answer: Answer<'_, T, E>) -> Result<HttpResponse, ApiError>
    where
        ApiError: From<E>,
    {
        Ok(HttpResponse::Ok().json(self.wait(answer).await?))
    }

    /// The part of the path with this name; the router has decoded it, but for `%2F`.
    fn part(&self, name: &str) -> &str {
        self.request.match_info().get(name).unwrap_or_default()
    }

    /// A channel that is anybody's.
    fn channel(&self) -> Result<Channel, ApiError> {
        let channel = Channel::new(self.part("name"))?;
        if !channel.is_reserved() {
            return Ok(channel);
        }
        let message = format!(
            "the channel name {channel} is reserved: those that begin with '_' are the protocol's own"
        );
        Err(ApiError::new(ErrorCode::InvalidChannel, message, "for example `news` or `room-1.door`"))
    }

    fn slot(&self) -> Result<Slot, ApiError> {
        Slot::take(&self.shared).ok_or_else(|| {
            ApiError::new(
                ErrorCode::Overloaded,
                format!("{} streams of events are open already", self.shared.config.streams_max),
                "close one, or raise `api.streams_max`",
            )
            .retry_after(std::time::Duration::from_secs(1))
        })
    }

    fn is_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }

    /// The body, as the JSON document that it must be; `like` shows one.
    async fn document<T: DeserializeOwned>(&mut self, like: &str) -> Result<T, ApiError> {
        check_media_type(self.request.headers())?;
        read_document(&self.body().await?, like)
    }

    /// The body, whole, within the limits of size and time.
    async fn body(&mut self) -> Result<Vec<u8>, ApiError> {
        let limit = self.shared.timeouts.request;
        let bytes_max = self.shared.config.body_bytes_max;
        let read = read_body(self.request.headers(), &mut self.payload, bytes_max);
        tokio::time::timeout(limit, read).await.unwrap_or_else(|_| {
            let message = format!("the body did not arrive within {limit:?}");
            Err(ApiError::new(ErrorCode::RequestTimeout, message, SEND_AT_ONCE))
        })
    }
}

fn read_document<T: DeserializeOwned>(body: &[u8], like: &str) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = object(&mut json).and_then(|document| json.end().map(|()| document));
    let document = read.map_err(|error| {
        let said = error.to_string();
        let message = format!("the body is not what is expected: {}", cut(&said, MESSAGE_CHARS_MAX));
        ApiError::new(ErrorCode::InvalidJson, message, format!("send {like}"))
    })?;
    match std::str::from_utf8(body).ok().and_then(unfit_integer) {
        None => Ok(document),
        Some((keys, integer)) => {
            let integer = cut(integer, QUOTED_CHARS_MAX).into_owned();
            Err(ApiError::from(ValueError::Integer(integer)).at(&keys))
        }
    }
}

async fn read_body(
    headers: &HeaderMap,
    payload: &mut web::Payload,
    bytes_max: usize,
) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        ApiError::new(
            ErrorCode::TooLarge,
            format!("the body is over the limit of {bytes_max} bytes"),
            "send less: a message is at most `gossip.message_bytes_max`, a request `api.body_bytes_max`",
        )
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let said = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if said.is_some_and(|said| usize::try_from(said).map_or(true, |said| said > bytes_max)) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(part) = payload.next().await {
        let part = part.map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the body cannot be read: {error}"), SEND_AT_ONCE)
        })?;
        if body.len().saturating_add(part.len()) > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// Only JSON, as it is.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"));
    if is_json {
        return check_encoding(headers);
    }
    Err(ApiError::new(
        ErrorCode::UnsupportedMediaType,
        "the body is not `application/json`",
        "send `Content-Type: application/json`",
    ))
}

/// Nothing is unpacked here.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let encoding = quoted(&String::from_utf8_lossy(encoding.as_bytes()));
            let message = format!("the body is encoded as {encoding}");
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, message, "send it without `Content-Encoding`"))
        }
        _ => Ok(()),
    }
}

async fn livez(_: Call) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(Health { status: "live".to_owned() }))
}

async fn readyz(call: Call) -> Result<HttpResponse, ApiError> {
    call.shared.backend.readiness()?;
    Ok(HttpResponse::Ok().json(Health { status: "ready".to_owned() }))
}

async fn metrics(call: Call) -> Result<HttpResponse, ApiError> {
    let text = call.wait(call.shared.backend.metrics_text()).await?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, OPEN_METRICS)).body(text))
}

async fn openapi_document(_: Call) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(openapi::document()))
}

async fn status(call: Call) -> Result<HttpResponse, ApiError> {
    let mut status = call.wait(call.shared.backend.status()).await?;
    status.api = call.shared.address.to_string();
    Ok(HttpResponse::Ok().json(status))
}

async fn members(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.members()).await
}

async fn peers(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.peers()).await
}

async fn step(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.step()).await
}

async fn invite(call: Call) -> Result<HttpResponse, ApiError> {
    let invite = call.wait(call.shared.backend.invite()).await?;
    Ok(HttpResponse::Ok().json(InviteView::from(&invite)))
}

async fn why_message(call: Call) -> Result<HttpResponse, ApiError> {
    let id: MessageId = call.part("id").parse().map_err(|error| {
        ApiError::new(
            ErrorCode::BadRequest,
            format!("the message id {} is {error}", quoted(call.part("id"))),
            "`publish` and `subscribe` print the ids of messages",
        )
    })?;
    match call.wait(call.shared.backend.why_message(id)).await? {
        Some(why) => Ok(HttpResponse::Ok().json(why)),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            "this node knows nothing of that message",
            "it never arrived here, or it was so long ago that it is forgotten; ask the node that published it",
        )),
    }
}

async fn why_peer(call: Call) -> Result<HttpResponse, ApiError> {
    match call.wait(call.shared.backend.why_peer(call.part("id").to_owned())).await? {
        Some(why) => Ok(HttpResponse::Ok().json(why)),
        None => Err(ApiError::new(
            ErrorCode::BadRequest,
            format!("{} is not the id of a peer", quoted(call.part("id"))),
            "`members` and `peers` list those that this node knows",
        )),
    }
}

async fn quarantines(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.quarantines()).await
}

async fn lift(call: Call) -> Result<HttpResponse, ApiError> {
    let peer: NodeId = call.part("peer").parse().map_err(|error| {
        let message = format!("{} is {error}", quoted(call.part("peer")));
        ApiError::new(ErrorCode::BadRequest, message, "`quarantine list` shows who is in quarantine")
    })?;
    match call.wait(call.shared.backend.lift(peer)).await? {
        Some(quarantine) => Ok(HttpResponse::Ok().json(quarantine)),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            "that peer is not in quarantine at this node",
            "`quarantine list` shows who is",
        )),
    }
}

async fn publish(mut call: Call) -> Result<HttpResponse, ApiError> {
    let channel = call.channel()?;
    let request: PublishRequest = call.document(DATA).await?;
    let published = call.wait(call.shared.backend.publish(channel, request.payload.into_bytes())).await?;
    Ok(HttpResponse::Ok().json(published))
}

async fn subscribe(call: Call) -> Result<HttpResponse, ApiError> {
    let channel = call.channel()?;
    if call.is_head() {
        return Ok(sse::respond_head());
    }
    let slot = call.slot()?;
    let feed = call.wait(call.shared.backend.subscribe(channel)).await?;
    Ok(sse::respond(&call.shared, slot, feed))
}

async fn events(call: Call) -> Result<HttpResponse, ApiError> {
    if call.is_head() {
        return Ok(sse::respond_head());
    }
    let slot = call.slot()?;
    let feed = call.wait(call.shared.backend.events()).await?;
    Ok(sse::respond(&call.shared, slot, feed))
}
