//! What the end-to-end tests share: nodes as real processes.
