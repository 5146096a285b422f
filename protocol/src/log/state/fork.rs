//! Finding a fork: two nodes have different branches of a log, and neither has a proof.
//!
//! Where two chains agree at one place they agree before it, because each record names the one before. So the
//! node that finds out halves: it asks the peer for the record that covers the middle, and compares it with its own.
//! Each pair that differs is a proof; the first one is the least. Nothing is to be believed on the way: the records are signed.

use std::fmt::Debug;

use bytes::Bytes;
use rand_core::Rng;

use crate::id::{NodeId, Seq};
use crate::machine::Outbox;
use crate::time::Time;

use super::super::wire::Frame;
use super::super::{Misdeed, Output, Proof, Record};
use super::State;
use super::records::{Check, Checking};

/// Searches under way, at most. What differs shows again when heads are compared. Source: guess.
pub(super) const SEARCHES_MAX: usize = 32;

/// A search for the place where a peer's branch of a log leaves ours.
#[derive(Debug)]
pub(super) struct ForkSearch<P> {
    peer: P,
    /// Up to here both agree.
    low: Seq,
    /// Behind this they differ.
    high: Seq,
    /// What was asked for last.
    middle: Seq,
    least: Option<Proof>,
    /// It has given an answer that an honest peer gives only if there is a fork.
    is_suspect: bool,
}

impl<P: Copy + Ord + Debug> State<P> {
    /// The peer's log of this author seems to be another one at or before `at`, which is in ours. If it is not, the peer
    /// has lied if it `is_suspect`.
    #[expect(clippy::too_many_arguments, reason = "the beginning of a search")]
    pub(super) fn search_fork(
        &mut self,
        now: Time,
        peer: P,
        author: NodeId,
        at: Seq,
        is_suspect: bool,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let low = self.logs.get(&author).map_or(Seq(0), |log| log.base.saturating_sub(1));
        let is_ready = self.peers.get(&peer).is_some_and(|state| state.quiet_until <= now);
        let has_room = self.forks.len() < SEARCHES_MAX && !self.forks.contains_key(&author);
        if at <= low || !is_ready || !has_room || self.step.is_none() {
            return;
        }
        self.stats.fork_searches += 1;
        self.forks.insert(author, ForkSearch { peer, low, high: at, middle: at, least: None, is_suspect });
        self.ask_middle(now, author, rng, out);
    }

    fn ask_middle(&mut self, now: Time, author: NodeId, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let Some(search) = self.forks.get(&author) else { return };
        let (peer, seq) = (search.peer, search.middle);
        let bytes_max = self.config.message_bytes_max;
        let id = self.request(now, peer, author, (seq, seq), bytes_max, true, rng);
        self.send(peer, &Frame::Find { id, author, seq }, out);
    }

    pub(super) fn on_fork_answer(
        &mut self,
        now: Time,
        id: u64,
        records: &[Bytes],
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(request) = self.end_request(id) else { return };
        let (author, peer) = (request.author, request.peer);
        let Some(bytes) = records.first() else {
            self.end_fork(now, author, out);
            self.drop_claim(peer, &author);
            return self.blame(now, peer, Misdeed::EmptyClaim, out);
        };
        let checked = self.gates.precheck(self.step, bytes);
        let misdeed = match checked {
            Ok(checked) => {
                let record = Record::new(checked.envelope().clone());
                let is_asked =
                    record.is_some_and(|record| record.author() == author && record.covers(request.from));
                if is_asked && records.len() == 1 {
                    let token = self.token();
                    self.checking.insert(token, Checking::Fork { author, peer });
                    out.push(Output::Verify { token, records: vec![checked] });
                    return;
                }
                Some(Misdeed::NotAsked)
            }
            Err(reason) => reason.is_forwarders_fault().then_some(Misdeed::BadRecord(reason)),
        };
        self.end_fork(now, author, out);
        if let Some(misdeed) = misdeed {
            self.blame(now, peer, misdeed, out);
        }
    }

    pub(super) fn on_fork_record(
        &mut self,
        now: Time,
        author: NodeId,
        peer: P,
        record: Option<Record>,
        out: &mut Outbox<Output<P>>,
    ) {
        let is_current = self.forks.get(&author).is_some_and(|search| search.peer == peer);
        match record.filter(|_| is_current) {
            Some(record) => {
                let first = record.first();
                // What is not on disk yet is, once this look-up is answered, or the search goes another time.
                self.look_up(author, first, Check::Fork(peer, record), out);
            }
            None => self.end_fork(now, author, out),
        }
    }

    pub(super) fn on_fork_compared(
        &mut self,
        now: Time,
        peer: P,
        record: &Record,
        own: Option<&Record>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let author = record.author();
        let unwritten =
            self.logs.get(&author).and_then(|log| log.unwritten_covering(record.first())).cloned();
        let Some(search) = self.forks.get_mut(&author).filter(|search| search.peer == peer) else { return };
        let Some(own) = unwritten.as_ref().or(own) else { return self.end_fork(now, author, out) };
        match Proof::new(record, own) {
            Some(proof) => {
                search.high = proof.fork().saturating_sub(1);
                if search.least.as_ref().is_none_or(|least| proof.is_less_than(least)) {
                    search.least = Some(proof);
                }
            }
            None => search.low = search.low.max(record.last()),
        }
        if search.low >= search.high {
            let (has_agreed, is_suspect) = (search.least.is_none(), search.is_suspect);
            self.end_fork(now, author, out);
            if has_agreed {
                self.drop_claim(peer, &author);
            }
            if has_agreed && is_suspect {
                // It has what we have, and pretended otherwise.
                self.blame(now, peer, Misdeed::EmptyClaim, out);
            }
            return;
        }
        search.middle = Seq(search.low.0 + (search.high.0 - search.low.0).div_ceil(2));
        self.ask_middle(now, author, rng, out);
    }

    /// Ends a search with what it has found.
    pub(super) fn end_fork(&mut self, now: Time, author: NodeId, out: &mut Outbox<Output<P>>) {
        if let Some(proof) = self.forks.remove(&author).and_then(|search| search.least) {
            self.freeze(now, None, proof, out);
        }
    }

    pub(super) fn end_forks_with(&mut self, now: Time, peer: P, out: &mut Outbox<Output<P>>) {
        let ended = self.forks.iter().filter(|(_, search)| search.peer == peer);
        let ended: Vec<NodeId> = ended.map(|(author, _)| *author).collect();
        ended.into_iter().for_each(|author| self.end_fork(now, author, out));
    }
}
