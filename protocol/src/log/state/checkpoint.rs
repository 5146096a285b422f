//! Making checkpoints, signing them together, and dropping what they cover.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;
use rand_core::Rng;

use crate::id::{Hash, NodeId, Step};
use crate::machine::Outbox;
use crate::time::Time;

use super::super::checkpoint::{Checkpoint, Cut, Sealed, StoredCheckpoint, VOTES_MAX, Vote};
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
    sealed: Option<Sealed>,
    /// What it covers.
    sealed_cut: Cut,
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
            sealed_cut: Cut::default(),
            told: BTreeSet::new(),
            truncated: Step(0),
            is_truncation_due: false,
            serving: BTreeMap::new(),
            adopting: Adopting::new(),
        }
    }

    pub(super) fn sealed(&self) -> Option<&Sealed> {
        self.sealed.as_ref()
    }

    pub(super) fn sealed_step(&self) -> Step {
        self.sealed.as_ref().map_or(Step(0), |sealed| sealed.checkpoint.step)
    }

    /// Signatures of the checkpoint that waits for more.
    pub(super) fn votes(&self) -> usize {
        self.open().map_or(0, |candidate| candidate.votes.len())
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
        let tables = self.early.values().chain(self.candidate.iter().map(|candidate| &candidate.votes));
        for votes in tables {
            assert!(votes.len() <= VOTES_MAX, "votes are bounded");
        }
        self.adopting.check_invariants();
    }
}

impl<P: Copy + Ord + Debug> State<P> {
    /// The node starts with this checkpoint on disk.
    pub(super) fn begin_with(&mut self, StoredCheckpoint { sealed, cut }: StoredCheckpoint) {
        for (author, cut) in &cut.0 {
            if let Some(log) = self.logs.get_mut(author) {
                log.chain.seal(*cut);
            }
        }
        self.checkpoints.sealed_cut = cut;
        self.checkpoints.has_company = sealed.votes.len() > 1;
        self.checkpoints.begun = sealed.checkpoint.step;
        self.checkpoints.is_truncation_due = true;
        self.checkpoints.sealed = Some(sealed);
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
        if self.has_more_than_sealed() {
            // Most would go on sealing without it, and nobody else could give it.
            return least;
        }
        (members / 2 + 1).max(least).min(VOTES_MAX)
    }

    /// True if this node stands for entries that nobody can get from it: it has dropped them, or a checkpoint keeps them
    /// behind a fork, and the newest sealed checkpoint, which it offers, does not cover them. So it is with who was few on
    /// an island, and took the checkpoint of the many before they took its own.
    fn has_more_than_sealed(&self) -> bool {
        self.checkpoints.sealed.is_some()
            && self.logs.iter().any(|(author, log)| {
                let covered = self.checkpoints.sealed_cut.head(author).seq;
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
        let Some(sealed) = self.checkpoints.sealed.as_ref().filter(|sealed| sealed.votes.len() >= enough)
        else {
            return;
        };
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
        result: Result<(Checkpoint, Cut), StoreError>,
    ) {
        let Some((_, step)) = self.checkpoints.folding.take_if(|(folding, _)| *folding == token) else {
            return;
        };
        // The store keeps the parts of one.
        self.checkpoints.candidate = None;
        let Ok((checkpoint, cut)) = result else { return };
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
        self.checkpoints.candidate = Some(Candidate { checkpoint, id, cut: Some(cut), votes });
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
        let sealed = Sealed { checkpoint: candidate.checkpoint.clone(), votes };
        self.stats.checkpoints_sealed += 1;
        self.queue_seal(now, StoredCheckpoint { sealed, cut });
    }

    /// A sealed checkpoint is on disk.
    pub(super) fn on_sealed(&mut self, stored: StoredCheckpoint, out: &mut Outbox<Output<P>>) {
        let StoredCheckpoint { sealed, cut } = stored;
        out.push(Event::Sealed { sealed: Box::new(sealed.clone()) });
        if sealed.checkpoint.step < self.checkpoints.sealed_step() {
            return;
        }
        let step = sealed.checkpoint.step;
        self.checkpoints.early.retain(|(early, _), _| *early > step);
        self.checkpoints.is_truncation_due = true;
        (self.checkpoints.sealed, self.checkpoints.sealed_cut) = (Some(sealed), cut);
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
            Frame::AskCheckpoint => self.on_ask_checkpoint(now, from, out),
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
        if let Some(sealed) = self.checkpoints.sealed.as_ref().filter(|sealed| sealed.checkpoint.step >= step)
        {
            let is_this = sealed.checkpoint.step == step && sealed.checkpoint.id() == id;
            if is_this && votes.len() < sealed.votes.len() && self.checkpoints.told.insert(from) {
                let votes = sealed.votes.clone();
                self.send(from, &Frame::Votes { step, checkpoint: id, votes }, out);
            }
            return;
        }
        let mesh = self.gates.mesh();
        let is_possible =
            self.step.is_some_and(|now| step <= now) && step.0.is_multiple_of(self.config.checkpoint_steps);
        let Some(table) = self.checkpoints.votes_for(step, id).filter(|_| is_possible) else { return };
        let mut news = Vec::new();
        let mut is_lie = false;
        for vote in votes {
            if table.len() >= VOTES_MAX {
                break;
            }
            if table.contains_key(&vote.signer) {
                continue;
            }
            if !vote.verify(mesh, &id) {
                is_lie = true;
                break;
            }
            table.insert(vote.signer, vote);
            news.push(vote);
        }
        let is_open = self.checkpoints.open().is_some_and(|candidate| candidate.id == id);
        if is_open {
            self.checkpoints.unsent.extend(news);
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

    fn on_ask_checkpoint(&mut self, now: Time, from: P, out: &mut Outbox<Output<P>>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let is_busy = peer.queued >= self.config.serve_queue_bytes_max;
        if is_busy || !peer.allows(now, &self.config, Counted::Checkpoint) {
            self.stats.shed += 1;
            return;
        }
        self.send(from, &Frame::Offer(self.checkpoints.sealed.clone()), out);
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
            return self.decline(peer, id, reason, crate::id::Seq(0), out);
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
            None => self.decline(peer, id, Decline::Missing, crate::id::Seq(0), out),
        }
    }
}

impl<P> Checkpoints<P> {
    /// The votes for this checkpoint; `None` if there is no room.
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
