//! The state of one author's log.
