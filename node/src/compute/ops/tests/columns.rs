//! Columns that are not there.

use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::registry::Value;
use rand_core::{Rng, SeedableRng};

use super::{outcome, report, task};
use crate::compute::OpError;

fn params(columns: &[Value], more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    [&[("columns", Value::List(columns.to_vec()))], more].concat()
}

/// Statistics of parts that begin there, put together.
fn in_parts(text: &str, cuts: &[usize], params: &[(&str, Value)]) -> Result<serde_json::Value, OpError> {
    let ends = cuts.iter().copied().chain([text.len()]);
    let mut partials = Vec::new();
    let mut from = 0;
    for end in ends {
        let mut part = task("analyze", params, &[&text.as_bytes()[from..end]]);
        part.inputs[0].offset = from as u64;
        partials.push(outcome(&part)?);
        from = end;
    }
    let inputs: Vec<&[u8]> = partials.iter().map(Vec::as_slice).collect();
    let (first, second) = inputs.split_at(inputs.len() / 2);
    let step = |inputs: &[&[u8]]| outcome(&task("analyze_merge", &[("partial", Value::Bool(true))], inputs));
    let (first, second) = (step(first)?, step(second)?);
    outcome(&task("analyze_merge", &[], &[&first, &second])).map(|bytes| report(&bytes))
}

fn at_once(text: &str, mut params: Vec<(&'static str, Value)>) -> Result<serde_json::Value, OpError> {
    params.push(("report", Value::Bool(true)));
    outcome(&task("analyze", &params, &[text.as_bytes()])).map(|bytes| report(&bytes))
}

#[test]
fn a_name_that_is_not_in_the_header_is_an_error_with_the_nearest() {
    let text = "name,size,Side,weight\nx,1,2,3\n";
    let error = at_once(text, params(&["sise".into()], &[])).unwrap_err();
    assert_eq!(error.reason, FailReason::BadInput);
    assert_eq!(
        error.detail,
        "column `sise` is not among the 4 of the header (correct params.columns or params.delimiter); nearest: `Side`, `size`, \
         `name`"
    );
    // With another delimiter the header is one name.
    let error = at_once(text, params(&["size".into()], &[("delimiter", ";".into())])).unwrap_err();
    assert!(error.detail.contains("not among the 1 of the header"), "{error}");
    // Long names leave room for what to do.
    let error =
        at_once(&format!("{0},b\n1,2\n", "ä".repeat(5000)), params(&["ö".repeat(5000).as_str().into()], &[]));
    assert!(error.unwrap_err().detail.len() < 300);
    assert!(at_once("", params(&["a".into()], &[])).is_err());
}

#[test]
fn a_name_means_nothing_where_there_is_no_header() {
    let no_header = [("header", Value::Bool(false))];
    let error = at_once("1,2\n", params(&["size".into()], &no_header)).unwrap_err();
    assert_eq!(error.reason, FailReason::Unsupported);
    assert_eq!(
        error.detail,
        "column `size` is a name, and the table has no header (header = false): number it, from 0, in params.columns"
    );
    let mut part = task("analyze", &params(&["size".into()], &[]), &[b"1,2\n"]);
    part.inputs[0].offset = 100;
    let error = outcome(&part).unwrap_err();
    assert_eq!(error.reason, FailReason::Unsupported);
    assert!(error.detail.contains("only the part at the beginning of the table has the header"), "{error}");
}

#[test]
fn lines_that_end_with_carriage_returns_alone_are_refused_where_they_would_be_one_header() {
    let text = "name,size\rx,1\ry,2\r";
    let error = at_once(text, params(&[1.into()], &[])).unwrap_err();
    assert_eq!(error.reason, FailReason::BadInput);
    assert!(error.detail.contains("carriage return alone"), "{error}");
    let rows = at_once(text, params(&[1.into()], &[("header", Value::Bool(false))])).unwrap();
    assert_eq!(rows["rows"], 3);
    for text in ["name,size", "name,size\r\n", "name,size\r\nx,1\r\n"] {
        assert!(at_once(text, params(&[1.into()], &[])).is_ok(), "{text:?}");
    }
}

#[test]
fn a_number_beyond_all_rows_is_an_error_with_how_many_there_are() {
    let seven = [Value::Integer(1), Value::Integer(7)];
    let expected = "there is no column 7 in 2 rows: there are 3, numbered 0 to 2 (correct params.columns or params.delimiter of \
                    operation analyze)";
    let error = at_once("a,b,c\n1,2,3\n4,5,6\n", params(&seven, &[])).unwrap_err();
    assert_eq!((error.reason, error.detail.as_str()), (FailReason::BadInput, expected));
    let no_header = [("header", Value::Bool(false))];
    let error = at_once("1,2,3\n4,5,6\n", params(&seven, &no_header)).unwrap_err();
    assert_eq!((error.reason, error.detail.as_str()), (FailReason::BadInput, expected));
    // The part with the header says so before anything else is done; without one the merge does.
    let part = task("analyze", &params(&seven, &[]), &[b"a,b,c\n1,2,3\n"]);
    assert_eq!(outcome(&part).unwrap_err().reason, FailReason::BadInput);
    assert!(outcome(&task("analyze", &params(&seven, &no_header), &[b"1,2,3\n"])).is_ok());
    let error = in_parts("1,2,3\n4,5,6\n", &[6], &params(&seven, &no_header)).unwrap_err();
    assert_eq!((error.reason, error.detail.as_str()), (FailReason::BadInput, expected));
}

#[test]
fn short_rows_and_empty_columns_are_missing() {
    let last = [Value::Integer(2)];
    let no_header = [("header", Value::Bool(false))];
    for (text, cuts, more) in [
        // One row of all has it.
        ("1\n2\n3,4,5\n", &[2, 4][..], &no_header[..]),
        // No row has it, but the header.
        ("a,b,c\n1\n2\n3\n", &[8], &[]),
        // Rows that are longer than the header.
        ("a,b\n1,2,9\n3,4\n5,6\n", &[10], &[]),
        // All have it, and nothing in it.
        ("1,2,\n3,4,\n5,6,\n", &[5], &no_header),
    ] {
        let params = params(&last, more);
        let whole = at_once(text, params.clone()).unwrap();
        assert_eq!(in_parts(text, cuts, &params).unwrap(), whole, "{text:?}");
        let column = &whole["columns"][0];
        assert_eq!(whole["rows"], 3);
        assert_eq!(column["count"].as_u64().unwrap() + column["missing"].as_u64().unwrap(), 3, "{text:?}");
        assert!(column["missing"].as_u64().unwrap() >= 2);
    }
    // Nothing is no table with columns.
    assert_eq!(at_once("", params(&last, &no_header)).unwrap()["rows"], 0);
}

/// Tables with rows of any length, cut anywhere: an error if and only if no row has a column that is wanted, nor the header.
#[test]
fn columns_are_there_or_not_however_a_table_is_cut() {
    let given = std::env::var("OMNIMESH_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds: Vec<u64> = given.map_or((0..300).collect(), |seed| vec![seed]);
    let mut outcomes = [0, 0];
    for seed in &seeds {
        let replay =
            format!("seed {seed}; replay: OMNIMESH_SEED={seed} cargo test -p omnimesh-node however_a_table");
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(*seed);
        let mut below = |most: u32| rng.next_u32() % most;
        let has_header = below(2) == 0;
        let widths: Vec<u32> = (0..2 + below(30)).map(|_| 1 + below(1 + seed.count_ones())).collect();
        let mut text = String::new();
        let mut cuts = Vec::new();
        for (row, width) in (0_u32..).zip(&widths) {
            // A part without rows is none, and the header does not stand alone.
            if row > u32::from(has_header) && below(4) == 0 {
                cuts.push(text.len());
            }
            let cells: Vec<String> = (0..*width).map(|cell| format!("{}", row * 10 + cell)).collect();
            text += &(cells.join(",") + "\n");
        }
        let place = below(6);
        let params = params(&[Value::Integer(place.into())], &[("header", Value::Bool(has_header))]);
        let is_there = widths.iter().any(|width| *width > place);
        // The part with the header does not wait for the others.
        let first = text[..*cuts.first().unwrap_or(&text.len())].lines().count();
        let is_there_at_first = !has_header || widths[..first].iter().any(|width| *width > place);
        let whole = at_once(&text, params.clone());
        assert_eq!(whole.is_ok(), is_there, "{replay}");
        let parts = in_parts(&text, &cuts, &params);
        assert_eq!(parts.is_ok(), is_there && is_there_at_first, "{replay}");
        if let (Ok(whole), Ok(parts)) = (&whole, &parts) {
            for exact in ["count", "missing", "min", "max"] {
                assert_eq!(whole["columns"][0][exact], parts["columns"][0][exact], "{exact}: {replay}");
            }
            let rows = &widths[usize::from(has_header)..];
            let count = rows.iter().filter(|width| **width > place).count();
            assert_eq!(whole["columns"][0]["count"], count, "{replay}");
        }
        outcomes[usize::from(is_there)] += 1;
    }
    assert!(seeds.len() == 1 || outcomes.iter().all(|count| *count > 20), "both happen: {outcomes:?}");
}
