//! `docs/tutorial.md`, typed as it is written, in one shell, and whether what is seen is what it says.
//!
//! * Blocks marked `sh` are run, in order, by `bash -euo pipefail`. Those marked `console` are not: they build, and run all tests.
//! * A block marked `text` has lines that the block of commands before it has to print, on either output, in this order. Others may be
//!   between them. `…` stands for anything within a line; spaces at a line's ends do not count, and several are as one.
//!
//! The shell has namespaces of its own for mounts, networks and processes. So the hosts' names are nobody else's, and when it ends or is
//! killed, its hosts and all processes are gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use omnimesh_tests::lab;

use crate::hosts::{are_possible, tell};

const TUTORIAL: &str = "docs/tutorial.md";
const README: &str = "README.md";
/// Stands for whatever is different each time.
const ANYTHING: char = '…';
/// Printed after each block of commands.
const MARK: &str = "===== end of the block in line";
/// A minute where nothing else runs. Each wait of the tutorial has an end of its own.
const TUTORIAL_MAX: Duration = Duration::from_secs(480);
/// Runs a script with namespaces of its own. `ip` keeps their names below `/run/netns`.
const ALONE: [&str; 8] =
    ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c"];
const SETUP: &str =
    "mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec bash -euo pipefail tutorial.sh 2>&1";
/// After the last block: nothing is left. A process that was left would be waited for.
const LEFT: &str = "wait\ntest -z \"$(ip netns list)\"\n";

/// Commands, and lines that are to be seen.
#[derive(Debug)]
struct Block {
    line: usize,
    commands: String,
    expected: Vec<String>,
}

/// A file of the repository.
#[track_caller]
fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of commands of a document in Markdown.
#[track_caller]
fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut within: Option<&str> = None;
    for (number, line) in (1..).zip(document.lines()) {
        match (within, line.strip_prefix("```")) {
            (None, Some(language)) => {
                within = Some(language);
                match language {
                    "sh" => {
                        blocks.push(Block { line: number, commands: String::new(), expected: Vec::new() });
                    }
                    "text" | "console" => {}
                    _ => panic!("line {number}: a block is `sh`, `text` or `console`, not {language:?}"),
                }
            }
            (Some(_), Some(_)) => within = None,
            (Some("sh"), None) => {
                blocks.last_mut().expect("it has begun").commands += &format!("{line}\n");
            }
            (Some("text"), None) => {
                let block = blocks.last_mut().unwrap_or_else(|| panic!("line {number}: of which commands?"));
                block.expected.push(squeezed(line));
            }
            _ => {}
        }
    }
    blocks
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a line is what the pattern says.
fn is_like(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split(ANYTHING);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// The first of the lines that ought to be seen and is not, in this order.
fn missing<'block>(expected: &'block [String], output: &str) -> Option<&'block str> {
    let mut lines = output.lines().map(squeezed);
    let mut wanted = expected.iter();
    wanted.find(|pattern| !lines.any(|line| is_like(&line, pattern))).map(String::as_str)
}

#[test]
fn what_the_tutorial_says_is_seen() {
    if !are_possible() {
        return;
    }
    let blocks = blocks(&read(TUTORIAL));
    let lab = lab!();
    let mut script = String::new();
    for Block { line, commands, .. } in &blocks {
        script += &format!("{commands}printf '\\n%s\\n' '{MARK} {line}'\n");
    }
    lab.file("tutorial.sh", &(script + LEFT));
    let began = Instant::now();
    let mut shell = lab.start_program("unshare", &[ALONE.as_slice(), &[SETUP]].concat());
    let code = shell.wait(TUTORIAL_MAX);
    let (output, trouble) = (shell.stdout(), shell.stderr());
    let mut rest = output.as_str();
    for Block { line, commands, expected } in &blocks {
        let Some((seen, after)) = rest.split_once(&format!("{MARK} {line}\n")) else {
            let logs = logs(lab.dir());
            panic!("{TUTORIAL}:{line} ended with {code:?}:\n{commands}\nafter\n{rest}\n{trouble}\n{logs}");
        };
        if let Some(line_missing) = missing(expected, seen) {
            panic!("{TUTORIAL}:{line} says that {line_missing:?} is seen, but this was:\n{seen}");
        }
        rest = after;
    }
    assert_eq!(code, Some(0), "hosts or processes are left after {TUTORIAL}: {rest}{trouble}");
    assert_eq!(files(lab.dir(), "tmp."), Vec::<PathBuf>::new(), "{TUTORIAL} leaves files");
    tell(&format!("tutorial: {} blocks of commands in {:.0?}", blocks.len(), began.elapsed()));
}

/// What is in a directory whose name has this in it.
fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().contains(part)).map(|entry| entry.path()).collect()
}

/// What the nodes have said, of a tutorial that has not come to its end.
fn logs(dir: &Path) -> String {
    let logs = files(dir, "tmp.").into_iter().flat_map(|tour| files(&tour, ".log"));
    logs.map(|log| format!("--- {}\n{}", log.display(), fs::read_to_string(&log).unwrap_or_default()))
        .collect()
}

/// Both begin with the same commands.
#[test]
fn the_tutorial_builds_as_the_readme_does() {
    let (tutorial, readme) = (read(TUTORIAL), read(README));
    let (_, rest) = readme.split_once("```sh\n").expect("the README has commands");
    let (commands, _) = rest.split_once("```").expect("their block ends");
    assert!(!commands.is_empty() && tutorial.contains(commands), "{TUTORIAL} does not have\n{commands}");
}

#[test]
fn what_is_missing_is_found() {
    for (line, pattern, is_it) in [
        ("id 7a", "id …", true),
        ("id 7a", "id", false),
        ("state SUCCEEDED", "state SUCCEEDED", true),
        ("state FAILED", "state SUCCEEDED", false),
        ("12D3Koo seq 1 step 5 9 ms hello", "12D3… seq 1 step … ms hello", true),
        ("12D3Koo seq 2 step 5 9 ms hello", "12D3… seq 1 step … ms hello", false),
        ("aXbXc", "a…b…c", true),
        ("acb", "a…b…c", false),
        ("xab", "ab…", false),
        ("ab", "a…ab", false),
    ] {
        assert_eq!(is_like(line, pattern), is_it, "{line:?} {pattern:?}");
    }
    let document =
        "```console\nmake\n```\n```sh\none\n  two\n```\nprose\n```text\n  a   1\nb\n```\n```sh\nthree\n```\n";
    let found = blocks(document);
    assert_eq!((found[0].line, found[0].commands.as_str()), (4, "one\n  two\n"));
    assert_eq!((found[0].expected.join("|"), found.len()), ("a 1|b".to_owned(), 2));
    assert_eq!(missing(&found[0].expected, "a 1\nother\n b \n"), None);
    assert_eq!(missing(&found[0].expected, "b\na 1\n"), Some("b"), "in this order");
}
