//! The tables, as CSV with a line of names. Times are in the unit their name ends in; a field without a value is
//! empty.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::outcome::Outcome;
use crate::stats::percentile;
use crate::summary::{ldh, us_to_ms};

/// Lines of `deliveries.csv`, without the names. A run can have more deliveries than a disk has room; those of
/// later messages are left out then, and the report says so.
pub const DELIVERIES_ROWS_MAX: usize = 1_000_000;

type Write = fn(&Path, &Outcome) -> io::Result<()>;

/// Each file with what writes it.
pub(super) const ALL: [(&str, Write); 3] =
    [("messages.csv", messages), ("deliveries.csv", deliveries), ("samples.csv", samples)];

const MESSAGE_NAMES: &[&str] = &[
    "number",
    "author",
    "published_ms",
    "bytes",
    "audience",
    "delivered",
    "missed",
    "unexpected",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_max_ms",
    "copies",
    "ldh",
];

#[derive(Serialize)]
struct MessageRow {
    number: usize,
    author: u32,
    published_ms: f64,
    bytes: u32,
    /// Nodes that should get it, did, and did not.
    audience: u32,
    delivered: u32,
    missed: u32,
    /// Nodes that got it without being expected to.
    unexpected: usize,
    latency_p50_ms: Option<f64>,
    latency_p95_ms: Option<f64>,
    latency_max_ms: Option<f64>,
    copies: Option<u32>,
    ldh: Option<u16>,
}

fn messages(path: &Path, outcome: &Outcome) -> io::Result<()> {
    let rows = outcome.messages.iter().enumerate().map(|(number, message)| {
        let deliveries = outcome.deliveries.get(number).map(Vec::as_slice).unwrap_or_default();
        let expected = deliveries.iter().filter(|delivery| delivery.is_expected);
        let mut latencies: Vec<u32> = expected.map(|delivery| delivery.latency_us).collect();
        latencies.sort_unstable();
        let at = |per_mille| percentile(&latencies, per_mille).map(us_to_ms);
        MessageRow {
            number,
            author: message.author,
            published_ms: micros(message.at) / 1e3,
            bytes: message.bytes,
            audience: message.audience,
            delivered: message.audience.saturating_sub(message.missed),
            missed: message.missed,
            unexpected: deliveries.len() - latencies.len(),
            latency_p50_ms: at(500),
            latency_p95_ms: at(950),
            latency_max_ms: at(1000),
            copies: outcome.copies.get(number).copied(),
            ldh: ldh(deliveries),
        }
    });
    write(path, MESSAGE_NAMES, rows)
}

const DELIVERY_NAMES: &[&str] = &["message", "node", "from", "latency_ms", "hops", "is_expected"];

#[derive(Serialize)]
struct DeliveryRow {
    message: usize,
    node: u32,
    from: u32,
    latency_ms: f64,
    hops: u16,
    is_expected: bool,
}

fn deliveries(path: &Path, outcome: &Outcome) -> io::Result<()> {
    write(path, DELIVERY_NAMES, delivery_rows(outcome).take(DELIVERIES_ROWS_MAX))
}

fn delivery_rows(outcome: &Outcome) -> impl Iterator<Item = DeliveryRow> {
    outcome.deliveries.iter().enumerate().flat_map(|(message, deliveries)| {
        deliveries.iter().map(move |delivery| DeliveryRow {
            message,
            node: delivery.node,
            from: delivery.from,
            latency_ms: us_to_ms(delivery.latency_us),
            hops: delivery.hops,
            is_expected: delivery.is_expected,
        })
    })
}

const SAMPLE_NAMES: &[&str] = &[
    "at_ms",
    "up",
    "synchronised",
    "skew_ms",
    "island_skew_ms",
    "links",
    "deliveries",
    "copies",
    "duplicates",
    "membership",
    "quarantined",
];

#[derive(Serialize)]
struct SampleRow {
    at_ms: f64,
    up: u32,
    synchronised: u32,
    skew_ms: f64,
    island_skew_ms: f64,
    links: u64,
    deliveries: u64,
    copies: u64,
    duplicates: u64,
    membership: f64,
    quarantined: u32,
}

fn samples(path: &Path, outcome: &Outcome) -> io::Result<()> {
    let rows = outcome.samples.iter().map(|sample| SampleRow {
        at_ms: micros(sample.at) / 1e3,
        up: sample.up,
        synchronised: sample.synchronised,
        skew_ms: sample.skew_ms,
        island_skew_ms: sample.island_skew_ms,
        links: sample.links,
        deliveries: sample.deliveries,
        copies: sample.copies,
        duplicates: sample.duplicates,
        membership: sample.membership,
        quarantined: sample.quarantined,
    });
    write(path, SAMPLE_NAMES, rows)
}

/// Whole microseconds.
fn micros(time: std::time::Duration) -> f64 {
    time.as_micros() as f64
}

/// The names are written by themselves, since a table without rows needs them too. A row of another length is an
/// error.
fn write<T: Serialize>(path: &Path, names: &[&str], rows: impl Iterator<Item = T>) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_path(path)?;
    writer.write_record(names)?;
    for row in rows {
        writer.serialize(row)?;
    }
    writer.flush()
}
