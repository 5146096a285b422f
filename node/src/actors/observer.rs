//! The observer: the shell of [`omnimesh_protocol::observer`]; hands events to those who watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use libp2p::PeerId;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::observer::why::{WhyPeer, WhyStep};
use omnimesh_protocol::observer::{
    self, AnomalyKind, Config, Finding, MonitorInput, NetworkMetrics, Released, Sentence, Start, Story,
};
use omnimesh_protocol::{MessageId, NodeId, Outbox, Step, Time};
use rand_chacha::ChaCha20Rng;

use super::author::Utter;
use super::gossip::{AppScore, Hearing, Trial};
use super::swarm::{Disconnect, LetIn, ShutOut};
use super::{Common, MAILBOX, Mailbox};
use crate::audit::AuditLog;
use crate::clock::{SharedClock, wall_ms};
use crate::feed::{Feed, FeedLimits, FeedSender};
use crate::store::Store;

/// Messages that wait for the observer: it comes last, and loses rather than holds up.
const OBSERVER_MAILBOX: usize = 4 * MAILBOX;
/// Changes that wait while the disk takes none: some of each thing that the observer may have in quarantine. A guess.
const CHANGES_MAX: usize = 16_384;
/// How long after a write that failed it is tried again. A guess.
const SAVE_RETRY: Duration = Duration::from_secs(5);
/// Bytes that an event counts for in a feed.
const EVENT_BYTES: usize = 256;

/// An event with its place in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What happened.
    pub event: Event<PeerId>,
    /// The node's step then; `None` before it was synchronised.
    pub step: Option<Step>,
    /// When, in milliseconds of Unix time by this node's clock.
    pub at_ms: u64,
}

#[derive(Debug)]
pub(crate) struct ObserverActor {
    pub(super) common: Common,
    config: Config,
    start: Start<PeerId>,
    clock: SharedClock,
    state: observer::State<PeerId>,
    out: Outbox<observer::Output<PeerId>>,
    rng: ChaCha20Rng,
    watchers: Vec<FeedSender<Observed>>,
    store: Option<Arc<Store>>,
    audit: Option<AuditLog>,
    /// What is not on disk yet; without a value: is to be forgotten. At most [`CHANGES_MAX`].
    changes: BTreeMap<Bytes, Option<Bytes>>,
    is_saving: bool,
    /// What comes out now is of an earlier run, and was written down then.
    is_restoring: bool,
}

impl ObserverActor {
    pub(crate) fn new(
        common: Common,
        config: Config,
        start: Start<PeerId>,
        clock: SharedClock,
        (store, audit): (Option<Arc<Store>>, Option<AuditLog>),
    ) -> Self {
        let mut out = Outbox::new();
        let state = observer::State::new(config.clone(), start.clone(), common.now(), &mut out);
        ObserverActor {
            common,
            config,
            start,
            clock,
            state,
            out,
            rng: super::rng(),
            watchers: Vec::new(),
            store,
            audit,
            changes: BTreeMap::new(),
            is_saving: false,
            is_restoring: true,
        }
    }

    fn give(&mut self, ctx: &mut Context<Self>, inputs: impl IntoIterator<Item = Input>) {
        let common = self.common.clone();
        common.guard("observer", ctx, || {
            let now = self.common.now();
            for input in inputs {
                self.state.handle(now, input, &mut self.rng, &mut self.out);
            }
        });
        self.carry_out(ctx);
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let outputs: Vec<_> = self.out.drain().collect();
        for output in outputs {
            match output {
                observer::Output::Timer { at, timer } => {
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.give(ctx, [observer::Input::Timer(timer)]);
                    });
                }
                observer::Output::Found(finding) => {
                    tell(&finding);
                    let Finding { kind, accused, reason: detail, .. } = finding;
                    self.show(&[Event::Found { kind: kind.code(), accused, detail }]);
                }
                observer::Output::Quarantine { node, sentence } => self.on_quarantine(node, &sentence),
                observer::Output::Release { node, reason } => self.on_release(node, reason),
                observer::Output::Refuse { peer, reason } => {
                    let (detail, reason) = (reason.to_string(), reason.code());
                    self.common.observe(vec![Event::PeerRefused { peer, reason, detail }]);
                    self.disconnect(peer);
                }
                observer::Output::AppScore { peer, score } => {
                    let links = self.common.links();
                    self.common.send(Mailbox::Gossip, &links.gossip, AppScore { peer, score });
                }
                observer::Output::Trial { peer, duration } => {
                    let (links, until) = (self.common.links(), self.common.now() + duration);
                    self.common.send(Mailbox::Gossip, &links.gossip, Trial { peer, until });
                }
                observer::Output::Publish(payload) => {
                    let channel = Channel::new(observer::accusation::CHANNEL).expect("a good name");
                    let links = self.common.links();
                    self.common.send(Mailbox::Author, &links.author, Utter { channel, payload });
                }
                observer::Output::Put { key, value } => self.change(key, Some(value)),
                observer::Output::Delete { key } => self.change(key, None),
            }
        }
        self.is_restoring = false;
        self.save(ctx);
    }

    fn on_quarantine(&mut self, node: NodeId, sentence: &Sentence) {
        let Sentence { kind, evidence, until, .. } = sentence;
        let cause = kind.map_or("an operator said so", AnomalyKind::code);
        let proof = evidence.map_or_else(String::new, |id| format!(", proved by evidence {id}"));
        let end = until.map_or_else(|| "somebody lifts it".to_owned(), |step| format!("step {step}"));
        let detail = format!("{cause}{proof}, until {end}");
        tracing::warn!(%node, "in quarantine: {detail}");
        self.set_hearing(Hearing::Quarantine(node));
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, ShutOut(node));
        let again = if self.is_restoring { "still, after a start: " } else { "" };
        self.record("quarantine", "node", format!("{node}: {again}{detail}"));
        self.show(&[Event::Quarantine { node, what: "quarantined", detail }]);
    }

    fn on_release(&mut self, node: NodeId, reason: Released) {
        let detail = reason.code().to_owned();
        tracing::warn!(%node, reason = detail, "no longer in quarantine");
        self.set_hearing(Hearing::Lift(node));
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, LetIn(node));
        let actor = if reason == Released::Lifted { "api" } else { "node" };
        self.record("lift", actor, format!("{node}: {detail}"));
        self.show(&[Event::Quarantine { node, what: "released", detail }]);
    }

    fn record(&self, kind: &str, actor: &str, detail: String) {
        if let Some(audit) = &self.audit {
            audit.record(kind, actor, self.clock.step(self.common.now()), detail);
        }
    }

    /// Hands events to those who watch.
    fn show(&mut self, events: &[Event<PeerId>]) {
        if self.watchers.is_empty() {
            return;
        }
        let (step, at_ms) = (self.clock.step(self.common.now()), wall_ms());
        self.watchers.retain(|watcher| {
            events.iter().all(|event| {
                watcher.offer(Observed { event: event.clone(), step, at_ms }, EVENT_BYTES).is_ok()
            })
        });
    }

    fn set_hearing(&self, hearing: Hearing) {
        let links = self.common.links();
        self.common.send(Mailbox::Gossip, &links.gossip, hearing);
        self.common.send(Mailbox::Membership, &links.membership, hearing);
        if let Some(log) = &links.log {
            self.common.send(Mailbox::Log, log, hearing);
        }
    }

    fn disconnect(&self, peer: PeerId) {
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, Disconnect(peer));
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) {
        if self.changes.len() < CHANGES_MAX || self.changes.contains_key(&key) {
            self.changes.insert(key, value);
        }
    }

    /// Writes what is to be kept, one write at a time. What cannot be written is tried again, with what came since.
    fn save(&mut self, ctx: &mut Context<Self>) {
        let Some(store) = self.store.clone() else { return self.changes.clear() };
        if self.is_saving || self.changes.is_empty() {
            return;
        }
        self.is_saving = true;
        let changes = std::mem::take(&mut self.changes);
        let write = actix_rt::task::spawn_blocking(move || {
            let written = store.save_observer(&changes);
            (changes, written)
        });
        ctx.spawn(write.into_actor(self).map(|done, actor, ctx| match done {
            Ok((changes, Err(error))) => {
                tracing::warn!(%error, "what the observer must not forget is not on disk yet");
                actor.common.observe(vec![Event::Error { kind: "store", detail: error.to_string() }]);
                for (key, value) in changes {
                    actor.changes.entry(key).or_insert(value);
                }
                ctx.run_later(SAVE_RETRY, Self::save_again);
            }
            _ => actor.save_again(ctx),
        }));
    }

    fn save_again(&mut self, ctx: &mut Context<Self>) {
        self.is_saving = false;
        self.save(ctx);
    }
}

/// Says something to people.
fn tell(finding: &Finding) {
    let Finding { kind, accused, count, reason, severity, .. } = finding;
    match severity {
        observer::Severity::Info => tracing::debug!(kind = kind.code(), accused, count, "{reason}"),
        _ => tracing::warn!(kind = kind.code(), accused, count, "{reason}"),
    }
}

/// What the observer is told besides events.
pub(crate) type Noticed = observer::Input<PeerId>;

type Input = Noticed;

impl Actor for ObserverActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(OBSERVER_MAILBOX);
        if self.common.is_linked() {
            self.carry_out(ctx);
        }
    }
}

impl Supervised for ObserverActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.out = Outbox::new();
        (self.is_restoring, self.is_saving) = (true, false);
        if let Some(saved) = self.store.as_ref().and_then(|store| store.observer_entries().ok()) {
            self.start.saved = saved;
        }
        let (config, start) = (self.config.clone(), self.start.clone());
        self.state = observer::State::new(config, start, self.common.now(), &mut self.out);
    }
}

/// All actors are linked: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin;

impl Handler<Begin> for ObserverActor {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        self.carry_out(ctx);
    }
}

/// Say again who is in quarantine: an actor has begun anew.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Remind;

impl Handler<Remind> for ObserverActor {
    type Result = ();

    fn handle(&mut self, _: Remind, _: &mut Self::Context) {
        let nodes: Vec<NodeId> = self.state.quarantined().map(|(node, _)| *node).collect();
        nodes.into_iter().for_each(|node| self.set_hearing(Hearing::Quarantine(node)));
    }
}

/// This happened; not for people.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Notice(pub(crate) Vec<Noticed>);

impl Handler<Notice> for ObserverActor {
    type Result = ();

    fn handle(&mut self, Notice(inputs): Notice, ctx: &mut Self::Context) {
        let step = self.clock.step(self.common.now()).map(observer::Input::Step);
        self.give(ctx, step.into_iter().chain(inputs));
    }
}

/// These things happened.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Observe(pub(crate) Vec<Event<PeerId>>);

impl Handler<Observe> for ObserverActor {
    type Result = ();

    fn handle(&mut self, Observe(events): Observe, ctx: &mut Self::Context) {
        self.show(&events);
        let step = self.clock.step(self.common.now()).unwrap_or_default();
        self.give(ctx, events.into_iter().map(|event| observer::Input::Event(step, event)));
    }
}

/// The surroundings, for the monitor.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Sizes(pub(crate) MonitorInput);

impl Handler<Sizes> for ObserverActor {
    type Result = ();

    fn handle(&mut self, Sizes(sizes): Sizes, ctx: &mut Self::Context) {
        self.give(ctx, [observer::Input::Sizes(sizes)]);
    }
}

/// All events from now on, until the feed is dropped.
#[derive(Message)]
#[rtype(result = "Feed<Observed>")]
pub(crate) struct Watch;

impl Handler<Watch> for ObserverActor {
    type Result = MessageResult<Watch>;

    fn handle(&mut self, _: Watch, _: &mut Self::Context) -> Self::Result {
        let (sender, receiver) = self.common.feed(FeedLimits::default());
        self.watchers.retain(|watcher| !watcher.is_closed());
        self.watchers.push(sender);
        MessageResult(receiver)
    }
}

/// What happened to a message, and the moment of the answer.
#[derive(Message)]
#[rtype(result = "(Time, Option<Story<PeerId>>)")]
pub(crate) struct GetStory(pub(crate) MessageId);

impl Handler<GetStory> for ObserverActor {
    type Result = MessageResult<GetStory>;

    fn handle(&mut self, GetStory(id): GetStory, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.common.now(), self.state.story(&id).cloned()))
    }
}

/// What went wrong, oldest first.
#[derive(Message)]
#[rtype(result = "Vec<Finding>")]
pub(crate) struct GetAnomalies;

impl Handler<GetAnomalies> for ObserverActor {
    type Result = MessageResult<GetAnomalies>;

    fn handle(&mut self, _: GetAnomalies, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.anomalies())
    }
}

/// Rates, latencies and health.
#[derive(Message)]
#[rtype(result = "NetworkMetrics")]
pub(crate) struct GetMetrics;

impl Handler<GetMetrics> for ObserverActor {
    type Result = MessageResult<GetMetrics>;

    fn handle(&mut self, _: GetMetrics, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.metrics(self.common.now()))
    }
}

/// Why this node thinks of a peer what it does.
#[derive(Message)]
#[rtype(result = "WhyPeer")]
pub(crate) struct GetWhyPeer(pub(crate) PeerId);

impl Handler<GetWhyPeer> for ObserverActor {
    type Result = MessageResult<GetWhyPeer>;

    fn handle(&mut self, GetWhyPeer(peer): GetWhyPeer, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.why_peer(self.common.now(), &self.state.subject_of(&peer)))
    }
}

/// Why this node is in its step, and how much it doubts itself.
#[derive(Message)]
#[rtype(result = "(WhyStep, f64)")]
pub(crate) struct GetWhyStep;

impl Handler<GetWhyStep> for ObserverActor {
    type Result = MessageResult<GetWhyStep>;

    fn handle(&mut self, _: GetWhyStep, _: &mut Self::Context) -> Self::Result {
        let now = self.common.now();
        MessageResult((self.state.why_step(now), self.state.doubt().value(now)))
    }
}

/// Who is in quarantine.
#[derive(Message)]
#[rtype(result = "Vec<(NodeId, Sentence)>")]
pub(crate) struct GetQuarantines;

impl Handler<GetQuarantines> for ObserverActor {
    type Result = MessageResult<GetQuarantines>;

    fn handle(&mut self, _: GetQuarantines, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.quarantined().map(|(node, sentence)| (*node, *sentence)).collect())
    }
}

/// An operator ends a quarantine; true if there was one.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct LiftQuarantine(pub(crate) NodeId);

impl Handler<LiftQuarantine> for ObserverActor {
    type Result = bool;

    fn handle(&mut self, LiftQuarantine(node): LiftQuarantine, ctx: &mut Self::Context) -> Self::Result {
        let is_in = self.state.quarantined().any(|(known, _)| *known == node);
        self.give(ctx, [observer::Input::Lift(node)]);
        is_in
    }
}
