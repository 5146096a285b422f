//! TOML and JSON as one tree whose values know their line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

/// How deep a text may be nested: no job needs more, and a hostile one must not exhaust the stack.
const DEPTH_MAX: usize = 12;

/// A value and its line, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Kind {
    /// What it is, for people.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Integer(_) => "an integer",
            Kind::Float(_) => "a float",
            Kind::Text(_) => "a string",
            Kind::List(_) => "an array",
            Kind::Map(_) => "a table",
        }
    }
}

/// What is wrong with the text as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) message: String,
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Lines(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(place, _)| place).collect())
    }

    fn at(&self, offset: usize) -> u32 {
        let feeds = self.0.partition_point(|feed| *feed < offset);
        u32::try_from(feeds).unwrap_or(u32::MAX).saturating_add(1)
    }
}

pub(super) fn read_toml(text: &str) -> Result<Node, SyntaxError> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| SyntaxError {
        line: error.span().map_or(1, |span| lines.at(span.start)),
        message: error.message().trim_end().to_owned(),
    })?;
    let line = lines.at(table.span().start);
    toml_table(table.get_ref(), line, &lines, DEPTH_MAX)
}

fn toml_table(table: &DeTable<'_>, line: u32, lines: &Lines, depth: usize) -> Result<Node, SyntaxError> {
    let depth = deeper(depth, line)?;
    let mut pairs: Vec<_> = table.iter().collect();
    // The order of the file: what is wrong is told from the top, and tasks keep their places.
    pairs.sort_by_key(|(key, _)| key.span().start);
    let pairs = pairs.into_iter().map(|(key, value)| {
        let line = lines.at(key.span().start);
        Ok((key.get_ref().to_string(), toml_value(value.get_ref(), line, lines, depth)?))
    });
    Ok(Node { line, kind: Kind::Map(pairs.collect::<Result<_, _>>()?) })
}

fn toml_value(value: &DeValue<'_>, line: u32, lines: &Lines, depth: usize) -> Result<Node, SyntaxError> {
    let kind = match value {
        DeValue::String(text) => Kind::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let value = i64::from_str_radix(integer.as_str(), integer.radix());
            Kind::Integer(
                value.map_err(|_| SyntaxError { line, message: "an integer beyond 64 bits".to_owned() })?,
            )
        }
        DeValue::Float(float) => {
            let value = float.as_str().parse();
            Kind::Float(value.map_err(|_| SyntaxError { line, message: "not a float".to_owned() })?)
        }
        DeValue::Boolean(value) => Kind::Bool(*value),
        DeValue::Datetime(_) => {
            return Err(SyntaxError { line, message: "a job has no dates; write a string".to_owned() });
        }
        DeValue::Array(values) => {
            let depth = deeper(depth, line)?;
            let values = values
                .iter()
                .map(|value| toml_value(value.get_ref(), lines.at(value.span().start), lines, depth));
            Kind::List(values.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => return toml_table(table, line, lines, depth),
    };
    Ok(Node { line, kind })
}

fn deeper(depth: usize, line: u32) -> Result<usize, SyntaxError> {
    depth.checked_sub(1).ok_or_else(|| SyntaxError { line, message: "nested too deep".to_owned() })
}

pub(super) fn read_json(text: &str) -> Result<Node, SyntaxError> {
    // Some editors begin a file with it; TOML allows it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| json_error(&error, 0))?;
    json_value(raw.get(), text, &lines, DEPTH_MAX)
}

fn json_error(error: &serde_json::Error, line: u32) -> SyntaxError {
    let at = u32::try_from(error.line()).unwrap_or(u32::MAX);
    SyntaxError { line: line.saturating_add(at), message: error.to_string() }
}

/// The pairs of an object in the order of the text, doubles included.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Visitor).map(Pairs)
    }
}

/// `raw` is a part of `text`, so where it lies in memory tells where it stands.
fn json_value(raw: &str, text: &str, lines: &Lines, depth: usize) -> Result<Node, SyntaxError> {
    let offset = raw.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    let line = lines.at(offset);
    let wrong = |error: serde_json::Error| json_error(&error, line - 1);
    let kind = match raw.as_bytes().first() {
        Some(b'{') => {
            let depth = deeper(depth, line)?;
            let mut seen = BTreeMap::new();
            let mut pairs = Vec::new();
            for (key, value) in serde_json::from_str::<Pairs<'_>>(raw).map_err(wrong)?.0 {
                let node = json_value(value.get(), text, lines, depth)?;
                if let Some(first) = seen.insert(key.clone(), node.line) {
                    let message = format!("key `{key}` stands twice; first on line {first}");
                    return Err(SyntaxError { line: node.line, message });
                }
                pairs.push((key, node));
            }
            Kind::Map(pairs)
        }
        Some(b'[') => {
            let depth = deeper(depth, line)?;
            let values: Vec<&RawValue> = serde_json::from_str(raw).map_err(wrong)?;
            let values = values.into_iter().map(|value| json_value(value.get(), text, lines, depth));
            Kind::List(values.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Kind::Text(serde_json::from_str(raw).map_err(wrong)?),
        Some(b't') => Kind::Bool(true),
        Some(b'f') => Kind::Bool(false),
        Some(b'n') => Kind::Null,
        _ => match raw.parse() {
            Ok(integer) => Kind::Integer(integer),
            Err(_) => Kind::Float(serde_json::from_str(raw).map_err(wrong)?),
        },
    };
    Ok(Node { line, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(node: &Node) -> Node {
        let kind = match &node.kind {
            Kind::List(values) => Kind::List(values.iter().map(strip).collect()),
            Kind::Map(pairs) => {
                Kind::Map(pairs.iter().map(|(key, node)| (key.clone(), strip(node))).collect())
            }
            kind => kind.clone(),
        };
        Node { line: 0, kind }
    }

    fn get<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Kind::Map(pairs) = &node.kind else { panic!("no table") };
        &pairs.iter().find(|(name, _)| name == key).unwrap().1
    }

    #[test]
    fn both_forms_are_one_tree_with_lines() {
        let toml = read_toml("b = [1, -2,\n 0.5]\n[a]\nc = \"x\"\nd = true\n").unwrap();
        let json = read_json("{\"b\": [1, -2,\n 0.5],\n\"a\": {\n\"c\": \"x\",\n\"d\": true}}").unwrap();
        assert_eq!(strip(&toml), strip(&json));
        for node in [&toml, &json] {
            assert_eq!(get(get(node, "a"), "c").line, 4);
            assert_eq!(get(get(node, "a"), "d").line, 5);
            let Kind::List(values) = &get(node, "b").kind else { panic!("no list") };
            assert_eq!(values.iter().map(|value| value.line).collect::<Vec<_>>(), [1, 1, 2]);
        }
    }

    #[test]
    fn faults_name_their_line() {
        assert_eq!(read_toml("a = 1\nb = \n").unwrap_err().line, 2);
        assert_eq!(read_json("{\"a\": 1,\n\"b\" 2}").unwrap_err().line, 2);
        assert_eq!(read_json("{\"a\": 1,\n\"a\": 2}").unwrap_err().line, 2);
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert!(read_json(&deep).unwrap_err().message.contains("deep"));
        assert!(read_toml(&format!("a = {deep}")).is_err());
    }
}
