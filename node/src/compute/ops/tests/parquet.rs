//! Parquet files, written by crate `parquet` in all the ways that it knows.

mod hostile;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::registry::Value;
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType,
    FloatType, Int32Type, Int64Type, Int96, Int96Type,
};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use rand_core::{Rng, SeedableRng};

use super::{context, outcome, report, task};
use crate::compute::ops::parquet::{footer_of, row_groups_of, tail_of};
use crate::compute::{Cancel, Input, OpError, RowGroups, Task, run};

const REPORT: (&str, Value) = ("report", Value::Bool(true));

/// The cells of a column, some of them missing.
enum Cells {
    Bool(Vec<Option<bool>>),
    Int32(Vec<Option<i32>>),
    Int64(Vec<Option<i64>>),
    Float(Vec<Option<f32>>),
    Double(Vec<Option<f64>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Fixed(Vec<Option<Vec<u8>>>),
    Time(Vec<Option<[u32; 3]>>),
    /// One list of numbers in each row.
    List(usize),
}

impl Cells {
    fn len(&self) -> usize {
        match self {
            Cells::Bool(cells) => cells.len(),
            Cells::Int32(cells) => cells.len(),
            Cells::Int64(cells) => cells.len(),
            Cells::Float(cells) => cells.len(),
            Cells::Double(cells) => cells.len(),
            Cells::Bytes(cells) | Cells::Fixed(cells) => cells.len(),
            Cells::Time(cells) => cells.len(),
            Cells::List(rows) => *rows,
        }
    }

    fn write(&self, rows: Range<usize>, group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>) {
        fn put<D: DataType, C: Clone>(
            cells: &[Option<C>],
            group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
            value: impl Fn(C) -> D::T,
        ) {
            let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
            let values: Vec<D::T> = cells.iter().flatten().cloned().map(value).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<D>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        match self {
            Cells::Bool(cells) => put::<BoolType, _>(&cells[rows], group, |cell| cell),
            Cells::Int32(cells) => put::<Int32Type, _>(&cells[rows], group, |cell| cell),
            Cells::Int64(cells) => put::<Int64Type, _>(&cells[rows], group, |cell| cell),
            Cells::Float(cells) => put::<FloatType, _>(&cells[rows], group, |cell| cell),
            Cells::Double(cells) => put::<DoubleType, _>(&cells[rows], group, |cell| cell),
            Cells::Bytes(cells) => put::<ByteArrayType, _>(&cells[rows], group, ByteArray::from),
            Cells::Fixed(cells) => put::<FixedLenByteArrayType, _>(&cells[rows], group, |cell| {
                FixedLenByteArray::from(ByteArray::from(cell))
            }),
            Cells::Time(cells) => put::<Int96Type, _>(&cells[rows], group, |cell| Int96::from(cell.to_vec())),
            Cells::List(_) => {
                let mut column = group.next_column().unwrap().unwrap();
                let (values, ones) = (vec![7; rows.len() * 2], vec![1_i16; rows.len() * 2]);
                let starts: Vec<i16> = (0..rows.len() * 2).map(|place| i16::from(place % 2 == 1)).collect();
                column.typed::<Int32Type>().write_batch(&values, Some(&ones), Some(&starts)).unwrap();
                column.close().unwrap();
            }
        }
    }
}

/// A file of these columns, so many rows in each row group.
fn file(schema: &str, columns: &[Cells], group_rows: usize, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(&format!("message table {{ {schema} }}")).unwrap());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build())).unwrap();
    let rows = columns[0].len();
    for from in (0..rows).step_by(group_rows) {
        let mut group = writer.next_row_group().unwrap();
        columns.iter().for_each(|cells| cells.write(from..rows.min(from + group_rows), &mut group));
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
}

/// A table of numbers of which some are missing, some are none, and some lie far out; and the same as CSV.
fn table(rows: usize, seed: u64) -> (Vec<Cells>, String) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut text = String::from("name,size,count,share\n");
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    let (mut counts, mut shares) = (Vec::new(), Vec::new());
    let cell = |cell: Option<String>| cell.unwrap_or_default();
    for row in 0..rows {
        let size = f64::from(rng.next_u32() % 20_000) / 7.0 - 500.0 + if row % 1000 == 7 { 1e6 } else { 0.0 };
        let size = match row % 50 {
            0 => Some(f64::NAN),
            1 => Some(f64::NEG_INFINITY),
            2 => None,
            _ => Some(size),
        };
        let count = (!row.is_multiple_of(3)).then(|| (rng.next_u32() % 97).cast_signed() - 40);
        let share = Some(f32::from_bits(rng.next_u32() % 1000 + 0x3f00_0000));
        text += &format!(
            "row {row},{},{},",
            cell(size.map(|size| size.to_string())),
            cell(count.map(|n| n.to_string()))
        );
        text += &format!("{}\n", cell(share.map(|share| f64::from(share).to_string())));
        names.push(Some(format!("row {row}").into_bytes()));
        sizes.push(size);
        counts.push(count);
        shares.push(share);
    }
    (vec![Cells::Bytes(names), Cells::Double(sizes), Cells::Int32(counts), Cells::Float(shares)], text)
}

const TABLE: &str =
    "required binary name (STRING); optional double size; optional int32 count; required float share;";

fn histogram() -> (&'static str, Value) {
    let map = [("from", 0), ("to", 1000), ("bins", 10)].map(|(name, n)| (name.to_owned(), Value::Integer(n)));
    ("histogram", Value::Map(map.into()))
}

/// The tasks that `for_each` with `align = "row_group"` makes of a file, each with the bytes that it fetches and no others.
fn in_chunks(file: &[u8], bytes: u64, params: &[(&str, Value)]) -> Vec<Task> {
    let size = file.len() as u64;
    let part_of =
        |range: Range<u64>| &file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
    let memory = 64 << 20;
    let footer = part_of(footer_of(part_of(tail_of(size)), size, memory).unwrap());
    let tasks = (0..size.div_ceil(bytes)).map(|chunk| {
        let part = chunk * bytes..((chunk + 1) * bytes).min(size);
        let groups = row_groups_of(footer, size, &part, memory).unwrap();
        let mut task = task("analyze", params, &[]);
        let row_groups = RowGroups { footer: footer.to_vec().into(), size, part };
        let offset = groups.start;
        let bytes = Some(part_of(groups).to_vec().into());
        task.inputs = vec![Input { bytes, offset, hash: None, row_groups: Some(row_groups) }];
        task
    });
    tasks.collect()
}

fn merged(parts: &[Vec<u8>]) -> serde_json::Value {
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    report(&outcome(&task("analyze_merge", &[], &parts)).unwrap())
}

/// The same, but for the last bits of means and variances, which depend on how rows were put together.
fn assert_same(one: &serde_json::Value, other: &serde_json::Value, what: &str) {
    assert_eq!(one["rows"], other["rows"], "{what}");
    let (columns, others) = (one["columns"].as_array().unwrap(), other["columns"].as_array().unwrap());
    assert_eq!(columns.len(), others.len(), "{what}");
    for (column, other) in columns.iter().zip(others) {
        let name = &column["name"];
        for exact in [
            "column",
            "name",
            "count",
            "missing",
            "not_numbers",
            "min",
            "max",
            "quantiles",
            "histogram",
            "outliers",
        ] {
            assert_eq!(column[exact], other[exact], "{what}: {exact} of {name}");
        }
        for near in ["mean", "variance"] {
            let (a, b) = (column[near].as_f64().unwrap(), other[near].as_f64().unwrap());
            assert!((a - b).abs() <= a.abs() * 1e-11, "{what}: {near} of {name}: {a}, {b}");
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_same_table_as_csv() {
    let (columns, text) = table(30_000, 1);
    let wanted = ("columns", Value::List(vec!["size".into(), "count".into(), "share".into()]));
    let csv = outcome(&task("analyze", &[REPORT, wanted.clone(), histogram()], &[text.as_bytes()])).unwrap();
    let csv = report(&csv);
    assert!(csv["columns"][0]["not_numbers"].as_u64().unwrap() > 1000, "some are none: {csv}");
    assert!(csv["columns"][1]["missing"].as_u64().unwrap() > 9000, "some are missing: {csv}");
    for group_rows in [30_000, 7_001] {
        let file = file(TABLE, &columns, group_rows, properties());
        let read = |params: &[(&str, Value)]| report(&outcome(&task("analyze", params, &[&file])).unwrap());
        assert_same(&csv, &read(&[REPORT, wanted.clone(), histogram()]), "by name");
        // The column of text is left out when all are asked for.
        assert_same(&csv, &read(&[REPORT, histogram()]), "all");
        let numbers = ("columns", Value::List([3, 1, 2].map(Value::Integer).into()));
        let said = ("format", "parquet".into());
        assert_same(&csv, &read(&[REPORT, numbers, histogram(), said]), "by number");
    }
}

#[test]
fn however_it_is_written_the_result_is_the_same() {
    let (columns, _) = table(9_000, 2);
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
    ];
    let mut results = Vec::new();
    for codec in codecs {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for (is_dictionary, encoding) in [
                (true, None),
                (false, Some(Encoding::PLAIN)),
                (false, Some(Encoding::BYTE_STREAM_SPLIT)),
                (false, None),
            ] {
                let mut written = properties()
                    .set_compression(codec)
                    .set_writer_version(version)
                    .set_dictionary_enabled(is_dictionary)
                    .set_data_page_size_limit(2000);
                for column in ["size", "share"] {
                    if let Some(encoding) = encoding {
                        written = written.set_column_encoding(column.into(), encoding);
                    }
                }
                if encoding.is_none() && !is_dictionary {
                    written = written.set_column_encoding("count".into(), Encoding::DELTA_BINARY_PACKED);
                }
                let file = file(TABLE, &columns, 2_500, written);
                let what = format!("{codec:?} {version:?} {is_dictionary} {encoding:?}");
                let result = outcome(&task("analyze", &[], &[&file]));
                results.push((what.clone(), result.unwrap_or_else(|error| panic!("{what}: {error}"))));
            }
        }
    }
    let (_, first) = &results[0];
    results.iter().for_each(|(what, result)| assert!(result == first, "{what}"));
    // Codecs that are not read are named.
    let error = hostile::with_codec(4).unwrap_err();
    assert_eq!(error.reason, FailReason::BadInput);
    assert!(error.detail.contains("is compressed with Brotli: use zstd"), "{error}");
}

#[test]
fn parts_of_any_length_make_the_whole_on_any_number_of_threads() {
    let (columns, _) = table(20_000, 3);
    let file = file(TABLE, &columns, 1_700, properties().set_compression(Compression::SNAPPY));
    let whole = report(&outcome(&task("analyze", &[REPORT], &[&file])).unwrap());
    let size = file.len() as u64;
    for bytes in [size / 40, size / 12, size / 5, size / 2 + 1, size, 10 * size] {
        let tasks = in_chunks(&file, bytes, &[]);
        let fetched: usize = tasks.iter().map(|task| task.inputs[0].bytes.as_ref().unwrap().len()).sum();
        assert!(fetched < file.len(), "each byte is fetched by one task at most, apart from the footer");
        let parts: Vec<Vec<u8>> = tasks
            .iter()
            .map(|task| {
                let [one, three] = [1, 3].map(|threads| {
                    run(task, &context(threads), &Cancel::after(Duration::from_secs(600))).unwrap().bytes
                });
                assert!(one == three, "{bytes}");
                one
            })
            .collect();
        assert_same(&whole, &merged(&parts), &format!("{bytes}"));
    }
}

/// What a column of one number is read as.
fn one(schema: &str, cells: Cells) -> Result<f64, OpError> {
    let file = file(schema, &[cells], 10, properties());
    let report = report(&outcome(&task("analyze", &[REPORT], &[&file]))?);
    let column = &report["columns"][0];
    assert_eq!(column["min"], column["max"]);
    column["min"].as_f64().ok_or_else(|| OpError::new(FailReason::BadInput, column.to_string()))
}

#[test]
fn each_type_of_number_is_read_as_what_it_means() {
    let bytes = |value: i128, length: usize| Some(value.to_be_bytes()[16 - length..].to_vec());
    for (schema, cells, expected) in [
        ("required boolean a;", Cells::Bool(vec![Some(true)]), 1.0),
        ("required int32 a;", Cells::Int32(vec![Some(-7)]), -7.0),
        ("required int32 a (INTEGER(8, true));", Cells::Int32(vec![Some(-7)]), -7.0),
        ("required int32 a (UINT_32);", Cells::Int32(vec![Some(-1)]), 4_294_967_295.0),
        ("required int32 a (DECIMAL(9, 2));", Cells::Int32(vec![Some(-12_345)]), -123.45),
        ("required int64 a;", Cells::Int64(vec![Some(i64::MIN)]), -9_223_372_036_854_775_808.0),
        (
            "required int64 a (INTEGER(64, false));",
            Cells::Int64(vec![Some(-1)]),
            18_446_744_073_709_551_615.0,
        ),
        ("required int64 a (DECIMAL(18, 18));", Cells::Int64(vec![Some(1)]), 1e-18),
        ("required float a;", Cells::Float(vec![Some(0.1)]), f64::from(0.1_f32)),
        ("required double a;", Cells::Double(vec![Some(-0.1)]), -0.1),
        ("optional double a;", Cells::Double(vec![None, Some(0.1), None]), 0.1),
        (
            "required fixed_len_byte_array(5) a (DECIMAL(11, 3));",
            Cells::Fixed(vec![bytes(-1_234_567_891, 5)]),
            -1_234_567.891,
        ),
        (
            "required fixed_len_byte_array(16) a (DECIMAL(38, 10));",
            Cells::Fixed(vec![bytes(170_141_183_460_469_231_731_687_303_715_884_105_727, 16)]),
            17_014_118_346_046_923_173_168_730_371.588_410_572_7,
        ),
        ("required binary a (DECIMAL(20, 1));", Cells::Bytes(vec![bytes(-25, 1)]), -2.5),
        ("required binary a (DECIMAL(38, 1));", Cells::Bytes(vec![Some(vec![0xff; 20])]), -0.1),
        ("required fixed_len_byte_array(2) a (FLOAT16);", Cells::Fixed(vec![Some(vec![0x00, 0xc1])]), -2.5),
        (
            "required fixed_len_byte_array(2) a (FLOAT16);",
            Cells::Fixed(vec![Some(vec![0x00, 0x02])]),
            2_f64.powi(-15),
        ),
    ] {
        assert_eq!(one(schema, cells), Ok(expected), "{schema}");
    }
}

#[test]
fn what_holds_no_numbers_is_left_out_or_named() {
    let schema = "required double first; required binary city (STRING); required int32 day (DATE); \
                  required int64 at (TIMESTAMP(MILLIS, true)); required int96 old; \
                  required group place { required double x; optional group deep { required double y; } } \
                  repeated int32 many; required fixed_len_byte_array(16) id; required fixed_len_byte_array(20) \
                  wide (DECIMAL(40, 2)); optional double last;";
    let rows = 5;
    let doubles = || Cells::Double(vec![Some(2.5); rows]);
    let columns = [
        doubles(),
        Cells::Bytes(vec![Some(b"x".to_vec()); rows]),
        Cells::Int32(vec![Some(1); rows]),
        Cells::Int64(vec![Some(1); rows]),
        Cells::Time(vec![Some([1, 2, 3]); rows]),
        doubles(),
        Cells::Double(vec![None; rows]),
        Cells::List(rows),
        Cells::Fixed(vec![Some(vec![1; 16]); rows]),
        Cells::Fixed(vec![Some(vec![1; 20]); rows]),
        Cells::Double((0..rows).map(|row| (row > 0).then_some(1.5)).collect()),
    ];
    let file = file(schema, &columns, 2, properties());
    let of = |columns: &[Value]| {
        outcome(&task("analyze", &[REPORT, ("columns", Value::List(columns.to_vec()))], &[&file]))
    };
    let all = report(&outcome(&task("analyze", &[REPORT], &[&file])).unwrap());
    let names: Vec<_> =
        all["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "last"]);
    let last = &all["columns"][1];
    assert_eq!([&last["column"], &last["count"], &last["missing"], &all["rows"]], [9, 4, 1, 5], "{all}");
    for (name, what) in [
        ("city", "text or bytes"),
        ("day", "a date"),
        ("at", "a time"),
        ("old", "a time (INT96)"),
        ("place", "nested"),
        ("many", "a list"),
        ("id", "text or bytes"),
        ("wide", "a decimal of more than 38 digits"),
    ] {
        let error = of(&["first".into(), name.into()]).unwrap_err();
        let expected =
            format!("column `{name}` holds no numbers, it is {what}: leave it out of params.columns");
        assert_eq!((error.reason, error.detail), (FailReason::BadInput, expected));
    }
    let error = of(&["lost".into()]).unwrap_err();
    assert!(
        error.detail.starts_with(
            "column `lost` is not among the 10 of the schema (correct params.columns); nearest: `last`"
        ),
        "{error}"
    );
    let error = of(&[Value::Integer(10)]).unwrap_err();
    assert_eq!(error.detail, "there is no column 10: there are 10, numbered 0 to 9 (correct params.columns)");
}

#[test]
fn what_was_said_has_to_be_what_it_is() {
    let (columns, text) = table(500, 4);
    let file = file(TABLE, &columns, 100, properties());
    let with = |format: &str, bytes: &[u8]| outcome(&task("analyze", &[("format", format.into())], &[bytes]));
    let error = with("parquet", text.as_bytes()).unwrap_err();
    assert_eq!(error.reason, FailReason::BadInput);
    assert!(error.detail.starts_with("the input is not Parquet"), "{error}");
    assert_eq!(with("orc", &file).unwrap_err().detail, "parameter format has to be \"csv\" or \"parquet\"");
    // The beginning of one is told from text, and text that begins like one from it.
    let error = outcome(&task("analyze", &[], &[&file[..file.len() / 2]])).unwrap_err();
    assert!(error.detail.contains("align = \"row_group\""), "{error}");
    let lines = outcome(&task("analyze", &[REPORT], &[b"PAR1,b\n1,2\n"])).unwrap();
    assert_eq!(report(&lines)["columns"][0]["name"], "PAR1");
    // A part of a file is not CSV.
    let mut part = in_chunks(&file, 1 << 30, &[("format", "csv".into())]).remove(0);
    assert_eq!(outcome(&part).unwrap_err().reason, FailReason::Unsupported);
    part.params.clear();
    assert!(outcome(&part).is_ok());
    // Columns are not added up that are not the same.
    let other = TABLE.replace("count", "weight");
    let other = self::file(&other, &columns, 100, properties());
    assert!(outcome(&task("analyze", &[REPORT], &[&file, &file])).is_ok());
    let error = outcome(&task("analyze", &[REPORT], &[&file, &other])).unwrap_err();
    assert_eq!(error.detail, "a column is named `count` in one part of the table and `weight` in another");
    // Nothing is a table, too.
    let empty = self::file("required double a;", &[Cells::Double(Vec::new())], 1, properties());
    let empty = report(&outcome(&task("analyze", &[REPORT], &[&empty])).unwrap());
    assert_eq!((&empty["rows"], &empty["columns"][0]["count"]), (&0.into(), &0.into()));
}
