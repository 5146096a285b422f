//! The `omnimesh` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    omnimesh_tools::main()
}
