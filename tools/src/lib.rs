//! The `omnimesh` command: start nodes, join them, look at them, operate them.
//!
//! ```text
//! cli (grammar) ─► command::* ─► settings (layers)        what a node is to be
//!                      │       ─► client (HTTP)           a running node
//!                      │       ─► omnimesh_node           the node itself, for `start`
//!                      └──────► output, error             data to stdout, words to stderr, an exit code
//! ```
//!
//! Every command is in [`main`]'s grammar, which `omnimesh help` prints:
//!
//! ```sh
//! omnimesh start --open example                        # a node that founds a mesh; prints how others join it
//! omnimesh publish news hello --output json            # through the node of the default data directory
//! omnimesh sim run quickstart                          # the same protocol, simulated
//! ```
//!
//! Nothing here decides anything for a mesh: what a library user would want is in `omnimesh_node`.

mod cli;
mod client;
mod command;
mod error;
mod files;
mod logging;
mod output;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::Cli;
use crate::error::{CliError, Code};
use crate::output::Format;

/// Runs the command line and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = cli.globals.output;
    match command::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(format, &error);
            ExitCode::from(error.code.exit())
        }
    }
}

/// Help and version are answers; everything else that the grammar says is a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is all that can go wrong.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if wants_json() {
        let text = error.render().to_string();
        let error = CliError::new(Code::Usage, what_is_wrong(&text)).hint(remedy(&text));
        output::error(Format::Json, &error);
    } else {
        let _ = error.print();
    }
    ExitCode::from(Code::Usage.exit())
}

/// The first paragraph of what the grammar says, as one line: which arguments are missing stands on lines of their own.
fn what_is_wrong(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

/// What the grammar suggests instead, if it does, and where all of it stands.
fn remedy(text: &str) -> String {
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    tips.chain(["see `omnimesh help`"]).collect::<Vec<_>>().join("; ")
}

/// Whether JSON was asked for on a command line that could not be understood.
fn wants_json() -> bool {
    let arguments: Vec<_> = std::env::args().collect();
    let is_json = |value: &str| matches!(value, "json" | "ndjson");
    arguments.iter().enumerate().any(|(i, argument)| match argument.as_str() {
        "--output" | "-o" => arguments.get(i + 1).is_some_and(|next| is_json(next)),
        other => other.strip_prefix("--output=").or_else(|| other.strip_prefix("-o")).is_some_and(is_json),
    })
}
