//! Fetches: the shell of [`Fetch`]. One begins with a length that a peer told which has some of it, and what comes is on disk
//! before those who wait are answered. No room is made for a length that nobody is there for; a peer tells one length of a
//! blob and no other, and so many are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use actix::prelude::*;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::wire::Held;
use omnimesh_protocol::compute::blob::{
    CacheError, Fetch, FetchConfig, FetchError, Groups, Input, Outline, Output,
};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::{Hash, NodeId, Outbox};

use super::asked::Asked;
use super::{BlobActor, FETCHES_MAX, GetError, Waiting};
use crate::store::blob::{BlobError, BlobStore};
use crate::swarm::peer;

/// How long peers have to say what they hold before those who said nothing are not waited for. Default: guess.
const SILENCE: Duration = Duration::from_secs(5);

/// Lengths of one blob that are tried. Default: guess; each takes up to some minutes if somebody lies.
const TRIES_MAX: usize = 8;
/// Peers whose first word is remembered in one fetch: more than are connected at once, as they come and go.
const TOLD_MAX: usize = 4096;

/// A blob that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    waiting: Vec<Waiting>,
    /// What peers say they hold of it.
    held: BTreeMap<NodeId, (u64, Groups)>,
    /// The length that each told first; none of those who told another one later.
    told: BTreeMap<NodeId, Option<u64>>,
    /// Who was asked and has not said anything.
    pub(super) silent: BTreeSet<NodeId>,
    /// Nobody is waited for any more.
    is_settled: bool,
    /// Lengths that turned out wrong.
    tried: BTreeSet<u64>,
    /// The store makes room for it.
    is_beginning: bool,
    pub(super) run: Option<Run>,
    last_error: Option<GetError>,
    /// Its next timers, which end with it: an actor looks at each of its timers whenever it has something to do.
    silence: Option<SpawnHandle>,
    pub(super) again: Option<SpawnHandle>,
    patience: Option<SpawnHandle>,
}

#[derive(Debug)]
pub(super) struct Run {
    fetch: Fetch,
    range: Range<u64>,
    /// Groups on their way to disk.
    writes: usize,
    is_done: bool,
    /// The store has room for it. Before that, it waits for somebody who has some of it.
    is_begun: bool,
}

impl Fetching {
    pub(super) fn is_begun(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_begun)
    }

    fn is_untried(&self, size: u64) -> bool {
        !self.tried.contains(&size) && self.tried.len() < TRIES_MAX
    }

    /// The parts that are waited for, with their lengths.
    fn parts(&self) -> impl Iterator<Item = &(u64, Range<u64>)> {
        self.waiting
            .iter()
            .filter_map(|waiting| waiting.part.as_ref())
            .filter(|(size, _)| self.is_untried(*size))
    }

    /// What to begin with: of the lengths that somebody wants and peers tell the one that most of them do, of those the
    /// shortest. What is `here` in part needs no peer to be begun with, as it has its room.
    fn next(&self, here: Option<u64>) -> Option<(u64, Range<u64>)> {
        let wants_any = self.waiting.iter().any(|waiting| waiting.part.is_none());
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        let told = self.held.values().map(|(size, _)| *size).filter(|size| self.is_untried(*size));
        told.for_each(|size| *votes.entry(size).or_default() += 1);
        votes.retain(|size, _| wants_any || self.parts().any(|(wanted, _)| wanted == size));
        if let Some((size, _)) = self.parts().find(|(size, _)| here == Some(*size)) {
            *votes.entry(*size).or_default() += 1;
        }
        let size = votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(size, _)| size)?;
        Some(self.parts().find(|(wanted, _)| *wanted == size).cloned().unwrap_or((size, 0..size)))
    }

    /// Notes what a peer says how long it is. What it says first counts.
    fn note_told(&mut self, peer: NodeId, size: u64) -> Told {
        if self.told.len() >= TOLD_MAX && !self.told.contains_key(&peer) {
            return Told::Doubtful;
        }
        let told = self.told.entry(peer).or_insert(Some(size));
        match *told {
            Some(first) if first == size => Told::Same,
            Some(_) => {
                *told = None;
                Told::Changed
            }
            None => Told::Doubtful,
        }
    }
}

/// What a peer's word is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It says what it said before, if anything.
    Same,
    /// It says something else for the first time.
    Changed,
    /// It is not listened to.
    Doubtful,
}

impl BlobActor {
    pub(super) fn get(&mut self, hash: Hash, waiting: Waiting, ctx: &mut Context<Self>) {
        if let Some(blob) = self.there(&hash, waiting.part.as_ref()) {
            drop(waiting.answer.send(Ok(blob)));
            return;
        }
        let (_, max) = self.store.bytes();
        if let Some(wanted) = waiting.part.as_ref().map(|(size, _)| *size).filter(|size| *size > max) {
            let error = BlobError::from(CacheError::Full { wanted, pinned: 0, max });
            drop(waiting.answer.send(Err(error.into())));
            return;
        }
        if let Some(fetching) = self.fetches.get_mut(&hash) {
            fetching.waiting.push(waiting);
            return self.proceed(hash, ctx);
        }
        if self.fetches.len() >= FETCHES_MAX {
            let hashes: Vec<Hash> = self.fetches.keys().copied().collect();
            hashes.into_iter().for_each(|hash| self.end_if_unwanted(hash, ctx));
        }
        if self.fetches.len() >= FETCHES_MAX {
            drop(waiting.answer.send(Err(GetError::Busy)));
            return;
        }
        let silent: BTreeSet<NodeId> = self.peers.nodes().collect();
        let silence = ctx.run_later(SILENCE, move |actor, ctx| {
            if let Some(fetching) = actor.fetches.get_mut(&hash) {
                (fetching.is_settled, fetching.silence) = (true, None);
                actor.proceed(hash, ctx);
            }
        });
        let fetching = Fetching {
            waiting: vec![waiting],
            silent: silent.clone(),
            silence: Some(silence),
            ..Fetching::default()
        };
        self.fetches.insert(hash, fetching);
        silent.into_iter().for_each(|node| self.ask(node, Asked::Want(hash)));
        self.ask_again(hash, ctx);
        self.proceed(hash, ctx);
    }

    /// The blob, if it is here, or the part of it that is wanted.
    fn there(&self, hash: &Hash, part: Option<&(u64, Range<u64>)>) -> Option<BlobRef> {
        let whole = self.store.whole(hash);
        match part {
            None => whole,
            Some((size, range)) => {
                let blob = BlobRef { hash: *hash, size: *size };
                (whole == Some(blob) || self.store.has(&blob, range)).then_some(blob)
            }
        }
    }

    /// Begins with a length that is known or that peers told, if nothing is under way; or ends if there is none.
    fn proceed(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let here = self.store.view(&hash).map(|here| here.blob.size);
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        if fetching.is_begun() || fetching.is_beginning {
            return;
        }
        if let Some((size, range)) = fetching.next(here) {
            (fetching.is_beginning, fetching.run) = (true, None);
            let blob = BlobRef { hash, size };
            return self.block(
                ctx,
                move |store| store.begin_fetch(blob),
                move |actor, ctx, begun| match begun {
                    Ok((there, outline)) => {
                        actor.begin(blob, range, &there, outline.as_deref().cloned(), ctx);
                    }
                    Err(error @ (BlobError::WrongSize { .. } | BlobError::Cache(_))) => {
                        actor.on_refused(blob, &error.into(), ctx);
                    }
                    Err(error) => actor.end(hash, &Err(error.into()), ctx),
                },
            );
        }
        if fetching.run.is_some() {
            return;
        }
        let part = fetching.parts().next().map(|(size, _)| *size);
        if let Some(size) = part {
            // It ends when nobody has come who has any of it.
            let (now, mut out) = (self.common.now(), Outbox::new());
            let (blob, none) = (BlobRef { hash, size }, Groups::none(size));
            let fetch = Fetch::new(FetchConfig::default(), now, blob, 0..1, &none, None, &mut out);
            fetching.run = Some(Run { fetch, range: 0..1, writes: 0, is_done: false, is_begun: false });
            return self.carry_out(hash, out.drain().collect(), ctx);
        }
        let wants_part = fetching.waiting.iter().all(|waiting| waiting.part.is_some());
        if fetching.silent.is_empty() || fetching.is_settled || wants_part {
            let error = fetching.last_error.clone().unwrap_or(GetError::NotFound(hash));
            self.end(hash, &Err(error), ctx);
        }
    }

    /// The store does not take a length; others may be right.
    fn on_refused(&mut self, blob: BlobRef, error: &GetError, ctx: &mut Context<Self>) {
        let Some(fetching) = self.fetches.get_mut(&blob.hash) else { return };
        let of_it = |waiting: &Waiting| waiting.part.as_ref().is_some_and(|(size, _)| *size == blob.size);
        let (refused, left) = std::mem::take(&mut fetching.waiting).into_iter().partition(of_it);
        (fetching.waiting, fetching.is_beginning, fetching.is_settled) = (left, false, true);
        fetching.tried.insert(blob.size);
        fetching.last_error = Some(error.clone());
        let refused: Vec<Waiting> = refused;
        refused.into_iter().for_each(|waiting| drop(waiting.answer.send(Err(error.clone()))));
        self.proceed(blob.hash, ctx);
    }

    fn begin(
        &mut self,
        blob: BlobRef,
        range: Range<u64>,
        there: &Groups,
        outline: Option<Outline>,
        ctx: &mut Context<Self>,
    ) {
        let (now, mut out) = (self.common.now(), Outbox::new());
        let config = FetchConfig::default();
        let fetch = Fetch::new(config, now, blob, range.clone(), there, outline, &mut out);
        let Some(fetching) = self.fetches.get_mut(&blob.hash) else { return };
        fetching.is_beginning = false;
        fetching.run = Some(Run { fetch, range, writes: 0, is_done: false, is_begun: true });
        let holders: Vec<_> = fetching.held.iter().filter(|(_, (size, _))| *size == blob.size).collect();
        let inputs: Vec<_> = holders
            .into_iter()
            .map(|(peer, (_, groups))| Input::Has { peer: *peer, groups: groups.clone() })
            .collect();
        self.carry_out(blob.hash, out.drain().collect(), ctx);
        inputs.into_iter().for_each(|input| self.give(blob.hash, input, ctx));
    }

    pub(super) fn give(&mut self, hash: Hash, input: Input, ctx: &mut Context<Self>) {
        let (now, mut out) = (self.common.now(), Outbox::new());
        let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut()) else {
            return;
        };
        self.common.clone().guard("blob", ctx, || run.fetch.handle(now, input, &mut out));
        self.carry_out(hash, out.drain().collect(), ctx);
    }

    fn carry_out(&mut self, hash: Hash, outputs: Vec<Output>, ctx: &mut Context<Self>) {
        for output in outputs {
            match output {
                Output::AskOutline(node) => self.ask(node, Asked::Outline(hash)),
                Output::Ask { peer, group } => self.ask(peer, Asked::Group(hash, group)),
                Output::Outline(outline) => {
                    self.count_write(hash);
                    self.block(
                        ctx,
                        move |store| store.put_outline(outline),
                        move |actor, ctx, done| {
                            actor.on_written(hash, done, ctx);
                        },
                    );
                }
                Output::Store { group, bytes } => {
                    self.count_write(hash);
                    let write = move |store: &BlobStore| store.put_group(&hash, group, &bytes);
                    self.block(ctx, write, move |actor, ctx, done| actor.on_written(hash, done, ctx));
                }
                Output::Done => {
                    if let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut())
                    {
                        run.is_done = true;
                    }
                    self.end_if_done(hash, ctx);
                }
                Output::Failed(error) => self.on_failed(hash, error, ctx),
                Output::Misbehaved(node) => {
                    let reason = "it sent what is not the blob that it was asked for".to_owned();
                    self.common.observe(vec![Event::BadFrame {
                        from: peer::peer_id(&node),
                        stream: "blob",
                        reason,
                    }]);
                }
                Output::Timer { at, timer } => {
                    let handle = ctx.run_later(self.common.until(at), move |actor, ctx| {
                        actor.give(hash, Input::Timer(timer), ctx);
                    });
                    let fetching = self.fetches.get_mut(&hash);
                    // One of a length that was tried before it ends here.
                    if let Some(last) = fetching.and_then(|fetching| fetching.patience.replace(handle)) {
                        ctx.cancel_future(last);
                    }
                }
            }
        }
    }

    fn count_write(&mut self, hash: Hash) {
        if let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut()) {
            run.writes += 1;
        }
    }

    fn on_written(&mut self, hash: Hash, done: Result<(), BlobError>, ctx: &mut Context<Self>) {
        if let Err(error) = done {
            self.release(hash, ctx);
            return self.end(hash, &Err(error.into()), ctx);
        }
        if let Some(run) = self.fetches.get_mut(&hash).and_then(|fetching| fetching.run.as_mut()) {
            run.writes = run.writes.saturating_sub(1);
        }
        self.end_if_done(hash, ctx);
    }

    fn end_if_done(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let Some(run) = self.fetches.get(&hash).and_then(|fetching| fetching.run.as_ref()) else { return };
        if !run.is_done || run.writes > 0 {
            return;
        }
        self.block(
            ctx,
            move |store| store.end_fetch(&hash),
            move |actor, ctx, done| match done {
                Ok(_) => actor.on_done(hash, ctx),
                Err(error) => actor.end(hash, &Err(error.into()), ctx),
            },
        );
    }

    /// Answers those whose part is here, and goes on for the others.
    fn on_done(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        let Some(Run { fetch, range, .. }) = fetching.run.take() else { return };
        let waiting = std::mem::take(&mut fetching.waiting);
        let mut left = Vec::new();
        for waiting in waiting {
            match self.there(&hash, waiting.part.as_ref()) {
                Some(blob) => drop(waiting.answer.send(Ok(blob))),
                None => left.push(waiting),
            }
        }
        // Fetched, and not there: what was on disk before is damaged, or goes while it comes.
        let is_damaged = |waiting: &Waiting| match &waiting.part {
            None => range == (0..fetch.blob().size),
            Some((size, part)) => *size == fetch.blob().size && *part == range,
        };
        if left.is_empty() || left.iter().any(is_damaged) {
            if let Some(fetching) = self.fetches.get_mut(&hash) {
                fetching.waiting = left;
            }
            return self.end(hash, &Err(BlobError::Damaged { hash }.into()), ctx);
        }
        if let Some(fetching) = self.fetches.get_mut(&hash) {
            fetching.waiting = left;
        }
        self.proceed(hash, ctx);
    }

    /// With this length nobody gives it: there may be another one.
    fn on_failed(&mut self, hash: Hash, error: FetchError, ctx: &mut Context<Self>) {
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        let Some(run) = fetching.run.take() else { return };
        fetching.tried.insert(run.fetch.blob().size);
        fetching.last_error = Some(GetError::Fetch { hash, error });
        fetching.is_settled = true;
        if !run.is_begun {
            return self.proceed(hash, ctx);
        }
        // The next one begins when the store is done with this one.
        fetching.is_beginning = true;
        self.block(
            ctx,
            move |store| store.end_fetch(&hash),
            move |actor, ctx, done| {
                if let Err(error) = done {
                    tracing::warn!(%error, "a blob's fetch could not be ended");
                }
                if let Some(fetching) = actor.fetches.get_mut(&hash) {
                    fetching.is_beginning = false;
                    actor.proceed(hash, ctx);
                }
            },
        );
    }

    /// Ends a fetch that nobody waits for any more.
    pub(super) fn end_if_unwanted(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        fetching.waiting.retain(|waiting| !waiting.answer.is_closed());
        let is_ending = fetching.run.as_ref().is_some_and(|run| run.is_done);
        if !fetching.waiting.is_empty() || fetching.is_beginning || is_ending {
            return;
        }
        if fetching.is_begun() {
            self.release(hash, ctx);
        }
        self.end(hash, &Err(GetError::Stopped), ctx);
    }

    /// The store need not keep room for it any more.
    pub(super) fn release(&self, hash: Hash, ctx: &mut Context<Self>) {
        self.block(
            ctx,
            move |store| store.end_fetch(&hash),
            |_, _, done| {
                if let Err(error) = done {
                    tracing::warn!(%error, "a blob's fetch could not be ended");
                }
            },
        );
    }

    /// Answers all who wait.
    fn end(&mut self, hash: Hash, result: &Result<BlobRef, GetError>, ctx: &mut Context<Self>) {
        self.asked.retain(|_, (_, asked)| asked.hash() != hash);
        let Some(fetching) = self.fetches.remove(&hash) else { return };
        for timer in [fetching.silence, fetching.again, fetching.patience].into_iter().flatten() {
            ctx.cancel_future(timer);
        }
        fetching.waiting.into_iter().for_each(|waiting| drop(waiting.answer.send(result.clone())));
    }

    pub(super) fn on_have(&mut self, from: NodeId, id: u64, held: Vec<Held>, ctx: &mut Context<Self>) {
        let Some((_, Asked::Want(hash))) = self.take_asked(from, id) else { return };
        let Some(fetching) = self.fetches.get_mut(&hash) else { return };
        fetching.silent.remove(&from);
        // What could not be kept here is not asked for.
        let (_, bytes_max) = self.store.bytes();
        let held = held.into_iter().find(|held| held.hash == hash && held.size <= bytes_max);
        let Some(Held { size, groups, .. }) = held else {
            self.proceed(hash, ctx);
            return self.look_who_is_left(hash, ctx);
        };
        match fetching.note_told(from, size) {
            Told::Same => drop(fetching.held.insert(from, (size, groups.clone()))),
            told => {
                fetching.held.remove(&from);
                if told == Told::Changed {
                    let reason = "it tells another size of a blob than before".to_owned();
                    let from = peer::peer_id(&from);
                    self.common.observe(vec![Event::BadFrame { from, stream: "blob", reason }]);
                }
                self.proceed(hash, ctx);
                return self.look_who_is_left(hash, ctx);
            }
        }
        match &fetching.run {
            Some(run) if run.is_begun && run.fetch.blob().size == size => {
                self.give(hash, Input::Has { peer: from, groups }, ctx);
            }
            _ => self.proceed(hash, ctx),
        }
    }

    /// If all have answered and nobody has it, it need not be waited for.
    fn look_who_is_left(&mut self, hash: Hash, ctx: &mut Context<Self>) {
        let has_nobody = self.fetches.get(&hash).is_some_and(|fetching| fetching.held.is_empty());
        let is_asked = |(_, what): &(NodeId, Asked)| *what == Asked::Want(hash);
        if has_nobody && !self.asked.values().any(is_asked) {
            self.give(hash, Input::Denied, ctx);
        }
    }

    pub(super) fn part_from(&mut self, node: NodeId, ctx: &mut Context<Self>) {
        self.asked.retain(|_, (asked, _)| *asked != node);
        let hashes: Vec<Hash> = self.fetches.keys().copied().collect();
        for hash in hashes {
            if let Some(fetching) = self.fetches.get_mut(&hash) {
                fetching.silent.remove(&node);
                fetching.held.remove(&node);
            }
            self.give(hash, Input::Gone(node), ctx);
            self.proceed(hash, ctx);
            self.look_who_is_left(hash, ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn peer(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn waits(parts: &[Option<u64>]) -> Fetching {
        let waiting = |size: &Option<u64>| {
            let part = size.map(|size| (size, 3..size));
            Waiting { part, answer: oneshot::channel().0 }
        };
        Fetching { waiting: parts.iter().map(waiting).collect(), ..Fetching::default() }
    }

    /// What the peer says counts as the actor has it.
    fn says(fetching: &mut Fetching, n: u8, size: u64) {
        match fetching.note_told(peer(n), size) {
            Told::Same => drop(fetching.held.insert(peer(n), (size, Groups::All))),
            _ => drop(fetching.held.remove(&peer(n))),
        }
    }

    #[test]
    fn no_length_is_begun_with_that_nobody_is_there_for() {
        let mut fetching = waits(&[Some(100)]);
        assert_eq!(fetching.next(None), None);
        says(&mut fetching, 1, 99);
        assert_eq!(fetching.next(None), None, "nobody wants that one");
        assert_eq!(fetching.next(Some(100)), Some((100, 3..100)), "a part of it is here");
        says(&mut fetching, 2, 100);
        assert_eq!(fetching.next(None), Some((100, 3..100)));
        // Who knows no length takes what most say.
        let mut fetching = waits(&[None, Some(100)]);
        [(1, 99), (2, 99), (3, 100)].iter().for_each(|(n, size)| says(&mut fetching, *n, *size));
        assert_eq!(fetching.next(None), Some((99, 0..99)));
        fetching.tried.insert(99);
        assert_eq!(fetching.next(None), Some((100, 3..100)));
    }

    #[test]
    fn a_peer_that_tells_one_length_after_another_is_tried_once() {
        let mut fetching = waits(&[None]);
        says(&mut fetching, 1, 500);
        says(&mut fetching, 2, 77);
        assert_eq!(fetching.next(None), Some((77, 0..77)), "the shortest, if as many say it");
        let mut tried = Vec::new();
        for size in 501..600 {
            says(&mut fetching, 1, size);
            let Some((next, _)) = fetching.next(None) else { break };
            fetching.tried.insert(next);
            tried.push(next);
        }
        assert_eq!(tried, [77]);
        assert_eq!(fetching.note_told(peer(1), 600), Told::Doubtful);
        // However many tell something, so many are tried.
        let mut fetching = waits(&[None]);
        (0..100).for_each(|n| says(&mut fetching, n, u64::from(n)));
        while let Some((next, _)) = fetching.next(None) {
            fetching.tried.insert(next);
        }
        assert_eq!(fetching.tried.len(), TRIES_MAX);
    }
}
