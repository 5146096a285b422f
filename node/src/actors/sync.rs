//! Step synchronisation: the shell of [`omnimesh_protocol::step::StepSync`].
//!
//! A node that keeps its data writes down, ahead of time, up to which step it may have accepted messages, so
//! that after a crash it refuses what it could have seen before. The clock is shown to others only once the
//! first such *mark* is on the disk, and no message is accepted beyond the last one that is.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use omnimesh_protocol::control::Frame;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::observer::detect::drift::Reading;
use omnimesh_protocol::step::{self, Config, SavedOffset, Start, StepSync};
use omnimesh_protocol::{NodeId, Outbox, Phase, Step, observer};
use rand_chacha::ChaCha20Rng;

use super::membership::Claim;
use super::swarm::SendControl;
use super::{Common, MAILBOX, Mailbox};
use crate::clock::{SharedClock, wall_ns};
use crate::store::{StepMark, Store, StoreError};

/// Between two writes of the step mark, so many steps and so much time at least. Each mark reaches as far beyond
/// the next, which leaves the disk that long to write it. Source: guess.
const MARK_STEPS_MIN: u64 = 8;
const MARK_PERIOD_MIN: Duration = Duration::from_secs(1);

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) me: NodeId,
    pub(crate) config: Config,
    pub(crate) phase_interval: u64,
    /// How many steps ahead messages are accepted.
    pub(crate) step_window_future: u64,
    /// Nobody to ask: this node founds its mesh.
    pub(crate) is_founder: bool,
    pub(crate) saved: Option<SavedOffset>,
    pub(crate) not_before: Option<Step>,
    pub(crate) store: Option<Arc<Store>>,
}

#[derive(Debug)]
pub(crate) struct SyncActor {
    pub(super) common: Common,
    settings: Settings,
    clock: SharedClock,
    state: Option<StepSync<NodeId>>,
    rng: ChaCha20Rng,
    out: Outbox<step::Output<NodeId>>,
    phase: Option<Phase>,
    marked: Option<Step>,
    /// A mark is being written; one at a time, so that they stay in order.
    is_marking: bool,
    /// There is no mark to wait for, or the first is written.
    is_shown: bool,
    is_closed: bool,
}

impl SyncActor {
    pub(crate) fn new(common: Common, settings: Settings, clock: SharedClock) -> Self {
        let is_shown = settings.store.is_none();
        if is_shown {
            clock.accept_until(Step(u64::MAX));
        }
        SyncActor {
            common,
            settings,
            clock,
            state: None,
            rng: super::rng(),
            out: Outbox::new(),
            phase: None,
            marked: None,
            is_marking: false,
            is_shown,
            is_closed: false,
        }
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        let wall_ns = wall_ns();
        let start = if self.settings.is_founder {
            Start::Founder { wall_ns }
        } else {
            Start::Joiner { wall_ns, saved: self.settings.saved }
        };
        let now = self.common.now();
        let Settings { me, ref config, not_before, .. } = self.settings;
        self.state = Some(StepSync::new(me, config.clone(), start, not_before, now, &mut self.out));
        self.carry_out(ctx);
    }

    fn give(&mut self, ctx: &mut Context<Self>, input: step::Input<NodeId>) {
        let common = self.common.clone();
        common.guard("sync", ctx, || {
            let Some(state) = &mut self.state else { return };
            state.handle(self.common.now(), input, &mut self.rng, &mut self.out);
        });
        self.carry_out(ctx);
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let Some(state) = &self.state else { return };
        self.clock.set(state.clock().filter(|_| self.is_shown).cloned());
        let mut events = Vec::new();
        let mut steps = Vec::new();
        let mut skew = None;
        for output in self.out.drain() {
            match output {
                step::Output::Send { to, frame } => {
                    let links = self.common.links();
                    self.common.send(Mailbox::Swarm, &links.swarm, SendControl { to, frame });
                }
                step::Output::Timer { at, timer } => {
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.give(ctx, step::Input::Timer(timer));
                    });
                }
                step::Output::Step { step } => steps.push(step),
                step::Output::Event(event) => {
                    if let step::Event::Reconciled { skew_ns, .. } = &event {
                        skew = Some(Duration::from_nanos(*skew_ns));
                    }
                    events.extend(describe(event));
                }
                step::Output::Outlier { peer, by_ns } => events.push(Event::Step {
                    what: "outlier",
                    detail: format!("{peer} claims a mesh time that is off by {} ms", by_ns / 1_000_000),
                }),
            }
        }
        for step in steps {
            self.on_step(step, &mut events, ctx);
        }
        self.common.observe(events);
        if skew.is_some() {
            let readings = self.readings();
            let inputs = vec![observer::Input::Skew(skew), observer::Input::Clocks(readings)];
            self.common.notice(inputs);
        }
    }

    /// What the clocks of peers said in the last round, against the own.
    fn readings(&self) -> Vec<Reading<libp2p::PeerId>> {
        let now = self.common.now();
        let Some(state) = &self.state else { return Vec::new() };
        let Some(own) = state.mesh_time(now) else { return Vec::new() };
        let recent =
            state.claims().filter(|(_, claim)| now.since(claim.at) <= self.settings.config.round_interval);
        let reading = |(node, claim): (NodeId, step::Claim)| {
            let passed = now.since(claim.at).saturating_add(claim.rtt / 2);
            let passed_ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            let theirs = i128::from(claim.mesh_time_ns) + i128::from(passed_ns);
            let ahead_ns = (theirs - i128::from(own)).clamp(i64::MIN.into(), i64::MAX.into());
            Reading {
                peer: crate::swarm::peer::peer_id(&node),
                ahead_ns: i64::try_from(ahead_ns).unwrap_or(0),
                error_ns: u64::try_from((claim.rtt / 2).as_nanos()).unwrap_or(u64::MAX),
            }
        };
        recent.map(reading).collect()
    }

    fn on_step(&mut self, step: Step, events: &mut Vec<Event<libp2p::PeerId>>, ctx: &mut Context<Self>) {
        let phase = Phase(step.0 / self.settings.phase_interval);
        if self.phase.replace(phase).is_some_and(|before| before != phase) {
            events.push(Event::Phase { phase, step });
        }
        let every = self.mark_every();
        if self.marked.is_none_or(|marked| step.0 >= marked.0.saturating_add(every)) {
            self.write_mark(step, ctx);
        }
        self.claim_steps(step);
    }

    /// Steps between two marks.
    fn mark_every(&self) -> u64 {
        let interval = self.settings.config.step_interval.as_nanos().max(1);
        let steps = MARK_PERIOD_MIN.as_nanos().div_ceil(interval);
        u64::try_from(steps).unwrap_or(u64::MAX).max(MARK_STEPS_MIN)
    }

    fn write_mark(&mut self, step: Step, ctx: &mut Context<Self>) {
        let ahead = self.mark_every().saturating_mul(2).saturating_add(self.settings.step_window_future);
        let accepted = step.saturating_add(ahead);
        if self.is_marking {
            return;
        }
        let Some(write) = self.mark(step, accepted) else { return };
        self.marked = Some(step);
        self.is_marking = true;
        let written = actix_rt::task::spawn_blocking(write).into_actor(self);
        ctx.spawn(written.map(move |written, actor, ctx| {
            actor.is_marking = false;
            match written {
                Ok(Ok(())) => actor.on_marked(accepted, ctx),
                Ok(Err(error)) => actor.on_not_marked(error.to_string()),
                Err(error) => actor.on_not_marked(error.to_string()),
            }
        }));
    }

    fn on_marked(&mut self, accepted: Step, ctx: &mut Context<Self>) {
        if self.is_closed {
            return;
        }
        self.clock.accept_until(accepted);
        if !std::mem::replace(&mut self.is_shown, true) {
            self.carry_out(ctx);
        }
    }

    /// Nothing is accepted beyond the last mark, so the next step tries again.
    fn on_not_marked(&mut self, detail: String) {
        self.marked = None;
        self.common.observe(vec![Event::Error { kind: "store", detail }]);
    }

    /// What writes down how far this node has come, to be called where blocking is allowed.
    fn mark(
        &self,
        step: Step,
        accepted: Step,
    ) -> Option<impl FnOnce() -> Result<(), StoreError> + Send + 'static> {
        let store = self.settings.store.clone()?;
        let offset = self.state.as_ref().and_then(|state| state.saved_offset(self.common.now(), wall_ns()));
        Some(move || {
            if let Some(offset) = offset {
                store.save_clock_offset(&offset)?;
            }
            store.save_step_mark(StepMark { step, accepted })
        })
    }

    /// Tells membership what steps the peers claim, for `members` to show.
    fn claim_steps(&self, own: Step) {
        let Some(state) = &self.state else { return };
        let now = self.common.now();
        let interval_ns =
            u64::try_from(self.settings.config.step_interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut claims = vec![(self.settings.me, own)];
        claims.extend(state.claims().map(|(peer, claim)| {
            let elapsed = u64::try_from(now.since(claim.at).as_nanos()).unwrap_or(u64::MAX);
            (peer, Step(claim.mesh_time_ns.saturating_add(elapsed) / interval_ns))
        }));
        self.common.send(Mailbox::Membership, &self.common.links().membership, Claim(claims));
    }
}

/// The event for people; rounds that changed nothing are not worth one.
fn describe(event: step::Event) -> Option<Event<libp2p::PeerId>> {
    let (what, detail) = match event {
        step::Event::Synchronised { step, origin } => {
            let how = match origin {
                step::Origin::Founded => "founded the mesh's time".to_owned(),
                step::Origin::Restored => "went on with the time of its last run, nobody answered".to_owned(),
                step::Origin::Adopted { samples } => format!("took the time from {samples} peers"),
            };
            ("synchronised", format!("synchronised at step {step}: {how}"))
        }
        step::Event::Jumped { from, to } => {
            ("jumped", format!("was behind: jumped from step {from} to {to}"))
        }
        step::Event::Holding { ahead_ns } => {
            ("holding", format!("is {} ms ahead: waits for the mesh", ahead_ns / 1_000_000))
        }
        step::Event::Resumed => ("resumed", "the mesh has caught up: the clock goes on".to_owned()),
        step::Event::Reconciled { .. } => return None,
    };
    Some(Event::Step { what, detail })
}

impl Actor for SyncActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Supervised for SyncActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        let now = self.common.now();
        // The mesh's time as it was known goes on; no step is shown twice.
        self.settings.is_founder = false;
        self.settings.not_before = self.clock.step(now).or(self.settings.not_before);
        if let Some(mesh_us) = self.clock.mesh_time_us(now) {
            let offset_ns = i64::try_from(i128::from(mesh_us) * 1000 - i128::from(wall_ns())).unwrap_or(0);
            self.settings.saved = Some(SavedOffset { offset_ns });
        }
        self.out = Outbox::new();
        self.is_marking = false;
        self.begin(ctx);
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, super::swarm::Reintroduce);
    }
}

/// All actors are linked: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin;

impl Handler<Begin> for SyncActor {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

/// A member connected.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberConnected(pub(crate) NodeId);

impl Handler<MemberConnected> for SyncActor {
    type Result = ();

    fn handle(&mut self, MemberConnected(peer): MemberConnected, ctx: &mut Self::Context) {
        self.give(ctx, step::Input::Connected { peer });
    }
}

/// A member is no longer connected.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberDisconnected(pub(crate) NodeId);

impl Handler<MemberDisconnected> for SyncActor {
    type Result = ();

    fn handle(&mut self, MemberDisconnected(peer): MemberDisconnected, ctx: &mut Self::Context) {
        self.give(ctx, step::Input::Disconnected { peer });
    }
}

/// A step frame came from a connected member.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StepFrame {
    pub(crate) from: NodeId,
    pub(crate) frame: Frame,
}

impl Handler<StepFrame> for SyncActor {
    type Result = ();

    fn handle(&mut self, StepFrame { from, frame }: StepFrame, ctx: &mut Self::Context) {
        self.give(ctx, step::Input::Frame { from, frame });
    }
}

/// The state in numbers.
#[derive(Message)]
#[rtype(result = "Option<step::Stats>")]
pub(crate) struct GetStats;

impl Handler<GetStats> for SyncActor {
    type Result = Option<step::Stats>;

    fn handle(&mut self, _: GetStats, _: &mut Self::Context) -> Self::Result {
        let now = self.common.now();
        self.state.as_ref().map(|state| state.stats(now))
    }
}

/// The node stops in good order: keep what is known exactly.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

impl Handler<Close> for SyncActor {
    type Result = ();

    fn handle(&mut self, _: Close, _: &mut Self::Context) {
        let Some(step) = self.clock.step(self.common.now()) else { return };
        let accepted = step.saturating_add(self.settings.step_window_future);
        self.is_closed = true;
        if self.settings.store.is_some() {
            self.clock.accept_until(accepted);
        }
        if let Some(Err(error)) = self.mark(step, accepted).map(|write| write()) {
            tracing::warn!(%error, "the step mark was not written");
        }
    }
}
