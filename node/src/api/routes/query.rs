//! What follows the `?`: read strictly, so that a misspelt name is not taken for its absence.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use actix_web::web;
use omnimesh_protocol::NodeId;
use omnimesh_protocol::registry::{EntryKey, EntryKind, EntryName, FieldName, Relation};

use crate::api::error::{ApiError, quoted};
use crate::api::types::ErrorCode;

/// The parameters of a request.
#[derive(Default)]
pub(super) struct Query(Vec<(String, String)>);

fn bad(message: String, hint: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message, hint)
}

/// What a parameter can be read as.
pub(super) trait Parameter: FromStr {
    /// What it is.
    const WHAT: &'static str;

    /// What to give instead of something else.
    fn remedy() -> String;
}

macro_rules! parameters {
    ($($kind:ty: $what:literal, $remedy:expr;)*) => {
        $(impl Parameter for $kind {
            const WHAT: &'static str = $what;

            fn remedy() -> String {
                $remedy.into()
            }
        })*
    };
}

parameters! {
    u32: "a whole number", format!("give a whole number from 0 to {}", u32::MAX);
    u64: "a whole number", format!("give a whole number from 0 to {}", u64::MAX);
    usize: "a whole number", format!("give a whole number from 0 to {}", usize::MAX);
    bool: "yes or no", "give true or false";
    String: "text", "give text";
    NodeId: "the id of a node", "`/api/v1/members` lists the ids of members, such as 12D3KooW…";
    EntryKind: "a kind of entries", "a kind is 1 to 32 of a-z 0-9 _ - and begins with a letter, such as `model`";
    EntryName: "the name of an entry", "a name is 1 to 128 bytes of text without control characters";
    EntryKey: "the key of an entry", "write kind/name, such as `model/llama`: the kind is 1 to 32 of a-z 0-9 _ - and \
                                      begins with a letter, the name is 1 to 128 bytes without control characters";
    FieldName: "the name of a field", "a name is 1 to 64 bytes of text without control characters";
    Relation: "a relation", "a relation is 1 to 32 of a-z 0-9 _ - and begins with a letter, such as `uses`";
}

/// Reads what stands at this place of a request.
pub(super) fn read<T: Parameter>(name: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| bad(format!("`{name}` is {}, not {}", quoted(text), T::WHAT), T::remedy()))
}

impl Query {
    /// What is written so, if it has these parameters and no others.
    pub(super) fn of(text: &str, names: &[&str]) -> Result<Self, ApiError> {
        if !is_utf8(text) {
            return Err(not_utf8("query", text));
        }
        let hint = "write it as name=value&name=value, percent-encoded";
        let parsed = web::Query::<Vec<(String, String)>>::from_query(text);
        let pairs = parsed.map_err(|error| bad(format!("the query cannot be read: {error}"), hint))?.0;
        match pairs.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(Query(pairs)),
            Some((name, _)) => {
                let known = if names.is_empty() { "none is".to_owned() } else { names.join(", ") };
                Err(bad(format!("unknown parameter {}", quoted(name)), format!("known here: {known}")))
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
            _ => Err(bad(format!("`{name}` is given more than once"), format!("give `{name}` once"))),
        }
    }

    /// The same, read.
    pub(super) fn read<T: Parameter>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name)?.map(|text| read(name, text)).transpose()
    }

    /// The same where it must be there.
    pub(super) fn required<T: Parameter>(&self, name: &str) -> Result<T, ApiError> {
        let hint = || format!("add `{name}=…` to the query; {}", T::remedy());
        self.read(name)?.ok_or_else(|| bad(format!("`{name}` is missing"), hint()))
    }

    /// The same where it must be within bounds.
    pub(super) fn within<T: Parameter + PartialOrd + Display>(
        &self,
        name: &str,
        bounds: &RangeInclusive<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.read::<T>(name)? {
            Some(value) if !bounds.contains(&value) => {
                let hint = format!("give {} to {}", bounds.start(), bounds.end());
                Err(bad(format!("`{name}` is {value}"), hint))
            }
            value => Ok(value),
        }
    }

    /// A number of at least 1: how many there may be.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        Ok(self.within("limit", &(1..=max))?.unwrap_or(default))
    }
}

// --- percent-encoding -----------------------------------------------------

/// Refuses a path that does not stand for text: what decodes it would put the same sign for all that is none.
pub(super) fn check_path(path: &str) -> Result<(), ApiError> {
    if is_utf8(path) { Ok(()) } else { Err(not_utf8("path", path)) }
}

fn not_utf8(what: &str, text: &str) -> ApiError {
    let message = format!("the {what} {} is not UTF-8 once it is decoded", quoted(text));
    bad(message, "percent-encode the bytes of UTF-8, such as %C3%BC for ü")
}

fn is_utf8(text: &str) -> bool {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = if *first == b'%' { code(after) } else { None };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// What the two hexadecimal digits behind a `%` stand for.
fn code(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits.first_chunk::<2>()?.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// The router has decoded a part of the path, but for what would change its meaning there: `/`, `+` and `%`.
pub(super) fn decoded(part: &str) -> Result<String, ApiError> {
    let mut text = String::with_capacity(part.len());
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('%') {
        let Some(code) = code(after.as_bytes()).filter(u8::is_ascii) else {
            let message = format!("{} in the path is not percent-encoded", quoted(part));
            return Err(bad(message, "write % as %25, and other signs as % and two hexadecimal digits"));
        };
        text.push_str(before);
        text.push(char::from(code));
        rest = after.get(2..).unwrap_or_default();
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_must_be_text() {
        for text in ["", "a%20b", "%C3%BC", "ü", "%", "%zz", "%+f", "100%25", "%f"] {
            assert!(is_utf8(text), "{text}");
        }
        for text in ["%ff", "a%C3b", "%c3%", "%ED%A0%80", "%80"] {
            assert!(!is_utf8(text), "{text}");
        }
        assert_eq!(decoded("a%2Fb%2bc%25").unwrap(), "a/b+c%");
        for part in ["%", "%2", "%zz", "%+f", "%ü"] {
            assert!(decoded(part).is_err(), "{part}");
        }
    }
}
