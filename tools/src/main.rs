//! The `omnimesh` command.

use std::process::ExitCode;

/// See the manifest.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    omnimesh_tools::main()
}
