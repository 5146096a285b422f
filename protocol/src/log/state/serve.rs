//! Answering peers from the store: bounded for each peer in requests and in bytes under way to it.

use std::fmt::Debug;

use bytes::Bytes;

use crate::envelope::Envelope;
use crate::id::{NodeId, Seq};
use crate::machine::Outbox;

use super::super::wire::{Decline, Frame, RECORDS_MAX, SERVE_BYTES_MAX};
use super::super::{Output, Record};
use super::State;

/// A peer's request that the store is asked for.
#[derive(Debug)]
pub(super) struct Serving<P> {
    peer: P,
    id: u64,
    from: Seq,
    to: Seq,
    is_find: bool,
}

impl<P: Copy + Ord + Debug> State<P> {
    pub(super) fn on_fetch(
        &mut self,
        peer: P,
        id: u64,
        author: NodeId,
        (from, to): (Seq, Seq),
        bytes_max: u64,
        out: &mut Outbox<Output<P>>,
    ) {
        if let Err((reason, seq)) = self.may_serve(peer, &author, from, to) {
            self.decline(peer, id, reason, seq, out);
            return;
        }
        let stored = self.logs.get(&author).map_or(Seq(0), |log| log.stored.seq);
        let to = to.min(stored);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(SERVE_BYTES_MAX);
        let token = self.begin_serving(Serving { peer, id, from, to, is_find: false });
        out.push(Output::Read { token, author, from, to, bytes_max });
    }

    pub(super) fn on_find(
        &mut self,
        peer: P,
        id: u64,
        author: NodeId,
        seq: Seq,
        out: &mut Outbox<Output<P>>,
    ) {
        if let Err((reason, seq)) = self.may_serve(peer, &author, seq, seq) {
            self.decline(peer, id, reason, seq, out);
            return;
        }
        let token = self.begin_serving(Serving { peer, id, from: seq, to: seq, is_find: true });
        out.push(Output::Find { token, author, seq });
    }

    fn may_serve(&self, peer: P, author: &NodeId, from: Seq, to: Seq) -> Result<(), (Decline, Seq)> {
        let is_free = self.peers.get(&peer).is_some_and(|state| {
            state.served < self.config.serves_per_peer && state.queued < self.config.serve_queue_bytes_max
        });
        let log = self.logs.get(author).filter(|log| log.stored.seq >= from && Seq(0) < from && from <= to);
        match log {
            None => Err((Decline::Missing, Seq(0))),
            Some(log) if from < log.base => Err((Decline::Truncated, log.base)),
            Some(_) if !is_free => Err((Decline::Busy, Seq(0))),
            Some(_) => Ok(()),
        }
    }

    fn begin_serving(&mut self, serving: Serving<P>) -> super::Token {
        if let Some(state) = self.peers.get_mut(&serving.peer) {
            state.served += 1;
        }
        let token = self.token();
        self.serving.insert(token, serving);
        token
    }

    /// The store has answered: so can we.
    pub(super) fn serve(
        &mut self,
        Serving { peer, id, from, to, is_find }: Serving<P>,
        records: Option<Vec<Bytes>>,
        out: &mut Outbox<Output<P>>,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        // The peer may have gone and come back meanwhile, and begun to count anew.
        state.served = state.served.saturating_sub(1);
        let Some(mut records) = records else { return self.decline(peer, id, Decline::Missing, Seq(0), out) };
        records.truncate(usize::try_from(RECORDS_MAX).unwrap_or(usize::MAX));
        let next = match records.last() {
            _ if is_find => from,
            None => to.saturating_add(1),
            Some(last) => match self.end_of(last) {
                Some(last) => last.saturating_add(1),
                None => return self.decline(peer, id, Decline::Missing, Seq(0), out),
            },
        };
        self.stats.served += 1;
        self.send(peer, &Frame::Records { id, next, records }, out);
    }

    fn end_of(&self, record: &Bytes) -> Option<Seq> {
        let envelope = Envelope::decode(record, self.config.message_bytes_max).ok()?;
        Record::new(envelope).map(|record| record.last())
    }

    pub(super) fn decline(
        &mut self,
        peer: P,
        id: u64,
        reason: Decline,
        seq: Seq,
        out: &mut Outbox<Output<P>>,
    ) {
        self.stats.busy += u64::from(reason == Decline::Busy);
        self.send(peer, &Frame::Decline { id, reason, seq }, out);
    }
}
