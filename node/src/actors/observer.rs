//! The observer: the shell of [`omnimesh_protocol::observer`]; hands events to those who watch.

use actix::prelude::*;
use libp2p::PeerId;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::observer::{self, Config, Finding, MonitorInput, NetworkMetrics, Start, Story};
use omnimesh_protocol::{MessageId, Outbox, Step, Time};
use rand_chacha::ChaCha20Rng;

use super::{Common, MAILBOX};
use crate::clock::{SharedClock, wall_ms};
use crate::feed::{Feed, FeedLimits, FeedSender, feed};

/// Messages that wait for the observer: it comes last, and loses rather than holds up.
const OBSERVER_MAILBOX: usize = 4 * MAILBOX;
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
}

impl ObserverActor {
    pub(crate) fn new(common: Common, config: Config, start: Start<PeerId>, clock: SharedClock) -> Self {
        let mut out = Outbox::new();
        let state = observer::State::new(config.clone(), start.clone(), common.now(), &mut out);
        ObserverActor { common, config, start, clock, state, out, rng: super::rng(), watchers: Vec::new() }
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
        for output in self.out.drain() {
            match output {
                observer::Output::Timer { at, timer } => {
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.give(ctx, [observer::Input::Timer(timer)]);
                    });
                }
                observer::Output::Found(finding) => {
                    tracing::warn!(
                        kind = finding.kind.code(),
                        accused = finding.accused,
                        count = finding.count,
                        "{}",
                        finding.reason
                    );
                }
                output => tracing::debug!(?output, "the observer only watches"),
            }
        }
    }
}

type Input = observer::Input<PeerId>;

impl Actor for ObserverActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(OBSERVER_MAILBOX);
        self.carry_out(ctx);
    }
}

impl Supervised for ObserverActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        if self.common.is_stopping() {
            return ctx.stop();
        }
        self.out = Outbox::new();
        let (config, start) = (self.config.clone(), self.start.clone());
        self.state = observer::State::new(config, start, self.common.now(), &mut self.out);
    }
}

/// These things happened.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Observe(pub(crate) Vec<Event<PeerId>>);

impl Handler<Observe> for ObserverActor {
    type Result = ();

    fn handle(&mut self, Observe(events): Observe, ctx: &mut Self::Context) {
        let now = self.common.now();
        let step = self.clock.step(now);
        if !self.watchers.is_empty() {
            let at_ms = wall_ms();
            self.watchers.retain(|watcher| {
                events.iter().all(|event| {
                    watcher.offer(Observed { event: event.clone(), step, at_ms }, EVENT_BYTES).is_ok()
                })
            });
        }
        let step = step.unwrap_or_default();
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
        let (sender, receiver) = feed(FeedLimits::default());
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
