//! TOML by section and key. What is wrong is noted and reading goes on, so that all problems are found at once.
//!
//! A key that is asked for is thereby known: what nobody asked for is unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::scenario::Problem;
use crate::suggest::nearest;

/// No time in a scenario is longer: a year.
const MS_MAX: f64 = 365.0 * 86_400_000.0;

/// What is found while reading.
#[derive(Debug, Default)]
pub(super) struct Notes {
    problems: RefCell<Vec<Problem>>,
    /// The known keys of each section, without the numbers of lists.
    known: RefCell<BTreeMap<String, Vec<&'static str>>>,
    /// Unknown keys: their section and name.
    unknown: RefCell<Vec<(String, String)>>,
}

impl Notes {
    pub(super) fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Everything that is wrong.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let known = self.known.into_inner();
        let mut problems = self.problems.into_inner();
        for (section, key) in self.unknown.into_inner() {
            let remedy = remedy_of_unknown(&known, &section, &key);
            problems.push(Problem::new(join(&section, &key), "unknown key", remedy));
        }
        problems
    }
}

/// The right name in this section, the same name in another one, or all that there is.
fn remedy_of_unknown(known: &BTreeMap<String, Vec<&'static str>>, section: &str, key: &str) -> String {
    let here = known.get(&without_numbers(section)).map_or(&[][..], Vec::as_slice);
    if let Some(meant) = nearest(key, here.iter().copied()) {
        return format!("did you mean `{meant}`?");
    }
    let elsewhere = known.iter().filter(|(_, keys)| keys.contains(&key));
    let elsewhere: Vec<_> = elsewhere.map(|(other, _)| format!("`{}`", join(other, key))).collect();
    if !elsewhere.is_empty() {
        return format!("did you mean {}?", elsewhere.join(" or "));
    }
    format!("known here: {}", here.join(", "))
}

fn without_numbers(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

pub(super) fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// A table of the file, or an absent one, which has no keys.
#[derive(Debug)]
pub(super) struct Section<'a, 't> {
    path: String,
    table: Option<&'a DeTable<'t>>,
    notes: &'a Notes,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a, 't> Section<'a, 't> {
    pub(super) fn new(path: String, table: Option<&'a DeTable<'t>>, notes: &'a Notes) -> Self {
        Section { path, table, notes, asked: RefCell::default() }
    }

    /// The path of one of its keys.
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(super) fn problem(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let path = if key.is_empty() { self.path.clone() } else { self.at(key) };
        self.notes.push(Problem::new(path, message, remedy));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    fn get(&self, key: &'static str) -> Option<&'a DeValue<'t>> {
        self.asked.borrow_mut().push(key);
        Some(self.table?.get(key)?.get_ref())
    }

    /// Whether all keys that were asked for are such.
    pub(super) fn asks_only_for(&self, is_such: impl Fn(&str) -> bool) -> bool {
        self.asked.borrow().iter().all(|key| is_such(key))
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn finish(self) {
        self.finish_kind("", &[]);
    }

    /// The same for a table of one of several kinds: `others` are keys that belong to other kinds.
    pub(super) fn finish_kind(self, kind: &str, others: &[&str]) {
        let asked = self.asked.into_inner();
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let key = key.get_ref().as_ref();
            if asked.contains(&key) {
                continue;
            }
            if others.contains(&key) {
                let own: Vec<_> = others.iter().filter(|other| asked.contains(other)).copied().collect();
                let takes = if own.is_empty() { "nothing of the kind".to_owned() } else { own.join(", ") };
                self.notes.push(Problem::new(
                    join(&self.path, key),
                    format!("does not apply to `{kind}`"),
                    format!("remove it; `{kind}` takes {takes}"),
                ));
            } else {
                self.notes.unknown.borrow_mut().push((self.path.clone(), key.to_owned()));
            }
        }
        let mut known = self.notes.known.borrow_mut();
        let entry = known.entry(without_numbers(&self.path)).or_default();
        for key in asked {
            if !entry.contains(&key) {
                entry.push(key);
            }
        }
    }

    /// A value of a type, or a note that it is of another one.
    fn read<T>(
        &self,
        key: &'static str,
        expected: &str,
        example: &str,
        convert: impl FnOnce(&'a DeValue<'t>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let converted = convert(value);
        if converted.is_none() {
            let message = format!("must be {expected}, not {}", type_name(value));
            self.problem(key, message, format!("write for example `{key} = {example}`"));
        }
        converted
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", "true", |value| match value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.read(key, "text", "\"…\"", |value| value.as_str().map(str::to_owned))
    }

    /// One of several words.
    pub(super) fn word(&self, key: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let example = format!("{:?}", words.first().copied().unwrap_or_default());
        let text = self.read(key, "one of several words", &example, |value| value.as_str())?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let remedy = match nearest(text, words.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "take one of these".to_owned(),
            };
            self.problem(key, format!("is none of {}", words.join(", ")), remedy);
        }
        found
    }

    /// A whole number that fits the type.
    pub(super) fn whole<T: TryFrom<i64>>(&self, key: &'static str) -> Option<T> {
        let number = self.read(key, "a whole number", "10", to_whole)?;
        let fitting = T::try_from(number).ok();
        if fitting.is_none() {
            let message = if number < 0 { "must not be negative" } else { "is too large" };
            self.problem(key, message, format!("write for example `{key} = 10`"));
        }
        fitting
    }

    /// A finite number.
    pub(super) fn number(&self, key: &'static str) -> Option<f64> {
        self.read(key, "a number", "0.5", to_number)
    }

    /// A length of time in milliseconds.
    pub(super) fn ms(&self, key: &'static str) -> Option<Duration> {
        let ms = self.read(key, "a number of milliseconds", "1000", to_number)?;
        if !(0.0..=MS_MAX).contains(&ms) {
            self.problem(key, "is no length of time", "write milliseconds: from 0 to those of a year");
            return None;
        }
        Some(Duration::from_secs_f64(ms / 1_000.0))
    }

    /// A list of things of one type.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        example: &str,
        item: impl Fn(&'a DeValue<'t>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.read(key, expected, example, |value| match value {
            DeValue::Array(items) => items.iter().map(|value| item(value.get_ref())).collect(),
            _ => None,
        })
    }

    /// The table of this name.
    pub(super) fn section(&self, key: &'static str) -> Section<'a, 't> {
        let path = self.at(key);
        let table = self.read(key, "a section", "{}", |value| match value {
            DeValue::Table(table) => Some(table),
            _ => None,
        });
        Section::new(path, table, self.notes)
    }

    /// The list of tables of this name.
    pub(super) fn sections(&self, key: &'static str) -> Option<Vec<Section<'a, 't>>> {
        let tables = self.list(key, "a list of sections", "[{}]", |value| match value {
            DeValue::Table(table) => Some(table),
            _ => None,
        })?;
        let section = |(i, table)| Section::new(format!("{}[{i}]", self.at(key)), Some(table), self.notes);
        Some(tables.into_iter().enumerate().map(section).collect())
    }
}

/// Takes a value if there is one.
pub(super) fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

pub(super) fn to_whole(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of a scenario are far below 2^52")]
pub(super) fn to_number(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse().ok()?,
        _ => to_whole(value)? as f64,
    };
    number.is_finite().then_some(number)
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) if to_whole(value).is_none() => "one beyond 2^63",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
