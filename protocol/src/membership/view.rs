//! The list of members as one node sees it: what SWIM says, with what else is known of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foca::{Header, Incarnation};
use serde::{Deserialize, Serialize};

use super::wire::Id;
use super::{Output, UpCause};
use crate::id::{NodeId, Step};
use crate::machine::Outbox;
use crate::time::Time;

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// Somebody's probe got no answer; it has a few seconds to say otherwise.
    Suspect,
    /// It did not answer in time.
    Dead,
    /// It went of its own will.
    Left,
    /// This node wants nothing to do with it, and does not listen whether it is alive.
    Quarantined,
}

/// One member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// How it is.
    pub state: MemberState,
    /// The last step it was heard to claim.
    pub step: Option<Step>,
    /// Where it says it can be reached: multiaddresses, at most [`super::ADDRESSES_MAX`].
    pub addresses: Vec<String>,
    /// The last direct sign of life; of a member never met, when it was heard to be alive.
    pub last_seen: Time,
    /// The last measured round trip to it.
    pub rtt: Option<Duration>,
}

/// How many members are in which state; this node counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names of MemberState")]
pub struct Counts {
    pub alive: usize,
    pub suspect: usize,
    pub dead: usize,
    pub left: usize,
    pub quarantined: usize,
}

impl Counts {
    pub(super) fn add(&mut self, state: MemberState) {
        match state {
            MemberState::Alive => self.alive += 1,
            MemberState::Suspect => self.suspect += 1,
            MemberState::Dead => self.dead += 1,
            MemberState::Left => self.left += 1,
            MemberState::Quarantined => self.quarantined += 1,
        }
    }
}

/// What is known of one member; never of this node itself.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: Id,
    incarnation: Incarnation,
    /// Never `Quarantined`: that is not SWIM's.
    pub(super) swim: MemberState,
    /// When `swim` last changed.
    pub(super) since: Time,
    pub(super) addresses: Arc<[String]>,
    pub(super) last_seen: Time,
    pub(super) step: Option<Step>,
    pub(super) rtt: Option<Duration>,
    /// When it was last told that it speaks from an old life.
    pub(super) corrected: Option<Time>,
}

impl Entry {
    pub(super) fn is_active(&self) -> bool {
        matches!(self.swim, MemberState::Alive | MemberState::Suspect)
    }
}

fn swim_state(member: &foca::Member<Id>) -> MemberState {
    match member.state() {
        _ if member.id().left => MemberState::Left,
        foca::State::Alive => MemberState::Alive,
        foca::State::Suspect => MemberState::Suspect,
        foca::State::Down => MemberState::Dead,
    }
}

/// All entries. Its keys are those of foca's list: `sync` adds, the owner removes from both.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) entries: BTreeMap<NodeId, Entry>,
}

impl View {
    pub(super) fn get(&self, node: &NodeId) -> Option<&Entry> {
        self.entries.get(node)
    }

    /// The member to forget when there is no room: the one that has been dead or gone for longest.
    pub(super) fn oldest_down(&self, except: &BTreeSet<NodeId>) -> Option<NodeId> {
        self.entries
            .iter()
            .filter(|(node, entry)| !entry.is_active() && !except.contains(*node))
            .min_by_key(|(node, entry)| (entry.since, **node))
            .map(|(node, _)| *node)
    }

    /// True if a packet with this header and no updates changes nothing here.
    pub(super) fn is_current(&self, header: &Header<Id>) -> bool {
        self.get(&header.src.node).is_some_and(|entry| {
            entry.id == header.src
                && entry.incarnation == header.src_incarnation
                && entry.swim == MemberState::Alive
        })
    }

    /// Takes over what foca believes of one member, and says what changed.
    pub(super) fn sync(&mut self, member: &foca::Member<Id>, now: Time, out: &mut Outbox<Output>) {
        let (id, swim, peer) = (member.id(), swim_state(member), member.id().node);
        let Some(entry) = self.entries.get_mut(&peer) else {
            let entry = Entry {
                id: id.clone(),
                incarnation: member.incarnation(),
                swim,
                since: now,
                addresses: id.addresses.clone(),
                last_seen: now,
                step: None,
                rtt: None,
                corrected: None,
            };
            if entry.is_active() {
                out.push(up(&entry, UpCause::Joined));
            }
            if swim == MemberState::Suspect {
                out.push(Output::MemberSuspect { peer });
            }
            self.entries.insert(peer, entry);
            return;
        };
        entry.incarnation = member.incarnation();
        let new_life = entry.id != *id;
        if new_life {
            entry.id = id.clone();
            entry.addresses = id.addresses.clone();
        }
        let (was, was_active) = (entry.swim, entry.is_active());
        if was == swim && !new_life {
            return;
        }
        if was != swim {
            entry.swim = swim;
            entry.since = now;
        }
        match swim {
            MemberState::Alive | MemberState::Suspect if !was_active => {
                entry.last_seen = now;
                out.push(up(entry, UpCause::Returned));
            }
            MemberState::Alive | MemberState::Suspect if new_life => out.push(up(entry, UpCause::Changed)),
            MemberState::Alive => out.push(Output::MemberRefuted { peer }),
            MemberState::Dead => out.push(Output::MemberDown { peer }),
            MemberState::Left if was != swim => out.push(Output::MemberLeft { peer }),
            _ => {}
        }
        if swim == MemberState::Suspect && was != swim {
            out.push(Output::MemberSuspect { peer });
        }
    }
}

fn up(entry: &Entry, cause: UpCause) -> Output {
    Output::MemberUp { peer: entry.id.node, addresses: entry.addresses.to_vec(), cause }
}
