//! What the other actors, and the node, ask of compute.

use actix::prelude::*;
use omnimesh_protocol::NodeId;
use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::driver;
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::worker;
use tokio::sync::{mpsc, oneshot};

use super::ComputeActor;
use super::answers::Answer;
use crate::actors::members::{PeerDown, PeerUp};
use crate::feed::{Feed, FeedLimits};
use crate::job::{JobError, JobEvent, Seen};
use crate::swarm::Inbound;

/// The network has begun: here is what peers send.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin(pub(crate) mpsc::Receiver<Inbound>);

impl Handler<Begin> for ComputeActor {
    type Result = ();

    fn handle(&mut self, Begin(receiver): Begin, ctx: &mut Self::Context) {
        self.inbox.open(receiver);
        self.inbox.listen(ctx);
        self.introduce(ctx);
    }
}

impl Handler<PeerUp> for ComputeActor {
    type Result = ();

    fn handle(&mut self, up: PeerUp, ctx: &mut Self::Context) {
        let node = up.node;
        let early = self.peers.up(up);
        self.work(worker::Input::Connected(node), ctx);
        self.drive(driver::Input::Up(node), ctx);
        early.iter().for_each(|frame| self.on_bytes(node, frame, ctx));
    }
}

impl Handler<PeerDown> for ComputeActor {
    type Result = ();

    fn handle(&mut self, PeerDown(peer): PeerDown, ctx: &mut Self::Context) {
        if let Some(node) = self.peers.down(peer) {
            self.work(worker::Input::Disconnected(node), ctx);
            self.drive(driver::Input::Gone(node), ctx);
            // It may have kept inputs.
            let unfinished: Vec<JobId> = self.driver.ledger().unfinished().collect();
            unfinished.iter().for_each(|job| self.copy_inputs(job, ctx));
        }
    }
}

/// Whether a member is alive, as membership has it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Standing {
    pub(crate) node: NodeId,
    pub(crate) is_alive: bool,
}

impl Handler<Standing> for ComputeActor {
    type Result = ();

    fn handle(&mut self, Standing { node, is_alive }: Standing, ctx: &mut Self::Context) {
        self.drive(if is_alive { driver::Input::Up(node) } else { driver::Input::Down(node) }, ctx);
    }
}

/// Have a job done.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Submit {
    pub(crate) spec: JobSpec,
    pub(crate) answer: oneshot::Sender<Result<JobId, JobError>>,
}

impl Handler<Submit> for ComputeActor {
    type Result = ();

    fn handle(&mut self, Submit { spec, answer }: Submit, ctx: &mut Self::Context) {
        self.submit(spec, answer, ctx);
    }
}

/// Have a job end.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CancelJob {
    pub(crate) job: JobId,
    pub(crate) detail: String,
    pub(crate) answer: oneshot::Sender<Result<(), JobError>>,
}

impl Handler<CancelJob> for ComputeActor {
    type Result = ();

    fn handle(&mut self, CancelJob { job, detail, answer }: CancelJob, ctx: &mut Self::Context) {
        let ticket = self.take_ticket(Answer::Accepted(answer));
        self.drive(driver::Input::Cancel { job, detail, ticket }, ctx);
    }
}

/// Have what failed of a job done again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Retry {
    pub(crate) job: JobId,
    pub(crate) answer: oneshot::Sender<Result<(), JobError>>,
}

impl Handler<Retry> for ComputeActor {
    type Result = ();

    fn handle(&mut self, Retry { job, answer }: Retry, ctx: &mut Self::Context) {
        let ticket = self.take_ticket(Answer::Accepted(answer));
        self.drive(driver::Input::Retry { job, ticket }, ctx);
    }
}

/// Looks at the jobs where they are.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Look(pub(crate) Box<dyn FnOnce(&Seen<'_>) + Send>);

impl Handler<Look> for ComputeActor {
    type Result = ();

    fn handle(&mut self, Look(look): Look, _: &mut Self::Context) {
        look(&self.seen());
    }
}

/// Tell of everything that happens to jobs from now on.
#[derive(Message)]
#[rtype(result = "Feed<JobEvent>")]
pub(crate) struct WatchJobs;

impl Handler<WatchJobs> for ComputeActor {
    type Result = MessageResult<WatchJobs>;

    fn handle(&mut self, _: WatchJobs, _: &mut Self::Context) -> Self::Result {
        let (sender, receiver) = self.common.feed(FeedLimits::default());
        self.watchers.push(sender);
        MessageResult(receiver)
    }
}
