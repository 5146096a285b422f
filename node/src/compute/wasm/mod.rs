//! Programs of users: WebAssembly modules without a file system, network, clock or randomness.
//!
//! ```text
//!   module bytes ─► compile (Cranelift), once ─► Programs (LRU)
//!                                                  │ for each task
//!   inputs, parameters ─► a fresh instance: memory ◄┘ fuel · epoch · memory · tables · stack · output
//!                                │
//!                                └─► output bytes, or why there is none
//! ```
//!
//! # The interface
//! A module imports nothing and exports:
//!
//! | export | type | |
//! |---|---|---|
//! | `memory` | memory | of 32 bits |
//! | `omnimesh_alloc` | `(len: i32) -> i32` | room for `len` bytes; called for the parameters, then for the input |
//! | `omnimesh_run` | `(params: i32, params_len: i32, input: i32, input_len: i32) -> i64` | does the work |
//!
//! Parameters are a JSON object (UTF-8), `{}` if there are none. The input is all parts, one after another:
//!
//! ```text
//! input = count: u32 ‖ part …            part = length: u64 ‖ bytes           least significant byte first
//!                                               2^64 - 1, and no bytes, where an output was skipped
//! ```
//!
//! The answer is `address << 32 | length` of the output in the module's memory. With bit 63 set, it is that of a message
//! in UTF-8, and the task has failed. So addresses are below 2^31 then, and whoever has more memory keeps messages low.
//!
//! # Limits
//! | limit | by | reason |
//! |---|---|---|
//! | CPU time | fuel: an instruction costs about one unit, [`SandboxConfig::fuel_per_ms`] units are a millisecond: the same on every machine | `cpu_limit` |
//! | duration | epochs of 10 ms | `wall_limit` |
//! | memory, tables | a limiter at each growth, the initial size included | `memory_limit` |
//! | output | its length, before it is read | `output_limit` |
//! | stack | [`SandboxConfig::stack_bytes`] | `program` |
//! | module | its length, and what Cranelift takes | `bad_program` |
//!
//! NaNs are canonical, and instructions that differ between machines are off or made to agree, so a module is a function of its
//! input, bit by bit. Threads, garbage collection, exceptions, several memories and memories of 64 bits are off.

mod programs;
mod sandbox;
#[cfg(test)]
mod tests;

pub use programs::Programs;
pub use sandbox::{LazySandbox, Sandbox, SandboxConfig, SandboxError};
