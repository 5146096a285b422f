//! What a worker does with a task: operations that are built in, and programs in WebAssembly.
//!
//! ```text
//!   Task (operation, parameters, inputs, limits) ─► run ─► built in: ops, on the rayon pool of the context
//!                                                    └───► wasm: a fresh instance of the module
//!                                                            │
//!                                                            ▼
//!                                                     Output, or an OpError
//! ```
//!
//! Both are functions of their inputs and parameters and of nothing else, bit by bit the same on every machine: results
//! are compared by hash. What a task asks for and may not have is an error with a reason, never a panic.
//!
//! # Not here
//! Which tasks run, and where the inputs come from.

pub mod ops;
pub mod wasm;

mod keys;
mod task;

pub use keys::{KEY_DIR, KeyFiles};
pub use task::{Cancel, Context, Input, Keys, NoKeys, OpError, Output, RowGroups, Task, run};
