//! Alerts, the monitor, and why a node is in its step.

use omnimesh_protocol::observer::telemetry::Metric;
use serde_json::{Map, Value, json};

use super::{
    BACKEND, ErrorCode, count, list, nullable, number, object, ok, one_of, operation, parameter, reference,
    string, strings, with_body,
};
use crate::api::types::ACK_CHARS_MAX;

pub(super) fn add_paths(paths: &mut Map<String, Value>) {
    let mut add = |path: &str, item: Value| paths.insert(path.to_owned(), item);
    let alerts = "Alerts and what became of them, oldest first";
    add("/api/v1/alerts", json!({ "get": operation("alerts", alerts, list("Alert"), BACKEND) }));
    let errors = [
        BACKEND,
        &[
            ErrorCode::InvalidJson,
            ErrorCode::BadRequest,
            ErrorCode::RequestTimeout,
            ErrorCode::TooLarge,
            ErrorCode::UnsupportedMediaType,
            ErrorCode::NotFound,
        ],
    ]
    .concat();
    let acknowledge = operation(
        "acknowledgeAlert",
        "Says who takes care of an alert; the first to do so is remembered",
        ok("Alert"),
        &errors,
    );
    add(
        "/api/v1/alerts/{id}/ack",
        json!({
            "parameters": [parameter("id", "The id of the alert", &count())],
            "post": with_body(acknowledge, "AckRequest"),
        }),
    );
    let monitor = "How the node and its mesh are: health, metrics, alerts, findings";
    add("/api/v1/monitor", json!({ "get": operation("monitor", monitor, ok("Monitor"), BACKEND) }));
    let why = "Why this node is in its step";
    add("/api/v1/why/step", json!({ "get": operation("whyStep", why, ok("WhyStep"), BACKEND) }));
    let why = operation(
        "whyOneStep",
        "What this node makes of a step",
        ok("WhyStep"),
        &[BACKEND, &[ErrorCode::BadRequest]].concat(),
    );
    let step = parameter("step", "The step", &count());
    add("/api/v1/why/steps/{step}", json!({ "parameters": [step], "get": why }));
}

pub(super) fn add_schemas(schemas: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| schemas.insert(name.to_owned(), schema);
    let of = |schema: &str| json!({ "type": "array", "items": reference(schema) });
    add("Probes", probes());
    add("Alert", alert());
    let by = json!({ "type": "string", "minLength": 1, "maxLength": ACK_CHARS_MAX });
    add(
        "AckRequest",
        json!({
            "type": "object", "required": ["by"], "properties": { "by": by }, "additionalProperties": false,
        }),
    );
    add("Metric", metric());
    add(
        "Monitor",
        object(
            &[
                ("at_ms", count()),
                ("step", nullable(count())),
                ("level", level()),
                ("health", number()),
                ("members", count()),
                ("peers", count()),
                ("messages_per_second", number()),
                ("refused_per_second", number()),
                ("verified_delivery", string()),
                ("probes", reference("Probes")),
                ("doubt", number()),
                ("metrics", of("Metric")),
                ("alerts", of("Alert")),
                ("incidents", count()),
                ("mtbf_s", nullable(number())),
                ("mean_recovery_s", nullable(number())),
                ("quarantined", count()),
                ("findings", of("Anomaly")),
            ],
            &[],
        ),
    );
    add(
        "Doubt",
        object(&[("reason", one_of(&["lag", "step", "company", "health"])), ("value", number())], &[]),
    );
    add("StepEvent", object(&[("ago_ms", count()), ("detail", string())], &[]));
    add(
        "WhyStep",
        object(
            &[
                ("step", nullable(count())),
                ("phase", nullable(count())),
                ("current", nullable(count())),
                ("explanation", strings()),
                ("doubts", of("Doubt")),
                ("events", of("StepEvent")),
                ("findings", of("Anomaly")),
            ],
            &[],
        ),
    );
}

fn level() -> Value {
    one_of(&["normal", "warning", "critical"])
}

fn metric_code() -> Value {
    let codes: Vec<&str> = Metric::ALL.iter().map(|metric| metric.code()).collect();
    one_of(&codes)
}

fn probes() -> Value {
    object(
        &[
            ("delivery", number()),
            ("worst_delivery", number()),
            ("origins", count()),
            ("received", count()),
            ("lost", count()),
            ("wrong", count()),
            ("out_of_order", count()),
            ("malformed", count()),
            ("latency_ms", number()),
            ("jitter_ms", number()),
        ],
        &[],
    )
}

fn alert() -> Value {
    object(
        &[
            ("id", count()),
            ("metric", metric_code()),
            ("stage", one_of(&["open", "acknowledged", "resolved"])),
            ("level", level()),
            ("worst", level()),
            ("value", number()),
            ("detail", string()),
            ("opened_ms", count()),
            ("acknowledged_ms", nullable(count())),
            ("acknowledged_by", nullable(string())),
            ("resolved_ms", nullable(count())),
        ],
        &[],
    )
}

fn metric() -> Value {
    object(
        &[
            ("metric", metric_code()),
            ("name", string()),
            ("value", nullable(number())),
            ("text", string()),
            ("level", level()),
            ("warning", nullable(number())),
            ("critical", nullable(number())),
            ("per_hour", nullable(number())),
            ("reaches", nullable(level())),
            ("reaches_in_s", nullable(count())),
            ("unusual", nullable(number())),
            ("outlook", nullable(string())),
        ],
        &[],
    )
}
