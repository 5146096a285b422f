//! The peers we know: those connected, and those gone whose bad score is kept.

use smallvec::SmallVec;

use super::Protocol;
use super::score::{Brought, PeerScore};
use super::topics::TopicIx;

/// A place in the table of peers; taken again when its peer is forgotten.
pub(super) type Slot = u16;

/// A peer as long as it is in its place: what outlives a peer keeps a link, and finds nobody once it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    slot: Slot,
    generation: u16,
}

impl Link {
    pub(super) fn to_bits(self) -> u32 {
        u32::from(self.slot) << 16 | u32::from(self.generation)
    }
}

/// What we know of a peer. Small: there may be dozens in each of a million routers.
#[derive(Debug)]
pub(super) struct Peer<P> {
    pub(super) name: P,
    generation: u16,
    pub(super) protocol: Protocol,
    /// We dialled it.
    pub(super) is_outbound: bool,
    pub(super) is_connected: bool,
    /// We asked for its disconnection; nothing is sent to it or taken from it any more.
    pub(super) is_shut_out: bool,
    /// The topics it is in, sorted.
    pub(super) topics: SmallVec<[TopicIx; 4]>,
    /// What it did since the last heartbeat.
    pub(super) recent: Recent,
    pub(super) score: Option<Box<PeerScore>>,
}

/// Counts since the last heartbeat.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// IHAVE frames it sent.
    pub(super) ihave_messages: u32,
    /// Ids we asked of it.
    pub(super) asked: u32,
    /// Ids it asked of us.
    pub(super) served: u32,
    /// Ids it does not want.
    pub(super) idontwant: u32,
    /// Tree mode: ids it told.
    pub(super) told: u32,
    /// Tree mode: of these, those of which it was the first to tell.
    pub(super) opened: u32,
    /// Tree mode: CHOKEs and UNCHOKEs it sent.
    pub(super) chokes: u32,
}

impl<P> Peer<P> {
    pub(super) fn new(name: P, score: Option<Box<PeerScore>>) -> Self {
        Peer {
            name,
            generation: 0,
            protocol: Protocol::Meshsub10,
            is_outbound: false,
            is_connected: false,
            is_shut_out: false,
            topics: SmallVec::new(),
            recent: Recent::default(),
            score,
        }
    }

    /// What is counted of it, if peers are judged.
    pub(super) fn brought(&mut self) -> Option<&mut Brought> {
        self.score.as_deref_mut().map(|score| &mut score.brought)
    }

    /// Connected and welcome.
    pub(super) fn is_live(&self) -> bool {
        self.is_connected && !self.is_shut_out
    }
}

/// The table of peers.
#[derive(Debug)]
pub(super) struct Peers<P> {
    slots: Vec<Option<Peer<P>>>,
    /// The places in use, sorted by name; with the names, so that a search stays in one place of memory.
    by_name: Vec<(P, Slot)>,
    generation: u16,
    connected: usize,
}

impl<P: Copy + Ord> Peers<P> {
    pub(super) fn new() -> Self {
        Peers { slots: Vec::new(), by_name: Vec::new(), generation: 0, connected: 0 }
    }

    pub(super) fn connected(&self) -> usize {
        self.connected
    }

    /// Those gone whose score is kept.
    pub(super) fn retained(&self) -> usize {
        self.by_name.len() - self.connected
    }

    fn search(&self, name: &P) -> Result<usize, usize> {
        self.by_name.binary_search_by(|(other, _)| other.cmp(name))
    }

    pub(super) fn find(&self, name: &P) -> Option<Slot> {
        self.search(name).ok().and_then(|at| self.by_name.get(at)).map(|(_, slot)| *slot)
    }

    /// The peer in a place known to be in use.
    pub(super) fn get(&self, slot: Slot) -> &Peer<P> {
        self.slots.get(usize::from(slot)).and_then(Option::as_ref).expect("the place is in use")
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Peer<P> {
        self.slots.get_mut(usize::from(slot)).and_then(Option::as_mut).expect("the place is in use")
    }

    pub(super) fn link(&self, slot: Slot) -> Link {
        Link { slot, generation: self.get(slot).generation }
    }

    /// The peer's place, if it is still there.
    pub(super) fn resolve(&self, link: Link) -> Option<Slot> {
        let peer = self.slots.get(usize::from(link.slot))?.as_ref()?;
        (peer.generation == link.generation).then_some(link.slot)
    }

    /// Adds a peer that is not in; `None` if every place is taken.
    pub(super) fn insert(&mut self, mut peer: Peer<P>) -> Option<Slot> {
        let name = peer.name;
        let at = self.search(&name).err()?;
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let slot = Slot::try_from(free).ok()?;
        self.generation = self.generation.wrapping_add(1);
        peer.generation = self.generation;
        self.connected += usize::from(peer.is_connected);
        match self.slots.get_mut(free) {
            Some(place) => *place = Some(peer),
            None => self.slots.push(Some(peer)),
        }
        self.by_name.insert(at, (name, slot));
        Some(slot)
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let name = self.get(slot).name;
        if let Ok(at) = self.search(&name) {
            self.by_name.remove(at);
        }
        self.connected -= usize::from(self.get(slot).is_connected);
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = None;
        }
    }

    pub(super) fn set_connected(&mut self, slot: Slot, connected: bool) {
        let peer = self.get_mut(slot);
        let before = std::mem::replace(&mut peer.is_connected, connected);
        self.connected = self.connected + usize::from(connected) - usize::from(before);
    }

    /// Everybody, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Peer<P>)> {
        (0..).zip(&self.slots).filter_map(|(slot, peer)| Some((slot, peer.as_ref()?)))
    }

    /// Everybody, by place.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Peer<P>)> {
        (0..).zip(&mut self.slots).filter_map(|(slot, peer)| Some((slot, peer.as_mut()?)))
    }

    /// The connected and welcome, by place.
    pub(super) fn live(&self) -> Vec<Slot> {
        self.iter().filter(|(_, peer)| peer.is_live()).map(|(slot, _)| slot).collect()
    }

    /// Asserts that the table agrees with itself.
    pub(super) fn check_invariants(&self) {
        assert!(self.by_name.iter().all(|(name, slot)| self.get(*slot).name == *name), "names are in place");
        let names: Vec<P> = self.by_name.iter().map(|(name, _)| *name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "peers are sorted by name");
        assert_eq!(self.iter().count(), names.len(), "every peer is listed once");
        assert_eq!(
            self.iter().filter(|(_, peer)| peer.is_connected).count(),
            self.connected,
            "connected peers"
        );
    }
}
