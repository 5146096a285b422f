//! Nodes as real processes on one machine, as an operator runs them.

mod join;
