//! Job files: what is read, and what is wrong with which line.

use std::collections::BTreeMap;

use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::job::{
    Align, Each, Format, JobSpec, OnFailure, Plan, Problems, Quota, Reach, Slot, Source, WhenMissing, read,
};
use omnimesh_protocol::registry::Value;
use proptest::prelude::*;

const JOB: &str = r#"
name = "word-count"
deadline = "2h"
spot_check = 0.05

[inputs.text]
file = "big.txt"

[inputs.program]
file = "wordcount.wasm"

[task.count]
operation = "wasm"
program = "program"
for_each = { chunk_of = "text", bytes = "1KiB", align = "line" }
params = { function = "map", limit = 3, ratio = 0.5, words = ["a", "b"] }
limits = { cpu = "30s", memory = "64MiB", output = "1MB", wall = "1.5m" }
retry = { max = 5, backoff = "100ms", backoff_max = "5s", jitter = 1.0 }
redundancy = 3
needs = { labels = { disk = "ssd" }, memory = "1GiB", region = "eu" }

[task.merge]
operation = "wasm"
program = "program"
for_each = { output_of = "count", group = 4 }
when_missing = "omit"
on_failure = "skip"

[task.total]
operation = "concat"
inputs = ["merge", "text"]
after = ["count"]

[task.total.fallback]
operation = "hash"

[outputs]
words = "total"
"#;

fn files() -> BTreeMap<String, BlobRef> {
    let text = BlobRef { size: 10_000, ..BlobRef::of(b"text") };
    BTreeMap::from([("big.txt".to_owned(), text), ("wordcount.wasm".to_owned(), BlobRef::of(b"module"))])
}

fn read_toml(text: &str) -> Result<(JobSpec, Plan), Problems> {
    read("job.toml", text, Format::Toml, &files(), 7, &Quota::default())
}

/// Every line of what is wrong.
fn wrong(text: &str) -> Vec<String> {
    read_toml(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn a_file_is_read_as_it_says() {
    let (spec, plan) = read_toml(JOB).unwrap();
    assert_eq!(
        (spec.name.as_str(), spec.nonce, spec.deadline_s, spec.spot_check_per_mille),
        ("word-count", 7, 7200, 50)
    );
    let count = &spec.tasks[0];
    assert_eq!(count.each, Some(Each::Chunk { input: 0, bytes: 1024, align: Align::Line }));
    assert_eq!(count.action.program, Some(BlobRef::of(b"module")));
    assert_eq!(count.action.params["words"].decode(), Value::List(vec!["a".into(), "b".into()]));
    let limits = count.limits;
    assert_eq!(
        [limits.cpu_ms, limits.memory_bytes, limits.output_bytes, limits.wall_ms],
        [30_000, 64 << 20, 1_000_000, 90_000]
    );
    assert_eq!((count.retry.max, count.retry.jitter_per_mille, count.redundancy), (5, 1000, 3));
    assert_eq!(count.constraints.region.as_deref(), Some("eu"));
    let merge = &spec.tasks[1];
    assert_eq!((merge.when_missing, &merge.on_failure), (WhenMissing::Omit, &OnFailure::Skip));
    let total = &spec.tasks[2];
    assert_eq!(total.sources, [Source::Task(1), Source::Input(0)]);
    assert!(matches!(&total.on_failure, OnFailure::Fallback(action) if action.operation == "hash"));
    // Ten chunks, three groups, one total.
    assert_eq!([plan.count(0), plan.count(1), plan.count(2), plan.total()], [10, 3, 1, 14]);
    assert_eq!(plan.order(), [0, 1, 2]);
    let slots = plan.slots(&spec, omnimesh_protocol::compute::TaskRef::new(1, 2));
    assert_eq!(slots, [Slot::Outputs { task: 0, from: 8, to: 10 }]);
    assert_eq!(plan.waits(1)[0].reach, Reach::Group(4));
    let slots = plan.slots(&spec, omnimesh_protocol::compute::TaskRef::new(0, 9));
    assert!(matches!(slots[..], [Slot::Blob { from: 9216, to: 10_000, align: Align::Line, .. }]));
    // It returns from its bytes.
    assert_eq!(JobSpec::decode(&spec.encode()), Ok(spec));
}

#[test]
fn json_says_the_same() {
    let value: toml::Value = toml::from_str(JOB).unwrap();
    let json = serde_json::to_string_pretty(&value).unwrap();
    let (mut spec, _) = read("job.json", &json, Format::Json, &files(), 7, &Quota::default()).unwrap();
    let marked = read("job.json", &format!("\u{feff}{json}"), Format::Json, &files(), 7, &Quota::default());
    assert_eq!(marked.unwrap().0, spec, "some editors begin a file with a mark");
    let (mut expected, _) = read_toml(JOB).unwrap();
    // toml::Value does not keep the order of tables.
    let sort = |spec: &mut JobSpec| {
        spec.inputs.sort_by(|a, b| a.name.cmp(&b.name));
        spec.tasks
            .iter_mut()
            .for_each(|task| (task.sources, task.each, task.after) = (Vec::new(), None, Vec::new()));
        spec.tasks.sort_by(|a, b| a.name.cmp(&b.name));
        spec.outputs.iter_mut().for_each(|output| output.task = 0);
    };
    sort(&mut spec);
    sort(&mut expected);
    assert_eq!(spec, expected);
}

#[test]
fn what_is_wrong_has_its_line_its_value_and_a_remedy() {
    let with = |from: &str, to: &str| {
        assert!(JOB.contains(from), "{from}");
        wrong(&JOB.replace(from, to))
    };
    let cases: [(&str, &str, u32, &str); 22] = [
        (
            "deadline = \"2h\"",
            "deadline = \"2 fortnights\"",
            3,
            "deadline: `2 fortnights` is no duration; give a number with ms",
        ),
        (
            "deadline = \"2h\"",
            "deadlin = \"2h\"",
            3,
            "deadlin: `deadlin` means nothing; here are known: name, deadline",
        ),
        ("spot_check = 0.05", "spot_check = 5", 4, "spot_check: is no share; give a number from 0 to 1"),
        (
            "file = \"big.txt\"",
            "file = \"small.txt\"",
            7,
            "inputs.text.file: the file small.txt was not given",
        ),
        ("file = \"big.txt\"", "blob = \"abc\"\nsize = 3", 7, "inputs.text.blob: not 64 hexadecimal digits"),
        (
            "operation = \"wasm\"\nprogram = \"program\"\nfor_each = { chunk",
            "operation = \"wasp\"\nprogram = \"program\"\nfor_each = { chunk",
            13,
            "there is no operation `wasp`; use one of: analyze",
        ),
        (
            "program = \"program\"\nfor_each = { chunk",
            "program = \"progam\"\nfor_each = { chunk",
            14,
            "there is no input `progam`; name one of: text, program",
        ),
        (
            "program = \"program\"\nfor_each = { chunk",
            "for_each = { chunk",
            12,
            "task.count.program: operation wasm needs a program",
        ),
        (
            "chunk_of = \"text\"",
            "chunk_of = \"txt\"",
            15,
            "task.count.for_each.chunk_of: there is no input `txt`",
        ),
        ("bytes = \"1KiB\"", "bytes = 0", 15, "task.count.for_each.bytes: 0 is out of range"),
        (
            "align = \"line\"",
            "align = \"word\"",
            15,
            "`word` does not fit; give \"byte\", \"line\" or \"row_group\"",
        ),
        (
            "cpu = \"30s\"",
            "cpu = \"30h\"",
            17,
            "task.count.limits.cpu: 108000000 ms is more than the 3600000 that `compute.task_cpu_ms_max` allows; ask for at most 3600000 ms",
        ),
        ("max = 5", "max = -1", 18, "task.count.retry.max: -1 is negative"),
        ("max = 5", "max = 99", 18, "task.count.retry.max: 99 is out of range; give a number from 0 to 20"),
        (
            "redundancy = 3",
            "redundancy = 0",
            19,
            "task.count.redundancy: 0 is out of range; give a number from 1 to 7",
        ),
        ("disk = \"ssd\"", "disk = \"s s d\"", 20, "task.count.needs.labels.disk: `s s d` is no name"),
        (
            "on_failure = \"skip\"",
            "on_failure = \"ignore\"",
            27,
            "task.merge.on_failure: `ignore` does not fit; give \"fail\" or \"skip\"",
        ),
        (
            "inputs = [\"merge\", \"text\"]",
            "inputs = [\"merge\", \"texts\"]",
            31,
            "task.total.inputs.1: there is no input or task `texts`",
        ),
        ("after = [\"count\"]", "after = [\"total\"]", 32, "`total` waits for itself"),
        (
            "words = \"total\"",
            "words = \"sum\"",
            38,
            "outputs.words: there is no task `sum`; name one of: count, merge, total",
        ),
        ("after = [\"count\"]", "after = [\"count\"", 34, "file: missing comma"),
        ("after = [\"count\"]", "after = 2020-01-01", 32, "a job has no dates"),
    ];
    for (from, to, line, message) in cases {
        let found = with(from, to);
        let expected = format!("job.toml:{line}: ");
        assert!(
            found.iter().any(|found| found.starts_with(&expected) && found.contains(message)),
            "{to}: {found:#?} has not {expected}{message}"
        );
    }
}

#[test]
fn parameters_that_an_operation_does_not_have_are_told() {
    let job = |operation: &str, params: &str| {
        format!(
            "name = \"a\"\n[inputs.t]\nfile = \"big.txt\"\n[task.a]\noperation = \"{operation}\"\ninputs = [\"t\"]\n{params}\n"
        )
    };
    let cases = [
        (
            "analyze",
            "params = { collumns = [1] }",
            7,
            "task.a.params.collumns: operation analyze has no parameter `collumns`; it has: format, columns",
        ),
        ("analyze", "params = { columns = 1 }", 7, "task.a.params.columns: 1 does not fit; give a list"),
        ("hash", "params = { hex = \"yes\" }", 7, "task.a.params.hex: is a string; give true or false"),
        ("concat", "params = { hex = true }", 7, "operation concat has no parameter `hex`; remove it"),
        ("encrypt", "", 4, "task.a.params.key: operation encrypt needs it; add params.key ="),
        (
            "pattern",
            "params = { from = -1, count = 1 }",
            7,
            "task.a.params.from: -1 does not fit; give a whole number, 0 or more",
        ),
        ("pattern", "params = { from = 0 }", 7, "task.a.params.count: operation pattern needs it"),
        (
            "hash",
            "fallback = { operation = \"decrypt\" }",
            7,
            "task.a.fallback.params.key: operation decrypt needs it",
        ),
    ];
    for (operation, params, line, message) in cases {
        let found = wrong(&job(operation, params));
        let expected = format!("job.toml:{line}: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&expected) && found[0].contains(message),
            "{operation} {params}: {found:#?} is not {expected}{message}"
        );
    }
    for (operation, params) in [
        (
            "analyze",
            "params = { columns = [0, \"b\"], header = false, histogram = { from = 0, to = 1, bins = 4 } }",
        ),
        ("hash", "params.hex = true"),
        ("pattern", "params = { from = 0, count = 3 }"),
    ] {
        read_toml(&job(operation, params)).unwrap();
    }
}

#[test]
fn faults_of_shape_and_of_sense_are_told_together() {
    let text = "name = \"a b\"\nfoo = 1\n[task.a]\noperation = \"wasp\"\ninputs = [\"texts\"]\nredundancy = 300\n\
        [task.b]\noperation = \"hash\"\ninputs = [\"b\"]\nlimits = { cpu = 0 }\n[task.c]\noperation = \"analyze_merge\"\ninputs = [\"d\"]\n";
    let found = wrong(text);
    let expected = [
        "job.toml:1: name: `a b` is no name",
        "job.toml:2: foo: `foo` means nothing",
        "job.toml:4: task.a.operation: there is no operation `wasp`",
        "job.toml:5: task.a.inputs.0: there is no input or task `texts`",
        "job.toml:6: task.a.redundancy: 300 is out of range; give a number from 1 to 7",
        "job.toml:7: task.b: tasks wait for one another: b -> b",
        "job.toml:10: task.b.limits.cpu: 0 is out of range; give a number from 1 to 3600000",
        "job.toml:13: task.c.inputs.0: there is no input or task `d`",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
    // What follows from a fault is not told beside it.
    let found = wrong("name = 5\n[task.a]\ninputs = []\n");
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn cycles_name_their_tasks() {
    let text = "name = \"a\"\n[task.a]\noperation = \"concat\"\ninputs = \"c\"\n[task.b]\noperation = \"concat\"\ninputs = \"a\"\n\
        [task.c]\noperation = \"concat\"\nafter = \"b\"\n[task.d]\noperation = \"concat\"\ninputs = [\"c\"]\n";
    let found = wrong(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    let is_any = ["a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"]
        .iter()
        .any(|cycle| found[0].contains(cycle));
    assert!(is_any, "{found:#?}");
}

#[test]
fn row_groups_are_for_operations_that_read_them() {
    let text = "name = \"a\"\n[inputs.table]\nfile = \"big.txt\"\n[task.part]\noperation = \"analyze\"\n\
        for_each = { chunk_of = \"table\", bytes = 1000, align = \"row_group\" }\n";
    let (spec, plan) = read_toml(text).unwrap();
    assert_eq!(spec.tasks[0].each, Some(Each::Chunk { input: 0, bytes: 1000, align: Align::RowGroup }));
    assert_eq!(plan.total(), 10);
    assert_eq!(JobSpec::decode(&spec.encode()), Ok(spec));
    let remedy = "job.toml:6: task.part.for_each.align: row groups of Parquet files are read by analyze alone; use that";
    for wrong_one in [
        text.replace("\"analyze\"", "\"hash\""),
        format!("{text}[task.part.fallback]\noperation = \"hash\"\n"),
    ] {
        let found = wrong(&wrong_one);
        assert!(found.len() == 1 && found[0].starts_with(remedy), "{found:#?}");
    }
    let found = wrong(&text.replace("row_group", "rows"));
    assert!(found[0].contains("give \"byte\", \"line\" or \"row_group\""), "{found:#?}");
}

#[test]
fn quotas_are_checked_before_anything_is_done() {
    let chunks = JOB.replace("bytes = \"1KiB\"", "bytes = 1");
    let quota = Quota { tasks_max: 9999, ..Quota::default() };
    let error = read("job.toml", &chunks, Format::Toml, &files(), 0, &quota).unwrap_err();
    assert_eq!(error.faults[0].line, 15);
    assert!(error.to_string().contains("at least 10000 tasks, more than 9999"), "{error}");
    // More to fetch than a job may: ten chunks by three workers each, who all have the program, and one of all of the text.
    let program = BlobRef { size: 700, ..BlobRef::of(b"module") };
    let mut sized = files();
    sized.insert("wordcount.wasm".to_owned(), program);
    let bytes = 3 * (10_000 + 10 * 700) + 3 * 700 + 10_000;
    let read_with = |most| {
        let quota = Quota { transfer_bytes_max: most, ..Quota::default() };
        read("job.toml", JOB, Format::Toml, &sized, 0, &quota)
    };
    assert!(read_with(bytes).is_ok());
    let error = read_with(bytes - 1).unwrap_err();
    let line = JOB.lines().position(|line| line.starts_with("inputs = [\"merge\"")).unwrap() + 1;
    assert_eq!(error.faults[0].line as usize, line);
    let message = format!(
        "task.total.inputs: with these 1 tasks, each by 1 workers, the job would fetch at least {bytes} bytes"
    );
    assert!(error.to_string().contains(&message), "{error}");
    // A fan-in that is too wide.
    let wide = chunks
        .replace("[task.merge]", "[task.wide]\noperation = \"concat\"\ninputs = \"count\"\n[task.merge]");
    let mut files = files();
    files.insert("big.txt".to_owned(), BlobRef { size: 20_000, ..BlobRef::of(b"text") });
    let error = read("job.toml", &wide, Format::Toml, &files, 0, &Quota::default()).unwrap_err();
    assert!(error.to_string().contains("one task would read 20000 outputs"), "{error}");
    // An input of the greatest length there is.
    files.insert("big.txt".to_owned(), BlobRef { size: u64::MAX, ..BlobRef::of(b"text") });
    assert!(read("job.toml", JOB, Format::Toml, &files, 0, &Quota::MOST).is_err());
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let found =
        wrong("nam = \"x\"\n[task.a]\noperation = 3\nredundancy = \"many\"\n[task.b]\ninputs = [1]\n");
    assert!(found.len() >= 5, "{found:#?}");
    assert!(found.iter().all(|line| line.starts_with("job.toml:")));
    let lines: Vec<_> =
        found.iter().map(|line| line.split(':').nth(1).unwrap().parse::<u32>().unwrap()).collect();
    assert!(lines.is_sorted());
}

proptest! {
    #[test]
    fn any_text_ends(text in "(?s).{0,200}") {
        let _ = read_toml(&text);
        let _ = read("x", &text, Format::Json, &files(), 0, &Quota::default());
    }

    #[test]
    fn a_file_with_one_byte_changed_ends(place in 0_usize..1200, byte: u8) {
        let mut bytes = JOB.as_bytes().to_vec();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok((spec, plan)) = read_toml(&text)
        {
            prop_assert_eq!(JobSpec::decode(&spec.encode()), Ok(spec.clone()));
            prop_assert_eq!(Plan::new(&spec, &Quota::default()), Ok(plan));
        }
    }

    #[test]
    fn bytes_with_one_changed_are_another_spec_or_none(place: prop::sample::Index, bit in 0_u8..8) {
        let (spec, _) = read_toml(JOB).unwrap();
        let mut bytes = spec.encode();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(other) = JobSpec::decode(&bytes) {
            prop_assert_ne!(&other, &spec);
            prop_assert_eq!(other.encode(), bytes);
            // Whatever it says, working it out ends.
            let _ = Plan::new(&other, &Quota::default());
        }
    }
}

/// Every file has become a blob of some length.
struct Any;

impl omnimesh_protocol::compute::job::Files for Any {
    fn blob(&self, path: &str) -> Result<BlobRef, String> {
        Ok(BlobRef { size: 100 << 20, ..BlobRef::of(path.as_bytes()) })
    }
}

#[test]
fn the_shipped_jobs_are_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/jobs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.display().to_string();
            read(&name, &text, Format::Toml, &Any, 0, &Quota::default())
                .unwrap_or_else(|problems| panic!("{problems}"));
            count += 1;
        }
    }
    assert!(count >= 2);
}
