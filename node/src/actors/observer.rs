//! The observer: the shell of [`omnimesh_protocol::observer`]; hands events to those who watch.

use actix::prelude::*;
use libp2p::PeerId;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::observer::{self, Anomaly, Config, MonitorInput, NetworkMetrics, Story};
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
    clock: SharedClock,
    state: observer::State<PeerId>,
    rng: ChaCha20Rng,
    watchers: Vec<FeedSender<Observed>>,
}

impl ObserverActor {
    pub(crate) fn new(common: Common, config: Config, clock: SharedClock) -> Self {
        let state = observer::State::new(&config);
        ObserverActor { common, config, clock, state, rng: super::rng(), watchers: Vec::new() }
    }
}

impl Actor for ObserverActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(OBSERVER_MAILBOX);
    }
}

impl Supervised for ObserverActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        if self.common.is_stopping() {
            return ctx.stop();
        }
        self.state = observer::State::new(&self.config);
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
        let common = self.common.clone();
        common.guard("observer", ctx, || {
            for event in events {
                let input = observer::Input::Event(step.unwrap_or_default(), event);
                self.state.handle(now, input, &mut self.rng, &mut Outbox::new());
            }
        });
    }
}

/// The surroundings, for the monitor.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Sizes(pub(crate) MonitorInput);

impl Handler<Sizes> for ObserverActor {
    type Result = ();

    fn handle(&mut self, Sizes(sizes): Sizes, _: &mut Self::Context) {
        let now = self.common.now();
        self.state.handle(now, observer::Input::Sizes(sizes), &mut self.rng, &mut Outbox::new());
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
#[rtype(result = "Vec<Anomaly>")]
pub(crate) struct GetAnomalies;

impl Handler<GetAnomalies> for ObserverActor {
    type Result = MessageResult<GetAnomalies>;

    fn handle(&mut self, _: GetAnomalies, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.anomalies().cloned().collect())
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
