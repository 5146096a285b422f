//! The pages of a column, for the decoders of crate `parquet`.
//!
//! They trust the page: what its head claims is checked here, and what it takes is counted, before they see it.

use bytes::Bytes;
use omnimesh_protocol::compute::ledger::FailReason;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;

use super::codec::Codec;
use super::footer::{Chunk, Field, Number, Physical};
use super::thrift::{Fault, Kind, Thrift, flag};
use crate::compute::task::{Cancel, OpError};

/// What a value of a dictionary takes in memory, at most: bytes are held as a slice of the page.
const DICTIONARY_VALUE: u64 = 48;

/// The pages of a column of a row group, one after another.
pub(super) struct Pages {
    left: Bytes,
    codec: Codec,
    physical: Physical,
    is_optional: bool,
    /// Values that are still to come, the missing ones among them.
    rows: u64,
    /// Bytes that may be held, and that the dictionary holds.
    room: u64,
    held: u64,
    has_dictionary: bool,
    cancel: Cancel,
}

/// What a page says of itself.
#[derive(Debug, Default)]
struct Head {
    kind: i64,
    /// Bytes of the page, in the file and as they were.
    stored: u64,
    length: u64,
    data: Option<Data>,
    dictionary: Option<Data>,
    data_v2: Option<Data>,
}

#[derive(Debug, Default)]
struct Data {
    values: u64,
    encoding: i64,
    level_encoding: i64,
    nulls: u64,
    /// Bytes of both sorts of levels, of version 2.
    repetition: u64,
    definition: u64,
    is_compressed: bool,
}

fn bad(detail: impl Into<String>) -> OpError {
    OpError::new(FailReason::BadInput, detail)
}

impl Pages {
    /// The pages in these bytes, which may take so much room.
    pub(super) fn new(
        bytes: Bytes,
        chunk: &Chunk,
        field: &Field,
        number: Number,
        rows: u64,
        room: u64,
        cancel: Cancel,
    ) -> Result<Self, OpError> {
        if chunk.physical != number.physical.code() {
            return Err(bad("a column of the Parquet file has another type than its schema says"));
        }
        Ok(Pages {
            left: bytes,
            codec: Codec::of(chunk.codec)?,
            physical: number.physical,
            is_optional: field.is_optional,
            rows,
            room,
            held: 0,
            has_dictionary: false,
            cancel,
        })
    }

    fn next_page(&mut self) -> Result<Option<Page>, OpError> {
        while !self.left.is_empty() && self.rows > 0 {
            self.cancel.check()?;
            let mut thrift = Thrift::new(&self.left);
            let head = head(&mut thrift).map_err(|Fault(what)| bad(format!("the head of a page: {what}")))?;
            let read = self.left.len() - thrift.left();
            let mut bytes = self.left.split_off(read);
            let stored = usize::try_from(head.stored).ok().filter(|stored| *stored <= bytes.len());
            let stored = stored.ok_or_else(|| {
                bad(format!("a page claims {} bytes, and its column has {} more", head.stored, bytes.len()))
            })?;
            self.left = bytes.split_off(stored);
            match (head.kind, head.data, head.dictionary, head.data_v2) {
                // The decoders take a page without values for the end.
                (0, Some(Data { values: 0, .. }), ..) | (3, .., Some(Data { values: 0, .. })) => {}
                (0, Some(data), ..) => return self.data(bytes, head.length, &data).map(Some),
                (2, _, Some(data), _) => return self.dictionary(bytes, head.length, &data).map(Some),
                (3, .., Some(data)) => return self.data_v2(&bytes, head.length, &data).map(Some),
                (0 | 2 | 3, ..) => return Err(bad("a page does not say what it holds")),
                // Pages of an index, and what is to come.
                _ => {}
            }
        }
        Ok(None)
    }

    /// Says so if a page of this length does not fit, with what the dictionary takes.
    fn reserve(&self, length: u64, more: u64) -> Result<usize, OpError> {
        let all = self.held.saturating_add(length).saturating_add(more);
        if all > self.room {
            let detail = format!(
                "a page of the Parquet file takes {all} bytes, and an eighth of limits.memory is {}: raise it, or write smaller \
                 pages",
                self.room
            );
            return Err(OpError::new(FailReason::MemoryLimit, detail));
        }
        usize::try_from(length).map_err(|_| bad("a page is too long"))
    }

    /// A page as it was before it was compressed, but for its first bytes, which were not.
    fn undo(&self, bytes: Bytes, length: u64, levels: u64, is_compressed: bool) -> Result<Bytes, OpError> {
        if self.codec == Codec::None || !is_compressed {
            return Ok(bytes);
        }
        let levels = usize::try_from(levels).ok().filter(|levels| *levels <= bytes.len());
        let (levels, compressed) = levels
            .and_then(|levels| bytes.split_at_checked(levels))
            .ok_or_else(|| bad("a page claims more levels than it has bytes"))?;
        let rest = length.checked_sub(levels.len() as u64);
        let rest = rest.ok_or_else(|| bad("a page claims more levels than it has bytes"))?;
        if rest == 0 {
            return Ok(bytes.slice_ref(levels));
        }
        let room = self.reserve(length, self.codec.room(compressed, rest)?)?;
        let mut output = Vec::new();
        output.extend_from_slice(levels);
        self.codec.undo(compressed, room - levels.len(), &mut output)?;
        Ok(output.into())
    }

    fn take_rows(&mut self, values: u64) -> Result<u32, OpError> {
        let left = self.rows.checked_sub(values);
        self.rows = left.ok_or_else(|| bad("a column of the Parquet file has more values than rows"))?;
        u32::try_from(values).map_err(|_| bad("a page claims more than 2^32 values"))
    }

    fn data(&mut self, bytes: Bytes, length: u64, data: &Data) -> Result<Page, OpError> {
        let num_values = self.take_rows(data.values)?;
        let level_encoding = match data.level_encoding {
            // What is not there is not read.
            _ if !self.is_optional => Encoding::RLE,
            3 => Encoding::RLE,
            other => return Err(bad(format!("levels have encoding {other}, which the format has given up"))),
        };
        Ok(Page::DataPage {
            buf: self.undo(bytes, length, 0, true)?,
            num_values,
            encoding: self.encoding(data.encoding)?,
            def_level_encoding: level_encoding,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }

    fn data_v2(&mut self, bytes: &Bytes, length: u64, data: &Data) -> Result<Page, OpError> {
        let num_values = self.take_rows(data.values)?;
        let levels = data.repetition.saturating_add(data.definition);
        let buf = self.undo(bytes.clone(), length, levels, data.is_compressed)?;
        let fits = |value: u64, most: u64| u32::try_from(value).ok().filter(|_| value <= most);
        let lengths = fits(data.repetition, levels).zip(fits(data.definition, levels));
        let lengths = lengths.filter(|_| levels <= buf.len() as u64).zip(fits(data.nulls, data.values));
        let ((rep_levels_byte_len, def_levels_byte_len), num_nulls) =
            lengths.ok_or_else(|| bad("a page claims more levels than it has"))?;
        Ok(Page::DataPageV2 {
            buf,
            num_values,
            encoding: self.encoding(data.encoding)?,
            num_nulls,
            num_rows: num_values,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed: false,
            statistics: None,
        })
    }

    fn dictionary(&mut self, bytes: Bytes, length: u64, data: &Data) -> Result<Page, OpError> {
        let least = self.physical.bytes_min();
        // The decoder has room for as many as are claimed.
        let values = data.values.saturating_mul(DICTIONARY_VALUE);
        self.reserve(length, values)?;
        let buf = self.undo(bytes, length, 0, true)?;
        if least == 0 || data.values.saturating_mul(least) > buf.len() as u64 {
            return Err(bad("a dictionary claims more values than it has"));
        }
        self.has_dictionary = true;
        self.held = self.held.saturating_add(values).saturating_add(buf.len() as u64);
        if !matches!(data.encoding, 0 | 2) {
            return Err(bad(format!("a dictionary has encoding {}", data.encoding)));
        }
        let num_values = u32::try_from(data.values).map_err(|_| bad("a dictionary is too long"))?;
        Ok(Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false })
    }

    /// The encodings that a column of this type may have, and that take no more memory than they have bytes.
    fn encoding(&self, code: i64) -> Result<Encoding, OpError> {
        use Physical::{Bool, Bytes, Double, Fixed, Float, Int32, Int64};
        Ok(match (code, self.physical) {
            (0, _) => Encoding::PLAIN,
            (2 | 8, _) if !self.has_dictionary => {
                return Err(bad("a page refers to a dictionary that is not there"));
            }
            (2 | 8, Int32 | Int64 | Float | Double | Bytes | Fixed(_)) => Encoding::RLE_DICTIONARY,
            (3, Bool) => Encoding::RLE,
            (5, Int32 | Int64) => Encoding::DELTA_BINARY_PACKED,
            (9, Int32 | Int64 | Float | Double) => Encoding::BYTE_STREAM_SPLIT,
            _ => {
                return Err(bad(format!(
                    "a column of the Parquet file has encoding {code}, which is not read for its type: write it as PLAIN"
                )));
            }
        })
    }
}

fn head(thrift: &mut Thrift<'_>) -> Result<Head, Fault> {
    let mut head = Head::default();
    thrift.structure(Kind::Struct, |thrift, id, kind| {
        match id {
            1 => head.kind = thrift.integer(kind)?,
            2 => head.length = thrift.count(kind)?,
            3 => head.stored = thrift.count(kind)?,
            5 => head.data = Some(data_head(thrift, kind)?),
            7 => head.dictionary = Some(data_head(thrift, kind)?),
            8 => head.data_v2 = Some(data_v2_head(thrift, kind)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(head)
}

/// Of a page of data of version 1, or of a dictionary, which has the first two.
fn data_head(thrift: &mut Thrift<'_>, kind: Kind) -> Result<Data, Fault> {
    let mut data = Data { is_compressed: true, ..Data::default() };
    thrift.structure(kind, |thrift, id, kind| {
        match id {
            1 => data.values = thrift.count(kind)?,
            2 => data.encoding = thrift.integer(kind)?,
            3 if kind == Kind::Integer => data.level_encoding = thrift.integer(kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(data)
}

fn data_v2_head(thrift: &mut Thrift<'_>, kind: Kind) -> Result<Data, Fault> {
    let mut data = Data { is_compressed: true, ..Data::default() };
    thrift.structure(kind, |thrift, id, kind| {
        match id {
            1 => data.values = thrift.count(kind)?,
            2 => data.nulls = thrift.count(kind)?,
            4 => data.encoding = thrift.integer(kind)?,
            5 => data.definition = thrift.count(kind)?,
            6 => data.repetition = thrift.count(kind)?,
            7 => data.is_compressed = flag(kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(data)
}

impl Iterator for Pages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        self.next_page().map_err(|error| ParquetError::External(Box::new(error)))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Err(ParquetError::NYI("pages are read one after another".to_owned()))
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.get_next_page().map(drop)
    }
}
