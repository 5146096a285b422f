//! Admission: who is let in, and what becomes of who is not. Every control frame passes here, since only those of members
//! go on to the other actors.
//!
//! ```text
//!   control stream ──► decode ──► admission ──► Deliver ──► SyncActor, MembershipActor
//!                        │           ├──► Admitted ──► the actors that talk to members
//!                        ▼           └──► Refused ──► disconnected, and left alone for a while
//!                    sent away
//! ```

use std::time::Duration;

use actix::prelude::*;
use libp2p::PeerId;
use omnimesh_protocol::control::{DecodeError, Frame, Goodbye};
use omnimesh_protocol::dialer;
use omnimesh_protocol::event::Event as MeshEvent;
use omnimesh_protocol::{NodeId, Outbox, admission};

use super::SwarmActor;
use crate::actors::{Mailbox, membership, sync};
use crate::swarm::{Class, Inbound, peer};

/// How long a refused peer stays connected, so that it reads the last words, and identify tells it who we are: it
/// is to learn why. Nothing that it says meanwhile is heard. Source: guess, some round trips on earth.
const FAREWELL: Duration = Duration::from_secs(1);

impl SwarmActor {
    pub(super) fn admit(&mut self, ctx: &mut Context<Self>, input: admission::Input) {
        let mut out = Outbox::new();
        let common = self.common.clone();
        common.guard("swarm", ctx, || {
            self.admission.handle(self.common.now(), input, &mut self.rng, &mut out);
        });
        for output in out.drain() {
            self.carry_out_admission(output, ctx);
        }
    }

    fn carry_out_admission(&mut self, output: admission::Output, ctx: &mut Context<Self>) {
        match output {
            admission::Output::Send { peer, frame } => self.send_control(peer, &frame),
            admission::Output::Disconnect { peer } => self.part_with(peer::peer_id(&peer), ctx),
            admission::Output::Admitted { peer, agent } => {
                self.introduce(peer);
                let what = "admitted";
                let event = MeshEvent::PeerUp { peer: peer::peer_id(&peer), what, detail: agent.to_string() };
                self.common.observe(vec![event]);
            }
            admission::Output::Removed { peer } => {
                if let Some(info) = self.peers.get_mut(&peer::peer_id(&peer)) {
                    info.is_member = false;
                }
                self.part(peer::peer_id(&peer));
                let links = self.common.links();
                self.common.send(Mailbox::Sync, &links.sync, sync::MemberDisconnected(peer));
                self.common.send(
                    Mailbox::Membership,
                    &links.membership,
                    membership::MemberDisconnected(peer),
                );
            }
            admission::Output::Deliver { peer, frame } => self.deliver(peer, frame),
            admission::Output::Refused { peer, reason, until } => {
                let detail = peer_hint(reason).to_owned();
                self.tell_refused(peer, reason.code(), detail);
                self.leave_alone(peer, until, ctx);
            }
            admission::Output::Goodbye { peer, reason: Goodbye::Shutdown, .. } => {
                tracing::debug!(%peer, "it shuts down");
            }
            admission::Output::Goodbye { peer, reason, until } => {
                self.tell_refused(peer, "goodbye", format!("it refused us: {reason}"));
                self.leave_alone(peer, until, ctx);
            }
            admission::Output::Timer { at, timer } => {
                ctx.run_later(self.common.until(at), move |actor, ctx| {
                    actor.admit(ctx, admission::Input::Timer(timer));
                });
            }
        }
    }

    fn tell_refused(&self, peer: NodeId, reason: &'static str, detail: String) {
        tracing::warn!(%peer, reason, "{detail}");
        if self.settings.bootstrap.iter().any(|bootstrap| bootstrap.peer == Some(peer)) {
            let trouble = format!("bootstrap node {peer} was reached, but: {detail}");
            self.common.set_bootstrap_trouble(Some(trouble));
        }
        self.common.observe(vec![MeshEvent::PeerRefused { peer: peer::peer_id(&peer), reason, detail }]);
    }

    /// Makes an admitted peer known to the actors that talk to members.
    pub(super) fn introduce(&mut self, member: NodeId) {
        let Some(info) = self.peers.get_mut(&peer::peer_id(&member)) else { return };
        info.is_member = true;
        let addresses = info.listen.clone();
        let links = self.common.links();
        self.common.send(Mailbox::Sync, &links.sync, sync::MemberConnected(member));
        self.introduce_streams(peer::peer_id(&member));
        self.answer_awaited(&peer::peer_id(&member));
        if self.settings.is_plugged {
            return;
        }
        let links = self.common.links();
        let connected = membership::MemberConnected { peer: member, addresses };
        self.common.send(Mailbox::Membership, &links.membership, connected);
    }

    pub(super) fn on_control(&mut self, inbound: Inbound, ctx: &mut Context<Self>) {
        let (Inbound::Frames { peer, .. } | Inbound::Malformed { peer, .. }) = &inbound;
        if self.leaving.contains(peer) {
            return;
        }
        let (from, reason) = match inbound {
            Inbound::Frames { peer, frames, held: _held } => {
                let Some(node) = peer::node_id(&peer) else { return };
                let mut fault = None;
                self.dial(ctx, dialer::Input::Heard { peer: node });
                for frame in frames {
                    if self.leaving.contains(&peer) {
                        return;
                    }
                    match Frame::decode(&frame) {
                        Ok(frame) => self.admit(ctx, admission::Input::Frame { peer: node, frame }),
                        Err(error) => {
                            *self.frames_malformed.entry(error.code()).or_default() += 1;
                            if !matches!(error, DecodeError::UnknownKind(_)) {
                                fault = Some(error.to_string());
                                break;
                            }
                        }
                    }
                }
                match fault {
                    Some(reason) => (peer, reason),
                    None => return,
                }
            }
            Inbound::Malformed { peer, reason } => {
                *self.frames_malformed.entry(reason.code()).or_default() += 1;
                (peer, reason.to_string())
            }
        };
        self.common.observe(vec![MeshEvent::BadFrame { from, stream: "control", reason }]);
        self.send_away(from, ctx);
    }

    fn deliver(&self, from: NodeId, frame: Frame) {
        let links = self.common.links();
        match frame {
            Frame::StepRequest { .. } | Frame::StepReply { .. } | Frame::StepAnnounce { .. } => {
                self.common.send(Mailbox::Sync, &links.sync, sync::StepFrame { from, frame });
            }
            Frame::Swim(bytes) => {
                self.common.send(Mailbox::Membership, &links.membership, membership::Packet { from, bytes });
            }
            Frame::Hello { .. } | Frame::Goodbye(_) => unreachable!("admission keeps these"),
        }
    }

    pub(super) fn send_control(&mut self, to: NodeId, frame: &Frame) {
        let control = self.peers.get(&peer::peer_id(&to)).and_then(|info| info.control.as_ref());
        let sent =
            control.is_some_and(|control| control.try_send(Class::Control, frame.encode().into()).is_ok());
        self.control_shed += u64::from(!sent);
    }

    /// Disconnects a peer a little later, deaf to it from now on.
    pub(super) fn part_with(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        if self.peers.contains_key(&peer) && self.leaving.insert(peer) {
            ctx.run_later(FAREWELL, move |actor, _| {
                if actor.leaving.contains(&peer) {
                    actor.disconnect(peer);
                }
            });
        }
    }
}

/// What an operator can do about a refused peer.
fn peer_hint(reason: admission::RefusalReason) -> &'static str {
    use admission::RefusalReason as R;
    match reason {
        R::WrongMesh | R::BadProof => {
            "the other side has another mesh name or secret; give both the same invite or open name"
        }
        R::Version => "run the same version of omnimesh on both sides",
        R::NotAllowed => "add its peer id to `network.allow` to let it in",
        R::HelloTimeout => "it was too slow, or is no OmniMesh node",
        R::UnexpectedFrame => "it does not keep to the protocol",
        R::TooMany => "raise `network.peers_max` to let more in",
    }
}
