//! Compiling and running modules.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::registry::Value;
use wasmtime::{Instance, Memory, Module, PoolConcurrencyLimitError, Store, Trap, TypedFunc, UpdateDeadline};

use super::sandbox::{Limiter, Sandbox};
use crate::compute::task::{Cancel, OpError, Task};

/// Marks an answer as a message of failure.
const FAILED: u64 = 1 << 63;
/// The length of a part that is missing.
const MISSING: u64 = u64::MAX;

/// Modules that were compiled.
#[derive(Debug)]
pub struct Programs {
    compiled: Mutex<LruCache<blake3::Hash, Module>>,
}

/// What an instance has with it.
#[derive(Debug)]
struct Host {
    limiter: Limiter,
    cancel: Cancel,
    /// Why it was interrupted.
    ended: Option<OpError>,
}

fn bad_program(detail: impl Into<String>) -> OpError {
    OpError::new(FailReason::BadProgram, detail)
}

/// The first line of an error, and no more of it than people read.
fn short(error: &impl std::fmt::Display) -> String {
    // With its cause, if it has one.
    format!("{error:#}").lines().next().unwrap_or_default().chars().take(160).collect()
}

impl Programs {
    /// No module yet; at most so many are kept.
    pub fn new(max: NonZeroUsize) -> Self {
        Programs { compiled: Mutex::new(LruCache::new(max)) }
    }

    /// Compiles a module, unless that was done before.
    ///
    /// # Errors
    /// If it is too long, none, or imports something.
    pub fn compile(&self, sandbox: &Sandbox, bytes: &[u8]) -> Result<Module, OpError> {
        if bytes.len() > sandbox.config.module_bytes_max {
            let max = sandbox.config.module_bytes_max;
            return Err(bad_program(format!("the module has {} bytes, more than {max}", bytes.len())));
        }
        let hash = blake3::hash(bytes);
        // A panic elsewhere leaves the cache whole.
        if let Some(module) = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&hash) {
            return Ok(module.clone());
        }
        let module = Module::from_binary(&sandbox.engine, bytes);
        let module = module.map_err(|error| bad_program(format!("not a module: {}", short(&error))))?;
        if let Some(import) = module.imports().next() {
            let name = format!("{}.{}", import.module(), import.name());
            return Err(bad_program(format!(
                "the module imports {}, and there are no imports",
                short(&name)
            )));
        }
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).put(hash, module.clone());
        Ok(module)
    }

    /// Runs the program of a task; answers its output, and the processor time that it took.
    ///
    /// # Errors
    /// Why there is no output.
    pub fn run(
        &self,
        sandbox: &Sandbox,
        task: &Task,
        cancel: &Cancel,
    ) -> Result<(Vec<u8>, Duration), OpError> {
        let program = task.program.as_ref().ok_or_else(|| bad_program("the task has no program"))?;
        let module = self.compile(sandbox, program)?;
        let params = params(task)?;
        let input = input(task)?;
        let memory = task.limits.memory_bytes.saturating_add(input.len() as u64);
        let memory_max = usize::try_from(memory.min(sandbox.config.memory_bytes_max)).unwrap_or(usize::MAX);
        let limiter = Limiter { memory_max, table_max: sandbox.config.table_elements_max, is_hit: false };
        let mut store = Store::new(&sandbox.engine, Host { limiter, cancel: cancel.clone(), ended: None });
        store.limiter(|host| &mut host.limiter);
        let fuel = task.limits.cpu_ms.saturating_mul(sandbox.config.fuel_per_ms);
        store.set_fuel(fuel).map_err(|error| bad_program(short(&error)))?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| match context.data().cancel.check() {
            Ok(()) => Ok(UpdateDeadline::Continue(1)),
            Err(error) => {
                context.data_mut().ended = Some(error);
                Ok(UpdateDeadline::Interrupt)
            }
        });
        let before = cpu_time();
        let answer = call(&mut store, &module, &params, &input, task.limits.output_bytes);
        let used = cpu_time().saturating_sub(before);
        let output = answer.map_err(|error| why(error, store.data(), task))?;
        Ok((output, used))
    }
}

/// What goes wrong in a program.
enum Fault {
    Wasm(wasmtime::Error),
    Op(OpError),
}

impl From<wasmtime::Error> for Fault {
    fn from(error: wasmtime::Error) -> Self {
        Fault::Wasm(error)
    }
}

impl From<OpError> for Fault {
    fn from(error: OpError) -> Self {
        Fault::Op(error)
    }
}

fn call(
    store: &mut Store<Host>,
    module: &Module,
    params: &[u8],
    input: &[u8],
    output_max: u64,
) -> Result<Vec<u8>, Fault> {
    let instance = Instance::new(&mut *store, module, &[])?;
    let memory = instance.get_memory(&mut *store, "memory");
    let memory = memory.ok_or_else(|| bad_program("the module exports no `memory`"))?;
    let missing =
        |name: &str, error: &wasmtime::Error| bad_program(format!("export `{name}`: {}", short(error)));
    let alloc: TypedFunc<u32, u32> = instance
        .get_typed_func(&mut *store, "omnimesh_alloc")
        .map_err(|error| missing("omnimesh_alloc", &error))?;
    let run: TypedFunc<(u32, u32, u32, u32), u64> = instance
        .get_typed_func(&mut *store, "omnimesh_run")
        .map_err(|error| missing("omnimesh_run", &error))?;
    let (params_at, params_len) = give(store, &memory, &alloc, params)?;
    let (input_at, input_len) = give(store, &memory, &alloc, input)?;
    let answer = run.call(&mut *store, (params_at, params_len, input_at, input_len))?;
    let (at, length) = (answer >> 32, answer & u64::from(u32::MAX));
    if answer & FAILED != 0 {
        // A message is short, whatever its length claims.
        let text = take(store, &memory, at & !(1 << 31), length.min(1000))?;
        let text = String::from_utf8_lossy(text).into_owned();
        return Err(OpError::new(FailReason::Program, text).into());
    }
    if length > output_max {
        let detail = format!("the output has {length} bytes, more than {output_max} (limits.output)");
        return Err(OpError::new(FailReason::OutputLimit, detail).into());
    }
    Ok(take(store, &memory, at, length)?.to_vec())
}

/// Puts bytes where the module has room for them.
fn give(
    store: &mut Store<Host>,
    memory: &Memory,
    alloc: &TypedFunc<u32, u32>,
    bytes: &[u8],
) -> Result<(u32, u32), Fault> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| OpError::new(FailReason::MemoryLimit, "the input does not fit the module's memory"))?;
    let at = alloc.call(&mut *store, length)?;
    let room = usize::try_from(at)
        .ok()
        .and_then(|at| memory.data_mut(&mut *store).get_mut(at..)?.get_mut(..bytes.len()));
    let Some(room) = room else {
        let is_hit = store.data().limiter.is_hit;
        let detail = format!("omnimesh_alloc({length}) has given an address outside of the memory");
        let reason = if is_hit { FailReason::MemoryLimit } else { FailReason::Program };
        return Err(OpError::new(reason, detail).into());
    };
    room.copy_from_slice(bytes);
    Ok((at, length))
}

fn take<'a>(store: &'a Store<Host>, memory: &Memory, at: u64, length: u64) -> Result<&'a [u8], Fault> {
    let range = usize::try_from(at).ok().zip(usize::try_from(length).ok());
    let bytes = range.and_then(|(at, length)| memory.data(store).get(at..)?.get(..length));
    let outside = || OpError::new(FailReason::Program, "the output lies outside of the memory");
    Ok(bytes.ok_or_else(outside)?)
}

/// The processor time of the calling thread, which is the only one that a program has.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The reason of a fault.
fn why(fault: Fault, host: &Host, task: &Task) -> OpError {
    let error = match fault {
        Fault::Op(error) => return error,
        Fault::Wasm(error) => error,
    };
    if let Some(ended) = &host.ended {
        return ended.clone();
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return OpError::new(FailReason::Busy, "all instances are in use (compute.slots)");
    }
    let trap = error.downcast_ref::<Trap>().copied();
    if trap == Some(Trap::OutOfFuel) {
        let detail = format!("took more than {} ms of CPU time (limits.cpu)", task.limits.cpu_ms);
        return OpError::new(FailReason::CpuLimit, detail);
    }
    if host.limiter.is_hit {
        let detail = format!("wanted more than {} bytes of memory (limits.memory)", task.limits.memory_bytes);
        return OpError::new(FailReason::MemoryLimit, detail);
    }
    match trap {
        Some(trap) => OpError::new(FailReason::Program, short(&trap)),
        None => bad_program(short(&error)),
    }
}

/// The parameters as a JSON object; its keys are in order.
fn params(task: &Task) -> Result<Vec<u8>, OpError> {
    let pairs = task.params.iter().map(|(name, value)| Ok((name.clone(), json(value.decode())?)));
    let object: serde_json::Map<String, serde_json::Value> = pairs.collect::<Result<_, OpError>>()?;
    serde_json::to_vec(&object).map_err(|error| OpError::new(FailReason::Unsupported, error.to_string()))
}

fn json(value: Value) -> Result<serde_json::Value, OpError> {
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => value.into(),
        Value::Integer(value) => value.into(),
        Value::Float(value) => value.into(),
        Value::Text(text) => text.into(),
        Value::Bytes(_) => {
            return Err(OpError::new(
                FailReason::Unsupported,
                "a parameter is bytes; give a blob as an input",
            ));
        }
        Value::List(values) => values.into_iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Map(pairs) => {
            let pairs = pairs.into_iter().map(|(name, value)| Ok((name, json(value)?)));
            serde_json::Value::Object(pairs.collect::<Result<_, OpError>>()?)
        }
    })
}

/// All parts, one after another.
fn input(task: &Task) -> Result<Vec<u8>, OpError> {
    let length: usize =
        task.inputs.iter().map(|input| 8 + input.bytes.as_ref().map_or(0, |part| part.len())).sum();
    if length as u64 > u64::from(u32::MAX) - 4 {
        let detail = format!("the inputs have {length} bytes, more than a module can address; use for_each");
        return Err(OpError::new(FailReason::MemoryLimit, detail));
    }
    let mut bytes = Vec::with_capacity(length + 4);
    let count = u32::try_from(task.inputs.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&count.to_le_bytes());
    for input in &task.inputs {
        match &input.bytes {
            Some(part) => {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
            None => bytes.extend_from_slice(&MISSING.to_le_bytes()),
        }
    }
    Ok(bytes)
}
