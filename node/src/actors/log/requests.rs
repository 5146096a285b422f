//! What the other actors, and the node, ask of the log.

use actix::prelude::*;
use bytes::Bytes;
use libp2p::PeerId;
use omnimesh_protocol::Step;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::envelope::{Channel, Envelope};
use omnimesh_protocol::log::checkpoint::Sealed;
use omnimesh_protocol::log::{AppendError, Appended, AuthorHead, Input, Proof, Report, Stats};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Change, LogActor, LogError};
use crate::actors::gossip::Hearing;
use crate::actors::members::{PeerDown, PeerUp};
use crate::feed::{Feed, FeedLimits};
use crate::store::log::Damage;
use crate::swarm::Inbound;

/// All actors are linked and the network runs: begin.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin(pub(crate) mpsc::Receiver<Inbound>);

impl Handler<Begin> for LogActor {
    type Result = ();

    fn handle(&mut self, Begin(receiver): Begin, ctx: &mut Self::Context) {
        self.inbox.open(receiver);
        self.inbox.listen(ctx);
        self.carry_out(ctx);
        for damage in std::mem::take(&mut self.settings.damage) {
            // The logs that the machine began with are cut already.
            self.on_damage(Damage { log: None, ..damage }, ctx);
        }
        self.fill_gaps(ctx);
    }
}

impl Handler<Hearing> for LogActor {
    type Result = ();

    fn handle(&mut self, hearing: Hearing, ctx: &mut Self::Context) {
        let input = match hearing {
            Hearing::Quarantine(node) => Input::Quarantine(node),
            Hearing::Lift(node) => Input::Lift(node),
        };
        self.give(ctx, input);
    }
}

impl Handler<PeerUp> for LogActor {
    type Result = ();

    fn handle(&mut self, PeerUp { peer, node, outbound }: PeerUp, ctx: &mut Self::Context) {
        if self.peers.insert(peer, outbound).is_some() {
            self.give(ctx, Input::Disconnected { peer });
        }
        self.give(ctx, Input::Connected { peer, node });
        let early = self.early.take(&peer);
        self.give_all(ctx, early.into_iter().map(|frame| Input::Received { from: peer, frame }));
    }
}

impl Handler<PeerDown> for LogActor {
    type Result = ();

    fn handle(&mut self, PeerDown(peer): PeerDown, ctx: &mut Self::Context) {
        drop(self.early.take(&peer));
        if self.peers.remove(&peer).is_some() {
            self.give(ctx, Input::Disconnected { peer });
        }
    }
}

/// A durable envelope came by gossip and was verified.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Gossiped {
    pub(crate) from: PeerId,
    pub(crate) envelope: Envelope,
}

impl Handler<Gossiped> for LogActor {
    type Result = ();

    fn handle(&mut self, Gossiped { from, envelope }: Gossiped, ctx: &mut Self::Context) {
        self.give(ctx, Input::Gossiped { from, envelope });
    }
}

/// So many members are alive, this node among them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Members(pub(crate) usize);

impl Handler<Members> for LogActor {
    type Result = ();

    fn handle(&mut self, Members(alive): Members, ctx: &mut Self::Context) {
        self.give(ctx, Input::Members(alive));
    }
}

/// Append an entry to this node's log. The answer has a channel of its own: a future for each that the actor waits for
/// would cost more than all else that an append does.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Append {
    category: Channel,
    payload: Bytes,
    replicas: usize,
    answer: Answer,
}

impl Append {
    /// Appends an entry, and waits for what becomes of it.
    pub(crate) async fn to(
        log: &Addr<LogActor>,
        category: Channel,
        payload: Bytes,
        replicas: usize,
    ) -> Result<Appended, LogError> {
        let (answer, answered) = oneshot::channel();
        let append = Append { category, payload, replicas, answer };
        log.send(append).await.map_err(|_| LogError::Stopped)?;
        answered.await.unwrap_or(Err(LogError::Stopped))
    }
}

impl Handler<Append> for LogActor {
    type Result = ();

    fn handle(&mut self, append: Append, ctx: &mut Self::Context) {
        let Append { category, payload, replicas, answer } = append;
        let ticket = self.take_ticket(answer);
        self.give(ctx, Input::Append { category, payload, ticket, replicas });
    }
}

/// Append entries one after another; each is answered for itself.
#[derive(Message)]
#[rtype(result = "Vec<Result<Appended, LogError>>")]
pub(crate) struct AppendAll {
    pub(crate) category: Channel,
    pub(crate) payloads: Vec<Bytes>,
    pub(crate) replicas: usize,
}

impl Handler<AppendAll> for LogActor {
    type Result = ResponseFuture<Vec<Result<Appended, LogError>>>;

    fn handle(&mut self, append: AppendAll, ctx: &mut Self::Context) -> Self::Result {
        let AppendAll { category, payloads, replicas } = append;
        let (mut inputs, mut answers) = (Vec::new(), Vec::new());
        for payload in payloads {
            let (answer, answered) = oneshot::channel();
            let ticket = self.take_ticket(answer);
            inputs.push(Input::Append { category: category.clone(), payload, ticket, replicas });
            answers.push(answered);
        }
        self.give_all(ctx, inputs.into_iter());
        let answers = answers.into_iter().map(async |answer| answer.await.unwrap_or(Err(LogError::Stopped)));
        Box::pin(futures::future::join_all(answers))
    }
}

impl LogActor {
    fn take_ticket(&mut self, answer: Answer) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, answer);
        ticket
    }
}

/// Something that is not as it was written was found on disk.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Found(pub(crate) Damage);

impl Handler<Found> for LogActor {
    type Result = ();

    fn handle(&mut self, Found(damage): Found, ctx: &mut Self::Context) {
        self.on_damage(damage, ctx);
    }
}

/// Tell of every change from now on.
#[derive(Message)]
#[rtype(result = "Feed<Change>")]
pub(crate) struct Watch;

impl Handler<Watch> for LogActor {
    type Result = MessageResult<Watch>;

    fn handle(&mut self, Watch: Watch, _: &mut Self::Context) -> Self::Result {
        // One change may be as large as a write.
        let bytes_max = self.settings.config.write_bytes_max.saturating_mul(2);
        let limits = FeedLimits { items_max: self.settings.subscriber_queue, bytes_max };
        let (sender, receiver) = self.common.feed(limits);
        self.watchers.push(sender);
        MessageResult(receiver)
    }
}

/// The log as it stands.
#[derive(Clone, Debug)]
pub(crate) struct LogState {
    pub(crate) heads: Vec<(AuthorHead, omnimesh_protocol::Seq)>,
    pub(crate) proofs: Vec<Proof>,
    pub(crate) stats: Stats,
    pub(crate) fingerprint: omnimesh_protocol::Hash,
    pub(crate) is_own_log_known: bool,
    /// The newest sealed checkpoint.
    pub(crate) checkpoint: Option<Sealed>,
    /// The step of the one that is being fetched from peers.
    pub(crate) adopting: Option<Step>,
    /// What is wrong with the disk or the own log, if something is.
    pub(crate) trouble: Option<String>,
}

/// Asks for it.
#[derive(Message)]
#[rtype(result = "LogState")]
pub(crate) struct GetState;

impl Handler<GetState> for LogActor {
    type Result = MessageResult<GetState>;

    fn handle(&mut self, GetState: GetState, _: &mut Self::Context) -> Self::Result {
        let base = |head: &AuthorHead| self.state.base(&head.author).unwrap_or_default();
        let heads: Vec<_> = self.state.heads().map(|head| (*head, base(head))).collect();
        let proofs = heads.iter().filter(|(head, _)| head.proof.is_some());
        let frozen = || {
            let fork = self.state.proof(&self.settings.identity.id())?.fork();
            Some(format!("{}; other nodes have this one in quarantine", AppendError::Frozen(fork)))
        };
        MessageResult(LogState {
            proofs: proofs.filter_map(|(head, _)| self.state.proof(&head.author).cloned()).collect(),
            heads,
            stats: self.state.stats(),
            fingerprint: self.state.fingerprint(),
            is_own_log_known: self.state.is_own_log_known(),
            checkpoint: self.state.checkpoint().cloned(),
            adopting: self.state.adopting(),
            trouble: self.unwritable.clone().or_else(frozen).or_else(|| self.damaged.clone()),
        })
    }
}

/// What was caught up with, the oldest first.
#[derive(Message)]
#[rtype(result = "Vec<Report>")]
pub(crate) struct GetReports;

impl Handler<GetReports> for LogActor {
    type Result = MessageResult<GetReports>;

    fn handle(&mut self, GetReports: GetReports, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.reports.iter().cloned().collect())
    }
}
