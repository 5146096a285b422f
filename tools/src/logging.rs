//! Logs of a node process, to standard error.

use std::io::{self, IsTerminal};

use omnimesh_protocol::config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

use crate::error::{CliError, Code};

/// Starts logging as configured; once per process.
pub(crate) fn init(config: &LogConfig) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| {
        CliError::new(Code::ConfigInvalid, format!("log.level = {:?}: {error}", config.level))
    })?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour);
    let outcome = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    outcome.map_err(|error| CliError::new(Code::Failed, format!("cannot start logging: {error}")))
}
