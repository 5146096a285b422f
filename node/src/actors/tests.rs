//! A node of which one actor after another fails goes on, and its neighbours do not notice.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::prelude::*;
use omnimesh_protocol::{Identity, Mesh};

use super::Common;
use crate::{MeshNode, NodeOptions};

/// Makes an actor panic while it handles this.
#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

/// The same where nothing of the actor's guards it.
#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

macro_rules! can_crash {
    ($($actor:ty: $name:literal),*) => {
        $(impl Handler<Panic> for $actor {
            type Result = ();

            fn handle(&mut self, _: Panic, _: &mut Self::Context) {
                panic!("a test makes the {} actor panic", $name);
            }
        }

        impl Handler<Crash> for $actor {
            type Result = ();

            fn handle(&mut self, _: Crash, ctx: &mut Self::Context) {
                let common: Common = self.common.clone();
                common.guard($name, ctx, || panic!("a test makes the {} actor fail", $name));
            }
        })*
    };
}

can_crash! {
    super::author::AuthorActor: "author",
    super::gossip::GossipActor: "gossip",
    super::membership::MembershipActor: "membership",
    super::observer::ObserverActor: "observer",
    super::swarm::SwarmActor: "swarm",
    super::sync::SyncActor: "sync"
}

async fn pair() -> (MeshNode, MeshNode) {
    let mesh = Mesh::open("crash").unwrap();
    let options = |seed| {
        let mut options = NodeOptions::in_memory(Identity::from_seed(&[seed; 32]), mesh.clone());
        // What is lost while an actor restarts comes again soon.
        options.config.gossip.heartbeat_ms = 100;
        options
    };
    let alice = MeshNode::start(options(1)).await.unwrap();
    let mut joining = options(2);
    joining.config.network.bootstrap = alice.bootstrap_addresses();
    let bob = MeshNode::start(joining).await.unwrap();
    bob.wait_ready().await.unwrap();
    (alice, bob)
}

/// Publishes until the other side has one of the messages.
async fn exchange(from: &MeshNode, to: &MeshNode, what: &str) {
    let mut subscription = to.subscribe("news").await.unwrap();
    let arrives = async {
        loop {
            // Refused while the author's mailbox or the step is being set up anew; then tried again.
            let _ = from.broadcast("news", what.to_owned()).await;
            let next = tokio::time::timeout(Duration::from_millis(100), subscription.receive());
            if let Ok(Some(message)) = next.await
                && message.payload == what.as_bytes()
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), arrives).await.unwrap_or_else(|_| panic!("{what} arrives"));
}

#[actix::test]
async fn each_actor_that_fails_is_started_anew() {
    let (alice, bob) = pair().await;
    exchange(&alice, &bob, "before").await;
    let links = alice.links();
    let before = alice.step().unwrap();
    links.author.send(Crash).await.unwrap();
    exchange(&alice, &bob, "after author").await;
    links.gossip.send(Crash).await.unwrap();
    exchange(&alice, &bob, "after gossip, out").await;
    exchange(&bob, &alice, "after gossip, in").await;
    links.sync.send(Crash).await.unwrap();
    exchange(&alice, &bob, "after sync").await;
    links.membership.send(Crash).await.unwrap();
    exchange(&alice, &bob, "after membership").await;
    links.observer.send(Crash).await.unwrap();
    exchange(&alice, &bob, "after observer").await;
    links.swarm.send(Crash).await.unwrap();
    exchange(&alice, &bob, "after swarm, out").await;
    exchange(&bob, &alice, "after swarm, in").await;
    assert_eq!(alice.restarts(), 6);
    assert!(alice.step().unwrap() >= before);
}

#[actix::test]
async fn an_actor_that_panics_anywhere_is_started_anew() {
    let (alice, bob) = pair().await;
    exchange(&alice, &bob, "before").await;
    let links = alice.links();
    assert!(links.author.send(Panic).await.is_err());
    exchange(&alice, &bob, "after author").await;
    assert!(links.gossip.send(Panic).await.is_err());
    exchange(&alice, &bob, "after gossip, out").await;
    exchange(&bob, &alice, "after gossip, in").await;
    assert!(links.sync.send(Panic).await.is_err());
    exchange(&alice, &bob, "after sync").await;
    assert!(links.membership.send(Panic).await.is_err());
    exchange(&alice, &bob, "after membership").await;
    assert!(links.observer.send(Panic).await.is_err());
    exchange(&alice, &bob, "after observer").await;
    assert!(links.swarm.send(Panic).await.is_err());
    exchange(&alice, &bob, "after swarm, out").await;
    exchange(&bob, &alice, "after swarm, in").await;
    assert_eq!(alice.restarts(), 6);
}

#[actix::test]
async fn what_was_accepted_before_a_restart_is_not_accepted_again() {
    let (alice, bob) = pair().await;
    let mut subscription = bob.subscribe("news").await.unwrap();
    exchange(&alice, &bob, "once").await;
    bob.links().gossip.send(Crash).await.unwrap();
    // Messages of the steps before the restart cannot be told from replays; new steps go on.
    bob.sync(bob.step().unwrap().saturating_add(4)).await.unwrap();
    exchange(&alice, &bob, "again").await;
    // Subscriptions outlive the restart.
    let mut seen = BTreeSet::new();
    loop {
        let message = subscription.receive().await.unwrap();
        assert!(seen.insert((message.author, message.seq)), "nothing comes twice");
        if message.payload == b"again"[..] {
            break;
        }
    }
    assert!(seen.len() >= 2);
}

#[actix::test]
async fn a_stopped_node_says_so() {
    let (alice, bob) = pair().await;
    let mut subscription = bob.subscribe("news").await.unwrap();
    let waiting = bob.clone();
    let never = actix_rt::spawn(async move { waiting.sync(omnimesh_protocol::Step(u64::MAX)).await });
    bob.clone().shutdown().await;
    assert_eq!(never.await.unwrap(), Err(crate::Stopped));
    assert!(bob.broadcast("news", "x").await.is_err());
    assert!(subscription.receive().await.is_none());
    assert!(bob.members().await.is_err());
    exchange_alone(&alice).await;
}

/// Whoever waits for an answer holds an address: an actor for what another one does, and so does every clone of a handle.
#[actix::test]
async fn a_node_stops_although_somebody_holds_the_addresses_of_its_actors() {
    let (alice, bob) = pair().await;
    let held = bob.links();
    tokio::time::timeout(Duration::from_secs(30), bob.shutdown()).await.unwrap();
    let addresses_are_closed = [
        held.author.send(Crash).await.is_err(),
        held.gossip.send(Crash).await.is_err(),
        held.membership.send(Crash).await.is_err(),
        held.observer.send(Crash).await.is_err(),
        held.swarm.send(Crash).await.is_err(),
        held.sync.send(Crash).await.is_err(),
    ];
    assert_eq!(addresses_are_closed, [true; 6]);
    exchange_alone(&alice).await;
}

/// A node that nobody listens to says that it has no recipients.
async fn exchange_alone(node: &MeshNode) {
    let alone = async { while node.broadcast("nobody", "x").await.unwrap().recipients > 0 {} };
    tokio::time::timeout(Duration::from_secs(30), alone).await.unwrap();
}
