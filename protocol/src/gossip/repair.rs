//! Tree mode: ids instead of messages over lazy links, and what is done when the message does not follow.
//!
//! Accepted messages are told to lazy links after [`announce_delay`](super::TreeConfig::announce_delay),
//! all that came meanwhile together, and not to those who told us first. Whoever is told of a message that
//! it has not seen waits [`repair_timeout`](super::TreeConfig::repair_timeout) for an eager link to bring it;
//! then it asks those who told, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_core::Rng;
use smallvec::SmallVec;

use super::peers::{Link, Slot};
use super::topics::TopicIx;
use super::{Class, Control, IHave, Output, PeerName, Rpc, State, Timer};
use crate::{MessageId, Outbox, Time};

/// Peers remembered as having a message that has not come. (guess)
const SOURCES_MAX: usize = 8;

/// One peer can open one in so many places of the table of messages that have not come, between two
/// heartbeats; the others are for others. (guess)
const MISSING_PART: usize = 8;

/// Messages that wait to be told to lazy links; with more they are told at once. (guess: a full frame)
const ANNOUNCEMENTS_MAX: usize = 512;

/// A message that was told of and has not come, or not been accepted yet.
#[derive(Debug)]
pub(super) struct Missing {
    ix: TopicIx,
    id: MessageId,
    /// When it was first told of.
    told: Time,
    /// When the first copy came.
    came: Option<Time>,
    /// When it is looked at again.
    due: Time,
    /// Who told first.
    first: Link,
    /// Who told: those that were asked, in order, and the others.
    sources: SmallVec<[Link; 2]>,
    /// How many of them were asked.
    asked: u8,
}

impl Missing {
    /// The message was asked of this peer.
    pub(super) fn was_asked(&self, link: Link) -> bool {
        self.sources.iter().take(usize::from(self.asked)).any(|source| *source == link)
    }

    /// Who told first, and how long before the message came.
    pub(super) fn first_word(&self) -> Option<(Link, Duration)> {
        Some((self.first, self.came?.since(self.told)))
    }
}

/// The one timer of a kind that counts.
#[derive(Debug, Default)]
struct Alarm {
    token: u32,
    at: Option<Time>,
}

impl Alarm {
    /// Sees that the timer goes off at `at` at the latest; the token of a new one, if one is needed.
    fn set(&mut self, at: Time) -> Option<u32> {
        if self.at.is_some_and(|before| before <= at) {
            return None;
        }
        self.token = self.token.wrapping_add(1);
        self.at = Some(at);
        Some(self.token)
    }

    /// It went off; says whether it is the one that counts.
    fn take(&mut self, token: u32) -> bool {
        let counts = self.at.is_some() && self.token == token;
        if counts {
            self.at = None;
        }
        counts
    }
}

/// A message to be told of.
#[derive(Debug)]
struct Announcement {
    ix: TopicIx,
    id: MessageId,
    tree: u8,
    is_own: bool,
}

/// What tree mode remembers besides the shape of the trees.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// By key of the message.
    missing: BTreeMap<u64, Missing>,
    /// When which is looked at again.
    due: BTreeSet<(Time, u64)>,
    repair: Alarm,
    announcements: Vec<Announcement>,
    announce: Alarm,
}

impl Repair {
    fn remove(&mut self, key: u64) -> Option<Missing> {
        let missing = self.missing.remove(&key)?;
        self.due.remove(&(missing.due, key));
        Some(missing)
    }

    fn put_off(&mut self, key: u64, until: Time) {
        if let Some(missing) = self.missing.get_mut(&key) {
            self.due.remove(&(missing.due, key));
            missing.due = until;
            self.due.insert((until, key));
        }
    }

    /// Those whose time has come.
    fn due(&self, now: Time) -> Vec<u64> {
        self.due.range(..=(now, u64::MAX)).map(|(_, key)| *key).collect()
    }

    pub(super) fn forget_topic(&mut self, ix: TopicIx) {
        self.missing.retain(|_, missing| missing.ix != ix);
        let missing = &self.missing;
        self.due.retain(|(_, key)| missing.contains_key(key));
        self.announcements.retain(|announcement| announcement.ix != ix);
    }

    /// Asserts bounds, and that the tables agree.
    pub(super) fn check_invariants(&self, missing_max: usize, is_subscribed: impl Fn(TopicIx) -> bool) {
        assert!(self.missing.len() <= missing_max, "messages that have not come are bounded");
        assert!(self.announcements.len() <= ANNOUNCEMENTS_MAX, "announcements are bounded");
        assert_eq!(self.missing.len(), self.due.len(), "each message that has not come is due once");
        for (key, missing) in &self.missing {
            assert!(self.due.contains(&(missing.due, *key)), "it is due when it says");
            assert!(missing.sources.len() <= SOURCES_MAX, "its sources are bounded");
            assert!(usize::from(missing.asked) <= missing.sources.len(), "only who told is asked");
            assert!(is_subscribed(missing.ix), "what is missing is of a topic of ours");
        }
        assert!(self.due.is_empty() || self.repair.at.is_some(), "the timer runs while something is missing");
        assert!(self.announcements.is_empty() || self.announce.at.is_some(), "the timer for ids runs");
        assert!(self.announcements.iter().all(|a| is_subscribed(a.ix)), "what is told is of a topic of ours");
    }
}

impl<P: PeerName> State<P> {
    // --- telling -------------------------------------------------------------------------------------

    /// A message went over eager links; lazy ones are told of it soon. Of our own, those outside the mesh
    /// too.
    pub(super) fn tell_lazy_links(
        &mut self,
        (ix, id): (TopicIx, MessageId),
        tree: u8,
        is_own: bool,
        out: &mut Outbox<Output<P>>,
    ) {
        let delay = self.config.tree.as_ref().map_or(Duration::ZERO, |tree| tree.announce_delay);
        let at = self.now + delay;
        let Some(repair) = &mut self.repair else { return };
        repair.announcements.push(Announcement { ix, id, tree, is_own });
        if delay.is_zero() || repair.announcements.len() >= ANNOUNCEMENTS_MAX {
            self.announce(out);
        } else if let Some(token) = repair.announce.set(at) {
            out.push(Output::Timer { at, timer: Timer::Announce { token } });
        }
    }

    pub(super) fn on_announce_timer(&mut self, token: u32, out: &mut Outbox<Output<P>>) {
        if self.repair.as_mut().is_some_and(|repair| repair.announce.take(token)) {
            self.announce(out);
        }
    }

    /// Tells lazy links what waits to be told, now.
    pub(super) fn announce(&mut self, out: &mut Outbox<Output<P>>) {
        let Some(repair) = &mut self.repair else { return };
        if repair.announcements.is_empty() {
            return;
        }
        repair.announce.at = None;
        let mut announcements = std::mem::take(&mut repair.announcements);
        announcements.sort_by_key(|announcement| announcement.ix);
        for of_topic in announcements.chunk_by(|a, b| a.ix == b.ix) {
            let Some(ix) = of_topic.first().map(|announcement| announcement.ix) else { continue };
            let topic = self.topics.get(ix);
            let has_own = of_topic.iter().any(|announcement| announcement.is_own);
            let to: Vec<Slot> = if has_own && self.config.flood_publish {
                topic.peers.iter().copied().filter(|slot| self.has_trees(*slot)).collect()
            } else {
                topic.trees.lazy_links().collect()
            };
            for slot in to {
                self.announce_to(ix, slot, of_topic, out);
            }
        }
    }

    fn announce_to(&mut self, ix: TopicIx, slot: Slot, what: &[Announcement], out: &mut Outbox<Output<P>>) {
        let is_in_mesh = self.topics.get(ix).is_in_mesh(slot);
        let mut ids = Vec::new();
        for Announcement { id, tree, is_own, .. } in what {
            let is_due = if is_in_mesh { self.topics.get(ix).trees.is_lazy(slot, *tree) } else { *is_own };
            if is_due && self.messages.contains(id, ix) && !self.has_message(ix, id, slot) {
                ids.push(*id);
            }
        }
        if !ids.is_empty() {
            self.stats.ihave_sent_lazy += ids.len() as u64;
            let ihave = vec![IHave { topic: self.topics.get(ix).name.clone(), ids }];
            self.send(slot, Rpc::of_control(Control { ihave, ..Control::default() }), Class::Control, out);
        }
    }

    /// The peer has a message, for it sent it or told of it; or does not want it.
    pub(super) fn has_message(&self, ix: TopicIx, id: &MessageId, slot: Slot) -> bool {
        self.is_unwanted(id, slot) || self.messages.is_from(id, ix, self.peers.link(slot))
    }

    // --- being told ----------------------------------------------------------------------------------

    /// A peer in tree mode has messages: those we miss are given time to come by an eager link. Gives back
    /// what there is nobody to wait for.
    pub(super) fn on_told(
        &mut self,
        slot: Slot,
        ihave: &[IHave],
        out: &mut Outbox<Output<P>>,
    ) -> Vec<(u64, MessageId)> {
        let mut at_once = Vec::new();
        for IHave { topic, ids } in ihave {
            let ix = self.topics.find(topic).filter(|ix| self.topics.get(*ix).is_subscribed);
            let Some(ix) = ix else { continue };
            for id in ids {
                let recent = &mut self.peers.get_mut(slot).recent;
                if usize::try_from(recent.told).is_ok_and(|told| told >= self.config.ihave_ids_max) {
                    self.stats.shed_ihave += 1;
                    continue;
                }
                recent.told += 1;
                if let Some(key) = self.on_told_one(ix, slot, id) {
                    at_once.push((key, *id));
                }
            }
        }
        self.set_repair_timer(out);
        at_once
    }

    fn on_told_one(&mut self, ix: TopicIx, slot: Slot, id: &MessageId) -> Option<u64> {
        let link = self.peers.link(slot);
        let key = self.keys.of_message(id, self.topics.get(ix).key);
        self.note_has_it(id, link);
        if self.is_seen(ix, id, key) {
            if let Some(entry) = self.messages.get_mut(id, ix).filter(|entry| !entry.data.is_empty()) {
                let data = entry.data.clone();
                self.note_backup(ix, slot, self.tree_of(&data), key);
            }
            return None;
        }
        let config = self.config.tree.as_ref()?;
        let due = self.now + config.repair_timeout;
        let opened_max = config.missing_max / MISSING_PART;
        let is_alone = self.topics.get(ix).mesh.is_empty();
        let repair = self.repair.as_mut()?;
        if let Some(missing) = repair.missing.get_mut(&key) {
            if missing.sources.len() < SOURCES_MAX && !missing.sources.contains(&link) {
                missing.sources.push(link);
            }
            return None;
        }
        let recent = &mut self.peers.get_mut(slot).recent;
        let has_room = repair.missing.len() < config.missing_max
            && usize::try_from(recent.opened).is_ok_and(|opened| opened < opened_max);
        if is_alone || !has_room {
            return Some(key);
        }
        recent.opened += 1;
        let sources = SmallVec::from_slice(&[link]);
        let missing =
            Missing { ix, id: *id, told: self.now, came: None, due, first: link, sources, asked: 0 };
        repair.missing.insert(key, missing);
        repair.due.insert((due, key));
        None
    }

    /// Notes that the first copy of a message has come.
    pub(super) fn on_came(&mut self, key: u64) {
        if let Some(missing) = self.repair.as_mut().and_then(|repair| repair.missing.get_mut(&key)) {
            missing.came = Some(self.now);
        }
    }

    /// What was told of a message; it is no longer waited for.
    pub(super) fn take_told(&mut self, key: u64) -> Option<Missing> {
        self.repair.as_mut()?.remove(key)
    }

    // --- asking --------------------------------------------------------------------------------------

    fn set_repair_timer(&mut self, out: &mut Outbox<Output<P>>) {
        let Some(repair) = &mut self.repair else { return };
        let Some(at) = repair.due.first().map(|(at, _)| *at) else { return };
        if let Some(token) = repair.repair.set(at) {
            out.push(Output::Timer { at, timer: Timer::Repair { token } });
        }
    }

    pub(super) fn on_repair_timer(&mut self, token: u32, rng: &mut impl Rng, out: &mut Outbox<Output<P>>) {
        let Some(repair) = self.repair.as_mut().filter(|repair| repair.repair.at.is_some()) else { return };
        if !repair.repair.take(token) {
            return;
        }
        let mut wanted: BTreeMap<Slot, Vec<(u64, MessageId)>> = BTreeMap::new();
        for key in repair.due(self.now) {
            if let Some((slot, id)) = self.next_source(key) {
                wanted.entry(slot).or_default().push((key, id));
            }
        }
        for (slot, wanted) in wanted {
            self.stats.iwant_sent_repair += wanted.len() as u64;
            let iwant = self.promise(slot, wanted, rng);
            self.send(slot, Rpc::of_control(Control { iwant, ..Control::default() }), Class::Control, out);
        }
        self.set_repair_timer(out);
    }

    /// Whom to ask for a message whose time has come, if it is still missing.
    fn next_source(&mut self, key: u64) -> Option<(Slot, MessageId)> {
        let timeout = self.config.tree.as_ref()?.repair_timeout;
        let (ix, id) = self.repair.as_ref()?.missing.get(&key).map(|missing| (missing.ix, missing.id))?;
        let now = self.now;
        if self.messages.is_validating(&id, ix) {
            // What was told of it is needed when the verdict comes.
            self.repair.as_mut()?.put_off(key, now + self.config.heartbeat_interval);
            return None;
        }
        if self.is_seen(ix, &id, key) {
            self.repair.as_mut()?.remove(key);
            return None;
        }
        let Some((at, slot)) = self.choose_source(ix, key) else {
            self.repair.as_mut()?.remove(key);
            return None;
        };
        let repair = self.repair.as_mut()?;
        let missing = repair.missing.get_mut(&key)?;
        missing.sources.swap(usize::from(missing.asked), at);
        missing.asked += 1;
        // Twice the time, for the question and the answer.
        repair.put_off(key, now + timeout * 2);
        Some((slot, id))
    }

    /// The next of those who told that can be asked, and its place among them. First those in the mesh: they
    /// can bring the next messages unasked.
    fn choose_source(&self, ix: TopicIx, key: u64) -> Option<(usize, Slot)> {
        let missing = self.repair.as_ref()?.missing.get(&key)?;
        let sources = missing.sources.iter().enumerate().skip(usize::from(missing.asked));
        let known = sources.filter_map(|(at, link)| Some((at, self.peers.resolve(*link)?)));
        let mut able = known.filter(|(_, slot)| self.may_ask(*slot)).peekable();
        let first = able.peek().copied();
        able.find(|(_, slot)| self.topics.get(ix).is_in_mesh(*slot)).or(first)
    }

    fn may_ask(&self, slot: Slot) -> bool {
        let threshold = self.config.score.as_ref().map_or(f64::NEG_INFINITY, |score| score.gossip_threshold);
        let peer = self.peers.get(slot);
        let asked = usize::try_from(peer.recent.asked).unwrap_or(usize::MAX);
        peer.is_live() && asked < self.config.ihave_ids_max && self.score_of(slot) >= threshold
    }
}
