//! What the log is told and what it wants done.

use bytes::Bytes;

use crate::author::Ticket;
use crate::envelope::{Channel, Envelope};
use crate::id::{Hash, NodeId, Seq, Step};
use crate::refusal::Refusal;
use crate::time::Time;
use crate::validate::{Unverified, Verified};

use super::checkpoint::{CheckpointError, Cut, Sealed, StoredCheckpoint};
use super::{Head, Proof, Record, Report};

/// What the store holds of one author when the node starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLog {
    /// Whose log.
    pub author: NodeId,
    /// The sequence number of the first entry that is there; 1 unless older ones were truncated.
    pub base: Seq,
    /// Where it ends: the last record of the unbroken chain. What the store holds behind a damaged record does not
    /// count, and is written anew once it was fetched.
    pub head: Head,
    /// The step of its last record; 0 of an empty log.
    pub step: Step,
    /// The proof that froze it.
    pub proof: Option<Proof>,
}

/// What a node knows of the log when it starts.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// All logs that the store holds, each author once.
    pub logs: Vec<StoredLog>,
    /// True if this key may have written before: always, but for a key made just now. The node then asks its peers for
    /// the end of its own log before it appends, for the data directory may be an old copy.
    pub may_have_written: bool,
    /// How far the own log had come, whatever was found damaged since: no number up to there is signed again.
    pub reached: Seq,
    /// The sealed checkpoints that the store holds whole.
    pub checkpoints: Vec<StoredCheckpoint>,
    /// What the store's [`Base`](super::checkpoint::Base) covers.
    pub base: Cut,
}

/// The log's name for something that it waits for. Comes back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What happens to the log. `P` names a connected peer.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the large variant is a common one")]
pub enum Input<P> {
    /// A member is connected and can be sent frames.
    Connected {
        /// The peer.
        peer: P,
        /// Its key, as the transport has authenticated it.
        node: NodeId,
    },
    /// It no longer is. What was on its way to it is lost.
    Disconnected {
        /// The peer.
        peer: P,
    },
    /// A frame came from a connected peer.
    Received {
        /// The peer.
        from: P,
        /// What it sent.
        frame: Bytes,
    },
    /// So many bytes of [`Output::Send`] to a peer have left its queue, sent or shed. Every byte has to come back: a
    /// peer with [`Config::serve_queue_bytes_max`](super::Config::serve_queue_bytes_max) under way is not served.
    Sent {
        /// The peer.
        to: P,
        /// The length of the frames.
        bytes: usize,
    },
    /// A durable envelope came by gossip, on channel [`CHANNEL`](super::CHANNEL), and passed the
    /// [`Validator`](crate::validate::Validator).
    Gossiped {
        /// The neighbour that brought it.
        from: P,
        /// The message.
        envelope: Envelope,
    },
    /// Append one entry to this node's log. Answered by [`Output::Appended`] or [`Output::Refused`].
    Append {
        /// Who is meant to read it; does not begin with `_`.
        category: Channel,
        /// What to say.
        payload: Bytes,
        /// Comes back with the answer.
        ticket: Ticket,
        /// How many other nodes must have it on disk before it is answered, beside this one.
        replicas: usize,
    },
    /// Seal what was appended. To be given whenever the shell has nothing else to read and [`State::wants_flush`] says
    /// so; while a write is under way, only full bundles are sealed, so that under load one write and one signature
    /// serve many appends.
    ///
    /// [`State::wants_flush`]: super::State::wants_flush
    Flush {
        /// The mesh time in microseconds.
        mesh_time_us: u64,
    },
    /// The mesh has come to this step; `None` while the node is not synchronised.
    Step(Option<Step>),
    /// Answers [`Output::Write`].
    Written {
        /// Which.
        token: Token,
        /// Whether all of it is on disk. After an error none of it may be taken for written.
        result: Result<(), StoreError>,
    },
    /// Answers [`Output::Read`], [`Output::Find`] and [`Output::ReadChunk`].
    Read {
        /// Which.
        token: Token,
        /// The records, or the chunk, as they were stored.
        result: Result<Vec<Bytes>, StoreError>,
    },
    /// Answers [`Output::Verify`]: what came of each, in the same order. Fewer results than records
    /// mean that the others were shed.
    Verified {
        /// Which.
        token: Token,
        /// What came of them.
        results: Vec<Result<Verified, Refusal>>,
    },
    /// The store has found that an author's log is damaged, and that it ends here for now. What is missing is fetched
    /// again.
    Damaged(StoredLog),
    /// The store has filled a gap that damage had left in a log, and holds these records behind it. They are written anew.
    Kept(Vec<Record>),
    /// The store has dropped an author's entries below `base`, because of [`Output::Truncate`].
    Truncated {
        /// Whose.
        author: NodeId,
        /// The first entry that is left.
        base: Seq,
    },
    /// So many members are alive, this node among them. Without it, those count that are connected. Only checkpoints
    /// need it.
    Members(usize),
    /// Answers [`Output::Fold`]: the checkpoint that was made, without signatures. It is on disk, but does not count yet.
    Folded {
        /// Which.
        token: Token,
        /// What came of it.
        result: Result<Box<StoredCheckpoint>, StoreError>,
    },
    /// Answers [`Output::Stage`] and [`Output::Open`].
    Staged {
        /// Which.
        token: Token,
        /// Whether the chunk is kept, or the checkpoint good.
        result: Result<(), StoreError>,
    },
    /// From now on take nothing new that this author wrote.
    Quarantine(NodeId),
    /// Take what this author writes again.
    Lift(NodeId),
    /// A timer is due.
    Timer(Timer),
}

/// What the log wants to be told again, and when. Stale ones do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next round of reconciliation begins.
    Round(u64),
    /// Something may have waited for long enough.
    Tick(u64),
}

/// A change of the store. Within one [`Output::Write`], and from one to the next, they are to be made in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Put this record at the end of its author's log. What the store holds of that author at its first sequence
    /// number or behind is replaced: it is left from a write that failed, or damaged. If the entry before it is not
    /// there, because damage was found meanwhile, the write fails: a hole would be told as a log if the process died.
    /// Sound records behind damage stay until the record before them is there again: see [`Input::Kept`].
    Append(Record),
    /// Keep this proof in place of an earlier one, and drop its author's records behind `head`.
    Freeze {
        /// The proof.
        proof: Proof,
        /// Where the log ends: before the fork, or where a sealed checkpoint cuts it.
        head: Head,
    },
    /// A checkpoint is sealed, and the store has its parts, from [`Output::Fold`] or [`Output::Stage`]. The newest one is
    /// kept, and [one more](super::checkpoint::kept): others can go, and what was staged of this one. But what a sealed
    /// checkpoint covers counts for ever: if one goes that the newest does not cover, the store's
    /// [`Base`](super::checkpoint::Base) joins all that there are first.
    Seal(Box<StoredCheckpoint>),
    /// A sealed checkpoint stands for this log up to its head: drop its records up to there, and keep this in place of where
    /// it ended; `base` is behind `head`. The store's [`Base`](super::checkpoint::Base) joins the sealed checkpoints
    /// that it holds in the same transaction.
    Jump(StoredLog),
}

/// The store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room on the disk.
    #[error("the disk of the data directory is full")]
    Full,
    /// What was to be read is damaged. An [`Input::Damaged`] follows.
    #[error("the log on disk is damaged: {0}")]
    Damaged(String),
    /// What peers gave is, byte for byte, the checkpoint that they offered, and is none.
    #[error("peers gave a bad checkpoint: {0}")]
    BadCheckpoint(CheckpointError),
    /// Anything else.
    #[error("the log on disk cannot be read or written: {0}")]
    Failed(String),
}

/// Chunks were compared with what was offered as they came: if they are others now, it is this disk that changed them.
impl From<CheckpointError> for StoreError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::OtherPart => StoreError::Damaged(error.to_string()),
            bad => StoreError::BadCheckpoint(bad),
        }
    }
}

/// What the log wants done.
#[derive(Clone, Debug)]
pub enum Output<P> {
    /// Send a frame, at most [`frame_bytes_max`](super::frame_bytes_max) long. If it is lost, nothing breaks.
    Send {
        /// To this peer.
        to: P,
        /// The frame.
        frame: Bytes,
    },
    /// Publish this own record, which is on disk, on channel [`CHANNEL`](super::CHANNEL).
    Publish(Record),
    /// Check these signatures, on any thread, and say what came of it.
    Verify {
        /// Comes back.
        token: Token,
        /// What to check.
        records: Vec<Unverified>,
    },
    /// Make these changes in one transaction, see that they survive a crash, and say so. There is one at a time.
    Write {
        /// Comes back.
        token: Token,
        /// In order.
        changes: Vec<Change>,
    },
    /// Read the author's records whose *first* sequence number is in `from..=to`, in order, up to `bytes_max` bytes but
    /// at least one. Sees all changes that were answered before; whether it sees later ones does not matter.
    Read {
        /// Comes back.
        token: Token,
        /// Whose.
        author: NodeId,
        /// From here.
        from: Seq,
        /// To here.
        to: Seq,
        /// Bytes of records, together.
        bytes_max: usize,
    },
    /// Read the one record of this author that *covers* `seq`, if there is one.
    Find {
        /// Comes back.
        token: Token,
        /// Whose.
        author: NodeId,
        /// What it covers.
        seq: Seq,
    },
    /// Make the checkpoint of this step: begin with the [`Base`](super::checkpoint::Base), joined with the newest sealed
    /// checkpoint, take every log's records from there on, and keep the parts on disk
    /// until the next one is made.
    Fold {
        /// Comes back.
        token: Token,
        /// The step.
        step: Step,
    },
    /// Keep this chunk of a checkpoint that is being fetched. It counts for nothing until [`Change::Seal`].
    Stage {
        /// Comes back.
        token: Token,
        /// Which checkpoint.
        checkpoint: Hash,
        /// Which part.
        part: usize,
        /// Which chunk of it.
        index: u64,
        /// [`CHUNK_BYTES`](super::checkpoint::CHUNK_BYTES) but for the last.
        bytes: Bytes,
    },
    /// See whether the parts that were staged are those of this checkpoint and can be read, and each log is cut at a record
    /// that its author has signed; answered by [`Input::Staged`].
    Open {
        /// Comes back.
        token: Token,
        /// Which.
        sealed: Box<Sealed>,
    },
    /// Read a chunk of one of the two newest sealed checkpoints; answered by [`Input::Read`] with one item or none.
    ReadChunk {
        /// Comes back.
        token: Token,
        /// Which checkpoint.
        checkpoint: Hash,
        /// Which part.
        part: usize,
        /// Which chunk of it.
        index: u64,
    },
    /// Drop records that the newest sealed checkpoint covers, when there is time: those of steps before `below`, and if
    /// the store then has more than `bytes_max` bytes, all. The store's [`Base`](super::checkpoint::Base) joins the
    /// checkpoint first. [`Input::Truncated`] tells of each log that was shortened.
    Truncate {
        /// Records of this step and later ones stay.
        below: Step,
        /// Unless there are more bytes than this.
        bytes_max: Option<u64>,
    },
    /// Give `timer` back at `at` or later.
    Timer {
        /// When.
        at: Time,
        /// What.
        timer: Timer,
    },
    /// An append is on disk here, and on as many others' disks as it asked for, or as there are after
    /// [`Config::replicas_wait`](super::Config::replicas_wait).
    Appended {
        /// Which.
        ticket: Ticket,
        /// What became of it.
        appended: Appended,
    },
    /// An append failed. Nothing of it will be there.
    Refused {
        /// Which.
        ticket: Ticket,
        /// Why.
        error: AppendError,
    },
    /// Something happened that projections and people want to know.
    Event(Event<P>),
}

impl<P> From<Event<P>> for Output<P> {
    fn from(event: Event<P>) -> Self {
        Output::Event(event)
    }
}

/// Where an append came to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// This node.
    pub author: NodeId,
    /// The entry's sequence number.
    pub seq: Seq,
    /// The entry's hash.
    pub hash: Hash,
    /// The step in which it was written.
    pub step: Step,
    /// How many other nodes have said that they have it on disk.
    pub replicas: usize,
}

/// Why an append failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The payload fits no envelope.
    #[error(
        "the entry has {bytes} bytes, the limit is {bytes_max} (`gossip.message_bytes_max` less what an envelope needs)"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest there may be.
        bytes_max: usize,
    },
    /// Categories that begin with `_` are reserved.
    #[error("the category {0} is reserved: names that begin with '_' are the protocol's own")]
    Reserved(Channel),
    /// Too much waits already.
    #[error("too many entries wait to be written; try again")]
    Busy,
    /// Without a step there is no pattern to tag with.
    #[error("the node has no step yet: it has not synchronised with the mesh")]
    NotSynchronised,
    /// The own log is frozen: two records of this key contradict each other.
    #[error(
        "this node's log is frozen at entry {0}: its key has signed two entries for one place; make a new key"
    )]
    Frozen(Seq),
    /// There are later entries of the own log, signed with this node's key, that it has lost. To go on without those in
    /// between would contradict them.
    #[error("this node has lost entries of its own log and is looking for them among its peers; try again")]
    Behind,
    /// Entries of the own log were damaged on disk, and nobody who is there has them. To sign their numbers again would
    /// contradict them.
    #[error(
        "entries {from} to {to} of this node's own log were damaged on disk, and no connected peer has them; connect a \
         node that has them, restore a backup, or make a new key"
    )]
    Lost {
        /// The first that is missing.
        from: Seq,
        /// How far the log had come.
        to: Seq,
    },
    /// Sequence numbers ran out.
    #[error("no sequence number is left")]
    Exhausted,
    /// The disk failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Something that happened to the log. `P` names a connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// A record is on disk, at the end of its author's log. Each author's come in order and once, but what was dropped
    /// because of [`Event::Frozen`], [`Input::Damaged`] or a failed write comes again if it is written again.
    Applied {
        /// The record.
        record: Record,
        /// The neighbour that brought it; `None` for an own one.
        from: Option<P>,
    },
    /// An author's log is frozen, on disk: its entries from `proof.fork()` on are gone for good, also those that were
    /// applied. Comes again if a lower proof is found.
    Frozen {
        /// The proof. It names the author and the fork.
        proof: Proof,
    },
    /// A checkpoint is sealed, and on disk whole.
    Sealed {
        /// The checkpoint.
        sealed: Box<Sealed>,
    },
    /// A sealed checkpoint stands for these logs up to these heads: entries up to there come no more. Projections begin
    /// anew with the store's [`Base`](super::checkpoint::Base) and what the logs have behind it.
    Jumped {
        /// Whose, where they end now, and how many entries had been missing here.
        logs: Vec<(NodeId, Head, u64)>,
    },
    /// This node had missed entries and has them now, or knows that nobody here has them.
    CaughtUp(Report),
    /// The own log is known to its end: from now on appends are written. `recovered` entries had been missing
    /// here.
    OwnHead {
        /// Where it ends.
        head: Head,
        /// How many entries of it came from peers.
        recovered: u64,
        /// How many peers were asked.
        asked: usize,
    },
    /// A peer did what no honest one does. It is not asked for a while; the node may want to part with it.
    Misbehaved {
        /// The peer.
        peer: P,
        /// What it did.
        misdeed: Misdeed,
    },
    /// A write failed. What came from others is fetched again later.
    WriteFailed {
        /// Why.
        error: StoreError,
    },
}

/// What no honest peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misdeed {
    /// It sent bytes that are no frame.
    #[error("sent bytes that are no frame of the log")]
    BadFrame,
    /// It sent a record that is refused.
    #[error("sent a record that is refused: {0}")]
    BadRecord(Refusal),
    /// It sent a record that was not asked for: another author's, outside the range, or out of order.
    #[error("sent a record that was not asked for")]
    NotAsked,
    /// It sent more bytes than were asked for.
    #[error("sent more bytes than were asked for")]
    TooMuch,
    /// It says that it has what it cannot give.
    #[error("says that it has entries that it does not give")]
    EmptyClaim,
    /// It did not answer in time.
    #[error("did not answer in time")]
    Silent,
    /// It sent a proof that proves nothing.
    #[error("sent a proof that proves nothing")]
    BadProof,
    /// It sent a checkpoint, or a part of one, that is not what was signed, or not signed.
    #[error("sent a checkpoint that is not what was signed, or not signed")]
    BadCheckpoint,
}

impl Misdeed {
    /// The stable name in metrics and events.
    pub const fn code(self) -> &'static str {
        match self {
            Misdeed::BadFrame => "bad_frame",
            Misdeed::BadRecord(_) => "bad_record",
            Misdeed::NotAsked => "not_asked",
            Misdeed::TooMuch => "too_much",
            Misdeed::EmptyClaim => "empty_claim",
            Misdeed::Silent => "silent",
            Misdeed::BadProof => "bad_proof",
            Misdeed::BadCheckpoint => "bad_checkpoint",
        }
    }
}

/// The log in numbers. Counters count from the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Authors whose logs are kept.
    pub authors: usize,
    /// Of these, frozen ones.
    pub frozen: usize,
    /// Entries on disk, truncated ones included.
    pub entries: u64,
    /// Own entries appended.
    pub appended: u64,
    /// Records in which they were written: one signature each.
    pub appended_records: u64,
    /// Records of others that were applied.
    pub applied: u64,
    /// Of these, records that came by gossip.
    pub applied_gossip: u64,
    /// Records that came a second time.
    pub duplicates: u64,
    /// Records that were refused.
    pub refused: u64,
    /// Records dropped because a buffer was full; they are fetched later.
    pub shed: u64,
    /// Records that wait for what comes before them.
    pub waiting: usize,
    /// Bytes of them.
    pub waiting_bytes: usize,
    /// Entries that peers are known to have and this node has not.
    pub behind: u64,
    /// Rounds of reconciliation begun.
    pub rounds: u64,
    /// Of these, rounds in which nothing differed.
    pub rounds_equal: u64,
    /// Requests for records sent.
    pub fetches: u64,
    /// Of these, requests that were not answered in time or wrongly.
    pub fetches_failed: u64,
    /// Requests of peers answered with records.
    pub served: u64,
    /// Requests of peers refused as busy.
    pub busy: u64,
    /// Bytes of frames sent.
    pub bytes_sent: u64,
    /// Of these, bytes of frames that carry records.
    pub record_bytes_sent: u64,
    /// Bytes of frames received.
    pub bytes_received: u64,
    /// Bytes of records that wait to be written or are being written.
    pub write_bytes: usize,
    /// Writes done.
    pub writes: u64,
    /// Writes that failed.
    pub writes_failed: u64,
    /// Peers' misdeeds.
    pub misdeeds: u64,
    /// Searches for a fork.
    pub fork_searches: u64,
    /// Checkpoints made.
    pub checkpoints_made: u64,
    /// Checkpoints sealed that this node had made itself.
    pub checkpoints_sealed: u64,
    /// Checkpoints taken from peers.
    pub checkpoints_adopted: u64,
    /// Checkpoints of peers that were refused.
    pub checkpoints_refused: u64,
    /// Entries that a checkpoint stands for that had been missing here.
    pub entries_covered: u64,
    /// Bytes of checkpoints received.
    pub checkpoint_bytes_received: u64,
}
