//! Known-answer probes: the shell of [`omnimesh_protocol::observer::probe`].

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use actix::prelude::*;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::observer::probe::{self, Config, Input, Output, Summary, Tally};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Mesh, NodeId, Outbox};
use rand_chacha::ChaCha20Rng;

use super::author::Utter;
use super::{Common, MAILBOX, Mailbox, gossip, membership};
use crate::clock::SharedClock;
use crate::feed::FeedItem;
use crate::message::Message as Delivered;

/// How often it is looked how many members there are.
const MEMBERS_EVERY: Duration = Duration::from_secs(10);

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) me: NodeId,
    pub(crate) mesh: Mesh,
    pub(crate) phase_interval: NonZeroU64,
    pub(crate) pattern_cache: NonZeroUsize,
}

#[derive(Debug)]
pub(crate) struct ProbeActor {
    pub(super) common: Common,
    settings: Settings,
    clock: SharedClock,
    state: probe::State,
    rng: ChaCha20Rng,
    out: Outbox<Output>,
}

impl ProbeActor {
    pub(crate) fn new(common: Common, settings: Settings, clock: SharedClock) -> Self {
        let (mut rng, mut out) = (super::rng(), Outbox::new());
        let state = Self::state(&common, &settings, &mut rng, &mut out);
        ProbeActor { common, settings, clock, state, rng, out }
    }

    fn state(
        common: &Common,
        settings: &Settings,
        rng: &mut ChaCha20Rng,
        out: &mut Outbox<Output>,
    ) -> probe::State {
        let Settings { config, me, mesh, phase_interval, pattern_cache } = settings;
        let patterns = PatternGenerator::new(mesh.secret().clone(), *phase_interval, *pattern_cache);
        probe::State::new(config.clone(), *me, patterns, common.now(), rng, out)
    }

    fn give(&mut self, ctx: &mut Context<Self>, input: Input) {
        let common = self.common.clone();
        common.guard("prober", ctx, || {
            let now = self.common.now();
            let step = self.clock.step(now);
            self.state.handle(now, Input::Step(step), &mut self.rng, &mut self.out);
            self.state.handle(now, input, &mut self.rng, &mut self.out);
        });
        self.carry_out(ctx);
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let outputs: Vec<_> = self.out.drain().collect();
        for output in outputs {
            match output {
                Output::Publish(payload) => {
                    let utter = Utter { channel: channel(), payload };
                    self.common.send(Mailbox::Author, &self.common.links().author, utter);
                }
                Output::Timer { at, timer } => {
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.give(ctx, Input::Timer(timer));
                    });
                }
            }
        }
    }

    /// Listens to the probes of others, for as long as this actor lives.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        self.carry_out(ctx);
        let Some(gossip) = self.common.links().gossip.upgrade() else { return };
        let subscribe = gossip.send(gossip::Subscribe(channel()));
        ctx.spawn(subscribe.into_actor(self).map(|feed, _, ctx| {
            if let Ok(feed) = feed {
                ctx.add_stream(feed);
            }
        }));
        ctx.run_interval(MEMBERS_EVERY, |actor, ctx| {
            let Some(members) = actor.common.links().membership.upgrade() else { return };
            let counts = members.send(membership::GetCounts);
            ctx.spawn(counts.into_actor(actor).map(|counts, actor, ctx| {
                if let Ok((counts, _)) = counts {
                    actor.give(ctx, Input::Members(counts.alive + counts.suspect));
                }
            }));
        });
    }
}

fn channel() -> Channel {
    Channel::new(probe::CHANNEL).expect("a good name")
}

impl Actor for ProbeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Supervised for ProbeActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        self.out = Outbox::new();
        self.state = Self::state(&self.common, &self.settings, &mut self.rng, &mut self.out);
        self.begin(ctx);
    }
}

impl StreamHandler<FeedItem<Delivered>> for ProbeActor {
    fn handle(&mut self, item: FeedItem<Delivered>, ctx: &mut Self::Context) {
        // What this actor was too slow for looks like a loss; it reads some hundred thousand in a second.
        let FeedItem::Next(message) = item else { return };
        let Delivered { author, step, payload, latency, .. } = message;
        let latency_us = latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        self.give(ctx, Input::Received { author, step, latency_us, payload });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

/// All actors are linked: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin;

impl Handler<Begin> for ProbeActor {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

/// A member is gone: what it does not send is not lost.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Gone(pub(crate) NodeId);

impl Handler<Gone> for ProbeActor {
    type Result = ();

    fn handle(&mut self, Gone(node): Gone, ctx: &mut Self::Context) {
        self.give(ctx, Input::Gone(node));
    }
}

/// What came of probes in all.
#[derive(Message)]
#[rtype(result = "Summary")]
pub(crate) struct GetSummary;

impl Handler<GetSummary> for ProbeActor {
    type Result = MessageResult<GetSummary>;

    fn handle(&mut self, _: GetSummary, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.summary())
    }
}

/// What came of the probes of one author.
#[derive(Message)]
#[rtype(result = "Option<Tally>")]
pub(crate) struct GetTally(pub(crate) NodeId);

impl Handler<GetTally> for ProbeActor {
    type Result = Option<Tally>;

    fn handle(&mut self, GetTally(origin): GetTally, _: &mut Self::Context) -> Self::Result {
        self.state.tally(&origin)
    }
}
