//! Values of the registry as JSON.
//!
//! | registry | JSON |
//! |---|---|
//! | null, true, text, list, map | the same |
//! | integer (64 bits, signed) | a number without fraction and exponent, such as `7` |
//! | float | a number with one, such as `7.0`; the two are different values |
//! | bytes | `{"base64": "…"}` (standard alphabet, padded) |
//!
//! So a map whose only key is `base64` cannot be written as JSON unless it is meant as bytes.

use data_encoding::BASE64;
use omnimesh_protocol::registry::{Fault, Value};
use serde_json::{Map, Value as Json, json};

/// The key that makes bytes of a map.
const BASE64_KEY: &str = "base64";

/// The value as JSON.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!({ BASE64_KEY: BASE64.encode(bytes) }),
        Value::List(values) => Json::Array(values.iter().map(to_json).collect()),
        Value::Map(values) => {
            Json::Object(values.iter().map(|(name, value)| (name.clone(), to_json(value))).collect())
        }
    }
}

/// The value that the JSON says.
///
/// # Errors
/// [`Fault::BadNumber`] for a number that is neither an integer of 64 bits nor a finite float, and [`Fault::Malformed`]
/// for what should be base64 and is not.
pub fn from_json(json: &Json) -> Result<Value, Fault> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) if number.is_f64() && float.is_finite() => Value::Float(float + 0.0),
            _ => return Err(Fault::BadNumber),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(values) => Value::List(values.iter().map(from_json).collect::<Result<_, _>>()?),
        Json::Object(values) => match base64_of(values) {
            Some(text) => Value::Bytes(BASE64.decode(text.as_bytes()).map_err(|_| Fault::Malformed)?),
            None => {
                let pair = |(name, value): (&String, &Json)| Ok((name.clone(), from_json(value)?));
                Value::Map(values.iter().map(pair).collect::<Result<_, Fault>>()?)
            }
        },
    })
}

fn base64_of(values: &Map<String, Json>) -> Option<&str> {
    values.get(BASE64_KEY).filter(|_| values.len() == 1)?.as_str()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn values_return() {
        let map = |value| Value::Map(BTreeMap::from([("a".to_owned(), value)]));
        for value in [
            Value::Null,
            Value::Bool(true),
            Value::Integer(i64::MIN),
            Value::Integer(i64::MAX),
            Value::Float(7.0),
            Value::Float(1e300),
            Value::Text("ü".to_owned()),
            Value::Bytes(vec![0xff, 0]),
            Value::List(vec![Value::Integer(7), Value::Float(7.0), map(Value::Bytes(Vec::new()))]),
            map(Value::List(Vec::new())),
        ] {
            let text = to_json(&value).to_string();
            assert_eq!(from_json(&serde_json::from_str(&text).unwrap()), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for (text, fault) in [
            ("18446744073709551615", Fault::BadNumber),
            ("[1, 9223372036854775808]", Fault::BadNumber),
            ("{\"base64\": \"/w\"}", Fault::Malformed),
        ] {
            assert_eq!(from_json(&serde_json::from_str(text).unwrap()), Err(fault), "{text}");
        }
        // Not bytes: text beside another key, and something else than text.
        for text in ["{\"base64\": \"/w\", \"a\": 1}", "{\"base64\": 1}"] {
            let json = serde_json::from_str(text).unwrap();
            assert!(matches!(from_json(&json), Ok(Value::Map(_))), "{text}");
        }
    }
}
