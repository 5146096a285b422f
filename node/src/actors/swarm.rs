//! The swarm: the shell of [`omnimesh_protocol::admission`] and [`omnimesh_protocol::dialer`] around the
//! libp2p network. It knows who is connected, lets members in, and carries the control frames of the
//! other actors.
//!
//! ```text
//!   Network ── events ──► connections (here) ──► admit: who is a member, control frames ──► SyncActor, MembershipActor
//!                                            ├─► dial: whom to connect to ──► Network
//!                                            └─► streams: whose are they ──► GossipActor; of members: log, blobs, compute
//! ```

mod admit;
mod dial;
mod requests;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use actix::prelude::*;
use futures::{Stream, stream};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use omnimesh_protocol::dialer::{self, BookEntry};
use omnimesh_protocol::event::Event as MeshEvent;
use omnimesh_protocol::observer;
use omnimesh_protocol::{NodeId, Time, admission};
use rand_chacha::ChaCha20Rng;
use tokio::sync::{mpsc, oneshot};

use super::{Common, MAILBOX, Mailbox, gossip as gossip_actor, lock, membership};
use crate::store::Store;
use crate::swarm::{Event, Inbound, NetworkHandle, Outbound, StreamKind, peer};

use dial::Dial;
pub(crate) use requests::{
    AwaitLink, Begin, Close, Disconnect, GetPeers, GetSummary, LetIn, LinkFailed, MemberAddresses,
    MemberGone, Reintroduce, SendControl, ShutOut, Summary,
};

/// How often Kademlia is asked for peers.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often the address book is kept, if it has changed: a node that is killed soon after it has joined has to find the
/// others again.
const BOOK_KEPT: Duration = Duration::from_secs(2);
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
pub(crate) struct SwarmActor {
    pub(super) common: Common,
    settings: Settings,
    network: Option<NetworkHandle>,
    receivers: Arc<Mutex<Option<Receivers>>>,
    admission: admission::State,
    dialer: dialer::State,
    /// The address book as it was written last.
    kept: Vec<BookEntry>,
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
            kept: settings.book.clone(),
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

    fn disconnect(&self, peer: PeerId) {
        if let Some(network) = &self.network
            && let Err(error) = network.disconnect(peer)
        {
            tracing::warn!(%peer, %error, "cannot disconnect");
        }
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

    fn on_identified(&mut self, peer: PeerId, agent: String, listen: &[Multiaddr], ctx: &mut Context<Self>) {
        let Some(info) = self.peers.get_mut(&peer) else { return };
        info.agent = Some(agent);
        info.listen = listen.iter().map(ToString::to_string).collect();
        self.learn(peer, listen, ctx);
    }

    fn on_foreign_mesh(&mut self, peer: PeerId, mesh: &str, ctx: &mut Context<Self>) {
        if let (Some(node), Ok(mesh)) = (peer::node_id(&peer), mesh.parse())
            && !self.leaving.contains(&peer)
        {
            self.admit(ctx, admission::Input::ForeignMesh { peer: node, mesh });
        }
    }

    fn housekeeping(&mut self) {
        if let Some(network) = &self.network {
            let _ = network.bootstrap();
        }
    }

    fn keep_book(&mut self) {
        let Some(store) = self.settings.store.clone() else { return };
        let book = self.dialer.book();
        if book == self.kept {
            return;
        }
        self.kept.clone_from(&book);
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
        let mut guard = lock(&receivers);
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
        ctx.run_interval(BOOK_KEPT, |actor, _| actor.keep_book());
        if self.network.is_some() {
            ctx.add_stream(arrivals(Arc::clone(&self.receivers)));
        }
    }
}

impl Supervised for SwarmActor {
    fn restarting(&mut self, ctx: &mut Self::Context) {
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
