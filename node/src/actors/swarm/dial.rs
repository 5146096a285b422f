//! Dialling: the shell of [`omnimesh_protocol::dialer`]. What the network answers is matched to the dial that it is for,
//! and who is to be left alone is dialled by nobody here.

use std::time::Duration;

use actix::prelude::*;
use libp2p::{Multiaddr, PeerId};
use omnimesh_protocol::dialer::{self, DialId};
use omnimesh_protocol::event::Event as MeshEvent;
use omnimesh_protocol::{NodeId, Outbox, Time};

use super::{LinkFailed, SwarmActor};
use crate::swarm::{DialFailure, peer};

/// How long a peer that was sent away for its behaviour is not dialled. As for the first refusal of admission.
pub(super) const SENT_AWAY_FOR: Duration = Duration::from_secs(30);
/// Dials that wait for their answer at most; the dialer has fewer under way.
const DIALS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Dial {
    id: DialId,
    peer: Option<PeerId>,
    addresses: Vec<Multiaddr>,
}

impl SwarmActor {
    pub(super) fn dial(&mut self, ctx: &mut Context<Self>, input: dialer::Input) {
        let mut out = Outbox::new();
        let common = self.common.clone();
        common.guard("swarm", ctx, || {
            self.dialer.handle(self.common.now(), input, &mut self.rng, &mut out);
        });
        for output in out.drain() {
            match output {
                dialer::Output::Dial { dial, peer, addresses } => {
                    self.start_dial(dial, peer, &addresses, ctx);
                }
                dialer::Output::Trim { peer } => self.disconnect(peer::peer_id(&peer)),
                dialer::Output::Event(event) => self.on_dialer_event(event),
                dialer::Output::Timer { at, timer } => {
                    ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.dial(ctx, dialer::Input::Timer(timer));
                    });
                }
            }
        }
    }

    fn start_dial(
        &mut self,
        id: DialId,
        peer: Option<NodeId>,
        addresses: &[String],
        ctx: &mut Context<Self>,
    ) {
        let addresses: Vec<Multiaddr> = addresses.iter().filter_map(|a| a.parse().ok()).collect();
        let peer = peer.map(|peer| peer::peer_id(&peer));
        let is_taken = self.dials.len() < DIALS_MAX
            && self.network.as_ref().is_some_and(|network| network.dial(peer, addresses.clone()).is_ok());
        self.dials.push(Dial {
            id,
            peer,
            addresses: addresses.into_iter().map(peer::without_peer).collect(),
        });
        if !is_taken {
            // Answered from the mailbox, not from within the dialer's own output.
            ctx.notify(DialNotTaken(id));
        }
    }

    fn on_dialer_event(&mut self, event: dialer::Event) {
        let event = match event {
            dialer::Event::BootstrapUnreachable { address, attempts, next_in } => {
                let detail = format!(
                    "bootstrap {address} does not answer (attempt {attempts}); trying again in {:.0} s",
                    next_in.as_secs_f64().ceil()
                );
                tracing::warn!("{detail}");
                self.common.set_bootstrap_trouble(Some(detail.clone()));
                MeshEvent::Error { kind: "bootstrap_unreachable", detail }
            }
            dialer::Event::BootstrapMute { address, attempts, next_in } => {
                let detail = format!(
                    "bootstrap {address} closes the connection before it says anything (attempt {attempts}): it may have this \
                     node in quarantine, which `omnimesh quarantine list` says there, or have no room; trying again in {:.0} s",
                    next_in.as_secs_f64().ceil()
                );
                tracing::warn!("{detail}");
                self.common.set_bootstrap_trouble(Some(detail.clone()));
                MeshEvent::Error { kind: "bootstrap_mute", detail }
            }
            dialer::Event::BootstrapConnected { peer, .. } => {
                tracing::info!(%peer, "bootstrap node reached");
                self.common.set_bootstrap_trouble(None);
                return;
            }
            dialer::Event::BootstrapIsSelf { address } => {
                let detail = format!("bootstrap {address} is this node itself; it is not dialled again");
                tracing::warn!("{detail}");
                MeshEvent::Error { kind: "bootstrap_is_self", detail }
            }
        };
        self.common.observe(vec![event]);
    }

    pub(super) fn on_dial_failed(
        &mut self,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        kind: DialFailure,
        reason: &str,
        ctx: &mut Context<Self>,
    ) {
        tracing::debug!(?peer, ?addresses, ?kind, reason, "dial failed");
        if let Some(peer) = peer.filter(|_| kind != DialFailure::AlreadyConnected) {
            self.answer(&peer, &Err(LinkFailed::Dial(reason.to_owned())));
        }
        if let Some(dial) = self.take_dial(peer, addresses) {
            let is_self = kind == DialFailure::Myself;
            self.dial(ctx, dialer::Input::DialFailed { dial, is_self });
        }
    }

    /// The dial that such an answer is for.
    pub(super) fn take_dial(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr]) -> Option<DialId> {
        let is_at = |dial: &Dial| {
            addresses.iter().any(|address| dial.addresses.contains(&peer::without_peer(address.clone())))
        };
        let at = self
            .dials
            .iter()
            .position(|dial| dial.peer.is_some() && dial.peer == peer)
            .or_else(|| self.dials.iter().position(is_at))?;
        Some(self.dials.swap_remove(at).id)
    }

    pub(super) fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr], ctx: &mut Context<Self>) {
        let Some(peer) = peer::node_id(&peer) else { return };
        let addresses = addresses.iter().map(ToString::to_string).collect();
        self.dial(ctx, dialer::Input::Learned { peer, addresses, source: dialer::Source::Hint });
    }

    /// Disconnects a peer that misbehaved, and does not dial it for a while.
    pub(super) fn send_away(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        self.disconnect(peer);
        if let Some(peer) = peer::node_id(&peer) {
            let until = self.common.now() + SENT_AWAY_FOR;
            self.leave_alone(peer, until, ctx);
        }
    }

    /// Nothing here dials the peer until then: neither the dialer nor, by itself, the network.
    pub(super) fn leave_alone(&mut self, peer: NodeId, until: Time, ctx: &mut Context<Self>) {
        if let Some(network) = &self.network {
            // A busy network that does not take it leaves the dialer's part.
            let _ = network.leave_alone(peer::peer_id(&peer), self.common.until(until));
        }
        self.dial(ctx, dialer::Input::Refused { peer, until });
    }
}

/// A dial could not even be begun.
#[derive(Message)]
#[rtype(result = "()")]
struct DialNotTaken(DialId);

impl Handler<DialNotTaken> for SwarmActor {
    type Result = ();

    fn handle(&mut self, DialNotTaken(dial): DialNotTaken, ctx: &mut Self::Context) {
        self.dials.retain(|waiting| waiting.id != dial);
        self.dial(ctx, dialer::Input::DialFailed { dial, is_self: false });
    }
}
