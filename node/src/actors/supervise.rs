//! Keeps an actor running, until the node ends.
//!
//! ```text
//! a handler panics (Common::guard) ─► the actor's context ends ─► started anew: same actor, same address
//! the node ends, and says Stop     ─► the actor's context ends ─► gone, whoever still holds the address
//! nobody holds the address         ─────────────────────────────► gone
//! ```
//!
//! `actix::Supervisor` starts an actor anew for as long as somebody holds its address, at once and without letting others of
//! its thread run. Those who hold it may be actors of that thread, which wait for an answer: a node could not end then.

use std::future;
use std::pin::Pin;
use std::task::Poll;

use actix::prelude::*;

use super::Common;
use super::author::AuthorActor;
use super::blob::BlobActor;
use super::compute::ComputeActor;
use super::gossip::GossipActor;
use super::log::LogActor;
use super::membership::MembershipActor;
use super::observer::ObserverActor;
use super::prober::ProbeActor;
use super::registry::RegistryActor;
use super::swarm::SwarmActor;
use super::sync::SyncActor;
use super::telemetry::TelemetryActor;

/// Starts an actor on this thread. See the [module](self).
pub(crate) fn supervise<A>(common: &Common, actor: A) -> Addr<A>
where
    A: Supervised + Actor<Context = Context<A>>,
{
    let context = Context::new();
    let address = context.address();
    let (mut running, common) = (context.into_future(actor), common.clone());
    actix_rt::spawn(future::poll_fn(move |cx| {
        loop {
            match Pin::new(&mut running).poll(cx) {
                Poll::Pending if running.ctx().connected() => return Poll::Pending,
                Poll::Ready(()) if !common.is_stopping() && running.restart() => {}
                _ => return Poll::Ready(()),
            }
        }
    }));
    address
}

/// The node ends, in good order: the actor that gets this ends.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

macro_rules! can_stop {
    ($($actor:ty),*) => {
        $(impl Handler<Stop> for $actor {
            type Result = ();

            fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
                ctx.stop();
            }
        })*
    };
}

can_stop!(
    AuthorActor,
    BlobActor,
    ComputeActor,
    GossipActor,
    LogActor,
    MembershipActor,
    ObserverActor,
    ProbeActor,
    RegistryActor,
    SwarmActor,
    SyncActor,
    TelemetryActor
);
