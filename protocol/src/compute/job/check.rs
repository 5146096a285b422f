//! Whether a job makes sense: what is wrong with it, where, and what to do.

use std::collections::BTreeSet;
use std::fmt;

use petgraph::graph::{DiGraph, NodeIndex};

use super::limits::{
    DEADLINE_S_MAX, FAN_IN_MAX, INPUTS_MAX, LABELS_MAX, NAME_BYTES_MAX, PARAMS_MAX, Quota, REDUNDANCY_MAX,
    RETRIES_MAX, SOURCES_MAX, SPEC_BYTES_MAX, TASKS_MAX,
};
use super::spec::{Action, Align, Each, JobSpec, OnFailure, Source, TaskSpec};
use super::{MERGES, OPERATIONS, READS_ROW_GROUPS};

/// One thing that is wrong with a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable code.
    pub code: ProblemCode,
    /// Where in the job: names separated by dots, as `task.count.limits.cpu`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    pub(super) fn new(
        code: ProblemCode,
        path: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Problem { code, path: path.into(), message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.message, self.remedy)
    }
}

/// The sorts of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemCode {
    /// The text is not TOML or JSON.
    Syntax,
    /// A value of another type, or out of range.
    BadValue,
    /// A key that means nothing.
    UnknownKey,
    /// Something that has to be there is not.
    Missing,
    /// A name twice, or with characters that are not allowed.
    BadName,
    /// A task reads from, or waits for, what is not there.
    UnknownName,
    /// An operation that there is not.
    UnknownOperation,
    /// Tasks that wait for one another.
    Cycle,
    /// More than the quota allows.
    Quota,
}

impl ProblemCode {
    /// The stable name.
    pub const fn code(self) -> &'static str {
        match self {
            ProblemCode::Syntax => "syntax",
            ProblemCode::BadValue => "bad_value",
            ProblemCode::UnknownKey => "unknown_key",
            ProblemCode::Missing => "missing",
            ProblemCode::BadName => "bad_name",
            ProblemCode::UnknownName => "unknown_name",
            ProblemCode::UnknownOperation => "unknown_operation",
            ProblemCode::Cycle => "cycle",
            ProblemCode::Quota => "quota",
        }
    }
}

/// Everything that is wrong with a job, in the order of its parts; the first few of it, if it is much.
pub(super) fn check(spec: &JobSpec, quota: &Quota) -> Vec<Problem> {
    let mut checker = Checker { spec, quota, problems: Vec::new() };
    checker.job();
    for (place, task) in spec.tasks.iter().enumerate() {
        checker.task(place, task);
        // The rest would say the same.
        if checker.problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    checker.problems
}

const PROBLEMS_MAX: usize = 50;

/// True for 1 to 64 of `A–Z a–z 0–9 _ - .`.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

struct Checker<'a> {
    spec: &'a JobSpec,
    quota: &'a Quota,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn add(
        &mut self,
        code: ProblemCode,
        path: impl Into<String>,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem::new(code, path, message, remedy));
    }

    /// A number that has to be in a range.
    fn range(&mut self, path: String, value: u64, least: u64, most: u64) {
        if value < least || value > most {
            let remedy = if most == u64::MAX {
                format!("give {least} or more")
            } else {
                format!("give a number from {least} to {most}")
            };
            self.add(ProblemCode::BadValue, path, format!("{value} is out of range"), remedy);
        }
    }

    /// So many of something, which no setting allows more of.
    fn count(&mut self, path: String, count: usize, most: usize, what: &str) {
        if count > most {
            let message = format!("has {count} {what}, more than {most}");
            self.add(ProblemCode::Quota, path, message, format!("give at most {most}"));
        }
    }

    /// What a setting of the node allows so much of.
    fn quota(&mut self, path: String, value: u64, most: u64, unit: &str, setting: &str) {
        if value > most {
            let message = format!("{value} {unit} is more than the {most} that `compute.{setting}` allows");
            let remedy =
                format!("ask for at most {most} {unit}, or have `compute.{setting}` raised on the node");
            self.add(ProblemCode::Quota, path, message, remedy);
        }
    }

    fn name(&mut self, path: &str, name: &str) {
        if !is_name(name) {
            let remedy = "use 1 to 64 of the characters A-Z a-z 0-9 _ - .";
            self.add(ProblemCode::BadName, path, format!("`{}` is no name", name.escape_debug()), remedy);
        }
    }

    fn job(&mut self) {
        let spec = self.spec;
        self.name("name", &spec.name);
        self.range("deadline".to_owned(), spec.deadline_s, 1, DEADLINE_S_MAX);
        let spot_check = u64::from(spec.spot_check_per_mille);
        self.range("spot_check".to_owned(), spot_check, 0, 1000);
        if spec.tasks.is_empty() {
            let remedy = "add a table [task.NAME] with an operation";
            self.add(ProblemCode::Missing, "task", "the job has no tasks".to_owned(), remedy);
        }
        self.count("inputs".to_owned(), spec.inputs.len(), INPUTS_MAX, "inputs");
        self.count("task".to_owned(), spec.tasks.len(), TASKS_MAX, "tasks");
        let mut names = BTreeSet::new();
        let inputs = spec.inputs.iter().map(|input| ("inputs", &input.name));
        let tasks = spec.tasks.iter().map(|task| ("task", &task.name));
        for (kind, name) in inputs.chain(tasks) {
            let path = format!("{kind}.{name}");
            self.name(&path, name);
            if !names.insert(name) {
                let message = format!("`{name}` is the name of two inputs or tasks");
                self.add(ProblemCode::BadName, path, message, "give each its own name");
            }
        }
        let total = spec.inputs.iter().fold(0_u64, |total, input| total.saturating_add(input.blob.size));
        let most = self.quota.input_bytes_max;
        self.quota("inputs".to_owned(), total, most, "bytes", "job_input_bytes_max");
        let mut outputs = BTreeSet::new();
        for output in &spec.outputs {
            let path = format!("outputs.{}", output.name);
            self.name(&path, &output.name);
            if !outputs.insert(&output.name) {
                let message = "is the name of two outputs".to_owned();
                self.add(ProblemCode::BadName, path.clone(), message, "give each its own name");
            }
            self.place(&path, output.task, spec.tasks.len(), "task");
        }
        let bytes = spec.encode().len() as u64;
        if bytes > SPEC_BYTES_MAX as u64 {
            let message = format!("the job has {bytes} bytes without its inputs, more than {SPEC_BYTES_MAX}");
            let remedy = "put long parameters into blobs, and use for_each in place of many like tasks";
            self.add(ProblemCode::Quota, "job", message, remedy);
        }
    }

    fn place(&mut self, path: &str, place: u16, count: usize, what: &str) -> bool {
        let is_there = usize::from(place) < count;
        if !is_there {
            let message = format!("there is no {what} number {place}");
            self.add(ProblemCode::UnknownName, path, message, "name one that is there");
        }
        is_there
    }

    fn task(&mut self, place: usize, task: &TaskSpec) {
        let path = format!("task.{}", task.name);
        let (inputs, tasks) = (self.spec.inputs.len(), self.spec.tasks.len());
        self.action(&path, &task.action);
        if let OnFailure::Fallback(action) = &task.on_failure {
            self.action(&format!("{path}.fallback"), action);
        }
        self.count(format!("{path}.inputs"), task.sources.len(), SOURCES_MAX, "inputs");
        self.once(&format!("{path}.inputs"), &task.sources);
        self.once(&format!("{path}.after"), &task.after);
        for source in &task.sources {
            match *source {
                Source::Input(input) => self.place(&format!("{path}.inputs"), input, inputs, "input"),
                Source::Task(other) => self.place(&format!("{path}.inputs"), other, tasks, "task"),
            };
        }
        for other in &task.after {
            self.place(&format!("{path}.after"), *other, tasks, "task");
            if usize::from(*other) == place {
                let message = format!("`{}` waits for itself", task.name);
                self.add(ProblemCode::Cycle, format!("{path}.after"), message, "remove it from the list");
            }
        }
        self.each(&format!("{path}.for_each"), task);
        self.limits(&path, task);
        self.constraints(&path, task);
        let merges = MERGES.contains(&task.action.operation.as_str());
        if merges && task.sources.is_empty() && task.each.is_none() {
            let message = format!(
                "operation {} merges the outputs of other tasks, and reads none",
                task.action.operation
            );
            self.add(ProblemCode::Missing, format!("{path}.inputs"), message, "name a task in `inputs`");
        }
    }

    /// Twice the same says nothing more, and would be looked at twice for each task.
    fn once<T: Ord>(&mut self, path: &str, list: &[T]) {
        if list.iter().collect::<BTreeSet<_>>().len() < list.len() {
            let message = "names something twice".to_owned();
            self.add(ProblemCode::BadValue, path, message, "name each once");
        }
    }

    fn action(&mut self, path: &str, action: &Action) {
        let operation = action.operation.as_str();
        if !OPERATIONS.contains(&operation) {
            let message = format!("there is no operation `{}`", operation.escape_debug());
            let remedy = format!("use one of: {}", OPERATIONS.join(", "));
            self.add(ProblemCode::UnknownOperation, format!("{path}.operation"), message, remedy);
        }
        match (operation == "wasm", action.program.is_some()) {
            (true, false) => {
                let message = "operation wasm needs a program".to_owned();
                self.add(
                    ProblemCode::Missing,
                    format!("{path}.program"),
                    message,
                    "name an input that is a module",
                );
            }
            (false, true) => {
                let message = "only operation wasm has a program".to_owned();
                self.add(
                    ProblemCode::BadValue,
                    format!("{path}.program"),
                    message,
                    "remove it, or use `wasm`",
                );
            }
            _ => {}
        }
        self.count(format!("{path}.params"), action.params.len(), PARAMS_MAX, "parameters");
        for name in action.params.keys() {
            self.name(&format!("{path}.params.{name}"), name);
        }
    }

    fn each(&mut self, path: &str, task: &TaskSpec) {
        match task.each {
            Some(Each::Chunk { input, bytes, align }) => {
                self.place(path, input, self.spec.inputs.len(), "input");
                self.range(format!("{path}.bytes"), bytes, 1, u64::MAX);
                let reads = |stage| READS_ROW_GROUPS.contains(&task.action_at(stage).operation.as_str());
                if align == Align::RowGroup && !(reads(0) && reads(task.last_stage())) {
                    let which = READS_ROW_GROUPS.join(", ");
                    let message = format!("row groups of Parquet files are read by {which} alone");
                    let remedy =
                        "use that operation, also in `fallback`, or give align = \"byte\" or \"line\"";
                    self.add(ProblemCode::BadValue, format!("{path}.align"), message, remedy);
                }
            }
            Some(Each::Output { task, group }) => {
                self.place(path, task, self.spec.tasks.len(), "task");
                let group = u64::from(group);
                self.range(format!("{path}.group"), group, 1, FAN_IN_MAX);
            }
            None => {}
        }
    }

    fn limits(&mut self, path: &str, task: &TaskSpec) {
        let limits = &task.limits;
        let quota = self.quota;
        for (name, value, most, unit, setting) in [
            ("cpu", limits.cpu_ms, quota.cpu_ms_max, "ms", "task_cpu_ms_max"),
            ("memory", limits.memory_bytes, quota.memory_bytes_max, "bytes", "task_memory_bytes_max"),
            ("output", limits.output_bytes, quota.output_bytes_max, "bytes", "task_output_bytes_max"),
            ("wall", limits.wall_ms, quota.wall_ms_max, "ms", "task_wall_ms_max"),
        ] {
            let path = format!("{path}.limits.{name}");
            if value == 0 {
                self.range(path, value, 1, most);
            } else {
                self.quota(path, value, most, unit, setting);
            }
        }
        let retry = &task.retry;
        let day = 86_400_000;
        self.range(format!("{path}.retry.max"), u64::from(retry.max), 0, u64::from(RETRIES_MAX));
        self.range(format!("{path}.retry.backoff"), retry.backoff_ms, 0, day);
        self.range(format!("{path}.retry.backoff_max"), retry.backoff_max_ms, 0, day);
        self.range(format!("{path}.retry.jitter"), u64::from(retry.jitter_per_mille), 0, 1000);
        let redundancy = u64::from(task.redundancy);
        self.range(format!("{path}.redundancy"), redundancy, 1, u64::from(REDUNDANCY_MAX));
    }

    fn constraints(&mut self, path: &str, task: &TaskSpec) {
        let labels = &task.constraints.labels;
        self.count(format!("{path}.needs.labels"), labels.len(), LABELS_MAX, "labels");
        for (name, value) in labels {
            self.name(&format!("{path}.needs.labels.{name}"), name);
            self.name(&format!("{path}.needs.labels.{name}"), value);
        }
        if let Some(region) = &task.constraints.region {
            self.name(&format!("{path}.needs.region"), region);
        }
    }
}

/// The tasks in an order in which each comes after all that it waits for; ties by place.
///
/// # Errors
/// The tasks of a cycle, in its direction, each once.
pub(super) fn order(spec: &JobSpec) -> Result<Vec<u16>, Vec<u16>> {
    let mut graph = DiGraph::<u16, ()>::new();
    let nodes: Vec<NodeIndex> = (0_u16..).zip(&spec.tasks).map(|(place, _)| graph.add_node(place)).collect();
    for (task, node) in spec.tasks.iter().zip(&nodes) {
        for other in task.waits_for() {
            graph.update_edge(nodes[usize::from(other)], *node, ());
        }
    }
    match petgraph::algo::toposort(&graph, None) {
        Ok(_) => Ok(by_depth(&graph)),
        Err(cycle) => Err(cycle_through(&graph, cycle.node_id())),
    }
}

/// By the longest path to each, then by place: so the order does not depend on how the graph was walked.
fn by_depth(graph: &DiGraph<u16, ()>) -> Vec<u16> {
    let sorted = petgraph::algo::toposort(graph, None).unwrap_or_default();
    let mut depth = vec![0_usize; graph.node_count()];
    for node in sorted {
        for next in graph.neighbors(node) {
            depth[next.index()] = depth[next.index()].max(depth[node.index()] + 1);
        }
    }
    let mut order: Vec<_> = graph.node_indices().map(|node| (depth[node.index()], graph[node])).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, place)| place).collect()
}

/// A cycle in the strongly connected component of this node.
fn cycle_through(graph: &DiGraph<u16, ()>, start: NodeIndex) -> Vec<u16> {
    let components = petgraph::algo::tarjan_scc(graph);
    let members: BTreeSet<NodeIndex> = components
        .into_iter()
        .find(|members| members.contains(&start))
        .unwrap_or_default()
        .into_iter()
        .collect();
    // Within the component every node has a way on: walk until a node comes again.
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        let mut next: Vec<_> = graph.neighbors(last).filter(|node| members.contains(node)).collect();
        next.sort_unstable();
        let Some(&next) = next.first() else { return vec![graph[start]] };
        if let Some(seen) = path.iter().position(|node| *node == next) {
            return path[seen..].iter().map(|node| graph[*node]).collect();
        }
        path.push(next);
    }
}

impl TaskSpec {
    /// True if it reads an input of the job, or a chunk of one.
    pub fn reads_input(&self) -> bool {
        matches!(self.each, Some(Each::Chunk { .. }))
            || self.sources.iter().any(|source| matches!(source, Source::Input(_)))
    }

    /// The tasks that it reads from or waits for, those that it does both with twice.
    pub fn waits_for(&self) -> impl Iterator<Item = u16> + '_ {
        let sources = self.sources.iter().filter_map(|source| match *source {
            Source::Task(task) => Some(task),
            Source::Input(_) => None,
        });
        let each = self.each.and_then(|each| match each {
            Each::Output { task, .. } => Some(task),
            Each::Chunk { .. } => None,
        });
        sources.chain(each).chain(self.after.iter().copied())
    }
}
