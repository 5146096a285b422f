//! What follows the `?`: read strictly, so that a misspelt name is not taken for its absence.

use std::fmt::Display;
use std::str::FromStr;

use actix_web::web;

use super::Call;
use crate::api::error::ApiError;
use crate::api::types::ErrorCode;

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

fn bad(message: String, hint: String) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message, hint)
}

impl Query {
    /// Those of a request that may have these and no others.
    pub(super) fn of(call: &Call, names: &[&str]) -> Result<Self, ApiError> {
        let parsed = web::Query::<Vec<(String, String)>>::from_query(call.request.query_string());
        let pairs =
            parsed.map_err(|error| bad(format!("the query cannot be read: {error}"), String::new()))?.0;
        match pairs.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(Query(pairs)),
            Some((name, _)) => {
                let known = if names.is_empty() { "none is".to_owned() } else { names.join(", ") };
                Err(bad(format!("unknown parameter {name:?}"), format!("known here: {known}")))
            }
        }
    }

    /// All values of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The only value of this name.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(bad(format!("`{name}` is given more than once"), String::new())),
        }
    }

    /// The same, read.
    pub(super) fn read<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let read = |text: &str| {
            text.parse().map_err(|error| bad(format!("`{name}` {text:?}: {error}"), String::new()))
        };
        self.text(name)?.map(read).transpose()
    }

    /// The same where it must be there.
    pub(super) fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, ApiError> {
        self.read(name)?.ok_or_else(|| bad(format!("`{name}` is missing"), String::new()))
    }

    /// A number of at least 1: how many there may be.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        match self.read::<usize>("limit")? {
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(limit) => Err(bad(format!("`limit` is {limit}"), format!("give 1 to {max}"))),
            None => Ok(default),
        }
    }
}
