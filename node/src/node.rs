//! A node, as a library user and the command line see it.

pub(crate) mod channels;
pub(crate) mod start;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use libp2p::Multiaddr;
use omnimesh_protocol::config::Config;
use omnimesh_protocol::event::{Event, Stream as EventStream};
use omnimesh_protocol::membership::Member;
use omnimesh_protocol::mesh::Invite;
use omnimesh_protocol::observer::NetworkMetrics;
use omnimesh_protocol::{Mesh, NodeId, Step};
use prometheus_client::registry::Registry;

use crate::actors::observer::{Observed, Watch};
use crate::actors::swarm::{self, LinkFailed, own_addresses};
use crate::actors::{Common, Links, gossip, membership, sync};
use crate::api::ApiServer;
use crate::audit::AuditLog;
use crate::backend::NodeBackend;
use crate::clock::SharedClock;
use crate::feed::{Feed, FeedItem};
use crate::metrics::Latest;

/// The node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// What a node knows of others when it starts, and so what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outset {
    /// Bootstrap addresses that it dials.
    pub bootstrap: usize,
    /// Peers that an earlier run of it has met, which it dials as well.
    pub met: usize,
    /// Whether it looks for others on the local network.
    pub searches: bool,
    /// How long it waits for somebody's step before it takes part without: not at all if it founds the mesh. `None` if
    /// it cannot, because no earlier run of it has had the mesh's time.
    pub alone_after: Option<Duration>,
}

/// A running node. Cheap to clone; the node runs until [`MeshNode::shutdown`], or until its actix system ends.
///
/// Two nodes in one process, over libp2p's memory transport:
///
/// ```
/// use omnimesh_node::{MeshNode, NodeOptions};
/// use omnimesh_protocol::{Identity, Mesh};
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = Mesh::open("example")?;
/// let alice = MeshNode::start(NodeOptions::in_memory(Identity::from_seed(&[1; 32]), mesh.clone())).await?;
///
/// let mut options = NodeOptions::in_memory(Identity::from_seed(&[2; 32]), mesh);
/// options.config.network.bootstrap = alice.bootstrap_addresses();
/// let bob = MeshNode::start(options).await?;
/// bob.wait_ready().await?;
///
/// let mut news = bob.subscribe("news").await?;
/// // Subscriptions spread with the next frames; until then there are no recipients.
/// while alice.broadcast("news", "hello").await?.recipients == 0 {
///     tokio::task::yield_now().await;
/// }
/// let message = news.receive().await.expect("the node runs");
/// assert_eq!((message.author, &message.payload[..]), (alice.peer_id(), &b"hello"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MeshNode(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) me: NodeId,
    pub(crate) mesh: Mesh,
    pub(crate) config: Config,
    pub(crate) common: Common,
    pub(crate) clock: SharedClock,
    pub(crate) external: Vec<Multiaddr>,
    pub(crate) outset: Outset,
    pub(crate) registry: Registry,
    pub(crate) latest: Latest,
    pub(crate) audit: Option<AuditLog>,
    links: RwLock<Option<Links>>,
    listening: Vec<Multiaddr>,
    api_address: Mutex<Option<SocketAddr>>,
    api: Mutex<Option<ApiServer>>,
}

impl Inner {
    pub(crate) fn links(&self) -> Result<Links, Stopped> {
        self.with_links(Links::clone)
    }

    /// What is wanted of the actors, without a copy of all of them.
    pub(crate) fn with_links<R>(&self, take: impl FnOnce(&Links) -> R) -> Result<R, Stopped> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(take).ok_or(Stopped)
    }
}

impl MeshNode {
    /// Who it is.
    pub fn peer_id(&self) -> NodeId {
        self.0.me
    }

    /// Its mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.0.mesh
    }

    /// Where peers reach it: the configured external addresses, then what it listens on.
    pub fn listen_addresses(&self) -> Vec<String> {
        own_addresses(&self.0.listening, &self.0.external)
    }

    /// The same with `/p2p/<peer id>` at the end, as other nodes' bootstrap addresses.
    pub fn bootstrap_addresses(&self) -> Vec<String> {
        bootstrap_addresses(&self.0)
    }

    /// Where its API is, if it has one.
    pub fn api_address(&self) -> Option<SocketAddr> {
        *self.0.api_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that another node needs to join the mesh through this one. Holds the mesh secret. Has loopback addresses only if
    /// the node has no others.
    pub fn invite(&self) -> Invite {
        invite(&self.0)
    }

    /// What it knew when it started, and so what it waits for.
    pub fn outset(&self) -> Outset {
        self.0.outset
    }

    /// Waits until the node has the mesh's step, and so takes part.
    ///
    /// # Errors
    /// If the node stopped before.
    pub async fn wait_ready(&self) -> Result<(), Stopped> {
        self.until_stopped(self.0.clock.wait_until(|_| true)).await
    }

    /// Waits until the mesh has come to `target`.
    ///
    /// # Errors
    /// If the node stopped before.
    pub async fn sync(&self, target: Step) -> Result<Step, Stopped> {
        let Inner { common, clock, .. } = &*self.0;
        let arrive = async {
            loop {
                clock.wait_until(|_| true).await;
                let now = common.now();
                match (clock.step(now), clock.next_step_at(now)) {
                    (Some(step), _) if step >= target => return step,
                    // The clock may be set forward at any time: look again when it is, or when a step ends.
                    (_, Some(next)) => {
                        let changed = clock.wait_until(|clock| clock.step(common.now()) >= target);
                        let _ = tokio::time::timeout(common.until(next), changed).await;
                    }
                    (_, None) => {}
                }
            }
        };
        self.until_stopped(arrive).await
    }

    #[cfg(test)]
    pub(crate) fn links(&self) -> Links {
        self.0.links().expect("the node runs")
    }

    /// How often one of its actors failed and was started anew.
    pub fn restarts(&self) -> u64 {
        self.0.common.restarts()
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            done = work => Ok(done),
            () = self.0.common.stopped() => Err(Stopped),
        }
    }

    /// What it holds for the mesh's time, to the microsecond; `None` while the node is not synchronised.
    pub(crate) fn mesh_time(&self) -> Option<Duration> {
        self.0.clock.mesh_time_us(self.0.common.now()).map(Duration::from_micros)
    }

    /// The mesh's step; `None` while the node is not synchronised.
    pub fn step(&self) -> Option<Step> {
        self.0.clock.step(self.0.common.now())
    }

    /// All events from now on, until the feed is dropped.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn events(&self) -> Result<Feed<Observed>, Stopped> {
        self.0.links()?.observer.send(Watch).await.map_err(|_| Stopped)
    }

    /// Calls `handler` with each error and security event, on the current arbiter, for as long as the node runs.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn on_error(
        &self,
        mut handler: impl FnMut(Event<libp2p::PeerId>) + 'static,
    ) -> Result<(), Stopped> {
        let mut events = self.events().await?;
        actix_rt::spawn(async move {
            while let Some(item) = events.next().await {
                if let FeedItem::Next(Observed { event, .. }) = item
                    && matches!(event.stream(), EventStream::Error | EventStream::Security)
                {
                    handler(event);
                }
            }
        });
        Ok(())
    }

    /// The members, this node among them.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn members(&self) -> Result<Vec<Member>, Stopped> {
        let (_, members) =
            self.0.links()?.membership.send(membership::GetMembers).await.map_err(|_| Stopped)?;
        Ok(members)
    }

    /// Rates, latencies and health.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn metrics(&self) -> Result<NetworkMetrics, Stopped> {
        NodeBackend::new(&self.0).network_metrics().await.map_err(|_| Stopped)
    }

    /// Everything that `/metrics` says, in the OpenMetrics text format, for a program that exports it itself.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn metrics_text(&self) -> Result<String, Stopped> {
        NodeBackend::new(&self.0).read_metrics().await.map_err(|_| Stopped)
    }

    /// What the gossip router has counted since it began.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn gossip_stats(&self) -> Result<omnimesh_protocol::gossip::Stats, Stopped> {
        let snapshot = self.0.links()?.gossip.send(gossip::GetSnapshot).await.map_err(|_| Stopped)?;
        Ok(snapshot.gossip)
    }

    /// Waits until a peer is connected, a member, and gossiped with; dials it first if an address is given.
    pub(crate) async fn link(&self, peer: NodeId, address: Option<Multiaddr>) -> Result<(), LinkFailed> {
        let (answer, linked) = tokio::sync::oneshot::channel();
        let links = self.0.links().map_err(|_| LinkFailed::Stopped)?;
        let link = swarm::AwaitLink { peer, address, answer };
        links.swarm.send(link).await.map_err(|_| LinkFailed::Stopped)?;
        linked.await.unwrap_or(Err(LinkFailed::Stopped))
    }

    /// Leaves the mesh and stops, in good order. What other clones of this handle ask for fails from then on.
    pub async fn shutdown(self) {
        let Ok(links) = self.0.links() else { return };
        let api = self.0.api.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(api) = api {
            api.stop().await;
        }
        // Each of these has worked its message off when it answers; a stopped one needs none.
        let _ = links.membership.send(membership::Leave).await;
        let _ = links.sync.send(sync::Close).await;
        let _ = links.swarm.send(swarm::Close).await;
        if let Some(audit) = &self.0.audit {
            audit.record("stop", "node", self.0.clock.step(self.0.common.now()), "in good order");
        }
        self.0.common.stop();
        self.0.links.write().unwrap_or_else(PoisonError::into_inner).take();
        links.stop().await;
        if let Some(audit) = self.0.audit.clone() {
            let _ = actix_rt::task::spawn_blocking(move || audit.close()).await;
        }
    }
}

pub(crate) fn bootstrap_addresses(inner: &Inner) -> Vec<String> {
    let own = own_addresses(&inner.listening, &inner.external);
    own.into_iter().map(|address| format!("{address}/p2p/{}", inner.me)).collect()
}

pub(crate) fn invite(inner: &Inner) -> Invite {
    Invite::new(inner.mesh.clone(), bootstrap_addresses(inner))
}
