//! The `omnimesh` command, built with the tests that run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    omnimesh_tools::main()
}
