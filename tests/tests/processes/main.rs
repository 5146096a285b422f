//! Nodes as real processes, driven by the command line as a person would.
