//! Jobs as people see them, of a driver that is given what a mesh would give it.

pub(crate) mod harness;

mod documents;
mod history;
mod reports;
