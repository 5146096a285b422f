//! Which columns of a table are meant, and whether they are there.
//!
//! A name means something only where the header is. A number may lie beyond the end of a row, as rows may be short: it
//! means nothing if no row is long enough, nor the header. A part of a table cannot tell that of the others, unless it has the header.

use std::fmt::Write;

use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::registry::Value;

use crate::compute::task::{OpError, Task};

/// Names in a message: with the rest it fits what the ledger keeps.
const NEAREST_MAX: usize = 3;
/// Characters of a name in a message.
const NAME_CHARS_MAX: usize = 24;

/// What a part of a table says of the names of columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// It begins with these.
    Here(Vec<String>),
    /// The part at the beginning has them.
    Elsewhere,
    /// Nobody has them: `header = false`.
    None,
    /// Each part has them: a Parquet file.
    Schema(Vec<String>),
}

impl Header {
    /// The names that are known here.
    pub(super) fn names(&self) -> &[String] {
        match self {
            Header::Here(names) | Header::Schema(names) => names,
            Header::Elsewhere | Header::None => &[],
        }
    }

    /// How many columns it says that there are.
    pub(super) fn width(&self) -> u32 {
        u32::try_from(self.names().len()).unwrap_or(u32::MAX)
    }
}

/// The columns that parameter `columns` means, in order; `None` if it is not given.
pub(super) fn wanted(task: &Task, header: &Header) -> Result<Option<Vec<u32>>, OpError> {
    let values = match task.param("columns") {
        None => return Ok(None),
        Some(Value::List(values)) => values,
        Some(_) => return Err(OpError::param("columns", "a list of numbers or names")),
    };
    let place = |value: &Value| match value {
        Value::Integer(place) => u32::try_from(*place).ok().map(Ok),
        Value::Text(name) => Some(named(name, header)),
        _ => None,
    };
    let not_one = || OpError::param("columns", "a list of column numbers from 0, or names in the header");
    let mut places =
        values.iter().map(|value| place(value).ok_or_else(not_one)?).collect::<Result<Vec<_>, _>>()?;
    places.sort_unstable();
    places.dedup();
    Ok(Some(places))
}

fn named(name: &str, header: &Header) -> Result<u32, OpError> {
    let names = match header {
        Header::Here(names) | Header::Schema(names) => names,
        Header::Elsewhere | Header::None => {
            let why = match header {
                Header::None => "the table has no header (header = false)",
                _ => "only the part at the beginning of the table has the header",
            };
            let detail =
                format!("column `{}` is a name, and {why}: number it, from 0, in params.columns", cut(name));
            return Err(OpError::new(FailReason::Unsupported, detail));
        }
    };
    let place = names.iter().position(|known| known == name);
    place.and_then(|place| u32::try_from(place).ok()).ok_or_else(|| {
        let mut nearest: Vec<(usize, &String)> =
            names.iter().map(|known| (distance(name, known), known)).collect();
        nearest.sort();
        nearest.dedup();
        let (what, remedy) = match header {
            Header::Schema(_) => ("schema", "params.columns"),
            _ => ("header", "params.columns or params.delimiter"),
        };
        // The remedy first: long names are cut off with the end.
        let mut detail = format!(
            "column `{}` is not among the {} of the {what} (correct {remedy})",
            cut(name),
            names.len()
        );
        for (place, (_, known)) in nearest.iter().take(NEAREST_MAX).enumerate() {
            let before = if place == 0 { "; nearest: " } else { ", " };
            let _ = write!(detail, "{before}`{}`", cut(known));
        }
        OpError::new(FailReason::BadInput, detail)
    })
}

fn distance(wanted: &str, known: &str) -> usize {
    strsim::damerau_levenshtein(&cut(wanted).to_lowercase(), &cut(known).to_lowercase())
}

/// A name for a message: its beginning, if it is long.
pub(super) fn cut(name: &str) -> String {
    let mut chars = name.chars();
    let begin: String = chars.by_ref().take(NAME_CHARS_MAX).collect();
    if chars.next().is_some() { begin + "…" } else { begin }
}

/// Says so if one of these columns is beyond the end of all rows that there are.
pub(super) fn all_there(places: impl IntoIterator<Item = u32>, width: u32, rows: u64) -> Result<(), OpError> {
    let Some(place) = places.into_iter().find(|place| rows > 0 && *place >= width) else { return Ok(()) };
    let last = width.saturating_sub(1);
    let detail = format!(
        "there is no column {place} in {rows} rows: there are {width}, numbered 0 to {last} (correct params.columns or \
         params.delimiter of operation analyze)"
    );
    Err(OpError::new(FailReason::BadInput, detail))
}
