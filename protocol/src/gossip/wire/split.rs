//! Cutting what is too much for one frame into several.

use super::{
    ID_LEN, Limits, choke_field_len, message_len_in_frame, nested_len, prune_len, subscription_len, topic_len,
};
use crate::MessageId;
use crate::gossip::rpc::{Control, IHave, Rpc};

/// The most that the tags and lengths around an entry take: of the control message and of a list of ids in
/// it.
const HEAD_LEN_MAX: usize = 2 * 6;

/// Hands `rpc` to `emit` in frames within `limits`, in order. Returns how many messages were left out because
/// one alone is over `frame_bytes_max`.
///
/// A frame is filled up to `batch_bytes_max`; a message that is larger than this has a frame to itself.
pub fn split(rpc: Rpc, limits: &Limits, emit: impl FnMut(Rpc)) -> usize {
    let mut splitter =
        Splitter { limits, emit, frame: Rpc::default(), bytes: HEAD_LEN_MAX, control_bytes: 0 };
    for subscription in rpc.subscriptions {
        splitter.make_control_room(nested_len(subscription_len(&subscription)));
        splitter.frame.subscriptions.push(subscription);
    }
    if let Some(control) = rpc.control {
        splitter.control(*control);
    }
    let mut left_out = 0;
    for message in rpc.publish {
        let len = message_len_in_frame(message.topic(), message.data());
        if len > limits.frame_bytes_max {
            left_out += 1;
            continue;
        }
        let is_full = splitter.frame.publish.len() >= limits.messages_max;
        if is_full || splitter.bytes + len > limits.batch_bytes_max {
            splitter.flush();
        }
        splitter.bytes += len;
        splitter.frame.publish.push(message);
    }
    splitter.flush();
    left_out
}

struct Splitter<'a, F> {
    limits: &'a Limits,
    emit: F,
    frame: Rpc,
    /// At least what `frame` will take.
    bytes: usize,
    /// The part of it that is not messages.
    control_bytes: usize,
}

impl<F: FnMut(Rpc)> Splitter<'_, F> {
    fn flush(&mut self) {
        if !self.frame.is_empty() {
            (self.emit)(std::mem::take(&mut self.frame));
        }
        (self.bytes, self.control_bytes) = (HEAD_LEN_MAX, 0);
    }

    /// What is left for subscriptions and control in this frame.
    fn control_room(&self) -> usize {
        let control = self.limits.control_bytes_max.saturating_sub(self.control_bytes);
        control.min(self.limits.batch_bytes_max.saturating_sub(self.bytes)).saturating_sub(HEAD_LEN_MAX)
    }

    /// Sees that `len` more bytes of subscriptions or control may be added, and counts them.
    fn make_control_room(&mut self, len: usize) {
        if len > self.control_room() {
            self.flush();
        }
        self.bytes += len;
        self.control_bytes += len;
    }

    fn control_of_frame(&mut self) -> &mut Control {
        self.frame.control.get_or_insert_default()
    }

    fn control(&mut self, control: Control) {
        for topic in control.graft {
            self.make_control_room(nested_len(topic_len(&topic)));
            self.control_of_frame().graft.push(topic);
        }
        for prune in control.prune {
            self.make_control_room(nested_len(prune_len(&prune)));
            self.control_of_frame().prune.push(prune);
        }
        for choke in control.choke {
            self.make_control_room(choke_field_len(&choke));
            self.control_of_frame().choke.push(choke);
        }
        for choke in control.unchoke {
            self.make_control_room(choke_field_len(&choke));
            self.control_of_frame().unchoke.push(choke);
        }
        self.ids(&control.idontwant, 0, |control, ids| control.idontwant.extend_from_slice(ids));
        self.ids(&control.iwant, 0, |control, ids| control.iwant.extend_from_slice(ids));
        for IHave { topic, ids } in control.ihave {
            self.ids(&ids, topic_len(&topic), |control, ids| {
                control.ihave.push(IHave { topic: topic.clone(), ids: ids.to_vec() });
            });
        }
    }

    /// Adds ids in pieces that fit; each piece costs `overhead` more.
    fn ids(&mut self, mut ids: &[MessageId], overhead: usize, add: impl Fn(&mut Control, &[MessageId])) {
        let overhead = overhead + HEAD_LEN_MAX;
        while !ids.is_empty() {
            if self.control_room() < overhead + ID_LEN {
                self.flush();
            }
            // One at least: the limits of a valid configuration have room for it.
            let fit = (self.control_room().saturating_sub(overhead) / ID_LEN).clamp(1, ids.len());
            let (now, later) = ids.split_at(fit);
            add(self.control_of_frame(), now);
            self.bytes += overhead + now.len() * ID_LEN;
            self.control_bytes += overhead + now.len() * ID_LEN;
            ids = later;
        }
    }
}
