//! Making checkpoints, signing them together, and dropping what they cover.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;
use rand_core::Rng;

use crate::id::{Hash, NodeId, Seq, Step};
use crate::machine::Outbox;
use crate::time::Time;

use super::super::checkpoint::{
    Checkpoint, Cut, CutHead, Part, Sealed, StoredCheckpoint, VOTES_MAX, Vote, kept,
};
use super::super::wire::{Decline, Frame};
use super::super::{Event, Head, Misdeed, Output, StoreError, Token};
use super::State;
use super::adopt::Adopting;
use super::peers::Counted;

/// Checkpoints for which votes are kept before this node has made its own, at most. Source: guess; honest nodes make one.
const EARLY_MAX: usize = 4;
/// How many signatures make a checkpoint good enough to be taken in place of entries, and to drop entries, if none is
/// configured.
const ENOUGH: usize = 2;

/// What concerns checkpoints.
#[derive(Debug)]
pub(super) struct Checkpoints<P> {
    members: usize,
    /// There ever were others.
    pub(super) has_company: bool,
    /// The first step of this life.
    since: Option<Step>,
    folding: Option<(Token, Step)>,
    /// The last step whose checkpoint was begun.
    begun: Step,
    candidate: Option<Candidate>,
    /// Good votes for what this node has not made itself, or not yet.
    early: BTreeMap<(Step, Hash), BTreeMap<NodeId, Vote>>,
    /// Votes for the candidate that are to be passed on.
    unsent: Vec<Vote>,
    /// The newest one that is on disk.
    sealed: Option<StoredCheckpoint>,
    /// Another one that is on disk, and that the newest one does not cover.
    other: Option<StoredCheckpoint>,
    /// Peers that were told the votes of the sealed one in this interval.
    told: BTreeSet<P>,
    /// What was dropped last, or tried.
    truncated: Step,
    is_truncation_due: bool,
    /// Chunks that the store is asked for.
    pub(super) serving: BTreeMap<Token, ServingChunk<P>>,
    pub(super) adopting: Adopting<P>,
}

/// The checkpoint that this node has made last.
#[derive(Debug)]
struct Candidate {
    checkpoint: Checkpoint,
    id: Hash,
    heads: Part,
    /// Taken when it is sealed.
    cut: Option<Cut>,
    votes: BTreeMap<NodeId, Vote>,
}

/// A peer's request for a chunk.
#[derive(Debug)]
pub(super) struct ServingChunk<P> {
    peer: P,
    id: u64,
}

impl<P: Copy + Ord> Checkpoints<P> {
    pub(super) fn new() -> Self {
        Checkpoints {
            members: 0,
            has_company: false,
            since: None,
            folding: None,
            begun: Step(0),
            candidate: None,
            early: BTreeMap::new(),
            unsent: Vec::new(),
            sealed: None,
            other: None,
            told: BTreeSet::new(),
            truncated: Step(0),
            is_truncation_due: false,
            serving: BTreeMap::new(),
            adopting: Adopting::new(),
        }
    }

    pub(super) fn sealed(&self) -> Option<&StoredCheckpoint> {
        self.sealed.as_ref()
    }

    pub(super) fn sealed_step(&self) -> Step {
        self.sealed.as_ref().map_or(Step(0), |stored| stored.sealed.checkpoint.step)
    }

    /// Those that are offered, the newest first.
    fn offered(&self) -> impl Iterator<Item = &StoredCheckpoint> {
        self.sealed.iter().chain(&self.other)
    }

    /// How far those that are offered cover this author's log.
    fn offered_to(&self, author: &NodeId) -> Seq {
        self.offered().map(|stored| stored.cut.head(author).seq).max().unwrap_or_default()
    }

    /// A sealed one is on disk: keeps what the store keeps of them.
    fn keep(&mut self, stored: StoredCheckpoint) {
        let id = stored.sealed.checkpoint.id();
        let mut all: Vec<StoredCheckpoint> =
            self.sealed.take().into_iter().chain(self.other.take()).collect();
        all.retain(|held| held.sealed.checkpoint.id() != id);
        all.push(stored);
        let names = all.iter().map(|held| {
            let checkpoint = &held.sealed.checkpoint;
            (checkpoint.step, checkpoint.id(), &held.cut)
        });
        let (newest, other) = kept(names);
        for (place, held) in (0..).zip(all) {
            if Some(place) == newest {
                self.sealed = Some(held);
            } else if Some(place) == other {
                self.other = Some(held);
            }
        }
        let newest = self.sealed.as_ref();
        self.other.take_if(|other| newest.is_some_and(|newest| newest.cut.covers(&other.cut)));
    }

    /// The candidate, if it is not sealed.
    fn open(&self) -> Option<&Candidate> {
        self.candidate.as_ref().filter(|candidate| candidate.cut.is_some())
    }

    /// The candidate has its signatures, and is on its way to disk.
    fn is_sealing(&self) -> bool {
        let is_sealed = |candidate: &Candidate| self.sealed_step() >= candidate.checkpoint.step;
        self.candidate.as_ref().is_some_and(|candidate| candidate.cut.is_none() && !is_sealed(candidate))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.folding.is_none() && !self.adopting.is_active()
    }

    pub(super) fn waits(&self) -> bool {
        !self.unsent.is_empty() || self.adopting.is_active()
    }

    pub(super) fn begin_interval(&mut self) {
        self.told.clear();
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.early.len() <= EARLY_MAX, "early votes are bounded");
        assert!(self.early.values().all(|votes| !votes.is_empty()), "forged votes take no place");
        let tables = self.early.values().chain(self.candidate.iter().map(|candidate| &candidate.votes));
        for votes in tables {
            assert!(votes.len() <= VOTES_MAX, "votes are bounded");
        }
        self.adopting.check_invariants();
    }
}

impl<P: Copy + Ord + Debug> State<P> {
    /// The node starts with these checkpoints on disk, and with what stands for entries that it has dropped.
    pub(super) fn begin_with(&mut self, now: Time, stored: Vec<StoredCheckpoint>, base: &Cut) {
        // Not the newest one alone: whatever a sealed checkpoint covered counts for ever.
        let mut covered = base.clone();
        stored.iter().for_each(|stored| covered.join(&stored.cut));
        for (author, cut) in covered.0 {
            if let Some(log) = self.logs.get_mut(&author) {
                log.chain.seal(cut);
                self.jump_if_forked_below(now, author);
            }
        }
        for log in self.logs.values_mut() {
            // What stood for it is damaged.
            let is_beyond = log.chain.head().seq > log.chain.limit();
            if is_beyond {
                log.chain.seal(CutHead { head: log.chain.head(), step: log.chain.step() });
            }
        }
        for stored in stored {
            self.checkpoints.has_company |= stored.sealed.votes.len() > 1;
            self.checkpoints.keep(stored);
        }
        self.checkpoints.begun = self.checkpoints.sealed_step();
        self.checkpoints.is_truncation_due = true;
    }

    pub(super) fn on_members(&mut self, alive: usize) {
        self.checkpoints.members = alive;
        self.checkpoints.has_company |= alive > 1;
    }

    /// How many signatures seal a checkpoint now.
    pub(super) fn votes_needed(&self) -> usize {
        if self.config.checkpoint_signers > 0 {
            return self.config.checkpoint_signers.min(VOTES_MAX);
        }
        let members = match self.checkpoints.members {
            0 => self.peers.len() + 1,
            members => members,
        };
        // Who parts from all others, or has just started, must not seal what nobody else would take.
        let least = if self.checkpoints.has_company { ENOUGH } else { 1 };
        if self.has_more_than_offered() {
            // Most would go on sealing without it, and nobody else could give it.
            return least;
        }
        (members / 2 + 1).max(least).min(VOTES_MAX)
    }

    /// True if this node stands for entries that nobody can get from it: it has dropped them, or a checkpoint keeps them
    /// behind a fork, and the checkpoints that it offers do not cover them. So it is with who was on several islands, and
    /// took what was sealed on each.
    ///
    /// What is sealed then is what this node has folded itself, as always: a second signature that is a liar's makes it
    /// sealed early, and not wrong.
    fn has_more_than_offered(&self) -> bool {
        self.checkpoints.sealed.is_some()
            && self.logs.iter().any(|(author, log)| {
                let covered = self.checkpoints.offered_to(author);
                let is_dropped = log.base > covered.saturating_add(1);
                let proof = log.chain.proof().filter(|_| log.stored.seq > covered);
                is_dropped || proof.is_some_and(|proof| log.stored.seq >= proof.fork())
            })
    }

    /// How many signatures make a checkpoint good enough to stand for entries. Every node takes what another one
    /// has dropped entries for.
    pub(super) fn votes_enough(&self) -> usize {
        if self.config.checkpoint_signers > 0 { self.votes_needed() } else { ENOUGH }
    }

    /// True if this node's signature counts for anything here.
    fn is_signer(&self, node: &NodeId) -> bool {
        let members = &self.config.checkpoint_members;
        members.is_empty() || members.contains(node) || *node == self.me()
    }

    /// How many of these signatures count.
    pub(super) fn counted(&self, votes: &[Vote]) -> usize {
        votes.iter().filter(|vote| self.is_signer(&vote.signer)).count()
    }

    pub(super) fn on_step(&mut self, step: Step, out: &mut Outbox<Output<P>>) {
        let steps = self.config.checkpoint_steps;
        if steps == 0 {
            return;
        }
        self.truncate_if_due(step, steps, out);
        let delay = self.config.checkpoint_delay_steps;
        let since = *self.checkpoints.since.get_or_insert(step);
        let due = Step(step.0.saturating_sub(delay) / steps * steps);
        let is_new = due > self.checkpoints.begun && due > self.checkpoints.sealed_step();
        let is_ready = self.checkpoints.is_idle()
            && !self.checkpoints.is_sealing()
            && !self.writer.has_seal()
            && self.is_own_log_known()
            && step >= since.saturating_add(delay);
        if !is_new || !is_ready {
            return;
        }
        // What is missing makes another checkpoint than the others'. But nobody's claims may keep it from being made for ever.
        let has_time = step < due.saturating_add(delay).saturating_add(steps / 2);
        if has_time && self.behind() > 0 {
            return;
        }
        let token = self.token();
        self.checkpoints.begun = due;
        self.checkpoints.folding = Some((token, due));
        out.push(Output::Fold { token, step: due });
    }

    fn truncate_if_due(&mut self, step: Step, steps: u64, out: &mut Outbox<Output<P>>) {
        let (keep_steps, keep_bytes) = (self.config.keep_steps, self.config.keep_bytes);
        let enough = self.votes_enough();
        let sealed = self.checkpoints.sealed.as_ref().map(|stored| &stored.sealed);
        let Some(sealed) = sealed.filter(|sealed| self.counted(&sealed.votes) >= enough) else { return };
        let below = match keep_steps {
            0 => Step(0),
            keep => Step(step.0.saturating_sub(keep) / steps * steps).min(sealed.checkpoint.step),
        };
        let is_due =
            std::mem::take(&mut self.checkpoints.is_truncation_due) || below > self.checkpoints.truncated;
        if is_due && (below > Step(0) || keep_bytes > 0) {
            self.checkpoints.truncated = below;
            out.push(Output::Truncate { below, bytes_max: (keep_bytes > 0).then_some(keep_bytes) });
        }
    }

    pub(super) fn on_folded(
        &mut self,
        now: Time,
        token: Token,
        result: Result<Box<StoredCheckpoint>, StoreError>,
    ) {
        let Some((_, step)) = self.checkpoints.folding.take_if(|(folding, _)| *folding == token) else {
            return;
        };
        // The store keeps the parts of one.
        self.checkpoints.candidate = None;
        let Ok(made) = result else { return };
        let StoredCheckpoint { sealed: Sealed { checkpoint, heads, .. }, cut } = *made;
        if cut.0.is_empty() || checkpoint.step != step || checkpoint.mesh != self.gates.mesh() {
            return;
        }
        self.stats.checkpoints_made += 1;
        let id = checkpoint.id();
        let mut votes = self.checkpoints.early.remove(&(step, id)).unwrap_or_default();
        let own = Vote::new(&self.identity, checkpoint.mesh, &id);
        votes.insert(own.signer, own);
        self.checkpoints.early.retain(|(early, _), _| *early > step);
        self.checkpoints.unsent = votes.values().copied().collect();
        self.checkpoints.candidate = Some(Candidate { checkpoint, id, heads, cut: Some(cut), votes });
        self.seal_if_enough(now);
    }

    fn seal_if_enough(&mut self, now: Time) {
        if self.checkpoints.folding.is_some() {
            // The parts of the candidate may be gone already.
            return;
        }
        let needed = self.votes_needed();
        let Some(candidate) = &mut self.checkpoints.candidate else { return };
        if candidate.votes.len() < needed {
            return;
        }
        let Some(cut) = candidate.cut.take() else { return };
        let votes = candidate.votes.values().copied().collect();
        let (checkpoint, heads) = (candidate.checkpoint.clone(), candidate.heads.clone());
        let sealed = Sealed { checkpoint, heads, votes };
        self.stats.checkpoints_sealed += 1;
        self.queue_seal(now, StoredCheckpoint { sealed, cut });
    }

    /// A sealed checkpoint is on disk.
    pub(super) fn on_sealed(&mut self, stored: StoredCheckpoint, out: &mut Outbox<Output<P>>) {
        out.push(Event::Sealed { sealed: Box::new(stored.sealed.clone()) });
        self.checkpoints.keep(stored);
        let step = self.checkpoints.sealed_step();
        self.checkpoints.early.retain(|(early, _), _| *early > step);
        self.checkpoints.is_truncation_due = true;
    }

    /// Logs have jumped, on disk.
    pub(super) fn on_jumped(&mut self, logs: Vec<(NodeId, Head, u64)>, out: &mut Outbox<Output<P>>) {
        if logs.is_empty() {
            return;
        }
        for (author, head, entries) in &logs {
            self.count_covered(author, *entries);
            if *author == self.me() {
                self.own.note_jump(*head);
            }
        }
        out.push(Event::Jumped { logs });
    }

    pub(super) fn on_checkpoint_frame(
        &mut self,
        now: Time,
        from: P,
        frame: Frame,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        match frame {
            Frame::Votes { step, checkpoint, votes } => {
                self.on_votes(now, from, (step, checkpoint), votes, out);
            }
            Frame::AskCheckpoint { author, seq } => self.on_ask_checkpoint(now, from, (author, seq), out),
            Frame::Offer(offer) => self.on_offer(now, from, offer, rng, out),
            Frame::AskChunk { id, checkpoint, part, index } => {
                self.on_ask_chunk(from, id, checkpoint, part, index, out);
            }
            Frame::Chunk { id, bytes } => self.on_chunk(now, from, id, bytes, rng, out),
            _ => {}
        }
    }

    fn on_votes(
        &mut self,
        now: Time,
        from: P,
        (step, id): (Step, Hash),
        votes: Vec<Vote>,
        out: &mut Outbox<Output<P>>,
    ) {
        if self.config.checkpoint_steps == 0 {
            return;
        }
        let allowed =
            self.peers.get_mut(&from).is_some_and(|peer| peer.allows(now, &self.config, Counted::Checkpoint));
        if !allowed {
            self.stats.shed += 1;
            return;
        }
        let sealed = self.checkpoints.sealed.as_ref().map(|stored| &stored.sealed);
        if let Some(sealed) = sealed.filter(|sealed| sealed.checkpoint.step >= step) {
            let is_this = sealed.checkpoint.step == step && sealed.checkpoint.id() == id;
            if is_this && votes.len() < sealed.votes.len() && self.checkpoints.told.insert(from) {
                let votes = sealed.votes.clone();
                self.send(from, &Frame::Votes { step, checkpoint: id, votes }, out);
            }
            return;
        }
        let is_possible =
            self.step.is_some_and(|now| step <= now) && step.0.is_multiple_of(self.config.checkpoint_steps);
        let mesh = self.gates.mesh();
        let votes: Vec<Vote> = votes.into_iter().filter(|vote| self.is_signer(&vote.signer)).collect();
        if !is_possible {
            return;
        }
        let known = self.checkpoints.votes(step, id);
        let mut news = BTreeMap::new();
        let mut is_lie = false;
        for vote in votes {
            if known.map_or(0, BTreeMap::len) + news.len() >= VOTES_MAX {
                break;
            }
            if known.is_some_and(|known| known.contains_key(&vote.signer)) {
                continue;
            }
            if !vote.verify(mesh, &id) {
                is_lie = true;
                break;
            }
            news.insert(vote.signer, vote);
        }
        // Only who has signed it takes a place that another checkpoint may need.
        let table = if news.is_empty() { None } else { self.checkpoints.votes_for(step, id) };
        if let Some(table) = table {
            table.extend(news.clone());
        }
        let is_open = self.checkpoints.open().is_some_and(|candidate| candidate.id == id);
        if is_open {
            self.checkpoints.unsent.extend(news.into_values());
            self.seal_if_enough(now);
        }
        if is_lie {
            self.blame(now, from, Misdeed::BadCheckpoint, out);
        }
    }

    /// Passes on to all what is new, a tick after it came, so that many votes go in one frame.
    pub(super) fn pass_votes_on(&mut self, out: &mut Outbox<Output<P>>) {
        let votes = std::mem::take(&mut self.checkpoints.unsent);
        let Some(candidate) = self.checkpoints.candidate.as_ref().filter(|_| !votes.is_empty()) else {
            return;
        };
        let frame = Frame::Votes { step: candidate.checkpoint.step, checkpoint: candidate.id, votes };
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.send(peer, &frame, out);
        }
    }

    /// Tells a peer all votes for what is not sealed yet: some may have been lost, or it may know more.
    pub(super) fn tell_votes(&mut self, peer: P, out: &mut Outbox<Output<P>>) {
        let Some(candidate) = self.checkpoints.open() else { return };
        let votes = candidate.votes.values().copied().collect();
        let frame = Frame::Votes { step: candidate.checkpoint.step, checkpoint: candidate.id, votes };
        self.send(peer, &frame, out);
    }

    fn on_ask_checkpoint(
        &mut self,
        now: Time,
        from: P,
        (author, seq): (NodeId, Seq),
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let is_busy = peer.queued >= self.config.serve_queue_bytes_max;
        if is_busy || !peer.allows(now, &self.config, Counted::Checkpoint) {
            self.stats.shed += 1;
            return;
        }
        let offer = self.checkpoints.offered().find(|stored| stored.cut.head(&author).seq >= seq);
        self.send(from, &Frame::Offer(offer.map(|stored| stored.sealed.clone())), out);
    }

    fn on_ask_chunk(
        &mut self,
        peer: P,
        id: u64,
        checkpoint: Hash,
        part: u64,
        index: u64,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let is_free =
            state.served < self.config.serves_per_peer && state.queued < self.config.serve_queue_bytes_max;
        let part = usize::try_from(part).ok().filter(|_| self.checkpoints.sealed.is_some());
        let reason = if part.is_none() { Decline::Missing } else { Decline::Busy };
        let (Some(part), true) = (part, is_free) else {
            return self.decline(peer, id, reason, Seq(0), out);
        };
        state.served += 1;
        let token = self.token();
        self.checkpoints.serving.insert(token, ServingChunk { peer, id });
        out.push(Output::ReadChunk { token, checkpoint, part, index });
    }

    /// The store has answered.
    pub(super) fn serve_chunk(
        &mut self,
        ServingChunk { peer, id }: ServingChunk<P>,
        chunks: Option<Vec<Bytes>>,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.served = state.served.saturating_sub(1);
        match chunks.and_then(|chunks| chunks.into_iter().next()) {
            Some(bytes) => self.send(peer, &Frame::Chunk { id, bytes }, out),
            None => self.decline(peer, id, Decline::Missing, Seq(0), out),
        }
    }
}

impl<P> Checkpoints<P> {
    /// The votes for this checkpoint.
    fn votes(&self, step: Step, id: Hash) -> Option<&BTreeMap<NodeId, Vote>> {
        let candidate = self.candidate.as_ref().filter(|candidate| candidate.id == id);
        candidate.map(|candidate| &candidate.votes).or_else(|| self.early.get(&(step, id)))
    }

    /// The same, to add to; `None` if there is no room.
    fn votes_for(&mut self, step: Step, id: Hash) -> Option<&mut BTreeMap<NodeId, Vote>> {
        if self.candidate.as_ref().is_some_and(|candidate| candidate.id == id) {
            return self.candidate.as_mut().map(|candidate| &mut candidate.votes);
        }
        // Of what is made already, another one is of no use.
        if self.candidate.as_ref().is_some_and(|candidate| candidate.checkpoint.step >= step) {
            return None;
        }
        if !self.early.contains_key(&(step, id)) && self.early.len() >= EARLY_MAX {
            let lowest = self.early.keys().next().copied().filter(|(lowest, _)| *lowest < step)?;
            self.early.remove(&lowest);
        }
        Some(self.early.entry((step, id)).or_default())
    }
}
