//! Keeps an actor running, until the node ends.
//!
//! ```text
//! it panics                        ─► started anew, after a pause: same actor, same address
//! the node ends, and says Stop     ─► gone, whoever still holds the address
//! nobody holds the address         ─► gone
//! ```
//!
//! `actix::Supervisor` starts an actor anew for as long as somebody holds its address, at once and without letting others of
//! its thread run. Those who hold it may be actors of that thread, which wait for an answer: a node could not end then.
//!
//! The pause is short at first, and doubles when an actor fails again soon: what it does then may be what it fails at.

use std::any::type_name;
use std::future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use actix::dev::ContextFut;
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

/// The first pause, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Starts an actor on this thread. See the [module](self).
pub(crate) fn supervise<A>(common: &Common, actor: A) -> Addr<A>
where
    A: Supervised + Actor<Context = Context<A>>,
{
    let context = Context::new();
    let address = context.address();
    let (mut running, common) = (context.into_future(actor), common.clone());
    actix_rt::spawn(async move {
        let mut pause = PAUSE_MIN;
        let mut is_whole = true;
        loop {
            let began = common.now();
            // What failed while it was started anew is not begun.
            if is_whole && live(&common, &mut running).await == End::Alone {
                return;
            }
            if common.now().since(began) > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            if !common.is_stopping() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            let restarted = (!common.is_stopping()).then(|| caught::<A, _>(&common, || running.restart()));
            match restarted {
                Some(Some(true)) => is_whole = true,
                Some(None) => is_whole = false,
                // The node ends, or nobody holds it any more.
                None | Some(Some(false)) => return,
            }
        }
    });
    address
}

/// Why an actor does not run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was stopped, or has panicked.
    Stopped,
    /// Nobody holds its address.
    Alone,
}

async fn live<A>(common: &Common, running: &mut ContextFut<A, Context<A>>) -> End
where
    A: Actor<Context = Context<A>>,
{
    future::poll_fn(|cx| match caught::<A, _>(common, || Pin::new(&mut *running).poll(cx)) {
        Some(Poll::Pending) if running.ctx().connected() => Poll::Pending,
        Some(Poll::Pending) => Poll::Ready(End::Alone),
        Some(Poll::Ready(())) | None => Poll::Ready(End::Stopped),
    })
    .await
}

/// None if it panicked.
fn caught<A, T>(common: &Common, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        common.on_panic(type_name::<A>());
    }
    done.ok()
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
