//! Peers: who is there, what they claim, and how they behave.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use rand_core::Rng;

use crate::id::{NodeId, Seq};
use crate::machine::Outbox;
use crate::time::Time;

use super::super::wire::Frame;
use super::super::{Config, Event, Misdeed, Output, Record};
use super::State;
use super::rounds::Round;

/// Authors of whom one peer says that it has more, at most; further ones come with a later round. Source: guess, some
/// 100 bytes each.
pub(super) const CLAIMS_MAX: usize = 8192;
/// Proofs that one peer may send in an interval, and for how many it is asked. Source: guess; each may cost two
/// signatures.
const PROOFS_MAX: u32 = 128;

/// Frames of votes, and questions about checkpoints, that one peer may send in an interval. Source: guess, twice what one sends
/// that passes on votes ten times a second.
const CHECKPOINTS_MAX: u32 = 64;

/// How long a peer that is busy is left alone. Source: guess.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// How often on end a peer may be busy before its word counts for nothing. Source: guess, ten seconds.
const BUSY_MAX: u32 = 50;

/// What is counted of a peer, because each costs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// A frame of comparison that it began.
    Compare,
    /// A proof that it sent.
    Proof,
    /// A proof that it was asked for.
    AskProof,
    /// A frame about checkpoints.
    Checkpoint,
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) connected: Time,
    /// Logs of which it has more than this node.
    pub(super) claims: BTreeMap<NodeId, Claim>,
    /// Requests under way to it, and the bytes they may bring.
    pub(super) asked: usize,
    pub(super) asked_bytes: usize,
    /// It is not asked before this moment.
    pub(super) quiet_until: Time,
    pub(super) offences: u32,
    /// It is compared with again once it may be asked again.
    recheck: bool,
    /// Requests on end that it was too busy for.
    busy: u32,
    /// Requests of it under way.
    pub(super) served: usize,
    /// Bytes under way to it.
    pub(super) queued: usize,
    pub(super) round: Option<Round>,
    /// Since when is counted, and how many of each.
    counted: (Time, [u32; 4]),
}

/// What a peer says that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) to: Seq,
    /// When it may be fetched: gossip goes first.
    pub(super) at: Time,
    /// True if the peer said so; false if it follows from what it passed on.
    pub(super) is_told: bool,
}

impl Peer {
    fn new(node: NodeId, now: Time) -> Self {
        Peer {
            node,
            connected: now,
            claims: BTreeMap::new(),
            asked: 0,
            asked_bytes: 0,
            quiet_until: Time::ZERO,
            offences: 0,
            recheck: false,
            busy: 0,
            served: 0,
            queued: 0,
            round: None,
            counted: (now, [0; 4]),
        }
    }

    pub(super) fn waits(&self) -> bool {
        self.round.is_some() || self.recheck
    }

    /// Counts one more; false if there were too many in this interval.
    pub(super) fn allows(&mut self, now: Time, config: &Config, what: Counted) -> bool {
        if now.since(self.counted.0) >= config.interval {
            self.counted = (now, [0; 4]);
        }
        let [compares, proofs, asked, checkpoints] = &mut self.counted.1;
        let (count, max) = match what {
            Counted::Compare => (compares, config.compares_max),
            Counted::Proof => (proofs, PROOFS_MAX),
            Counted::AskProof => (asked, PROOFS_MAX),
            Counted::Checkpoint => (checkpoints, CHECKPOINTS_MAX),
        };
        *count = count.saturating_add(1);
        *count <= max
    }

    /// No requests to it for `config.shun`, doubled each further time.
    fn shun(&mut self, now: Time, config: &Config) {
        let factor = 1_u32.checked_shl(self.offences.min(16)).unwrap_or(u32::MAX);
        self.offences = self.offences.saturating_add(1);
        self.recheck = true;
        self.quiet_until = now + config.shun.saturating_mul(factor).min(config.shun_max);
    }

    pub(super) fn note_good_answer(&mut self) {
        self.offences = self.offences.saturating_sub(1);
        self.busy = 0;
    }

    /// It is too busy, and left alone for a moment; false if it has been for too long.
    pub(super) fn note_busy(&mut self, now: Time) -> bool {
        self.quiet_until = self.quiet_until.max(now + BUSY_PAUSE);
        self.busy = self.busy.saturating_add(1);
        self.busy <= BUSY_MAX
    }
}

impl<P: Copy + Ord + Debug> State<P> {
    pub(super) fn on_connected(
        &mut self,
        now: Time,
        peer: P,
        node: NodeId,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        if self.peers.contains_key(&peer) || node == self.me() {
            return;
        }
        self.peers.insert(peer, Peer::new(node, now));
        self.checkpoints.has_company = true;
        if self.own.note_peer(now, peer, &self.config) {
            self.send(peer, &Frame::AskHead(self.me()), out);
        }
        // One of the two begins; both learn what differs.
        if self.me() < node {
            self.begin_round_with(now, peer, rng, out);
        }
    }

    pub(super) fn on_disconnected(&mut self, now: Time, peer: P, out: &mut Outbox<Output<P>>) {
        if self.peers.remove(&peer).is_none() {
            return;
        }
        self.own.note_gone(peer);
        self.forget_offers_of(peer);
        self.drop_requests_to(peer);
        self.end_forks_with(now, peer, out);
        self.may_fetch = true;
    }

    pub(super) fn on_sent(&mut self, to: P, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.queued = peer.queued.saturating_sub(bytes);
        }
    }

    /// Sends a frame to a connected peer.
    pub(super) fn send(&mut self, to: P, frame: &Frame, out: &mut Outbox<Output<P>>) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let bytes = frame.encode();
        let len = bytes.len();
        peer.queued = peer.queued.saturating_add(len);
        self.stats.bytes_sent += len as u64;
        match frame {
            Frame::Records { .. } => self.stats.record_bytes_sent += len as u64,
            Frame::Compare { .. }
            | Frame::Fetch { .. }
            | Frame::Find { .. }
            | Frame::AskCheckpoint { .. }
            | Frame::AskChunk { .. } => self.count_asked(len),
            _ => {}
        }
        out.push(Output::Send { to, frame: bytes });
    }

    /// The peer did what no honest one does. What it claims counts for nothing until it is compared with again.
    pub(super) fn blame(&mut self, now: Time, peer: P, misdeed: Misdeed, out: &mut Outbox<Output<P>>) {
        self.stats.misdeeds += 1;
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.shun(now, &self.config);
        for author in std::mem::take(&mut state.claims).into_keys() {
            self.forget_missed(&author);
        }
        self.may_fetch = true;
        out.push(Event::Misbehaved { peer, misdeed });
    }

    /// The peer's word about an author counts for nothing until it says it again.
    pub(super) fn drop_claim(&mut self, peer: P, author: &NodeId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.claims.remove(author);
        }
        self.forget_missed(author);
        self.may_fetch = true;
    }

    /// Compares again with peers that were not asked for a while.
    pub(super) fn recheck_peers(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let is_due = |state: &Peer| state.recheck && state.quiet_until <= now && state.round.is_none();
        let due: Vec<P> =
            self.peers.iter().filter(|(_, state)| is_due(state)).map(|(peer, _)| *peer).collect();
        for peer in due {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.recheck = false;
            }
            self.begin_round_with(now, peer, rng, out);
        }
    }

    /// A peer has this author's entries up to `to`, it seems.
    pub(super) fn claim(&mut self, now: Time, peer: P, author: NodeId, to: Seq, is_told: bool) {
        let chain = self.logs.get(&author).map(|log| &log.chain);
        let to = chain.map_or(to, |chain| to.min(chain.limit()));
        let is_behind = to > chain.map_or(Seq(0), |chain| chain.head().seq);
        let grace = self.config.gossip_grace;
        let fresh = self.config.round_timeout;
        let is_shut_out = self.is_shut_out(&author);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if !is_behind
            || is_shut_out
            || (state.claims.len() >= CLAIMS_MAX && !state.claims.contains_key(&author))
        {
            return;
        }
        let at = if is_told && now.since(state.connected) < fresh { now } else { now + grace };
        let claim = state.claims.entry(author).or_insert(Claim { to, at, is_told });
        claim.to = claim.to.max(to);
        claim.is_told |= is_told;
        self.fetching.entry(author).or_default();
        self.may_fetch = true;
    }

    /// Tells an author who is connected what is on disk here of its log: it may wait for replicas.
    pub(super) fn tell_authors(&mut self, authors: &[NodeId], out: &mut Outbox<Output<P>>) {
        let peers: Vec<(P, NodeId)> = self.peers.iter().map(|(peer, state)| (*peer, state.node)).collect();
        for (peer, node) in peers {
            if authors.binary_search(&node).is_ok()
                && let Some(head) = self.told.get(&node).copied()
            {
                self.send(peer, &Frame::Heads(vec![head]), out);
            }
        }
    }

    /// Who brought a record, by key.
    pub(super) fn node_of(&self, peer: Option<P>) -> Option<NodeId> {
        self.peers.get(&peer?).map(|peer| peer.node)
    }

    /// A record waits behind others that its bringer should have.
    pub(super) fn claim_before(&mut self, now: Time, peer: Option<P>, record: &Record) {
        if let Some(peer) = peer {
            self.claim(now, peer, record.author(), record.first().saturating_sub(1), false);
        }
    }
}
