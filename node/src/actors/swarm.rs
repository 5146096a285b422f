//! The swarm: the shell of [`omnimesh_protocol::admission`] and [`omnimesh_protocol::dialer`] around the
//! libp2p network. It knows who is connected, lets members in, and carries the control frames of the
//! other actors.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use actix::prelude::*;
use futures::{Stream, stream};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use omnimesh_protocol::control::{DecodeError, Frame};
use omnimesh_protocol::dialer::{self, BookEntry, DialId};
use omnimesh_protocol::event::Event as MeshEvent;
use omnimesh_protocol::observer;
use omnimesh_protocol::{NodeId, Outbox, Time, admission, gossip};
use rand_chacha::ChaCha20Rng;
use tokio::sync::{mpsc, oneshot};

use super::blob::BlobActor;
use super::compute::ComputeActor;
use super::log::LogActor;
use super::members::{PeerDown, PeerUp};
use super::{Common, MAILBOX, Mailbox, WeakLinks, gossip as gossip_actor, membership, sync};
use crate::store::Store;
use crate::swarm::{
    Class, DialFailure, DownReason, Event, Inbound, NetworkHandle, Outbound, Source, StreamKind, peer,
};

use requests::DialNotTaken;
pub(crate) use requests::{
    AwaitLink, Begin, Close, Disconnect, GetPeers, GetSummary, LinkFailed, MemberAddresses, MemberGone,
    Reintroduce, SendControl, Summary,
};

/// How often the address book is kept, and Kademlia asked for peers.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How long a refused peer stays connected, so that it reads the last words, and identify tells it who we are: it
/// is to learn why. Nothing that it says meanwhile is heard. Source: guess, some round trips on earth.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a peer that was sent away for its behaviour is not dialled. As for the first refusal of admission.
const SENT_AWAY_FOR: Duration = Duration::from_secs(30);
/// Dials that wait for their answer at most; the dialer has fewer under way.
const DIALS_MAX: usize = 64;
/// The streams that are for members only.
const MEMBER_STREAMS: [StreamKind; 3] = [StreamKind::Log, StreamKind::Blob, StreamKind::Compute];
/// Links that are waited for at most.
const AWAITED_MAX: usize = 1024;

/// What the actor starts, and restarts, with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) me: NodeId,
    pub(crate) admission: admission::Config,
    pub(crate) dialer: dialer::Config,
    pub(crate) bootstrap: Vec<dialer::Bootstrap>,
    pub(crate) mesh: omnimesh_protocol::Mesh,
    pub(crate) book: Vec<BookEntry>,
    pub(crate) store: Option<Arc<Store>>,
    /// Told to peers instead of what the node sees, if not empty.
    pub(crate) external: Vec<Multiaddr>,
    /// Somebody else says who is connected to whom. The dialer does not begin, and membership is not told of
    /// anybody: it would speak to members at random, and take those for dead to whom there is no link.
    pub(crate) is_plugged: bool,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub(crate) struct PeerInfo {
    pub(crate) address: Multiaddr,
    pub(crate) outbound: bool,
    pub(crate) since: Time,
    pub(crate) gossip: Option<StreamProtocol>,
    pub(crate) agent: Option<String>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) is_member: bool,
    listen: Vec<String>,
    control: Option<Outbound>,
    gossip_outbound: Option<Outbound>,
    /// Those for members only.
    member_streams: BTreeMap<StreamKind, Outbound>,
}

#[derive(Debug)]
struct Dial {
    id: DialId,
    peer: Option<PeerId>,
    addresses: Vec<Multiaddr>,
}

#[derive(Debug)]
pub(crate) struct SwarmActor {
    pub(super) common: Common,
    settings: Settings,
    network: Option<NetworkHandle>,
    receivers: Arc<Mutex<Option<Receivers>>>,
    admission: admission::State,
    dialer: dialer::State,
    rng: ChaCha20Rng,
    peers: BTreeMap<PeerId, PeerInfo>,
    /// Refused, and about to be disconnected.
    leaving: BTreeSet<PeerId>,
    dials: Vec<Dial>,
    listening: Vec<Multiaddr>,
    control_shed: u64,
    /// By reason.
    frames_malformed: BTreeMap<&'static str, u64>,
    /// Who waits until a peer is a member and gossiped with; at most [`AWAITED_MAX`].
    awaited: Vec<(PeerId, oneshot::Sender<Result<(), LinkFailed>>)>,
}

#[derive(Debug)]
struct Receivers {
    events: mpsc::Receiver<Event>,
    control: mpsc::Receiver<Inbound>,
}

/// What the two channels bring.
#[derive(Debug)]
enum Arrival {
    Event(Event),
    Control(Inbound),
}

impl SwarmActor {
    pub(crate) fn new(common: Common, settings: Settings) -> Self {
        let admission = admission::State::new(settings.admission.clone(), settings.mesh.clone(), settings.me);
        let dialer = dialer::State::new(settings.dialer.clone(), settings.me, settings.bootstrap.clone());
        SwarmActor {
            common,
            settings,
            network: None,
            receivers: Arc::default(),
            admission,
            dialer,
            rng: super::rng(),
            peers: BTreeMap::new(),
            leaving: BTreeSet::new(),
            dials: Vec::new(),
            listening: Vec::new(),
            control_shed: 0,
            frames_malformed: BTreeMap::new(),
            awaited: Vec::new(),
        }
    }

    fn admit(&mut self, ctx: &mut Context<Self>, input: admission::Input) {
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
    fn introduce(&mut self, member: NodeId) {
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

    fn send_control(&mut self, to: NodeId, frame: &Frame) {
        let control = self.peers.get(&peer::peer_id(&to)).and_then(|info| info.control.as_ref());
        let sent =
            control.is_some_and(|control| control.try_send(Class::Control, frame.encode().into()).is_ok());
        self.control_shed += u64::from(!sent);
    }

    fn disconnect(&self, peer: PeerId) {
        if let Some(network) = &self.network
            && let Err(error) = network.disconnect(peer)
        {
            tracing::warn!(%peer, %error, "cannot disconnect");
        }
    }

    /// Disconnects a peer a little later, deaf to it from now on.
    fn part_with(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        if self.peers.contains_key(&peer) && self.leaving.insert(peer) {
            ctx.run_later(FAREWELL, move |actor, _| {
                if actor.leaving.contains(&peer) {
                    actor.disconnect(peer);
                }
            });
        }
    }

    /// Disconnects a peer that misbehaved, and does not dial it for a while.
    fn send_away(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        self.disconnect(peer);
        if let Some(peer) = peer::node_id(&peer) {
            let until = self.common.now() + SENT_AWAY_FOR;
            self.leave_alone(peer, until, ctx);
        }
    }

    /// Nothing here dials the peer until then: neither the dialer nor, by itself, the network.
    fn leave_alone(&mut self, peer: NodeId, until: Time, ctx: &mut Context<Self>) {
        if let Some(network) = &self.network {
            // A busy network that does not take it leaves the dialer's part.
            let _ = network.leave_alone(peer::peer_id(&peer), self.common.until(until));
        }
        self.dial(ctx, dialer::Input::Refused { peer, until });
    }

    fn dial(&mut self, ctx: &mut Context<Self>, input: dialer::Input) {
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

    fn on_event(&mut self, event: Event, ctx: &mut Context<Self>) {
        match event {
            Event::Listening { address } => self.on_listening(address),
            Event::ListenFailed { addresses, reason } => {
                self.listening.retain(|address| !addresses.contains(address));
                let detail = format!("no longer listening on {addresses:?}: {reason}");
                self.common.observe(vec![MeshEvent::Error { kind: "listen_failed", detail }]);
            }
            Event::Connected { peer, outbound, address, connections } => {
                self.on_connected(peer, outbound, address, connections, ctx);
            }
            Event::Closed { peer, address } => {
                let ip = ip_of(&address);
                self.common.notice(vec![observer::Input::Disconnected { peer, ip, is_last: false }]);
            }
            Event::Disconnected { peer, reason } => self.on_disconnected(peer, reason, ctx),
            Event::DialFailed { peer, addresses, kind, reason } => {
                self.on_dial_failed(peer, &addresses, kind, &reason, ctx);
            }
            Event::Identified { peer, agent, listen, .. } => self.on_identified(peer, agent, &listen, ctx),
            Event::ForeignMesh { peer, mesh } => self.on_foreign_mesh(peer, &mesh, ctx),
            Event::Discovered { peer, addresses, source } => {
                tracing::debug!(%peer, ?source, "discovered");
                self.learn(peer, &addresses, ctx);
                debug_assert!(matches!(source, Source::Mdns | Source::Kademlia));
            }
            Event::Rtt { peer, rtt } => {
                if let Some(info) = self.peers.get_mut(&peer) {
                    info.rtt = Some(rtt);
                }
                if let Some(peer) = peer::node_id(&peer) {
                    self.dial(ctx, dialer::Input::Heard { peer });
                    let links = self.common.links();
                    self.common.send(Mailbox::Membership, &links.membership, membership::Rtt { peer, rtt });
                }
            }
            Event::StreamUp { peer, kind, protocol, outbound } => {
                self.on_stream_up(peer, kind, protocol, outbound, ctx);
            }
            Event::StreamDown { peer, kind, reason } => self.on_stream_down(peer, kind, &reason),
            Event::StreamUnsupported { peer, kind } => {
                tracing::debug!(%peer, kind = kind.name(), "the peer does not speak this protocol");
            }
        }
    }

    fn on_listening(&mut self, address: Multiaddr) {
        if !self.listening.contains(&address) {
            self.listening.push(address);
        }
        let own = membership::OwnAddresses(self.own_addresses());
        self.common.send(Mailbox::Membership, &self.common.links().membership, own);
    }

    /// Where this node can be reached, as it tells others.
    fn own_addresses(&self) -> Vec<String> {
        own_addresses(&self.listening, &self.settings.external)
    }

    fn on_connected(
        &mut self,
        peer: PeerId,
        outbound: bool,
        address: Multiaddr,
        connections: u32,
        ctx: &mut Context<Self>,
    ) {
        let (ip, is_inbound) = (ip_of(&address), !outbound);
        self.common.notice(vec![observer::Input::Connected { peer, ip, is_inbound }]);
        let dial = outbound.then(|| self.take_dial(Some(peer), std::slice::from_ref(&address))).flatten();
        if connections > 1 {
            // The dialer already counts the peer; its dial is answered all the same.
            if let Some(dial) = dial {
                self.dial(ctx, dialer::Input::DialFailed { dial, is_self: false });
            }
            return;
        }
        let detail = format!("{} {address}", if outbound { "dialled" } else { "from" });
        self.common.observe(vec![MeshEvent::PeerUp { peer, what: "connected", detail }]);
        self.peers.insert(
            peer,
            PeerInfo {
                address,
                outbound,
                since: self.common.now(),
                gossip: None,
                agent: None,
                rtt: None,
                is_member: false,
                listen: Vec::new(),
                control: None,
                gossip_outbound: None,
                member_streams: BTreeMap::new(),
            },
        );
        match peer::node_id(&peer) {
            Some(peer) => self.dial(ctx, dialer::Input::Connected { peer, dial }),
            None => {
                if let Some(dial) = dial {
                    self.dial(ctx, dialer::Input::DialFailed { dial, is_self: false });
                }
            }
        }
    }

    /// Tells those who wait for this peer, if it is there.
    fn answer_awaited(&mut self, peer: &PeerId) {
        let is_linked =
            self.peers.get(peer).is_some_and(|info| info.is_member && info.gossip_outbound.is_some());
        if is_linked && !self.awaited.is_empty() {
            self.answer(peer, &Ok(()));
        }
    }

    fn answer(&mut self, peer: &PeerId, result: &Result<(), LinkFailed>) {
        for (_, answer) in self.awaited.extract_if(.., |(awaited, _)| awaited == peer) {
            let _ = answer.send(result.clone());
        }
    }

    fn on_disconnected(&mut self, peer: PeerId, reason: String, ctx: &mut Context<Self>) {
        self.answer(&peer, &Err(LinkFailed::Disconnected(reason.clone())));
        self.peers.remove(&peer);
        self.leaving.remove(&peer);
        let links = self.common.links();
        self.common.send(Mailbox::Gossip, &links.gossip, gossip_actor::PeerDown(peer));
        self.part(peer);
        self.common.observe(vec![MeshEvent::PeerDown { peer, detail: reason }]);
        self.common.notice(vec![observer::Input::Disconnected { peer, ip: None, is_last: true }]);
        if let Some(peer) = peer::node_id(&peer) {
            self.admit(ctx, admission::Input::Disconnected { peer });
            self.dial(ctx, dialer::Input::Disconnected { peer });
        }
    }

    fn on_dial_failed(
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
    fn take_dial(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr]) -> Option<DialId> {
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

    fn on_identified(&mut self, peer: PeerId, agent: String, listen: &[Multiaddr], ctx: &mut Context<Self>) {
        let Some(info) = self.peers.get_mut(&peer) else { return };
        info.agent = Some(agent);
        info.listen = listen.iter().map(ToString::to_string).collect();
        self.learn(peer, listen, ctx);
    }

    fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr], ctx: &mut Context<Self>) {
        let Some(peer) = peer::node_id(&peer) else { return };
        let addresses = addresses.iter().map(ToString::to_string).collect();
        self.dial(ctx, dialer::Input::Learned { peer, addresses, source: dialer::Source::Hint });
    }

    fn on_foreign_mesh(&mut self, peer: PeerId, mesh: &str, ctx: &mut Context<Self>) {
        if let (Some(node), Ok(mesh)) = (peer::node_id(&peer), mesh.parse())
            && !self.leaving.contains(&peer)
        {
            self.admit(ctx, admission::Input::ForeignMesh { peer: node, mesh });
        }
    }

    fn on_stream_up(
        &mut self,
        peer: PeerId,
        kind: StreamKind,
        protocol: StreamProtocol,
        outbound: Outbound,
        ctx: &mut Context<Self>,
    ) {
        let Some(info) = self.peers.get_mut(&peer) else { return };
        match kind {
            StreamKind::Gossip => {
                info.gossip = Some(protocol);
                info.gossip_outbound = Some(outbound);
                self.introduce_to_gossip(peer);
                self.answer_awaited(&peer);
            }
            StreamKind::Control => {
                info.control = Some(outbound);
                if let Some(node) = peer::node_id(&peer)
                    && !self.leaving.contains(&peer)
                {
                    self.admit(ctx, admission::Input::ControlOpened { peer: node });
                }
            }
            StreamKind::Log | StreamKind::Blob | StreamKind::Compute => {
                info.member_streams.insert(kind, outbound);
                self.introduce_on(peer, kind);
            }
        }
    }

    fn introduce_to_gossip(&self, peer: PeerId) {
        let Some(info) = self.peers.get(&peer) else { return };
        let (Some(protocol), Some(outbound)) = (&info.gossip, &info.gossip_outbound) else { return };
        let up = gossip_actor::PeerUp {
            peer,
            outbound: outbound.clone(),
            protocol: gossip_protocol(protocol),
            direction: if info.outbound { gossip::Direction::Outbound } else { gossip::Direction::Inbound },
            ip: ip_of(&info.address),
        };
        self.common.send(Mailbox::Gossip, &self.common.links().gossip, up);
    }

    /// Makes a peer known to those whose streams are for members, once it is one.
    fn introduce_streams(&self, peer: PeerId) {
        MEMBER_STREAMS.into_iter().for_each(|kind| self.introduce_on(peer, kind));
    }

    fn introduce_on(&self, peer: PeerId, kind: StreamKind) {
        let Some((node, info)) = peer::node_id(&peer).zip(self.peers.get(&peer)) else { return };
        let (true, Some(outbound)) = (info.is_member, info.member_streams.get(&kind)) else { return };
        self.tell(kind, PeerUp { peer, node, outbound: outbound.clone() });
    }

    fn part(&self, peer: PeerId) {
        MEMBER_STREAMS.into_iter().for_each(|kind| self.part_on(peer, kind));
    }

    fn part_on(&self, peer: PeerId, kind: StreamKind) {
        self.tell(kind, PeerDown(peer));
    }

    /// Tells whose streams are of this kind.
    fn tell<M>(&self, kind: StreamKind, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        LogActor: Handler<M>,
        BlobActor: Handler<M>,
        ComputeActor: Handler<M>,
    {
        let WeakLinks { log, blobs, compute, .. } = self.common.links();
        match kind {
            StreamKind::Gossip | StreamKind::Control => {}
            StreamKind::Log => {
                if let Some(log) = log {
                    self.common.send(Mailbox::Log, log, message);
                }
            }
            StreamKind::Blob => {
                if let Some(blobs) = blobs {
                    self.common.send(Mailbox::Blobs, blobs, message);
                }
            }
            StreamKind::Compute => {
                if let Some(compute) = compute {
                    self.common.send(Mailbox::Compute, compute, message);
                }
            }
        }
    }

    fn on_stream_down(&mut self, peer: PeerId, kind: StreamKind, reason: &DownReason) {
        tracing::debug!(%peer, kind = kind.name(), %reason, "stream down");
        let Some(info) = self.peers.get_mut(&peer) else { return };
        match kind {
            StreamKind::Gossip => {
                (info.gossip, info.gossip_outbound) = (None, None);
                self.common.send(Mailbox::Gossip, &self.common.links().gossip, gossip_actor::PeerDown(peer));
            }
            StreamKind::Control => info.control = None,
            StreamKind::Log | StreamKind::Blob | StreamKind::Compute => {
                info.member_streams.remove(&kind);
                self.part_on(peer, kind);
            }
        }
    }

    fn on_control(&mut self, inbound: Inbound, ctx: &mut Context<Self>) {
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

    fn housekeeping(&mut self) {
        if let Some(network) = &self.network {
            let _ = network.bootstrap();
        }
        let Some(store) = self.settings.store.clone() else { return };
        let book = self.dialer.book();
        drop(actix_rt::task::spawn_blocking(move || {
            if let Err(error) = store.save_address_book(&book) {
                tracing::warn!(%error, "the address book was not kept");
            }
        }));
    }

    fn begin_machines(&mut self, ctx: &mut Context<Self>) {
        if self.settings.is_plugged {
            return;
        }
        self.dial(ctx, dialer::Input::Book(self.settings.book.clone()));
        self.dial(ctx, dialer::Input::Start);
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

fn gossip_protocol(protocol: &StreamProtocol) -> gossip::Protocol {
    match protocol.as_ref() {
        "/meshsub/1.0.0" => gossip::Protocol::Meshsub10,
        "/meshsub/1.1.0" => gossip::Protocol::Meshsub11,
        "/meshsub/1.2.0" => gossip::Protocol::Meshsub12,
        _ => gossip::Protocol::Omnimesh1,
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// Where a node that listens there can be reached: the external addresses, then what it listens on, loopback last
/// since it serves only this machine.
pub(crate) fn own_addresses(listening: &[Multiaddr], external: &[Multiaddr]) -> Vec<String> {
    let is_loopback = |address: &&Multiaddr| ip_of(address).is_some_and(|ip| ip.is_loopback());
    let listening = listening.iter().filter(|a| !is_loopback(a)).chain(listening.iter().filter(is_loopback));
    external.iter().chain(listening).map(ToString::to_string).collect()
}

fn arrivals(receivers: Arc<Mutex<Option<Receivers>>>) -> impl Stream<Item = Arrival> {
    stream::poll_fn(move |cx| {
        let mut guard = receivers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Receivers { events, control }) = &mut *guard else { return Poll::Ready(None) };
        // Events first: a frame may come from a peer whose connection is still to be told.
        match events.poll_recv(cx) {
            Poll::Ready(Some(event)) => return Poll::Ready(Some(Arrival::Event(event))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        control.poll_recv(cx).map(|inbound| inbound.map(Arrival::Control))
    })
}

impl Actor for SwarmActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(HOUSEKEEPING, |actor, _| actor.housekeeping());
        if self.network.is_some() {
            ctx.add_stream(arrivals(Arc::clone(&self.receivers)));
        }
    }
}

impl Supervised for SwarmActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        if self.common.is_stopping() {
            return ctx.stop();
        }
        let Settings { me, admission, dialer, bootstrap, mesh, .. } = &self.settings;
        self.admission = admission::State::new(admission.clone(), mesh.clone(), *me);
        let book = self.dialer.book();
        self.dialer = dialer::State::new(dialer.clone(), *me, bootstrap.clone());
        self.settings.book = book;
        self.dials.clear();
        self.leaving.clear();
        self.begin_machines(ctx);
        // Connections are made anew: the peers' machines and ours begin together.
        for peer in self.peers.keys() {
            self.disconnect(*peer);
        }
    }
}

impl StreamHandler<Arrival> for SwarmActor {
    fn handle(&mut self, arrival: Arrival, ctx: &mut Self::Context) {
        match arrival {
            Arrival::Event(event) => self.on_event(event, ctx),
            Arrival::Control(inbound) => self.on_control(inbound, ctx),
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
