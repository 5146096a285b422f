//! Telemetry: samples the node every few seconds; the shell of [`omnimesh_protocol::observer::telemetry`].
//!
//! ```text
//! observer, prober, sync, membership, swarm, process ── a sample of each metric ──► telemetry ──► alert: event, webhook
//!                                                                                      └► incident: audit log, store
//! ```
//!
//! Incidents outlive a restart, and so does what the webhook was told of and is still to be told. So moments are counted from
//! 1970 here, by the wall clock of the start and the monotonic one from there on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::observer::telemetry::{
    self, Alert, Config, Incident, Incidents, Input, Lately, Level, Metric, Outlook, Output, Reliability,
    Threshold, Usual,
};
use omnimesh_protocol::observer::{MonitorInput, NetworkMetrics, probe};
use omnimesh_protocol::{Outbox, Time, step};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::observer::{GetMetrics, Sizes};
use super::{Common, MAILBOX, lock, membership, prober, swarm, sync};
use crate::audit::AuditLog;
use crate::clock::{SharedClock, wall_ms, wall_ns};
use crate::process::{Figures, Reader};
use crate::store::Store;
use crate::webhook::{self, Post, Webhook};

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) every: Duration,
    pub(crate) step_interval: Duration,
    /// Peers that the router aims at.
    pub(crate) degree: usize,
    pub(crate) data_dir: Option<PathBuf>,
    /// Where alerts are posted: the address, this node, and its mesh.
    pub(crate) webhook: Option<(String, String, String)>,
}

/// What is there again after a restart.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    incidents: Incidents,
    posted: BTreeMap<Metric, Post>,
    waiting: Vec<Vec<Post>>,
}

#[derive(Debug)]
pub(crate) struct TelemetryActor {
    pub(super) common: Common,
    settings: Settings,
    clock: SharedClock,
    /// The wall clock when the node's own time began.
    origin: Duration,
    audit: Option<AuditLog>,
    store: Option<Arc<Store>>,
    webhook: Option<Webhook>,
    reader: Arc<Mutex<Reader>>,
    state: telemetry::State,
    out: Outbox<Output>,
    usual: Usual,
    lately: Lately,
    values: BTreeMap<Metric, f64>,
    /// The alerts that last, as the webhook was told of them.
    posted: BTreeMap<Metric, Post>,
    is_sampling: bool,
    /// Something is to be kept that is not on disk yet.
    is_dirty: bool,
    is_saving: bool,
    /// How often the queue of the webhook had changed when it was kept.
    queue_kept: u64,
    /// Who waits until what has changed is on disk.
    waiters: Vec<oneshot::Sender<()>>,
}

/// What was read of the node, and when.
#[derive(Clone, Copy, Debug)]
struct Sample {
    network: NetworkMetrics,
    probes: probe::Summary,
    step: Option<step::Stats>,
    sizes: MonitorInput,
    figures: Figures,
}

impl TelemetryActor {
    pub(crate) fn new(
        common: Common,
        settings: Settings,
        clock: SharedClock,
        (store, audit): (Option<Arc<Store>>, Option<AuditLog>),
        kept: Option<Kept>,
    ) -> Self {
        let origin = Duration::from_nanos(wall_ns().saturating_sub(common.now().as_nanos()));
        let now = common.now() + origin;
        let (incidents, posted, waiting) = match kept {
            Some(Kept { incidents, posted, waiting }) => (Some(incidents), posted, waiting),
            None => (None, BTreeMap::new(), Vec::new()),
        };
        let mut out = Outbox::new();
        let config = settings.config.clone();
        let state = match incidents {
            Some(incidents) => telemetry::State::resume(config, now, incidents, &mut out),
            None => telemetry::State::new(config, now),
        };
        let webhook = settings
            .webhook
            .clone()
            .map(|(url, instance, mesh)| Webhook::begin(&common, url, instance, mesh, waiting));
        let reader = Arc::new(Mutex::new(Reader::new(settings.data_dir.clone())));
        TelemetryActor {
            common,
            settings,
            clock,
            origin,
            audit,
            store,
            webhook,
            reader,
            state,
            out,
            usual: Usual::default(),
            lately: Lately::default(),
            values: BTreeMap::new(),
            posted,
            is_sampling: false,
            is_dirty: false,
            is_saving: false,
            queue_kept: 0,
            waiters: Vec::new(),
        }
    }

    fn now(&self) -> Time {
        self.common.now() + self.origin
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(self.settings.every, Self::sample);
        ctx.run_interval(webhook::REPEAT, |actor, _| actor.repeat());
        self.carry_out(self.now());
        self.repeat();
    }

    /// Asks all, and takes what they say.
    fn sample(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_sampling, true) {
            // This node is so slow that the last sample is not taken yet; that is said by others.
            return;
        }
        let (common, clock) = (self.common.clone(), self.clock.clone());
        let (reader, degree) = (Arc::clone(&self.reader), self.settings.degree);
        let sample = async move { ask(&common, &clock, reader, degree).await };
        ctx.spawn(sample.into_actor(self).map(|sample, actor, ctx| {
            actor.is_sampling = false;
            if let Some(sample) = sample {
                actor.on_sample(&sample, ctx);
            }
        }));
    }

    fn on_sample(&mut self, sample: &Sample, ctx: &mut Context<Self>) {
        let now = self.now();
        let values = self.values_of(now, sample);
        let common = self.common.clone();
        common.guard("telemetry", ctx, || {
            for (metric, value) in &values {
                self.state.handle(now, Input::Sample { metric: *metric, value: *value }, &mut self.out);
            }
        });
        self.values = values.into_iter().collect();
        self.carry_out(now);
        self.save(ctx);
    }

    fn values_of(&mut self, now: Time, sample: &Sample) -> [(Metric, f64); Metric::ALL.len()] {
        let Sample { network, probes, step, sizes, figures } = sample;
        let latency = network.latency_ms;
        let skew = step.map_or(f64::NAN, |step| step.skew_ms / 1e3);
        let wanted = sizes.degree.min(sizes.members_alive.saturating_sub(1));
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let degree = if wanted == 0 { 1.0 } else { count(sizes.peers.min(wanted)) / count(wanted) };
        [
            (Metric::LatencyP99, if latency.count == 0 { f64::NAN } else { latency.p99 }),
            (Metric::Throughput, self.usual.add(now, network.messages_per_second)),
            (Metric::ErrorRate, network.error_rate),
            (Metric::Cpu, figures.cpu),
            (Metric::Memory, figures.memory),
            (Metric::Disk, figures.disk),
            (Metric::Descriptors, figures.descriptors),
            (Metric::Network, figures.network),
            (Metric::StepSkew, skew / self.settings.step_interval.as_secs_f64()),
            (Metric::MeshDegree, degree),
            (Metric::Delivery, self.lately.add(now, probes.total.received, probes.total.lost)),
            (Metric::Health, network.health),
        ]
    }

    fn carry_out(&mut self, now: Time) {
        let outputs: Vec<_> = self.out.drain().collect();
        self.is_dirty |= !outputs.is_empty();
        for output in outputs {
            match output {
                Output::Alert(alert) => self.on_alert(now, &alert),
                Output::Incident(incident) => self.write_down("node", &incident, ""),
                Output::Acknowledged(incident) => {
                    let by = incident.acknowledged.as_ref().map_or("", |(_, by)| by);
                    self.write_down("api", &incident, &format!(" by {by}"));
                }
            }
        }
    }

    fn on_alert(&mut self, now: Time, alert: &Alert) {
        let (summary, metric) = (alert.sentence(), alert.metric);
        match alert.level {
            Level::Normal => tracing::info!(metric = metric.code(), "{summary}"),
            level => tracing::warn!(metric = metric.code(), level = level.code(), "{summary}"),
        }
        self.common.observe(vec![Event::Alert {
            metric: metric.code(),
            level: alert.level.code(),
            incident: alert.incident,
            detail: summary.clone(),
        }]);
        let before = self.posted.remove(&metric);
        let began_ms = before.as_ref().map_or_else(|| wall_of(now, alert.since), |post| post.began_ms);
        let over = |post: Post| Post {
            ended_ms: Some(wall_ms()),
            summary: if alert.level == Level::Normal { summary.clone() } else { post.summary },
            ..post
        };
        let mut posts: Vec<Post> = before.map(over).into_iter().collect();
        if alert.level != Level::Normal {
            let (severity, incident) = (alert.level, alert.incident);
            let post = Post { metric, severity, summary, incident, began_ms, ended_ms: None };
            posts.push(post.clone());
            self.posted.insert(metric, post);
        }
        if let Some(webhook) = &self.webhook {
            webhook.send(posts);
        }
    }

    /// Tells the webhook again of what lasts, so that it does not end there by itself.
    fn repeat(&self) {
        let Some(webhook) = &self.webhook else { return };
        let waiting = webhook.waiting();
        let is_told = |post: &Post| waiting.iter().flatten().any(|other| other == post);
        let posts: Vec<Post> = self.posted.values().filter(|post| !is_told(post)).cloned().collect();
        if !posts.is_empty() {
            webhook.send(posts);
        }
    }

    fn write_down(&self, actor: &str, incident: &Incident, by: &str) {
        let Some(audit) = &self.audit else { return };
        let detail = format!("incident {} is {}{by}: {}", incident.id, incident.stage(), sentence(incident));
        audit.record("incident", actor, self.clock.step(self.common.now()), detail);
    }

    /// Keeps what has changed; what cannot be written is tried again after the next sample.
    fn save(&mut self, ctx: &mut Context<Self>) {
        let Some(store) = self.store.clone() else { return self.waiters.clear() };
        let queue = self.webhook.as_ref().map_or(0, Webhook::changes);
        if self.is_saving || !(self.is_dirty || queue != self.queue_kept) {
            return;
        }
        (self.is_saving, self.is_dirty) = (true, false);
        let waiters = std::mem::take(&mut self.waiters);
        let kept = Kept {
            incidents: self.state.incidents().clone(),
            posted: self.posted.clone(),
            waiting: self.webhook.as_ref().map(Webhook::waiting).unwrap_or_default(),
        };
        let write = actix_rt::task::spawn_blocking(move || store.save_telemetry(&kept));
        ctx.spawn(write.into_actor(self).map(move |written, actor, ctx| {
            actor.is_saving = false;
            drop(waiters);
            match written {
                Ok(Ok(())) => {
                    actor.queue_kept = queue;
                    actor.save(ctx);
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "incidents are not on disk yet");
                    actor.is_dirty = true;
                }
                Err(_) => actor.is_dirty = true,
            }
        }));
    }
}

/// What an incident is, for people.
fn sentence(incident: &Incident) -> String {
    let Incident { metric, level, worst, value, .. } = incident;
    format!("{} is {} ({}), {} at worst", metric.name(), level.code(), metric.show(*value), worst.code())
}

/// A moment of this process in milliseconds of Unix time.
pub(crate) fn wall_of(now: Time, at: Time) -> u64 {
    let ago = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
    wall_ms().saturating_sub(ago)
}

/// Reads all that is sampled; `None` while the node stops.
async fn ask(
    common: &Common,
    clock: &SharedClock,
    reader: Arc<Mutex<Reader>>,
    degree: usize,
) -> Option<Sample> {
    let links = common.links();
    let (counts, _) = links.membership.upgrade()?.send(membership::GetCounts).await.ok()?;
    let peers = links.swarm.upgrade()?.send(swarm::GetSummary).await.ok()?.peers;
    let step = links.sync.upgrade()?.send(sync::GetStats).await.ok()?;
    let sizes = MonitorInput::new(&counts, peers, degree, clock.step(common.now()).is_some());
    let observer = links.observer.upgrade()?;
    observer.send(Sizes(sizes)).await.ok()?;
    let network = observer.send(GetMetrics).await.ok()?;
    let probes = links.prober.upgrade()?.send(prober::GetSummary).await.ok()?;
    let read = move || lock(&reader).read();
    let figures = actix_rt::task::spawn_blocking(read).await.ok()?;
    Some(Sample { network, probes, step, sizes, figures })
}

impl Actor for TelemetryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Supervised for TelemetryActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        self.out = Outbox::new();
        let (config, incidents) = (self.settings.config.clone(), self.state.incidents().clone());
        self.state = telemetry::State::resume(config, self.now(), incidents, &mut self.out);
        (self.is_sampling, self.is_saving) = (false, false);
        (self.usual, self.lately) = (Usual::default(), Lately::default());
        self.begin(ctx);
    }
}

/// All actors are linked: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin;

impl Handler<Begin> for TelemetryActor {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

/// A metric as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) metric: Metric,
    /// `None`: it is not known.
    pub(crate) value: Option<f64>,
    pub(crate) level: Level,
    /// None: it is not watched.
    pub(crate) threshold: Option<Threshold>,
    pub(crate) outlook: Outlook,
}

/// All that telemetry says.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) at: Time,
    pub(crate) worst: Level,
    pub(crate) readings: Vec<Reading>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) reliability: Reliability,
    pub(crate) webhook: webhook::Counts,
}

/// Asks for all that telemetry says.
#[derive(Message)]
#[rtype(result = "View")]
pub(crate) struct GetView;

impl Handler<GetView> for TelemetryActor {
    type Result = MessageResult<GetView>;

    fn handle(&mut self, _: GetView, _: &mut Self::Context) -> Self::Result {
        let at = self.now();
        let reading = |metric: &Metric| Reading {
            metric: *metric,
            value: self.values.get(metric).copied().filter(|value| value.is_finite()),
            level: self.state.level(*metric),
            threshold: self.settings.config.thresholds.get(metric).copied(),
            outlook: self.state.outlook(*metric),
        };
        MessageResult(View {
            at,
            worst: self.state.worst(),
            readings: Metric::ALL.iter().map(reading).collect(),
            incidents: self.state.incidents().iter().cloned().collect(),
            reliability: self.state.incidents().reliability(at),
            webhook: self.webhook.as_ref().map(Webhook::counts).unwrap_or_default(),
        })
    }
}

/// Somebody takes care of an incident; as it is then, once that is on disk. `None` if there is none of that number.
#[derive(Message)]
#[rtype(result = "Option<(Time, Incident)>")]
pub(crate) struct Acknowledge {
    pub(crate) incident: u64,
    pub(crate) by: String,
}

impl Handler<Acknowledge> for TelemetryActor {
    type Result = ResponseFuture<Option<(Time, Incident)>>;

    fn handle(&mut self, Acknowledge { incident, by }: Acknowledge, ctx: &mut Self::Context) -> Self::Result {
        let now = self.now();
        self.state.handle(now, Input::Acknowledge { incident, by }, &mut self.out);
        self.carry_out(now);
        let found = self.state.incidents().iter().find(|known| known.id == incident);
        let found = found.map(|incident| (now, incident.clone()));
        let (waiter, saved) = oneshot::channel();
        if self.is_dirty {
            self.waiters.push(waiter);
        }
        self.save(ctx);
        Box::pin(async move {
            // Nobody sends: the waiter is dropped.
            let _ = saved.await;
            found
        })
    }
}
