//! What tests build or fetch before they run: Python packages, and programs of jobs.
//!
//! It is kept in the target directory, with a stamp that says what it was made for; later runs use it again.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the sources.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}

/// The Python of an environment that has the packages of a file of requirements, by its path in `tests/`. `tmp` is
/// `env!("CARGO_TARGET_TMPDIR")`. The first run fetches them from PyPI.
///
/// # Panics
/// If there is no Python 3.11 or later with the module venv, or PyPI cannot be reached.
pub fn python(tmp: &str, requirements: &str) -> PathBuf {
    let directory = Path::new(tmp).join(requirements.trim_end_matches(".txt"));
    let requirements = root().join("tests").join(requirements);
    let venv = directory.join("venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let wanted = format!("{}{}", python_version(), read(&requirements));
    once(&directory, &wanted, &python, || {
        let output = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        assert_success("python3 -m venv (on Debian and Ubuntu it is in the package python3-venv)", &output);
        let output = run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
            .arg("--requirement")
            .arg(&requirements));
        assert_success("pip install (it needs Python 3.11 or later, and PyPI once)", &output);
    });
    python
}

/// The word count of `configs/jobs/word-count`, in Rust, as a WebAssembly module.
///
/// # Panics
/// If the target wasm32-unknown-unknown is not installed.
pub fn word_count(tmp: &str) -> PathBuf {
    let source = root().join("configs/jobs/word-count");
    let target = Path::new(tmp).join("word-count");
    let module = target.join("wasm32-unknown-unknown/release/word_count.wasm");
    let wanted = read(&source.join("src/lib.rs")) + &read(&source.join("Cargo.toml"));
    once(&target, &wanted, &module, || {
        let output = run(Command::new(env!("CARGO"))
            .args(["build", "--release", "--target", "wasm32-unknown-unknown", "--manifest-path"])
            .arg(source.join("Cargo.toml"))
            .env_remove("RUSTFLAGS")
            .env("CARGO_TARGET_DIR", &target));
        assert_success("cargo build (run: rustup target add wasm32-unknown-unknown)", &output);
    });
    module
}

/// The program of `configs/jobs/grep`, in C, as a WebAssembly module; compiled by Zig's C compiler, from PyPI.
///
/// # Panics
/// As [`python`].
pub fn grep(tmp: &str) -> PathBuf {
    let source = root().join("configs/jobs/grep/grep.c");
    let directory = Path::new(tmp).join("grep");
    let module = directory.join("grep.wasm");
    let python = python(tmp, "zig.txt");
    once(&directory, &read(&source), &module, || {
        let output = run(Command::new(&python)
            .args([
                "-m",
                "ziglang",
                "cc",
                "--target=wasm32-freestanding",
                "-O2",
                "-nostdlib",
                "-Wall",
                "-Wextra",
            ])
            .args(["-Werror", "-Wl,--no-entry", "-Wl,--export-memory", "-o"])
            .arg(&module)
            .arg(&source)
            .env("ZIG_GLOBAL_CACHE_DIR", directory.join("cache"))
            .env("ZIG_LOCAL_CACHE_DIR", directory.join("cache")));
        assert_success("zig cc", &output);
    });
    module
}

/// Makes something, unless it was made for the same before. Two runs of the tests may share a target directory.
fn once(directory: &Path, wanted: &str, made: &Path, make: impl FnOnce()) {
    fs::create_dir_all(directory).expect("the target directory can be written");
    let lock = File::create(directory.join("lock")).expect("a lock file can be made");
    lock.lock().expect("the lock can be had");
    let stamp = directory.join("complete");
    if fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == wanted) && made.exists() {
        return;
    }
    // The stamp comes last, so that what was not finished is made anew.
    let _ = fs::remove_file(&stamp);
    make();
    fs::write(&stamp, wanted).expect("the target directory can be written");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn python_version() -> String {
    let output = run(Command::new("python3").arg("--version"));
    assert_success("python3 --version", &output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end.
///
/// # Panics
/// If it cannot be started.
pub fn run(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{:?} was not found; install it and run the test again", command.get_program())
        }
        Err(error) => panic!("{command:?} cannot be started: {error}"),
    }
}

/// # Panics
/// With all that it has printed, if it has failed.
pub fn assert_success(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what} failed with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
