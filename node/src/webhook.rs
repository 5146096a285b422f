//! The webhook: alerts are posted as Prometheus's Alertmanager takes them.
//!
//! ```text
//! telemetry ── send ──► bounded queue ──► one post at a time ──► POST <url>     [ {labels, …}, … ]
//!                                                                   └ fails: again after 1 s, 2 s … 60 s
//! ```
//!
//! The body is a list of *postable alerts* of Alertmanager's API, version 2. What `labels` say is one alert: `alertname`,
//! `severity`, `metric`, `instance` (the peer id) and `mesh`. So a condition that gets worse ends the alert of the old severity and
//! begins one of the new, in one post. `endsAt` of an alert that lasts is in the future, as Alertmanager ends by itself
//! what it does not hear of any more; it is told again in time.
//!
//! A receiver that answers with an error of its own, or not at all, is tried again until it takes the post or the node stops.
//! One that says that the post is wrong (4xx, but 408 and 429) is not. What waits can be asked for ([`Webhook::waiting`]), so
//! that a later run of the node may go on with it; of a full queue the oldest goes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use omnimesh_protocol::observer::telemetry::{Level, Metric};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::actors::Common;
use crate::words::precise_moment;

/// Posts that wait, at most.
const QUEUE: usize = 256;
/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts: from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long an alert lasts at the receiver if it is not told of it again, and when it is.
const VALID_MS: u64 = 4 * 3_600_000;
pub(crate) const REPEAT: Duration = Duration::from_secs(2 * 3_600);

/// An alert as it is posted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Post {
    pub(crate) metric: Metric,
    /// Warning or critical.
    pub(crate) severity: Level,
    pub(crate) summary: String,
    pub(crate) incident: u64,
    /// In milliseconds of Unix time.
    pub(crate) began_ms: u64,
    /// The same; `None` while it lasts.
    pub(crate) ended_ms: Option<u64>,
}

/// What was posted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// What waits; the first may be under way.
    queue: Mutex<VecDeque<Vec<Post>>>,
    came: Notify,
    changes: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Vec<Post>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first that waits, once there is one.
    async fn first(&self) -> Vec<Post> {
        loop {
            // Asked for before the look, so that nothing comes between the two.
            let came = self.came.notified();
            if let Some(first) = self.queue().front() {
                return first.clone();
            }
            came.await;
        }
    }

    /// The first waits no more.
    fn done(&self) {
        self.queue().pop_front();
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// A receiver of alerts.
#[derive(Debug)]
pub(crate) struct Webhook {
    shared: Arc<Shared>,
    poster: tokio::task::AbortHandle,
}

impl Webhook {
    /// Begins to post to this address what waits from an earlier run and what is sent from now on, until it is dropped or the
    /// node stops. Must be called within a runtime.
    pub(crate) fn begin(
        common: &Common,
        url: String,
        instance: String,
        mesh: String,
        waiting: Vec<Vec<Post>>,
    ) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::new(waiting.into()), ..Shared::default() });
        let poster = Poster { url, instance, mesh, shared: Arc::clone(&shared) };
        let common = common.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = poster.run() => {}
                () = common.stopped() => {}
            }
        });
        Webhook { shared, poster: task.abort_handle() }
    }

    /// Posts these together, once those before are posted.
    pub(crate) fn send(&self, posts: Vec<Post>) {
        let mut queue = self.shared.queue();
        if queue.len() >= QUEUE {
            // The first may be under way.
            let gone = queue.remove(1).map_or(0, |posts| posts.len() as u64);
            self.shared.dropped.fetch_add(gone, Ordering::Relaxed);
        }
        queue.push_back(posts);
        drop(queue);
        self.shared.changes.fetch_add(1, Ordering::Release);
        self.shared.came.notify_one();
    }

    /// What is not posted yet, oldest first.
    pub(crate) fn waiting(&self) -> Vec<Vec<Post>> {
        self.shared.queue().iter().cloned().collect()
    }

    /// Goes up whenever [`Self::waiting`] changes.
    pub(crate) fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    pub(crate) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { sent, failed, dropped, .. } = &*self.shared;
        Counts { sent: of(sent), failed: of(failed), dropped: of(dropped) }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.poster.abort();
    }
}

struct Poster {
    url: String,
    instance: String,
    mesh: String,
    shared: Arc<Shared>,
}

impl Poster {
    async fn run(self) {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("omnimesh/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(TIMEOUT))
            .build();
        let agent = ureq::Agent::from(config);
        loop {
            let list = self.shared.first().await;
            let mut wait = BACKOFF.0;
            loop {
                // The time until which an alert lasts is that of the attempt.
                let body = body(&list, &self.instance, &self.mesh, crate::clock::wall_ms()).to_string();
                let (agent, url) = (agent.clone(), self.url.clone());
                let attempt = tokio::task::spawn_blocking(move || post(&agent, &url, &body)).await;
                match attempt.unwrap_or(Attempt::Again("the attempt failed".to_owned())) {
                    Attempt::Taken => {
                        self.shared.sent.fetch_add(list.len() as u64, Ordering::Relaxed);
                        break;
                    }
                    Attempt::Never(status) => {
                        tracing::error!(url = self.url, status, "the webhook refuses alerts as they are");
                        self.shared.dropped.fetch_add(list.len() as u64, Ordering::Relaxed);
                        break;
                    }
                    Attempt::Again(reason) => {
                        tracing::warn!(url = self.url, reason, again_in = ?wait, "the webhook took no alert");
                        self.shared.failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(BACKOFF.1);
                    }
                }
            }
            self.shared.done();
        }
    }
}

enum Attempt {
    Taken,
    Again(String),
    Never(u16),
}

fn post(agent: &ureq::Agent, url: &str, body: &str) -> Attempt {
    match agent.post(url).header("Content-Type", "application/json").send(body) {
        Ok(answer) => match answer.status().as_u16() {
            200..=299 => Attempt::Taken,
            status @ (408 | 429 | 500..=599) => Attempt::Again(format!("it answered {status}")),
            status => Attempt::Never(status),
        },
        Err(error) => Attempt::Again(error.to_string()),
    }
}

/// The list that Alertmanager takes.
fn body(posts: &[Post], instance: &str, mesh: &str, now_ms: u64) -> Value {
    let alert = |post: &Post| {
        let metric = post.metric.code();
        json!({
            "labels": {
                "alertname": format!("omnimesh_{metric}"),
                "severity": post.severity.code(),
                "metric": metric,
                "instance": instance,
                "mesh": mesh,
            },
            "annotations": { "summary": post.summary, "incident": post.incident.to_string() },
            "startsAt": precise_moment(post.began_ms),
            "endsAt": precise_moment(post.ended_ms.unwrap_or(now_ms.saturating_add(VALID_MS))),
        })
    };
    posts.iter().map(alert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_ends_later_and_what_is_over_ended() {
        let post = |ended_ms| Post {
            metric: Metric::Disk,
            severity: Level::Critical,
            summary: "disk in use is critical".to_owned(),
            incident: 7,
            began_ms: 0,
            ended_ms,
        };
        let body = body(&[post(None), post(Some(5_000))], "12D3", "demo", 1_000);
        assert_eq!(body[0]["labels"]["alertname"], "omnimesh_disk");
        assert_eq!(body[0]["labels"], body[1]["labels"], "the same alert");
        assert_eq!(body[0]["endsAt"], precise_moment(1_000 + VALID_MS));
        assert_eq!(body[1]["endsAt"], "1970-01-01T00:00:05.000Z");
        assert_eq!(body[1]["annotations"]["incident"], "7");
        assert_eq!(body[1]["startsAt"], "1970-01-01T00:00:00.000Z");
    }
}
