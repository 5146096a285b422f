//! `alerts`: what is the matter with a node, and who takes care of it.

use omnimesh_node::api::types::{AckRequest, AlertView};
use serde_json::Value;

use super::inspect::typed;
use crate::cli::{AlertsCommand, Globals};
use crate::client::Client;
use crate::error::{CliError, Code};
use crate::output::{self, Format, printable};

pub(super) fn run(globals: &Globals, what: &AlertsCommand) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    match what {
        AlertsCommand::List { all } => {
            let mut alerts: Vec<Value> = client.get("/api/v1/alerts")?;
            alerts.retain(|alert| *all || alert["stage"] != "resolved");
            if globals.output.is_json() {
                return output::list(globals.output, &alerts, &[], |_| Vec::new());
            }
            let alerts = alerts.iter().map(typed::<AlertView>).collect::<Result<Vec<_>, _>>()?;
            output::list(Format::Table, &alerts, &HEADS, row)
        }
        AlertsCommand::Ack { id, by } => {
            let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
            let by = by.clone().or_else(user).unwrap_or_else(|| "an operator".to_owned());
            let value: Value =
                client.post(&format!("/api/v1/alerts/{id}/ack"), &AckRequest { by: by.clone() })?;
            let alert: AlertView = typed(&value)?;
            output::record(globals.output, &value, || HEADS.into_iter().zip(row(&alert)).collect())?;
            is_noted(&alert, &by)
        }
    }
}

/// Whether it is this person who takes care of an alert.
fn is_noted(alert: &AlertView, by: &str) -> Result<(), CliError> {
    let reason = match &alert.acknowledged_by {
        Some(first) if first == by => return Ok(()),
        Some(first) => format!("{first:?} takes care of alert {} already", alert.id),
        None => format!("alert {} is over", alert.id),
    };
    Err(CliError::new(Code::Refused, printable(&format!("{reason}, and {by:?} was not noted"))))
}

/// The heads of a table of alerts.
const HEADS: [&str; 6] = ["id", "stage", "level", "worst", "taken care of by", "detail"];

fn row(alert: &AlertView) -> Vec<String> {
    vec![
        alert.id.to_string(),
        alert.stage.clone(),
        alert.level.code().to_owned(),
        alert.worst.code().to_owned(),
        alert.acknowledged_by.clone().unwrap_or_else(|| "-".to_owned()),
        alert.detail.clone(),
    ]
}
