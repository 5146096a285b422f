//! The engine and its limits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use omnimesh_protocol::compute::ledger::FailReason;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter};

use crate::compute::task::OpError;

/// How often a program is looked after.
const EPOCH: Duration = Duration::from_millis(10);

/// What programs may have at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Instances at once. Default 16 (guess): more than attempts run at once.
    pub instances: u32,
    /// Memory of one instance at most, its input included. Default 4 GiB, all that 32 bits can address. It is only
    /// reserved, not taken.
    pub memory_bytes_max: u64,
    /// Length of a module at most. Default 8 MiB (guess): it is compiled in seconds.
    pub module_bytes_max: usize,
    /// The stack of a program. Default 512 KiB, wasmtime's.
    pub stack_bytes: usize,
    /// Entries of a table. Default 20,000, wasmtime's for pools.
    pub table_elements_max: usize,
    /// Units of fuel in a millisecond of CPU time. The same on all nodes, as it decides whether a task fails. Default
    /// 8,000,000: counting the words of 4 MiB takes 2.3 * 10^9 units, and took 260 to 350 ms on a server's processor of 2024.
    /// On one that is slower the wall time ends a task first.
    pub fuel_per_ms: u64,
    /// Compiled modules that are kept. Default 32 (guess).
    pub modules_max: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        SandboxConfig {
            instances: 16,
            memory_bytes_max: 4 << 30,
            module_bytes_max: 8 << 20,
            stack_bytes: 512 << 10,
            table_elements_max: 20_000,
            fuel_per_ms: 8_000_000,
            modules_max: 32,
        }
    }
}

/// The engine cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Wasmtime refuses: most often the address space does not suffice for so many instances.
    #[error("no WebAssembly here: {0}; try fewer compute.slots")]
    Engine(wasmtime::Error),
    /// No thread.
    #[error("no thread for the WebAssembly clock: {0}")]
    Thread(std::io::Error),
}

/// Where programs run. Dropping it ends its clock.
#[derive(Debug)]
pub struct Sandbox {
    pub(super) engine: Engine,
    pub(super) config: SandboxConfig,
    is_over: Arc<AtomicBool>,
    clock: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Makes an engine.
    ///
    /// # Errors
    /// If the machine does not have what the configuration asks for.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let engine = Engine::new(&engine_config(&config)).map_err(SandboxError::Engine)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (clocked, stop) = (engine.clone(), is_over.clone());
        let clock = std::thread::Builder::new().name("wasm-epochs".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH);
                clocked.increment_epoch();
            }
        });
        let clock = Some(clock.map_err(SandboxError::Thread)?);
        Ok(Sandbox { engine, config, is_over, clock })
    }
}

/// A sandbox that is made when it is wanted first: it takes address space and a thread.
#[derive(Debug)]
pub struct LazySandbox {
    config: SandboxConfig,
    made: OnceLock<Result<Sandbox, String>>,
}

impl LazySandbox {
    /// None yet.
    pub const fn new(config: SandboxConfig) -> Self {
        LazySandbox { config, made: OnceLock::new() }
    }

    /// Length of a module at most.
    pub const fn module_bytes_max(&self) -> usize {
        self.config.module_bytes_max
    }

    /// The sandbox.
    ///
    /// # Errors
    /// If the machine does not have what the configuration asks for.
    pub fn get(&self) -> Result<&Sandbox, OpError> {
        let made =
            self.made.get_or_init(|| Sandbox::new(self.config.clone()).map_err(|error| error.to_string()));
        made.as_ref().map_err(|error| OpError::new(FailReason::Unavailable, error.clone()))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(clock) = self.clock.take() {
            // It only sleeps: there is nothing to be learned from how it ends.
            let _ = clock.join();
        }
    }
}

fn engine_config(sandbox: &SandboxConfig) -> Config {
    let memory = usize::try_from(sandbox.memory_bytes_max.min(4 << 30)).unwrap_or(usize::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(sandbox.instances)
        .total_memories(sandbox.instances)
        .total_tables(sandbox.instances * 4)
        .max_tables_per_module(4)
        .max_memories_per_module(1)
        .max_memory_size(memory)
        .table_elements(sandbox.table_elements_max);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(sandbox.stack_bytes)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
    config
}

/// What one program may take.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) memory_max: usize,
    pub(super) table_max: usize,
    /// It wanted more.
    pub(super) is_hit: bool,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let is_allowed = desired <= self.memory_max;
        self.is_hit |= !is_allowed;
        Ok(is_allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let is_allowed = desired <= self.table_max;
        self.is_hit |= !is_allowed;
        Ok(is_allowed)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }
}
