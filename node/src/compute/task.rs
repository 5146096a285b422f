//! A task as an operation sees it.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::job::{Limits, Params};
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::registry::Value;
use zeroize::Zeroizing;

use super::ops;
use super::wasm::{LazySandbox, Programs, SandboxConfig};

/// What a task reads: one part after another.
#[derive(Clone, Debug)]
pub struct Input {
    /// The bytes; `None` where an output was skipped, or where the hash is all that is wanted.
    pub bytes: Option<Bytes>,
    /// Where in its blob this part begins.
    pub offset: u64,
    /// Its BLAKE3, if it is known: of a whole blob, which was checked when it was read.
    pub hash: Option<Hash>,
    /// That it is row groups of a Parquet file, and what belongs to them.
    pub row_groups: Option<RowGroups>,
}

/// What belongs to some row groups of a Parquet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowGroups {
    /// The footer of the file.
    pub footer: Bytes,
    /// The length of the file in bytes.
    pub size: u64,
    /// The part of the file, in bytes: those row groups are meant that begin in it.
    pub part: Range<u64>,
}

impl Input {
    /// A whole blob.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Input { bytes: Some(bytes.into()), offset: 0, hash: None, row_groups: None }
    }

    /// A whole blob whose content was checked against its name, for operation `hash`.
    pub fn checked(hash: Hash) -> Self {
        Input { bytes: None, offset: 0, hash: Some(hash), row_groups: None }
    }

    /// The output of a task that was skipped.
    pub fn missing() -> Self {
        Input { bytes: None, offset: 0, hash: None, row_groups: None }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Task {
    /// One of [`OPERATIONS`](omnimesh_protocol::compute::job::OPERATIONS).
    pub operation: String,
    /// What it is told.
    pub params: Params,
    /// The module of operation `wasm`.
    pub program: Option<Bytes>,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// How much it may take.
    pub limits: Limits,
}

impl Task {
    /// A parameter; `None` if it is not given.
    pub fn param(&self, name: &str) -> Option<Value> {
        self.params.get(name).map(|value| value.decode())
    }

    /// A parameter that is text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text(&self, name: &str) -> Result<Option<String>, OpError> {
        match self.param(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(OpError::param(name, "a string")),
        }
    }

    /// A parameter that is a whole number from 0 on.
    ///
    /// # Errors
    /// If it is something else.
    pub fn count(&self, name: &str) -> Result<Option<u64>, OpError> {
        match self.param(name) {
            None => Ok(None),
            Some(Value::Integer(value)) if value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(_) => Err(OpError::param(name, "a whole number, 0 or more")),
        }
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number(&self, name: &str) -> Result<Option<f64>, OpError> {
        match self.param(name) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(value)),
            #[expect(clippy::cast_precision_loss, reason = "parameters beyond 2^53 mean nothing here")]
            Some(Value::Integer(value)) => Ok(Some(value as f64)),
            Some(_) => Err(OpError::param(name, "a number")),
        }
    }

    /// A parameter that is yes or no.
    ///
    /// # Errors
    /// If it is something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, OpError> {
        match self.param(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(OpError::param(name, "true or false")),
        }
    }

    /// The parts that are there.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.inputs.iter().filter_map(|input| input.bytes.as_ref())
    }

    /// The only part.
    ///
    /// # Errors
    /// If there are more, or none.
    pub fn only_part(&self) -> Result<&Input, OpError> {
        match &self.inputs[..] {
            [input] if input.bytes.is_some() => Ok(input),
            inputs => Err(OpError::new(
                FailReason::BadInput,
                format!("operation {} reads one input, and there are {}", self.operation, inputs.len()),
            )),
        }
    }
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.code())]
pub struct OpError {
    /// The sort.
    pub reason: FailReason,
    /// For people.
    pub detail: String,
}

impl OpError {
    /// An error.
    pub fn new(reason: FailReason, detail: impl Into<String>) -> Self {
        OpError { reason, detail: detail.into() }
    }

    /// A parameter that is something else than it has to be.
    pub fn param(name: &str, wanted: &str) -> Self {
        OpError::new(FailReason::Unsupported, format!("parameter {name} has to be {wanted}"))
    }
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How long it took, on this thread.
    pub wall: Duration,
    /// Its processor time: of a program as the system tells it, of a built-in operation as long as it took.
    pub cpu: Duration,
}

/// Keys by name. Jobs name keys and never hold them.
pub trait Keys: Send + Sync {
    /// The key of this name.
    fn key(&self, name: &str) -> Option<Zeroizing<[u8; 32]>>;
}

/// No keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeys;

impl Keys for NoKeys {
    fn key(&self, _name: &str) -> Option<Zeroizing<[u8; 32]>> {
        None
    }
}

/// What operations have at hand.
#[derive(Clone)]
pub struct Context {
    /// The threads of operations that can use more than one.
    pub pool: Arc<rayon::ThreadPool>,
    /// Keys by name.
    pub keys: Arc<dyn Keys>,
    /// The patterns of the mesh, for operation `pattern`.
    pub patterns: Option<Arc<dyn Fn() -> PatternGenerator + Send + Sync>>,
    /// Where programs of users run; made when the first one comes.
    pub sandbox: Arc<LazySandbox>,
    /// Modules that were compiled before.
    pub programs: Arc<Programs>,
}

impl Context {
    /// For a process that is no node: so many threads, no keys, no mesh.
    ///
    /// # Errors
    /// If there are no threads to be had.
    pub fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let sandbox = SandboxConfig::default();
        let modules_max = NonZeroUsize::new(sandbox.modules_max).unwrap_or(NonZeroUsize::MIN);
        Ok(Context {
            pool: Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?),
            keys: Arc::new(NoKeys),
            patterns: None,
            sandbox: Arc::new(LazySandbox::new(sandbox)),
            programs: Arc::new(Programs::new(modules_max)),
        })
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({} threads)", self.pool.current_num_threads())
    }
}

/// Tells a task that it has to end. Clones share it.
#[derive(Clone, Debug)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    until: Instant,
    wall: Duration,
}

impl Cancel {
    /// A task that may take so long from now on.
    pub fn after(wall: Duration) -> Self {
        let now = Instant::now();
        // A limit beyond what the clock can say is none.
        let until = now.checked_add(wall).unwrap_or(now + Duration::from_secs(1 << 30));
        Cancel { flag: Arc::default(), until, wall }
    }

    /// Ends it soon.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether it has to end.
    ///
    /// # Errors
    /// Why it has to.
    pub fn check(&self) -> Result<(), OpError> {
        if self.flag.load(Ordering::Relaxed) {
            return Err(OpError::new(FailReason::Unavailable, "cancelled"));
        }
        if Instant::now() >= self.until {
            let detail = format!("took longer than {} ms (limits.wall)", self.wall.as_millis());
            return Err(OpError::new(FailReason::WallLimit, detail));
        }
        Ok(())
    }
}

/// Collects an output, up to its limit.
#[derive(Debug)]
pub(super) struct Sink {
    bytes: Vec<u8>,
    max: u64,
}

impl Sink {
    pub(super) fn new(max: u64) -> Self {
        Sink { bytes: Vec::new(), max }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), OpError> {
        if self.bytes.len() as u64 + bytes.len() as u64 > self.max {
            let detail = format!("the output has more than {} bytes (limits.output)", self.max);
            return Err(OpError::new(FailReason::OutputLimit, detail));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does a task, on the calling thread and those of the pool.
///
/// # Errors
/// Why there is no output. No input, parameter or program makes it panic.
pub fn run(task: &Task, context: &Context, cancel: &Cancel) -> Result<Output, OpError> {
    let begin = Instant::now();
    cancel.check()?;
    let mut sink = Sink::new(task.limits.output_bytes);
    let mut cpu = None;
    match task.operation.as_str() {
        "analyze" => ops::analyze::analyze(task, context, cancel, &mut sink)?,
        "analyze_merge" => ops::analyze::merge(task, cancel, &mut sink)?,
        "concat" => ops::concat(task, cancel, &mut sink)?,
        "decrypt" => ops::crypt::decrypt(task, context, cancel, &mut sink)?,
        "encrypt" => ops::crypt::encrypt(task, context, cancel, &mut sink)?,
        "hash" => ops::hash(task, context, cancel, &mut sink)?,
        "pattern" => ops::pattern(task, context, cancel, &mut sink)?,
        "wasm" => {
            let (bytes, used) = context.programs.run(context.sandbox.get()?, task, cancel)?;
            cpu = Some(used);
            sink.push(&bytes)?;
        }
        other => {
            return Err(OpError::new(FailReason::Unsupported, format!("there is no operation {other} here")));
        }
    }
    let wall = begin.elapsed();
    Ok(Output { bytes: sink.into_bytes(), wall, cpu: cpu.unwrap_or(wall) })
}
