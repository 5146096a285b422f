//! Answers that do not end: server-sent events (WHATWG HTML, 9.2).
//!
//! ```text
//!   : subscribed                      the subscription stands; what is published from now on arrives
//!   event: message                    one event; its data is one line of JSON
//!   data: {"id":…}
//!   event: lagged                     the reader was too slow
//!   data: {"lost":17}
//!   : keep-alive                      nothing happened for a while
//! ```
//!
//! A stream holds one of `api.streams_max` slots, and what waits for its reader is bounded by the feed. It ends when
//! the reader goes, when the feed ends, and at once when the API stops.

use std::time::Duration;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::Shared;
use super::metrics::ApiMetrics;
use super::types::{Event, JobEventView, Lagged, LogEvent, Message, RegistryEvent};
use crate::feed::FeedItem;

/// The media type of a stream of events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// How many bytes of events that are there already go out together: about what one write to a socket takes.
const CHUNK_BYTES: usize = 64 << 10;

/// The name of an event in the stream.
pub(super) trait EventName: Serialize + 'static {
    fn event_name(&self) -> &str;
}

impl EventName for Message {
    fn event_name(&self) -> &str {
        "message"
    }
}

impl EventName for Event {
    fn event_name(&self) -> &str {
        self.event_type.as_str()
    }
}

impl EventName for LogEvent {
    fn event_name(&self) -> &str {
        self.change.as_str()
    }
}

impl EventName for RegistryEvent {
    fn event_name(&self) -> &str {
        self.change.as_str()
    }
}

impl EventName for JobEventView {
    fn event_name(&self) -> &str {
        &self.kind
    }
}

/// A place among the open streams.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    metrics: ApiMetrics,
}

impl Slot {
    /// Takes a place, if there is one.
    pub(super) fn take(shared: &Shared) -> Option<Self> {
        let permit = shared.streams.clone().try_acquire_owned().ok()?;
        shared.metrics.streams().inc();
        Some(Slot { _permit: permit, metrics: shared.metrics.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.streams().dec();
    }
}

/// The answer that streams a feed.
pub(super) fn respond<T: EventName>(
    shared: &web::Data<Shared>,
    slot: Slot,
    feed: impl Stream<Item = FeedItem<T>> + Unpin + 'static,
) -> HttpResponse {
    let keep_alive = keep_alive(shared.timeouts.stream_keep_alive);
    let source = Source { slot, feed, keep_alive, stopping: shared.stopping.clone() };
    let greeting = stream::iter([Bytes::from_static(b": subscribed\n\n")]);
    let events = stream::unfold(source, async |mut source| Some((source.next_chunk().await?, source)));
    let body = greeting.chain(events).map(Ok::<_, std::convert::Infallible>);
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, EVENT_STREAM)).streaming(body)
}

/// What `HEAD` gets: the same head, no subscription.
pub(super) fn respond_head() -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header(ContentType::plaintext());
    response.insert_header((header::CONTENT_TYPE, EVENT_STREAM)).finish()
}

struct Source<F> {
    /// Given back first: who sees that a feed is over may open the next stream.
    slot: Slot,
    feed: F,
    keep_alive: Interval,
    stopping: watch::Receiver<bool>,
}

impl<T: EventName, F: Stream<Item = FeedItem<T>> + Unpin> Source<F> {
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let first = tokio::select! {
            biased;
            _ = self.stopping.wait_for(|is_stopping| *is_stopping) => return None,
            item = self.feed.next() => item?,
            _ = self.keep_alive.tick() => return Some(Bytes::from_static(b": keep-alive\n\n")),
        };
        self.keep_alive.reset();
        let mut chunk = String::new();
        self.write(&mut chunk, &first);
        while chunk.len() < CHUNK_BYTES
            && let Some(Some(item)) = self.feed.next().now_or_never()
        {
            self.write(&mut chunk, &item);
        }
        Some(chunk.into())
    }

    fn write(&self, chunk: &mut String, item: &FeedItem<T>) {
        match item {
            FeedItem::Next(item) => write_event(chunk, item.event_name(), item),
            FeedItem::Lagged(lost) => {
                self.slot.metrics.count_lagged(*lost);
                write_event(chunk, "lagged", &Lagged { lost: *lost });
            }
        }
    }
}

/// Writes one event. JSON without indentation has no line break, which would end the data.
fn write_event(chunk: &mut String, name: &str, data: &impl Serialize) {
    let json = serde_json::to_string(data).expect("the documents have string keys and no failing parts");
    for part in ["event: ", name, "\ndata: ", &json, "\n\n"] {
        chunk.push_str(part);
    }
}

fn keep_alive(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data() {
        let mut chunk = String::new();
        write_event(&mut chunk, "message", &serde_json::json!({"data": "a\nb\r\u{2028}c"}));
        assert_eq!(chunk, "event: message\ndata: {\"data\":\"a\\nb\\r\u{2028}c\"}\n\n");
    }
}
