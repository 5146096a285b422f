//! The way of a message: received, judged, forwarded; and our own.

use bytes::Bytes;
use rand::seq::SliceRandom;
use rand_core::Rng;

use super::cache::{Gone, Messages, Phase, SENDERS_MAX};
use super::control::UNWANTED_ENTRIES_MAX;
use super::peers::{Link, Slot};
use super::topics::{Fanout, TopicIx, Topics};
use super::tree::Seen;
use super::{
    Class, Control, Message, Output, PeerName, Protocol, PublishError, Rpc, State, Stats, Topic, Verdict,
    wire,
};
use crate::{MessageId, Outbox};

impl<P: PeerName> State<P> {
    pub(super) fn on_message(&mut self, slot: Slot, message: &Message, out: &mut Outbox<Output<P>>) {
        self.stats.copies_received += 1;
        let Some(ix) = self.topics.find(message.topic()).filter(|ix| self.topics.get(*ix).is_subscribed)
        else {
            self.stats.unwanted += 1;
            return;
        };
        let id = message.id();
        let key = self.keys.of_message(&id, self.topics.get(ix).key);
        // Kept, whoever brought it.
        if !self.promises.is_empty() {
            self.promises.remove(&key);
        }
        let link = self.peers.link(slot);
        if self.is_seen(ix, &id, key) {
            self.stats.duplicates += 1;
            self.on_duplicate(ix, &id, key, link, out);
            return;
        }
        let has_room = self.messages.validating() < self.config.validating_max
            && self.make_room(message.data().len())
            && self.messages.insert(
                id,
                ix,
                Phase::Validating,
                message.data().clone(),
                Some(link),
                (self.now, self.beat),
            );
        if !has_room {
            // Not marked as seen: it may come again when there is room.
            self.stats.shed_messages += 1;
            return;
        }
        self.seen.insert(key, self.config.seen_entries_max);
        self.on_came(key);
        self.note_copy(slot);
        self.stats.validating += 1;
        self.topics.get_mut(ix).cached += 1;
        if message.data().len() > self.config.idontwant_bytes_min {
            self.send_idontwant(ix, slot, (id, self.tree_of(message.data())), out);
        }
        let (from, topic) = (self.peers.get(slot).name, self.topics.get(ix).name.clone());
        out.push(Output::Validate { from, id, topic, data: message.data().clone() });
    }

    /// What is held counts as seen, though the memory of it may have been pushed out.
    pub(super) fn is_seen(&self, ix: TopicIx, id: &MessageId, key: u64) -> bool {
        self.seen.contains(key) || self.messages.contains(id, ix)
    }

    /// Notes one more sender of a message: it needs no copy, and shares in praise and blame.
    fn on_duplicate(
        &mut self,
        ix: TopicIx,
        id: &MessageId,
        key: u64,
        link: Link,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(entry) = self.messages.get_mut(id, ix) else { return };
        if entry.senders.contains(&link) || entry.senders.len() >= SENDERS_MAX {
            return;
        }
        entry.senders.push(link);
        let (phase, at) = (entry.phase, entry.at);
        // Not a copy that we asked for; and before the verdict it is too early to tell.
        if self.config.tree.is_some() && phase == Phase::Accepted && !self.asked.contains_key(&key) {
            let (data, first) = (entry.data.clone(), entry.senders.first().copied().unwrap_or(link));
            self.on_copy_too_many(ix, (first, link), self.tree_of(&data), out);
        }
        let Some(slot) = self.peers.resolve(link) else { return };
        self.note_copy(slot);
        if matches!(phase, Phase::Rejected | Phase::Ignored) {
            out.push(Output::CopyOfRefused { from: self.peers.get(slot).name, id: *id });
        }
        let counters = self.peers.get_mut(slot).score.as_mut();
        let Some((counters, config)) = counters.zip(self.config.score.as_ref()) else { return };
        let params = Self::topic_score(config, &self.topics, ix);
        match phase {
            Phase::Rejected => counters.on_invalid(ix),
            Phase::Accepted if self.now.since(at) <= params.mesh_deliveries_window => {
                counters.on_delivery(ix, params, false);
            }
            _ => {}
        }
    }

    /// A peer has brought a message that it had not brought before: the same one again is no forwarding.
    fn note_copy(&mut self, slot: Slot) {
        if let Some(brought) = self.peers.get_mut(slot).brought() {
            brought.copies += 1;
        }
    }

    /// Tells the mesh not to send us what has just come.
    fn send_idontwant(
        &mut self,
        ix: TopicIx,
        from: Slot,
        (id, tree): (MessageId, u8),
        out: &mut Outbox<Output<P>>,
    ) {
        for at in 0..self.topics.get(ix).mesh.len() {
            let Some(&slot) = self.topics.get(ix).mesh.get(at) else { return };
            // Who does not want it has it, and will not send it.
            let has_it = slot == from || self.is_unwanted(&id, slot);
            let is_lazy = self.topics.get(ix).trees.is_lazy(slot, tree);
            if !has_it && !is_lazy && self.peers.get(slot).protocol >= Protocol::Meshsub12 {
                let control = Control { idontwant: vec![id], ..Control::default() };
                self.send(slot, Rpc::of_control(control), Class::Control, out);
            }
        }
    }

    /// The peer has the message: a copy would be too many.
    pub(super) fn note_has_it(&mut self, id: &MessageId, link: Link) {
        self.unwanted.insert(self.keys.of_pair(id, link), UNWANTED_ENTRIES_MAX);
    }

    pub(super) fn is_unwanted(&self, id: &MessageId, slot: Slot) -> bool {
        self.unwanted.len() > 0 && self.unwanted.contains(self.keys.of_pair(id, self.peers.link(slot)))
    }

    /// Sees that `bytes` more can be held.
    fn make_room(&mut self, bytes: usize) -> bool {
        let (topics, stats) = (&mut self.topics, &mut self.stats);
        self.messages.make_room(bytes, self.config.cache_bytes_max, |gone| on_gone(topics, stats, &gone))
    }

    /// Forgets messages that are too old to be asked for.
    pub(super) fn forget_old_messages(&mut self) {
        let (topics, stats) = (&mut self.topics, &mut self.stats);
        let (history, patience) = (self.config.history_length, self.config.validating_beats_max);
        self.messages.tick(self.beat, history, patience, |gone| on_gone(topics, stats, &gone));
    }

    pub(super) fn on_verdict(
        &mut self,
        topic: &Topic,
        id: MessageId,
        verdict: Verdict,
        out: &mut Outbox<Output<P>>,
    ) {
        let phase = match verdict {
            Verdict::Accept => Phase::Accepted,
            Verdict::Ignore => Phase::Ignored,
            Verdict::Reject => Phase::Rejected,
        };
        let time = (self.now, self.beat);
        let ix = self.topics.find(topic);
        let Some((ix, entry)) = ix.and_then(|ix| Some((ix, self.messages.decide(&id, ix, phase, time)?)))
        else {
            self.stats.verdicts_late += 1;
            return;
        };
        let (senders, data) = (entry.senders.clone(), entry.data.clone());
        let key = self.keys.of_message(&id, self.topics.get(ix).key);
        let told = self.take_told(key);
        if verdict != Verdict::Accept {
            let others = senders.iter().skip(1).filter_map(|link| self.peers.resolve(*link));
            let copy_of = |slot| Output::CopyOfRefused { from: self.peers.get(slot).name, id };
            others.for_each(|slot| out.push(copy_of(slot)));
        }
        match verdict {
            Verdict::Ignore => self.stats.ignored += 1,
            Verdict::Reject => {
                self.stats.rejected += 1;
                self.judge_senders(ix, &senders, false);
            }
            Verdict::Accept => {
                self.stats.accepted += 1;
                self.judge_senders(ix, &senders, true);
                if self.config.tree.is_some() {
                    let seen = Seen { data: &data, key, senders: &senders };
                    self.shape_tree(ix, &seen, told.as_ref(), out);
                }
                let message = Message::with_id(self.topics.get(ix).name.clone(), data, id);
                self.forward(ix, &message, &senders, out);
            }
        }
    }

    /// P2, P3 and P4 of those who sent a message before its verdict, the first one first.
    fn judge_senders(&mut self, ix: TopicIx, senders: &[Link], is_valid: bool) {
        let Some(config) = &self.config.score else { return };
        let params = Self::topic_score(config, &self.topics, ix);
        for (at, link) in senders.iter().enumerate() {
            let slot = self.peers.resolve(*link);
            let Some(score) = slot.and_then(|slot| self.peers.get_mut(slot).score.as_mut()) else { continue };
            if is_valid {
                score.on_delivery(ix, params, at == 0);
            } else {
                score.on_invalid(ix);
            }
        }
    }

    fn forward(&mut self, ix: TopicIx, message: &Message, senders: &[Link], out: &mut Outbox<Output<P>>) {
        let (tree, mut has_lazy) = (self.tree_of(message.data()), false);
        for at in 0..self.topics.get(ix).mesh.len() {
            let Some(&slot) = self.topics.get(ix).mesh.get(at) else { return };
            if let Some(brought) = self.peers.get_mut(slot).brought() {
                brought.expected += 1;
            }
            if senders.contains(&self.peers.link(slot)) {
                continue;
            }
            if self.is_unwanted(&message.id(), slot) {
                self.stats.copies_saved += 1;
                continue;
            }
            if self.topics.get(ix).trees.is_lazy(slot, tree) {
                self.stats.copies_lazy += 1;
                has_lazy = true;
                continue;
            }
            if self.is_on_trial(slot) {
                self.stats.copies_tried += 1;
                continue;
            }
            self.send(slot, Rpc::of_message(message.clone()), Class::Forwarded, out);
        }
        if has_lazy {
            self.tell_lazy_links((ix, message.id()), tree, false, out);
        }
    }

    // --- our own -------------------------------------------------------------------------------------

    pub(super) fn on_publish(
        &mut self,
        name: &Topic,
        data: Bytes,
        rng: &mut impl Rng,
        out: &mut Outbox<Output<P>>,
    ) {
        let message = Message::new(name.clone(), data);
        let id = message.id();
        match self.keep_own(name, &message) {
            Err(reason) => out.push(Output::NotPublished { id, reason }),
            Ok(ix) => {
                let recipients = self.recipients(ix, rng);
                let tree = self.tree_of(message.data());
                let mut has_lazy = false;
                for slot in &recipients {
                    if self.is_told_only(ix, *slot, tree) {
                        has_lazy = true;
                        self.stats.copies_lazy += 1;
                    } else {
                        self.send(*slot, Rpc::of_message(message.clone()), Class::Own, out);
                    }
                }
                if has_lazy {
                    self.tell_lazy_links((ix, id), tree, true, out);
                }
                self.stats.published += 1;
                out.push(Output::Published { id, recipients: recipients.len() });
            }
        }
    }

    /// Our own message reaches this peer by its tree: it is told of it only. Peers outside the mesh get it
    /// from theirs; flood publishing would bring them one copy too many.
    fn is_told_only(&self, ix: TopicIx, slot: Slot, tree: u8) -> bool {
        let topic = self.topics.get(ix);
        if topic.is_in_mesh(slot) {
            return topic.trees.is_lazy(slot, tree);
        }
        self.has_trees(slot)
            && self.config.flood_publish
            && topic.is_subscribed
            && topic.mesh.len() >= self.config.mesh_degree_low.max(1)
    }

    /// Puts our message into the cache, from which it is gossiped, and among those seen.
    fn keep_own(&mut self, name: &Topic, message: &Message) -> Result<TopicIx, PublishError> {
        let bytes = wire::message_len_in_frame(name, message.data());
        let max = self.config.limits.frame_bytes_max;
        if bytes > max {
            return Err(PublishError::TooLarge { bytes, max });
        }
        let ix = self.intern(name, true).ok_or(PublishError::TooManyTopics)?;
        let key = self.keys.of_message(&message.id(), self.topics.get(ix).key);
        let kept = if self.is_seen(ix, &message.id(), key) {
            Err(PublishError::Duplicate)
        } else if self.make_room(message.data().len())
            && self.messages.insert(
                message.id(),
                ix,
                Phase::Accepted,
                message.data().clone(),
                None,
                (self.now, self.beat),
            )
        {
            Ok(ix)
        } else {
            Err(PublishError::CacheFull)
        };
        match kept {
            Ok(_) => {
                self.seen.insert(key, self.config.seen_entries_max);
                self.topics.get_mut(ix).cached += 1;
            }
            Err(_) => self.release_topic(ix),
        }
        kept
    }

    /// Whom we send our own message to: all subscribers in flood publish, else the mesh or the fanout.
    fn recipients(&mut self, ix: TopicIx, rng: &mut impl Rng) -> Vec<Slot> {
        let good: Vec<Slot> = self.publish_candidates(ix);
        if !self.topics.get(ix).is_subscribed {
            self.fill_fanout(ix, rng);
            if let Some(fanout) = &mut self.topics.get_mut(ix).fanout {
                fanout.last_published = self.now;
            }
        }
        if self.config.flood_publish {
            return good;
        }
        let topic = self.topics.get(ix);
        let fanout = topic.fanout.as_ref().map(|fanout| fanout.peers.as_slice());
        let mut recipients = fanout.unwrap_or(&topic.mesh).to_vec();
        // A mesh that is not yet there must not cost us the message.
        if topic.is_subscribed && recipients.len() < self.config.mesh_degree_low {
            let mut others: Vec<Slot> = good.into_iter().filter(|slot| !topic.is_in_mesh(*slot)).collect();
            others.shuffle(rng);
            others.truncate(self.config.mesh_degree - recipients.len());
            recipients.append(&mut others);
            recipients.sort_unstable();
        }
        recipients
    }

    /// Subscribers of good enough standing for our own messages, by place.
    fn publish_candidates(&self, ix: TopicIx) -> Vec<Slot> {
        let threshold = self.config.score.as_ref().map_or(f64::NEG_INFINITY, |score| score.publish_threshold);
        let peers = self.topics.get(ix).peers.iter().copied();
        peers.filter(|slot| self.score_of(*slot) >= threshold).collect()
    }

    /// Makes or refills the fanout of a topic that we are not in, and drops those that fell too low.
    pub(super) fn fill_fanout(&mut self, ix: TopicIx, rng: &mut impl Rng) {
        let good = self.publish_candidates(ix);
        let now = self.now;
        let topic = self.topics.get_mut(ix);
        let fanout =
            topic.fanout.get_or_insert_with(|| Box::new(Fanout { peers: Vec::new(), last_published: now }));
        fanout.peers.retain(|slot| good.binary_search(slot).is_ok());
        let mut others: Vec<Slot> =
            good.into_iter().filter(|slot| fanout.peers.binary_search(slot).is_err()).collect();
        others.shuffle(rng);
        others.truncate(self.config.mesh_degree.saturating_sub(fanout.peers.len()));
        fanout.peers.append(&mut others);
        fanout.peers.sort_unstable();
    }
}

fn on_gone<P: PeerName>(topics: &mut Topics<P>, stats: &mut Stats, gone: &Gone) {
    topics.get_mut(gone.topic).cached -= 1;
    stats.verdicts_missing += u64::from(gone.was_validating);
}

/// Ids of accepted messages by topic, oldest topic place first.
pub(super) fn ids_by_topic(messages: &Messages, since: u32) -> Vec<(TopicIx, Vec<MessageId>)> {
    let mut ids: Vec<(TopicIx, MessageId)> = messages.accepted_since(since).collect();
    ids.sort_by_key(|(ix, _)| *ix);
    ids.chunk_by(|a, b| a.0 == b.0)
        .filter_map(|chunk| Some((chunk.first()?.0, chunk.iter().map(|(_, id)| *id).collect())))
        .collect()
}
