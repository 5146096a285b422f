//! What operations can be told: looked at when a file is read, so that a slip of the pen is found before anything is done.
//!
//! Not part of what makes a job one in the log: nodes of a later version may know more, and the worker looks at the values.

use super::check::{Problem, ProblemCode};
use super::read::Fault;
use super::text::{Kind, Node};

/// What a parameter has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Flag,
    Text,
    Count,
    List,
    Table,
}

impl Shape {
    fn fits(self, kind: &Kind) -> bool {
        match (self, kind) {
            (Shape::Flag, Kind::Bool(_))
            | (Shape::Text, Kind::Text(_))
            | (Shape::List, Kind::List(_))
            | (Shape::Table, Kind::Map(_)) => true,
            (Shape::Count, Kind::Integer(value)) => *value >= 0,
            _ => false,
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Shape::Flag => "true or false",
            Shape::Text => "a string",
            Shape::Count => "a whole number, 0 or more",
            Shape::List => "a list",
            Shape::Table => "a table",
        }
    }
}

/// A parameter of an operation.
#[derive(Clone, Copy, Debug)]
struct Param {
    name: &'static str,
    shape: Shape,
    /// What it may look like, if the operation does nothing without it.
    needed: Option<&'static str>,
}

impl Param {
    const fn of(name: &'static str, shape: Shape) -> Self {
        Param { name, shape, needed: None }
    }

    const fn needed(name: &'static str, shape: Shape, example: &'static str) -> Self {
        Param { name, shape, needed: Some(example) }
    }
}

const ANALYZE: &[Param] = &[
    Param::of("format", Shape::Text),
    Param::of("columns", Shape::List),
    Param::of("header", Shape::Flag),
    Param::of("delimiter", Shape::Text),
    Param::of("histogram", Shape::Table),
    Param::of("report", Shape::Flag),
];
const CRYPT: &[Param] = &[Param::needed("key", Shape::Text, "\"the name of a key at the workers\"")];
const HASH: &[Param] = &[Param::of("hex", Shape::Flag)];
const MERGE: &[Param] = &[Param::of("partial", Shape::Flag)];
const PATTERN: &[Param] =
    &[Param::needed("from", Shape::Count, "0"), Param::needed("count", Shape::Count, "1000")];

/// The parameters of an operation; `None` if they are its program's business, or there is no such operation.
fn of(operation: &str) -> Option<&'static [Param]> {
    Some(match operation {
        "analyze" => ANALYZE,
        "analyze_merge" => MERGE,
        "concat" => &[],
        "decrypt" | "encrypt" => CRYPT,
        "hash" => HASH,
        "pattern" => PATTERN,
        _ => return None,
    })
}

/// What is wrong with the parameters of an operation. `pairs` are those in the table `path`, which stands in this line.
pub(super) fn faults(operation: &str, path: &str, line: u32, pairs: &[(String, Node)]) -> Vec<Fault> {
    let Some(known) = of(operation) else { return Vec::new() };
    let fault = |line, code, name: &str, message: String, remedy: String| Fault {
        line,
        problem: Problem::new(code, format!("{path}.{name}"), message, remedy),
    };
    let missing = known.iter().filter(|param| pairs.iter().all(|(name, _)| name != param.name));
    let missing = missing.filter_map(|param| {
        let remedy = format!("add params.{} = {}", param.name, param.needed?);
        let message = format!("operation {operation} needs it");
        Some(fault(line, ProblemCode::Missing, param.name, message, remedy))
    });
    // What it does not know it would pass over in silence.
    let wrong = pairs.iter().filter_map(|(name, node)| {
        let Some(param) = known.iter().find(|param| param.name == name) else {
            let names: Vec<_> = known.iter().map(|param| param.name).collect();
            let remedy = if names.is_empty() {
                "remove it".to_owned()
            } else {
                format!("it has: {}", names.join(", "))
            };
            let message = format!("operation {operation} has no parameter `{}`", name.escape_debug());
            return Some(fault(node.line, ProblemCode::UnknownKey, name, message, remedy));
        };
        let remedy = format!("give {}", param.shape.wanted());
        let message = match &node.kind {
            Kind::Integer(value) => format!("{value} does not fit"),
            other => format!("is {}", other.name()),
        };
        let is_wrong = !param.shape.fits(&node.kind);
        is_wrong.then(|| fault(node.line, ProblemCode::BadValue, name, message, remedy))
    });
    missing.chain(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_built_in_says_what_it_can_be_told() {
        for operation in super::super::OPERATIONS {
            assert_eq!(of(operation).is_none(), *operation == "wasm", "{operation}");
        }
    }
}
