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
use omnimesh_protocol::registry::{Encoded, Fault, VALUE_BYTES_MAX, VALUE_DEPTH_MAX, Value};
use serde_json::{Map, Value as Json, json};

/// The key that makes bytes of a map.
const BASE64_KEY: &str = "base64";

/// Why JSON is no value of the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// An integer is too large or too small.
    #[error("the integer {0} does not fit 64 bits")]
    Integer(String),
    /// What should be bytes is not.
    #[error("`base64` is not padded standard base64: {0}")]
    Base64(String),
    /// The value takes too many bytes.
    #[error("the value has {bytes} bytes; the limit is {VALUE_BYTES_MAX}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Lists and maps are too deep in one another.
    #[error("the value is nested deeper than {VALUE_DEPTH_MAX} lists and maps")]
    TooDeep,
    /// Something else.
    #[error(transparent)]
    Other(Fault),
}

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
/// [`ValueError::Integer`] for one that does not fit 64 bits, signed, and [`ValueError::Base64`] for what should be that and
/// is not. An integer that fits not even unsigned is a float in `json` already: see [`read_value`].
pub fn from_json(json: &Json) -> Result<Value, ValueError> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) if number.is_f64() && float.is_finite() => Value::Float(float + 0.0),
            _ => return Err(ValueError::Integer(number.to_string())),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(values) => Value::List(values.iter().map(from_json).collect::<Result<_, _>>()?),
        Json::Object(values) => match base64_of(values) {
            Some(text) => {
                let bytes = BASE64.decode(text.as_bytes());
                Value::Bytes(bytes.map_err(|error| ValueError::Base64(error.to_string()))?)
            }
            None => {
                let pair = |(name, value): (&String, &Json)| Ok((name.clone(), from_json(value)?));
                Value::Map(values.iter().map(pair).collect::<Result<_, ValueError>>()?)
            }
        },
    })
}

/// The same, as the registry has it.
pub(in crate::api) fn encode(json: &Json) -> Result<Encoded, ValueError> {
    let value = from_json(json)?;
    value.encode().map_err(|fault| match fault {
        Fault::TooLarge => ValueError::TooLarge { bytes: value.bytes().unwrap_or(usize::MAX) },
        Fault::TooDeep => ValueError::TooDeep,
        fault => ValueError::Other(fault),
    })
}

/// What a text says: JSON, or if it is none, itself.
///
/// # Errors
/// [`ValueError::Integer`] for an integer that does not fit 64 bits: it would become a float.
pub fn read_value(text: &str) -> Result<Json, ValueError> {
    match serde_json::from_str(text) {
        Err(_) => Ok(text.into()),
        Ok(json) => match unfit_integer(text) {
            None => Ok(json),
            Some((_, integer)) => Err(ValueError::Integer(integer.to_owned())),
        },
    }
}

/// The first integer in JSON that fits 64 bits neither signed nor unsigned, behind the keys under which it stands. Whoever
/// reads the JSON makes a float of it.
pub(in crate::api) fn unfit_integer(json: &str) -> Option<(String, &str)> {
    let mut rest = json;
    let mut last = "";
    let mut keys: Vec<&str> = Vec::new();
    while let Some(first) = rest.bytes().next() {
        let mut length = 1;
        match first {
            b'"' => {
                length = string_length(rest);
                last = rest.get(..length)?.trim_matches('"');
            }
            b':' => *keys.last_mut()? = last,
            b'{' | b'[' => keys.push(""),
            b'}' | b']' => drop(keys.pop()),
            b'-' | b'0'..=b'9' => {
                length = rest.find(|sign| !is_of_number(sign)).unwrap_or(rest.len());
                let number = rest.get(..length)?;
                if !is_fit(number) {
                    keys.retain(|key| !key.is_empty());
                    return Some((keys.join("."), number));
                }
            }
            _ => {}
        }
        rest = rest.get(length..)?;
    }
    None
}

fn is_of_number(sign: char) -> bool {
    matches!(sign, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')
}

fn is_fit(number: &str) -> bool {
    number.contains(['.', 'e', 'E']) || number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok()
}

/// The length of the string in quotes that a text begins with.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
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
        for (text, says) in [
            ("18446744073709551615", "18446744073709551615 does not fit"),
            ("[1, 9223372036854775808]", "9223372036854775808 does not fit"),
            ("{\"base64\": \"/w\"}", "`base64` is not"),
        ] {
            let error = from_json(&serde_json::from_str(text).unwrap()).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        // Not bytes: text beside another key, and something else than text.
        for text in ["{\"base64\": \"/w\", \"a\": 1}", "{\"base64\": 1}"] {
            let json = serde_json::from_str(text).unwrap();
            assert!(matches!(from_json(&json), Ok(Value::Map(_))), "{text}");
        }
    }

    #[test]
    fn no_integer_becomes_a_float() {
        for (text, at, integer) in [
            ("18446744073709551616", "", "18446744073709551616"),
            ("-9223372036854775809", "", "-9223372036854775809"),
            ("[[1, 1000000000000000000000000000000]]", "", "1000000000000000000000000000000"),
            (r#"{"a": 1, "b": {"c\"{": [2.5, 99999999999999999999]}}"#, r#"b.c\"{"#, "99999999999999999999"),
        ] {
            assert_eq!(unfit_integer(text), Some((at.to_owned(), integer)), "{text}");
            assert_eq!(read_value(text), Err(ValueError::Integer(integer.to_owned())));
        }
        for text in [
            "",
            "1e30",
            "18446744073709551616.0",
            "18446744073709551615",
            "-9223372036854775808",
            r#"{"99999999999999999999": "99999999999999999999 \" 99999999999999999999"}"#,
        ] {
            assert_eq!(unfit_integer(text), None, "{text}");
        }
        assert_eq!(read_value("99999999999999999999 of them"), Ok(json!("99999999999999999999 of them")));
    }

    #[test]
    fn what_is_too_large_says_how_large() {
        let error = encode(&json!("x".repeat(20_000))).unwrap_err();
        assert_eq!(error, ValueError::TooLarge { bytes: 20_003 });
        let deep = (0..9).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(encode(&deep), Err(ValueError::TooDeep));
    }
}
