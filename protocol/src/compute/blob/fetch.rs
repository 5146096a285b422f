//! Fetching one blob, or a part of it, from several peers at once.
//!
//! ```text
//!   holders ─► AskOutline ─► checked against the name ─► Ask, Ask, Ask ─► checked ─► Store ─► Done
//!                 │ none, or a lie: the next holder          │ none, a lie, silence: another holder
//! ```
//!
//! Each holder has a window of groups under way; who answers quickly comes back sooner and so gets more. When all that is
//! missing is under way, idle holders are asked for what waits longest, so that one slow holder does not hold up
//! the end. What comes twice is dropped.
//!
//! A holder that sends what does not fit the outline is not asked again, and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::compute::id::BlobRef;
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Time;

use super::outline::{GROUP_BYTES, Groups, Outline, groups_of};

/// How a blob is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// Groups under way from one holder. Default 4 (guess): 4 MiB fill 1 Gbit/s over 30 ms.
    pub window: usize,
    /// Holders that are asked at once. Default 8 (guess).
    pub holders_max: usize,
    /// A holder that has not answered for so long is not asked again. Default 10 s (guess).
    pub patience: Duration,
    /// Without any holder for so long, it fails. Default 10 s (guess): one that has it may be on its way.
    pub give_up: Duration,
    /// Without any holder for so long, and when all who are connected have said that they do not have it. Default 1 s (guess).
    pub denied: Duration,
    /// Who says so often that it has something, and then that it has not, is not asked again. Default 4 (guess): what it had
    /// may have had to make room.
    pub denials_max: u32,
    /// Without anything new for so long, it fails, whatever holders say. Default 5 min (guess): many who fetch share the
    /// pace of one who gives slowly.
    pub stall: Duration,
}

impl Default for FetchConfig {
    fn default() -> Self {
        FetchConfig {
            window: 4,
            holders_max: 8,
            patience: Duration::from_secs(10),
            give_up: Duration::from_secs(10),
            denied: Duration::from_secs(1),
            denials_max: 4,
            stall: Duration::from_secs(300),
        }
    }
}

/// What happens to a fetch.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer has some of it, or has more now.
    Has {
        /// Who.
        peer: NodeId,
        /// What.
        groups: Groups,
    },
    /// All peers have been asked, and none has any of it.
    Denied,
    /// A peer cannot be asked any more.
    Gone(NodeId),
    /// Answers [`Output::AskOutline`].
    Outline {
        /// Who.
        peer: NodeId,
        /// The values, or `None` if it declined.
        values: Option<Bytes>,
    },
    /// Answers [`Output::Ask`].
    Group {
        /// Who.
        peer: NodeId,
        /// Which.
        group: u64,
        /// The bytes, or `None` if it does not have them.
        bytes: Option<Bytes>,
    },
    /// Answers [`Output::Ask`]: it has the bytes, and no time.
    Busy {
        /// Who.
        peer: NodeId,
        /// Which.
        group: u64,
    },
    /// A timer has come.
    Timer(Timer),
}

/// A timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Look who is silent.
    Patience,
}

/// What a fetch wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask for the outline.
    AskOutline(NodeId),
    /// Ask for a group.
    Ask {
        /// Whom.
        peer: NodeId,
        /// For which.
        group: u64,
    },
    /// The outline was checked.
    Outline(Outline),
    /// These are the bytes of a group: they were checked.
    Store {
        /// Which.
        group: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// All that was wanted is there.
    Done,
    /// It cannot be had.
    Failed(FetchError),
    /// A peer has sent what is not what was asked for.
    Misbehaved(NodeId),
    /// Come back then.
    Timer {
        /// When.
        at: Time,
        /// With this.
        timer: Timer,
    },
}

/// Why a blob cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody has it, of those that are left.
    #[error("nobody who can be reached has the blob ({missing} groups are missing)")]
    NoHolders {
        /// How many groups are missing.
        missing: u64,
    },
    /// Some say that they have it, and give nothing.
    #[error("nobody who says to have the blob has given any of it for long ({missing} groups are missing)")]
    Stalled {
        /// How many groups are missing.
        missing: u64,
    },
}

#[derive(Clone, Debug)]
struct Holder {
    groups: Groups,
    /// What it was asked for, and when.
    asked: BTreeMap<u64, Time>,
}

/// One blob that is being fetched. See the module.
#[derive(Clone, Debug)]
pub struct Fetch {
    config: FetchConfig,
    blob: BlobRef,
    outline: Option<Outline>,
    outline_asked: Option<(NodeId, Time)>,
    /// Who would not give the outline.
    outline_refused: BTreeSet<NodeId>,
    missing: BTreeSet<u64>,
    holders: BTreeMap<NodeId, Holder>,
    /// Who was wrong or silent.
    shunned: BTreeSet<NodeId>,
    /// How often a holder did not have what it had said to have, since it last gave something.
    denials: BTreeMap<NodeId, u32>,
    /// When something new came last.
    last_new: Time,
    /// Since when there is nobody to ask.
    alone_since: Option<Time>,
    has_ended: bool,
}

impl Fetch {
    /// Begins to fetch the groups that hold `range`, but for those that are `there` already.
    pub fn new(
        config: FetchConfig,
        now: Time,
        blob: BlobRef,
        range: Range<u64>,
        there: &Groups,
        outline: Option<Outline>,
        out: &mut Outbox<Output>,
    ) -> Self {
        let last = range.end.min(blob.size).max(range.start).saturating_sub(1) / GROUP_BYTES;
        let groups = range.start / GROUP_BYTES..(last + 1).min(groups_of(blob.size));
        let missing = groups.filter(|group| !there.contains(*group)).collect();
        // One group needs no outline: the name of the blob is its hash.
        let outline = outline.filter(|outline| outline.blob() == blob);
        let outline = outline.or_else(|| Outline::new(blob, Vec::new()).ok());
        let give_up = config.give_up;
        let mut fetch = Fetch {
            config,
            blob,
            outline,
            outline_asked: None,
            outline_refused: BTreeSet::new(),
            missing,
            holders: BTreeMap::new(),
            shunned: BTreeSet::new(),
            denials: BTreeMap::new(),
            last_new: now,
            alone_since: Some(now),
            has_ended: false,
        };
        fetch.proceed(now, give_up, out);
        if !fetch.has_ended {
            out.push(Output::Timer { at: now + fetch.config.patience / 2, timer: Timer::Patience });
        }
        fetch
    }

    /// What is fetched.
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Groups that are missing yet.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Takes an input in.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        if self.has_ended {
            return;
        }
        let mut give_up = self.config.give_up;
        match input {
            Input::Has { peer, groups } => {
                if !self.shunned.contains(&peer) {
                    let holder = self.holders.entry(peer);
                    let holder =
                        holder.or_insert_with(|| Holder { groups: groups.clone(), asked: BTreeMap::new() });
                    holder.groups = groups;
                }
            }
            Input::Denied if self.holders.is_empty() => give_up = self.config.denied,
            Input::Denied => {}
            Input::Gone(peer) => self.drop_holder(&peer),
            Input::Outline { peer, values } => self.on_outline(now, peer, values, out),
            Input::Group { peer, group, bytes } => self.on_group(now, peer, group, bytes, out),
            Input::Busy { peer, group } => self.on_declined(peer, group, true),
            Input::Timer(Timer::Patience) => {
                self.on_patience(now);
                out.push(Output::Timer { at: now + self.config.patience / 2, timer: Timer::Patience });
            }
        }
        self.proceed(now, give_up, out);
    }

    fn drop_holder(&mut self, peer: &NodeId) {
        self.holders.remove(peer);
        self.outline_asked.take_if(|(asked, _)| asked == peer);
    }

    fn shun(&mut self, peer: NodeId) {
        self.drop_holder(&peer);
        self.shunned.insert(peer);
    }

    fn on_outline(&mut self, now: Time, peer: NodeId, values: Option<Bytes>, out: &mut Outbox<Output>) {
        if self.outline_asked.take_if(|(asked, _)| *asked == peer).is_none() {
            return;
        }
        match values.map(|values| Outline::from_bytes(self.blob, &values)) {
            Some(Ok(outline)) => {
                self.last_new = now;
                out.push(Output::Outline(outline.clone()));
                self.outline = Some(outline);
            }
            Some(Err(_)) => {
                self.shun(peer);
                out.push(Output::Misbehaved(peer));
            }
            None => drop(self.outline_refused.insert(peer)),
        }
    }

    /// It has it no more, or is busy: others are asked, and it may say anew what it has. What else it was asked for may still
    /// come.
    fn on_declined(&mut self, peer: NodeId, group: u64, is_busy: bool) {
        let Some(holder) = self.holders.get_mut(&peer) else { return };
        if holder.asked.remove(&group).is_none() {
            return;
        }
        holder.groups = Groups::none(self.blob.size);
        if !holder.asked.is_empty() {
            return;
        }
        self.drop_holder(&peer);
        if !is_busy {
            let denials = self.denials.entry(peer).or_default();
            *denials += 1;
            if *denials >= self.config.denials_max {
                self.shun(peer);
            }
        }
    }

    fn on_group(
        &mut self,
        now: Time,
        peer: NodeId,
        group: u64,
        bytes: Option<Bytes>,
        out: &mut Outbox<Output>,
    ) {
        let Some(bytes) = bytes else { return self.on_declined(peer, group, false) };
        let Some(holder) = self.holders.get_mut(&peer) else { return };
        if holder.asked.remove(&group).is_none() {
            return;
        }
        let Some(outline) = &self.outline else { return };
        if !outline.is_group(group, &bytes) {
            self.shun(peer);
            return out.push(Output::Misbehaved(peer));
        }
        self.denials.remove(&peer);
        if self.missing.remove(&group) {
            self.last_new = now;
            out.push(Output::Store { group, bytes });
        }
    }

    fn on_patience(&mut self, now: Time) {
        let patience = self.config.patience;
        let is_silent = |holder: &Holder| holder.asked.values().any(|asked| now.since(*asked) > patience);
        let silent: Vec<_> =
            self.holders.iter().filter(|(_, holder)| is_silent(holder)).map(|(peer, _)| *peer).collect();
        silent.into_iter().for_each(|peer| self.shun(peer));
        if let Some((peer, asked)) = self.outline_asked
            && now.since(asked) > patience
        {
            self.shun(peer);
        }
    }

    /// Asks for what can be asked for; fails if there was nobody to ask for so long.
    fn proceed(&mut self, now: Time, give_up: Duration, out: &mut Outbox<Output>) {
        if self.missing.is_empty() {
            self.has_ended = true;
            return out.push(Output::Done);
        }
        if now.since(self.last_new) >= self.config.stall {
            self.has_ended = true;
            let missing = self.missing.len() as u64;
            return out.push(Output::Failed(FetchError::Stalled { missing }));
        }
        if self.outline.is_some() {
            self.ask(now, out);
        } else if self.outline_asked.is_none() {
            let willing = self.holders.keys().find(|peer| !self.outline_refused.contains(*peer)).copied();
            if let Some(peer) = willing {
                self.outline_asked = Some((peer, now));
                out.push(Output::AskOutline(peer));
            }
        }
        let is_under_way =
            self.outline_asked.is_some() || self.holders.values().any(|holder| !holder.asked.is_empty());
        if is_under_way {
            self.alone_since = None;
            return;
        }
        let since = *self.alone_since.get_or_insert(now);
        if now.since(since) >= give_up {
            self.has_ended = true;
            let missing = self.missing.len() as u64;
            out.push(Output::Failed(FetchError::NoHolders { missing }));
        }
    }

    fn ask(&mut self, now: Time, out: &mut Outbox<Output>) {
        let mut under_way: BTreeMap<u64, usize> = BTreeMap::new();
        for group in self.holders.values().flat_map(|holder| holder.asked.keys()) {
            *under_way.entry(*group).or_default() += 1;
        }
        loop {
            // The holder with the least under way that has something that is missing.
            let mut order: Vec<_> =
                self.holders.iter().map(|(peer, holder)| (holder.asked.len(), *peer)).collect();
            order.sort_unstable();
            let busy = order.iter().filter(|(asked, _)| *asked > 0).count();
            let mut choice = None;
            for (asked, peer) in order {
                if asked >= self.config.window || (asked == 0 && busy >= self.config.holders_max) {
                    continue;
                }
                let holder = &self.holders[&peer];
                let has = |group: &&u64| holder.groups.contains(**group);
                let fresh = self.missing.iter().filter(has).find(|group| !under_way.contains_key(group));
                // At the end an idle holder helps the others.
                let shared = || {
                    let may_help = asked == 0;
                    let open =
                        self.missing.iter().filter(has).filter(|group| under_way.get(group) == Some(&1));
                    open.min_by_key(|group| self.asked_since(group)).filter(|_| may_help)
                };
                if let Some(group) = fresh.or_else(shared) {
                    choice = Some((peer, *group));
                    break;
                }
            }
            let Some((peer, group)) = choice else { return };
            *under_way.entry(group).or_default() += 1;
            if let Some(holder) = self.holders.get_mut(&peer) {
                holder.asked.insert(group, now);
            }
            out.push(Output::Ask { peer, group });
        }
    }

    fn asked_since(&self, group: &u64) -> Option<Time> {
        self.holders.values().filter_map(|holder| holder.asked.get(group).copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::RngExt;
    use rand_core::SeedableRng;

    use super::*;

    fn peer(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|place| u8::try_from(place * 131 % 241).unwrap()).collect()
    }

    /// Peers that hold parts, are slow, silent, lie, or decline: whatever they do, the content is right in the end, if
    /// what is honest has it.
    #[test]
    fn whatever_peers_do_the_content_is_right() {
        for seed in 0..60 {
            let context = format!("seed {seed}");
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mib = usize::try_from(GROUP_BYTES).unwrap();
            let bytes = content(rng.random_range(1..6 * mib));
            let outline = Outline::of(&bytes);
            let blob = outline.blob();
            let groups = groups_of(blob.size);
            let mut out = Outbox::new();
            let now = Time::ZERO;
            let config = FetchConfig::default();
            let mut fetch =
                Fetch::new(config, now, blob, 0..blob.size, &Groups::none(blob.size), None, &mut out);
            // Peer 0 has all and is honest; the others are anything.
            for n in 0..6 {
                let mut has = Groups::none(blob.size);
                (0..groups).filter(|_| rng.random_bool(0.6)).for_each(|group| has.add(group));
                let groups = if n == 0 { Groups::All } else { has };
                fetch.handle(now, Input::Has { peer: peer(n), groups }, &mut out);
            }
            let mut waiting = VecDeque::new();
            let mut stored = BTreeMap::new();
            let mut now = now;
            let mut is_done = false;
            for _ in 0..2000 {
                for output in out.drain().collect::<Vec<_>>() {
                    match output {
                        Output::Store { group, bytes } => {
                            assert!(stored.insert(group, bytes).is_none(), "{context}: stored once");
                        }
                        Output::Done => is_done = true,
                        Output::Failed(error) => panic!("{context}: {error}"),
                        Output::Misbehaved(who) => assert_ne!(who, peer(0), "{context}"),
                        other => waiting.push_back(other),
                    }
                }
                if is_done {
                    break;
                }
                // Time goes on only when nobody answers any more.
                let asked: Vec<usize> = (0..waiting.len())
                    .filter(|place| !matches!(waiting[*place], Output::Timer { .. }))
                    .collect();
                let place = if asked.is_empty() { 0 } else { asked[rng.random_range(0..asked.len())] };
                let answer = match waiting.remove(place).unwrap() {
                    Output::AskOutline(who) => {
                        let mut values = outline.to_bytes();
                        let is_honest = who == peer(0);
                        match rng.random_range(0..4) {
                            0 if !is_honest => continue,
                            1 if !is_honest => Input::Outline { peer: who, values: None },
                            2 if !is_honest => {
                                values[0] ^= 1;
                                Input::Outline { peer: who, values: Some(values.into()) }
                            }
                            _ => Input::Outline { peer: who, values: Some(values.into()) },
                        }
                    }
                    Output::Ask { peer: who, group } => {
                        let from = usize::try_from(group).unwrap() * mib;
                        let mut part = bytes[from..bytes.len().min(from + mib)].to_vec();
                        let is_honest = who == peer(0);
                        match rng.random_range(0..8) {
                            0 if !is_honest => continue,
                            1 if !is_honest => Input::Group { peer: who, group, bytes: None },
                            2 if !is_honest => Input::Gone(who),
                            3 if !is_honest => {
                                part[0] ^= 1;
                                Input::Group { peer: who, group, bytes: Some(part.into()) }
                            }
                            _ => Input::Group { peer: who, group, bytes: Some(part.into()) },
                        }
                    }
                    Output::Timer { at, timer } => {
                        now = now.max(at);
                        Input::Timer(timer)
                    }
                    _ => continue,
                };
                fetch.handle(now, answer, &mut out);
                assert!(
                    fetch.holders.values().all(|holder| holder.asked.len() <= fetch.config.window),
                    "{context}"
                );
            }
            assert!(is_done, "{context}: it ends");
            assert_eq!(stored.into_values().flatten().collect::<Vec<_>>(), bytes, "{context}");
        }
    }

    #[test]
    fn it_gives_up_when_nobody_has_it() {
        let mut out = Outbox::new();
        let blob = BlobRef::of(&content(100));
        let none = Groups::none(blob.size);
        let mut fetch = Fetch::new(FetchConfig::default(), Time::ZERO, blob, 0..100, &none, None, &mut out);
        for second in [5, 10] {
            fetch.handle(Time::from_millis(second * 1000), Input::Timer(Timer::Patience), &mut out);
        }
        assert!(out.as_slice().contains(&Output::Failed(FetchError::NoHolders { missing: 1 })));
    }

    #[test]
    fn it_gives_up_sooner_when_all_say_that_they_have_not() {
        let ends = |ms: &[u64], holder: Option<NodeId>| {
            let (mut out, bytes) = (Outbox::new(), content(100));
            let blob = BlobRef::of(&bytes);
            let none = Groups::none(blob.size);
            let mut fetch =
                Fetch::new(FetchConfig::default(), Time::ZERO, blob, 0..100, &none, None, &mut out);
            if let Some(peer) = holder {
                fetch.handle(Time::ZERO, Input::Has { peer, groups: Groups::All }, &mut out);
            }
            for ms in ms {
                fetch.handle(Time::from_millis(*ms), Input::Denied, &mut out);
            }
            out.as_slice().contains(&Output::Failed(FetchError::NoHolders { missing: 1 }))
        };
        assert!(!ends(&[10, 999], None), "one that has it may have been on its way");
        assert!(ends(&[10, 1000], None));
        assert!(!ends(&[10, 2000], Some(peer(1))), "it has been asked");
    }

    /// One holder of a blob of one group, which does this with each ask 9 s later and says 2 s after that that it has all; how
    /// long it is asked, and what comes of it.
    fn with_a_decliner(answer: impl Fn(NodeId) -> Input) -> (u64, Option<FetchError>) {
        let (mut out, blob) = (Outbox::new(), BlobRef::of(&content(100)));
        let none = Groups::none(blob.size);
        let mut fetch = Fetch::new(FetchConfig::default(), Time::ZERO, blob, 0..100, &none, None, &mut out);
        let (mut asked, mut asks, mut error) = (None, 0, None);
        for second in 0..1000 {
            let now = Time::from_millis(second * 1000);
            if asked.is_some_and(|at| second == at + 9) {
                fetch.handle(now, answer(peer(1)), &mut out);
            } else if second % 2 == 0 && asked.is_none_or(|at| second > at + 9) {
                fetch.handle(now, Input::Has { peer: peer(1), groups: Groups::All }, &mut out);
            }
            fetch.handle(now, Input::Timer(Timer::Patience), &mut out);
            for output in out.drain() {
                match output {
                    Output::Ask { .. } => (asked, asks) = (Some(second), asks + 1),
                    Output::Failed(why) => error = Some((second, why)),
                    _ => {}
                }
            }
        }
        assert!(error.is_some_and(|(second, _)| second <= 300), "{error:?}");
        (asks, error.map(|(_, why)| why))
    }

    #[test]
    fn who_only_declines_does_not_keep_a_fetch_alive() {
        let never = with_a_decliner(|peer| Input::Group { peer, group: 0, bytes: None });
        assert_eq!(never, (4, Some(FetchError::NoHolders { missing: 1 })));
        let (asks, error) = with_a_decliner(|peer| Input::Busy { peer, group: 0 });
        assert_eq!(error, Some(FetchError::Stalled { missing: 1 }));
        assert!(asks > 20, "who is busy is asked again: {asks}");
    }
}
