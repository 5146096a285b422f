//! The programs of `configs/jobs`, built as their files say, run in the sandbox of a node.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use omnimesh_node::compute::{Cancel, Context, Input, Task, run};
use omnimesh_protocol::compute::job::{Limits, Params};
use omnimesh_protocol::registry::Value;
use omnimesh_tests::fixtures::{grep, word_count};

const TMP: &str = env!("CARGO_TARGET_TMPDIR");
const TEXT: &str = "the cat sat on the mat\nand the dog\tsat   too\n\nneedle in a haystack\nno needl\nneedle";

fn task(program: &Path, param: (&str, &str), inputs: &[&[u8]]) -> Task {
    let value = Value::Text(param.1.to_owned()).encode().unwrap();
    Task {
        operation: "wasm".to_owned(),
        params: Params::from([(param.0.to_owned(), value)]),
        program: Some(std::fs::read(program).unwrap().into()),
        inputs: inputs.iter().map(|input| Input::whole(input.to_vec())).collect(),
        limits: Limits::default(),
    }
}

fn output(task: &Task) -> Result<String, String> {
    let context = Context::new(1).unwrap();
    let output = run(task, &context, &Cancel::after(Duration::from_secs(60)));
    output.map(|output| String::from_utf8(output.bytes).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn words_are_counted() {
    let mut words: BTreeMap<&str, u64> = BTreeMap::new();
    TEXT.split_ascii_whitespace().for_each(|word| *words.entry(word).or_default() += 1);
    let expected = words.iter().fold(String::new(), |mut text, (word, count)| {
        writeln!(text, "{word} {count}").unwrap();
        text
    });
    let program = word_count(TMP);
    assert_eq!(output(&task(&program, ("function", "map"), &[TEXT.as_bytes()])).unwrap(), expected);
    // In parts, and put together.
    let (one, other) = TEXT.split_at(TEXT.find("and").unwrap());
    let parts =
        [one, other].map(|part| output(&task(&program, ("function", "map"), &[part.as_bytes()])).unwrap());
    let parts = [parts[0].as_bytes(), parts[1].as_bytes()];
    assert_eq!(output(&task(&program, ("function", "reduce"), &parts)).unwrap(), expected);
    let error = output(&task(&program, ("function", "reduce"), &[b"nonsense"])).unwrap_err();
    assert!(error.contains("a line without a count"), "{error}");
}

#[test]
fn lines_are_found() {
    let program = grep(TMP);
    let found = output(&task(&program, ("text", "needle"), &[TEXT.as_bytes(), b"", b"a needle\n"]));
    assert_eq!(found.unwrap(), "needle in a haystack\nneedlea needle\n");
    assert_eq!(output(&task(&program, ("text", "elephant"), &[TEXT.as_bytes()])).unwrap(), "");
    let error = output(&task(&program, ("word", "needle"), &[b"x"])).unwrap_err();
    assert!(error.contains("the parameter text is missing"), "{error}");
    // More than fits the first page of its memory.
    let long = "a needle in a line\nand none\n".repeat(100_000);
    let found = output(&task(&program, ("text", "needle"), &[long.as_bytes()])).unwrap();
    assert!(found == "a needle in a line\n".repeat(100_000));
}
