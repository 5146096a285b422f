//! Membership: the shell of [`omnimesh_protocol::membership`] (SWIM).

use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::control::Frame;
use omnimesh_protocol::event::Event;
use omnimesh_protocol::membership::{self, Config, Counts, Local, Member};
use omnimesh_protocol::{NodeId, Outbox, Step, Time, observer};
use rand_chacha::ChaCha20Rng;

use super::compute::Standing;
use super::gossip::Hearing;
use super::observer::Remind;
use super::prober::Gone;
use super::swarm::{MemberAddresses, MemberGone, Reintroduce, SendControl};
use super::{Common, MAILBOX, Mailbox};
use crate::clock::wall_ms;

#[derive(Debug)]
pub(crate) struct MembershipActor {
    pub(super) common: Common,
    config: Config,
    me: NodeId,
    addresses: Vec<String>,
    state: Option<membership::State>,
    rng: ChaCha20Rng,
    out: Outbox<membership::Output>,
    /// The score that the observer was told.
    health: u8,
}

impl MembershipActor {
    pub(crate) fn new(common: Common, config: Config, me: NodeId) -> Self {
        MembershipActor {
            common,
            config,
            me,
            addresses: Vec::new(),
            state: None,
            rng: super::rng(),
            out: Outbox::new(),
            health: 0,
        }
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        let local = Local { node: self.me, generation: wall_ms(), addresses: self.addresses.clone() };
        let state = membership::State::new(self.config.clone(), local, &mut self.rng)
            .expect("the node's configuration was checked when it was made");
        self.state = Some(state);
        self.carry_out(ctx);
        self.common.send(Mailbox::Observer, &self.common.links().observer, Remind);
    }

    fn give(&mut self, ctx: &mut Context<Self>, input: membership::Input) {
        let common = self.common.clone();
        common.guard("membership", ctx, || {
            let Some(state) = &mut self.state else { return };
            state.handle(self.common.now(), input, &mut self.rng, &mut self.out);
        });
        self.carry_out(ctx);
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let links = self.common.links();
        let mut events = Vec::new();
        let mut member = |member, state| events.push(Event::Member { member, state });
        let standing = |node, is_alive| {
            if let Some(compute) = &links.compute {
                self.common.send(Mailbox::Compute, compute, Standing { node, is_alive });
            }
        };
        for output in self.out.drain() {
            match output {
                membership::Output::Send { to, packet } => {
                    let frame = Frame::Swim(packet);
                    self.common.send(Mailbox::Swarm, &links.swarm, SendControl { to, frame });
                }
                membership::Output::Timer { at, timer } => {
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.give(ctx, membership::Input::Timer(timer));
                    });
                }
                membership::Output::MemberUp { peer, addresses, .. } => {
                    member(peer, "alive");
                    standing(peer, true);
                    let up = MemberAddresses { peer, addresses };
                    self.common.send(Mailbox::Swarm, &links.swarm, up);
                }
                membership::Output::MemberRefuted { peer } => {
                    member(peer, "alive");
                    standing(peer, true);
                }
                membership::Output::MemberSuspect { peer } => member(peer, "suspect"),
                membership::Output::MemberDown { peer } => {
                    member(peer, "dead");
                    standing(peer, false);
                    self.common.send(Mailbox::Swarm, &links.swarm, MemberGone(peer));
                    self.common.send(Mailbox::Prober, &links.prober, Gone(peer));
                }
                membership::Output::MemberLeft { peer } => {
                    member(peer, "left");
                    standing(peer, false);
                    self.common.send(Mailbox::Swarm, &links.swarm, MemberGone(peer));
                    self.common.send(Mailbox::Prober, &links.prober, Gone(peer));
                }
                membership::Output::Rejoined { generation } => {
                    tracing::info!(generation, "was held for dead, joined again");
                }
                membership::Output::Event(event) => tracing::debug!(?event, "membership"),
            }
        }
        if !events.is_empty()
            && let (Some(state), Some(log)) = (&self.state, &links.log)
        {
            self.common.send(Mailbox::Log, log, super::log::Members(state.counts().alive));
        }
        self.common.observe(events);
        let health = self.state.as_ref().map_or(0, membership::State::local_health);
        if std::mem::replace(&mut self.health, health) != health {
            self.common.notice(vec![observer::Input::Health(health)]);
        }
    }
}

impl Actor for MembershipActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Supervised for MembershipActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        self.out = Outbox::new();
        self.begin(ctx);
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, Reintroduce);
    }
}

/// All actors are linked and the listen addresses are known: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin(pub(crate) Vec<String>);

impl Handler<Begin> for MembershipActor {
    type Result = ();

    fn handle(&mut self, Begin(addresses): Begin, ctx: &mut Self::Context) {
        self.addresses = addresses;
        self.begin(ctx);
    }
}

impl Handler<Hearing> for MembershipActor {
    type Result = ();

    fn handle(&mut self, hearing: Hearing, ctx: &mut Self::Context) {
        let input = match hearing {
            Hearing::Quarantine(peer) => membership::Input::Quarantine { peer },
            Hearing::Lift(peer) => membership::Input::Lift { peer },
        };
        self.give(ctx, input);
    }
}

/// Where this node can be reached has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OwnAddresses(pub(crate) Vec<String>);

impl Handler<OwnAddresses> for MembershipActor {
    type Result = ();

    fn handle(&mut self, OwnAddresses(addresses): OwnAddresses, ctx: &mut Self::Context) {
        self.addresses = addresses.clone();
        self.give(ctx, membership::Input::Addresses(addresses));
    }
}

/// A member connected.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberConnected {
    pub(crate) peer: NodeId,
    pub(crate) addresses: Vec<String>,
}

impl Handler<MemberConnected> for MembershipActor {
    type Result = ();

    fn handle(&mut self, MemberConnected { peer, addresses }: MemberConnected, ctx: &mut Self::Context) {
        self.give(ctx, membership::Input::Connected { peer, addresses });
    }
}

/// A member is no longer connected.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MemberDisconnected(pub(crate) NodeId);

impl Handler<MemberDisconnected> for MembershipActor {
    type Result = ();

    fn handle(&mut self, MemberDisconnected(peer): MemberDisconnected, ctx: &mut Self::Context) {
        self.give(ctx, membership::Input::Disconnected { peer });
    }
}

/// A packet came from a connected member.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) bytes: Bytes,
}

impl Handler<Packet> for MembershipActor {
    type Result = ();

    fn handle(&mut self, Packet { from, bytes }: Packet, ctx: &mut Self::Context) {
        self.give(ctx, membership::Input::Packet { from, bytes });
    }
}

/// Members were heard to be at these steps.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Claim(pub(crate) Vec<(NodeId, Step)>);

impl Handler<Claim> for MembershipActor {
    type Result = ();

    fn handle(&mut self, Claim(claims): Claim, ctx: &mut Self::Context) {
        for (peer, step) in claims {
            self.give(ctx, membership::Input::Claim { peer, step });
        }
    }
}

/// A round trip was measured.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Rtt {
    pub(crate) peer: NodeId,
    pub(crate) rtt: Duration,
}

impl Handler<Rtt> for MembershipActor {
    type Result = ();

    fn handle(&mut self, Rtt { peer, rtt }: Rtt, ctx: &mut Self::Context) {
        self.give(ctx, membership::Input::Rtt { peer, rtt });
    }
}

/// The list of members, and the moment it is of.
#[derive(Message)]
#[rtype(result = "(Time, Vec<Member>)")]
pub(crate) struct GetMembers;

impl Handler<GetMembers> for MembershipActor {
    type Result = MessageResult<GetMembers>;

    fn handle(&mut self, _: GetMembers, _: &mut Self::Context) -> Self::Result {
        let members = self.state.as_ref().map(membership::State::members).unwrap_or_default();
        MessageResult((self.common.now(), members))
    }
}

/// How many members are in which state, and how healthy this node thinks itself (0 is healthy).
#[derive(Message)]
#[rtype(result = "(Counts, u8)")]
pub(crate) struct GetCounts;

impl Handler<GetCounts> for MembershipActor {
    type Result = MessageResult<GetCounts>;

    fn handle(&mut self, _: GetCounts, _: &mut Self::Context) -> Self::Result {
        let state = self.state.as_ref();
        MessageResult(state.map(|state| (state.counts(), state.local_health())).unwrap_or_default())
    }
}

/// The node stops in good order: tell the others.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Leave;

impl Handler<Leave> for MembershipActor {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        self.give(ctx, membership::Input::Leave);
    }
}
