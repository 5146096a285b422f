//! Alerts, the monitor, and why a node is in its step.

use actix_web::HttpResponse;
use omnimesh_protocol::Step;

use super::Call;
use crate::api::error::ApiError;
use crate::api::types::{AckRequest, ErrorCode};

pub(super) async fn alerts(call: Call) -> Result<HttpResponse, ApiError> {
    call.json(call.shared.backend.alerts()).await
}

pub(super) async fn acknowledge(mut call: Call) -> Result<HttpResponse, ApiError> {
    let incident = number(call.part("id"), "the id of the alert")?;
    let AckRequest { by } = call.document("{\"by\": \"name\"}").await?;
    if by.trim().is_empty() || by.chars().any(char::is_control) {
        let message = "`by` is no name".to_owned();
        return Err(ApiError::new(ErrorCode::BadRequest, message, "say who takes care of it"));
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
    let step = number(call.part("step"), "the step")?;
    call.json(call.shared.backend.why_step(Some(Step(step)))).await
}

fn number(text: &str, what: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        let message = format!("{what} is not a whole number");
        ApiError::new(ErrorCode::BadRequest, message, "for example 1")
    })
}
