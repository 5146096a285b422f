//! Alerts, the monitor, and why a node is in its step.

use omnimesh_protocol::id::{Phase, Step};
use serde_json::{Value, json};

use super::support::*;
use crate::api::types::*;

pub(super) fn sample_probes() -> Probes {
    Probes {
        delivery: 0.9998,
        worst_delivery: 0.9,
        origins: 3,
        received: 9_998,
        lost: 2,
        wrong: 0,
        out_of_order: 1,
        malformed: 0,
        latency_ms: 2.5,
        jitter_ms: 0.5,
    }
}

pub(super) fn sample_alert() -> AlertView {
    AlertView {
        id: 1,
        metric: "disk".to_owned(),
        stage: "open".to_owned(),
        level: Level::Warning,
        worst: Level::Critical,
        value: 0.9,
        detail: "disk in use is warning: 90.00 %".to_owned(),
        opened_ms: 5,
        acknowledged_ms: None,
        acknowledged_by: None,
        resolved_ms: None,
    }
}

pub(super) fn sample_monitor() -> Monitor {
    Monitor {
        at_ms: 6,
        step: Some(Step(10)),
        level: Level::Warning,
        health: 1.0,
        members: 3,
        peers: 2,
        messages_per_second: 0.5,
        refused_per_second: 0.0,
        verified_delivery: "99.98 %, 0 wrong".to_owned(),
        probes: sample_probes(),
        doubt: 0.0,
        metrics: vec![sample_metric()],
        alerts: vec![sample_alert()],
        incidents: 1,
        mtbf_s: Some(7.5),
        mean_recovery_s: None,
        quarantined: 0,
        findings: vec![sample_anomaly()],
    }
}

fn sample_metric() -> MetricView {
    MetricView {
        metric: "disk".to_owned(),
        name: "disk in use".to_owned(),
        value: Some(0.9),
        text: "90.00 %".to_owned(),
        level: Level::Warning,
        warning: Some(0.85),
        critical: None,
        per_hour: Some(0.02),
        reaches: None,
        reaches_in_s: Some(9_000),
        unusual: None,
        outlook: Some("+2.00 % an hour, critical in about 3 h".to_owned()),
    }
}

pub(super) fn sample_why_step() -> WhyStep {
    WhyStep {
        step: None,
        phase: Some(Phase(1)),
        current: Some(Step(10)),
        explanation: vec!["the mesh is in step 10".to_owned()],
        doubts: vec![DoubtView { reason: "lag".to_owned(), value: 0.5 }],
        events: vec![StepEventView { ago_ms: 5, detail: "synchronised".to_owned() }],
        findings: vec![sample_anomaly()],
    }
}

pub(super) fn samples() -> impl Iterator<Item = (&'static str, Value)> {
    let why = sample_why_step();
    [
        ("Probes", json!(sample_probes())),
        ("Alert", json!(sample_alert())),
        ("AckRequest", json!(AckRequest { by: "anna".to_owned() })),
        ("Metric", json!(sample_metric())),
        ("Monitor", json!(sample_monitor())),
        ("Doubt", json!(why.doubts[0])),
        ("StepEvent", json!(why.events[0])),
        ("WhyStep", json!(why)),
    ]
    .into_iter()
}

#[tokio::test]
async fn an_alert_is_acknowledged_by_somebody() {
    let rig = Rig::start();
    assert_eq!(rig.get("/api/v1/alerts").await.json(), json!([sample_alert()]));
    let acknowledge =
        |id: &str, body: &str| rig.request("POST", &format!("/api/v1/alerts/{id}/ack"), &[], body);
    let reply = rig.send(&acknowledge("1", r#"{"by": "anna"}"#)).await;
    assert_eq!((reply.status, &reply.json()["acknowledged_by"]), (200, &json!("anna")));
    rig.send(&acknowledge("2", r#"{"by": "anna"}"#)).await.assert_error(404, ErrorCode::NotFound);
    rig.send(&acknowledge("x", r#"{"by": "anna"}"#)).await.assert_error(400, ErrorCode::BadRequest);
    rig.send(&acknowledge("1", r#"{"by": " "}"#)).await.assert_error(400, ErrorCode::BadRequest);
    rig.send(&acknowledge("1", r#"{"who": "anna"}"#)).await.assert_error(400, ErrorCode::InvalidJson);
    let named = |chars| acknowledge("1", &json!({"by": "ä".repeat(chars)}).to_string());
    assert_eq!(rig.send(&named(ACK_CHARS_MAX)).await.status, 200);
    let error = rig.send(&named(ACK_CHARS_MAX + 1)).await.assert_error(400, ErrorCode::BadRequest);
    assert!(error.message.contains("65") && error.message.contains("64"), "{error:?}");
}

#[tokio::test]
async fn a_step_is_explained_by_number() {
    let rig = Rig::start();
    assert_eq!(rig.get("/api/v1/why/step").await.json()["step"], Value::Null);
    assert_eq!(rig.get("/api/v1/why/steps/7").await.json()["step"], 7);
    rig.get("/api/v1/why/steps/x").await.assert_error(400, ErrorCode::BadRequest);
}
