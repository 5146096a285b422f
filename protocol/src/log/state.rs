//! The replicator: one node's copy of all logs, its own among them. The rules are in the text of the parent module.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand_core::Rng;

use crate::envelope::Envelope;
use crate::id::{Hash, NodeId, Seq, Step};
use crate::identity::Identity;
use crate::machine::Outbox;
use crate::mesh::Mesh;
use crate::pattern::PatternGenerator;
use crate::time::Time;

use super::chain::{Chain, Room};
use super::checkpoint::Sealed;
use super::gates::RecordGates;
use super::reconcile::HeadSet;
use super::wire::{DecodeError, Frame};
use super::{
    AuthorHead, Config, Head, Input, Misdeed, Output, Proof, Record, Start, Stats, StoredLog, Timer, Token,
};

mod adopt;
mod append;
mod checkpoint;
mod fetch;
mod fork;
mod peers;
mod records;
mod rounds;
mod serve;
mod write;

use append::Own;
use checkpoint::Checkpoints;
use fetch::Fetching;
use fork::ForkSearch;
use peers::Peer;
use records::{Check, Checking};
use serve::Serving;
use write::Writer;

/// How often a node that waits for something looks whether it has waited for long enough. Source: guess, a fraction of
/// every time that is waited for.
const TICK: Duration = Duration::from_millis(100);

/// The log of one node. See the text of the module.
#[derive(Debug)]
pub struct State<P> {
    config: Config,
    identity: Identity,
    gates: RecordGates,
    step: Option<Step>,
    logs: BTreeMap<NodeId, Log>,
    /// What is on disk, as it is told.
    told: HeadSet,
    peers: BTreeMap<P, Peer>,
    writer: Writer<P>,
    own: Own<P>,
    /// Authors of whom somebody has more.
    fetching: BTreeMap<NodeId, Fetching>,
    requests: BTreeMap<u64, fetch::Request<P>>,
    /// Where the next look for something to ask begins.
    fetch_from: Option<NodeId>,
    /// Something has changed that may make a request possible.
    may_fetch: bool,
    /// Authors still to be looked at since then.
    fetch_left: usize,
    forks: BTreeMap<NodeId, ForkSearch<P>>,
    serving: BTreeMap<Token, Serving<P>>,
    checks: BTreeMap<Token, Check<P>>,
    checking: BTreeMap<Token, Checking<P>>,
    checking_bytes: usize,
    /// Bytes of records that wait and were not asked for, of all authors.
    unasked_bytes: usize,
    asked_waiting_bytes: usize,
    catch_up: Option<fetch::CatchUp>,
    checkpoints: Checkpoints<P>,
    next_token: u64,
    round_token: u64,
    tick_token: u64,
    is_ticking: bool,
    stats: Stats,
}

/// What is kept in memory of one author's log.
#[derive(Debug)]
struct Log {
    chain: Chain,
    base: Seq,
    /// What is on disk.
    stored: Head,
    stored_step: Step,
    /// What is in the log and not on disk yet, by first sequence number.
    unwritten: BTreeMap<Seq, Record>,
    /// Counts the times when what was being written no longer counts.
    generation: u64,
    /// When peers were last told of the proof.
    proof_told: Option<Time>,
}

impl Log {
    fn new(stored: StoredLog) -> Self {
        let StoredLog { base, head, step, proof, .. } = stored;
        Log {
            chain: Chain::new(head, step, proof),
            base: base.max(Seq(1)),
            stored: head,
            stored_step: step,
            unwritten: BTreeMap::new(),
            generation: 0,
            proof_told: None,
        }
    }

    fn empty() -> Self {
        Log {
            chain: Chain::new(Head::EMPTY, Step(0), None),
            base: Seq(1),
            stored: Head::EMPTY,
            stored_step: Step(0),
            unwritten: BTreeMap::new(),
            generation: 0,
            proof_told: None,
        }
    }

    /// The record that covers `seq`, if it is not on disk yet.
    fn unwritten_covering(&self, seq: Seq) -> Option<&Record> {
        let (_, record) = self.unwritten.range(..=seq).next_back()?;
        record.covers(seq).then_some(record)
    }
}

impl<P: Copy + Ord + Debug> State<P> {
    /// The log of the node `identity` as it is when the node starts. Pushes the first timers.
    pub fn new(
        config: Config,
        identity: Identity,
        mesh: &Mesh,
        patterns: PatternGenerator,
        start: Start,
        now: Time,
        out: &mut Outbox<Output<P>>,
    ) -> Self {
        let gates = RecordGates::new(&config, mesh, patterns);
        let own = Own::new(start.may_have_written, start.reached);
        let mut state = State {
            config,
            identity,
            gates,
            step: None,
            logs: BTreeMap::new(),
            told: HeadSet::new(),
            peers: BTreeMap::new(),
            writer: Writer::new(),
            own,
            fetching: BTreeMap::new(),
            requests: BTreeMap::new(),
            fetch_from: None,
            may_fetch: false,
            fetch_left: 0,
            forks: BTreeMap::new(),
            serving: BTreeMap::new(),
            checks: BTreeMap::new(),
            checking: BTreeMap::new(),
            checking_bytes: 0,
            unasked_bytes: 0,
            asked_waiting_bytes: 0,
            catch_up: None,
            checkpoints: Checkpoints::new(),
            next_token: 0,
            round_token: 0,
            tick_token: 0,
            is_ticking: false,
            stats: Stats::default(),
        };
        for stored in start.logs {
            let author = stored.author;
            state.logs.insert(author, Log::new(stored));
            state.tell(author);
        }
        state.begin_with(now, start.checkpoints, &start.base);
        state.own.remember_stored(state.log(&state.me()).map_or(Head::EMPTY, |log| log.stored));
        out.push(Output::Timer { at: now + state.config.interval, timer: Timer::Round(state.round_token) });
        state.keep_ticking(now, out);
        state
    }

    /// The one mutator.
    pub fn handle(&mut self, now: Time, input: Input<P>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        match input {
            Input::Connected { peer, node } => self.on_connected(now, peer, node, rng, out),
            Input::Disconnected { peer } => self.on_disconnected(now, peer, out),
            Input::Received { from, frame } => self.on_received(now, from, &frame, rng, out),
            Input::Sent { to, bytes } => self.on_sent(to, bytes),
            Input::Gossiped { from, envelope } => self.on_gossiped(now, from, envelope, rng, out),
            Input::Append { category, payload, ticket, replicas } => {
                self.on_append(append::Pending { category, payload, ticket, replicas }, out);
            }
            Input::Flush { mesh_time_us } => self.on_flush(mesh_time_us, out),
            Input::Step(step) => {
                self.step = step;
                if let Some(step) = step {
                    self.own.note_step(now, &self.config);
                    self.on_step(step, out);
                }
            }
            Input::Written { token, result } => self.on_written(now, token, result, out),
            Input::Read { token, result } => self.on_read(now, token, result, rng, out),
            Input::Verified { token, results } => self.on_verified(now, token, results, rng, out),
            Input::Damaged(stored) => self.on_damaged(now, &stored, out),
            Input::Kept(records) => self.on_kept(now, records, rng, out),
            Input::Truncated { author, base } => {
                if let Some(log) = self.logs.get_mut(&author) {
                    log.base = log.base.max(base);
                }
            }
            Input::Members(alive) => self.on_members(alive),
            Input::Folded { token, result } => self.on_folded(now, token, result),
            Input::Staged { token, result } => self.on_staged(now, token, result, rng, out),
            Input::Quarantine(author) => self.gates.quarantine(author),
            Input::Lift(author) => self.gates.lift(&author),
            Input::Timer(Timer::Round(token)) => self.on_round_timer(now, token, rng, out),
            Input::Timer(Timer::Tick(token)) => self.on_tick(now, token, rng, out),
        }
        self.fetch(now, rng, out);
        self.write(now, out);
        self.settle_own(now, out);
        self.end_catch_up(now, out);
        self.keep_ticking(now, out);
    }

    fn on_received(
        &mut self,
        now: Time,
        from: P,
        bytes: &Bytes,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        self.stats.bytes_received += bytes.len() as u64;
        if !self.peers.contains_key(&from) {
            return;
        }
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(DecodeError::UnknownKind(_)) => return,
            Err(DecodeError::Malformed) => return self.blame(now, from, Misdeed::BadFrame, out),
        };
        if matches!(
            frame,
            Frame::Compare { .. }
                | Frame::Heads(_)
                | Frame::Records { .. }
                | Frame::Decline { .. }
                | Frame::Offer(_)
                | Frame::Chunk { .. }
        ) {
            self.count_received(&frame, bytes.len());
        }
        match frame {
            Frame::Compare { round, ranges } => self.on_compare(now, from, round, &ranges, rng, out),
            Frame::Heads(heads) => {
                for head in heads {
                    self.on_head(now, from, head, rng, out);
                }
            }
            Frame::Fetch { id, author, from: first, to, bytes_max } => {
                self.on_fetch(from, id, author, (first, to), bytes_max, out);
            }
            Frame::Find { id, author, seq } => self.on_find(from, id, author, seq, out),
            Frame::Records { id, next, records } => self.on_records(now, from, id, next, &records, rng, out),
            Frame::Decline { id, reason, .. } => self.on_decline(now, from, id, reason, out),
            Frame::AskProof(author) => self.on_ask_proof(from, &author, out),
            Frame::Proof(proof) => self.on_proof(now, from, &proof, out),
            Frame::AskHead(author) => {
                let head = self.told.get(&author).copied();
                self.send(from, &Frame::HeadOf { author, head }, out);
            }
            Frame::HeadOf { author, head } => {
                self.own.note_answer(from, author == self.me());
                if let Some(head) = head {
                    self.on_head(now, from, head, rng, out);
                }
            }
            frame => self.on_checkpoint_frame(now, from, frame, rng, out),
        }
    }

    /// What is on disk: one head for each author, in the order of authors.
    pub fn heads(&self) -> impl Iterator<Item = &AuthorHead> {
        self.told.iter()
    }

    /// What is on disk of one author.
    pub fn head(&self, author: &NodeId) -> Option<&AuthorHead> {
        self.told.get(author)
    }

    /// The first entry of this author that is on disk.
    pub fn base(&self, author: &NodeId) -> Option<Seq> {
        self.logs.get(author).map(|log| log.base)
    }

    /// The proof that froze this author's log.
    pub fn proof(&self, author: &NodeId) -> Option<&Proof> {
        self.logs.get(author)?.chain.proof()
    }

    /// True if nothing of this author is fetched: it is in quarantine, and its log is open. A frozen log is fetched up to
    /// its fork all the same, by those too who come later: what comes before the fork counts, and all are to have it.
    fn is_shut_out(&self, author: &NodeId) -> bool {
        self.gates.is_quarantined(author) && self.proof(author).is_none()
    }

    /// The newest sealed checkpoint that is on disk whole.
    pub fn checkpoint(&self) -> Option<&Sealed> {
        self.checkpoints.sealed().map(|stored| &stored.sealed)
    }

    /// One hash of all heads that are on disk: two nodes with the same have the same logs.
    pub fn fingerprint(&self) -> Hash {
        self.told.hash()
    }

    /// True once the end of the own log is known, so that appends are written.
    pub fn is_own_log_known(&self) -> bool {
        self.own.is_known()
    }

    /// The log in numbers.
    pub fn stats(&self) -> Stats {
        let logs = self.logs.values();
        Stats {
            authors: self.told.len(),
            frozen: logs.clone().filter(|log| log.chain.proof().is_some()).count(),
            entries: logs.clone().map(|log| log.stored.seq.0).sum(),
            waiting: logs.clone().map(|log| log.chain.waiting()).sum(),
            waiting_bytes: logs.map(|log| log.chain.waiting_bytes()).sum(),
            behind: self.behind(),
            write_bytes: self.writer.bytes(),
            ..self.stats
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.identity.id()
    }

    /// True if nothing is under way: no request, no write, nothing being checked, and no append waits.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
            && self.writer.is_idle()
            && self.checks.is_empty()
            && self.checking.is_empty()
            && self.forks.is_empty()
            && self.own.is_idle()
            && self.checkpoints.is_idle()
    }

    /// Panics if an invariant is broken; for tests and simulation.
    pub fn check_invariants(&self) {
        let (mut unasked, mut waiting) = (0, 0);
        for (author, log) in &self.logs {
            log.chain.check_invariants();
            unasked += log.chain.unasked_bytes();
            waiting += log.chain.waiting_bytes();
            assert!(log.chain.waiting_bytes() >= log.chain.unasked_bytes());
            let last = log.unwritten.values().next_back().map(Record::head);
            assert!(last.is_none_or(|last| last == log.chain.head()), "what is not written is at the end");
            let told = self.told.get(author).map_or(Head::EMPTY, |head| head.head);
            assert_eq!(told, log.stored, "what is told is what is stored");
        }
        assert_eq!((unasked, waiting - unasked), (self.unasked_bytes, self.asked_waiting_bytes));
        assert!(self.unasked_bytes <= self.config.waiting_total_bytes_max, "what waits is bounded");
        assert!(self.logs.len() <= self.config.authors_max.saturating_add(1), "authors are bounded");
        self.check_fetches();
        self.own.check_invariants(&self.config);
        self.checkpoints.check_invariants();
        self.writer.check_invariants();
    }

    fn log(&self, author: &NodeId) -> Option<&Log> {
        self.logs.get(author)
    }

    /// The author's log, if there is one or room for one.
    fn log_mut(&mut self, author: NodeId) -> Option<&mut Log> {
        let is_own = author == self.me();
        let has_room = self.logs.len() < self.config.authors_max || is_own;
        if !has_room && !self.logs.contains_key(&author) {
            return None;
        }
        Some(self.logs.entry(author).or_insert_with(Log::empty))
    }

    /// Brings what is told of an author up to what is on disk.
    fn tell(&mut self, author: NodeId) {
        let Some(log) = self.logs.get(&author) else { return };
        let proof = log.chain.proof().map(Proof::id);
        self.told.put(AuthorHead { author, head: log.stored, proof });
    }

    fn room(&self) -> Room {
        Room { records: self.config.waiting_records_max, bytes: self.config.waiting_bytes_max }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn on_damaged(&mut self, now: Time, stored: &StoredLog, out: &mut Outbox<Output<P>>) {
        let author = stored.author;
        let has_jump = self.writer.has_jump(&author);
        let Some(log) = self.logs.get_mut(&author) else { return };
        let floor = log.chain.head();
        if stored.head.seq >= floor.seq {
            return;
        }
        (log.stored, log.stored_step, log.base) = (stored.head, stored.step, stored.base.max(Seq(1)));
        if !has_jump {
            log.generation += 1;
            self.reset_to_stored(author, out);
        }
        self.tell(author);
        if author == self.me() {
            // What this key has signed is known to have been there, so no number of it is used again.
            self.own.lose(now, &self.config, floor, self.peers.keys().copied());
            for peer in self.peers.keys().copied().collect::<Vec<_>>() {
                self.send(peer, &Frame::AskHead(author), out);
            }
        }
    }

    fn keep_ticking(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let needs_tick = !self.requests.is_empty()
            || !self.fetching.is_empty()
            || !self.forks.is_empty()
            || self.own.waits()
            || self.writer.waits()
            || self.checkpoints.waits()
            || self.peers.values().any(Peer::waits);
        if needs_tick && !self.is_ticking {
            self.is_ticking = true;
            self.tick_token += 1;
            out.push(Output::Timer { at: now + TICK, timer: Timer::Tick(self.tick_token) });
        }
    }

    fn on_tick(&mut self, now: Time, token: u64, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if token != self.tick_token {
            return;
        }
        self.is_ticking = false;
        self.may_fetch = true;
        self.expire_requests(now, out);
        self.expire_rounds(now);
        self.expire_adoption(now, rng, out);
        self.pass_votes_on(out);
        self.expire_replicas(now, out);
        self.recheck_peers(now, rng, out);
    }

    fn on_gossiped(
        &mut self,
        now: Time,
        from: P,
        envelope: Envelope,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        if let Some(record) = Record::new(envelope) {
            self.take(now, Some(from), record, false, rng, out);
        }
    }

    fn on_kept(&mut self, now: Time, records: Vec<Record>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        for record in records {
            let is_next = |log: &Log| record.first() == log.chain.next();
            if self.log(&record.author()).is_some_and(is_next) {
                self.take(now, None, record, false, rng, out);
            }
        }
    }

    fn on_round_timer(&mut self, now: Time, token: u64, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if token != self.round_token {
            return;
        }
        self.checkpoints.begin_interval();
        self.begin_round(now, rng, out);
        self.round_token += 1;
        let quarter = self.config.interval / 4;
        let jitter = quarter.mul_f64(2.0 * rng.random::<f64>());
        let at = now + self.config.interval - quarter + jitter;
        out.push(Output::Timer { at, timer: Timer::Round(self.round_token) });
    }
}
