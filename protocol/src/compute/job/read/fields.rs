//! The fields of tables: each is asked for by its name and read as what it has to be. What nobody asked for, or cannot be read, is a fault.

use std::collections::BTreeMap;

use super::{Fault, Files, Kind, Node, Problem, ProblemCode};

pub(super) struct Reader<'a, F> {
    pub(super) files: &'a F,
    pub(super) faults: Vec<Fault>,
    /// Where each path stands, for what is found later.
    pub(super) lines: BTreeMap<String, u32>,
}

/// A table that is being read: what nobody asked for is wrong.
pub(super) struct Table<'a> {
    path: String,
    pub(super) line: u32,
    pub(super) pairs: &'a [(String, Node)],
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'a, F: Files> Reader<'a, F> {
    pub(super) fn new(files: &'a F) -> Self {
        Reader { files, faults: Vec::new(), lines: BTreeMap::new() }
    }

    /// The line of a path, or of the longest beginning of it that stands in the file.
    pub(super) fn line_of(&self, path: &str) -> u32 {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return 1,
            }
        }
    }

    /// True for a problem of what could not be read, which says nothing new.
    pub(super) fn follows(&self, problem: &Problem) -> bool {
        let is_in = |path: &str, of: &str| {
            path.strip_prefix(of)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || of.is_empty())
        };
        self.faults.iter().map(|fault| fault.problem.path.as_str()).any(|path| {
            let is_same = is_in(&problem.path, path)
                || (is_in(path, &problem.path) && problem.code != ProblemCode::Cycle);
            // What it reads is missing, as that could not be read.
            let reads = problem.code == ProblemCode::Missing
                && problem.path.strip_suffix("inputs").is_some_and(|task| path.starts_with(task));
            is_same || reads
        })
    }

    pub(super) fn fault(&mut self, line: u32, code: ProblemCode, path: &str, message: String, remedy: &str) {
        self.faults.push(Fault { line, problem: Problem::new(code, path, message, remedy) });
    }

    pub(super) fn wrong_type(&mut self, path: &str, node: &Node, wanted: &str) {
        let message = format!("is {}", node.kind.name());
        self.fault(node.line, ProblemCode::BadValue, path, message, &format!("give {wanted}"));
    }

    pub(super) fn table<'n>(&mut self, path: &str, node: &'n Node) -> Option<Table<'n>> {
        self.lines.insert(path.to_owned(), node.line);
        let Kind::Map(pairs) = &node.kind else {
            self.wrong_type(path, node, "a table");
            return None;
        };
        for (key, node) in pairs {
            self.lines.insert(join(path, key), node.line);
        }
        Some(Table { path: path.to_owned(), line: node.line, pairs, known: Vec::new() })
    }

    /// What nobody asked for.
    pub(super) fn end(&mut self, table: &Table<'_>) {
        for (key, node) in table.pairs {
            if !table.known.contains(&key.as_str()) {
                let remedy = format!("here are known: {}", table.known.join(", "));
                let message = format!("`{}` means nothing", key.escape_debug());
                self.fault(node.line, ProblemCode::UnknownKey, &table.path(key), message, &remedy);
            }
        }
    }

    pub(super) fn text<'n>(&mut self, path: &str, node: &'n Node) -> Option<&'n str> {
        let Kind::Text(text) = &node.kind else {
            self.wrong_type(path, node, "a string");
            return None;
        };
        Some(text)
    }

    /// A text that has to be there.
    pub(super) fn required(&mut self, table: &mut Table<'_>, key: &'static str, example: &str) -> String {
        let path = table.path(key);
        let Some(node) = table.take(key) else {
            let message = "is missing".to_owned();
            self.fault(table.line, ProblemCode::Missing, &path, message, &format!("add {key} = {example}"));
            return String::new();
        };
        self.text(&path, node).unwrap_or_default().to_owned()
    }

    pub(super) fn count(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<u64> {
        let node = table.take(key)?;
        let Kind::Integer(value) = node.kind else {
            self.wrong_type(&table.path(key), node, "a whole number");
            return None;
        };
        self.unsigned(&table.path(key), node.line, value)
    }

    /// The same from a small range.
    pub(super) fn small(
        &mut self,
        table: &mut Table<'_>,
        key: &'static str,
        least: u8,
        most: u8,
    ) -> Option<u8> {
        let value = self.count(table, key)?;
        let small = u8::try_from(value).ok().filter(|small| (least..=most).contains(small));
        if small.is_none() {
            let path = table.path(key);
            let (message, remedy) =
                (format!("{value} is out of range"), format!("give a number from {least} to {most}"));
            self.fault(self.line_of(&path), ProblemCode::BadValue, &path, message, &remedy);
        }
        small
    }

    pub(super) fn unsigned(&mut self, path: &str, line: u32, value: i64) -> Option<u64> {
        let number = u64::try_from(value).ok();
        if number.is_none() {
            self.fault(line, ProblemCode::BadValue, path, format!("{value} is negative"), "give 0 or more");
        }
        number
    }

    /// A share from 0 to 1, in thousandths.
    pub(super) fn share(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<u16> {
        let node = table.take(key)?;
        let value = match node.kind {
            Kind::Float(value) => value,
            Kind::Integer(0) => 0.0,
            Kind::Integer(1) => 1.0,
            _ => f64::NAN,
        };
        if !(0.0..=1.0).contains(&value) {
            let message = "is no share".to_owned();
            self.fault(
                node.line,
                ProblemCode::BadValue,
                &table.path(key),
                message,
                "give a number from 0 to 1",
            );
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "is at most 1,000")]
        Some((value * 1000.0).round() as u16)
    }

    /// A number with a unit: `"64MiB"`, `"1.5h"`, or a plain whole number in the smallest unit.
    pub(super) fn quantity(
        &mut self,
        table: &mut Table<'_>,
        key: &'static str,
        units: &Units,
    ) -> Option<u64> {
        let node = table.take(key)?;
        let path = table.path(key);
        match &node.kind {
            Kind::Integer(value) => self.unsigned(&path, node.line, *value),
            Kind::Text(text) => {
                let value = units.read(text);
                if value.is_none() {
                    let message = format!("`{}` is no {}", text.escape_debug(), units.what);
                    self.fault(node.line, ProblemCode::BadValue, &path, message, units.remedy);
                }
                value
            }
            _ => {
                self.wrong_type(&path, node, units.wanted);
                None
            }
        }
    }
}

pub(super) struct Units {
    what: &'static str,
    wanted: &'static str,
    remedy: &'static str,
    units: &'static [(&'static str, u64)],
}

pub(super) const TIME: Units = Units {
    what: "duration",
    wanted: "a duration, as \"90s\", or milliseconds",
    remedy: "give a number with ms, s, m, h or d, as \"90s\"",
    units: &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
};

pub(super) const BYTES: Units = Units {
    what: "size",
    wanted: "a size, as \"64MiB\", or bytes",
    remedy: "give a number with B, kB, MB, GB, KiB, MiB or GiB, as \"64MiB\"",
    units: &[
        ("B", 1),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ],
};

impl Units {
    pub(super) fn read(&self, text: &str) -> Option<u64> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let factor = self.units.iter().find(|(name, _)| *name == unit)?.1;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor);
        }
        let value = number.parse::<f64>().ok().filter(|value| (0.0..1e9).contains(value))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "is below 2^60"
        )]
        Some((value * factor as f64).round() as u64)
    }
}
