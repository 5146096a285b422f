//! Anomalies, alerts, the monitor, and why a node is in its step.

use actix_web::HttpResponse;
use libp2p::PeerId;
use omnimesh_protocol::Step;
use omnimesh_protocol::observer::AnomalyKind;

use super::Call;
use super::query::read;
use crate::api::error::{ApiError, quoted};
use crate::api::types::{ACK_CHARS_MAX, AckRequest, ErrorCode, Severity};

/// What ought not to be; the parameters say which of it. One that cannot be meant is refused, or who mistypes it takes the
/// empty list for peace.
pub(super) async fn anomalies(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let bad = |message: String, hint: String| ApiError::new(ErrorCode::BadRequest, message, hint);
    let kind = query.text("kind")?.map(|text| {
        AnomalyKind::from_code(text).ok_or_else(|| {
            let known: Vec<_> = AnomalyKind::ALL.iter().map(|kind| kind.code()).collect();
            bad(format!("there is no kind {}", quoted(text)), format!("known: {}", known.join(", ")))
        })
    });
    let accused = query.text("accused")?.map(|text| {
        text.parse::<PeerId>().map(|peer| peer.to_string()).map_err(|_| {
            let hint = "`omnimesh members` and `omnimesh peers` list those that this node knows".to_owned();
            bad(format!("{} is not the id of a peer", quoted(text)), hint)
        })
    });
    let severity = query.text("severity")?.map(|text| {
        serde_json::from_value::<Severity>(text.into()).map_err(|_| {
            bad(format!("there is no severity {}", quoted(text)), "known: info, warning, critical".to_owned())
        })
    });
    let (kind, accused, severity) = (kind.transpose()?, accused.transpose()?, severity.transpose()?);
    let since = query.read::<u64>("since")?.map_or(Step(0), Step);
    let mut found = call.wait(call.shared.backend.anomalies()).await?;
    found.retain(|anomaly| {
        kind.is_none_or(|kind| anomaly.kind == kind)
            && accused.as_ref().is_none_or(|accused| anomaly.accused == *accused)
            && severity.is_none_or(|severity| anomaly.severity >= severity)
            && anomaly.step >= since
    });
    Ok(HttpResponse::Ok().json(found))
}

pub(super) async fn alerts(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.alerts()).await
}

pub(super) async fn acknowledge(mut call: Call) -> Result<HttpResponse, ApiError> {
    let incident = read("id", call.part("id"))?;
    let AckRequest { by } = call.document("{\"by\": \"name\"}").await?;
    if by.trim().is_empty() || by.chars().any(char::is_control) {
        let message = format!("`by` is {}, which is no name", quoted(&by));
        return Err(ApiError::new(ErrorCode::BadRequest, message, "say who takes care of it"));
    }
    let chars = by.chars().count();
    if chars > ACK_CHARS_MAX {
        let message = format!("`by` has {chars} characters; the limit is {ACK_CHARS_MAX}");
        return Err(ApiError::new(ErrorCode::BadRequest, message, "give a shorter name"));
    }
    match call.wait(call.shared.backend.acknowledge(incident, by)).await? {
        Some(alert) => Ok(HttpResponse::Ok().json(alert)),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no alert {incident}"),
            "`omnimesh alerts list` shows those that there are",
        )),
    }
}

pub(super) async fn monitor(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.monitor()).await
}

pub(super) async fn why_step(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.why_step(None)).await
}

pub(super) async fn why_one_step(call: Call) -> Result<HttpResponse, ApiError> {
    let step = read("step", call.part("step"))?;
    call.json(call.shared.backend.why_step(Some(Step(step)))).await
}
