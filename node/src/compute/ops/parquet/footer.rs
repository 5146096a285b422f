//! What a file says of itself: columns, and where their pages are.
//!
//! ```text
//!   PAR1 │ pages of row group 0 │ pages of row group 1 │ … │ footer │ its length, 4 bytes │ PAR1
//! ```

use std::cell::Cell;
use std::ops::Range;

use omnimesh_protocol::compute::ledger::FailReason;

use super::thrift::{Fault, Kind, Thrift, flag};
use crate::compute::task::OpError;

/// What a file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";
/// What it ends with if the footer is encrypted.
const MAGIC_ENCRYPTED: &[u8; 4] = b"PARE";
/// The length of the footer, and what the file ends with.
pub(super) const TAIL: u64 = 8;
/// The share of a task's memory that the footer may take, as it is in the file.
const FOOTER_SHARE: u64 = 16;
/// Memory that is counted for each column of the schema, and of each row group: more than it takes. So a footer takes a
/// fourth of a task's memory at most, however little each of them takes in the file.
const ITEM_BYTES: u64 = 1024;
/// Most digits behind the point of a decimal.
const SCALE_MAX: i64 = 38;

/// What a file says of itself.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) fields: Vec<Field>,
    pub(super) groups: Vec<RowGroup>,
}

/// A column of the table: one number, or something else, in each row.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// Its place among the columns of a row group.
    pub(super) leaf: usize,
    /// Cells may be missing.
    pub(super) is_optional: bool,
    /// What it holds, or what it is in place of numbers.
    pub(super) number: Result<Number, String>,
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) physical: Physical,
    pub(super) meaning: Meaning,
}

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Physical {
    Bool,
    Int32,
    Int64,
    Float,
    Double,
    Bytes,
    /// Bytes, so many of them.
    Fixed(i32),
}

/// What they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Plain,
    Unsigned,
    /// With so many digits behind the point.
    Decimal(u32),
    /// Floating point of 16 bits.
    Half,
}

/// Some rows.
#[derive(Clone, Debug, Default)]
pub(super) struct RowGroup {
    pub(super) rows: u64,
    pub(super) chunks: Vec<Chunk>,
}

/// A column of a row group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) physical: i64,
    pub(super) codec: i64,
    /// Where its pages are.
    pub(super) bytes: Range<u64>,
    /// They are in another file.
    is_elsewhere: bool,
    is_encrypted: bool,
}

fn bad(detail: impl Into<String>) -> OpError {
    OpError::new(FailReason::BadInput, detail)
}

/// True if this is the beginning and the end of a Parquet file.
pub(in crate::compute::ops) fn is_parquet(bytes: &[u8]) -> bool {
    bytes.len() as u64 >= 4 + TAIL
        && bytes.starts_with(MAGIC)
        && (bytes.ends_with(MAGIC) || bytes.ends_with(MAGIC_ENCRYPTED))
}

/// True if this looks like the beginning of a Parquet file, and not like text.
pub(in crate::compute::ops) fn begins_like_parquet(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(64)).unwrap_or_default();
    head.starts_with(MAGIC) && head.iter().any(|byte| *byte < 0x09)
}

/// Where the footer of a file of this size is, by its last bytes.
pub(super) fn footer_at(tail: &[u8], size: u64, memory: u64) -> Result<Range<u64>, OpError> {
    let not = || bad("the input is not Parquet: it does not end with PAR1 (for CSV use align = \"line\")");
    let tail: &[u8; 8] = tail.last_chunk().ok_or_else(not)?;
    let [a, b, c, d, magic @ ..] = tail;
    match magic {
        MAGIC => {}
        MAGIC_ENCRYPTED => return Err(bad("the Parquet file is encrypted: write it without encryption")),
        _ => return Err(not()),
    }
    let length = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
    let end = size.saturating_sub(TAIL);
    let begin = end.checked_sub(length).filter(|begin| *begin >= 4);
    let begin = begin.ok_or_else(|| {
        bad(format!("the footer of the Parquet file claims {length} bytes, and the file has {size}"))
    })?;
    if length > memory / FOOTER_SHARE {
        let detail = format!(
            "the footer of the Parquet file has {length} bytes, more than a {FOOTER_SHARE}th of limits.memory ({memory}): raise it, \
             or write fewer row groups"
        );
        return Err(OpError::new(FailReason::MemoryLimit, detail));
    }
    Ok(begin..end)
}

/// Reads a footer that ends at `end` of the file.
pub(super) fn read(bytes: &[u8], end: u64, memory: u64) -> Result<Footer, OpError> {
    let room = Cell::new(memory / ITEM_BYTES);
    let (leaves, footer) = parse(bytes, &room).map_err(|fault| {
        let reason = if fault == TOO_MANY { FailReason::MemoryLimit } else { FailReason::BadInput };
        OpError::new(reason, format!("the footer of the Parquet file: {}", fault.0))
    })?;
    for (place, group) in footer.groups.iter().enumerate() {
        if group.chunks.len() != leaves {
            let detail = format!(
                "row group {place} of the Parquet file has {} columns, and its schema {leaves}",
                group.chunks.len()
            );
            return Err(bad(detail));
        }
        for (column, chunk) in group.chunks.iter().enumerate() {
            if chunk.is_elsewhere {
                return Err(bad("the Parquet file names other files for its columns: write them into one"));
            }
            if chunk.is_encrypted {
                return Err(bad("the Parquet file has encrypted columns: write it without encryption"));
            }
            if chunk.bytes.start < 4 || chunk.bytes.end > end {
                let detail = format!(
                    "column {column} of row group {place} of the Parquet file is said to be at {} to {}, and pages are at 4 to {end}",
                    chunk.bytes.start, chunk.bytes.end
                );
                return Err(bad(detail));
            }
        }
    }
    Ok(footer)
}

const TOO_MANY: Fault = Fault("its columns and row groups do not fit limits.memory: raise it");

/// One column less that there is room for.
fn take(room: &Cell<u64>) -> Result<(), Fault> {
    room.set(room.get().checked_sub(1).ok_or(TOO_MANY)?);
    Ok(())
}

fn parse(bytes: &[u8], room: &Cell<u64>) -> Result<(usize, Footer), Fault> {
    let mut elements = Vec::new();
    let mut groups = Vec::new();
    Thrift::new(bytes).structure(Kind::Struct, |thrift, id, kind| {
        match id {
            2 => thrift.list(kind, |thrift, kind| {
                take(room)?;
                element(thrift, kind).map(|read| elements.push(read))
            })?,
            4 => thrift.list(kind, |thrift, kind| {
                take(room)?;
                row_group(thrift, kind, room).map(|read| groups.push(read))
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (leaves, fields) = schema(&elements)?;
    Ok((leaves, Footer { fields, groups }))
}

/// An element of the schema, which is a tree in preorder.
#[derive(Debug, Default)]
struct Element<'a> {
    physical: Option<i64>,
    length: i64,
    repetition: i64,
    name: &'a [u8],
    children: u64,
    converted: Option<i64>,
    scale: i64,
    /// Which one, and the sign of an integer, or the scale of a decimal.
    logical: Option<(i64, i64)>,
}

fn element<'a>(thrift: &mut Thrift<'a>, kind: Kind) -> Result<Element<'a>, Fault> {
    let mut element = Element::default();
    thrift.structure(kind, |thrift, id, kind| {
        match id {
            1 => element.physical = Some(thrift.integer(kind)?),
            2 => element.length = thrift.integer(kind)?,
            3 => element.repetition = thrift.integer(kind)?,
            4 => element.name = thrift.binary(kind)?,
            5 => element.children = thrift.count(kind)?,
            6 => element.converted = Some(thrift.integer(kind)?),
            7 => element.scale = thrift.integer(kind)?,
            10 => element.logical = Some(logical(thrift, kind)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}

fn logical(thrift: &mut Thrift<'_>, kind: Kind) -> Result<(i64, i64), Fault> {
    let (mut which, mut detail) = (0, 0);
    thrift.structure(kind, |thrift, id, kind| {
        which = id;
        if !matches!(id, 5 | 10) {
            return Ok(false);
        }
        thrift.structure(kind, |thrift, field, kind| {
            match (id, field) {
                (5, 1) => detail = thrift.integer(kind)?,
                (10, 2) => detail = i64::from(flag(kind)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(true)
    })?;
    Ok((which, detail))
}

/// The columns of the table: what is directly below the root.
fn schema(elements: &[Element<'_>]) -> Result<(usize, Vec<Field>), Fault> {
    let (root, mut left) = elements.split_first().ok_or(Fault("there is no schema"))?;
    let mut fields = Vec::new();
    let mut leaves = 0;
    for _ in 0..root.children {
        let (first, rest) = left.split_first().ok_or(Fault("the schema is cut short"))?;
        fields.push(Field {
            name: String::from_utf8_lossy(first.name).into_owned(),
            leaf: leaves,
            is_optional: first.repetition == 1,
            number: number(first),
        });
        leaves += usize::from(first.children == 0);
        left = rest;
        // Below it, without recursion: a schema may be as deep as it is long.
        let mut open = first.children;
        while open > 0 {
            let (next, rest) = left.split_first().ok_or(Fault("the schema is cut short"))?;
            open = (open - 1).checked_add(next.children).ok_or(Fault("the schema is too large"))?;
            leaves += usize::from(next.children == 0);
            left = rest;
        }
    }
    if left.is_empty() { Ok((leaves, fields)) } else { Err(Fault("the schema has more than one root")) }
}

/// What numbers a column holds, or what it is in place of that.
fn number(element: &Element<'_>) -> Result<Number, String> {
    if element.children > 0 {
        return Err("nested".to_owned());
    }
    if element.repetition == 2 {
        return Err("a list".to_owned());
    }
    let physical = match element.physical {
        Some(0) => Physical::Bool,
        Some(1) => Physical::Int32,
        Some(2) => Physical::Int64,
        Some(3) => return Err("a time (INT96)".to_owned()),
        Some(4) => Physical::Float,
        Some(5) => Physical::Double,
        Some(6) => Physical::Bytes,
        Some(7) => Physical::Fixed(i32::try_from(element.length).unwrap_or(0)),
        _ => return Err("of a type that there is not".to_owned()),
    };
    let meaning = meaning(element)?;
    let is_number = match (physical, meaning) {
        (Physical::Bool | Physical::Float | Physical::Double, Meaning::Plain) => true,
        (Physical::Int32 | Physical::Int64, Meaning::Plain | Meaning::Unsigned | Meaning::Decimal(_)) => true,
        (Physical::Bytes, Meaning::Decimal(_)) => true,
        (Physical::Fixed(length), Meaning::Decimal(_)) => (1..=16).contains(&length),
        (Physical::Fixed(length), Meaning::Half) => length == 2,
        _ => false,
    };
    if is_number {
        Ok(Number { physical, meaning })
    } else if let Meaning::Decimal(_) = meaning {
        Err("a decimal of more than 38 digits".to_owned())
    } else {
        Err("text or bytes".to_owned())
    }
}

fn meaning(element: &Element<'_>) -> Result<Meaning, String> {
    let decimal = |scale: i64| match u32::try_from(scale) {
        Ok(digits) if scale <= SCALE_MAX => Ok(Meaning::Decimal(digits)),
        _ => Err(format!("a decimal with {scale} digits behind the point")),
    };
    // What is new in the format goes before what it has replaced.
    match (element.logical, element.converted) {
        (Some((5, scale)), _) => decimal(scale),
        (None, Some(5)) => decimal(element.scale),
        (Some((6, _)), _) | (None, Some(6)) => Err("a date".to_owned()),
        (Some((7 | 8, _)), _) | (None, Some(7..=10)) => Err("a time".to_owned()),
        (Some((10, is_signed)), _) => Ok(if is_signed == 0 { Meaning::Unsigned } else { Meaning::Plain }),
        (None, Some(11..=14)) => Ok(Meaning::Unsigned),
        (None, Some(15..=18) | None) => Ok(Meaning::Plain),
        (Some((15, _)), _) => Ok(Meaning::Half),
        _ => Err("text or bytes".to_owned()),
    }
}

fn row_group(thrift: &mut Thrift<'_>, kind: Kind, room: &Cell<u64>) -> Result<RowGroup, Fault> {
    let mut group = RowGroup::default();
    thrift.structure(kind, |thrift, id, kind| {
        match id {
            1 => thrift.list(kind, |thrift, kind| {
                take(room)?;
                column_chunk(thrift, kind).map(|read| group.chunks.push(read))
            })?,
            3 => group.rows = thrift.count(kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // What is counted stays below 2^53, as numbers of rows are added up, and compared as floating point.
    if group.rows >= 1 << 48 { Err(Fault("a row group claims more than 2^48 rows")) } else { Ok(group) }
}

fn column_chunk(thrift: &mut Thrift<'_>, kind: Kind) -> Result<Chunk, Fault> {
    let mut chunk = Chunk::default();
    let mut has_meta = false;
    thrift.structure(kind, |thrift, id, kind| {
        match id {
            1 => chunk.is_elsewhere = !thrift.binary(kind)?.is_empty(),
            3 => {
                has_meta = true;
                column_meta(thrift, kind, &mut chunk)?;
            }
            8 => {
                chunk.is_encrypted = true;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if has_meta || chunk.is_encrypted { Ok(chunk) } else { Err(Fault("a column is not described")) }
}

fn column_meta(thrift: &mut Thrift<'_>, kind: Kind, chunk: &mut Chunk) -> Result<(), Fault> {
    let (mut length, mut data, mut dictionary) = (0, 0, 0);
    thrift.structure(kind, |thrift, id, kind| {
        match id {
            1 => chunk.physical = thrift.integer(kind)?,
            4 => chunk.codec = thrift.integer(kind)?,
            7 => length = thrift.count(kind)?,
            9 => data = thrift.count(kind)?,
            11 => dictionary = thrift.count(kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // Some writers say 0 where there is none.
    let begin = if dictionary > 0 { data.min(dictionary) } else { data };
    chunk.bytes = begin..begin.saturating_add(length);
    Ok(())
}

impl Physical {
    /// How the format numbers it.
    pub(super) fn code(self) -> i64 {
        match self {
            Physical::Bool => 0,
            Physical::Int32 => 1,
            Physical::Int64 => 2,
            Physical::Float => 4,
            Physical::Double => 5,
            Physical::Bytes => 6,
            Physical::Fixed(_) => 7,
        }
    }

    /// The fewest bytes that a value takes, written plainly.
    pub(super) fn bytes_min(self) -> u64 {
        match self {
            Physical::Bool => 0,
            Physical::Int32 | Physical::Float | Physical::Bytes => 4,
            Physical::Int64 | Physical::Double => 8,
            Physical::Fixed(length) => u64::try_from(length).unwrap_or(0),
        }
    }
}

impl RowGroup {
    /// Where it begins: with the first page of the first column. A group without columns is nowhere.
    pub(super) fn begin(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes.start).min().unwrap_or(0)
    }

    fn end(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes.end).max().unwrap_or(0)
    }
}

impl Footer {
    /// The row groups that begin there. Each one belongs to one of the chunks that a file is cut into.
    pub(super) fn groups_in(&self, range: &Range<u64>) -> impl Iterator<Item = (usize, &RowGroup)> {
        let is_in = move |group: &RowGroup| range.contains(&group.begin());
        self.groups.iter().enumerate().filter(move |(_, group)| is_in(group))
    }

    /// The bytes of the file that the row groups which begin there take.
    pub(super) fn bytes_of(&self, range: &Range<u64>) -> Range<u64> {
        let begin = self.groups_in(range).map(|(_, group)| group.begin()).min().unwrap_or(range.start);
        let end = self.groups_in(range).map(|(_, group)| group.end()).max().unwrap_or(begin);
        begin..end
    }
}
