//! What commands print. Standard output is data, standard error is for people.

use std::io::{self, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::error::{CliError, Code};

/// The form of what goes to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned text for people.
    #[default]
    Table,
    /// One JSON document; streams print one document per line.
    Json,
    /// One JSON document per line and item.
    Ndjson,
}

impl Format {
    /// Whether a program reads along.
    pub(crate) fn is_json(self) -> bool {
        self != Format::Table
    }
}

/// Prints a list: as a table under these heads, or as JSON.
pub(crate) fn list<T: Serialize>(
    format: Format,
    items: &[T],
    heads: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), CliError> {
    match format {
        Format::Table => text(&table(heads, items.iter().map(row))),
        Format::Json => document(items),
        Format::Ndjson => items.iter().try_for_each(line),
    }
}

/// Prints one thing: as lines of name and value, or as JSON.
pub(crate) fn record<T: Serialize>(
    format: Format,
    item: &T,
    fields: impl FnOnce() -> Vec<(&'static str, String)>,
) -> Result<(), CliError> {
    match format {
        Format::Table => {
            let fields = fields();
            let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let lines: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name:width$}  {}", printable(value))).collect();
            text(&lines.join("\n"))
        }
        Format::Json => document(item),
        Format::Ndjson => line(item),
    }
}

/// Prints JSON over several lines.
pub(crate) fn document<T: Serialize + ?Sized>(item: &T) -> Result<(), CliError> {
    text(&serde_json::to_string_pretty(item).map_err(|error| encode_error(&error))?)
}

/// Prints JSON on one line.
pub(crate) fn line<T: Serialize + ?Sized>(item: &T) -> Result<(), CliError> {
    text(&serde_json::to_string(item).map_err(|error| encode_error(&error))?)
}

/// Prints text and a line's end, at once.
pub(crate) fn text(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Writes content of any kind to standard output as it is. On a terminal it ends with a line's end, for what comes after it.
pub(crate) fn content<T>(
    write: impl FnOnce(&mut Content<StdoutLock<'static>>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let mut out = Content { out: io::stdout().lock(), last: None };
    let done = write(&mut out);
    // Also after a part of it: what went wrong is told on a line of its own.
    let ended = out.end(io::stdout().is_terminal());
    let done = done?;
    ended?;
    Ok(done)
}

/// Where [`content`] is written.
pub(crate) struct Content<W> {
    out: W,
    /// The last byte, if there was any.
    last: Option<u8>,
}

impl<W: Write> Content<W> {
    fn end(&mut self, is_terminal: bool) -> io::Result<()> {
        if is_terminal && self.last.is_some_and(|last| last != b'\n') {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }
}

impl<W: Write> Write for Content<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.last = bytes.get(..written).and_then(<[u8]>::last).copied().or(self.last);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Tells people something; lost if nobody listens.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Says why a command failed.
pub(crate) fn error(format: Format, error: &CliError) {
    if error.code == Code::OutputClosed {
        return;
    }
    if format.is_json() {
        let body = serde_json::json!({ "error": error });
        let _ = writeln!(io::stderr(), "{body}");
        return;
    }
    if error.code == Code::Interrupted {
        // Who pressed Ctrl-C knows.
        return;
    }
    let mut err = anstream::stderr().lock();
    let _ = writeln!(err, "\x1b[1;31merror:\x1b[0m {}", lines_printable(&error.message));
    if let Some(hint) = &error.hint {
        let _ = writeln!(err, "\x1b[1;36mhint:\x1b[0m {}", lines_printable(hint));
    }
}

/// The same text with control characters made visible: what comes from others must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if is_harmful(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

fn lines_printable(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Control characters, and those that turn the direction of text.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A field of JSON for a cell of a table; `-` if there is none.
pub(crate) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A number of milliseconds for people; `-` if there is none.
pub(crate) fn millis(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|head| {
        let cell = Cell::new(head.to_uppercase());
        if colour { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for row in rows {
        table.add_row(row.iter().map(|text| printable(text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn encode_error(error: &serde_json::Error) -> CliError {
    CliError::new(Code::Failed, format!("cannot encode the answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{202e}ü"), "a\\u{1b}[2Jb\\n\\u{202e}ü");
    }

    #[test]
    fn content_ends_its_line_on_a_terminal_and_is_as_it_is_elsewhere() {
        let shown = |parts: &[&[u8]], is_terminal| {
            let mut content = Content { out: Vec::new(), last: None };
            parts.iter().for_each(|part| content.write_all(part).unwrap());
            content.end(is_terminal).unwrap();
            String::from_utf8(content.out).unwrap()
        };
        let parts: [&[u8]; 3] = [b"a\n", b"b", b""];
        assert_eq!((shown(&parts, true), shown(&parts, false)), ("a\nb\n".to_owned(), "a\nb".to_owned()));
        for ended in [&[b"b" as &[u8], b"a\n"][..], &[]] {
            assert_eq!(shown(ended, true), shown(ended, false), "nothing is added");
        }
    }

    #[test]
    fn tables_are_aligned_and_plain() {
        let rows = [vec!["x".to_owned(), "long value".to_owned()], vec!["yyy".to_owned(), "z".to_owned()]];
        assert_eq!(table(&["a", "b"], rows.into_iter()), "A    B\nx    long value\nyyy  z");
    }
}
