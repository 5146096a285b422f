//! The commands, one file for each family.

mod alerts;
mod audit;
mod backup;
mod blob;
mod config;
mod devnet;
mod doctor;
mod evidence;
mod inspect;
mod job;
mod key;
mod log;
mod manual;
mod message;
mod monitor;
mod registry;
mod sim;
mod start;

use crate::cli::{Cli, Command};
use crate::error::CliError;
use crate::signals;

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> Result<(), CliError> {
    let Cli { globals, command } = cli;
    if !matches!(command, Command::Start(_) | Command::Devnet(_)) {
        signals::exit_on_interrupt();
    }
    match command {
        Command::Start(args) => start::run(&globals, &args),
        Command::Devnet(args) => devnet::run(&globals, &args),
        Command::Invite => inspect::invite(&globals),
        Command::Status(args) => inspect::status(&globals, &args),
        Command::Members => inspect::members(&globals),
        Command::Peers => inspect::peers(&globals),
        Command::Step => inspect::step(&globals),
        Command::Metrics => inspect::metrics(&globals),
        Command::Anomalies(args) => inspect::anomalies(&globals, &args),
        Command::Quarantine(what) => inspect::quarantine(&globals, &what),
        Command::Alerts(what) => alerts::run(&globals, &what),
        Command::Monitor(args) => monitor::run(&globals, &args),
        Command::Audit(what) => audit::run(&globals, &what),
        Command::Sim(what) => sim::run(&globals, &what),
        Command::Why(what) => inspect::why(&globals, &what),
        Command::Publish(args) => message::publish(&globals, &args),
        Command::Subscribe(args) => message::subscribe(&globals, &args),
        Command::Log(what) => log::run(&globals, &what),
        Command::Evidence(what) => evidence::run(&globals, &what),
        Command::Registry(what) => registry::run(&globals, &what),
        Command::Blob(what) => blob::run(&globals, &what),
        Command::Job(what) => job::run(&globals, &what),
        Command::Workers => job::workers(&globals),
        Command::Backup(args) => backup::backup(&globals, &args),
        Command::Restore(args) => backup::restore(&globals, &args),
        Command::Key(what) => key::run(&globals, &what),
        Command::Config(what) => config::run(&globals, &what),
        Command::Doctor => doctor::run(&globals),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::man(dir.as_deref()),
    }
}
