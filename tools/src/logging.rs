//! Logs of a node process, to standard error.

use std::io::{self, IsTerminal};

use omnimesh_protocol::config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

use crate::error::{CliError, Code};

/// Starts logging as configured; once per process.
pub(crate) fn init(config: &LogConfig) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(directives(&config.level)).map_err(|error| {
        CliError::new(Code::ConfigInvalid, format!("log.level = {:?}: {error}", config.level))
    })?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        // It would be told where it just failed, by a macro that panics: whoever logs next would end for a full disk.
        .log_internal_errors(false);
    let outcome = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    outcome.map_err(|error| CliError::new(Code::Failed, format!("cannot start logging: {error}")))
}

/// A bare level is that of OmniMesh's own parts: of the libraries beneath, an operator wants to hear only what
/// is wrong. Directives are taken as they are.
fn directives(level: &str) -> String {
    let level = level.trim();
    if level.contains(['=', ',']) || matches!(level, "error" | "off") {
        return level.to_owned();
    }
    // Kademlia warns of a node that knows nobody yet; that is told in better words. The server of the API has a line for each request
    // that is none, as many as anybody likes to send.
    let own = ["omnimesh_node", "omnimesh_protocol", "omnimesh_tools"].map(|name| format!("{name}={level}"));
    format!("warn,libp2p_kad=error,actix_http=off,{}", own.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_not_that_of_libraries() {
        let all = directives("debug");
        assert!(all.starts_with("warn,") && all.contains("omnimesh_node=debug"), "{all}");
        for given in ["off", "error", "info,omnimesh_node=debug", "libp2p_swarm=trace"] {
            assert_eq!(directives(given), given);
        }
        for level in ["warn", "info", "trace"] {
            EnvFilter::try_new(directives(level)).unwrap();
        }
    }
}
