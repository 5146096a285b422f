//! Talk about messages: IHAVE, IWANT, IDONTWANT; and the dispatch of control.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_core::Rng;
use smallvec::SmallVec;

use super::peers::Slot;
use super::{Class, Control, IHave, Message, Output, PeerName, Promise, Rpc, State};
use crate::{MessageId, Outbox};

/// Peers asked for one message between two heartbeats: a second, lest one that does not keep its word delays
/// the message; no more, lest a lost message comes as many times as it is told of. (guess)
const ASKED_MAX: u8 = 2;

/// Messages noted as asked for between two heartbeats. Above it no more are asked for. (guess)
const ASKED_ENTRIES_MAX: usize = 65_536;

/// Pairs of a message and a peer that does not want it. Above it the older half is forgotten early. (guess)
pub(super) const UNWANTED_ENTRIES_MAX: usize = 1 << 18;

impl<P: PeerName> State<P> {
    pub(super) fn on_control(
        &mut self,
        slot: Slot,
        control: &Control,
        reply: &mut Control,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        self.stats.graft_received += control.graft.len() as u64;
        self.stats.prune_received += control.prune.len() as u64;
        for topic in &control.graft {
            self.on_graft(slot, topic, reply, out);
        }
        for prune in &control.prune {
            self.on_prune(slot, prune, out);
        }
        for choke in &control.choke {
            self.on_choke(slot, choke, out);
        }
        for choke in &control.unchoke {
            self.on_unchoke(slot, choke, out);
        }
        if !control.idontwant.is_empty() {
            self.on_idontwant(slot, &control.idontwant);
        }
        if control.ihave.is_empty() && control.iwant.is_empty() {
            return;
        }
        let told: usize = control.ihave.iter().map(|ihave| ihave.ids.len()).sum();
        self.stats.ihave_received += told as u64;
        if let Some(brought) = self.peers.get_mut(slot).brought() {
            brought.told += told as u64;
        }
        self.stats.iwant_received += control.iwant.len() as u64;
        let threshold = self.config.score.as_ref().map_or(f64::NEG_INFINITY, |score| score.gossip_threshold);
        if self.score_of(slot) < threshold {
            return;
        }
        if self.has_trees(slot) {
            let wanted = self.on_told(slot, &control.ihave, out);
            self.ask(slot, wanted, reply, rng);
        } else if !control.ihave.is_empty() {
            self.on_ihave(slot, &control.ihave, reply, rng);
        }
        if !control.iwant.is_empty() {
            self.on_iwant(slot, &control.iwant, out);
        }
    }

    fn on_idontwant(&mut self, slot: Slot, ids: &[MessageId]) {
        self.stats.idontwant_received += ids.len() as u64;
        let link = self.peers.link(slot);
        for id in ids {
            let recent = &mut self.peers.get_mut(slot).recent;
            if recent.idontwant >= self.config.idontwant_ids_max {
                self.stats.shed_idontwant += 1;
                continue;
            }
            recent.idontwant += 1;
            self.unwanted.insert(self.keys.of_pair(id, link), UNWANTED_ENTRIES_MAX);
        }
    }

    /// Asks for what we have not seen.
    fn on_ihave(&mut self, slot: Slot, ihave: &[IHave], reply: &mut Control, rng: &mut impl Rng) {
        let told: usize = ihave.iter().map(|ihave| ihave.ids.len()).sum();
        let recent = &mut self.peers.get_mut(slot).recent;
        recent.ihave_messages = recent.ihave_messages.saturating_add(1);
        let is_too_often = recent.ihave_messages > self.config.ihave_messages_max;
        let asked = usize::try_from(recent.asked).unwrap_or(usize::MAX);
        let room = self.config.ihave_ids_max.saturating_sub(asked);
        if is_too_often || room == 0 {
            self.stats.shed_ihave += told as u64;
            return;
        }
        let mut wanted: Vec<(u64, MessageId)> = Vec::new();
        for IHave { topic, ids } in ihave {
            let Some(ix) = self.topics.find(topic) else { continue };
            let topic = self.topics.get(ix);
            if !topic.is_subscribed {
                continue;
            }
            let keyed = ids.iter().map(|id| (self.keys.of_message(id, topic.key), *id));
            wanted.extend(keyed.filter(|(key, id)| !self.is_seen(ix, id, *key)));
        }
        self.ask(slot, wanted, reply, rng);
    }

    /// Asks for messages at once, as far as there is room.
    fn ask(
        &mut self,
        slot: Slot,
        mut wanted: Vec<(u64, MessageId)>,
        reply: &mut Control,
        rng: &mut impl Rng,
    ) {
        let asked = usize::try_from(self.peers.get(slot).recent.asked).unwrap_or(usize::MAX);
        let room = self.config.ihave_ids_max.saturating_sub(asked);
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|(key, _)| self.asked.get(key).is_none_or(|asked| *asked < ASKED_MAX));
        // If not all can be asked for, let it be any: whoever told first cannot choose what is left out.
        wanted.shuffle(rng);
        let room = room.min(ASKED_ENTRIES_MAX.saturating_sub(self.asked.len()));
        self.stats.shed_ihave += wanted.len().saturating_sub(room) as u64;
        wanted.truncate(room);
        if !wanted.is_empty() {
            reply.iwant.append(&mut self.promise(slot, wanted, rng));
        }
    }

    /// Notes that messages are asked of a peer, and what it promised. Gives back their ids.
    pub(super) fn promise(
        &mut self,
        slot: Slot,
        wanted: Vec<(u64, MessageId)>,
        rng: &mut impl Rng,
    ) -> Vec<MessageId> {
        let recent = &mut self.peers.get_mut(slot).recent;
        recent.asked = recent.asked.saturating_add(u32::try_from(wanted.len()).unwrap_or(u32::MAX));
        // One promise stands for all: a peer that keeps some of its words cannot know which one is watched.
        let watched = rng.random_range(0..wanted.len());
        let promise = Promise { link: self.peers.link(slot), until: self.now + self.config.iwant_followup };
        let mut ids = Vec::with_capacity(wanted.len());
        for (at, (key, id)) in wanted.into_iter().enumerate() {
            if self.asked.len() < ASKED_ENTRIES_MAX || self.asked.contains_key(&key) {
                let asked = self.asked.entry(key).or_default();
                *asked = asked.saturating_add(1);
            }
            if at == watched {
                let promises: &mut SmallVec<_> = self.promises.entry(key).or_default();
                promises.push(promise);
            }
            ids.push(id);
        }
        ids
    }

    /// Serves what was asked for.
    fn on_iwant(&mut self, slot: Slot, ids: &[MessageId], out: &mut Outbox<Output<P>>) {
        let link = self.peers.link(slot);
        let mut rpc = Rpc::default();
        for id in ids {
            let recent = &mut self.peers.get_mut(slot).recent;
            if usize::try_from(recent.served).is_ok_and(|served| served >= self.config.ihave_ids_max) {
                self.stats.shed_iwant += 1;
                continue;
            }
            recent.served = recent.served.saturating_add(1);
            let Some(entry) = self.messages.accepted_mut(id) else { continue };
            // Who sent it to us has it: nothing goes back to its sender.
            if entry.senders.contains(&link) {
                continue;
            }
            let at = entry.served.iter().position(|(to, _)| *to == link).unwrap_or_else(|| {
                entry.served.push((link, 0));
                entry.served.len() - 1
            });
            let Some((_, times)) = entry.served.get_mut(at) else { continue };
            if *times >= self.config.retransmissions_max {
                self.stats.shed_iwant += 1;
                continue;
            }
            *times += 1;
            let topic = self.topics.get(entry.topic).name.clone();
            rpc.publish.push(Message::with_id(topic, entry.data.clone(), *id));
        }
        if !rpc.publish.is_empty() {
            self.stats.copies_sent_iwant += rpc.publish.len() as u64;
            out.push(Output::Send { to: self.peers.get(slot).name, rpc, class: Class::Forwarded });
        }
    }
}
