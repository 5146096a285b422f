//! What is wrong with a scenario: where, why, and what to do.

use std::fmt;

/// Something that cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in a scenario file: `network.dials`, `faults[0].at_ms`.
    pub path: String,
    /// What is wrong with its value.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    pub(super) fn new(
        path: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Problem { path: path.into(), message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.message, self.remedy)
    }
}

/// A problem and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// `FILE:LINE`, or the flag that set the value.
    pub place: String,
    /// The value as it was written, if it was written.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, message, .. } = &self.problem;
        match (&self.value, path.is_empty()) {
            (Some(value), _) => write!(f, "{}: {path} = {value}: {message}", self.place),
            (None, false) => write!(f, "{}: {path}: {message}", self.place),
            (None, true) => write!(f, "{}: {message}", self.place),
        }
    }
}
