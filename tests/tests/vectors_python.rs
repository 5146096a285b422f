//! Runs `verify_vectors.py`, the second implementation of the wire format, on the test vectors.
//!
//! It needs `python3` (3.11 or later) with `venv`, and PyPI once.

use std::path::Path;
use std::process::Command;

use omnimesh_tests::fixtures::{assert_success, python, run};

#[test]
fn the_vectors_pass_in_python() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = run(Command::new(python(env!("CARGO_TARGET_TMPDIR"), "requirements.txt"))
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
