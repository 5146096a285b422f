//! Reads job files. `docs/compute.md` describes them.

mod fields;

use std::collections::BTreeMap;
use std::fmt;

use crate::compute::id::BlobRef;
use crate::id::Hash;
use crate::registry::Value;

use super::check::{Problem, ProblemCode};
use super::limits::{Quota, REDUNDANCY_MAX, RETRIES_MAX};
use super::params;
use super::plan::Plan;
use super::spec::{
    Action, Align, Constraints, Each, InputSpec, JobSpec, Limits, OnFailure, OutputSpec, Params, Retry,
    Source, TaskSpec, WhenMissing,
};
use super::text::{self, Kind, Node};
use fields::{BYTES, Reader, TIME, Table, join};

/// How a job is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON, with the same keys.
    Json,
}

/// Where the content of `file = "…"` is found: the caller has put the files into blobs.
pub trait Files {
    /// The blob that a file has become.
    ///
    /// # Errors
    /// Why there is none, for people.
    fn blob(&self, path: &str) -> Result<BlobRef, String>;
}

impl Files for BTreeMap<String, BlobRef> {
    fn blob(&self, path: &str) -> Result<BlobRef, String> {
        self.get(path).copied().ok_or_else(|| format!("the file {path} was not given"))
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: u32,
    /// What, and what to do.
    pub problem: Problem,
}

/// All that is wrong with a job file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// What the file is called.
    pub file: String,
    /// In the order of the file; at least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.faults.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}: {}", self.file, fault.line, fault.problem)?;
        }
        Ok(())
    }
}

/// Reads a job, and works out what it means. `file` is its name for messages, `nonce` goes into the job.
///
/// # Errors
/// All that is wrong, with lines.
pub fn read(
    file: &str,
    text: &str,
    format: Format,
    files: &impl Files,
    nonce: u64,
    quota: &Quota,
) -> Result<(JobSpec, Plan), Problems> {
    let problems = |mut faults: Vec<Fault>| {
        faults.sort_by_key(|fault| fault.line);
        Problems { file: file.to_owned(), faults }
    };
    let root = match format {
        Format::Toml => text::read_toml(text),
        Format::Json => text::read_json(text),
    };
    let root = root.map_err(|error| {
        let problem = Problem::new(ProblemCode::Syntax, "file", error.message, "correct the text");
        problems(vec![Fault { line: error.line, problem }])
    })?;
    let mut reader = Reader::new(files);
    let spec = reader.job(&root, nonce);
    let found = match Plan::new(&spec, quota) {
        Ok(plan) if reader.faults.is_empty() => return Ok((spec, plan)),
        Ok(_) => Vec::new(),
        Err(found) => found,
    };
    let found: Vec<_> = found
        .into_iter()
        .filter(|problem| !reader.follows(problem))
        .map(|problem| Fault { line: reader.line_of(&problem.path), problem })
        .collect();
    reader.faults.extend(found);
    Err(problems(reader.faults))
}

impl<F: Files> Reader<'_, F> {
    fn job(&mut self, root: &Node, nonce: u64) -> JobSpec {
        let mut spec = JobSpec {
            name: String::new(),
            nonce,
            deadline_s: 86_400,
            spot_check_per_mille: 0,
            inputs: Vec::new(),
            tasks: Vec::new(),
            outputs: Vec::new(),
        };
        let Some(mut table) = self.table("", root) else { return spec };
        spec.name = self.required(&mut table, "name", "\"my-job\"");
        if let Some(ms) = self.quantity(&mut table, "deadline", &TIME) {
            spec.deadline_s = ms.div_ceil(1000);
        }
        spec.spot_check_per_mille = self.share(&mut table, "spot_check").unwrap_or(0);
        let redundancy = self.small(&mut table, "redundancy", 1, REDUNDANCY_MAX).unwrap_or(1);
        if let Some(inputs) = table.take("inputs").and_then(|node| self.table("inputs", node)) {
            for (name, node) in inputs.pairs {
                let blob = self.input(&inputs.path(name), node);
                spec.inputs.push(InputSpec { name: name.clone(), blob });
            }
        }
        if let Some(tasks) = table.take("task").and_then(|node| self.table("task", node)) {
            // Names first: a task may read from one that stands below it.
            spec.tasks = tasks.pairs.iter().map(|(name, _)| TaskSpec::new(name, "")).collect();
            for (place, (name, node)) in tasks.pairs.iter().enumerate() {
                let task = self.task(&tasks.path(name), name, node, &spec, redundancy);
                spec.tasks[place] = task;
            }
        }
        if let Some(outputs) = table.take("outputs").and_then(|node| self.table("outputs", node)) {
            for (name, node) in outputs.pairs {
                let path = outputs.path(name);
                let Some(task) = self.text(&path, node) else { continue };
                match spec.task(task) {
                    Some(task) => spec.outputs.push(OutputSpec { name: name.clone(), task }),
                    None => self.unknown(&path, node.line, task, "task", &spec),
                }
            }
        }
        self.end(&table);
        spec
    }

    fn unknown(&mut self, path: &str, line: u32, name: &str, what: &str, spec: &JobSpec) {
        let tasks = spec.tasks.iter().map(|task| task.name.as_str());
        let names: Vec<_> = if what == "task" {
            tasks.collect()
        } else if what == "input" {
            spec.inputs.iter().map(|input| input.name.as_str()).collect()
        } else {
            spec.inputs.iter().map(|input| input.name.as_str()).chain(tasks).collect()
        };
        let remedy = format!("name one of: {}", names.join(", "));
        let message = format!("there is no {what} `{}`", name.escape_debug());
        self.fault(line, ProblemCode::UnknownName, path, message, &remedy);
    }

    fn input(&mut self, path: &str, node: &Node) -> BlobRef {
        let nothing = BlobRef::of(&[]);
        let Some(mut table) = self.table(path, node) else { return nothing };
        let file = table.take("file");
        let blob = table.take("blob");
        let size = self.count(&mut table, "size");
        self.end(&table);
        match (file, blob) {
            (Some(file), None) => {
                let Some(name) = self.text(&join(path, "file"), file) else { return nothing };
                self.files.blob(name).unwrap_or_else(|error| {
                    let remedy = "check the path; it is relative to the job file";
                    self.fault(file.line, ProblemCode::BadValue, &join(path, "file"), error, remedy);
                    nothing
                })
            }
            (None, Some(blob)) => {
                let Some(text) = self.text(&join(path, "blob"), blob) else { return nothing };
                match (text.parse::<Hash>(), size) {
                    (Ok(hash), Some(size)) => BlobRef { hash, size },
                    (Err(error), _) => {
                        let remedy = "give the hash that `omnimesh blob put` has printed";
                        let path = join(path, "blob");
                        self.fault(blob.line, ProblemCode::BadValue, &path, error.to_string(), remedy);
                        nothing
                    }
                    (_, None) => {
                        let message = "is missing".to_owned();
                        let remedy = "add size = the length in bytes";
                        self.fault(blob.line, ProblemCode::Missing, &join(path, "size"), message, remedy);
                        nothing
                    }
                }
            }
            _ => {
                let message = "needs either a file or a blob".to_owned();
                let remedy = "give file = \"…\", or blob = \"…\" and size = …";
                self.fault(table.line, ProblemCode::Missing, path, message, remedy);
                nothing
            }
        }
    }

    fn task(&mut self, path: &str, name: &str, node: &Node, spec: &JobSpec, redundancy: u8) -> TaskSpec {
        let mut task = TaskSpec::new(name, "");
        let Some(mut table) = self.table(path, node) else { return task };
        task.action = self.action(&mut table, spec);
        for (place, name, line) in self.names(&mut table, "inputs") {
            match (spec.input(name), spec.task(name)) {
                (Some(input), _) => task.sources.push(Source::Input(input)),
                (_, Some(other)) => task.sources.push(Source::Task(other)),
                _ => self.unknown(&format!("{path}.inputs.{place}"), line, name, "input or task", spec),
            }
        }
        for (place, name, line) in self.names(&mut table, "after") {
            match spec.task(name) {
                Some(other) => task.after.push(other),
                None => self.unknown(&format!("{path}.after.{place}"), line, name, "task", spec),
            }
        }
        task.each = table.take("for_each").and_then(|node| self.each(&join(path, "for_each"), node, spec));
        if let Some(node) = table.take("limits") {
            task.limits = self.limits(&join(path, "limits"), node);
        }
        if let Some(node) = table.take("retry") {
            task.retry = self.retry(&join(path, "retry"), node);
        }
        task.redundancy = self.small(&mut table, "redundancy", 1, REDUNDANCY_MAX).unwrap_or(redundancy);
        if let Some(node) = table.take("needs") {
            task.constraints = self.constraints(&join(path, "needs"), node);
        }
        self.failure(&mut table, &mut task, spec);
        self.end(&table);
        task
    }

    fn failure(&mut self, table: &mut Table<'_>, task: &mut TaskSpec, spec: &JobSpec) {
        let (fail, missing) = (table.take("on_failure"), table.take("when_missing"));
        let fallback = table.take("fallback");
        let path = table.path("on_failure");
        let choice = fail.and_then(|node| self.text(&path, node).map(|text| (text, node.line)));
        task.on_failure = match (choice, fallback) {
            (None | Some(("fallback", _)), Some(node)) => {
                let Some(mut table) = self.table(&table.path("fallback"), node) else { return };
                let action = self.action(&mut table, spec);
                self.end(&table);
                OnFailure::Fallback(action)
            }
            (None | Some(("fail", _)), None) => OnFailure::Fail,
            (Some(("skip", _)), None) => OnFailure::Skip,
            (Some((text, line)), _) => {
                let message = format!("`{}` does not fit", text.escape_debug());
                let remedy =
                    "give \"fail\" or \"skip\", or \"fallback\" and a table `fallback` with an operation";
                self.fault(line, ProblemCode::BadValue, &path, message, remedy);
                OnFailure::Fail
            }
        };
        if let Some(node) = missing {
            let path = table.path("when_missing");
            match self.text(&path, node) {
                Some("skip") | None => {}
                Some("omit") => task.when_missing = WhenMissing::Omit,
                Some(text) => {
                    let message = format!("`{}` does not fit", text.escape_debug());
                    self.fault(node.line, ProblemCode::BadValue, &path, message, "give \"skip\" or \"omit\"");
                }
            }
        }
    }

    fn action(&mut self, table: &mut Table<'_>, spec: &JobSpec) -> Action {
        let operation = self.required(table, "operation", "\"hash\"");
        let path = table.path("program");
        let program = table.take("program").and_then(|node| {
            let name = self.text(&path, node)?;
            let input = spec.input(name).map(|place| spec.inputs[usize::from(place)].blob);
            if input.is_none() {
                self.unknown(&path, node.line, name, "input", spec);
            }
            input
        });
        let mut params = Params::new();
        let path = table.path("params");
        let pairs = match table.take("params") {
            None => Some((table.line, &[][..])),
            Some(node) => self.table(&path, node).map(|table| (table.line, table.pairs)),
        };
        if let Some((line, pairs)) = pairs {
            self.faults.extend(params::faults(&operation, &path, line, pairs));
            for (name, node) in pairs {
                let path = join(&path, name);
                match value(node).map(|value| value.encode()) {
                    Some(Ok(encoded)) => drop(params.insert(name.clone(), encoded)),
                    Some(Err(fault)) => {
                        let remedy = "put long values into a blob and read it as an input";
                        self.fault(node.line, ProblemCode::BadValue, &path, fault.to_string(), remedy);
                    }
                    None => {
                        let message = "is not a number".to_owned();
                        self.fault(node.line, ProblemCode::BadValue, &path, message, "give a finite number");
                    }
                }
            }
        }
        Action { operation, program, params }
    }

    /// A list of names, or one name.
    fn names<'n>(&mut self, table: &mut Table<'n>, key: &'static str) -> Vec<(usize, &'n str, u32)> {
        let path = table.path(key);
        let Some(node) = table.take(key) else { return Vec::new() };
        let nodes = match &node.kind {
            Kind::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut names = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            if let Some(name) = self.text(&format!("{path}.{place}"), node) {
                names.push((place, name, node.line));
            }
        }
        names
    }

    fn each(&mut self, path: &str, node: &Node, spec: &JobSpec) -> Option<Each> {
        let mut table = self.table(path, node)?;
        let chunk = table.take("chunk_of");
        let output = table.take("output_of");
        let bytes = self.quantity(&mut table, "bytes", &BYTES);
        let group = self.count(&mut table, "group");
        let align = table.take("align");
        self.end(&table);
        match (chunk, output) {
            (Some(chunk), None) => {
                let name = self.text(&join(path, "chunk_of"), chunk)?;
                let Some(input) = spec.input(name) else {
                    self.unknown(&join(path, "chunk_of"), chunk.line, name, "input", spec);
                    return None;
                };
                let align_path = join(path, "align");
                let align = match align.map(|node| (self.text(&align_path, node), node.line)) {
                    None | Some((Some("byte"), _)) => Align::Byte,
                    Some((Some("line"), _)) => Align::Line,
                    Some((Some("row_group"), _)) => Align::RowGroup,
                    Some((text, line)) => {
                        let message = format!("`{}` does not fit", text.unwrap_or_default().escape_debug());
                        let remedy = "give \"byte\", \"line\" or \"row_group\"";
                        self.fault(line, ProblemCode::BadValue, &align_path, message, remedy);
                        return None;
                    }
                };
                Some(Each::Chunk { input, bytes: bytes.unwrap_or(64 << 20), align })
            }
            (None, Some(output)) => {
                let name = self.text(&join(path, "output_of"), output)?;
                let Some(task) = spec.task(name) else {
                    self.unknown(&join(path, "output_of"), output.line, name, "task", spec);
                    return None;
                };
                Some(Each::Output { task, group: u32::try_from(group.unwrap_or(1)).unwrap_or(u32::MAX) })
            }
            _ => {
                let message = "needs either chunk_of or output_of".to_owned();
                let remedy =
                    "give { chunk_of = \"an input\", bytes = \"64MiB\" } or { output_of = \"a task\" }";
                self.fault(node.line, ProblemCode::Missing, path, message, remedy);
                None
            }
        }
    }

    fn limits(&mut self, path: &str, node: &Node) -> Limits {
        let mut limits = Limits::default();
        let Some(mut table) = self.table(path, node) else { return limits };
        let fields = [
            ("cpu", &mut limits.cpu_ms, &TIME),
            ("memory", &mut limits.memory_bytes, &BYTES),
            ("output", &mut limits.output_bytes, &BYTES),
            ("wall", &mut limits.wall_ms, &TIME),
        ];
        for (key, field, units) in fields {
            if let Some(value) = self.quantity(&mut table, key, units) {
                *field = value;
            }
        }
        self.end(&table);
        limits
    }

    fn retry(&mut self, path: &str, node: &Node) -> Retry {
        let mut retry = Retry::default();
        let Some(mut table) = self.table(path, node) else { return retry };
        if let Some(max) = self.small(&mut table, "max", 0, RETRIES_MAX) {
            retry.max = max;
        }
        if let Some(backoff) = self.quantity(&mut table, "backoff", &TIME) {
            retry.backoff_ms = backoff;
        }
        if let Some(backoff) = self.quantity(&mut table, "backoff_max", &TIME) {
            retry.backoff_max_ms = backoff;
        }
        if let Some(jitter) = self.share(&mut table, "jitter") {
            retry.jitter_per_mille = jitter;
        }
        self.end(&table);
        retry
    }

    fn constraints(&mut self, path: &str, node: &Node) -> Constraints {
        let mut constraints = Constraints::default();
        let Some(mut table) = self.table(path, node) else { return constraints };
        let labels_path = table.path("labels");
        if let Some(labels) = table.take("labels").and_then(|node| self.table(&labels_path, node)) {
            for (name, node) in labels.pairs {
                if let Some(text) = self.text(&labels.path(name), node) {
                    constraints.labels.insert(name.clone(), text.to_owned());
                }
            }
        }
        constraints.memory_bytes = self.quantity(&mut table, "memory", &BYTES).unwrap_or(0);
        let region_path = table.path("region");
        if let Some(node) = table.take("region") {
            constraints.region = self.text(&region_path, node).map(str::to_owned);
        }
        self.end(&table);
        constraints
    }
}

/// A parameter; `None` for a float that is no number.
fn value(node: &Node) -> Option<Value> {
    Some(match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Integer(value) => Value::Integer(*value),
        Kind::Float(value) if value.is_finite() => Value::Float(*value),
        Kind::Float(_) => return None,
        Kind::Text(text) => Value::Text(text.clone()),
        Kind::List(nodes) => Value::List(nodes.iter().map(value).collect::<Option<_>>()?),
        Kind::Map(pairs) => {
            let pairs = pairs.iter().map(|(name, node)| Some((name.clone(), value(node)?)));
            Value::Map(pairs.collect::<Option<_>>()?)
        }
    })
}
