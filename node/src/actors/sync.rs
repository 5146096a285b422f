//! Step synchronisation: the shell of [`omnimesh_protocol::step::StepSync`].

use std::sync::Arc;

use actix::prelude::*;
use omnimesh_protocol::control::Frame;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::step::{self, Config, SavedOffset, Start, StepSync};
use omnimesh_protocol::{NodeId, Outbox, Phase, Step};
use rand_chacha::ChaCha20Rng;

use super::membership::Claim;
use super::swarm::SendControl;
use super::{Common, MAILBOX, Mailbox, until};
use crate::clock::{SharedClock, wall_ns};
use crate::store::{StepMark, Store, StoreError};

/// Steps between two writes of the step mark, and how far each reaches beyond the present step.
const MARK_EVERY: u64 = 8;
const MARK_AHEAD: u64 = 2 * MARK_EVERY;

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
}

impl SyncActor {
    pub(crate) fn new(common: Common, settings: Settings, clock: SharedClock) -> Self {
        SyncActor {
            common,
            settings,
            clock,
            state: None,
            rng: super::rng(),
            out: Outbox::new(),
            phase: None,
            marked: None,
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
        self.clock.set(state.clock().cloned());
        let now = self.common.now();
        let mut events = Vec::new();
        let mut steps = Vec::new();
        for output in self.out.drain() {
            match output {
                step::Output::Send { to, frame } => {
                    let links = self.common.links();
                    self.common.send(Mailbox::Swarm, &links.swarm, SendControl { to, frame });
                }
                step::Output::Timer { at, timer } => {
                    ctx.run_later(until(at, now), move |actor, ctx| {
                        actor.give(ctx, step::Input::Timer(timer));
                    });
                }
                step::Output::Step { step } => steps.push(step),
                step::Output::Event(event) => events.extend(describe(event)),
                step::Output::Outlier { peer, by_ns } => events.push(Event::Step {
                    what: "outlier",
                    detail: format!("{peer} claims a mesh time that is off by {} ms", by_ns / 1_000_000),
                }),
            }
        }
        for step in steps {
            self.on_step(step, &mut events);
        }
        self.common.observe(events);
    }

    fn on_step(&mut self, step: Step, events: &mut Vec<Event<libp2p::PeerId>>) {
        let phase = Phase(step.0 / self.settings.phase_interval);
        if self.phase.replace(phase).is_some_and(|before| before != phase) {
            events.push(Event::Phase { phase, step });
        }
        let due = self.marked.is_none_or(|marked| step.0 >= marked.0.saturating_add(MARK_EVERY));
        if due && let Some(write) = self.mark(step, step.saturating_add(MARK_AHEAD)) {
            self.marked = Some(step);
            let common = self.common.clone();
            // The mark reaches far enough ahead that nothing waits for the disk. Detached: the runtime
            // finishes it also if the actor stops.
            drop(actix_rt::task::spawn_blocking(move || {
                if let Err(error) = write() {
                    common.observe(vec![Event::Error { kind: "store", detail: error.to_string() }]);
                }
            }));
        }
        self.claim_steps(step);
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
        if self.common.is_stopping() {
            return ctx.stop();
        }
        let now = self.common.now();
        // The mesh's time as it was known goes on; no step is shown twice.
        self.settings.is_founder = false;
        self.settings.not_before = self.clock.step(now).or(self.settings.not_before);
        if let Some(mesh_us) = self.clock.mesh_time_us(now) {
            let offset_ns = i64::try_from(i128::from(mesh_us) * 1000 - i128::from(wall_ns())).unwrap_or(0);
            self.settings.saved = Some(SavedOffset { offset_ns });
        }
        self.out = Outbox::new();
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
        if let Some(Err(error)) = self.mark(step, accepted).map(|write| write()) {
            tracing::warn!(%error, "the step mark was not written");
        }
    }
}
