//! Tree mode: which mesh links between nodes of OmniMesh carry messages, and which only their ids.
//!
//! Plumtree (Leitão, Pereira, Rodrigues: "Epidemic Broadcast Trees", 2007) over the mesh of gossipsub, with
//! the CHOKE and UNCHOKE of episub. A link of the mesh is eager or lazy, the same at both ends: CHOKE makes
//! it lazy, UNCHOKE eager, the last word counts. Messages go over eager links, over lazy ones their ids
//! ([`super::repair`]).
//!
//! ```text
//!  a copy that an eager link brought before ──► CHOKE the link that brings another
//!  a first copy over a lazy link            ──► UNCHOKE it: nothing eager was there in time
//!  ids much earlier, several times in a row ──► UNCHOKE who told them: next time its copy shows who is faster
//!  the last eager link gone or choked       ──► UNCHOKE who told first lately, or any other
//! ```
//!
//! **Trees.** The eager links that a message of one author leaves are the tree of its fastest ways to
//! everybody; that of another author differs. So there are [`TREES`] trees in a topic, and the author of a
//! message decides which it takes. Authors who share one have a tree that is good for all and best for one.
//!
//! **What holds.** Only messages that were accepted shape a tree, and only copies, not words: a peer that
//! tells much and delivers nothing stays where it is. An eager link that several times failed to bring what
//! others had to be asked for is the one that is choked when another brings the same. We never choke the last
//! eager link. Both ends of a link agree but for what is on the way; where they do not, the
//! next message makes them.

use super::peers::{Link, Slot};
use super::repair::Missing;
use super::topics::TopicIx;
use super::{Choke, Class, Control, Output, PeerName, Protocol, Rpc, State, Topic};
use crate::{Outbox, envelope};

/// Trees in a topic. Part of the protocol: the bits of a CHOKE.
pub(super) const TREES: u8 = 64;

/// CHOKEs and UNCHOKEs taken from one peer between two heartbeats, counted in topics. (guess: each tree of a
/// few topics twice)
const CHOKES_MAX: u32 = 512;

/// Messages of a tree in a row of which a lazy link must have known much earlier before it becomes eager. One is
/// not enough: authors who share a tree would pull it to and fro. (measured: with 3 and fewer they do)
const LEADS_MIN: u8 = 4;

/// Messages that an eager link did not bring before another is preferred. One is forgiven: its own source may
/// have failed. (guess)
const FAILURES_MAX: u8 = 2;

/// Heartbeats after which such failures are forgotten. (guess: a minute)
const FORGIVEN_BEATS: u32 = 60;

/// Trees of a topic: bit n is tree n.
pub(super) type TreeSet = u64;

/// A mesh link that is lazy in some trees.
#[derive(Debug)]
struct LazyLink {
    slot: Slot,
    /// Those in which we choked it.
    by_us: TreeSet,
    /// Those in which it choked us.
    by_peer: TreeSet,
    /// Those in which we choked it since the last heartbeat: what it sends may have been on the way.
    lately: TreeSet,
}

/// Who told first of the last message of a tree, after the one that brought it.
#[derive(Debug)]
struct Backup {
    tree: u8,
    link: Link,
    /// The key of the message.
    key: u64,
    /// How many messages in a row it told of much before the eager link brought them.
    leads: u8,
}

/// The trees of one topic, as far as they go through our mesh.
#[derive(Debug, Default)]
pub(super) struct Trees {
    /// Sorted by place.
    links: Vec<LazyLink>,
    /// Sorted by tree.
    backups: Vec<Backup>,
    /// Links of the mesh that were eager and did not bring what others brought when asked, and how many times.
    /// Sorted by place.
    failures: Vec<(Slot, u8)>,
}

impl Trees {
    fn find(&self, slot: Slot) -> Option<&LazyLink> {
        let at = self.links.binary_search_by_key(&slot, |link| link.slot).ok()?;
        self.links.get(at)
    }

    /// The trees in which a link is lazy.
    pub(super) fn lazy_in(&self, slot: Slot) -> TreeSet {
        self.find(slot).map_or(0, |link| link.by_us | link.by_peer)
    }

    /// The trees in which we choked a link.
    pub(super) fn choked_in(&self, slot: Slot) -> TreeSet {
        self.find(slot).map_or(0, |link| link.by_us)
    }

    pub(super) fn is_lazy(&self, slot: Slot, tree: u8) -> bool {
        !self.links.is_empty() && self.lazy_in(slot) & bit(tree) != 0
    }

    /// Links that are lazy in some trees, by place.
    pub(super) fn lazy_links(&self) -> impl Iterator<Item = Slot> {
        self.links.iter().map(|link| link.slot)
    }

    /// The trees in which no link of the mesh is eager.
    fn orphaned(&self, mesh: &[Slot]) -> TreeSet {
        if mesh.is_empty() || self.links.len() < mesh.len() {
            return 0;
        }
        self.links.iter().fold(TreeSet::MAX, |all, link| all & (link.by_us | link.by_peer))
    }

    /// The trees that have found their shape here: some links are lazy, another is eager.
    fn shaped(&self, mesh: &[Slot]) -> TreeSet {
        let lazy = self.links.iter().fold(0, |any, link| any | link.by_us | link.by_peer);
        lazy & !self.orphaned(mesh)
    }

    fn make_lazy(&mut self, slot: Slot, trees: TreeSet, by_us: bool) {
        if trees == 0 {
            return;
        }
        let at = self.links.binary_search_by_key(&slot, |link| link.slot).unwrap_or_else(|at| {
            self.links.insert(at, LazyLink { slot, by_us: 0, by_peer: 0, lately: 0 });
            at
        });
        let Some(link) = self.links.get_mut(at) else { return };
        if by_us {
            link.by_us |= trees;
            link.lately |= trees;
        } else {
            link.by_peer |= trees;
        }
    }

    /// Forgets a link that left the mesh.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.make_eager(slot, TreeSet::MAX);
        self.failures.retain(|(failed, _)| *failed != slot);
    }

    fn note_failure(&mut self, slot: Slot) {
        match self.failures.binary_search_by_key(&slot, |(failed, _)| *failed) {
            Ok(at) => {
                if let Some((_, times)) = self.failures.get_mut(at) {
                    *times = times.saturating_add(1);
                }
            }
            Err(at) => self.failures.insert(at, (slot, 1)),
        }
    }

    /// It failed too often to be preferred.
    fn is_unreliable(&self, slot: Slot) -> bool {
        let at = self.failures.binary_search_by_key(&slot, |(failed, _)| *failed).ok();
        at.and_then(|at| self.failures.get(at)).is_some_and(|(_, times)| *times >= FAILURES_MAX)
    }

    fn make_eager(&mut self, slot: Slot, trees: TreeSet) {
        let Ok(at) = self.links.binary_search_by_key(&slot, |link| link.slot) else { return };
        let Some(link) = self.links.get_mut(at) else { return };
        link.by_us &= !trees;
        link.by_peer &= !trees;
        link.lately &= !trees;
        if link.by_us | link.by_peer == 0 {
            self.links.remove(at);
        }
    }

    /// Notes who told first of a message after the one that brought it, and whether it led much. Gives back for
    /// how many messages in a row it did.
    fn note_backup(&mut self, tree: u8, link: Link, key: u64, led: bool) -> u8 {
        match self.backups.binary_search_by_key(&tree, |backup| backup.tree) {
            Ok(at) => {
                let Some(backup) = self.backups.get_mut(at).filter(|backup| backup.key != key) else {
                    return 0;
                };
                let before = if backup.link == link { backup.leads } else { 0 };
                let leads = if led { before.saturating_add(1) } else { 0 };
                *backup = Backup { tree, link, key, leads };
                leads
            }
            Err(at) => {
                self.backups.insert(at, Backup { tree, link, key, leads: u8::from(led) });
                u8::from(led)
            }
        }
    }

    fn backup(&self, tree: u8) -> Option<Link> {
        let at = self.backups.binary_search_by_key(&tree, |backup| backup.tree).ok()?;
        self.backups.get(at).map(|backup| backup.link)
    }

    pub(super) fn on_heartbeat(&mut self, beat: u32) {
        self.links.iter_mut().for_each(|link| link.lately = 0);
        if beat.is_multiple_of(FORGIVEN_BEATS) {
            self.failures.clear();
        }
    }

    /// Asserts what must hold of the trees of a topic with this mesh.
    pub(super) fn check_invariants(&self, mesh: &[Slot]) {
        assert!(self.links.windows(2).all(|pair| pair[0].slot < pair[1].slot), "lazy links are sorted");
        assert!(self.links.iter().all(|l| mesh.binary_search(&l.slot).is_ok()), "lazy links are in the mesh");
        assert!(self.links.iter().all(|l| l.by_us | l.by_peer != 0), "what is in no tree lazy is not listed");
        assert!(self.links.iter().all(|l| l.lately & !l.by_us == 0), "choked lately is choked");
        assert!(self.backups.len() <= usize::from(TREES), "backups are bounded");
        assert!(self.failures.windows(2).all(|pair| pair[0].0 < pair[1].0), "links that failed are sorted");
        let is_in_mesh = |(slot, _): &(Slot, u8)| mesh.binary_search(slot).is_ok();
        assert!(self.failures.iter().all(is_in_mesh), "links that failed are in the mesh");
        let all_choked = self.links.iter().fold(TreeSet::MAX, |all, link| all & link.by_us);
        let all_choked = if self.links.len() < mesh.len() { 0 } else { all_choked };
        assert!(mesh.is_empty() || all_choked == 0, "we never choke the last eager link");
        assert!(mesh.len() < 2 || self.orphaned(mesh) == 0, "one of several links is eager");
    }
}

fn bit(tree: u8) -> TreeSet {
    1 << (tree % TREES)
}

fn rpc_of(trees: TreeSet, topic: Topic, is_choke: bool) -> Rpc {
    let said = vec![Choke { topic, trees }];
    Rpc::of_control(if is_choke {
        Control { choke: said, ..Control::default() }
    } else {
        Control { unchoke: said, ..Control::default() }
    })
}

/// What shapes a tree: an accepted message, with those who sent it, the first one first.
pub(super) struct Seen<'a> {
    pub(super) data: &'a [u8],
    pub(super) key: u64,
    pub(super) senders: &'a [Link],
}

impl<P: PeerName> State<P> {
    /// The tree of a message.
    pub(super) fn tree_of(&self, data: &[u8]) -> u8 {
        let per_author = self.config.tree.as_ref().is_some_and(|tree| tree.per_author);
        let author = if per_author { envelope::peek_author(data) } else { None };
        author.map_or(0, |author| author[0] % TREES)
    }

    /// Tree mode is on with this peer.
    pub(super) fn has_trees(&self, slot: Slot) -> bool {
        self.config.tree.is_some() && self.peers.get(slot).protocol >= Protocol::Omnimesh1
    }

    /// Mesh links that are lazy in some tree, in all topics together.
    pub fn lazy_links(&self) -> usize {
        self.topics.iter().map(|(_, topic)| topic.trees.lazy_links().count()).sum()
    }

    /// Lets a message that was accepted shape its tree. `told`: what was told of it before it came.
    pub(super) fn shape_tree(
        &mut self,
        ix: TopicIx,
        seen: &Seen<'_>,
        told: Option<&Missing>,
        out: &mut Outbox<Output<P>>,
    ) {
        let tree = self.tree_of(seen.data);
        let Some((first, others)) = seen.senders.split_first() else { return };
        let source = self.peers.resolve(*first).filter(|slot| self.topics.get(ix).is_in_mesh(*slot));
        if let Some(slot) = source.filter(|slot| self.has_trees(*slot)) {
            let trees = &self.topics.get(ix).trees;
            // An eager link that had to be asked is lazy at the other end.
            let was_asked = told.is_some_and(|told| told.was_asked(*first));
            let on_the_way = trees.find(slot).is_some_and(|link| link.lately & bit(tree) != 0);
            if was_asked {
                self.stats.tree_repairs += 1;
                self.note_failures(ix, tree, seen.senders);
            }
            if was_asked || self.topics.get(ix).trees.is_lazy(slot, tree) && !on_the_way {
                self.unchoke(ix, slot, bit(tree), out);
            }
        }
        for other in others {
            self.on_copy_too_many(ix, (*first, *other), tree, out);
        }
        if let Some(told) = told {
            let is_small = seen.data.len() <= self.config.idontwant_bytes_min;
            self.look_for_shortcut(ix, tree, (seen.key, is_small), source, told, out);
        }
    }

    /// A message had to be asked for: the eager links that did not bring it failed.
    fn note_failures(&mut self, ix: TopicIx, tree: u8, senders: &[Link]) {
        for slot in self.topics.get(ix).mesh.clone() {
            let is_eager = self.has_trees(slot) && !self.topics.get(ix).trees.is_lazy(slot, tree);
            if is_eager && !senders.contains(&self.peers.link(slot)) {
                self.topics.get_mut(ix).trees.note_failure(slot);
            }
        }
    }

    /// The link that tells of messages much before the eager one brings them is eager from now on. Large ones
    /// do not count: they take longer on their way than their ids.
    fn look_for_shortcut(
        &mut self,
        ix: TopicIx,
        tree: u8,
        (key, is_small): (u64, bool),
        source: Option<Slot>,
        told: &Missing,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some((link, gain)) = told.first_word() else { return };
        let trees = &self.topics.get(ix).trees;
        let is_candidate = |slot: &Slot| trees.is_lazy(*slot, tree) && !trees.is_unreliable(*slot);
        let slot = self.peers.resolve(link).filter(is_candidate);
        let Some(slot) = slot.filter(|slot| source.is_some_and(|source| source != *slot)) else { return };
        let is_much = self.config.tree.as_ref().is_some_and(|config| gain >= config.shortcut_gain);
        let led = is_small && is_much && source.is_some_and(|source| self.has_trees(source));
        let leads = self.topics.get_mut(ix).trees.note_backup(tree, link, key, led);
        if leads >= LEADS_MIN {
            self.stats.tree_shortcuts += 1;
            self.unchoke(ix, slot, bit(tree), out);
        }
    }

    /// A peer told of a message that we have: it could bring the next ones if the eager link fails.
    pub(super) fn note_backup(&mut self, ix: TopicIx, slot: Slot, tree: u8, key: u64) {
        let link = self.peers.link(slot);
        let trees = &mut self.topics.get_mut(ix).trees;
        if trees.is_lazy(slot, tree) && !trees.is_unreliable(slot) {
            trees.note_backup(tree, link, key, false);
        }
    }

    /// A copy came over a link, after another had brought the first: the second link is not needed, or the first
    /// if it failed too often.
    pub(super) fn on_copy_too_many(
        &mut self,
        ix: TopicIx,
        (first, other): (Link, Link),
        tree: u8,
        out: &mut Outbox<Output<P>>,
    ) {
        let (first, other) = (self.peers.resolve(first), self.peers.resolve(other));
        let (Some(first), Some(other)) = (first, other) else { return };
        let topic = self.topics.get(ix);
        let is_fed = topic.is_in_mesh(first) && !topic.trees.is_lazy(first, tree);
        if first == other || !is_fed || !topic.is_in_mesh(other) || !self.has_trees(other) {
            return;
        }
        let is_better = topic.trees.is_unreliable(first) && !topic.trees.is_unreliable(other);
        if is_better && !topic.trees.is_lazy(other, tree) {
            self.choke(ix, first, bit(tree), out);
            return;
        }
        // One that is choked already, if it has had the time to hear of it, has forgotten.
        let on_the_way = topic.trees.find(other).is_some_and(|link| link.lately & bit(tree) != 0);
        if !on_the_way {
            self.choke(ix, other, bit(tree), out);
        }
    }

    fn choke(&mut self, ix: TopicIx, slot: Slot, trees: TreeSet, out: &mut Outbox<Output<P>>) {
        self.topics.get_mut(ix).trees.make_lazy(slot, trees, true);
        self.on_laziness(ix, slot);
        let topic = self.topics.get(ix).name.clone();
        self.send(slot, rpc_of(trees, topic, true), Class::Control, out);
    }

    fn unchoke(&mut self, ix: TopicIx, slot: Slot, trees: TreeSet, out: &mut Outbox<Output<P>>) {
        // What waits to be told to the lazy link would not be told to the eager one.
        self.announce(out);
        self.topics.get_mut(ix).trees.make_eager(slot, trees);
        self.on_laziness(ix, slot);
        let topic = self.topics.get(ix).name.clone();
        self.send(slot, rpc_of(trees, topic, false), Class::Control, out);
    }

    /// P3: a link that is lazy in some tree need not bring messages.
    fn on_laziness(&mut self, ix: TopicIx, slot: Slot) {
        let is_lazy = self.topics.get(ix).trees.lazy_in(slot) != 0;
        if let Some(score) = &mut self.peers.get_mut(slot).score {
            score.on_laziness(ix, is_lazy, self.now);
        }
    }

    /// What a peer of our mesh says of our link, if it may: the topic's place.
    fn on_choke_word(&mut self, slot: Slot, choke: &Choke) -> Option<TopicIx> {
        let ix = self.topics.find(&choke.topic).filter(|ix| self.topics.get(*ix).is_in_mesh(slot))?;
        if !self.has_trees(slot) {
            return None;
        }
        let recent = &mut self.peers.get_mut(slot).recent;
        if recent.chokes >= CHOKES_MAX {
            self.stats.shed_choke += 1;
            return None;
        }
        recent.chokes += 1;
        Some(ix)
    }

    pub(super) fn on_choke(&mut self, slot: Slot, choke: &Choke, out: &mut Outbox<Output<P>>) {
        self.stats.choke_received += u64::from(choke.trees.count_ones());
        let Some(ix) = self.on_choke_word(slot, choke) else { return };
        self.topics.get_mut(ix).trees.make_lazy(slot, choke.trees, false);
        self.on_laziness(ix, slot);
        self.replace_eager_links(ix, slot, out);
    }

    pub(super) fn on_unchoke(&mut self, slot: Slot, choke: &Choke, out: &mut Outbox<Output<P>>) {
        self.stats.unchoke_received += u64::from(choke.trees.count_ones());
        let Some(ix) = self.on_choke_word(slot, choke) else { return };
        self.announce(out);
        self.topics.get_mut(ix).trees.make_eager(slot, choke.trees);
        self.on_laziness(ix, slot);
    }

    /// A link that is new in the mesh is lazy in the trees that are well without it. The CHOKE goes out with
    /// the GRAFT, or with the answer to one.
    pub(super) fn start_lazy(&mut self, ix: TopicIx, slot: Slot) {
        if self.has_trees(slot) {
            let topic = self.topics.get_mut(ix);
            let others: Vec<Slot> = topic.mesh.iter().copied().filter(|other| *other != slot).collect();
            let trees = topic.trees.shaped(&others);
            topic.trees.make_lazy(slot, trees, true);
            self.on_laziness(ix, slot);
        }
    }

    /// The CHOKE that is due with a GRAFT.
    pub(super) fn first_choke(&self, slot: Slot, name: &Topic) -> Option<Choke> {
        let topic = self.topics.get(self.topics.find(name)?);
        let trees = topic.trees.choked_in(slot);
        (trees != 0).then(|| Choke { topic: topic.name.clone(), trees })
    }

    /// Makes a link eager in each tree that has none. `except`: the one that is no longer.
    pub(super) fn replace_eager_links(&mut self, ix: TopicIx, except: Slot, out: &mut Outbox<Output<P>>) {
        let topic = self.topics.get(ix);
        let mut orphaned = topic.trees.orphaned(&topic.mesh);
        // In order, beginning after the one that failed: not always the same.
        let mut links: Vec<Slot> = topic.trees.lazy_links().filter(|slot| *slot != except).collect();
        if !links.iter().all(|slot| topic.trees.is_unreliable(*slot)) {
            links.retain(|slot| !topic.trees.is_unreliable(*slot));
        }
        let next = links.iter().copied().find(|slot| *slot > except).or(links.first().copied());
        while orphaned != 0 {
            let tree = u8::try_from(orphaned.trailing_zeros()).unwrap_or(0);
            let backup = self.topics.get(ix).trees.backup(tree).and_then(|link| self.peers.resolve(link));
            let Some(chosen) = backup.filter(|slot| links.contains(slot)).or(next) else { return };
            // One frame for all trees that it is the choice for.
            let of_chosen = self.trees_with_backup(ix, orphaned, chosen, next == Some(chosen)) | bit(tree);
            orphaned &= !of_chosen;
            self.stats.tree_replacements += u64::from(of_chosen.count_ones());
            self.unchoke(ix, chosen, of_chosen, out);
        }
    }

    /// Those of `trees` for which `chosen` told first lately; `or_none`: also those for which nobody did.
    fn trees_with_backup(&self, ix: TopicIx, trees: TreeSet, chosen: Slot, or_none: bool) -> TreeSet {
        let of_topic = &self.topics.get(ix).trees;
        let is_its = |tree: &u8| match of_topic.backup(*tree) {
            Some(link) => self.peers.resolve(link) == Some(chosen),
            None => or_none,
        };
        (0..TREES).filter(is_its).fold(0, |all, tree| all | bit(tree)) & trees
    }
}
