//! Errors as a person or a script meets them: a code, a cause, and a remedy.

use std::io;

use omnimesh_node::data_dir::DataDirError;
use serde::Serialize;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    /// Failed at run time.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The configuration is invalid.
    ConfigInvalid,
    /// No node answers.
    Unreachable,
    /// The token is missing or wrong.
    Unauthorized,
    /// There is no such thing.
    NotFound,
    /// It took too long.
    Timeout,
    /// Part of it was done.
    PartlyDone,
    /// A policy or a limit forbids it.
    Refused,
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads the output any more: not worth a word.
    OutputClosed,
}

impl Code {
    /// What the process exits with.
    pub(crate) const fn exit(self) -> u8 {
        match self {
            Code::Failed => 1,
            Code::Usage => 2,
            Code::ConfigInvalid => 3,
            Code::Unreachable => 4,
            Code::Unauthorized => 5,
            Code::NotFound => 6,
            Code::Timeout => 7,
            Code::PartlyDone => 8,
            Code::Refused => 9,
            Code::Interrupted => 130,
            Code::OutputClosed => 0,
        }
    }
}

/// Why a command did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{message}")]
pub(crate) struct CliError {
    /// Which exit code.
    pub(crate) code: Code,
    /// The cause.
    pub(crate) message: String,
    /// The remedy, if one can be named.
    #[serde(serialize_with = "text_or_none")]
    pub(crate) hint: Option<String>,
}

/// Scripts find the field in every error; it is empty if there is no remedy.
#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn text_or_none<S: serde::Serializer>(hint: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(hint.as_deref().unwrap_or_default())
}

impl CliError {
    /// An error without a remedy yet.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        CliError { code, message: message.into(), hint: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        CliError::new(Code::Interrupted, "interrupted")
    }
}

impl From<DataDirError> for CliError {
    fn from(error: DataDirError) -> Self {
        let code = match &error {
            DataDirError::Name(_) | DataDirError::OtherMesh { .. } => Code::ConfigInvalid,
            DataDirError::Exposed { .. } | DataDirError::IdentityExists { .. } => Code::Refused,
            _ => Code::Failed,
        };
        CliError { code, message: error.to_string(), hint: error.hint() }
    }
}

/// Errors of standard output.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return CliError::new(Code::OutputClosed, "output closed");
        }
        CliError::new(Code::Failed, format!("cannot write to standard output: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_contract() {
        let codes = [
            Code::Failed,
            Code::Usage,
            Code::ConfigInvalid,
            Code::Unreachable,
            Code::Unauthorized,
            Code::NotFound,
            Code::Timeout,
            Code::PartlyDone,
            Code::Refused,
        ];
        assert_eq!(codes.map(Code::exit), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(Code::Interrupted.exit(), 130);
    }

    #[test]
    fn every_error_has_the_fields_of_the_contract() {
        let error = CliError::new(Code::NotFound, "no");
        let expected = serde_json::json!({ "code": "not_found", "message": "no", "hint": "" });
        assert_eq!(serde_json::to_value(&error).unwrap(), expected);
        assert_eq!(serde_json::to_value(error.hint("look")).unwrap()["hint"], "look");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.code.exit(), 0);
    }
}
