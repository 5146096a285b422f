//! Where each value of a file stands.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::read::join;
use super::{Located, Override, Problem, ScenarioError};

/// Longer values are cut in messages.
const VALUE_CHARS_MAX: usize = 60;

/// The places of a file's keys, and of the values that take their place.
#[derive(Debug)]
pub(super) struct Places<'a> {
    origin: &'a str,
    overrides: &'a [Override],
    /// By path: line and value.
    written: BTreeMap<String, (usize, Option<String>)>,
}

impl<'a> Places<'a> {
    /// Notes where everything stands.
    pub(super) fn new(origin: &'a str, text: &str, overrides: &'a [Override]) -> Result<Self, ScenarioError> {
        let mut places = Places { origin, overrides, written: BTreeMap::new() };
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(places.syntax(text, &errors));
        }
        places.note_table(text, "", root.get_ref());
        Ok(places)
    }

    fn note_table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            self.note(text, path, key.span(), value.span(), value.get_ref());
        }
    }

    fn note(&mut self, text: &str, path: String, key: Range<usize>, span: Range<usize>, value: &DeValue<'_>) {
        let line = line_at(text, key.start);
        match value {
            DeValue::Table(table) => {
                self.note_table(text, &path, table);
                self.written.insert(path, (line, None));
            }
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                for (i, item) in items.iter().enumerate() {
                    let span = item.span();
                    self.note(text, format!("{path}[{i}]"), span.clone(), span, item.get_ref());
                }
                self.written.insert(path, (line, None));
            }
            _ => {
                self.written.insert(path, (line, text.get(span).map(shortened)));
            }
        }
    }

    /// What is no TOML.
    pub(super) fn syntax(&self, text: &str, errors: &[Error]) -> ScenarioError {
        let located = |error: &Error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            let problem = Problem::new("", error.message(), "correct the TOML; see https://toml.io");
            (line, Located { place: format!("{}:{line}", self.origin), value: None, problem })
        };
        in_order(errors.iter().map(located).collect())
    }

    /// The problems with their places, if there are any, in the order of the file.
    pub(super) fn refuse(&self, problems: Vec<Problem>) -> Result<(), ScenarioError> {
        if problems.is_empty() {
            return Ok(());
        }
        Err(in_order(problems.into_iter().map(|problem| self.locate(problem)).collect()))
    }

    fn locate(&self, problem: Problem) -> (usize, Located) {
        let set = self.overrides.iter().rev().find(|set| super::edit::normal(&set.path) == problem.path);
        if let Some(set) = set {
            return (0, Located { place: set.origin.clone(), value: Some(set.value.clone()), problem });
        }
        // The nearest thing around it that was written.
        let mut path = problem.path.as_str();
        let mut found = self.written.get(path);
        while found.is_none() && !path.is_empty() {
            let cut = path.rfind(['.', '[']).unwrap_or(0);
            path = &path[..cut];
            found = self.written.get(path);
        }
        let line = found.map_or(1, |(line, _)| *line);
        let value = found.filter(|_| path == problem.path).and_then(|(_, value)| value.clone());
        (line, Located { place: format!("{}:{line}", self.origin), value, problem })
    }
}

/// Sorted by line.
fn in_order(mut located: Vec<(usize, Located)>) -> ScenarioError {
    located.sort_by_key(|(line, _)| *line);
    ScenarioError::Invalid(located.into_iter().map(|(_, located)| located).collect())
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn shortened(value: &str) -> String {
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    if value.chars().count() <= VALUE_CHARS_MAX {
        return value;
    }
    value.chars().take(VALUE_CHARS_MAX).chain(['…']).collect()
}
