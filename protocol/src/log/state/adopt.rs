//! Taking a checkpoint from peers, in place of entries that nobody gives any more.
//!
//! ```text
//!   declined as truncated, by the last who claimed it ─► ask all: who has one that covers it? ─► offers
//!     ─► the one that most tell
//!     ─► its parts, chunk by chunk, to disk ─► does each part's hash fit? ─► can it be read? ─► Seal and Jump, one write
//! ```
//!
//! A peer that goes away is replaced by another that offers the same checkpoint, where it left off. If chunks of
//! several peers do not fit together, the part is fetched again from one alone, so that a liar is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand_core::Rng;

use crate::id::{Hash, NodeId, Seq, Step};
use crate::machine::Outbox;
use crate::time::Time;

use super::super::checkpoint::{CUT_ENTRY_BYTES_MAX, Cut, Sealed, StoredCheckpoint};
use super::super::wire::{Decline, Frame};
use super::super::{Misdeed, Output, StoreError, Token};
use super::State;

/// How long peers may take to say which checkpoint they have. Source: guess, some round trips.
const OFFER_WAIT: Duration = Duration::from_secs(1);
/// Different checkpoints that are considered at once. Source: guess; honest peers have one or two.
const OFFERS_MAX: usize = 8;
/// Checkpoints that turned out to be of no use, or bad, and for how long they are passed over. Source: guess.
const USELESS_MAX: usize = 16;
const USELESS_FOR: Duration = Duration::from_secs(60);
/// The same for one that could not be kept: the disk may have room again. Source: guess.
const UNKEPT_FOR: Duration = Duration::from_secs(5);

/// What is under way to take a checkpoint from peers.
#[derive(Debug)]
pub(super) struct Adopting<P> {
    /// Peers were asked, until then.
    until: Option<Time>,
    /// Those who have not answered.
    asked: BTreeSet<P>,
    offers: BTreeMap<OfferId, Offer<P>>,
    download: Option<Download<P>>,
    useless: BTreeMap<OfferId, Time>,
}

/// What is signed, and what is not and goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OfferId {
    checkpoint: Hash,
    heads: Hash,
}

impl OfferId {
    fn of(sealed: &Sealed) -> Self {
        OfferId { checkpoint: sealed.checkpoint.id(), heads: sealed.heads.hash }
    }
}

#[derive(Debug)]
struct Offer<P> {
    sealed: Sealed,
    peers: BTreeSet<P>,
}

/// A checkpoint that is being fetched.
#[derive(Debug)]
struct Download<P> {
    id: OfferId,
    sealed: Sealed,
    /// Who has it.
    peers: BTreeSet<P>,
    part: usize,
    index: u64,
    /// Of what came of the part.
    hasher: blake3::Hasher,
    /// Who gave it.
    sources: BTreeSet<P>,
    /// The next part comes from one peer alone.
    is_alone: bool,
    cut_bytes: Vec<u8>,
    cut: Option<Cut>,
    request: Option<Request<P>>,
    /// What the store was asked.
    work: Option<(Token, Work)>,
}

#[derive(Debug)]
struct Request<P> {
    id: u64,
    peer: P,
    deadline: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Stage,
    Open,
}

impl<P: Copy + Ord> Adopting<P> {
    pub(super) fn new() -> Self {
        Adopting {
            until: None,
            asked: BTreeSet::new(),
            offers: BTreeMap::new(),
            download: None,
            useless: BTreeMap::new(),
        }
    }

    /// True while peers are asked for a checkpoint or give one.
    pub(super) fn is_active(&self) -> bool {
        self.until.is_some() || self.download.is_some()
    }

    /// Passes this checkpoint over for a while.
    fn pass_over(&mut self, now: Time, id: OfferId, pause: Duration) {
        self.useless.retain(|_, until| *until > now);
        while self.useless.len() >= USELESS_MAX {
            self.useless.pop_first();
        }
        self.useless.insert(id, now + pause);
    }

    fn is_useless(&self, now: Time, id: &OfferId) -> bool {
        self.useless.get(id).is_some_and(|until| *until > now)
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.offers.len() <= OFFERS_MAX && self.useless.len() <= USELESS_MAX);
        if let Some(download) = &self.download {
            assert!(download.request.is_none() || download.work.is_none(), "one chunk at a time");
        }
    }
}

impl<P: Copy + Ord> Download<P> {
    fn new(id: OfferId, Offer { sealed, peers }: Offer<P>) -> Self {
        Download {
            id,
            sealed,
            peers,
            part: 0,
            index: 0,
            hasher: blake3::Hasher::new(),
            sources: BTreeSet::new(),
            is_alone: false,
            cut_bytes: Vec::new(),
            cut: None,
            request: None,
            work: None,
        }
    }

    fn begin_part(&mut self, part: usize) {
        (self.part, self.index) = (part, 0);
        self.hasher = blake3::Hasher::new();
        self.sources.clear();
        if part == 0 {
            self.cut_bytes.clear();
        }
    }

    /// The length of the chunk that is next; `None` if the part is complete.
    fn chunk_bytes(&self) -> Option<usize> {
        self.sealed.parts().nth(self.part)?.chunk_bytes(self.index)
    }
}

impl<P: Copy + Ord + Debug> State<P> {
    /// An entry is missing that only a checkpoint can stand for: asks who has one that covers it.
    pub(super) fn want_checkpoint(
        &mut self,
        now: Time,
        author: NodeId,
        seq: Seq,
        out: &mut Outbox<Output<P>>,
    ) {
        // What is staged of one goes when another is fetched.
        if self.checkpoints.adopting.is_active() || self.writer.has_seal() || self.step.is_none() {
            return;
        }
        let able = self.peers.iter().filter(|(_, state)| state.quiet_until <= now);
        let asked: BTreeSet<P> = able.map(|(peer, _)| *peer).collect();
        if asked.is_empty() {
            return;
        }
        for peer in &asked {
            self.send(*peer, &Frame::AskCheckpoint { author, seq }, out);
        }
        self.checkpoints.adopting.asked = asked;
        self.checkpoints.adopting.until = Some(now + OFFER_WAIT);
    }

    pub(super) fn on_offer(
        &mut self,
        now: Time,
        from: P,
        offer: Option<Sealed>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let adopting = &mut self.checkpoints.adopting;
        if adopting.until.is_none() || !adopting.asked.remove(&from) {
            return;
        }
        let is_complete = adopting.asked.is_empty();
        if let Some(sealed) = offer {
            self.note_offer(now, from, sealed, out);
        }
        if is_complete {
            self.choose(now, rng, out);
        }
    }

    fn note_offer(&mut self, now: Time, from: P, sealed: Sealed, out: &mut Outbox<Output<P>>) {
        let id = OfferId::of(&sealed);
        if let Some(offer) = self.checkpoints.adopting.offers.get_mut(&id) {
            offer.peers.insert(from);
            return;
        }
        let checkpoint = &sealed.checkpoint;
        let latest = self.step.unwrap_or_default().saturating_add(self.config.step_window_future);
        let cut_bytes_max = self.config.authors_max.saturating_mul(CUT_ENTRY_BYTES_MAX).saturating_add(16);
        let is_fair = checkpoint.mesh == self.gates.mesh()
            && checkpoint.step <= latest
            && sealed.bytes() <= self.config.checkpoint_bytes_max
            && checkpoint.parts.first().is_some_and(|cut| cut.bytes <= cut_bytes_max as u64);
        if !is_fair || self.counted(&sealed.votes) < self.votes_enough() {
            self.stats.checkpoints_refused += 1;
            return;
        }
        if self.checkpoints.adopting.is_useless(now, &id)
            || self.checkpoints.adopting.offers.len() >= OFFERS_MAX
        {
            return;
        }
        if !sealed.verify() {
            self.stats.checkpoints_refused += 1;
            return self.blame(now, from, Misdeed::BadCheckpoint, out);
        }
        self.checkpoints.adopting.offers.insert(id, Offer { sealed, peers: BTreeSet::from([from]) });
    }

    /// Begins to fetch the checkpoint that most peers tell; of those the one with most signatures, then the newest.
    fn choose(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let adopting = &mut self.checkpoints.adopting;
        adopting.until = None;
        adopting.asked.clear();
        let offers = std::mem::take(&mut adopting.offers);
        let rank = |offer: &Offer<P>| {
            let Sealed { checkpoint, votes, .. } = &offer.sealed;
            (offer.peers.len(), self.counted(votes), checkpoint.step)
        };
        let best = offers.into_iter().max_by_key(|(id, offer)| (rank(offer), *id));
        self.checkpoints.adopting.download = best.map(|(id, offer)| Download::new(id, offer));
        self.go_on(now, rng, out);
    }

    /// Asks for the next chunk, or looks at what is complete.
    fn go_on(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let Some(download) = &mut self.checkpoints.adopting.download else { return };
        if download.request.is_some() || download.work.is_some() {
            return;
        }
        if download.part >= download.sealed.parts().count() {
            let sealed = Box::new(download.sealed.clone());
            let token = self.token();
            if let Some(download) = &mut self.checkpoints.adopting.download {
                download.work = Some((token, Work::Open));
            }
            out.push(Output::Open { token, sealed });
            return;
        }
        if download.chunk_bytes().is_none() {
            return self.end_part(now, rng, out);
        }
        let peers = &self.peers;
        download.peers.retain(|peer| peers.contains_key(peer));
        if download.is_alone && download.sources.iter().any(|source| !download.peers.contains(source)) {
            // Its one source is gone.
            download.begin_part(download.part);
        }
        let able: Vec<P> = download
            .peers
            .iter()
            .copied()
            .filter(|peer| peers.get(peer).is_some_and(|state| state.quiet_until <= now))
            .collect();
        // Who has begun a part goes on with it.
        let given = able.iter().copied().find(|peer| download.sources.contains(peer));
        let may_change = !download.is_alone || download.sources.is_empty();
        let other =
            (may_change && !able.is_empty()).then(|| able.get(rng.random_range(0..able.len())).copied());
        let peer = given.or(other.flatten());
        if download.peers.is_empty() {
            self.checkpoints.adopting.download = None;
            return;
        }
        // Or else one of them is busy, and is asked in a while.
        let Some(peer) = peer else { return };
        let id = u64::from(rng.next_u32());
        download.request = Some(Request { id, peer, deadline: now + self.config.fetch_timeout });
        let (checkpoint, part, index) = (download.id.checkpoint, download.part as u64, download.index);
        self.send(peer, &Frame::AskChunk { id, checkpoint, part, index }, out);
    }

    pub(super) fn on_chunk(
        &mut self,
        now: Time,
        from: P,
        id: u64,
        bytes: Bytes,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let token = self.token();
        let Some(download) = &mut self.checkpoints.adopting.download else { return };
        if download.request.take_if(|request| request.id == id && request.peer == from).is_none() {
            return;
        }
        self.stats.checkpoint_bytes_received += bytes.len() as u64;
        if download.chunk_bytes() != Some(bytes.len()) {
            download.peers.remove(&from);
            self.stats.checkpoints_refused += 1;
            self.blame(now, from, Misdeed::BadCheckpoint, out);
            return self.go_on(now, rng, out);
        }
        download.hasher.update(&bytes);
        download.sources.insert(from);
        if download.part == 0 {
            download.cut_bytes.extend_from_slice(&bytes);
        }
        download.work = Some((token, Work::Stage));
        let (checkpoint, part, index) = (download.id.checkpoint, download.part, download.index);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.note_good_answer();
        }
        out.push(Output::Stage { token, checkpoint, part, index, bytes });
    }

    pub(super) fn on_staged(
        &mut self,
        now: Time,
        token: Token,
        result: Result<(), StoreError>,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(download) = &mut self.checkpoints.adopting.download else { return };
        let Some((_, work)) = download.work.take_if(|(working, _)| *working == token) else { return };
        match (work, result) {
            (Work::Stage, Ok(())) => {
                download.index += 1;
                self.go_on(now, rng, out);
            }
            (Work::Open, Ok(())) => self.adopt(now, out),
            (_, Err(error)) => {
                let Some(Download { id, peers, .. }) = self.checkpoints.adopting.download.take() else {
                    return;
                };
                let is_bad = matches!(error, StoreError::BadCheckpoint(_));
                self.checkpoints.adopting.pass_over(now, id, if is_bad { USELESS_FOR } else { UNKEPT_FOR });
                if is_bad {
                    self.stats.checkpoints_refused += 1;
                    // Nobody honest offers what it has not made or opened itself. To pass over this one alone would not
                    // do: its unsigned part can be another each time.
                    for peer in peers {
                        self.blame(now, peer, Misdeed::BadCheckpoint, out);
                    }
                }
            }
        }
    }

    /// All chunks of a part are here: are they what was signed?
    fn end_part(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let authors_max = self.config.authors_max;
        let Some(download) = &mut self.checkpoints.adopting.download else { return };
        let hash = Hash::from_bytes(*download.hasher.finalize().as_bytes());
        let wanted = download.sealed.parts().nth(download.part).map(|part| part.hash);
        if wanted != Some(hash) {
            self.stats.checkpoints_refused += 1;
            let liar = download.sources.first().copied().filter(|_| download.sources.len() == 1);
            download.is_alone = true;
            download.begin_part(download.part);
            if let Some(liar) = liar {
                download.peers.remove(&liar);
                self.blame(now, liar, Misdeed::BadCheckpoint, out);
            }
            return self.go_on(now, rng, out);
        }
        if download.part == 0 {
            let cut = Cut::decode(&std::mem::take(&mut download.cut_bytes).into(), authors_max);
            let is_of_use = cut.as_ref().is_some_and(|cut| {
                cut.0.iter().any(|(author, cut)| {
                    let head = self.logs.get(author).map_or(super::Head::EMPTY, |log| log.chain.head());
                    cut.head.seq > head.seq || (cut.head.seq == head.seq && cut.head != head)
                })
            });
            if !is_of_use {
                let id = download.id;
                self.checkpoints.adopting.download = None;
                return self.checkpoints.adopting.pass_over(now, id, USELESS_FOR);
            }
            download.cut = cut;
        }
        let next = download.part + 1;
        download.begin_part(next);
        self.go_on(now, rng, out);
    }

    fn adopt(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let Some(download) = self.checkpoints.adopting.download.take() else { return };
        let Some(cut) = download.cut else { return };
        self.stats.checkpoints_adopted += 1;
        self.queue_seal(now, StoredCheckpoint { sealed: download.sealed, cut });
        // What peers have of the own log behind the cut was not looked at while it could not be fetched.
        if self.own.ask_again(now, &self.config, self.peers.keys().copied()) {
            let me = self.me();
            for peer in self.peers.keys().copied().collect::<Vec<_>>() {
                self.send(peer, &Frame::AskHead(me), out);
            }
        }
    }

    /// A peer does not give a chunk.
    pub(super) fn on_chunk_declined(&mut self, now: Time, from: P, id: u64, reason: Decline) {
        let Some(download) = &mut self.checkpoints.adopting.download else { return };
        if download.request.take_if(|request| request.id == id && request.peer == from).is_none() {
            return;
        }
        let is_patient =
            reason == Decline::Busy && self.peers.get_mut(&from).is_some_and(|peer| peer.note_busy(now));
        if !is_patient {
            download.peers.remove(&from);
        }
    }

    pub(super) fn expire_adoption(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if self.checkpoints.adopting.until.is_some_and(|until| until <= now) {
            return self.choose(now, rng, out);
        }
        let Some(download) = &mut self.checkpoints.adopting.download else { return };
        if let Some(request) = download.request.take_if(|request| request.deadline <= now) {
            download.peers.remove(&request.peer);
            self.blame(now, request.peer, Misdeed::Silent, out);
        }
        self.go_on(now, rng, out);
    }

    pub(super) fn forget_offers_of(&mut self, peer: P) {
        let adopting = &mut self.checkpoints.adopting;
        adopting.asked.remove(&peer);
        for offer in adopting.offers.values_mut() {
            offer.peers.remove(&peer);
        }
        if let Some(download) = &mut adopting.download {
            download.peers.remove(&peer);
            download.request.take_if(|request| request.peer == peer);
        }
    }

    /// The step of the checkpoint that is being fetched.
    pub fn adopting(&self) -> Option<Step> {
        let download = self.checkpoints.adopting.download.as_ref()?;
        Some(download.sealed.checkpoint.step)
    }
}
