//! The OpenAPI 3.1 document of the API, written by hand: tests check it against the routes and the documents.

mod blob;
mod durable;
mod job;
mod observer;

use omnimesh_protocol::config::Part;
use omnimesh_protocol::envelope::CHANNEL_BYTES_MAX;
use serde_json::{Map, Value, json};

use self::durable::{query, whole, with_parameters};
use super::error::status_of;
use super::types::{AnomalyKind, ErrorCode};

/// Every code that the API answers with.
const CODES: [ErrorCode; 20] = [
    ErrorCode::BadRequest,
    ErrorCode::InvalidJson,
    ErrorCode::InvalidChannel,
    ErrorCode::InvalidJob,
    ErrorCode::Unauthorized,
    ErrorCode::ForbiddenHost,
    ErrorCode::ForbiddenOrigin,
    ErrorCode::NotFound,
    ErrorCode::MethodNotAllowed,
    ErrorCode::RequestTimeout,
    ErrorCode::TooLarge,
    ErrorCode::UnsupportedMediaType,
    ErrorCode::Refused,
    ErrorCode::RateLimited,
    ErrorCode::Internal,
    ErrorCode::NotReady,
    ErrorCode::Overloaded,
    ErrorCode::Stopping,
    ErrorCode::Timeout,
    ErrorCode::StorageFull,
];

/// The document.
pub(super) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "OmniMesh node",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "How programs talk to a node. Byte strings are lower-case hex; payloads are `data` (UTF-8 \
                text) or `data_base64`. Readers ignore fields they do not know. `HEAD` is answered wherever `GET` is.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:7412", "description": "the default" }],
        "security": [{ "token": [] }],
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The content of the file `api-token` in the node's data directory.",
                },
            },
            "schemas": schemas(),
        },
    })
}

fn paths() -> Value {
    let mut paths = Map::new();
    for some in [node_paths(), trust_paths(), channel_paths()] {
        if let Value::Object(some) = some {
            paths.extend(some);
        }
    }
    blob::add_paths(&mut paths);
    durable::add_paths(&mut paths);
    job::add_paths(&mut paths);
    observer::add_paths(&mut paths);
    Value::Object(paths)
}

fn node_paths() -> Value {
    json!({
        "/livez": { "get": open(operation("livez", "Whether the process lives", ok("Health"), &[])) },
        "/readyz": {
            "get": open(operation(
                "readyz", "Whether the node takes part in the mesh", ok("Health"), &[ErrorCode::NotReady],
            )),
        },
        "/metrics": {
            "get": open(operation("metrics", "All metrics, as OpenMetrics text", text(), BACKEND)),
        },
        "/api/v1/openapi.json": {
            "get": operation("openapi", "This document", answer("application/json", &json!({"type": "object"})), &[]),
        },
        "/api/v1/status": { "get": operation("status", "What the node is and where it stands", ok("Status"), BACKEND) },
        "/api/v1/members": { "get": operation("members", "The members of the mesh", list("Member"), BACKEND) },
        "/api/v1/peers": { "get": operation("peers", "The connected peers", list("Peer"), BACKEND) },
        "/api/v1/step": { "get": operation("step", "The mesh's clock", ok("Step"), BACKEND) },
        "/api/v1/events": {
            "get": operation(
                "events",
                "The node's events from now on: `event` is the type, `data` an Event; `lagged` with a Lagged tells \
                 what was dropped because the reader was slow",
                stream("Event"),
                BACKEND,
            ),
        },
        "/api/v1/invite": {
            "get": operation("invite", "The invite token, which holds the mesh secret", ok("Invite"), BACKEND),
        },
    })
}

fn trust_paths() -> Value {
    json!({
        "/api/v1/anomalies": {
            "get": with_parameters(
                operation(
                    "anomalies",
                    "What ought not to be, newest last",
                    list("Anomaly"),
                    &[BACKEND, &[ErrorCode::BadRequest]].concat(),
                ),
                &[
                    query("kind", "Only of this kind", &string()),
                    query("accused", "Only against this peer", &string()),
                    query("since", "Only what was seen in this step or later", &whole(0)),
                    query("severity", "Only as bad as this, or worse: info, warning or critical", &string()),
                ],
            ),
        },
        "/api/v1/quarantine": {
            "get": operation("quarantines", "Who is shut out, and for how long", list("Quarantine"), BACKEND),
        },
        "/api/v1/quarantine/{peer}": {
            "parameters": [parameter("peer", "The peer's id", &string())],
            "delete": operation(
                "liftQuarantine",
                "Lets somebody in again, who is pardoned for all that it signed until now",
                ok("Quarantine"),
                &[BACKEND, &[ErrorCode::BadRequest, ErrorCode::NotFound]].concat(),
            ),
        },
        "/api/v1/why/peers/{id}": {
            "parameters": [parameter("id", "The peer's id", &string())],
            "get": operation(
                "whyPeer",
                "Why this node thinks of a peer what it does, and the way back",
                ok("WhyPeer"),
                &[BACKEND, &[ErrorCode::BadRequest]].concat(),
            ),
        },
        "/api/v1/why/messages/{id}": {
            "parameters": [parameter("id", "The message's id", &hex(40))],
            "get": operation(
                "whyMessage",
                "What happened to a message",
                ok("WhyMessage"),
                &[BACKEND, &[ErrorCode::BadRequest, ErrorCode::NotFound]].concat(),
            ),
        },
    })
}

fn channel_paths() -> Value {
    json!({
        "/api/v1/channels/{name}/messages": {
            "parameters": [channel_parameter()],
            "post": with_body(
                operation(
                    "publish",
                    "Publishes an ephemeral message",
                    ok("Published"),
                    &[
                        BACKEND,
                        &[
                            ErrorCode::InvalidChannel,
                            ErrorCode::InvalidJson,
                            ErrorCode::BadRequest,
                            ErrorCode::RequestTimeout,
                            ErrorCode::TooLarge,
                            ErrorCode::UnsupportedMediaType,
                            ErrorCode::Refused,
                            ErrorCode::NotReady,
                        ],
                    ]
                    .concat(),
                ),
                "PublishRequest",
            ),
        },
        "/api/v1/channels/{name}/events": {
            "parameters": [channel_parameter()],
            "get": operation(
                "subscribe",
                "The channel's messages from now on: `event: message` with a Message; `event: lagged` with a Lagged \
                 tells what was dropped because the reader was slow",
                stream("Message"),
                &[BACKEND, &[ErrorCode::InvalidChannel]].concat(),
            ),
        },
    })
}

/// What can go wrong wherever the node is asked.
const BACKEND: &[ErrorCode] = &[
    ErrorCode::RateLimited,
    ErrorCode::Internal,
    ErrorCode::Overloaded,
    ErrorCode::Stopping,
    ErrorCode::Timeout,
];

/// What can go wrong with every request.
const EVERYWHERE: &[ErrorCode] = &[
    ErrorCode::BadRequest,
    ErrorCode::Unauthorized,
    ErrorCode::ForbiddenHost,
    ErrorCode::ForbiddenOrigin,
    ErrorCode::MethodNotAllowed,
];

fn operation(id: &str, summary: &str, ok: Value, errors: &[ErrorCode]) -> Value {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), ok);
    let mut by_status = std::collections::BTreeMap::<String, Vec<String>>::new();
    for code in EVERYWHERE.iter().chain(errors) {
        let names = by_status.entry(status_of(*code).as_str().to_owned()).or_default();
        let name = format!("`{}`", name_of(*code));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for (status, codes) in by_status {
        let mut response = answer("application/json", &reference("Error"));
        response["description"] = codes.join(" or ").into();
        responses.insert(status, response);
    }
    json!({ "operationId": id, "summary": summary, "responses": responses })
}

/// An operation that needs no token, and does not look at parameters.
fn open(mut operation: Value) -> Value {
    operation["security"] = json!([]);
    if let Some(responses) = operation["responses"].as_object_mut() {
        responses.remove("400");
        responses.remove("401");
    }
    operation
}

fn with_body(mut operation: Value, schema: &str) -> Value {
    operation["requestBody"] =
        json!({ "required": true, "content": { "application/json": { "schema": reference(schema) } } });
    operation
}

fn name_of(code: ErrorCode) -> String {
    match serde_json::to_value(code) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn answer(media_type: &str, schema: &Value) -> Value {
    let mut content = Map::new();
    content.insert(media_type.to_owned(), json!({ "schema": schema }));
    json!({ "description": "ok", "content": content })
}

fn ok(schema: &str) -> Value {
    answer("application/json", &reference(schema))
}

fn list(schema: &str) -> Value {
    answer("application/json", &json!({ "type": "array", "items": reference(schema) }))
}

fn text() -> Value {
    answer("application/openmetrics-text", &json!({ "type": "string" }))
}

fn stream(schema: &str) -> Value {
    let description = format!("server-sent events; the data of each is a {schema} or a Lagged");
    answer(super::sse::EVENT_STREAM, &json!({ "type": "string", "description": description }))
}

fn parameter(name: &str, description: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn channel_parameter() -> Value {
    let pattern = "^[A-Za-z0-9._-]+$";
    parameter(
        "name",
        "The channel",
        &json!({ "type": "string", "pattern": pattern, "minLength": 1, "maxLength": CHANNEL_BYTES_MAX }),
    )
}

// --- schemas --------------------------------------------------------------

fn schemas() -> Value {
    let mut schemas = Map::new();
    let mut add = |name: &str, schema| schemas.insert(name.to_owned(), schema);
    add("Health", object(&[("status", one_of(&["live", "ready"]))], &[]));
    add("Status", status());
    add("MemoryPart", memory_part());
    add("Member", member());
    add("Peer", peer());
    add("Step", step());
    add("Message", message());
    add("PublishRequest", publish_request());
    add("Published", published());
    add("Lagged", object(&[("lost", count())], &[]));
    add("Anomaly", anomaly());
    add("Quarantine", quarantine());
    add("TrustChange", trust_change());
    add("WhyPeer", why_peer());
    add("WhyMessage", why_message());
    add("WhyRecord", why_record());
    add("Standing", standing());
    add("Invite", object(&[("invite", string()), ("this_machine_only", boolean())], &[]));
    add("Event", event());
    add("Error", error());
    blob::add_schemas(&mut schemas);
    durable::add_schemas(&mut schemas);
    job::add_schemas(&mut schemas);
    observer::add_schemas(&mut schemas);
    Value::Object(schemas)
}

/// An object with fields that are always there, and others that may be missing.
fn object(always: &[(&str, Value)], sometimes: &[(&str, Value)]) -> Value {
    let required: Vec<_> = always.iter().map(|(name, _)| *name).collect();
    let properties: Map<_, _> =
        always.iter().chain(sometimes).map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn string() -> Value {
    json!({ "type": "string" })
}

fn strings() -> Value {
    json!({ "type": "array", "items": string() })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn hex(digits: u32) -> Value {
    json!({ "type": "string", "pattern": format!("^[0-9a-f]{{{digits}}}$") })
}

fn one_of(names: &[&str]) -> Value {
    json!({ "type": "string", "enum": names })
}

fn nullable(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    if let Some(names) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        names.push(Value::Null);
    }
    schema
}

fn base64() -> Value {
    json!({ "type": "string", "contentEncoding": "base64" })
}

fn status() -> Value {
    object(
        &[
            ("peer_id", string()),
            ("mesh_id", hex(32)),
            ("mesh_name", string()),
            ("step", count()),
            ("phase", count()),
            ("step_interval_ms", count()),
            ("peers", count()),
            ("members", count()),
            ("uptime_s", count()),
            ("version", string()),
            ("listen", strings()),
            ("api", string()),
            ("ready", boolean()),
            ("verified_delivery", string()),
            ("probes", reference("Probes")),
            ("memory", json!({ "type": "array", "items": reference("MemoryPart") })),
        ],
        &[("not_ready_reason", string()), ("log_trouble", string())],
    )
}

fn memory_part() -> Value {
    object(
        &[
            ("part", one_of(&Part::ALL.map(Part::name))),
            ("budget_bytes", count()),
            ("used_bytes", nullable(count())),
            ("shed", count()),
        ],
        &[],
    )
}

fn member() -> Value {
    object(
        &[
            ("peer_id", string()),
            ("state", one_of(&["alive", "suspect", "dead", "left", "quarantined"])),
            ("step", nullable(count())),
            ("addresses", strings()),
            ("last_seen_ms", count()),
            ("rtt_ms", nullable(number())),
            ("this_node", boolean()),
        ],
        &[],
    )
}

fn peer() -> Value {
    object(
        &[
            ("peer_id", string()),
            ("addresses", strings()),
            ("direction", one_of(&["inbound", "outbound"])),
            ("protocol", nullable(string())),
            ("agent", nullable(string())),
            ("member", boolean()),
            ("score", number()),
            ("rtt_ms", nullable(number())),
            ("connected_s", count()),
        ],
        &[],
    )
}

fn step() -> Value {
    object(
        &[
            ("step", count()),
            ("phase", count()),
            ("mesh_time_ms", count()),
            ("offset_ms", number()),
            ("skew_ms", number()),
            ("samples", count()),
        ],
        &[],
    )
}

fn message() -> Value {
    object(
        &[
            ("id", hex(40)),
            ("channel", string()),
            ("author", string()),
            ("seq", count()),
            ("step", count()),
            ("latency_ms", nullable(number())),
        ],
        &[("data", string()), ("data_base64", base64()), ("from", string())],
    )
}

fn publish_request() -> Value {
    json!({
        "type": "object",
        "properties": { "data": string(), "data_base64": base64() },
        "additionalProperties": false,
        "oneOf": [{ "required": ["data"] }, { "required": ["data_base64"] }],
    })
}

fn published() -> Value {
    object(&[("id", hex(40)), ("seq", count()), ("step", count()), ("recipients", count())], &[])
}

fn anomaly() -> Value {
    object(
        &[
            ("id", string()),
            ("kind", kind()),
            ("accused", string()),
            ("reporter", string()),
            ("step", count()),
            ("first_step", count()),
            ("count", count()),
            ("severity", one_of(&["info", "warning", "critical"])),
            ("evidence", nullable(string())),
            ("detail", string()),
        ],
        &[],
    )
}

fn kind() -> Value {
    let kinds: Vec<&str> = AnomalyKind::ALL.iter().map(|kind| kind.code()).collect();
    one_of(&kinds)
}

fn quarantine() -> Value {
    object(
        &[
            ("peer_id", string()),
            ("kind", nullable(kind())),
            ("evidence", nullable(string())),
            ("since", count()),
            ("until", nullable(count())),
        ],
        &[],
    )
}

fn trust_change() -> Value {
    object(&[("ago_ms", count()), ("trust", number()), ("cause", nullable(kind()))], &[])
}

fn why_peer() -> Value {
    let of = |schema: &str| json!({ "type": "array", "items": reference(schema) });
    object(
        &[
            ("peer_id", string()),
            ("standing", string()),
            ("trust", number()),
            ("score", number()),
            ("good", number()),
            ("suspicion", number()),
            ("fault", number()),
            ("doubt", number()),
            ("findings", of("Anomaly")),
            ("history", of("TrustChange")),
            ("quarantine", nullable(quarantine())),
            ("way_back", strings()),
        ],
        &[],
    )
}

fn outcome() -> Value {
    one_of(&["published", "delivered", "forwarded", "ignored", "refused"])
}

fn why_message() -> Value {
    object(
        &[
            ("id", hex(40)),
            ("outcome", outcome()),
            ("explanation", string()),
            ("author", nullable(string())),
            ("channel", nullable(string())),
            ("step", nullable(count())),
            ("first_seen_step", nullable(count())),
            ("copies", count()),
            ("records", json!({ "type": "array", "items": reference("WhyRecord") })),
            ("standings", json!({ "type": "array", "items": reference("Standing") })),
        ],
        &[],
    )
}

fn standing() -> Value {
    object(
        &[
            ("peer_id", string()),
            ("role", one_of(&["author", "bringer"])),
            ("trust", number()),
            ("standing", string()),
            ("findings", json!({ "type": "array", "items": reference("Anomaly") })),
        ],
        &[],
    )
}

fn why_record() -> Value {
    object(
        &[
            ("outcome", outcome()),
            ("reason", nullable(string())),
            ("explanation", string()),
            ("from", nullable(string())),
            ("step", count()),
            ("at_ms", count()),
        ],
        &[],
    )
}

fn event() -> Value {
    object(
        &[
            ("type", one_of(&["message", "error", "performance", "security"])),
            ("kind", string()),
            ("detail", string()),
            ("step", count()),
            ("at_ms", count()),
        ],
        &[
            ("peer", string()),
            ("message", hex(40)),
            ("channel", string()),
            ("metric", string()),
            ("level", one_of(&["normal", "warning", "critical"])),
            ("incident", count()),
        ],
    )
}

fn error() -> Value {
    let codes: Vec<_> = CODES.iter().map(|code| name_of(*code)).collect();
    let codes: Vec<_> = codes.iter().map(String::as_str).collect();
    let problems = json!({ "type": "array", "items": reference("JobProblem") });
    let detail = object(
        &[("code", one_of(&codes)), ("message", string()), ("hint", string())],
        &[("problems", problems)],
    );
    object(&[("error", detail)], &[])
}
