//! Records and proofs from others, on their way into the chain.

use std::fmt::Debug;

use bytes::Bytes;
use rand_core::Rng;

use crate::envelope::Envelope;
use crate::id::{NodeId, Seq};
use crate::machine::Outbox;
use crate::refusal::Refusal;
use crate::time::Time;
use crate::validate::Verified;

use super::super::chain::{Chain, Offered};
use super::super::wire::Frame;
use super::super::{AuthorHead, Misdeed, Output, Proof, Record, StoreError, Token};
use super::State;
use super::peers::Counted;

/// Own records that are being looked up because of others, at most. What comes meanwhile is dropped; a contradiction in
/// it shows again when heads are compared. Source: guess.
const CHECKS_MAX: usize = 256;

/// Why an own record is looked up.
#[derive(Debug)]
pub(super) enum Check<P> {
    /// Is this record the one in its place?
    Compare(Record),
    /// This proof freezes the log: what of ours is at its fork?
    Freeze(Proof),
    /// The peer's record in a search for a fork.
    Fork(P, Record),
}

/// Why signatures are being checked.
#[derive(Debug)]
pub(super) enum Checking<P> {
    /// They came in answer to this request.
    Request { id: u64, peer: P, bytes: usize },
    /// They came in a search for a fork.
    Fork { author: NodeId, peer: P },
}

impl<P: Copy + Ord + Debug> State<P> {
    /// Takes in a record that has passed all gates. `is_asked` says that it is an answer.
    pub(super) fn take(
        &mut self,
        now: Time,
        from: Option<P>,
        record: Record,
        is_asked: bool,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let author = record.author();
        if !self.has_room_to_write() && !is_asked {
            self.stats.shed += 1;
            return;
        }
        if self.log_mut(author).is_none() {
            self.stats.refused += 1;
            return;
        }
        let room = self.room();
        let offered = self.with_chain(author, |chain| chain.offer(record.clone(), is_asked, room));
        match offered.unwrap_or(Offered::Shed) {
            Offered::Applied(records) => self.on_applied(from, records, is_asked),
            Offered::Known => self.stats.duplicates += 1,
            Offered::Waits => {
                self.claim_before(now, from, &record);
                self.bound_waiting(author);
            }
            Offered::Stray => {
                self.bound_waiting(author);
                if let Some(peer) = from {
                    let head = self.logs.get(&author).map_or(Seq(0), |log| log.chain.head().seq);
                    self.search_fork(now, peer, author, head, is_asked, rng, out);
                }
            }
            Offered::Taken => self.compare_with_own(now, record, out),
            Offered::Conflict(proof) => self.freeze(now, from, proof, out),
            Offered::BeyondFork => self.stats.refused += 1,
            Offered::Shed => self.stats.shed += 1,
        }
    }

    fn on_applied(&mut self, from: Option<P>, records: Vec<Record>, is_asked: bool) {
        for record in records {
            self.count_recovered(from, &record, is_asked);
            self.queue_append(record, from, is_asked, Vec::new());
        }
        self.may_fetch = true;
    }

    /// Keeps the counts of what waits right while `change` works on a chain.
    pub(super) fn with_chain<R>(
        &mut self,
        author: NodeId,
        change: impl FnOnce(&mut Chain) -> R,
    ) -> Option<R> {
        let log = self.logs.get_mut(&author)?;
        let count = |chain: &Chain| (chain.unasked_bytes(), chain.waiting_bytes() - chain.unasked_bytes());
        let before = count(&log.chain);
        let result = change(&mut log.chain);
        let after = count(&log.chain);
        self.unasked_bytes = self.unasked_bytes + after.0 - before.0;
        self.asked_waiting_bytes = self.asked_waiting_bytes + after.1 - before.1;
        Some(result)
    }

    /// If too much waits in all, this author's has to go.
    fn bound_waiting(&mut self, author: NodeId) {
        if self.unasked_bytes > self.config.waiting_total_bytes_max {
            let none = super::Room { records: 0, bytes: 0 };
            let shed = self.with_chain(author, |chain| chain.shed(none)).unwrap_or(0);
            self.stats.shed += shed as u64;
        }
    }

    /// The record's place is taken: by itself, or by another?
    fn compare_with_own(&mut self, now: Time, record: Record, out: &mut Outbox<Output<P>>) {
        let author = record.author();
        let Some(log) = self.logs.get(&author) else { return };
        if record.head() == log.stored || record.head() == log.chain.head() {
            self.stats.duplicates += 1;
        } else if let Some(own) = log.unwritten_covering(record.first()) {
            let own = own.clone();
            self.on_compared(now, &record, Some(&own), out);
        } else if record.first() < log.base {
            self.stats.duplicates += 1;
        } else {
            self.look_up(author, record.first(), Check::Compare(record), out);
        }
    }

    fn on_compared(&mut self, now: Time, record: &Record, own: Option<&Record>, out: &mut Outbox<Output<P>>) {
        match Chain::compare(record, own) {
            Offered::Conflict(proof) => self.freeze(now, None, proof, out),
            _ => self.stats.duplicates += 1,
        }
    }

    pub(super) fn look_up(&mut self, author: NodeId, seq: Seq, check: Check<P>, out: &mut Outbox<Output<P>>) {
        if self.checks.len() >= CHECKS_MAX {
            self.stats.shed += 1;
            if let Check::Fork(..) = check {
                self.forks.remove(&author);
            }
            return;
        }
        let token = self.token();
        self.checks.insert(token, check);
        out.push(Output::Find { token, author, seq });
    }

    /// A proof is known: freezes the log, unless a lesser one has already.
    pub(super) fn freeze(&mut self, now: Time, from: Option<P>, proof: Proof, out: &mut Outbox<Output<P>>) {
        let author = proof.author();
        let Some(log) = self.log_mut(author) else { return };
        if log.chain.proof().is_some_and(|frozen| !proof.is_less_than(frozen)) {
            return;
        }
        let fork = proof.fork();
        let is_reached = log.chain.head().seq >= fork && fork >= log.base;
        match log.unwritten_covering(fork).cloned() {
            Some(own) => self.freeze_with(now, from, &proof, Some(&own), out),
            None if is_reached => self.look_up(author, fork, Check::Freeze(proof), out),
            None => self.freeze_with(now, from, &proof, None, out),
        }
    }

    fn freeze_with(
        &mut self,
        now: Time,
        from: Option<P>,
        proof: &Proof,
        own: Option<&Record>,
        out: &mut Outbox<Output<P>>,
    ) {
        let author = proof.author();
        if self.with_chain(author, |chain| chain.freeze(proof, own)) != Some(true) {
            return;
        }
        let Some(log) = self.logs.get_mut(&author) else { return };
        let Some(proof) = log.chain.proof().cloned() else { return };
        // A liar can make ever lesser proofs; what is too early to be told now is found when heads are compared.
        let is_due = log.proof_told.is_none_or(|told| now.since(told) >= self.config.interval);
        if is_due {
            log.proof_told = Some(now);
        }
        let frame = Frame::Proof(proof.encode());
        self.queue_freeze(proof);
        self.jump_if_forked_below(now, author);
        self.forks.remove(&author);
        self.forget_beyond_limit(&author);
        if is_due {
            let peers: Vec<P> = self.peers.keys().copied().filter(|peer| Some(*peer) != from).collect();
            for peer in peers {
                self.send(peer, &frame, out);
            }
        }
    }

    /// If the log is frozen at or before where a sealed checkpoint cuts it, the checkpoint stands for all of it: of which
    /// branch our records are, nobody can tell.
    pub(super) fn jump_if_forked_below(&mut self, now: Time, author: NodeId) {
        let Some(log) = self.logs.get(&author) else { return };
        let cut = log.chain.sealed();
        let is_forked = log.chain.proof().is_some_and(|proof| proof.fork() <= cut.head.seq);
        if is_forked && (log.base <= cut.head.seq || log.chain.head() != cut.head) {
            self.queue_jump(now, author, cut);
        }
    }

    pub(super) fn on_proof(&mut self, now: Time, from: P, bytes: &Bytes, out: &mut Outbox<Output<P>>) {
        let allowed =
            self.peers.get_mut(&from).is_some_and(|peer| peer.allows(now, &self.config, Counted::Proof));
        if !allowed {
            self.stats.shed += 1;
            return;
        }
        let Ok(proof) = Proof::decode(bytes, self.config.message_bytes_max) else {
            return self.blame(now, from, Misdeed::BadProof, out);
        };
        let known = self.logs.get(&proof.author()).and_then(|log| log.chain.proof());
        if known.is_some_and(|known| !proof.is_less_than(known)) {
            return;
        }
        let mesh = self.gates.mesh();
        match proof.verify_in_mesh(mesh, self.gates.patterns()) {
            Ok(()) => self.freeze(now, Some(from), proof, out),
            Err(_) => self.blame(now, from, Misdeed::BadProof, out),
        }
    }

    /// A peer says what is on its disk of an author's log.
    pub(super) fn on_head(
        &mut self,
        now: Time,
        from: P,
        head: AuthorHead,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let author = head.author;
        if author == self.me() {
            self.note_replica(from, &head, out);
        }
        let log = self.logs.get(&author);
        let proof = log.and_then(|log| log.chain.proof()).map(Proof::id);
        let own = log.map_or(super::Head::EMPTY, |log| log.chain.head());
        let is_other = head.proof.is_some() && head.proof != proof;
        let peer = self.peers.get_mut(&from).filter(|_| is_other);
        if peer.is_some_and(|peer| peer.allows(now, &self.config, Counted::AskProof)) {
            self.send(from, &Frame::AskProof(author), out);
        }
        let is_frozen_alike = proof.is_some() && head.proof == proof;
        let limit = self.logs.get(&author).map_or(Seq(u64::MAX), |log| log.chain.limit());
        if is_frozen_alike && head.head.seq > limit {
            // It has a checkpoint that covers the fork.
            self.want_checkpoint(now, author, head.head.seq, out);
        } else if head.head.seq > own.seq {
            self.claim(now, from, author, head.head.seq, true);
        } else if head.head.seq == own.seq && head.head.digest != own.digest {
            self.search_fork(now, from, author, own.seq, false, rng, out);
        }
    }

    pub(super) fn on_verified(
        &mut self,
        now: Time,
        token: Token,
        results: Vec<Result<Verified, Refusal>>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        match self.checking.remove(&token) {
            Some(Checking::Request { id, peer, bytes }) => {
                self.checking_bytes -= bytes;
                let Some(request) = self.end_request(id) else { return };
                for result in results {
                    match result {
                        Ok(verified) => {
                            if let Some(record) = verified.into_record() {
                                self.take(now, Some(peer), record, true, rng, out);
                            }
                        }
                        Err(reason) => {
                            self.stats.refused += 1;
                            self.stats.fetches_failed += 1;
                            self.drop_claim(peer, &request.author);
                            return self.blame(now, peer, Misdeed::BadRecord(reason), out);
                        }
                    }
                }
                self.check_frontier(now, peer, &request, rng, out);
            }
            Some(Checking::Fork { author, peer }) => match results.into_iter().next() {
                Some(Ok(verified)) => self.on_fork_record(now, author, peer, verified.into_record(), out),
                Some(Err(reason)) => {
                    self.end_fork(now, author, out);
                    self.blame(now, peer, Misdeed::BadRecord(reason), out);
                }
                None => self.end_fork(now, author, out),
            },
            None => {}
        }
    }

    pub(super) fn on_read(
        &mut self,
        now: Time,
        token: Token,
        result: Result<Vec<Bytes>, StoreError>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        if let Some(serving) = self.serving.remove(&token) {
            return self.serve(serving, result.ok(), out);
        }
        if let Some(serving) = self.checkpoints.serving.remove(&token) {
            return self.serve_chunk(serving, result.ok(), out);
        }
        let Some(check) = self.checks.remove(&token) else { return };
        // What the store gives was judged before it was stored.
        let stored = result.ok().and_then(|records| records.into_iter().next());
        let own = stored
            .and_then(|bytes| Envelope::decode(&bytes, self.config.message_bytes_max).ok())
            .and_then(Record::new);
        match check {
            Check::Compare(record) => self.on_compared(now, &record, own.as_ref(), out),
            Check::Freeze(proof) => self.freeze_with(now, None, &proof, own.as_ref(), out),
            Check::Fork(peer, record) => self.on_fork_compared(now, peer, &record, own.as_ref(), rng, out),
        }
    }

    pub(super) fn on_ask_proof(&mut self, from: P, author: &NodeId, out: &mut Outbox<Output<P>>) {
        let proof = self.logs.get(author).and_then(|log| log.chain.proof()).map(Proof::encode);
        let busy = self.config.serve_queue_bytes_max;
        let is_busy = self.peers.get(&from).is_none_or(|peer| peer.queued >= busy);
        if let Some(proof) = proof.filter(|_| !is_busy) {
            self.send(from, &Frame::Proof(proof), out);
        }
    }
}
