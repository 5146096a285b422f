//! The topics we know: ours, and a bounded number that peers told us of.

use std::time::Duration;

use super::cache::Keys;
use super::peers::Slot;
use super::rpc::Topic;
use super::tree::Trees;
use crate::Time;

/// A place in the table of topics; taken again when its topic is forgotten.
pub(super) type TopicIx = u16;

/// Topics that peers may fill the table with; the rest is for our own. (guess)
const REMOTE_TOPICS_MAX: usize = 60_000;

/// Peers of one topic whose backoff is remembered. Above it the one that would end first is forgotten.
/// (guess)
const BACKOFFS_MAX: usize = 1_024;

/// What we know of a topic.
#[derive(Debug)]
pub(super) struct TopicState<P> {
    pub(super) name: Topic,
    /// See `Keys::of_topic`.
    pub(super) key: u64,
    /// The entry in `ScoreConfig::topics`, if it has one.
    pub(super) params: Option<u16>,
    pub(super) is_subscribed: bool,
    /// Messages of it in the cache.
    pub(super) cached: u32,
    /// Live peers that are in it, sorted.
    pub(super) peers: Vec<Slot>,
    /// Those in our mesh, sorted.
    pub(super) mesh: Vec<Slot>,
    /// Which links of the mesh are lazy in which tree.
    pub(super) trees: Trees,
    /// Set while we publish without being subscribed.
    pub(super) fanout: Option<Box<Fanout>>,
    /// Who may not be grafted until when; sorted by name.
    backoffs: Vec<(P, Time)>,
}

/// The peers we publish to without being subscribed.
#[derive(Debug)]
pub(super) struct Fanout {
    /// Sorted.
    pub(super) peers: Vec<Slot>,
    pub(super) last_published: Time,
}

impl<P: Copy + Ord> TopicState<P> {
    pub(super) fn is_in_mesh(&self, slot: Slot) -> bool {
        self.mesh.binary_search(&slot).is_ok()
    }

    pub(super) fn has_peer(&self, slot: Slot) -> bool {
        self.peers.binary_search(&slot).is_ok()
    }

    /// Until when the peer may not be grafted.
    pub(super) fn backoff_until(&self, name: &P) -> Option<Time> {
        let at = self.backoffs.binary_search_by(|(peer, _)| peer.cmp(name)).ok()?;
        self.backoffs.get(at).map(|(_, until)| *until)
    }

    /// Keeps the peer from being grafted, never for less than before.
    pub(super) fn back_off(&mut self, name: P, until: Time) {
        match self.backoffs.binary_search_by(|(peer, _)| peer.cmp(&name)) {
            Ok(at) => {
                if let Some((_, before)) = self.backoffs.get_mut(at) {
                    *before = until.max(*before);
                }
            }
            Err(at) => {
                self.backoffs.insert(at, (name, until));
                if self.backoffs.len() > BACKOFFS_MAX {
                    let first =
                        (0..).zip(&self.backoffs).min_by_key(|(_, (_, until))| *until).map(|(at, _)| at);
                    first.map(|at: usize| self.backoffs.remove(at));
                }
            }
        }
    }

    /// Forgets the backoffs that are over, and the slack after them.
    pub(super) fn forget_backoffs(&mut self, now: Time, slack: Duration) {
        self.backoffs.retain(|(_, until)| *until + slack > now);
    }

    /// Nobody needs it: it says nothing beyond its name. (Scores are the caller's to look at.)
    fn is_idle(&self) -> bool {
        !self.is_subscribed
            && self.cached == 0
            && self.peers.is_empty()
            && self.fanout.is_none()
            && self.backoffs.is_empty()
    }

    /// Asserts bounds and order.
    pub(super) fn check_invariants(&self, now: Time, name_of: impl Fn(Slot) -> P) {
        let sorted = |slots: &[Slot]| slots.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(sorted(&self.peers) && sorted(&self.mesh), "peers of a topic are sorted, each once");
        assert!(self.is_subscribed || self.mesh.is_empty(), "a mesh only where we are subscribed");
        assert!(!self.is_subscribed || self.fanout.is_none(), "a fanout only where we are not");
        assert!(self.backoffs.len() <= BACKOFFS_MAX, "backoffs are bounded");
        for slot in &self.mesh {
            assert!(self.has_peer(*slot), "a mesh peer is in the topic");
            let until = self.backoff_until(&name_of(*slot));
            assert!(until.is_none_or(|until| until <= now), "a mesh peer is not in backoff");
        }
        let fanout = self.fanout.as_ref().map(|fanout| fanout.peers.as_slice()).unwrap_or_default();
        assert!(sorted(fanout), "fanout is sorted");
        assert!(fanout.iter().all(|slot| self.has_peer(*slot)), "a fanout peer is in the topic");
        self.trees.check_invariants(&self.mesh);
    }
}

/// Adds to a sorted list; says whether it was new.
pub(super) fn insert_sorted<T: Ord>(list: &mut Vec<T>, value: T) -> bool {
    match list.binary_search(&value) {
        Ok(_) => false,
        Err(at) => {
            list.insert(at, value);
            true
        }
    }
}

/// Takes out of a sorted list; says whether it was there.
pub(super) fn remove_sorted<T: Ord>(list: &mut Vec<T>, value: &T) -> bool {
    list.binary_search(value).is_ok_and(|at| {
        list.remove(at);
        true
    })
}

/// The table of topics.
#[derive(Debug)]
pub(super) struct Topics<P> {
    slots: Vec<Option<Box<TopicState<P>>>>,
    /// The places in use, sorted by name.
    by_name: Vec<TopicIx>,
}

impl<P: Copy + Ord> Topics<P> {
    pub(super) fn new() -> Self {
        Topics { slots: Vec::new(), by_name: Vec::new() }
    }

    fn search(&self, name: &Topic) -> Result<usize, usize> {
        self.by_name.binary_search_by(|ix| self.get(*ix).name.cmp(name))
    }

    pub(super) fn find(&self, name: &Topic) -> Option<TopicIx> {
        self.search(name).ok().and_then(|at| self.by_name.get(at).copied())
    }

    /// Finds or adds a topic; `None` if the table is full. `ours`: because of us, not of a peer.
    pub(super) fn intern(
        &mut self,
        name: &Topic,
        ours: bool,
        keys: &Keys,
        params: impl FnOnce(&Topic) -> Option<u16>,
    ) -> Option<TopicIx> {
        let at = match self.search(name) {
            Ok(at) => return self.by_name.get(at).copied(),
            Err(at) => at,
        };
        if !ours && self.by_name.len() >= REMOTE_TOPICS_MAX {
            return None;
        }
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let ix = TopicIx::try_from(free).ok()?;
        let state = Box::new(TopicState {
            name: name.clone(),
            key: keys.of_topic(name.as_str()),
            params: params(name),
            is_subscribed: false,
            cached: 0,
            peers: Vec::new(),
            mesh: Vec::new(),
            trees: Trees::default(),
            fanout: None,
            backoffs: Vec::new(),
        });
        match self.slots.get_mut(free) {
            Some(place) => *place = Some(state),
            None => self.slots.push(Some(state)),
        }
        self.by_name.insert(at, ix);
        Some(ix)
    }

    /// The topic in a place known to be in use.
    pub(super) fn get(&self, ix: TopicIx) -> &TopicState<P> {
        self.slots.get(usize::from(ix)).and_then(Option::as_deref).expect("the place is in use")
    }

    pub(super) fn get_mut(&mut self, ix: TopicIx) -> &mut TopicState<P> {
        self.slots.get_mut(usize::from(ix)).and_then(Option::as_deref_mut).expect("the place is in use")
    }

    /// Forgets the topic if it is there and nothing is left in it.
    pub(super) fn release(&mut self, ix: TopicIx) -> bool {
        let topic = self.slots.get(usize::from(ix)).and_then(Option::as_deref);
        if !topic.is_some_and(TopicState::is_idle) {
            return false;
        }
        if let Ok(at) = self.search(&self.get(ix).name) {
            self.by_name.remove(at);
        }
        if let Some(place) = self.slots.get_mut(usize::from(ix)) {
            *place = None;
        }
        true
    }

    /// Topics with nothing left in them.
    pub(super) fn idle(&self) -> Vec<TopicIx> {
        self.iter().filter(|(_, topic)| topic.is_idle()).map(|(ix, _)| ix).collect()
    }

    /// All topics, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicIx, &TopicState<P>)> {
        (0..).zip(&self.slots).filter_map(|(ix, topic)| Some((ix, topic.as_deref()?)))
    }

    /// All topics, by place.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TopicState<P>> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// Our topics, by place.
    pub(super) fn subscribed(&self) -> Vec<TopicIx> {
        self.iter().filter(|(_, topic)| topic.is_subscribed).map(|(ix, _)| ix).collect()
    }
}
