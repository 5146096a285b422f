//! The own log: appends, their replicas, and where it ends after a start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use bytes::Bytes;

use crate::author::Ticket;
use crate::envelope::{self, Channel, Envelope, Header, Kind, PAYLOADS_MAX, Payloads};
use crate::id::{Hash, NodeId, Seq};
use crate::machine::Outbox;
use crate::time::Time;

use super::super::chain::Offered;
use super::super::{AppendError, Appended, AuthorHead, Config, Event, Head, Output, Record};
use super::State;

/// Own heads remembered, to know what others' words about them mean. Source: guess, some seconds of full load.
const RECENT_MAX: usize = 4096;
/// Nodes whose words about the own log are remembered. Source: guess, more than are ever connected.
const REPLICAS_MAX: usize = 4096;

/// An append that waits to be sealed.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) category: Channel,
    pub(super) payload: Bytes,
    pub(super) ticket: Ticket,
    pub(super) replicas: usize,
}

/// An append that is on disk here and waits for others.
#[derive(Debug)]
struct Replicating {
    ticket: Ticket,
    appended: Appended,
    wanted: usize,
    deadline: Time,
}

/// Whether the end of the own log is known.
#[derive(Debug)]
enum Phase<P> {
    Known,
    Asking {
        /// Counted from when the node has a step, for without one it can judge no record.
        deadline: Option<Time>,
        /// When those who are there have had time to answer.
        settle: Option<Time>,
        asked: BTreeSet<P>,
        silent: BTreeSet<P>,
        from: Seq,
    },
}

/// What concerns the own log alone.
#[derive(Debug)]
pub(super) struct Own<P> {
    phase: Phase<P>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    replicating: VecDeque<Replicating>,
    /// The last own heads on disk.
    recent: BTreeMap<Seq, Hash>,
    /// How far others have the own log on disk.
    replicas: BTreeMap<NodeId, Seq>,
    /// How far the log had come before it was damaged: nothing is appended until it has come there again.
    floor: Seq,
}

impl<P: Copy + Ord> Own<P> {
    pub(super) fn new(may_have_written: bool, reached: Seq) -> Self {
        let asking = Phase::Asking {
            deadline: None,
            settle: None,
            asked: BTreeSet::new(),
            silent: BTreeSet::new(),
            from: Seq(0),
        };
        Own {
            phase: if may_have_written { asking } else { Phase::Known },
            pending: VecDeque::new(),
            pending_bytes: 0,
            replicating: VecDeque::new(),
            recent: BTreeMap::new(),
            replicas: BTreeMap::new(),
            floor: reached,
        }
    }

    pub(super) fn remember_stored(&mut self, head: Head) {
        self.recent.insert(head.seq, head.digest);
        if let Phase::Asking { from, .. } = &mut self.phase {
            *from = head.seq;
        }
    }

    /// The own log was damaged: what it had up to `floor` is to come from others.
    pub(super) fn lose(&mut self, now: Time, config: &Config, floor: Head, peers: impl Iterator<Item = P>) {
        self.floor = self.floor.max(floor.seq);
        let silent: BTreeSet<P> = peers.collect();
        self.phase = Phase::Asking {
            deadline: Some(now + config.own_head_wait),
            settle: (!silent.is_empty()).then(|| now + config.own_head_settle),
            asked: silent.clone(),
            silent,
            from: floor.seq,
        };
    }

    /// A checkpoint was taken: if the end of the own log is not known yet, peers are to be asked for it again.
    pub(super) fn ask_again(&mut self, now: Time, config: &Config, peers: impl Iterator<Item = P>) -> bool {
        let Phase::Asking { deadline, settle, asked, silent, .. } = &mut self.phase else { return false };
        *silent = peers.collect();
        asked.extend(silent.iter().copied());
        *settle = Some(now + config.own_head_settle);
        *deadline = Some(now + config.own_head_wait);
        true
    }

    /// The node has a step.
    pub(super) fn note_step(&mut self, now: Time, config: &Config) {
        if let Phase::Asking { deadline, .. } = &mut self.phase {
            deadline.get_or_insert(now + config.own_head_wait);
        }
    }

    pub(super) fn is_known(&self) -> bool {
        matches!(self.phase, Phase::Known)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.replicating.is_empty()
    }

    pub(super) fn waits(&self) -> bool {
        !self.is_known() || !self.replicating.is_empty()
    }

    /// True if the peer is to be asked for the end of the own log.
    pub(super) fn note_peer(&mut self, now: Time, peer: P, config: &Config) -> bool {
        let Phase::Asking { settle, asked, silent, .. } = &mut self.phase else { return false };
        settle.get_or_insert(now + config.own_head_settle);
        silent.insert(peer);
        asked.insert(peer)
    }

    pub(super) fn note_answer(&mut self, peer: P, is_own: bool) {
        if let Phase::Asking { silent, .. } = &mut self.phase
            && is_own
        {
            silent.remove(&peer);
        }
    }

    pub(super) fn note_gone(&mut self, peer: P) {
        if let Phase::Asking { silent, .. } = &mut self.phase {
            silent.remove(&peer);
        }
    }

    pub(super) fn note_stored(&mut self, record: &Record, is_own: bool) {
        if is_own {
            self.recent.insert(record.last(), record.digest());
            while self.recent.len() > RECENT_MAX {
                self.recent.pop_first();
            }
        }
    }

    /// A checkpoint stands for the own log up to here.
    pub(super) fn note_jump(&mut self, head: Head) {
        self.recent.insert(head.seq, head.digest);
    }

    fn replicas_of(&self, seq: Seq) -> usize {
        self.replicas.values().filter(|have| **have >= seq).count()
    }

    pub(super) fn check_invariants(&self, config: &Config) {
        assert!(self.pending.len() <= config.pending_max, "pending appends are bounded");
        let bytes: usize = self.pending.iter().map(|pending| pending.payload.len()).sum();
        assert_eq!(bytes, self.pending_bytes, "the count of pending bytes is right");
        assert!(self.recent.len() <= RECENT_MAX && self.replicas.len() <= REPLICAS_MAX);
    }
}

impl<P: Copy + Ord + Debug> State<P> {
    pub(super) fn on_append(&mut self, pending: Pending, out: &mut Outbox<Output<P>>) {
        let bytes = pending.payload.len();
        let bytes_max = envelope::payload_bytes_max(self.config.message_bytes_max);
        let error = if bytes > bytes_max {
            AppendError::TooLarge { bytes, bytes_max }
        } else if pending.category.as_str().starts_with('_') {
            AppendError::Reserved(pending.category)
        } else if let Some(proof) = self.proof(&self.me()) {
            AppendError::Frozen(proof.fork())
        } else if self.step.is_none() {
            AppendError::NotSynchronised
        } else if self.own.pending.len() + self.own.replicating.len() >= self.config.pending_max
            || self.own.pending_bytes + bytes > self.config.pending_bytes_max
        {
            AppendError::Busy
        } else {
            self.own.pending_bytes += bytes;
            self.own.pending.push_back(pending);
            return;
        };
        out.push(Output::Refused { ticket: pending.ticket, error });
    }

    /// True if appends wait and an [`Input::Flush`](crate::log::Input::Flush) would seal some.
    pub fn wants_flush(&self) -> bool {
        let is_full = self.own.pending.len() >= self.config.bundle_payloads_max
            || self.own.pending_bytes >= self.config.bundle_bytes_max;
        let has_room = self.writer.bytes() < self.config.write_bytes_max;
        let may_seal = self.own.is_known() && self.step.is_some() && has_room;
        may_seal && !self.own.pending.is_empty() && (is_full || !self.writer.is_writing())
    }

    pub(super) fn on_flush(&mut self, mesh_time_us: u64, out: &mut Outbox<Output<P>>) {
        while self.wants_flush() {
            let (category, payloads, tickets) = self.take_bundle();
            match self.seal(category, payloads, mesh_time_us) {
                Ok(record) => self.queue_append(record, None, false, tickets),
                Err(error) => {
                    for (ticket, _) in tickets {
                        out.push(Output::Refused { ticket, error: error.clone() });
                    }
                }
            }
        }
    }

    /// As many appends of one category as one record may hold, and at least one.
    fn take_bundle(&mut self) -> (Option<Channel>, Payloads, Vec<(Ticket, usize)>) {
        let room =
            envelope::payloads_room_max(self.config.message_bytes_max).min(self.config.bundle_bytes_max);
        let count = self.config.bundle_payloads_max.clamp(1, PAYLOADS_MAX);
        let category = self.own.pending.front().map(|pending| pending.category.clone());
        let (mut payloads, mut tickets, mut used) = (Payloads::new(), Vec::new(), 0);
        while let Some(next) = self.own.pending.front() {
            let bytes = envelope::payload_room(next.payload.len());
            let fits = payloads.is_empty() || used + bytes <= room;
            if !fits || payloads.len() == count || Some(&next.category) != category.as_ref() {
                break;
            }
            let Some(next) = self.own.pending.pop_front() else { break };
            self.own.pending_bytes -= next.payload.len();
            used += bytes;
            payloads.push(next.payload);
            tickets.push((next.ticket, next.replicas));
        }
        (category, payloads, tickets)
    }

    fn seal(
        &mut self,
        category: Option<Channel>,
        payloads: Payloads,
        mesh_time_us: u64,
    ) -> Result<Record, AppendError> {
        let me = self.me();
        if let Some(proof) = self.proof(&me) {
            return Err(AppendError::Frozen(proof.fork()));
        }
        let step = self.step.ok_or(AppendError::NotSynchronised)?;
        let (head, own_step) =
            self.log(&me).map_or((Head::EMPTY, step), |log| (log.chain.head(), log.chain.step()));
        if self.log(&me).is_some_and(|log| log.chain.waiting() > 0) {
            return Err(AppendError::Behind);
        }
        if head.seq < self.own.floor {
            return Err(AppendError::Lost { from: head.seq.saturating_add(1), to: self.own.floor });
        }
        let step = step.max(own_step);
        let header = Header {
            mesh: self.gates.mesh(),
            author: me,
            seq: head.seq.saturating_add(1),
            step,
            kind: Kind::Durable,
            channel: category.ok_or(AppendError::Busy)?,
            prev: head.as_prev(),
            timestamp_us: Some(mesh_time_us),
        };
        let pattern = self.gates.patterns().at(step);
        let envelope =
            Envelope::seal(&self.identity, pattern, header, payloads).map_err(|_| AppendError::Exhausted)?;
        let record = Record::new(envelope).ok_or(AppendError::Exhausted)?;
        let room = self.room();
        self.log_mut(me);
        match self.with_chain(me, |chain| chain.offer(record.clone(), true, room)) {
            Some(Offered::Applied(_)) => Ok(record),
            _ => Err(AppendError::Behind),
        }
    }

    /// The record is on disk: answers its appends, or lets them wait for replicas.
    pub(super) fn answer_appends(
        &mut self,
        now: Time,
        record: &Record,
        tickets: Vec<(Ticket, usize)>,
        out: &mut Outbox<Output<P>>,
    ) {
        for (index, (ticket, wanted)) in (0..).zip(tickets) {
            let appended = Appended {
                author: record.author(),
                seq: record.first().saturating_add(index),
                hash: record.entry_hash(index),
                step: record.step(),
                replicas: 0,
            };
            if wanted == 0 {
                out.push(Output::Appended { ticket, appended });
            } else {
                let deadline = now + self.config.replicas_wait;
                self.own.replicating.push_back(Replicating { ticket, appended, wanted, deadline });
            }
        }
    }

    /// A peer has told what is on its disk of the own log.
    pub(super) fn note_replica(&mut self, peer: P, head: &AuthorHead, out: &mut Outbox<Output<P>>) {
        let Some(node) = self.node_of(Some(peer)) else { return };
        if self.own.recent.get(&head.head.seq) != Some(&head.head.digest) {
            return;
        }
        let is_known = self.own.replicas.contains_key(&node);
        if !is_known && self.own.replicas.len() >= REPLICAS_MAX {
            self.own.replicas.pop_first();
        }
        self.own.replicas.insert(node, head.head.seq);
        let replicating = std::mem::take(&mut self.own.replicating);
        for mut waiting in replicating {
            waiting.appended.replicas = self.own.replicas_of(waiting.appended.seq);
            if waiting.appended.replicas >= waiting.wanted {
                out.push(Output::Appended { ticket: waiting.ticket, appended: waiting.appended });
            } else {
                self.own.replicating.push_back(waiting);
            }
        }
    }

    pub(super) fn expire_replicas(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        while self.own.replicating.front().is_some_and(|waiting| waiting.deadline <= now) {
            let Some(waiting) = self.own.replicating.pop_front() else { break };
            out.push(Output::Appended { ticket: waiting.ticket, appended: waiting.appended });
        }
    }

    /// Ends the search for the end of the own log if it has found it, or has lasted long enough.
    pub(super) fn settle_own(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let me = self.me();
        let Phase::Asking { deadline, settle, asked, silent, from } = &self.own.phase else { return };
        let head = self.log(&me).map_or(Head::EMPTY, |log| log.chain.head());
        let is_stored = self.log(&me).is_none_or(|log| log.unwritten.is_empty());
        let all_told = settle.is_some_and(|settle| settle <= now) && silent.is_empty();
        let is_fetched = !self.fetching.contains_key(&me) && is_stored && !self.forks.contains_key(&me);
        let Some(deadline) = deadline else { return };
        let is_found = all_told && is_fetched;
        // A checkpoint may cover later own entries.
        if (*deadline > now && !is_found) || self.checkpoints.adopting.is_active() {
            return;
        }
        let event = Event::OwnHead { head, recovered: head.seq.0.saturating_sub(from.0), asked: asked.len() };
        self.own.phase = Phase::Known;
        out.push(event);
    }
}
