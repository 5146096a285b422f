//! Statistics of columns of numbers, of a part of the data and of all of it.
//!
//! ```text
//!   chunk of CSV, or row groups of Parquet ─► analyze ─► partial ─┐
//!   chunk of CSV, or row groups of Parquet ─► analyze ─► partial ─┴► analyze_merge ─► report (JSON), or a partial again
//! ```
//!
//! Count, mean and variance are Welford's (1962), merged as by Chan, Golub and LeVeque (1979); quantiles are those of a
//! histogram with buckets of logarithmic width (off by 1/256 at most); outliers lie outside Tukey's fences, 1.5 times the distance of
//! the quartiles beyond them, of which the 16 farthest are listed. Rows are taken in blocks of a fixed length that
//! threads share, and merged in order: the result does not depend on how many threads there are, bit by bit.
//!
//! # Parameters
//! `format`: `csv` or `parquet`; by default what the data is. `columns`: which, by number from 0, or by name if this part begins
//! with the header; all if it is not given. `header`: whether the data begins with one (default true; only the chunk at the beginning has it). `delimiter`: one character
//! (default `,`). `histogram`: `{ from, to, bins }`. `report`: write the report at once.
//!
//! A cell that is empty or beyond the end of a short row is counted as missing, one that is no finite number as bad; both are
//! otherwise left out. A column that no row has, nor the header, is an error. A part with the header knows it at once;
//! others note how long their longest row is, and whoever writes the report knows it of all.

use std::collections::BTreeMap;

use bytes::Bytes;
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::registry::Value;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::columns::{self, Header};
use super::parquet;
use super::quantiles::Quantiles;
use crate::compute::task::{Cancel, Context, Input, OpError, Sink, Task};

/// Bytes in a block. Part of the result: means are rounded in the order of blocks.
const BLOCK: usize = 1 << 20;
/// Outliers that are listed on each side.
const EXTREMES: usize = 16;
/// Most columns of one task.
pub(super) const COLUMNS_MAX: usize = 1024;
/// Most bins of a histogram.
const BINS_MAX: u64 = 4096;
/// What is known of a block may take as much memory as so many blocks: each cell in a bucket of its own.
const HELD_PER_BLOCK: u64 = 8;
/// Of what parts are handed on as: 2 says how long rows are.
const VERSION: u64 = 2;

/// What is known of some rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Partial {
    version: u64,
    rows: u64,
    /// Columns of the longest row, or of the header.
    width: u32,
    columns: BTreeMap<u32, Column>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: Option<String>,
    count: u64,
    pub(super) missing: u64,
    pub(super) bad: u64,
    mean: f64,
    /// Sum of the squares of the distances to the mean.
    squares: f64,
    quantiles: Quantiles,
    /// The smallest, ascending, and the largest, descending.
    low: Vec<f64>,
    high: Vec<f64>,
    histogram: Option<Histogram>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Histogram {
    from: f64,
    to: f64,
    bins: Vec<u64>,
    below: u64,
    above: u64,
}

impl Histogram {
    fn add(&mut self, value: f64) {
        if value < self.from {
            self.below += 1;
        } else if value >= self.to {
            self.above += 1;
        } else {
            let share = (value - self.from) / (self.to - self.from);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share below one of at most 4,096 bins"
            )]
            let place = (share * self.bins.len() as f64) as usize;
            let last = self.bins.len() - 1;
            self.bins[place.min(last)] += 1;
        }
    }

    fn merge(&mut self, other: &Histogram) -> bool {
        let is_same = (self.from, self.to, self.bins.len()) == (other.from, other.to, other.bins.len());
        if is_same {
            self.bins.iter_mut().zip(&other.bins).for_each(|(ours, theirs)| *ours += theirs);
            self.below += other.below;
            self.above += other.above;
        }
        is_same
    }
}

impl Column {
    pub(super) fn new(histogram: Option<&Histogram>) -> Self {
        Column { histogram: histogram.cloned(), ..Column::default() }
    }

    pub(super) fn add(&mut self, value: f64) {
        self.count += 1;
        let delta = value - self.mean;
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let count = self.count as f64;
        self.mean += delta / count;
        self.squares += delta * (value - self.mean);
        self.quantiles.add(value);
        keep(&mut self.low, value, |a, b| a < b);
        keep(&mut self.high, value, |a, b| a > b);
        if let Some(histogram) = &mut self.histogram {
            histogram.add(value);
        }
    }

    pub(super) fn merge(&mut self, other: &Column) -> Result<(), OpError> {
        let bad = || OpError::new(FailReason::BadInput, "the partial statistics are not of the same columns");
        match (&self.name, &other.name) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let (ours, theirs) = (columns::cut(ours), columns::cut(theirs));
                let detail =
                    format!("a column is named `{ours}` in one part of the table and `{theirs}` in another");
                return Err(OpError::new(FailReason::BadInput, detail));
            }
            (None, Some(_)) => self.name.clone_from(&other.name),
            _ => {}
        }
        self.missing += other.missing;
        self.bad += other.bad;
        match (&mut self.histogram, &other.histogram) {
            (Some(ours), Some(theirs)) => {
                if !ours.merge(theirs) {
                    return Err(bad());
                }
            }
            (None, None) => {}
            _ => return Err(bad()),
        }
        if other.count == 0 {
            return Ok(());
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        let total = ours + theirs;
        self.squares += other.squares + delta * delta * (ours * theirs / total);
        self.mean = if self.count == 0 { other.mean } else { self.mean + delta * (theirs / total) };
        self.count += other.count;
        self.quantiles.merge(&other.quantiles);
        other.low.iter().for_each(|value| keep(&mut self.low, *value, |a, b| a < b));
        other.high.iter().for_each(|value| keep(&mut self.high, *value, |a, b| a > b));
        Ok(())
    }
}

/// Keeps the few that come first in an order.
fn keep(extremes: &mut Vec<f64>, value: f64, before: fn(f64, f64) -> bool) {
    if extremes.len() == EXTREMES && extremes.last().is_some_and(|last| !before(value, *last)) {
        return;
    }
    let place = extremes.partition_point(|known| !before(value, *known));
    extremes.insert(place, value);
    extremes.truncate(EXTREMES);
}

impl Partial {
    /// Of so many rows, these columns of them, in a table of `width` columns.
    pub(super) fn of(rows: u64, width: u32, columns: impl Iterator<Item = (u32, Column)>) -> Self {
        Partial { version: VERSION, rows, width, columns: columns.collect() }
    }

    fn merge(&mut self, other: &Partial) -> Result<(), OpError> {
        self.rows += other.rows;
        self.width = self.width.max(other.width);
        for (place, column) in &other.columns {
            match self.columns.get_mut(place) {
                Some(ours) => ours.merge(column)?,
                None => drop(self.columns.insert(*place, column.clone())),
            }
        }
        if self.columns.len() > COLUMNS_MAX {
            return Err(OpError::new(FailReason::BadInput, format!("more than {COLUMNS_MAX} columns")));
        }
        Ok(())
    }
}

/// Which columns, and how they are read.
struct Plan {
    delimiter: u8,
    /// By number; all if there is none.
    columns: Option<Vec<u32>>,
    header: Header,
    histogram: Option<Histogram>,
}

fn bad_csv(error: &csv::Error) -> OpError {
    OpError::new(FailReason::BadInput, format!("not CSV: {error}"))
}

fn plan(task: &Task, header: Option<&[u8]>) -> Result<Plan, OpError> {
    let delimiter = match task.text("delimiter")?.as_deref() {
        None => b',',
        Some(text) if text.len() == 1 => text.as_bytes()[0],
        Some(_) => return Err(OpError::param("delimiter", "one character")),
    };
    let header = match header {
        Some(header) => Header::Here(names(header, delimiter)?),
        None if task.flag("header", true)? => Header::Elsewhere,
        None => Header::None,
    };
    let columns = columns::wanted(task, &header)?;
    if columns.as_ref().is_some_and(|columns| {
        columns.len() > COLUMNS_MAX || columns.iter().any(|place| *place as usize >= COLUMNS_MAX)
    }) {
        return Err(OpError::param("columns", "at most 1,024, numbered below that"));
    }
    Ok(Plan { delimiter, columns, header, histogram: histogram(task)? })
}

/// The names in a header.
fn names(header: &[u8], delimiter: u8) -> Result<Vec<String>, OpError> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(header);
    let Some(record) = reader.records().next() else { return Ok(Vec::new()) };
    Ok(record.map_err(|error| bad_csv(&error))?.iter().map(|name| name.trim().to_owned()).collect())
}

fn histogram(task: &Task) -> Result<Option<Histogram>, OpError> {
    let error = || OpError::param("histogram", "{ from, to, bins } with from < to and 1 to 4,096 bins");
    let map = match task.param("histogram") {
        None => return Ok(None),
        Some(Value::Map(map)) => map,
        Some(_) => return Err(error()),
    };
    let number = |name: &str| match map.get(name) {
        Some(Value::Float(value)) => Some(*value),
        #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 mean nothing here")]
        Some(Value::Integer(value)) => Some(*value as f64),
        _ => None,
    };
    let (from, to) = number("from").zip(number("to")).filter(|(from, to)| from < to).ok_or_else(error)?;
    let bins = match map.get("bins") {
        Some(Value::Integer(bins)) => u64::try_from(*bins).ok().filter(|bins| (1..=BINS_MAX).contains(bins)),
        _ => None,
    };
    let bins = bins.and_then(|bins| usize::try_from(bins).ok()).ok_or_else(error)?;
    Ok(Some(Histogram { from, to, bins: vec![0; bins], below: 0, above: 0 }))
}

/// Blocks of about [`BLOCK`] bytes that end where lines do.
fn blocks(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut blocks = Vec::new();
    while bytes.len() > BLOCK {
        let end =
            bytes[BLOCK..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| BLOCK + at + 1);
        let (block, rest) = bytes.split_at(end);
        blocks.push(block);
        bytes = rest;
    }
    if !bytes.is_empty() {
        blocks.push(bytes);
    }
    blocks
}

/// How many blocks are read before what is known of them is merged, at most: so many threads have work, and no more is
/// held than the memory is for.
fn blocks_at_once(memory: u64, threads: usize) -> usize {
    let fit = usize::try_from(memory / (HELD_PER_BLOCK * BLOCK as u64)).unwrap_or(usize::MAX);
    fit.min(threads.saturating_mul(2)).max(1)
}

/// How many histograms fit the memory.
fn histograms_max(histogram: &Histogram, memory: u64) -> u64 {
    memory / (histogram.bins.len() as u64 * 8).max(1)
}

/// Refuses more histograms than fit the memory.
pub(super) fn check_histograms(histogram: Option<&Histogram>, held: u64, memory: u64) -> Result<(), OpError> {
    let Some(histogram) = histogram.filter(|histogram| held > histograms_max(histogram, memory)) else {
        return Ok(());
    };
    let detail = format!(
        "{held} histograms of {} bins are held at once, more than limits.memory ({memory} bytes): ask for fewer columns or bins, \
         or raise it",
        histogram.bins.len()
    );
    Err(OpError::new(FailReason::MemoryLimit, detail))
}

/// Reads blocks, so many at once, and merges what comes of them in order. What does not fit the memory is tried again with
/// fewer, at last one by one: so it does not depend on threads whether it fits.
fn merge_in_order<B: Sync, R: Send>(
    pool: &rayon::ThreadPool,
    mut blocks: &[B],
    mut at_once: usize,
    read: impl Fn(&B, usize) -> Result<R, OpError> + Sync,
    mut merge: impl FnMut(R) -> Result<(), OpError>,
) -> Result<(), OpError> {
    while !blocks.is_empty() {
        let (some, rest) = blocks.split_at(at_once.min(blocks.len()));
        let done: Vec<Result<R, OpError>> =
            pool.install(|| some.par_iter().map(|block| read(block, some.len())).collect());
        let is_short = |done: &Result<R, OpError>| {
            done.as_ref().is_err_and(|error| error.reason == FailReason::MemoryLimit)
        };
        if some.len() > 1 && done.iter().any(is_short) {
            at_once = some.len() / 2;
            continue;
        }
        done.into_iter().try_for_each(|done| merge(done?))?;
        blocks = rest;
    }
    Ok(())
}

/// Reads a block, while as many as `at_once` are read and held.
fn read_block(block: &[u8], plan: &Plan, memory: u64, at_once: usize) -> Result<Partial, OpError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(plan.delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(block);
    let mut partial = Partial { version: VERSION, ..Partial::default() };
    let mut record = csv::ByteRecord::new();
    // By place, as a tree would be searched for each cell.
    let mut columns: Vec<Option<Column>> = Vec::new();
    while reader.read_byte_record(&mut record).map_err(|error| bad_csv(&error))? {
        partial.rows += 1;
        partial.width = partial.width.max(u32::try_from(record.len()).unwrap_or(u32::MAX));
        let wide = plan.columns.as_ref().map_or(record.len(), Vec::len) as u64;
        // Beside the blocks there are those of the part, and of all parts.
        check_histograms(plan.histogram.as_ref(), wide.saturating_mul(at_once as u64 + 2), memory)?;
        let mut take = |place: usize, cell: &[u8]| {
            if place >= columns.len() {
                columns.resize(place + 1, None);
            }
            let column = columns[place].get_or_insert_with(|| Column::new(plan.histogram.as_ref()));
            let text = cell.trim_ascii();
            match std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()) {
                Some(value) if value.is_finite() => column.add(value),
                _ if text.is_empty() => column.missing += 1,
                _ => column.bad += 1,
            }
        };
        match &plan.columns {
            Some(wanted) => {
                for place in wanted {
                    take(*place as usize, record.get(*place as usize).unwrap_or_default());
                }
            }
            None if record.len() > COLUMNS_MAX => {
                return Err(OpError::new(FailReason::BadInput, format!("more than {COLUMNS_MAX} columns")));
            }
            None => record.iter().enumerate().for_each(|(place, cell)| take(place, cell)),
        }
    }
    let places = (0_u32..).zip(columns).filter_map(|(place, column)| Some((place, column?)));
    partial.columns.extend(places);
    Ok(partial)
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Parquet,
}

/// What the parameter says, or else what the bytes are.
fn format(task: &Task, bytes: &[u8], input: &Input) -> Result<Format, OpError> {
    match task.text("format")?.as_deref() {
        Some("csv") if input.row_groups.is_some() => {
            Err(OpError::param("format", "\"parquet\", or not given, with align = \"row_group\""))
        }
        Some("csv") => Ok(Format::Csv),
        Some("parquet") => Ok(Format::Parquet),
        Some(_) => Err(OpError::param("format", "\"csv\" or \"parquet\"")),
        None if input.row_groups.is_some() => Ok(Format::Parquet),
        None if input.offset > 0 => Ok(Format::Csv),
        None if parquet::is_parquet(bytes) => Ok(Format::Parquet),
        None if parquet::begins_like_parquet(bytes) => {
            let detail = "the input is the beginning of a Parquet file: cut it with align = \"row_group\", or read it whole";
            Err(OpError::new(FailReason::BadInput, detail))
        }
        None => Ok(Format::Csv),
    }
}

fn analyze_csv(
    task: &Task,
    context: &Context,
    cancel: &Cancel,
    bytes: &Bytes,
    offset: u64,
) -> Result<Partial, OpError> {
    let mut body: &[u8] = bytes;
    let mut header = None;
    if task.flag("header", true)? && offset == 0 {
        let end = body.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        if end.is_none() && body.trim_ascii_end().contains(&b'\r') {
            let detail = "lines end with a carriage return alone, so that all is one header: make them line feeds (tr '\\r' '\\n')";
            return Err(OpError::new(FailReason::BadInput, detail));
        }
        let (first, rest) = body.split_at(end.unwrap_or(body.len()));
        (header, body) = (Some(first), rest);
    }
    let plan = plan(task, header)?;
    let mut all = Partial { version: VERSION, width: plan.header.width(), ..Partial::default() };
    let memory = task.limits.memory_bytes;
    let at_once = blocks_at_once(memory, context.pool.current_num_threads());
    let read = |block: &&[u8], at_once: usize| {
        cancel.check()?;
        read_block(block, &plan, memory, at_once)
    };
    merge_in_order(&context.pool, &blocks(body), at_once, read, |partial| all.merge(&partial))?;
    for (place, column) in &mut all.columns {
        column.name = plan.header.names().get(*place as usize).cloned();
    }
    if matches!(plan.header, Header::Here(_)) {
        all.check_columns()?;
    }
    Ok(all)
}

/// The statistics of the parts.
pub(in crate::compute) fn analyze(
    task: &Task,
    context: &Context,
    cancel: &Cancel,
    sink: &mut Sink,
) -> Result<(), OpError> {
    let mut all = Partial { version: VERSION, ..Partial::default() };
    for input in &task.inputs {
        let Some(bytes) = &input.bytes else { continue };
        let part = match format(task, bytes, input)? {
            Format::Csv => analyze_csv(task, context, cancel, bytes, input.offset)?,
            Format::Parquet => {
                parquet::analyze_part(task, context, cancel, bytes, input, histogram(task)?.as_ref())?
            }
        };
        all.merge(&part)?;
    }
    write(&all, !task.flag("report", false)?, sink)
}

/// The statistics of all parts together.
pub(in crate::compute) fn merge(task: &Task, cancel: &Cancel, sink: &mut Sink) -> Result<(), OpError> {
    let mut all = Partial { version: VERSION, ..Partial::default() };
    for part in task.parts() {
        cancel.check()?;
        let partial: Partial = serde_cbor::from_slice(part).map_err(|_| {
            OpError::new(FailReason::BadInput, "an input is not what operation analyze makes")
        })?;
        if partial.version != VERSION || !partial.is_sound() {
            return Err(OpError::new(FailReason::BadInput, "an input is of another version, or damaged"));
        }
        all.merge(&partial)?;
    }
    write(&all, task.flag("partial", false)?, sink)
}

impl Partial {
    /// Whether all columns that were wanted are there.
    fn check_columns(&self) -> Result<(), OpError> {
        columns::all_there(self.columns.keys().copied(), self.width, self.rows)
    }

    /// True if adding up and indexing cannot go wrong with it.
    fn is_sound(&self) -> bool {
        let fits = |count: u64| count < 1 << 53;
        fits(self.rows)
            && self.columns.values().all(|column| {
                [column.count, column.missing, column.bad].into_iter().all(fits)
                    && fits(column.quantiles.count())
                    && column.low.len() <= EXTREMES
                    && column.high.len() <= EXTREMES
                    && column.histogram.as_ref().is_none_or(|histogram| {
                        !histogram.bins.is_empty()
                            && histogram.bins.len() as u64 <= BINS_MAX
                            && histogram
                                .bins
                                .iter()
                                .chain([&histogram.below, &histogram.above])
                                .all(|n| fits(*n))
                    })
            })
    }
}

fn write(partial: &Partial, is_partial: bool, sink: &mut Sink) -> Result<(), OpError> {
    if is_partial {
        let bytes = serde_cbor::to_vec(partial)
            .map_err(|error| OpError::new(FailReason::BadInput, error.to_string()))?;
        return sink.push(&bytes);
    }
    partial.check_columns()?;
    let report = serde_json::to_string_pretty(&report(partial))
        .map_err(|error| OpError::new(FailReason::BadInput, error.to_string()))?;
    sink.push(report.as_bytes())
}

/// What people read.
fn report(partial: &Partial) -> serde_json::Value {
    let columns: Vec<_> = partial
        .columns
        .iter()
        .map(|(place, column)| {
            let (min, max) = (column.low.first().copied(), column.high.first().copied());
            // The middle of a bucket may lie beyond the numbers in it.
            let quantile = |per_mille| Some(column.quantiles.at(per_mille)?.max(min?).min(max?));
            #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
            let variance = (column.count > 1).then(|| column.squares / (column.count - 1) as f64);
            let fences = quantile(250).zip(quantile(750)).map(|(q1, q3)| {
                let reach = 1.5 * (q3 - q1);
                (q1 - reach, q3 + reach)
            });
            let outliers = fences.map(|(low, high)| {
                let few = |values: &[f64], is_out: &dyn Fn(f64) -> bool| {
                    values.iter().copied().filter(|value| is_out(*value)).collect::<Vec<_>>()
                };
                let lowest = few(&column.low, &|value| value < low);
                let highest = few(&column.high, &|value| value > high);
                // Few are known one by one, many by their buckets.
                let count = |few: &[f64], many: u64| {
                    let few = few.len() as u64;
                    if few < EXTREMES as u64 { few } else { many.max(few) }
                };
                let below = count(&lowest, column.quantiles.below(low));
                let above = count(&highest, column.quantiles.above(high));
                serde_json::json!({
                    "below": low,
                    "above": high,
                    "count": below.saturating_add(above),
                    "lowest": lowest,
                    "highest": highest,
                })
            });
            serde_json::json!({
                "column": place,
                "name": column.name,
                "count": column.count,
                "missing": column.missing,
                "not_numbers": column.bad,
                "mean": (column.count > 0).then_some(column.mean),
                "variance": variance,
                "standard_deviation": variance.map(f64::sqrt),
                "min": min,
                "max": max,
                "quantiles": {
                    "p01": quantile(10), "p05": quantile(50), "p25": quantile(250), "p50": quantile(500),
                    "p75": quantile(750), "p95": quantile(950), "p99": quantile(990),
                },
                "histogram": column.histogram,
                "outliers": outliers,
            })
        })
        .collect();
    serde_json::json!({ "rows": partial.rows, "columns": columns })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_blocks_are_held_than_there_is_memory_for() {
        assert_eq!(blocks_at_once(256 << 20, 4), 8);
        assert_eq!(blocks_at_once(256 << 20, 64), 32);
        assert_eq!(blocks_at_once(0, 64), 1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let blocks: Vec<usize> = (0..50).collect();
        let (read, mut merged) = (AtomicUsize::new(0), Vec::new());
        let one = |block: &usize, at_once: usize| {
            read.fetch_add(1, Ordering::SeqCst);
            // The twentieth has room alone only.
            let fits = *block != 20 || at_once == 1;
            fits.then_some(*block).ok_or_else(|| OpError::new(FailReason::MemoryLimit, "too much"))
        };
        let merge = |block| {
            merged.push(block);
            // Those that were read again are counted again.
            let again = if block < 16 { 0 } else { 14 };
            assert!(read.load(Ordering::SeqCst) - merged.len() < 8 + again, "at block {block}");
            Ok(())
        };
        merge_in_order(&pool, &blocks, 8, one, merge).unwrap();
        assert_eq!(merged, blocks);
    }
}
