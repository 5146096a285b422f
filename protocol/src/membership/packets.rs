//! What comes from others: checked here before foca believes it.

use std::collections::BTreeSet;

use foca::Message;

use super::view::MemberState;
use super::wire::{PACKET_BYTES_MAX, Packet};
use super::{Output, REJOIN_PERIOD, Refusal, State};
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Time;

/// A higher generation is believed only from the node itself. Half of the numbers stay out of the reach of
/// others; Unix milliseconds need 41 bits.
const GENERATION_TOLD_MAX: u64 = 1 << 63;
/// The nodes that one packet names and foca will hear of.
#[derive(Default)]
struct Named {
    all: BTreeSet<NodeId>,
    /// How many of them foca does not know yet.
    fresh: usize,
}

impl State {
    pub(super) fn on_packet(&mut self, now: Time, from: NodeId, bytes: &[u8], out: &mut Outbox<Output>) {
        if bytes.len() > PACKET_BYTES_MAX {
            return self.refuse(from, Refusal::TooLong, out);
        }
        let Ok(mut packet) = Packet::decode(bytes) else {
            return self.refuse(from, Refusal::Malformed, out);
        };
        let src = packet.header.src.clone();
        if from == self.node || src.node == self.node {
            return self.refuse(from, Refusal::FromOurselves, out);
        }
        if src.node != from {
            return self.refuse(from, Refusal::NotTheSender, out);
        }
        let told = packet.updates.len();
        if !self.vet(from, &mut packet, out) {
            return;
        }
        if matches!(packet.header.message, Message::Ack(_) | Message::ForwardedAck { .. })
            && packet.header.dst == *self.foca.identity()
        {
            self.answered = true;
        }
        let is_news = !packet.updates.is_empty() || !self.view.is_current(&packet.header);
        let result = if packet.updates.len() == told {
            self.foca.handle_data(bytes, &mut self.effects)
        } else {
            self.foca.handle_data(&packet.encode(), &mut self.effects)
        };
        if result.is_err() {
            self.refuse(from, Refusal::OutOfPlace, out);
        }
        if self.effects.defunct {
            self.accuser = Some(from);
        }
        if is_news {
            self.sync(now, out);
        }
        let mut speaks_from_old_life = false;
        self.entry(from, |entry| {
            entry.last_seen = now;
            if entry.id == src {
                entry.addresses = src.addresses;
            } else if entry.corrected.is_none_or(|at| now.since(at) >= REJOIN_PERIOD) {
                entry.corrected = Some(now);
                speaks_from_old_life = true;
            }
        });
        if speaks_from_old_life {
            self.announce(from);
        }
    }

    /// Drops from the packet what must not reach foca. False if nothing of it may.
    fn vet(&mut self, from: NodeId, packet: &mut Packet<'_>, out: &mut Outbox<Output>) -> bool {
        let is_ignored = self.quarantined.contains(&from);
        if is_ignored && packet.header.message == Message::TurnUndead {
            return false;
        }
        let mine = self.foca.identity().life();
        let dst = &packet.header.dst;
        if dst.node == self.node && dst.life() > mine && !is_ignored {
            self.on_claim_of_newer_life(from, dst.generation);
        }
        let mut named = Named::default();
        if !self.make_room(from, true, &mut named) {
            self.refuse(from, Refusal::Full, out);
            return false;
        }
        let mut updates = std::mem::take(&mut packet.updates);
        updates.retain(|(member, _)| {
            let id = member.id();
            if id.node == self.node {
                if id.life() > mine && !is_ignored {
                    self.on_claim_of_newer_life(from, id.generation);
                }
                // Talk of another life of ours is of no use to foca: it would list us as a dead member.
                return id.life() == mine && !is_ignored;
            }
            if id.node == from {
                return true;
            }
            if is_ignored {
                return false;
            }
            let known = self.view.get(&id.node).map_or(0, |entry| entry.id.generation);
            if id.generation > GENERATION_TOLD_MAX.max(known) {
                self.refuse(from, Refusal::Implausible, out);
                return false;
            }
            let is_active = member.state() != foca::State::Down;
            let has_room = self.make_room(id.node, is_active, &mut named);
            if !has_room {
                self.refuse(from, Refusal::Full, out);
            }
            has_room
        });
        packet.updates = updates;
        true
    }

    /// Sees to it that foca may hear of this node.
    fn make_room(&mut self, node: NodeId, is_active: bool, named: &mut Named) -> bool {
        if self.view.get(&node).is_some() || named.all.contains(&node) {
            named.all.insert(node);
            return true;
        }
        let max = self.config.members_max;
        if self.foca.updates_backlog().saturating_add(named.fresh) >= 2 * max {
            return false;
        }
        if self.view.entries.len() + named.fresh >= max {
            // Not one that the same packet names: it would be back at once.
            let Some(oldest) = self.view.oldest_down(&named.all).filter(|_| is_active) else {
                return false;
            };
            self.forget(oldest);
        }
        named.all.insert(node);
        named.fresh += 1;
        true
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some(entry) = self.view.entries.remove(&node) {
            // A left life may still count as alive in foca, which forgets only the dead.
            let id = entry.id.clone();
            if entry.swim == MemberState::Left {
                let down = foca::Member::new(id.clone(), 0, foca::State::Down);
                let _ = self.foca.apply_many(std::iter::once(down), false, &mut self.effects);
            }
            let _ = self.foca.handle_timer(foca::Timer::RemoveDown(id), &mut self.effects);
        }
    }

    fn on_claim_of_newer_life(&mut self, from: NodeId, generation: u64) {
        if generation <= GENERATION_TOLD_MAX {
            self.claimed = self.claimed.max(generation);
            self.accuser = Some(from);
            self.effects.defunct = true;
        }
    }
}
