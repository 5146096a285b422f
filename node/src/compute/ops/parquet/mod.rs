//! Columns of numbers of Parquet files.
//!
//! ```text
//!   file, or footer and some row groups ─► footer ─► columns, row groups that begin in the part
//!                                                       │
//!                           ┌───────────────────────────┴──────────┐
//!                 column 0 of group 0 … column n of group m, eight at a time on all threads
//!                   pages ─► checked, undone ─► decoders of crate `parquet` ─► numbers ─► Column
//!                           └───────────────────────────┬──────────┘
//!                                                merged in order
//! ```
//!
//! A file may come from anybody. Footers and heads of pages are read by code of our own that allocates nothing by what is claimed;
//! a page is undone only if it fits [`SHARE`] of the task's memory, and into no more than it claims. What is left to the
//! decoders are encodings and levels of a page whose length is known; should they panic, the task has failed.
//!
//! The result is that of the row groups in order, so it does not depend on threads, nor on how many there are.

mod codec;
mod footer;
mod pages;
mod thrift;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use omnimesh_protocol::compute::ledger::FailReason;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::schema::types::{ColumnDescriptor, ColumnPath, Type};
use rayon::prelude::*;

use self::footer::{Chunk, Field, Footer, Meaning, Number, Physical};
use self::pages::Pages;
use super::analyze::{COLUMNS_MAX, Column, Histogram, Partial, check_histograms};
use super::columns::{self, Header};
use crate::compute::task::{Cancel, Context, Input, OpError, RowGroups, Task};

pub(super) use footer::{begins_like_parquet, is_parquet};

/// How many columns of row groups are read at once, at most; each may take this share of the task's memory.
const SHARE: u64 = 8;
/// Values that are decoded at once.
const BATCH: u64 = 4096;

fn bad(detail: impl Into<String>) -> OpError {
    OpError::new(FailReason::BadInput, detail)
}

/// Which bytes of a file are needed first.
pub(crate) fn tail_of(size: u64) -> Range<u64> {
    size.saturating_sub(footer::TAIL)..size
}

/// Where the footer of a file is, by its last bytes.
///
/// # Errors
/// If it is no Parquet file, or the footer is longer than fits the memory.
pub(crate) fn footer_of(tail: &[u8], size: u64, memory: u64) -> Result<Range<u64>, OpError> {
    footer::footer_at(tail, size, memory)
}

/// Which bytes the row groups take that begin in a part of a file, by the footer that ends eight bytes before the file does.
///
/// # Errors
/// If the footer is none, or there are more bytes beyond the part than the memory.
pub(crate) fn row_groups_of(
    footer: &[u8],
    size: u64,
    part: &Range<u64>,
    memory: u64,
) -> Result<Range<u64>, OpError> {
    let footer = footer::read(footer, size.saturating_sub(footer::TAIL), memory)?;
    let bytes = footer.bytes_of(part);
    // The worker has counted on the part.
    let more = (bytes.end - bytes.start).saturating_sub(part.end.saturating_sub(part.start));
    if more > memory {
        let detail = format!(
            "the row groups that begin at {} to {} of the Parquet file have {} bytes: raise for_each.bytes or limits.memory, or \
             write smaller row groups",
            part.start,
            part.end,
            bytes.end - bytes.start
        );
        return Err(OpError::new(FailReason::MemoryLimit, detail));
    }
    Ok(bytes)
}

/// A column that is read: its place in the table, and how its numbers are written.
type Wanted<'a> = (u32, &'a Field, Number);

/// A file, or a part of one.
struct File {
    footer: Footer,
    /// The bytes from `offset` on.
    bytes: Bytes,
    offset: u64,
    /// Row groups that begin here are of the part.
    part: Range<u64>,
}

impl File {
    fn open(bytes: &Bytes, input: &Input, memory: u64) -> Result<File, OpError> {
        if let Some(RowGroups { footer, size, part }) = &input.row_groups {
            let footer = footer::read(footer, size.saturating_sub(footer::TAIL), memory)?;
            return Ok(File { footer, bytes: bytes.clone(), offset: input.offset, part: part.clone() });
        }
        if !is_parquet(bytes) || input.offset != 0 {
            return Err(bad(
                "the input is not Parquet, which begins and ends with PAR1 (a part of a file needs align = \"row_group\")",
            ));
        }
        let size = bytes.len() as u64;
        let at = footer::footer_at(bytes, size, memory)?;
        let footer =
            slice(bytes, 0, &at).ok_or_else(|| bad("the footer of the Parquet file is cut short"))?;
        Ok(File {
            footer: footer::read(&footer, at.end, memory)?,
            bytes: bytes.clone(),
            offset: 0,
            part: 0..size,
        })
    }

    fn chunk(&self, chunk: &Chunk) -> Result<Bytes, OpError> {
        let missing = || bad("a column of the Parquet file is not where its row group is");
        slice(&self.bytes, self.offset, &chunk.bytes).ok_or_else(missing)
    }
}

fn slice(bytes: &Bytes, offset: u64, range: &Range<u64>) -> Option<Bytes> {
    let place = |at: u64| usize::try_from(at.checked_sub(offset)?).ok();
    let (from, to) = (place(range.start)?, place(range.end)?);
    bytes.get(from..to).map(|part| bytes.slice_ref(part))
}

/// Statistics of the row groups of an input.
pub(super) fn analyze_part(
    task: &Task,
    context: &Context,
    cancel: &Cancel,
    bytes: &Bytes,
    input: &Input,
    histogram: Option<&Histogram>,
) -> Result<Partial, OpError> {
    let memory = task.limits.memory_bytes;
    let file = File::open(bytes, input, memory)?;
    let wanted = wanted(task, &file.footer.fields)?;
    // Those of the part, of all parts, and of what is read.
    let held = (wanted.len() as u64).saturating_mul(2).saturating_add(SHARE);
    check_histograms(histogram, held, memory)?;
    let mut all: Vec<Column> = wanted.iter().map(|(_, field, _)| column_of(field, histogram)).collect();
    let groups: Vec<_> = file.footer.groups_in(&file.part).collect();
    let work: Vec<_> = groups
        .iter()
        .flat_map(|(number, group)| {
            wanted.iter().enumerate().map(move |(nth, wanted)| (*number, *group, nth, wanted))
        })
        .collect();
    for some in work.chunks(usize::try_from(SHARE).unwrap_or(1)) {
        let read =
            |(number, group, nth, (_, field, format)): &(usize, &footer::RowGroup, usize, &Wanted<'_>)| {
                let chunk = group.chunks.get(field.leaf).ok_or_else(|| bad("a column is not described"))?;
                let column = column_of(field, histogram);
                let room = memory / SHARE;
                let pages =
                    Pages::new(file.chunk(chunk)?, chunk, field, *format, group.rows, room, cancel.clone())?;
                // The decoders are those of others, and trust what they read.
                let read = || read_column(pages, field, *format, group.rows, column, cancel);
                let read = catch_unwind(AssertUnwindSafe(read))
                    .unwrap_or_else(|_| Err(bad("the decoder has panicked")));
                read.map(|column| (*nth, column)).map_err(|OpError { reason, detail }| {
                    OpError::new(
                        reason,
                        format!("column `{}`, row group {number}: {detail}", columns::cut(&field.name)),
                    )
                })
            };
        let read: Vec<Result<(usize, Column), OpError>> =
            context.pool.install(|| some.par_iter().map(read).collect());
        for column in read {
            let (nth, column) = column?;
            if let Some(all) = all.get_mut(nth) {
                all.merge(&column)?;
            }
        }
    }
    let rows = groups.iter().fold(0_u64, |rows, (_, group)| rows.saturating_add(group.rows));
    let width = u32::try_from(file.footer.fields.len()).unwrap_or(u32::MAX);
    let places = wanted.iter().map(|(place, ..)| *place);
    Ok(Partial::of(rows, width, places.zip(all)))
}

fn column_of(field: &Field, histogram: Option<&Histogram>) -> Column {
    let mut column = Column::new(histogram);
    column.name = Some(field.name.clone());
    column
}

/// The columns that are asked for, by their places in the table; all that hold numbers if none is.
fn wanted<'a>(task: &Task, fields: &'a [Field]) -> Result<Vec<Wanted<'a>>, OpError> {
    let names = Header::Schema(fields.iter().map(|field| field.name.clone()).collect());
    let Some(places) = columns::wanted(task, &names)? else {
        let numbers = (0_u32..).zip(fields);
        let numbers: Vec<_> =
            numbers.filter_map(|(place, field)| Some((place, field, *field.number.as_ref().ok()?))).collect();
        if numbers.len() > COLUMNS_MAX {
            return Err(bad(format!(
                "more than {COLUMNS_MAX} columns of numbers: name some in params.columns"
            )));
        }
        return Ok(numbers);
    };
    if places.len() > COLUMNS_MAX {
        return Err(OpError::param("columns", "at most 1,024"));
    }
    let field = |place: u32| {
        let field = usize::try_from(place).ok().and_then(|place| fields.get(place)).ok_or_else(|| {
            let last = fields.len().saturating_sub(1);
            let all = fields.len();
            bad(format!(
                "there is no column {place}: there are {all}, numbered 0 to {last} (correct params.columns)"
            ))
        })?;
        match &field.number {
            Ok(number) => Ok((place, field, *number)),
            Err(what) => {
                let name = columns::cut(&field.name);
                Err(bad(format!(
                    "column `{name}` holds no numbers, it is {what}: leave it out of params.columns"
                )))
            }
        }
    };
    places.into_iter().map(field).collect()
}

#[expect(clippy::cast_precision_loss, reason = "to the nearest, as text would be read")]
fn read_column(
    pages: Pages,
    field: &Field,
    number: Number,
    rows: u64,
    column: Column,
    cancel: &Cancel,
) -> Result<Column, OpError> {
    let descriptor = descriptor(field, number).map_err(decoding)?;
    let mut drain = Drain { rows, is_optional: field.is_optional, column, cancel };
    let unsigned = number.meaning == Meaning::Unsigned;
    let scale = if let Meaning::Decimal(scale) = number.meaning { Some(scale) } else { None };
    match get_column_reader(Arc::new(descriptor), Box::new(pages)) {
        ColumnReader::BoolColumnReader(reader) => {
            drain.run(reader, |value| Some(f64::from(u8::from(*value))))
        }
        ColumnReader::Int32ColumnReader(reader) => drain.run(reader, |value| match scale {
            Some(scale) => Some(decimal(i128::from(*value), scale)),
            None if unsigned => Some(f64::from(value.cast_unsigned())),
            None => Some(f64::from(*value)),
        }),
        ColumnReader::Int64ColumnReader(reader) => drain.run(reader, |value| match scale {
            Some(scale) => Some(decimal(i128::from(*value), scale)),
            None if unsigned => Some(value.cast_unsigned() as f64),
            None => Some(*value as f64),
        }),
        ColumnReader::FloatColumnReader(reader) => drain.run(reader, |value| Some(f64::from(*value))),
        ColumnReader::DoubleColumnReader(reader) => drain.run(reader, |value| Some(*value)),
        ColumnReader::ByteArrayColumnReader(reader) => {
            drain.run(reader, |value| Some(decimal(big_endian(value.data())?, scale?)))
        }
        ColumnReader::FixedLenByteArrayColumnReader(reader) => drain.run(reader, |value| match scale {
            Some(scale) => Some(decimal(big_endian(value.data())?, scale)),
            None => half(value.data()),
        }),
        ColumnReader::Int96ColumnReader(_) => Err(bad("a time is no number")),
    }?;
    Ok(drain.column)
}

/// What the decoders have to know of a column.
fn descriptor(field: &Field, number: Number) -> Result<ColumnDescriptor, ParquetError> {
    use parquet::basic::{Repetition, Type as Stored};
    let (stored, length) = match number.physical {
        Physical::Bool => (Stored::BOOLEAN, 0),
        Physical::Int32 => (Stored::INT32, 0),
        Physical::Int64 => (Stored::INT64, 0),
        Physical::Float => (Stored::FLOAT, 0),
        Physical::Double => (Stored::DOUBLE, 0),
        Physical::Bytes => (Stored::BYTE_ARRAY, 0),
        Physical::Fixed(length) => (Stored::FIXED_LEN_BYTE_ARRAY, length),
    };
    let repetition = if field.is_optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let stored =
        Type::primitive_type_builder("column", stored).with_repetition(repetition).with_length(length);
    let level = i16::from(field.is_optional);
    Ok(ColumnDescriptor::new(Arc::new(stored.build()?), level, 0, ColumnPath::from("column")))
}

/// What was found in a page, or what the decoders say of it.
fn decoding(error: ParquetError) -> OpError {
    let detail = error.to_string();
    match error {
        ParquetError::External(inner) => match inner.downcast::<OpError>() {
            Ok(error) => *error,
            Err(_) => bad(detail),
        },
        _ => bad(detail),
    }
}

/// Takes the values of a column in.
struct Drain<'a> {
    rows: u64,
    is_optional: bool,
    column: Column,
    cancel: &'a Cancel,
}

impl Drain<'_> {
    fn run<T: DataType>(
        &mut self,
        mut reader: ColumnReaderImpl<T>,
        number: impl Fn(&T::T) -> Option<f64>,
    ) -> Result<(), OpError> {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let mut left = self.rows;
        while left > 0 {
            self.cancel.check()?;
            values.clear();
            levels.clear();
            let most = usize::try_from(left.min(BATCH)).unwrap_or(1);
            let wanted_levels = self.is_optional.then_some(&mut levels);
            let (rows, there, _) =
                reader.read_records(most, wanted_levels, None, &mut values).map_err(decoding)?;
            if rows == 0 || there > rows || values.len() < there {
                return Err(bad(format!("it has {left} values less than rows")));
            }
            for value in values.iter().take(there) {
                match number(value) {
                    Some(number) if number.is_finite() => self.column.add(number),
                    _ => self.column.bad += 1,
                }
            }
            self.column.missing += (rows - there) as u64;
            left = left.saturating_sub(rows as u64);
        }
        Ok(())
    }
}

/// A number of the most significant byte first; `None` if it has more than 128 bits.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let filler = if is_negative { 0xff } else { 0 };
    let (more, bytes) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut all = [filler; 16];
    for (place, byte) in all.iter_mut().rev().zip(bytes.iter().rev()) {
        *place = *byte;
    }
    let value = i128::from_be_bytes(all);
    // What is left out only repeats the sign.
    (more.iter().all(|byte| *byte == filler) && (value < 0) == is_negative).then_some(value)
}

/// `unscaled` / 10^`scale`, to the nearest, as if it were read from text.
fn decimal(unscaled: i128, scale: u32) -> f64 {
    // Both are exact below these bounds, so one rounding is all (Clinger, 1990).
    let power = 10_u64.checked_pow(scale).filter(|_| scale <= 15);
    match power {
        #[expect(clippy::cast_precision_loss, reason = "is exact")]
        Some(power) if unscaled.unsigned_abs() <= 1 << 53 => unscaled as f64 / power as f64,
        _ => format!("{unscaled}e-{scale}").parse().unwrap_or(f64::NAN),
    }
}

/// Floating point of 16 bits (IEEE 754), least significant byte first.
fn half(bytes: &[u8]) -> Option<f64> {
    let bits = u64::from(u16::from_le_bytes(bytes.try_into().ok()?));
    let (exponent, fraction) = (bits >> 10 & 0x1f, bits & 0x3ff);
    let size = match exponent {
        31 => return None,
        #[expect(clippy::cast_precision_loss, reason = "has ten bits")]
        0 => fraction as f64 / f64::from(1 << 24),
        _ => f64::from_bits((exponent + 1023 - 15) << 52 | fraction << 42),
    };
    Some(if bits >> 15 == 1 { -size } else { size })
}
