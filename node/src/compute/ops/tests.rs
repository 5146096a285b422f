//! The operations that are built in, against the plainest way to do the same.

mod columns;
mod parquet;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use omnimesh_protocol::compute::job::{Limits, MERGES, OPERATIONS, Params, READS_ROW_GROUPS};
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::registry::Value;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::compute::wasm::{LazySandbox, Programs, SandboxConfig};
use crate::compute::{Cancel, Context, Input, Keys, OpError, Task, run};

struct TwoKeys;

impl Keys for TwoKeys {
    fn key(&self, name: &str) -> Option<Zeroizing<[u8; 32]>> {
        match name {
            "a" => Some(Zeroizing::new([1; 32])),
            "b" => Some(Zeroizing::new([2; 32])),
            _ => None,
        }
    }
}

fn context(threads: usize) -> Context {
    let config = SandboxConfig { instances: 1, memory_bytes_max: 1 << 20, ..SandboxConfig::default() };
    Context {
        pool: Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()),
        keys: Arc::new(TwoKeys),
        patterns: None,
        sandbox: Arc::new(LazySandbox::new(config)),
        programs: Arc::new(Programs::new(NonZeroUsize::MIN)),
    }
}

fn task(operation: &str, params: &[(&str, Value)], inputs: &[&[u8]]) -> Task {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.encode().unwrap()));
    Task {
        operation: operation.to_owned(),
        params: params.collect::<Params>(),
        program: None,
        inputs: inputs.iter().map(|bytes| Input::whole(bytes.to_vec())).collect(),
        limits: Limits::default(),
    }
}

fn outcome(task: &Task) -> Result<Vec<u8>, OpError> {
    run(task, &context(2), &Cancel::after(Duration::from_secs(600))).map(|output| output.bytes)
}

fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand_chacha::ChaCha8Rng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
    bytes
}

#[test]
fn every_operation_is_known() {
    assert!(OPERATIONS.is_sorted(), "people look them up");
    for operation in MERGES.iter().chain(READS_ROW_GROUPS) {
        assert!(OPERATIONS.contains(operation), "{operation}");
    }
    let page = include_str!("../../../../docs/compute.md");
    let table = page.split("\n## ").find(|part| part.starts_with("Operations\n")).unwrap();
    for operation in OPERATIONS {
        let mut cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
        let has_row = cells.any(|cell| cell.contains(&format!("`{operation}`")));
        assert!(has_row, "{operation} has no row in the table of docs/compute.md");
    }
    for operation in OPERATIONS {
        if let Err(error) = outcome(&task(operation, &[], &[])) {
            assert!(!error.detail.contains("there is no operation"), "{operation}");
        }
    }
    assert_eq!(outcome(&task("fly", &[], &[])).unwrap_err().reason, FailReason::Unsupported);
}

#[test]
fn hashes_are_those_of_all_parts() {
    let bytes = content(40_000_000);
    let (a, b) = bytes.split_at(17_000_001);
    assert_eq!(outcome(&task("hash", &[], &[a, b])).unwrap(), blake3::hash(&bytes).as_bytes());
    let hex = outcome(&task("hash", &[("hex", Value::Bool(true))], &[b"x"])).unwrap();
    assert_eq!(hex, blake3::hash(b"x").to_hex().as_bytes());
    assert_eq!(outcome(&task("concat", &[], &[b"ab", b"", b"c"])).unwrap(), b"abc");
}

#[test]
fn limits_hold() {
    let mut long = task("concat", &[], &[&[0; 101]]);
    long.limits.output_bytes = 100;
    assert_eq!(outcome(&long).unwrap_err().reason, FailReason::OutputLimit);
    let cancel = Cancel::after(Duration::ZERO);
    let error = run(&task("hash", &[], &[b"x"]), &context(1), &cancel).unwrap_err();
    assert_eq!(error.reason, FailReason::WallLimit);
    let many = task("pattern", &[("from", Value::Integer(0)), ("count", Value::Integer(i64::MAX))], &[]);
    assert_eq!(outcome(&many).unwrap_err().reason, FailReason::OutputLimit);
}

#[test]
fn what_is_encrypted_returns_and_nothing_else_does() {
    let key = |name: &str| [("key", Value::from(name))];
    for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
        let plain = content(length);
        let (a, b) = plain.split_at(length / 3);
        let encrypted = outcome(&task("encrypt", &key("a"), &[a, b])).unwrap();
        // The same on every worker, however the input is cut.
        assert_eq!(outcome(&task("encrypt", &key("a"), &[&plain])).unwrap(), encrypted);
        assert_eq!(outcome(&task("decrypt", &key("a"), &[&encrypted])).unwrap(), plain, "{length}");
        let bad =
            |bytes: &[u8], name: &str| outcome(&task("decrypt", &key(name), &[bytes])).unwrap_err().reason;
        assert_eq!(bad(&encrypted, "b"), FailReason::BadInput);
        for place in [0, 5, 23, encrypted.len() / 2, encrypted.len() - 1] {
            let mut damaged = encrypted.clone();
            damaged[place] ^= 1;
            assert_eq!(bad(&damaged, "a"), FailReason::BadInput, "byte {place} of {length}");
        }
        // Cut off after a chunk, or by a byte.
        if length > 65_536 {
            assert_eq!(bad(&encrypted[..23 + 65_552], "a"), FailReason::BadInput);
        }
        assert_eq!(bad(&encrypted[..encrypted.len() - 1], "a"), FailReason::BadInput);
    }
    assert_ne!(outcome(&task("encrypt", &key("a"), &[b"x"])), outcome(&task("encrypt", &key("b"), &[b"x"])));
    assert_eq!(outcome(&task("encrypt", &key("c"), &[b"x"])).unwrap_err().reason, FailReason::KeyMissing);
}

/// A table, its text, and the numbers of its second column.
fn table(rows: usize) -> (String, Vec<f64>) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(rows as u64);
    let mut text = String::from("name,size,weight\n");
    let mut sizes = Vec::new();
    for row in 0..rows {
        let size = f64::from(rng.next_u32() % 20_000) / 8.0 - 500.0 + if row % 1000 == 7 { 1e6 } else { 0.0 };
        sizes.push(size);
        text += &match row % 10 {
            0 => format!("row {row},{size},\n"),
            1 => format!("row {row},{size},heavy\n"),
            _ => format!("row {row}, {size} ,{}\n", row % 7),
        };
    }
    (text, sizes)
}

fn report(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn statistics_are_those_of_the_plain_formulas() {
    let (text, mut sizes) = table(100_000);
    let params = [
        ("report", Value::Bool(true)),
        ("columns", Value::List(vec!["size".into(), Value::Integer(2)])),
        (
            "histogram",
            Value::Map(
                [("from", 0), ("to", 1000), ("bins", 10)]
                    .map(|(name, n)| (name.to_owned(), Value::Integer(n)))
                    .into(),
            ),
        ),
    ];
    let report = report(&outcome(&task("analyze", &params, &[text.as_bytes()])).unwrap());
    assert_eq!(report["rows"], 100_000);
    let column = &report["columns"][0];
    assert_eq!((column["name"].as_str(), column["count"].as_u64()), (Some("size"), Some(100_000)));
    let count = sizes.len() as f64;
    let mean = sizes.iter().sum::<f64>() / count;
    let variance = sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let near = |value: &serde_json::Value, exact: f64, within: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - exact).abs() <= exact.abs() * within, "{value} for {exact}");
    };
    near(&column["mean"], mean, 1e-12);
    near(&column["variance"], variance, 1e-10);
    sizes.sort_by(f64::total_cmp);
    near(&column["min"], sizes[0], 0.0);
    near(&column["max"], sizes[sizes.len() - 1], 0.0);
    for (name, rank) in [("p01", 999), ("p50", 49_999), ("p95", 94_999)] {
        near(&column["quantiles"][name], sizes[rank], 0.005);
    }
    let bins: Vec<u64> =
        column["histogram"]["bins"].as_array().unwrap().iter().map(|bin| bin.as_u64().unwrap()).collect();
    let exact = |bin: usize| {
        sizes.iter().filter(|size| (bin as f64 * 100.0..(bin as f64 + 1.0) * 100.0).contains(*size)).count()
            as u64
    };
    assert_eq!(bins, (0..10).map(exact).collect::<Vec<_>>());
    assert_eq!(column["outliers"]["count"], 100);
    assert_eq!(column["outliers"]["highest"].as_array().unwrap().len(), 16);
    let weights = &report["columns"][1];
    assert_eq!([&weights["missing"], &weights["not_numbers"]], [10_000, 10_000]);
}

#[test]
fn numbers_that_are_told_exactly_do_not_contradict_those_that_are_not() {
    let analyzed = |text: &str| {
        let params = [("report", Value::Bool(true)), ("columns", Value::List(vec!["size".into()]))];
        report(&outcome(&task("analyze", &params, &[text.as_bytes()])).unwrap())["columns"][0].take()
    };
    let column = analyzed(&format!("size\n{}", "7\n".repeat(100)));
    for name in ["p01", "p50", "p99"] {
        assert_eq!(column["quantiles"][name], 7.0, "{name}: nothing is above the largest");
    }
    assert_eq!(column["outliers"]["count"], 0);
    // One is beyond the upper fence (5.527), the middle of its bucket (5.516) is not.
    let few: String = (0..99).map(|place| format!("{}\n", 3.0 + f64::from(place % 3) * 0.5)).collect();
    let column = analyzed(&format!("size\n{few}5.53\n"));
    let told = column["outliers"]["highest"].as_array().unwrap().len() as u64;
    assert_eq!((column["outliers"]["count"].as_u64(), told), (Some(told), 1), "{}", column["outliers"]);
}

#[test]
fn parts_make_the_same_as_the_whole_and_threads_make_no_difference() {
    let (text, _) = table(150_000);
    let columns = ("columns", Value::List(vec![Value::Integer(1)]));
    // Chunks of lines, as for_each makes them.
    let bytes = text.as_bytes();
    let mut partials = Vec::new();
    let mut from = 0;
    while from < bytes.len() {
        let end = (from + 700_000).min(bytes.len());
        let end = bytes[end..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| end + at + 1);
        let mut part = task("analyze", std::slice::from_ref(&columns), &[&bytes[from..end]]);
        part.inputs[0].offset = from as u64;
        let one = run(&part, &context(1), &Cancel::after(Duration::from_secs(600))).unwrap().bytes;
        let three = run(&part, &context(3), &Cancel::after(Duration::from_secs(600))).unwrap().bytes;
        assert_eq!(one, three);
        partials.push(one);
        from = end;
    }
    let merge = |inputs: &[Vec<u8>], partial: bool| {
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        outcome(&task("analyze_merge", &[("partial", Value::Bool(partial))], &inputs)).unwrap()
    };
    let (first, second) = partials.split_at(2);
    let in_steps = report(&merge(&[merge(first, true), merge(second, true)], false));
    let at_once = report(&merge(&partials, false));
    let whole =
        report(&outcome(&task("analyze", &[columns, ("report", Value::Bool(true))], &[bytes])).unwrap());
    for other in [&in_steps, &whole] {
        assert_eq!(at_once["rows"], other["rows"]);
        for exact in ["count", "min", "max", "quantiles", "outliers"] {
            assert_eq!(at_once["columns"][0][exact], other["columns"][0][exact], "{exact}");
        }
        for near in ["mean", "variance"] {
            let (a, b) =
                (at_once["columns"][0][near].as_f64().unwrap(), other["columns"][0][near].as_f64().unwrap());
            assert!((a - b).abs() <= a.abs() * 1e-12, "{near}: {a}, {b}");
        }
    }
}

#[test]
fn what_is_no_table_is_refused_or_counted() {
    for (params, input) in [
        (vec![("columns", Value::from("size"))], "a\n1\n"),
        (vec![("columns", Value::List(vec![Value::Integer(-1)]))], "a\n1\n"),
        (vec![("columns", Value::List(vec![Value::Integer(5000)]))], "a\n1\n"),
        (vec![("delimiter", Value::from(";;"))], "a\n1\n"),
        (vec![("histogram", Value::Integer(3))], "a\n1\n"),
    ] {
        assert_eq!(
            outcome(&task("analyze", &params, &[input.as_bytes()])).unwrap_err().reason,
            FailReason::Unsupported
        );
    }
    // A header without rows has no statistics, however many columns it names; a row has.
    let wide = format!("{0}\n{0}\n", ",".repeat(5000));
    assert_eq!(outcome(&task("analyze", &[], &[wide.as_bytes()])).unwrap_err().reason, FailReason::BadInput);
    for input in [&b"nonsense"[..], b"", &[0xff; 100]] {
        assert_eq!(outcome(&task("analyze_merge", &[], &[input])).unwrap_err().reason, FailReason::BadInput);
    }
    let report =
        report(&outcome(&task("analyze", &[("report", Value::Bool(true))], &[b"a\nnan\ninf\n1\n"])).unwrap());
    assert_eq!([&report["columns"][0]["count"], &report["columns"][0]["not_numbers"]], [1, 2]);
}

#[test]
fn histograms_take_no_more_than_the_memory_of_the_task() {
    // Some four blocks of rows of 16 columns.
    let row: String = (0..16).map(|column| format!("{}.25,", column * 131 % 241)).collect();
    let text = format!("{}\n", row.trim_end_matches(',')).repeat(60_000);
    let bins = |bins: i64| {
        let map = [("from", Value::Float(0.0)), ("to", Value::Float(241.0)), ("bins", Value::Integer(bins))];
        let map = map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        [("histogram", Value::Map(map)), ("header", Value::Bool(false))]
    };
    let analyzed = |bytes: u64, threads: usize| {
        let mut task = task("analyze", &bins(4096), &[text.as_bytes()]);
        task.limits.memory_bytes = bytes;
        run(&task, &context(threads), &Cancel::after(Duration::from_secs(600))).map(|output| output.bytes)
    };
    // With room for one block, besides what is merged, it is the same as with room for all.
    let one = 3 * 16 * 4096 * 8;
    let whole = analyzed(1 << 30, 4).unwrap();
    for (bytes, threads) in [(one, 4), (1 << 30, 1), (20 << 20, 3)] {
        assert!(analyzed(bytes, threads).unwrap() == whole, "{bytes} bytes, {threads} threads");
    }
    assert_eq!(analyzed(one - 1, 4).unwrap_err().reason, FailReason::MemoryLimit);
}
