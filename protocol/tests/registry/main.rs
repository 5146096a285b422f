//! The registry: the laws of its merging against a model, its rules one by one, and hostile bytes.

#![expect(clippy::unwrap_used, reason = "a test: a panic is its report")]

mod bytes;
mod history;
mod laws;
mod model;
mod queries;
mod rules;
