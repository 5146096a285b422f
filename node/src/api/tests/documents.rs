//! The answers, and that the OpenAPI document tells the truth about them.

use std::collections::BTreeSet;

use actix_web::http::Method;
use omnimesh_protocol::id::{MessageId, Seq, Step};
use serde_json::{Value, json};

use super::support::*;
use crate::api::openapi;
use crate::api::routes::ROUTES;
use crate::api::types::*;

#[tokio::test]
async fn answers_are_the_documents() {
    let rig = Rig::start();
    let mut status = sample_status();
    status.api = rig.address().to_string();
    let known = format!("/api/v1/why/messages/{}", MessageId::of(b"known"));
    for (path, expected) in [
        ("/api/v1/status", json!(status)),
        ("/api/v1/members", json!([sample_member()])),
        ("/api/v1/peers", json!([sample_peer()])),
        ("/api/v1/step", json!(sample_step())),
        ("/api/v1/anomalies", json!([sample_anomaly()])),
        ("/api/v1/invite", json!({"invite": sample_invite().encode(), "this_machine_only": true})),
        ("/api/v1/openapi.json", openapi::document()),
        (&known, json!(sample_why())),
    ] {
        let reply = rig.get(path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{path}");
        assert_eq!(reply.json(), expected, "{path}");
        reply.assert_secure();
    }
}

#[tokio::test]
async fn head_is_answered_wherever_get_is() {
    let rig = Rig::start();
    rig.backend.is_ready.store(true, std::sync::atomic::Ordering::SeqCst);
    for route in ROUTES.iter().filter(|route| route.method == Method::GET) {
        let path = concrete(route.path);
        let mut connection = Connection::open(rig.address()).await;
        // What follows on the connection shows that no body came.
        connection.write(rig.request("HEAD", &path, &[], "")).await;
        let reply = connection.reply(true).await;
        assert_eq!(reply.status, 200, "{path}");
        reply.assert_secure();
        connection.write(rig.request("GET", "/livez", &["Connection: close"], "")).await;
        assert_eq!(connection.reply(false).await.json()["status"], "live", "{path}");
    }
}

pub(super) fn concrete(path: &str) -> String {
    // A search without a word is none.
    let query = if path.ends_with("/search") { "?q=news" } else { "" };
    let path = path
        .replace("{kind}", "model")
        .replace("{name}", "news")
        .replace("{hash}", &super::blob::known().hash.to_string())
        .replace("alerts/{id}", "alerts/1")
        .replace("jobs/{id}", &format!("jobs/{}", super::job::known()))
        .replace("{step}", "7")
        .replace("{id}", &MessageId::of(b"known").to_string());
    path + query
}

#[tokio::test]
async fn the_openapi_document_lists_the_routes_and_no_others() {
    let document = openapi::document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let is_open = operation.get("security").is_some_and(|security| *security == json!([]));
            described.insert((path.clone(), method.to_uppercase(), is_open));
            let parameters = item["parameters"].as_array().map_or(0, Vec::len);
            assert_eq!(parameters, path.matches('{').count(), "{path}");
        }
    }
    let served: BTreeSet<_> =
        ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_string(), route.is_open)).collect();
    assert_eq!(described, served);
    // And the server does serve them, with and without the token as described.
    let rig = Rig::start();
    for (path, method, is_open) in served {
        let reply = rig.send(&rig.bare_request(&method, &concrete(&path), &[], "")).await;
        assert_eq!(reply.status != 401, is_open, "{method} {path}: {reply:?}");
        assert!(!matches!(reply.status, 404 | 405), "{method} {path}: {reply:?}");
    }
    for reference in references(&document) {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{reference}");
    }
}

#[test]
fn the_openapi_document_lists_the_parameters_and_what_every_path_refuses() {
    let document = openapi::document();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let of = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
        let described: Vec<_> = operation["parameters"].as_array().into_iter().flatten().map(of).collect();
        let mut served = route.parameters.to_vec();
        served.sort_unstable();
        let mut sorted = described.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, served, "{} {}", route.method, route.path);
        assert!(operation["responses"]["405"].is_object(), "{}", route.path);
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let is_bounded = matches!(parameter["name"].as_str(), Some("limit" | "depth"));
            assert!(!is_bounded || parameter["schema"]["maximum"].is_u64(), "{parameter}");
        }
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match value {
                Value::String(text) if key == "$ref" => vec![text.clone()],
                value => references(value),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_schemas_describe_the_documents_exactly() {
    let document = openapi::document();
    let schemas = &document["components"]["schemas"];
    let message = |payload: Payload| json!(sample_message("news", Seq(1), payload));
    let error = |code| json!({"error": ErrorDetail { code, message: String::new(), hint: String::new(), problems: vec![super::job::sample_problem()] }});
    let published = Published { id: MessageId::of(b""), seq: Seq(1), step: Step(1), recipients: 0 };
    let mut checked = BTreeSet::new();
    for (name, sample) in [
        ("Health", json!(Health { status: "live".to_owned() })),
        ("Status", json!(sample_status())),
        ("MemoryPart", json!(sample_memory_part())),
        ("Member", json!(sample_member())),
        ("Peer", json!(sample_peer())),
        ("Step", json!(sample_step())),
        ("Message", message("text".into())),
        ("Message", message(vec![0xff].into())),
        ("PublishRequest", json!(PublishRequest { payload: "x".into() })),
        ("PublishRequest", json!(PublishRequest { payload: vec![0xff].into() })),
        ("Published", json!(published)),
        ("Lagged", json!(Lagged { lost: 1 })),
        ("Anomaly", json!(sample_anomaly())),
        ("Quarantine", json!(sample_quarantine())),
        ("TrustChange", json!(sample_why_peer().history[0])),
        ("WhyPeer", json!(sample_why_peer())),
        ("WhyMessage", json!(sample_why())),
        ("WhyRecord", json!(sample_why().records[0])),
        ("Standing", json!(sample_why().standings[0])),
        ("Invite", json!(InviteView::from(&sample_invite()))),
        ("Event", json!(sample_event())),
        ("Error", error(ErrorCode::BadRequest)),
        ("Error", error(ErrorCode::Timeout)),
        ("Error", error(ErrorCode::StorageFull)),
    ]
    .into_iter()
    .chain(super::durable::samples())
    .chain(super::blob::samples())
    .chain(super::job::samples())
    .chain(super::observer::samples())
    {
        check(name, &sample, &schemas[name], schemas);
        checked.insert(name.to_owned());
    }
    let described: BTreeSet<_> = schemas.as_object().unwrap().keys().cloned().collect();
    assert_eq!(checked, described, "a schema without a sample");
}

/// As much of JSON Schema as the document uses; and every field of the value must be described.
fn check(at: &str, value: &Value, schema: &Value, schemas: &Value) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(at, value, &schemas[reference.rsplit('/').next().unwrap()], schemas);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().map(|name| name.as_str().unwrap()).collect(),
        name => vec![name.as_str().unwrap_or_else(|| panic!("{at}: no type in {schema}"))],
    };
    let fits = types.iter().any(|name| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{at}: {other}"),
    });
    assert!(fits, "{at}: {value} is not {types:?}");
    if let Some(names) = schema["enum"].as_array() {
        assert!(names.contains(value), "{at}: {value} is not among {names:?}");
    }
    if value.is_null() {
        return;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{at}: {name} is missing");
    }
    for (key, field) in value.as_object().into_iter().flatten() {
        let described = match &schema["properties"][key] {
            Value::Null => &schema["additionalProperties"],
            described => described,
        };
        if *described == json!(true) {
            continue;
        }
        assert!(described.is_object(), "{at}.{key} is not described");
        check(&format!("{at}.{key}"), field, described, schemas);
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object()) {
        check(&format!("{at}[]"), item, &schema["items"], schemas);
    }
}
