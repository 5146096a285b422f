//! Rounds of comparison with one peer at a time.

use std::fmt::Debug;

use rand::RngExt;
use rand_core::Rng;

use crate::machine::Outbox;
use crate::time::Time;

use super::super::Output;
use super::super::reconcile::Range;
use super::super::wire::Frame;
use super::State;
use super::peers::Counted;

/// Heads in one frame that is sent. Source: guess, some 70 KB.
const HEADS_IN_FRAME: usize = 1000;
/// Frames that one round may take. A million heads of which ten thousand differ take some 350.
const STEPS_MAX: u32 = 1024;

/// A round that this node has begun.
#[derive(Debug)]
pub(super) struct Round {
    id: u64,
    deadline: Time,
    steps: u32,
}

impl<P: Copy + Ord + Debug> State<P> {
    pub(super) fn begin_round(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let is_ready = |state: &super::Peer| state.round.is_none() && state.quiet_until <= now;
        let ready: Vec<P> =
            self.peers.iter().filter(|(_, state)| is_ready(state)).map(|(peer, _)| *peer).collect();
        if !ready.is_empty()
            && let Some(peer) = ready.get(rng.random_range(0..ready.len()))
        {
            self.begin_round_with(now, *peer, rng, out);
        }
    }

    pub(super) fn begin_round_with(
        &mut self,
        now: Time,
        peer: P,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let id = u64::from(rng.next_u32());
        state.round = Some(Round { id, deadline: now + self.config.round_timeout, steps: 0 });
        self.stats.rounds += 1;
        self.send(peer, &Frame::Compare { round: id, ranges: vec![self.told.all()] }, out);
        self.tell_votes(peer, out);
    }

    pub(super) fn on_compare(
        &mut self,
        now: Time,
        from: P,
        id: u64,
        ranges: &[Range],
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(state) = self.peers.get_mut(&from) else { return };
        let is_own = state.round.as_ref().is_some_and(|round| round.id == id);
        if !is_own && !state.allows(now, &self.config, Counted::Compare) {
            self.stats.shed += 1;
            return;
        }
        if ranges.is_empty() {
            if let Some(round) = state.round.take_if(|round| round.id == id) {
                self.stats.rounds_equal += u64::from(round.steps == 0);
            }
            return;
        }
        if let Some(round) = state.round.as_mut().filter(|_| is_own) {
            round.steps += 1;
            round.deadline = now + self.config.round_timeout;
        }
        let is_endless = state.round.as_ref().is_some_and(|round| is_own && round.steps > STEPS_MAX);
        let answer = self.told.answer(ranges);
        for heads in answer.ours.chunks(HEADS_IN_FRAME) {
            self.send(from, &Frame::Heads(heads.to_vec()), out);
        }
        for head in answer.theirs {
            self.on_head(now, from, head, rng, out);
        }
        let is_over = answer.ranges.is_empty() || is_endless;
        let ranges = if is_over { Vec::new() } else { answer.ranges };
        self.send(from, &Frame::Compare { round: id, ranges }, out);
        if let Some(state) = self.peers.get_mut(&from)
            && is_own
            && is_over
        {
            state.round = None;
        }
    }

    pub(super) fn expire_rounds(&mut self, now: Time) {
        for state in self.peers.values_mut() {
            // A lost frame, or a peer that shed it; the next round is soon.
            state.round.take_if(|round| round.deadline <= now);
        }
    }
}
