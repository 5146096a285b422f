//! What the API asks of the node.

mod blob;
mod durable;
mod job;
mod observed;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use omnimesh_protocol::author::SubmitError;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::event::Stream as EventStream;
use omnimesh_protocol::membership::Member;
use omnimesh_protocol::mesh::Invite;
use omnimesh_protocol::observer::{MonitorInput, NetworkMetrics};
use omnimesh_protocol::{MessageId, NodeId, Phase, Step, Time};

use crate::actors::author::{self, Broadcast, BroadcastError};
use crate::actors::log::LogError;
use crate::actors::observer::{GetMetrics, Observed, Sizes, Watch};
use crate::actors::{gossip, membership, swarm, sync};
use crate::api::backend::{Answer, Backend, BackendError, NotReady, PublishError};
use crate::api::types;
use crate::audit::AuditLog;
use crate::feed::{Feed, FeedItem, FeedLimits};
use crate::message::Message;
use crate::metrics::Snapshot;
use crate::node::{Inner, MeshNode, Stopped, bootstrap_addresses, invite};

/// The node behind its API. Does not keep the node alive.
#[derive(Debug)]
pub(crate) struct NodeBackend(Weak<Inner>);

fn stopped<E>(_: E) -> BackendError {
    BackendError::Stopping
}

impl From<Stopped> for BackendError {
    fn from(_: Stopped) -> Self {
        BackendError::Stopping
    }
}

impl NodeBackend {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        NodeBackend(Arc::downgrade(inner))
    }

    fn inner(&self) -> Result<Arc<Inner>, BackendError> {
        self.0.upgrade().ok_or(BackendError::Stopping)
    }

    /// Rates, latencies and health, with the surroundings as they are now.
    pub(crate) async fn network_metrics(&self) -> Result<NetworkMetrics, BackendError> {
        let inner = self.inner()?;
        let links = inner.links()?;
        let (counts, _) = links.membership.send(membership::GetCounts).await.map_err(stopped)?;
        let summary = links.swarm.send(swarm::GetSummary).await.map_err(stopped)?;
        let (degree, step) = (inner.config.gossip.mesh_n, inner.clock.step(inner.common.now()));
        let sizes = MonitorInput::new(&counts, summary.peers, degree, step.is_some());
        links.observer.send(Sizes(sizes)).await.map_err(stopped)?;
        links.observer.send(GetMetrics).await.map_err(stopped)
    }

    async fn snapshot(&self) -> Result<Snapshot, BackendError> {
        let network = self.network_metrics().await?;
        let inner = self.inner()?;
        let links = inner.links()?;
        let (members, local_health) = links.membership.send(membership::GetCounts).await.map_err(stopped)?;
        let (author_cache, _) = links.author.send(author::GetStats).await.map_err(stopped)?;
        Ok(Snapshot {
            relay: links.gossip.send(gossip::GetSnapshot).await.map_err(stopped)?,
            swarm: links.swarm.send(swarm::GetSummary).await.map_err(stopped)?,
            step: links.sync.send(sync::GetStats).await.map_err(stopped)?,
            members,
            local_health,
            network,
            probes: links.prober.send(crate::actors::prober::GetSummary).await.map_err(stopped)?,
            telemetry: self.telemetry().await?,
            quarantined: self.read_quarantines().await?.len(),
            findings: self.findings_by_kind().await?,
            audit: inner.audit.as_ref().map(AuditLog::counts),
            mailboxes_shed: inner.common.shed().map(|(mailbox, shed)| (mailbox.name(), shed)).collect(),
            actor_restarts: inner.common.restarts(),
            author_cache,
            log: self.log_view().await?.map(|view| (view.stats, view.disk_bytes)),
            uptime_s: inner.common.now().since(Time::ZERO).as_secs_f64(),
            memory: inner.common.memory().usage(),
        })
    }

    /// The log as it stands, if the node keeps one.
    async fn log_view(&self) -> Result<Option<crate::durable::LogView>, BackendError> {
        match MeshNode(self.inner()?).log().await {
            Ok(view) => Ok(Some(view)),
            Err(LogError::NoLog) => Ok(None),
            Err(error) => Err(stopped(error)),
        }
    }

    async fn read_status(&self) -> Result<types::Status, BackendError> {
        let inner = self.inner()?;
        let links = inner.links()?;
        let (counts, _) = links.membership.send(membership::GetCounts).await.map_err(stopped)?;
        let summary = links.swarm.send(swarm::GetSummary).await.map_err(stopped)?;
        let step = inner.clock.step(inner.common.now());
        let readiness = self.readiness();
        let (verified_delivery, probes) = self.read_probes().await?;
        Ok(types::Status {
            peer_id: inner.me,
            mesh_id: inner.mesh.id(),
            mesh_name: inner.mesh.name().to_owned(),
            step: step.unwrap_or_default(),
            phase: phase(&inner, step.unwrap_or_default()),
            step_interval_ms: inner.config.node.step_interval_ms,
            peers: summary.peers,
            members: counts.alive + counts.suspect,
            uptime_s: inner.common.now().since(Time::ZERO).as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: bootstrap_addresses(&inner),
            api: String::new(),
            ready: readiness.is_ok(),
            not_ready_reason: readiness.err().map(|not_ready| not_ready.reason),
            log_trouble: self.log_view().await?.and_then(|view| view.trouble),
            verified_delivery,
            probes,
            memory: inner.common.memory().usage().iter().map(types::MemoryPart::from).collect(),
        })
    }

    async fn read_members(&self) -> Result<Vec<types::Member>, BackendError> {
        let inner = self.inner()?;
        let (now, members) = inner.links()?.membership.send(membership::GetMembers).await.map_err(stopped)?;
        let view = |member: Member| types::Member {
            peer_id: member.id,
            state: member.state,
            step: member.step,
            addresses: member.addresses,
            last_seen_ms: if member.id == inner.me { 0 } else { millis(now.since(member.last_seen)) },
            rtt_ms: member.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            this_node: member.id == inner.me,
        };
        Ok(members.into_iter().map(view).collect())
    }

    async fn read_peers(&self) -> Result<Vec<types::Peer>, BackendError> {
        let inner = self.inner()?;
        let links = inner.links()?;
        let (now, peers) = links.swarm.send(swarm::GetPeers).await.map_err(stopped)?;
        let scores = links.gossip.send(gossip::GetScores).await.map_err(stopped)?;
        let view = |(id, info): (libp2p::PeerId, swarm::PeerInfo)| types::Peer {
            peer_id: id.to_string(),
            addresses: vec![info.address.to_string()],
            direction: if info.outbound { types::Direction::Outbound } else { types::Direction::Inbound },
            protocol: info.gossip.map(|protocol| protocol.to_string()),
            agent: info.agent,
            member: info.is_member,
            score: scores.iter().find(|score| score.peer == id).map_or(0.0, |score| score.score),
            rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            connected_s: now.since(info.since).as_secs(),
        };
        Ok(peers.into_iter().map(view).collect())
    }

    async fn read_step(&self) -> Result<types::StepView, BackendError> {
        let inner = self.inner()?;
        let stats = inner.links()?.sync.send(sync::GetStats).await.map_err(stopped)?;
        let step = stats.and_then(|stats| stats.step).unwrap_or_default();
        Ok(types::StepView {
            step,
            phase: phase(&inner, step),
            mesh_time_ms: stats.and_then(|stats| stats.mesh_time_ns).unwrap_or(0) / 1_000_000,
            offset_ms: stats.and_then(|stats| stats.offset_ms).unwrap_or(0.0),
            skew_ms: stats.map_or(0.0, |stats| stats.skew_ms),
            samples: stats.map_or(0, |stats| stats.samples),
        })
    }

    async fn do_publish(&self, channel: Channel, payload: Bytes) -> Result<types::Published, PublishError> {
        let inner = self.inner()?;
        let sent =
            inner.links().map_err(BackendError::from)?.author.send(Broadcast { channel, payload }).await;
        let published = sent.map_err(stopped)?.map_err(|error| publish_error(error, self))?;
        Ok(types::Published {
            id: published.id,
            seq: published.seq,
            step: published.step,
            recipients: published.recipients,
        })
    }

    async fn do_subscribe(&self, channel: Channel) -> Result<Feed<types::Message>, BackendError> {
        let inner = self.inner()?;
        let messages = inner.links()?.gossip.send(gossip::Subscribe(channel)).await.map_err(stopped)?;
        Ok(translate(&inner, messages, |message| [(message.payload.len(), message_view(message))]))
    }

    async fn do_events(&self) -> Result<Feed<types::Event>, BackendError> {
        let inner = self.inner()?;
        let events = inner.links()?.observer.send(Watch).await.map_err(stopped)?;
        Ok(translate(&inner, events, |observed| [(256, event_view(&observed))]))
    }

    /// All metrics as of now, as text.
    pub(crate) async fn read_metrics(&self) -> Result<String, BackendError> {
        let snapshot = self.snapshot().await?;
        let inner = self.inner()?;
        inner.latest.set(snapshot);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &inner.registry)
            .map_err(|error| BackendError::Internal(format!("the metrics cannot be written: {error}")))?;
        Ok(text)
    }
}

impl Backend for NodeBackend {
    fn readiness(&self) -> Result<(), NotReady> {
        let Ok(inner) = self.inner() else {
            return Err(NotReady { reason: "the node is stopping".to_owned() });
        };
        if inner.clock.step(inner.common.now()).is_some() {
            return Ok(());
        }
        let reason = inner.common.bootstrap_trouble();
        Err(NotReady {
            reason: reason.unwrap_or_else(|| "the node has not yet heard the mesh's step".to_owned()),
        })
    }

    fn status(&self) -> Answer<'_, types::Status> {
        self.read_status().boxed()
    }

    fn members(&self) -> Answer<'_, Vec<types::Member>> {
        self.read_members().boxed()
    }

    fn peers(&self) -> Answer<'_, Vec<types::Peer>> {
        self.read_peers().boxed()
    }

    fn step(&self) -> Answer<'_, types::StepView> {
        self.read_step().boxed()
    }

    fn quarantines(&self) -> Answer<'_, Vec<types::Quarantine>> {
        self.read_quarantines().boxed()
    }

    fn lift(&self, peer: NodeId) -> Answer<'_, Option<types::Quarantine>> {
        self.do_lift(peer).boxed()
    }

    fn why_peer(&self, peer: String) -> Answer<'_, Option<types::WhyPeer>> {
        self.read_why_peer(peer).boxed()
    }

    fn why_step(&self, step: Option<Step>) -> Answer<'_, types::WhyStep> {
        self.read_why_step(step).boxed()
    }

    fn alerts(&self) -> Answer<'_, Vec<types::AlertView>> {
        self.read_alerts().boxed()
    }

    fn acknowledge(&self, incident: u64, by: String) -> Answer<'_, Option<types::AlertView>> {
        self.do_acknowledge(incident, by).boxed()
    }

    fn monitor(&self) -> Answer<'_, types::Monitor> {
        self.read_monitor().boxed()
    }

    fn anomalies(&self) -> Answer<'_, Vec<types::Anomaly>> {
        self.read_anomalies().boxed()
    }

    fn publish(&self, channel: Channel, payload: Bytes) -> Answer<'_, types::Published, PublishError> {
        self.do_publish(channel, payload).boxed()
    }

    fn subscribe(&self, channel: Channel) -> Answer<'_, Feed<types::Message>> {
        self.do_subscribe(channel).boxed()
    }

    fn events(&self) -> Answer<'_, Feed<types::Event>> {
        self.do_events().boxed()
    }

    fn why_message(&self, id: MessageId) -> Answer<'_, Option<types::WhyMessage>> {
        self.read_story(id).boxed()
    }

    fn metrics_text(&self) -> Answer<'_, String> {
        self.read_metrics().boxed()
    }

    fn invite(&self) -> Answer<'_, Invite> {
        async { Ok(invite(&*self.inner()?)) }.boxed()
    }
}

/// A feed of the same items in another form, each with about how many bytes it takes while it waits: one may become many.
/// The task between the two ends with either.
fn translate<T: Send + 'static, U: Send + 'static, V: IntoIterator<Item = (usize, U), IntoIter: Send>>(
    inner: &Inner,
    mut from: Feed<T>,
    view: impl Fn(T) -> V + Send + 'static,
) -> Feed<U> {
    let (sender, receiver) = inner.common.feed(FeedLimits::default());
    tokio::spawn(async move {
        loop {
            let item = tokio::select! {
                item = from.next() => item,
                () = sender.closed() => return,
            };
            let taken = match item {
                None => return,
                Some(FeedItem::Lagged(lost)) => sender.lose(lost),
                Some(FeedItem::Next(item)) => {
                    view(item).into_iter().try_for_each(|(bytes, item)| sender.offer(item, bytes).map(|_| ()))
                }
            };
            if taken.is_err() {
                return;
            }
        }
    });
    receiver
}

fn publish_error(error: BroadcastError, backend: &NodeBackend) -> PublishError {
    match error {
        BroadcastError::Submit(SubmitError::TooLarge { bytes, bytes_max }) => {
            PublishError::TooLarge { bytes, bytes_max, setting: "gossip.message_bytes_max".to_owned() }
        }
        BroadcastError::Submit(SubmitError::NotSynchronised) => match backend.readiness() {
            Err(not_ready) => PublishError::NotReady(not_ready),
            Ok(()) => PublishError::NotReady(NotReady { reason: SubmitError::NotSynchronised.to_string() }),
        },
        BroadcastError::Submit(error @ (SubmitError::Busy | SubmitError::NoSeq)) => {
            PublishError::Backend(BackendError::Overloaded { what: format!("the author's queue ({error})") })
        }
        BroadcastError::Router(reason) => PublishError::Refused(reason),
        BroadcastError::Stopped => PublishError::Backend(BackendError::Stopping),
    }
}

fn phase(inner: &Inner, step: Step) -> Phase {
    Phase(step.0 / inner.config.node.phase_interval.max(1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn message_view(message: Message) -> types::Message {
    types::Message {
        id: message.id,
        channel: message.channel.to_string(),
        author: message.author,
        seq: message.seq,
        step: message.step,
        payload: message.payload.into(),
        latency_ms: message.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
        from: message.from.map(|from| from.to_string()),
    }
}

fn event_view(observed: &Observed) -> types::Event {
    let Observed { event, step, at_ms } = observed;
    let alert = event.alert();
    types::Event {
        event_type: match event.stream() {
            EventStream::Message => types::EventType::Message,
            EventStream::Error => types::EventType::Error,
            EventStream::Performance => types::EventType::Performance,
            EventStream::Security => types::EventType::Security,
        },
        kind: event.kind().to_owned(),
        detail: event.to_string(),
        peer: event.peer(),
        message: event.message(),
        channel: event.channel().map(ToString::to_string),
        metric: alert.map(|(metric, _, _)| metric.to_owned()),
        level: alert.map(|(_, level, _)| level.to_owned()),
        incident: alert.map(|(_, _, incident)| incident),
        step: step.unwrap_or_default(),
        at_ms: *at_ms,
    }
}
