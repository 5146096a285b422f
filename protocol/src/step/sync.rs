//! The state machine; the rules are in the text of the parent module.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use rand::RngExt;
use rand_core::Rng;

use super::clock::difference;
use super::estimate::{Correction, Reading, judge, judge_within, lower_median};
use super::{
    Claim, Config, Event, Input, MESH_TIME_NS_MAX, Origin, Output, PEERS_MAX, Refused, SavedOffset, Start,
    Stats, StepClock, Timer,
};
use crate::control::Frame;
use crate::id::Step;
use crate::machine::Outbox;
use crate::time::{Time, nanos};

/// Keeps one node's [`StepClock`] together with the mesh's. See the module's text.
#[derive(Clone, Debug)]
pub struct StepSync<P> {
    me: P,
    config: Config,
    not_before: Step,
    started: Time,
    wall_ns: u64,
    saved: Option<SavedOffset>,
    /// `None` while not synchronised.
    clock: Option<StepClock>,
    /// The last step that was output.
    exposed: Option<Step>,
    peers: BTreeMap<P, Peer>,
    /// Since when somebody is connected.
    company_since: Option<Time>,
    /// When, in this company, a synchronised peer was first heard.
    first_heard: Option<Time>,
    round: Option<Round<P>>,
    retries: u32,
    /// When an announcement last started a round.
    last_prompted: Option<Time>,
    holding: bool,
    /// The last token given to a timer of each kind; others are stale.
    round_token: u64,
    end_token: u64,
    tick_token: u64,
    /// The clock has changed, or its timer has come: when the next step begins must be computed anew.
    tick_stale: bool,
    skew_ns: u64,
    samples: usize,
    rounds: u64,
    jumps: u64,
    refused: Refused,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    claim: Option<Claim>,
    /// Rounds on end in which its clock was far off.
    strikes: u32,
}

#[derive(Clone, Debug)]
struct Round<P> {
    asked: BTreeMap<P, Request>,
}

#[derive(Clone, Debug)]
struct Request {
    nonce: u64,
    sent: Time,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The peer has no mesh time.
    Unsynchronised,
    /// It has. Relative to local time rather than to mesh time, which may be corrected before the round ends.
    Clock { offset_ns: i64, error_ns: i64 },
    /// An answer that does not count.
    Refused,
}

impl<P: Copy + Ord + Debug> StepSync<P> {
    /// A node named `me`. `not_before` is the last step that an earlier run of it exposed: it never shows
    /// an earlier one. Pushes the first timers, and, for a founder, the first step.
    pub fn new(
        me: P,
        config: Config,
        start: Start,
        not_before: Option<Step>,
        now: Time,
        out: &mut Outbox<Output<P>>,
    ) -> Self {
        let (wall_ns, saved) = match start {
            Start::Founder { wall_ns } => (wall_ns, None),
            Start::Joiner { wall_ns, saved } => (wall_ns, saved),
        };
        let mut state = StepSync {
            me,
            config,
            not_before: not_before.unwrap_or_default(),
            started: now,
            wall_ns: wall_ns.min(MESH_TIME_NS_MAX),
            saved,
            clock: None,
            exposed: None,
            peers: BTreeMap::new(),
            company_since: None,
            first_heard: None,
            round: None,
            retries: 0,
            last_prompted: None,
            holding: false,
            round_token: 0,
            end_token: 0,
            tick_token: 0,
            tick_stale: false,
            skew_ns: 0,
            samples: 0,
            rounds: 0,
            jumps: 0,
            refused: Refused::default(),
        };
        if let Start::Founder { .. } = start {
            state.become_synchronised(now, state.proposal(now), Origin::Founded, out);
        }
        state.schedule_round(now, Duration::ZERO, out);
        state.poll_step(now, out);
        state
    }

    /// Takes one input. `now` never decreases from call to call; it may leap.
    pub fn handle(&mut self, now: Time, input: Input<P>, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        match input {
            Input::Connected { peer } => self.on_connected(now, peer, rng, out),
            Input::Disconnected { peer } => self.on_disconnected(now, peer, rng, out),
            Input::Frame { from, frame } => self.on_frame(now, from, &frame, rng, out),
            Input::Timer(Timer::Round(token)) if token == self.round_token => {
                self.request_current_step(now, rng, out);
            }
            Input::Timer(Timer::RoundEnd(token)) if token == self.end_token => {
                self.reconcile_steps(now, rng, out);
            }
            Input::Timer(Timer::Tick(token)) if token == self.tick_token => self.tick_stale = true,
            Input::Timer(_) => {}
        }
        self.poll_step(now, out);
    }

    /// Starts a round: asks random peers for their mesh time. Does nothing while a round is in flight.
    /// `handle` calls this by itself; a caller may as well, to be in step sooner.
    pub fn request_current_step(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if self.round.is_some() {
            return;
        }
        let peers: Vec<P> = self.peers.keys().copied().collect();
        let amount = peers.len().min(self.config.sample_max);
        let chosen = rand::seq::index::sample(rng, peers.len(), amount);
        self.round = Some(Round { asked: BTreeMap::new() });
        for peer in chosen.into_iter().filter_map(|at| peers.get(at).copied()) {
            self.ask(now, peer, rng, out);
        }
        if amount == 0 {
            self.reconcile_steps(now, rng, out);
        } else {
            self.end_token += 1;
            let timer = Timer::RoundEnd(self.end_token);
            out.push(Output::Timer { at: now + self.config.sync_timeout, timer });
        }
    }

    /// Tells all peers this node's mesh time. Nobody adopts it; a peer that is elsewhere starts a round.
    /// `handle` calls this by itself.
    pub fn broadcast_step(&self, now: Time, out: &mut Outbox<Output<P>>) {
        if let Some(clock) = &self.clock {
            let mesh_time_ns = clock.mesh_time(now);
            for &to in self.peers.keys() {
                out.push(Output::Send { to, frame: Frame::StepAnnounce { mesh_time_ns } });
            }
        }
    }

    /// Ends the round in flight and acts on its answers. `handle` calls this by itself when all have
    /// answered or the time is over.
    pub fn reconcile_steps(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let Some(round) = self.round.take() else { return };
        self.rounds += 1;
        if self.clock.is_some() {
            self.correct(now, &round, out);
        } else {
            self.join(now, &round, out);
        }
        let silent = !round.asked.is_empty() && round.asked.values().all(|request| request.answer.is_none());
        let delay = if silent && self.retries < self.config.retries {
            self.retries += 1;
            Duration::ZERO
        } else {
            self.retries = 0;
            let interval =
                if self.clock.is_some() { self.config.round_interval } else { self.config.join_interval };
            // Rounds of nodes that started together drift apart.
            let quarter = nanos(interval) / 4;
            interval - Duration::from_nanos(quarter) + Duration::from_nanos(rng.random_range(0..=2 * quarter))
        };
        self.schedule_round(now, delay, out);
        self.poll_step(now, out);
    }

    /// The clock; `None` while not synchronised.
    pub fn clock(&self) -> Option<&StepClock> {
        self.clock.as_ref()
    }

    /// Mesh time in nanoseconds; `None` while not synchronised.
    pub fn mesh_time(&self, now: Time) -> Option<u64> {
        Some(self.clock.as_ref()?.mesh_time(now))
    }

    /// The step; `None` while not synchronised.
    pub fn step(&self, now: Time) -> Option<Step> {
        Some(self.clock.as_ref()?.step(now))
    }

    /// What to keep for [`Start::Joiner`] over a restart, given what the wall clock shows now.
    pub fn saved_offset(&self, now: Time, wall_ns: u64) -> Option<SavedOffset> {
        Some(self.clock.as_ref()?.saved_offset(now, wall_ns))
    }

    /// What a connected peer last claimed.
    pub fn claim(&self, peer: P) -> Option<Claim> {
        self.peers.get(&peer)?.claim
    }

    /// What each connected peer last claimed, by name.
    pub fn claims(&self) -> impl Iterator<Item = (P, Claim)> + '_ {
        self.peers.keys().filter_map(|peer| Some((*peer, self.claim(*peer)?)))
    }

    /// The state in numbers.
    pub fn stats(&self, now: Time) -> Stats {
        let ms = |ns: i64| ns as f64 / 1e6;
        let mesh_time_ns = self.mesh_time(now);
        let wall_ns = self.wall_ns.saturating_add(nanos(now.since(self.started)));
        Stats {
            step: self.step(now),
            mesh_time_ns,
            offset_ms: mesh_time_ns.map(|mesh_ns| ms(difference(mesh_ns, wall_ns))),
            skew_ms: self.skew_ns as f64 / 1e6,
            samples: self.samples,
            rounds: self.rounds,
            jumps: self.jumps,
            holding: self.holding,
            refused: self.refused,
        }
    }

    /// Panics if the state contradicts itself, right after an input at `now`. For tests and simulation.
    pub fn check_invariants(&self, now: Time) {
        assert!(self.peers.len() <= PEERS_MAX, "too many peers");
        assert_eq!(self.company_since.is_some(), !self.peers.is_empty(), "company is not who is connected");
        if let Some(round) = &self.round {
            assert!(round.asked.len() <= self.config.sample_max, "asked too many");
            assert!(round.asked.values().any(|r| r.answer.is_none()), "a round that is over is in flight");
        }
        assert_eq!(
            self.clock.is_some(),
            self.exposed.is_some(),
            "synchronised without a step, or the reverse"
        );
        if let (Some(step), Some(exposed)) = (self.step(now), self.exposed) {
            assert_eq!(step, exposed, "a step has begun that was not output");
            assert!(step >= self.not_before, "a step before the last run's");
        }
        assert!(!self.holding || self.clock.is_some(), "holds no clock");
    }

    fn on_connected(&mut self, now: Time, peer: P, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if peer == self.me || self.peers.contains_key(&peer) {
            return;
        }
        if self.peers.len() >= PEERS_MAX {
            self.refused.peers_full += 1;
            return;
        }
        self.peers.insert(peer, Peer::default());
        self.company_since.get_or_insert(now);
        if self.clock.is_some() {
            return;
        }
        // A joiner is in a hurry, and the more it hears the better.
        match &self.round {
            None => self.request_current_step(now, rng, out),
            Some(round) if round.asked.len() < self.config.sample_max => self.ask(now, peer, rng, out),
            Some(_) => {}
        }
    }

    fn on_disconnected(&mut self, now: Time, peer: P, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        self.peers.remove(&peer);
        if self.peers.is_empty() {
            self.company_since = None;
            self.first_heard = None;
        }
        if let Some(round) = &mut self.round
            && round.asked.get(&peer).is_some_and(|request| request.answer.is_none())
        {
            round.asked.remove(&peer);
            self.end_round_if_complete(now, rng, out);
        }
    }

    fn on_frame(
        &mut self,
        now: Time,
        from: P,
        frame: &Frame,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        if !self.peers.contains_key(&from) {
            self.refused.not_connected += 1;
            return;
        }
        match *frame {
            Frame::StepRequest { nonce } => {
                let mesh_time_ns = self.mesh_time(now);
                let proposal_ns = mesh_time_ns.unwrap_or_else(|| self.proposal(now));
                let frame = Frame::StepReply { nonce, mesh_time_ns, proposal_ns };
                out.push(Output::Send { to: from, frame });
            }
            Frame::StepReply { nonce, mesh_time_ns, .. } => {
                self.on_reply(now, from, nonce, mesh_time_ns);
                self.end_round_if_complete(now, rng, out);
            }
            Frame::StepAnnounce { mesh_time_ns } => self.on_announce(now, mesh_time_ns, rng, out),
            Frame::Hello { .. } | Frame::Swim(_) | Frame::Goodbye(_) => self.refused.foreign += 1,
        }
    }

    fn on_reply(&mut self, now: Time, from: P, nonce: u64, mesh_time_ns: Option<u64>) {
        let Some(request) = self.round.as_mut().and_then(|round| round.asked.get_mut(&from)) else {
            self.refused.unasked += 1;
            return;
        };
        if request.nonce != nonce {
            self.refused.wrong_nonce += 1;
            return;
        }
        if request.answer.is_some() {
            self.refused.duplicate += 1;
            return;
        }
        let rtt = now.since(request.sent);
        request.answer = Some(match mesh_time_ns {
            None => Answer::Unsynchronised,
            Some(ns) if ns > MESH_TIME_NS_MAX => {
                self.refused.absurd += 1;
                Answer::Refused
            }
            Some(_) if rtt > self.config.rtt_max => {
                self.refused.slow += 1;
                Answer::Refused
            }
            Some(mesh_time_ns) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.claim = Some(Claim { mesh_time_ns, at: now, rtt });
                }
                self.first_heard.get_or_insert(now);
                let half = nanos(rtt) / 2;
                let offset_ns = difference(mesh_time_ns.saturating_add(half), now.as_nanos());
                Answer::Clock { offset_ns, error_ns: i64::try_from(half).unwrap_or(i64::MAX) }
            }
        });
    }

    /// An announcement is a reason to look, never something to believe.
    fn on_announce(&mut self, now: Time, mesh_time_ns: u64, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        // A clock that stands should go again as soon as those behind have jumped.
        let news = self.holding
            || self
                .mesh_time(now)
                .is_none_or(|own_ns| own_ns.abs_diff(mesh_time_ns) > nanos(self.config.jump_threshold));
        let rested = self.last_prompted.is_none_or(|last| now.since(last) >= self.config.round_interval);
        if news && rested && self.round.is_none() {
            self.last_prompted = Some(now);
            self.request_current_step(now, rng, out);
        }
    }

    fn ask(&mut self, now: Time, peer: P, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        if let Some(round) = &mut self.round {
            let nonce = rng.next_u64();
            round.asked.insert(peer, Request { nonce, sent: now, answer: None });
            out.push(Output::Send { to: peer, frame: Frame::StepRequest { nonce } });
        }
    }

    fn end_round_if_complete(&mut self, now: Time, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let complete = |round: &Round<P>| round.asked.values().all(|request| request.answer.is_some());
        if self.round.as_ref().is_some_and(complete) {
            self.reconcile_steps(now, rng, out);
        }
    }

    fn schedule_round(&mut self, now: Time, delay: Duration, out: &mut Outbox<Output<P>>) {
        self.round_token += 1;
        out.push(Output::Timer { at: now + delay, timer: Timer::Round(self.round_token) });
    }

    /// Mesh time if this node had to say it alone.
    fn proposal(&self, now: Time) -> u64 {
        let wall_ns = self.wall_ns.saturating_add(nanos(now.since(self.started)));
        let mesh_ns = self.saved.map_or(wall_ns, |saved| saved.apply(wall_ns));
        mesh_ns.max(self.floor()).min(MESH_TIME_NS_MAX)
    }

    /// The start of the last step that an earlier run exposed.
    fn floor(&self) -> u64 {
        StepClock::new(self.config.step_interval, Time::ZERO, 0).step_start(self.not_before)
    }

    fn join(&mut self, now: Time, round: &Round<P>, out: &mut Outbox<Output<P>>) {
        let mut offsets: Vec<i64> = clocks(round).map(|(_, offset_ns, _)| offset_ns).collect();
        self.samples = offsets.len();
        if let Some(offset_ns) = lower_median(&mut offsets) {
            if self.first_heard.is_some_and(|heard| now.since(heard) >= self.config.settle) {
                let mesh_ns = now.as_nanos().saturating_add_signed(offset_ns);
                self.become_synchronised(now, mesh_ns, Origin::Adopted { samples: offsets.len() }, out);
            }
            return;
        }
        if self.saved.is_some() {
            if now.since(self.started) >= self.config.grace {
                self.become_synchronised(now, self.proposal(now), Origin::Restored, out);
            }
            return;
        }
        let mut others = 0;
        let mut smaller: u32 = 0;
        for (&peer, request) in &round.asked {
            if matches!(request.answer, Some(Answer::Unsynchronised)) {
                others += 1;
                smaller += u32::from(peer < self.me);
            }
        }
        let patience = self.config.grace.saturating_mul(smaller + 1);
        if others > 0 && self.company_since.is_some_and(|since| now.since(since) >= patience) {
            self.become_synchronised(now, self.proposal(now), Origin::Founded, out);
        }
    }

    fn become_synchronised(&mut self, now: Time, mesh_ns: u64, origin: Origin, out: &mut Outbox<Output<P>>) {
        let floor_ns = self.floor();
        let mut clock = StepClock::new(self.config.step_interval, now, mesh_ns.max(floor_ns));
        out.push(Event::Synchronised { step: clock.step(now), origin });
        if mesh_ns < floor_ns {
            let ahead_ns = floor_ns - mesh_ns;
            clock.hold(now, ahead_ns);
            self.holding = true;
            out.push(Event::Holding { ahead_ns });
        }
        self.clock = Some(clock);
        self.tick_stale = true;
        self.broadcast_step(now, out);
    }

    fn correct(&mut self, now: Time, round: &Round<P>, out: &mut Outbox<Output<P>>) {
        let Some(clock) = &mut self.clock else { return };
        let own_ns = difference(clock.mesh_time(now), now.as_nanos());
        let relative = |offset_ns: i64| offset_ns.saturating_sub(own_ns);
        let readings: Vec<Reading> = clocks(round)
            .map(|(_, offset_ns, error_ns)| Reading { ahead_ns: relative(offset_ns), error_ns })
            .collect();
        let denied = |r: &&Request| matches!(r.answer, Some(Answer::Unsynchronised));
        let asked = round.asked.len() - round.asked.values().filter(denied).count();
        self.samples = readings.len();
        let threshold_ns = i64::try_from(nanos(self.config.jump_threshold)).unwrap_or(i64::MAX);
        let is_sole = self.peers.len() == 1;
        let verdict = if self.config.untrimmed {
            judge_within(0, &readings, true, threshold_ns)
        } else {
            judge(&readings, asked, is_sole, threshold_ns)
        };
        let Some(verdict) = verdict else { return };

        self.skew_ns = verdict.skew_ns;
        out.push(Event::Reconciled {
            samples: readings.len(),
            correction_ns: verdict.midpoint_ns,
            skew_ns: verdict.skew_ns,
        });
        let from = clock.step(now);
        let was_holding =
            std::mem::replace(&mut self.holding, matches!(verdict.correction, Correction::Hold(_)));
        match verdict.correction {
            Correction::Slew(by_ns) => clock.slew(now, by_ns, self.config.slew_ppm),
            Correction::Jump(by_ns) => clock.jump_to(now, clock.mesh_time(now).saturating_add(by_ns)),
            Correction::Hold(ahead_ns) => {
                clock.hold(now, ahead_ns);
                if !was_holding {
                    out.push(Event::Holding { ahead_ns });
                }
            }
        }
        let to = clock.step(now);
        self.tick_stale = true;
        if was_holding && !self.holding {
            out.push(Event::Resumed);
        }
        match verdict.correction {
            Correction::Slew(midpoint_ns) if readings.len() > 1 => {
                self.note_outliers(round, own_ns.saturating_add(midpoint_ns), out);
            }
            Correction::Jump(_) => {
                self.jumps += 1;
                out.push(Event::Jumped { from, to });
                self.broadcast_step(now, out);
            }
            // Those behind should look at their clocks.
            Correction::Hold(_) if !was_holding => self.broadcast_step(now, out),
            // A node that is itself far off, or hears one peer only, cannot tell who is wrong.
            Correction::Slew(_) | Correction::Hold(_) => {}
        }
    }

    /// Counts rounds in which a peer's clock was far from `mesh_ns`, mesh time as local time plus this.
    fn note_outliers(&mut self, round: &Round<P>, mesh_ns: i64, out: &mut Outbox<Output<P>>) {
        for (peer, offset_ns, error_ns) in clocks(round) {
            let Some(state) = self.peers.get_mut(&peer) else { continue };
            let by_ns = offset_ns.saturating_sub(mesh_ns);
            let surely_ns = by_ns.unsigned_abs().saturating_sub(error_ns.unsigned_abs());
            if surely_ns <= nanos(self.config.outlier) {
                state.strikes = 0;
                continue;
            }
            state.strikes += 1;
            if state.strikes >= self.config.outlier_rounds {
                state.strikes = 0;
                out.push(Output::Outlier { peer, by_ns });
            }
        }
    }

    /// Outputs the step if it is a new one, and sees to it that the next will be noticed.
    fn poll_step(&mut self, now: Time, out: &mut Outbox<Output<P>>) {
        let Some(clock) = &self.clock else { return };
        let step = clock.step(now);
        if self.exposed.is_none_or(|exposed| step > exposed) {
            self.exposed = Some(step);
            self.tick_stale = true;
            out.push(Output::Step { step });
        }
        if std::mem::take(&mut self.tick_stale) {
            self.tick_token += 1;
            let timer = Timer::Tick(self.tick_token);
            out.push(Output::Timer { at: clock.next_step_at(now), timer });
        }
    }
}

/// The answers that tell a time: peer, its mesh time less local time, and the error of that.
fn clocks<P: Copy + Ord>(round: &Round<P>) -> impl Iterator<Item = (P, i64, i64)> {
    round.asked.iter().filter_map(|(&peer, request)| match request.answer {
        Some(Answer::Clock { offset_ns, error_ns }) => Some((peer, offset_ns, error_ns)),
        _ => None,
    })
}
