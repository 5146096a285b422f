//! Fetching: who has more, what to ask of whom, and what to make of the answers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;

use bytes::Bytes;
use rand_core::Rng;

use crate::id::{NodeId, Seq};
use crate::machine::Outbox;
use crate::refusal::Refusal;
use crate::time::Time;
use crate::validate::Unverified;

use super::super::report::{Missed, REPORT_MAX, Report};
use super::super::wire::{Decline, Frame};
use super::super::{Event, Misdeed, Output, Record};
use super::State;
use super::records::Checking;

/// Authors that are looked at in one go for something to ask. Source: guess, some 50 µs.
const LOOK_MAX: usize = 64;
/// Bytes asked of one peer at once, in requests of full size. Source: guess; 2 MiB in a round trip of 5 ms are 400 MB/s, more
/// than is written to disk.
const FULL_REQUESTS: usize = 8;
/// Bytes of an entry while nothing is known of an author's. Source: a record of one entry of 200 bytes.
const ENTRY_BYTES: usize = 430;
/// Entries asked for at once, at least: more than the longest record has, so that most answers hold something.
const ENTRIES_MIN: usize = 512;
/// How far beyond the end of a log, in entries, something is asked for; a liar can claim any number. Source: guess, more
/// than there is room for.
const AHEAD_MAX: u64 = 1 << 17;
/// Ranges of one author in which no record begins that are remembered. Source: guess; there is one at each border of two requests.
const EMPTY_MAX: usize = 256;

/// An author of whom somebody has more.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// Ranges that are asked for or being checked: first to last, and the request.
    asked: BTreeMap<Seq, (Seq, u64)>,
    /// Ranges in which, it is said, no record begins.
    empty: BTreeMap<Seq, Seq>,
    /// Bytes of an entry, lately.
    entry_bytes: Option<usize>,
}

impl Fetching {
    /// Notes that no record begins in `from..=to`, in one range with what comes before.
    fn add_empty(&mut self, from: Seq, to: Seq) {
        match self.empty.range_mut(..=from).next_back() {
            Some((_, end)) if end.saturating_add(1) >= from => *end = to.max(*end),
            _ => {
                self.empty.insert(from, to);
            }
        }
        while self.empty.len() > EMPTY_MAX {
            self.empty.pop_last();
        }
    }
}

/// Something that a peer was asked for.
#[derive(Debug)]
pub(super) struct Request<P> {
    pub(super) peer: P,
    pub(super) author: NodeId,
    pub(super) from: Seq,
    pub(super) to: Seq,
    pub(super) bytes_max: usize,
    pub(super) deadline: Time,
    /// True for the record of a search for a fork.
    pub(super) is_fork: bool,
    /// True once it is answered and signatures are being checked.
    pub(super) is_checking: bool,
    /// The answer says that no record begins in `from..=empty_to`.
    empty_to: Seq,
}

/// A catch-up under way.
#[derive(Debug)]
pub(super) struct CatchUp {
    began: Time,
    report: Report,
}

impl<P: Copy + Ord + Debug> State<P> {
    /// Asks for what is missing, as much as there is room for.
    pub(super) fn fetch(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if std::mem::take(&mut self.may_fetch) {
            self.fetch_left = self.fetching.len();
        }
        if self.step.is_none() || self.fetch_left == 0 || !self.is_anybody_free(now) {
            return;
        }
        // With more authors than are looked at now, the next input goes on where this one ended.
        let look = self.fetch_left.min(LOOK_MAX);
        self.fetch_left -= look;
        let after = self.fetch_from.map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = self.fetch_from.map_or(Bound::Excluded(NodeId::from_bytes([0; 32])), Bound::Included);
        let rest = self.fetching.range((after, Bound::Unbounded));
        let authors: Vec<NodeId> = rest
            .chain(self.fetching.range((Bound::Unbounded, up_to)))
            .map(|(author, _)| *author)
            .take(look)
            .collect();
        for author in authors {
            self.fetch_from = Some(author);
            if self.prune_claims(&author) {
                while self.ask_next(now, author, rng, out) {}
            }
        }
    }

    /// True if somebody can be asked, or has gone quiet so that what it claimed may be of no use.
    fn is_anybody_free(&self, now: Time) -> bool {
        let bytes_max = self.config.fetch_bytes.saturating_mul(FULL_REQUESTS);
        let is_busy = |state: &super::Peer| {
            state.asked >= self.config.fetches_per_peer
                || state.asked_bytes >= bytes_max
                || state.quiet_until > now
        };
        self.requests.is_empty() || !self.peers.values().all(is_busy)
    }

    /// Forgets claims that are fulfilled. False if nothing is left to fetch of this author.
    fn prune_claims(&mut self, author: &NodeId) -> bool {
        let head = self.logs.get(author).map_or(Seq(0), |log| log.chain.head().seq);
        let mut is_claimed = false;
        for peer in self.peers.values_mut() {
            if let Some(claim) = peer.claims.get(author) {
                if claim.to <= head {
                    peer.claims.remove(author);
                } else {
                    is_claimed = true;
                }
            }
        }
        let Some(fetching) = self.fetching.get_mut(author) else { return false };
        fetching.empty.retain(|_, to| *to > head);
        if !is_claimed && fetching.asked.is_empty() {
            self.fetching.remove(author);
            return false;
        }
        is_claimed
    }

    /// Peers' claims must not go beyond a fork.
    pub(super) fn forget_beyond_limit(&mut self, author: &NodeId) {
        let Some(log) = self.logs.get(author) else { return };
        let limit = log.chain.limit();
        for peer in self.peers.values_mut() {
            if let Some(claim) = peer.claims.get_mut(author) {
                claim.to = claim.to.min(limit);
            }
        }
        self.may_fetch = true;
    }

    /// The next run of entries that is neither here nor asked for.
    fn next_gap(&self, author: &NodeId) -> Option<(Seq, Seq)> {
        let fetching = self.fetching.get(author)?;
        let chain = self.logs.get(author).map(|log| &log.chain);
        let next = chain.map_or(Seq(1), |chain| chain.next());
        let mut from = next;
        loop {
            let (gap, to) = chain.map_or((from, None), |chain| chain.gap_from(from));
            let asked = fetching.asked.range(..=gap).next_back().filter(|(_, (to, _))| *to >= gap);
            // The first missing entry begins a record, whatever is said.
            let empty = fetching.empty.range(..=gap).next_back().filter(|(_, to)| **to >= gap && gap != next);
            let covered = asked.map(|(_, (to, _))| *to).or(empty.map(|(_, to)| *to));
            if let Some(covered) = covered {
                from = covered.saturating_add(1);
                continue;
            }
            let after = (Bound::Excluded(gap), Bound::Unbounded);
            let before_asked = fetching.asked.range(after).next().map(|(from, _)| from.saturating_sub(1));
            let limit = chain.map_or(Seq(u64::MAX - 1), |chain| chain.limit());
            let limit = limit.min(next.saturating_add(AHEAD_MAX));
            let to = to.unwrap_or(limit).min(before_asked.unwrap_or(limit)).min(limit);
            return (gap <= to).then_some((gap, to));
        }
    }

    /// Asks one peer for the next missing part of this author's log; false if there is nothing to ask, or nobody.
    fn ask_next(
        &mut self,
        now: Time,
        author: NodeId,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) -> bool {
        let Some((from, to)) = self.next_gap(&author) else { return false };
        let config = &self.config;
        let bytes_max_per_peer = config.fetch_bytes.saturating_mul(FULL_REQUESTS);
        let able = self.peers.iter().filter_map(|(peer, state)| {
            let claim = state.claims.get(&author).filter(|claim| claim.to >= from && claim.at <= now)?;
            let is_free = state.asked < config.fetches_per_peer && state.asked_bytes < bytes_max_per_peer;
            (is_free && state.quiet_until <= now).then_some((state.asked_bytes, state.asked, *peer, claim.to))
        });
        let Some((_, _, peer, claimed)) = able.min() else { return false };
        let Some(fetching) = self.fetching.get(&author) else { return false };
        let entry_bytes = fetching.entry_bytes.unwrap_or(ENTRY_BYTES).max(1);
        let entries = (config.fetch_bytes / entry_bytes).max(ENTRIES_MIN) as u64;
        let to = to.min(claimed).min(from.saturating_add(entries - 1));
        let count = usize::try_from(to.0 - from.0 + 1).unwrap_or(usize::MAX);
        let expected = count.saturating_mul(entry_bytes).saturating_mul(2).saturating_add(4096);
        let bytes_max = expected.min(config.fetch_bytes);
        let is_first = fetching.asked.is_empty();
        let reserved = self.asked_bytes() + self.checking_bytes + self.asked_waiting_bytes;
        let has_room = reserved + bytes_max <= config.fetch_window_bytes && self.has_room_to_write();
        // What comes next in a log goes always, or what waits for it would hold the room for ever.
        let goes_always = is_first && self.asked_bytes() == 0 && self.has_room_to_write();
        if !has_room && !goes_always {
            return false;
        }
        let id = self.request(now, peer, author, (from, to), bytes_max, false, rng);
        if let Some(fetching) = self.fetching.get_mut(&author) {
            fetching.asked.insert(from, (to, id));
        }
        self.stats.fetches += 1;
        self.begin_catch_up(now, author, claimed);
        self.send(peer, &Frame::Fetch { id, author, from, to, bytes_max: bytes_max as u64 }, out);
        true
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of the request")]
    pub(super) fn request(
        &mut self,
        now: Time,
        peer: P,
        author: NodeId,
        (from, to): (Seq, Seq),
        bytes_max: usize,
        is_fork: bool,
        rng: &mut impl Rng,
    ) -> u64 {
        // Unpredictable, so that nobody answers what was not asked of it.
        let mut id = u64::from(rng.next_u32());
        while self.requests.contains_key(&id) {
            id = u64::from(rng.next_u32());
        }
        let deadline = now + self.config.fetch_timeout;
        let empty_to = from.saturating_sub(1);
        self.requests.insert(
            id,
            Request { peer, author, from, to, bytes_max, deadline, is_fork, is_checking: false, empty_to },
        );
        if let Some(state) = self.peers.get_mut(&peer) {
            state.asked += 1;
            state.asked_bytes += bytes_max;
        }
        id
    }

    fn asked_bytes(&self) -> usize {
        self.peers.values().map(|peer| peer.asked_bytes).sum()
    }

    /// The peer has answered, or never will: it can be asked for more.
    pub(super) fn release(&mut self, id: u64) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if std::mem::replace(&mut request.is_checking, true) {
            return;
        }
        if let Some(state) = self.peers.get_mut(&request.peer) {
            state.asked -= 1;
            state.asked_bytes -= request.bytes_max;
        }
        self.may_fetch = true;
    }

    pub(super) fn end_request(&mut self, id: u64) -> Option<Request<P>> {
        self.release(id);
        let request = self.requests.remove(&id)?;
        if let Some(fetching) = self.fetching.get_mut(&request.author)
            && !request.is_fork
        {
            fetching.asked.remove(&request.from);
        }
        Some(request)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the frame")]
    pub(super) fn on_records(
        &mut self,
        now: Time,
        from: P,
        id: u64,
        next: Seq,
        records: &[Bytes],
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let asked = self.requests.get(&id).filter(|request| request.peer == from && !request.is_checking);
        let Some(request) = asked else {
            // It took too long, and was asked of another.
            self.stats.duplicates += records.len() as u64;
            return;
        };
        if request.is_fork {
            return self.on_fork_answer(now, id, records, out);
        }
        if records.is_empty() && next <= request.from {
            return self.on_decline(now, from, id, Decline::Missing, out);
        }
        let bytes: usize = records.iter().map(Bytes::len).sum();
        let checked = if bytes > request.bytes_max && records.len() > 1 {
            Err(Err(Misdeed::TooMuch))
        } else {
            self.precheck(id, next, records)
        };
        match checked {
            Ok(unverified) => self.check_signatures(now, id, next, bytes, unverified, rng, out),
            Err(fault) => self.on_bad_answer(now, id, fault, out),
        }
    }

    /// An answer is of no use: for a reason that may be ours, or because of the peer.
    fn on_bad_answer(
        &mut self,
        now: Time,
        id: u64,
        fault: Result<Refusal, Misdeed>,
        out: &mut Outbox<Output<P>>,
    ) {
        self.stats.fetches_failed += 1;
        self.stats.refused += 1;
        let Some(request) = self.end_request(id) else { return };
        self.drop_claim(request.peer, &request.author);
        if let Err(misdeed) = fault {
            self.blame(now, request.peer, misdeed, out);
        }
    }

    /// The gates before the signature, and whether these are the records that were asked for.
    fn precheck(
        &mut self,
        id: u64,
        next: Seq,
        records: &[Bytes],
    ) -> Result<Vec<Unverified>, Result<Refusal, Misdeed>> {
        let Some(request) = self.requests.get(&id) else { return Ok(Vec::new()) };
        let (author, from, to) = (request.author, request.from, request.to);
        if self.is_shut_out(&author) {
            return Err(Ok(Refusal::Quarantined));
        }
        let mut before: Option<Record> = None;
        let mut unverified = Vec::with_capacity(records.len());
        for bytes in records {
            let checked = self.gates.precheck(self.step, bytes).map_err(|reason| {
                if reason.is_forwarders_fault() { Err(Misdeed::BadRecord(reason)) } else { Ok(reason) }
            })?;
            let record =
                Record::new(checked.envelope().clone()).ok_or(Err(Misdeed::BadRecord(Refusal::WrongKind)))?;
            let follows = before.as_ref().is_none_or(|before| {
                record.first() == before.last().saturating_add(1) && record.prev() == Some(before.digest())
            });
            if record.author() != author || record.first() < from || record.first() > to || !follows {
                return Err(Err(Misdeed::NotAsked));
            }
            before = Some(record);
            unverified.push(checked);
        }
        let reached = before.map_or(from, |last| last.last().saturating_add(1));
        if next < reached.min(to) { Err(Err(Misdeed::NotAsked)) } else { Ok(unverified) }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the answer")]
    fn check_signatures(
        &mut self,
        now: Time,
        id: u64,
        next: Seq,
        bytes: usize,
        unverified: Vec<Unverified>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        self.release(id);
        let Some(request) = self.requests.get_mut(&id) else { return };
        let peer = request.peer;
        // What the answer leaves out can be asked for at once.
        request.to = request.to.min(next.saturating_sub(1)).max(request.from);
        let first = unverified.first().map(|first| first.envelope().header().seq);
        request.empty_to = first.map_or(request.to, |first| first.saturating_sub(1));
        let entries: usize = unverified.iter().map(|one| one.envelope().payloads().len()).sum();
        let (author, from, to) = (request.author, request.from, request.to);
        if let Some(fetching) = self.fetching.get_mut(&author) {
            fetching.asked.insert(from, (to, id));
            if let Some(now) = bytes.checked_div(entries) {
                fetching.entry_bytes = Some(fetching.entry_bytes.map_or(now, |before| (before + now) / 2));
            }
        }
        // What has come by gossip meanwhile need not be checked again.
        let head = self.logs.get(&author).map_or(Seq(0), |log| log.chain.head().seq);
        let is_news = |one: &Unverified| {
            let last = one.envelope().header().seq.saturating_add(one.envelope().payloads().len() as u64 - 1);
            last > head
        };
        let news: Vec<Unverified> = unverified.into_iter().filter(is_news).collect();
        if news.is_empty() {
            if let Some(request) = self.end_request(id) {
                self.check_frontier(now, peer, &request, rng, out);
            }
            return;
        }
        let token = self.token();
        self.checking_bytes += bytes;
        self.checking.insert(token, Checking::Request { id, peer, bytes });
        out.push(Output::Verify { token, records: news });
    }

    /// A request has been answered in good form. Was it of use?
    pub(super) fn check_frontier(
        &mut self,
        now: Time,
        peer: P,
        request: &Request<P>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let head = self.logs.get(&request.author).map_or(Seq(0), |log| log.chain.head().seq);
        let begins_later = request.empty_to >= request.from;
        if request.from == head.saturating_add(1) && begins_later {
            // A record of the log begins there, so the peer has another log, or tells stories.
            if head == Seq(0) {
                self.drop_claim(peer, &request.author);
                self.blame(now, peer, Misdeed::EmptyClaim, out);
            } else {
                self.search_fork(now, peer, request.author, head, true, rng, out);
            }
            return;
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.note_good_answer();
        }
        if begins_later && let Some(fetching) = self.fetching.get_mut(&request.author) {
            fetching.add_empty(request.from, request.empty_to);
        }
        self.may_fetch = true;
    }

    pub(super) fn on_decline(
        &mut self,
        now: Time,
        from: P,
        id: u64,
        reason: Decline,
        out: &mut Outbox<Output<P>>,
    ) {
        let is_open = |request: &&Request<P>| request.peer == from && !request.is_checking;
        if self.requests.get(&id).filter(is_open).is_none() {
            return self.on_chunk_declined(now, from, id, reason);
        }
        let Some(request) = self.end_request(id) else { return };
        self.stats.fetches_failed += 1;
        if request.is_fork {
            self.end_fork(now, request.author, out);
        }
        let Some(state) = self.peers.get_mut(&from) else { return };
        if reason == Decline::Busy && state.note_busy(now) {
            return;
        }
        let is_told = state.claims.get(&request.author).is_some_and(|claim| claim.is_told);
        self.drop_claim(from, &request.author);
        let is_claimed = self.peers.values().any(|peer| peer.claims.contains_key(&request.author));
        if matches!(reason, Decline::Truncated) && !is_claimed && !request.is_fork {
            self.want_checkpoint(now, request.author, request.from, out);
        }
        if reason == Decline::Missing && is_told {
            self.blame(now, from, Misdeed::EmptyClaim, out);
        }
    }

    pub(super) fn expire_requests(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let is_late = |request: &Request<P>| !request.is_checking && request.deadline <= now;
        let late: Vec<u64> =
            self.requests.iter().filter(|(_, request)| is_late(request)).map(|(id, _)| *id).collect();
        let mut silent: Vec<P> = Vec::new();
        for id in late {
            let Some(request) = self.end_request(id) else { continue };
            self.stats.fetches_failed += 1;
            if request.is_fork {
                self.end_fork(now, request.author, out);
            }
            // It says so again when heads are compared.
            self.drop_claim(request.peer, &request.author);
            if !silent.contains(&request.peer) {
                silent.push(request.peer);
            }
        }
        for peer in silent {
            self.blame(now, peer, Misdeed::Silent, out);
        }
    }

    pub(super) fn drop_requests_to(&mut self, peer: P) {
        let open = self.requests.iter().filter(|(_, request)| request.peer == peer && !request.is_checking);
        let ids: Vec<u64> = open.map(|(id, _)| *id).collect();
        for id in ids {
            self.end_request(id);
        }
    }

    /// Entries that peers say they have and this node has not.
    pub(super) fn behind(&self) -> u64 {
        let missing = self.fetching.keys().map(|author| {
            let head = self.logs.get(author).map_or(Seq(0), |log| log.stored.seq);
            let claims = self.peers.values().filter_map(|peer| peer.claims.get(author));
            let to = claims.filter(|claim| claim.is_told).map(|claim| claim.to).max().unwrap_or(head);
            to.0.saturating_sub(head.0)
        });
        missing.fold(0, u64::saturating_add)
    }

    pub(super) fn begin_catch_up(&mut self, now: Time, author: NodeId, to: Seq) {
        let next = self.logs.get(&author).map_or(Seq(1), |log| log.chain.next());
        let catch_up = self.catch_up.get_or_insert_with(|| CatchUp { began: now, report: Report::default() });
        let authors = &mut catch_up.report.authors;
        if authors.contains_key(&author) || authors.len() < REPORT_MAX {
            let missed = authors.entry(author).or_default();
            if missed.from == Seq(0) {
                missed.from = next;
            }
            missed.to = missed.to.max(to);
        }
    }

    /// Somebody's word counts for nothing: what is missed of this author is what others say.
    pub(super) fn forget_missed(&mut self, author: &NodeId) {
        let Some(catch_up) = &mut self.catch_up else { return };
        let Some(missed) = catch_up.report.authors.get_mut(author) else { return };
        let chain = self.logs.get(author).map(|log| &log.chain);
        let here = chain.map(|chain| chain.waiting_to().unwrap_or_default().max(chain.head().seq));
        let claims = self.peers.values().filter_map(|peer| peer.claims.get(author)).map(|claim| claim.to);
        missed.to = missed.to.min(claims.chain(here).max().unwrap_or_default());
    }

    pub(super) fn count_asked(&mut self, bytes: usize) {
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.report.bytes_sent += bytes as u64;
        }
    }

    pub(super) fn count_received(&mut self, frame: &Frame, bytes: usize) {
        let Some(catch_up) = &mut self.catch_up else { return };
        catch_up.report.bytes_received += bytes as u64;
        if !matches!(frame, Frame::Heads(_)) {
            catch_up.report.round_trips += 1;
        }
    }

    pub(super) fn count_recovered(&mut self, from: Option<P>, record: &Record, is_asked: bool) {
        let source = self.node_of(from);
        let Some(catch_up) = &mut self.catch_up else { return };
        let (report, entries) = (&mut catch_up.report, record.entries());
        let Some(missed) = report.authors.get_mut(&record.author()) else { return };
        if record.last() > missed.to {
            return;
        }
        missed.recovered += entries;
        report.entries += entries;
        if !is_asked {
            report.entries_gossip += entries;
            return;
        }
        let bytes = record.as_bytes().len() as u64;
        report.record_bytes += bytes;
        if let Some(source) = source
            && (report.sources.contains_key(&source) || report.sources.len() < REPORT_MAX)
        {
            let recovered = report.sources.entry(source).or_default();
            recovered.entries += entries;
            recovered.bytes += bytes;
        }
    }

    /// A checkpoint stands for entries that were missed.
    pub(super) fn count_covered(&mut self, author: &NodeId, entries: u64) {
        self.stats.entries_covered += entries;
        let Some(catch_up) = &mut self.catch_up else { return };
        catch_up.report.covered += entries;
        if let Some(missed) = catch_up.report.authors.get_mut(author) {
            missed.covered += entries;
        }
    }

    /// Says what was missed once nothing more is to be had.
    pub(super) fn end_catch_up(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let is_over = self.fetching.is_empty() && self.requests.is_empty() && self.checking.is_empty();
        if !is_over
            || self.catch_up.is_none()
            || !self.writer.is_idle()
            || self.checkpoints.adopting.is_active()
        {
            return;
        }
        let Some(CatchUp { began, mut report }) = self.catch_up.take() else { return };
        report.took = now.since(began);
        for (author, missed) in &mut report.authors {
            let head = self.logs.get(author).map_or(Seq(0), |log| log.stored.seq);
            let limit = self.logs.get(author).map_or(missed.to, |log| log.chain.limit());
            missed.nobody_has = missed.to.min(limit).0.saturating_sub(head.0);
        }
        let is_news = |missed: &Missed| missed.recovered + missed.covered + missed.nobody_has > 0;
        report.authors.retain(|_, missed| is_news(missed));
        if report.entries > 0 || !report.authors.is_empty() {
            out.push(Event::CaughtUp(report));
        }
    }

    pub(super) fn check_fetches(&self) {
        for (peer, state) in &self.peers {
            let open = self.requests.values().filter(|request| request.peer == *peer && !request.is_checking);
            let (count, bytes) = open.fold((0, 0), |(n, b), request| (n + 1, b + request.bytes_max));
            assert_eq!((count, bytes), (state.asked, state.asked_bytes), "requests under way are counted");
            assert!(state.asked <= self.config.fetches_per_peer + super::fork::SEARCHES_MAX);
            for author in state.claims.keys() {
                assert!(self.fetching.contains_key(author), "what is claimed is to be fetched");
            }
        }
        for (author, fetching) in &self.fetching {
            let mut free = Seq(0);
            for (from, (to, id)) in &fetching.asked {
                assert!(*from >= free && from <= to, "ranges asked for do not overlap");
                assert!(self.requests.get(id).is_some_and(|request| request.author == *author));
                free = to.saturating_add(1);
            }
        }
    }
}
