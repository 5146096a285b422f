//! Runs `verify_vectors.py`, the second implementation of the wire format, on the test vectors.
//!
//! It needs `python3` (3.11 or later) with `venv`. The first run fetches the packages of `requirements.txt` from
//! PyPI into an environment in the target directory; later runs use that one, until the requirements or the Python
//! change.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn the_vectors_pass_in_python() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = environment(&tests.join("requirements.txt"));
    let output = run(Command::new(python)
        .arg("-B") // leave no __pycache__ among the sources
        .arg(tests.join("verify_vectors.py"))
        .arg(tests.join("../docs/vectors")));
    let stdout = String::from_utf8_lossy(&output.stdout);
    print!("{stdout}");
    assert_success("verify_vectors.py", &output);

    // The exit status alone would not tell a script that checks from one that does nothing.
    let last = stdout.lines().last().unwrap_or_default();
    let passed = last.strip_suffix(" passed, 0 failed").and_then(|count| count.parse::<u32>().ok());
    assert!(passed.is_some_and(|count| count > 0), "the last line of verify_vectors.py was {last:?}");
}

/// The Python of an environment in the target directory that has what `requirements` asks for.
fn environment(requirements: &Path) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vectors_python");
    fs::create_dir_all(&directory).expect("the target directory can be written");
    // Two runs of the tests may share a target directory.
    let lock = File::create(directory.join("lock")).expect("a lock file can be made");
    lock.lock().expect("the lock can be had");

    let venv = directory.join("venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp = directory.join("complete");
    let wanted = format!(
        "{}{}",
        python_version(),
        fs::read_to_string(requirements).expect("requirements.txt is there")
    );
    if fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == wanted) && python.exists() {
        return python;
    }

    // The stamp comes last, so that an environment that was not finished is made anew.
    let _ = fs::remove_file(&stamp);
    let output = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    assert_success("python3 -m venv (on Debian and Ubuntu it is in the package python3-venv)", &output);
    let output = run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .arg("--requirement")
        .arg(requirements));
    assert_success(
        "pip install -r tests/requirements.txt (it needs Python 3.11 or later, and PyPI once)",
        &output,
    );
    fs::write(&stamp, wanted).expect("the target directory can be written");
    python
}

fn python_version() -> String {
    let output = run(Command::new("python3").arg("--version"));
    assert_success("python3 --version", &output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => panic!(
            "{:?} was not found. This test runs tests/verify_vectors.py and needs Python 3.11 or later as \
             `python3`, with the module venv; install it and run the test again.",
            command.get_program()
        ),
        Err(error) => panic!("{command:?} cannot be started: {error}"),
    }
}

fn assert_success(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what} failed with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
