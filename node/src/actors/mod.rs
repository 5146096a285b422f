//! The actors: one supervised shell for each duty of a node.
//!
//! ```text
//!            events, control frames                 gossip frames
//!  Network ──────────────► SwarmActor     Network ───────────────► GossipActor ◄── AuthorActor ◄── broadcast
//!              admission + dialer │                 relay: router +  │  ▲               bundles, patterns,
//!                                 ├─► SyncActor     validator        │  └ rayon pool    signatures
//!                                 │   step sync ──► SharedClock      ├─► subscribers
//!                                 └─► MembershipActor (SWIM)         └─► ObserverActor ──► events, why, metrics
//!                log frames, records of gossip
//!  Network ─────────────────────────────────────► LogActor ──► redb, RegistryActor, ComputeActor ◄──► BlobActor
//! ```
//!
//! An actor decides nothing. It turns what it gets into an input of its state machine, calls `handle`, and
//! carries the outputs out in one `match`. Mailboxes are bounded; who finds one full sheds by a stated rule
//! and counts it. A panic in a handler stops the actor, and it is started anew with a fresh
//! machine and the same address; the swarm tells it again who is connected.

pub(crate) mod author;
pub(crate) mod blob;
pub(crate) mod compute;
mod early;
pub(crate) mod gossip;
mod inbox;
pub(crate) mod log;
pub(crate) mod members;
pub(crate) mod membership;
pub(crate) mod observer;
pub(crate) mod prober;
pub(crate) mod projection;
pub(crate) mod registry;
mod supervise;
pub(crate) mod swarm;
pub(crate) mod sync;
pub(crate) mod telemetry;
#[cfg(test)]
mod tests;
pub(crate) mod verify;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use futures::future;
use omnimesh_protocol::Time;
use omnimesh_protocol::config::Part;
use omnimesh_protocol::event::Event;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::sync::watch;

use crate::clock::Epoch;
use crate::feed::{Feed, FeedLimits, FeedSender, feed_within};
use crate::memory::{Memory, Priority};
use crate::store::Store;
use crate::store::blob::BlobStore;
use crate::store::log::LogStore;

use author::AuthorActor;
use blob::BlobActor;
use compute::ComputeActor;
use gossip::GossipActor;
use log::LogActor;
use membership::MembershipActor;
use observer::{Notice, Observe, ObserverActor};
use prober::ProbeActor;
use registry::RegistryActor;
use supervise::Stop;
pub(crate) use supervise::supervise;
use swarm::SwarmActor;
use sync::SyncActor;
use telemetry::TelemetryActor;

/// Messages that wait for an actor. Source: guess; a burst of frames is one message.
pub(crate) const MAILBOX: usize = 1024;

/// How often it is looked whether all files are free, and for how long at most.
const STOP_LOOK: Duration = Duration::from_millis(2);
const STOP_MAX: Duration = Duration::from_secs(5);

/// The addresses of a node's actors. The actors run for as long as somebody holds these.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) swarm: Addr<SwarmActor>,
    pub(crate) gossip: Addr<GossipActor>,
    pub(crate) sync: Addr<SyncActor>,
    pub(crate) membership: Addr<MembershipActor>,
    pub(crate) author: Addr<AuthorActor>,
    pub(crate) observer: Addr<ObserverActor>,
    pub(crate) prober: Addr<ProbeActor>,
    pub(crate) telemetry: Addr<TelemetryActor>,
    /// None of nodes that keep no log, and so no registry.
    pub(crate) log: Option<Addr<LogActor>>,
    pub(crate) registry: Option<Addr<RegistryActor>>,
    /// None of nodes that have no data directory.
    pub(crate) blobs: Option<Addr<BlobActor>>,
    pub(crate) compute: Option<Addr<ComputeActor>>,
    pub(crate) files: Files,
}

/// What actors of a node hold open together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) log: Option<Arc<LogStore>>,
    pub(crate) blobs: Option<Arc<BlobStore>>,
}

impl Files {
    /// True if nobody else holds them any more.
    fn are_free(&self) -> bool {
        self.store.as_ref().is_none_or(|store| Arc::strong_count(store) == 1)
            && self.log.as_ref().is_none_or(|log| Arc::strong_count(log) == 1)
            && self.blobs.as_ref().is_none_or(|blobs| Arc::strong_count(blobs) == 1)
    }
}

/// The same for the actors themselves: they do not keep each other alive.
#[derive(Clone, Debug)]
pub(crate) struct WeakLinks {
    pub(crate) swarm: WeakAddr<SwarmActor>,
    pub(crate) gossip: WeakAddr<GossipActor>,
    pub(crate) sync: WeakAddr<SyncActor>,
    pub(crate) membership: WeakAddr<MembershipActor>,
    pub(crate) author: WeakAddr<AuthorActor>,
    pub(crate) observer: WeakAddr<ObserverActor>,
    pub(crate) prober: WeakAddr<ProbeActor>,
    pub(crate) log: Option<WeakAddr<LogActor>>,
    pub(crate) blobs: Option<WeakAddr<BlobActor>>,
    pub(crate) compute: Option<WeakAddr<ComputeActor>>,
}

impl Links {
    fn downgrade(&self) -> WeakLinks {
        WeakLinks {
            swarm: self.swarm.downgrade(),
            gossip: self.gossip.downgrade(),
            sync: self.sync.downgrade(),
            membership: self.membership.downgrade(),
            author: self.author.downgrade(),
            observer: self.observer.downgrade(),
            prober: self.prober.downgrade(),
            log: self.log.as_ref().map(Addr::downgrade),
            blobs: self.blobs.as_ref().map(Addr::downgrade),
            compute: self.compute.as_ref().map(Addr::downgrade),
        }
    }

    /// Stops all of them, and waits until they hold no file any more: the node can be started again then.
    pub(crate) async fn stop(self) {
        let all: Vec<Recipient<Stop>> = [
            Some(self.swarm.recipient()),
            Some(self.gossip.recipient()),
            Some(self.sync.recipient()),
            Some(self.membership.recipient()),
            Some(self.author.recipient()),
            Some(self.observer.recipient()),
            Some(self.prober.recipient()),
            Some(self.telemetry.recipient()),
            self.log.map(Addr::recipient),
            self.registry.map(Addr::recipient),
            self.blobs.map(Addr::recipient),
            self.compute.map(Addr::recipient),
        ]
        .into_iter()
        .flatten()
        .collect();
        let files = self.files;
        let ended = async {
            // One that is gone already has ended.
            let _ = future::join_all(all.iter().map(|actor| actor.send(Stop))).await;
            while !files.are_free() {
                tokio::time::sleep(STOP_LOOK).await;
            }
        };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!("some actors still hold files of the data directory");
        }
    }
}

/// What every actor of a node has.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    epoch: Epoch,
    links: Arc<OnceLock<WeakLinks>>,
    shed: Arc<[AtomicU64; Mailbox::ALL.len()]>,
    restarts: Arc<AtomicU64>,
    bootstrap_trouble: Arc<Mutex<Option<String>>>,
    memory: Memory,
    stop: Arc<watch::Sender<bool>>,
}

/// Whose mailbox was full.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mailbox {
    Swarm,
    Gossip,
    Sync,
    Membership,
    Author,
    Observer,
    Prober,
    Log,
    Blobs,
    Compute,
}

impl Mailbox {
    pub(crate) const ALL: [Mailbox; 10] = [
        Mailbox::Swarm,
        Mailbox::Gossip,
        Mailbox::Sync,
        Mailbox::Membership,
        Mailbox::Author,
        Mailbox::Observer,
        Mailbox::Prober,
        Mailbox::Log,
        Mailbox::Blobs,
        Mailbox::Compute,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Mailbox::Swarm => "swarm",
            Mailbox::Gossip => "gossip",
            Mailbox::Sync => "sync",
            Mailbox::Membership => "membership",
            Mailbox::Author => "author",
            Mailbox::Observer => "observer",
            Mailbox::Prober => "prober",
            Mailbox::Log => "log",
            Mailbox::Blobs => "blobs",
            Mailbox::Compute => "compute",
        }
    }
}

impl Common {
    pub(crate) fn new(epoch: Epoch, memory: Memory) -> Self {
        Common {
            epoch,
            links: Arc::new(OnceLock::new()),
            shed: Arc::default(),
            restarts: Arc::default(),
            bootstrap_trouble: Arc::default(),
            memory,
            stop: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Introduces the actors to each other, once all are started.
    pub(crate) fn link(&self, links: &Links) {
        let first = self.links.set(links.downgrade()).is_ok();
        assert!(first, "a node's actors are linked once");
    }

    /// The other actors. Nothing reaches an actor before they are linked: the network starts after that.
    pub(crate) fn links(&self) -> &WeakLinks {
        self.links.get().expect("actors are linked before the network starts")
    }

    /// False only while a node is being put together.
    pub(crate) fn is_linked(&self) -> bool {
        self.links.get().is_some()
    }

    pub(crate) fn now(&self) -> Time {
        self.epoch.now()
    }

    /// How long an actor's timer is to run that is due `at`.
    pub(crate) fn until(&self, at: Time) -> Duration {
        self.epoch.until(at)
    }

    /// Sends to another actor of this node. A full mailbox sheds what is sent and counts it: all that
    /// travels this way is repeated by its protocol or is for people only.
    pub(crate) fn send<A, M>(&self, mailbox: Mailbox, to: &WeakAddr<A>, message: M)
    where
        A: Actor + Handler<M>,
        A::Context: dev::ToEnvelope<A, M>,
        M: actix::Message<Result = ()> + Send + 'static,
    {
        if to.upgrade().is_none_or(|to| to.try_send(message).is_err()) {
            self.shed[mailbox as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the observer.
    pub(crate) fn observe(&self, events: Vec<Event<libp2p::PeerId>>) {
        if !events.is_empty() {
            self.send(Mailbox::Observer, &self.links().observer, Observe(events));
        }
    }

    /// Tells the observer what is not for people.
    pub(crate) fn notice(&self, inputs: Vec<observer::Noticed>) {
        if !inputs.is_empty() {
            self.send(Mailbox::Observer, &self.links().observer, Notice(inputs));
        }
    }

    /// How much each mailbox shed.
    pub(crate) fn shed(&self) -> impl Iterator<Item = (Mailbox, u64)> + '_ {
        Mailbox::ALL.into_iter().map(|mailbox| (mailbox, self.shed[mailbox as usize].load(Ordering::Relaxed)))
    }

    /// Why no bootstrap address answers, if that is so.
    pub(crate) fn bootstrap_trouble(&self) -> Option<String> {
        lock(&self.bootstrap_trouble).clone()
    }

    pub(crate) fn set_bootstrap_trouble(&self, trouble: Option<String>) {
        *lock(&self.bootstrap_trouble) = trouble;
    }

    /// The node's memory, by part.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Makes a feed of the memory for those.
    pub(crate) fn feed<T>(&self, limits: FeedLimits) -> (FeedSender<T>, Feed<T>) {
        feed_within(limits, Priority::Own, Arc::clone(self.memory.part(Part::Subscribers)))
    }

    /// The node ends now.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether the node ends: no actor is started anew then.
    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the node ends.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as this does.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    /// How often an actor was restarted.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Runs a handler's work; if it panics, the actor stops, and is started anew.
    pub(crate) fn guard<A>(&self, name: &'static str, ctx: &mut Context<A>, work: impl FnOnce())
    where
        A: Actor<Context = Context<A>>,
    {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.on_panic(name);
            ctx.stop();
        }
    }

    fn on_panic(&self, name: &'static str) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(actor = name, "an actor panicked and is started anew");
        if let Some(links) = self.links.get() {
            let kind = "actor_restarted";
            let detail = format!("the {name} actor failed and was started anew; please report this");
            self.send(Mailbox::Observer, &links.observer, Observe(vec![Event::Error { kind, detail }]));
        }
    }
}

/// A generator of its own for each actor, from the operating system's entropy.
///
/// # Panics
/// If the operating system has no entropy to give; nothing secure can be done then.
pub(crate) fn rng() -> ChaCha20Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system gives random bytes");
    ChaCha20Rng::from_seed(seed)
}

/// What nobody leaves half done: what a panic left behind is used on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
