//! What a simulated node sends: frames onto its links, and messages of its own, signed and given to the router.

use bytes::Bytes;
use omnimesh_protocol::author::{self, Ticket};
use omnimesh_protocol::envelope::{Channel, Envelope};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{MessageId, Outbox, Seq, relay};

use super::super::link::{Fate, Parcel, Stream};
use super::super::packet::{Packet, size};
use super::super::queue::{Event, What};
use super::{Ctx, Node};

impl Node {
    /// Sends a frame, unless something is wrong with this node.
    pub(in crate::model) fn send(&mut self, to: u32, packet: Packet, ctx: &mut Ctx<'_>) {
        let packet = match &mut self.mischief {
            Some(mischief) => match mischief.corrupt(to, packet, ctx) {
                Some(packet) => packet,
                None => return,
            },
            None => packet,
        };
        self.transmit(to, packet, ctx);
    }

    /// Sends a frame as it is.
    pub(in crate::model) fn transmit(&mut self, to: u32, packet: Packet, ctx: &mut Ctx<'_>) {
        let bytes = size(&packet);
        let is_swim = matches!(packet, Packet::Swim(..));
        let is_compute = matches!(packet, Packet::Compute(_));
        let order = self.order;
        self.order += 1;
        // A packet of the membership protocol may be for somebody who is not connected: the node dials then.
        let mut dialled = if is_compute { self.compute_stream(to) } else { Stream::default() };
        let mut uplink = self.uplink_free;
        let (stream, age) = match self.end_mut(to) {
            _ if is_compute => (&mut dialled, 0),
            Some(end) if end.is_up => (&mut end.stream, end.age),
            _ if is_swim => (&mut dialled, 0),
            _ => return,
        };
        let parcel = Parcel { from: ctx.me, to, at: ctx.now, bytes, order };
        let record = &mut ctx.sink.record;
        record.traffic.frames += 1;
        record.traffic.bytes += bytes as u64;
        if let Packet::Gossip(rpc) = &packet {
            record.traffic.gossip_bytes += bytes as u64;
            if let Some(control) = &rpc.control {
                record.traffic.ihave_frames += control.ihave.len() as u64;
            }
        }
        let fate =
            ctx.shared.links.carry(parcel, stream, &mut uplink, &mut record.traffic, &mut record.faults);
        self.uplink_free = uplink;
        if is_compute {
            self.keep_compute_stream(to, dialled);
        }
        let arrive = |packet| What::Arrive { packet: Box::new(packet), age, is_read: false };
        match fate {
            Fate::Lost => {}
            Fate::Arrives(at) => {
                ctx.sink.push(Event { at, to, from: ctx.me, order, what: arrive(packet) });
            }
            Fate::ArrivesTwice(first, second) => {
                let what = arrive(packet.clone());
                ctx.sink.push(Event { at: first, to, from: ctx.me, order, what });
                let order = self.order;
                self.order += 1;
                ctx.sink.push(Event { at: second, to, from: ctx.me, order, what: arrive(packet) });
            }
        }
    }

    /// Publishes a payload; the message's id and length, or nothing while the node has no step.
    pub(in crate::model) fn publish(
        &mut self,
        payload: Bytes,
        ctx: &mut Ctx<'_>,
    ) -> Option<(MessageId, u32)> {
        let envelope = self.seal(payload, ctx)?;
        let id = envelope.id();
        let bytes = u32::try_from(envelope.as_bytes().len()).unwrap_or(u32::MAX);
        self.publish_sealed(envelope, ctx);
        self.set_alarm(ctx);
        Some((id, bytes))
    }

    /// Signs an envelope of the workload's channel.
    pub(in crate::model) fn seal(&mut self, payload: Bytes, ctx: &Ctx<'_>) -> Option<Envelope> {
        self.seal_on(ctx.shared.channel.clone(), payload, ctx)
    }

    /// Signs an envelope.
    pub(in crate::model) fn seal_on(
        &mut self,
        channel: Channel,
        payload: Bytes,
        ctx: &Ctx<'_>,
    ) -> Option<Envelope> {
        let now = self.clock.local(ctx.now);
        let shared = ctx.shared;
        let next = Seq(self.disk.next_seq);
        let machines = self.machines.as_mut()?;
        let (step, mesh_time_ns) = match &machines.sync {
            Some(sync) => (sync.step(now)?, sync.mesh_time(now)?),
            None => (shared.true_step(ctx.now), shared.true_time_ns(ctx.now)),
        };
        let author = machines.author.get_or_insert_with(|| {
            let patterns = PatternGenerator::new(
                shared.mesh.secret().clone(),
                shared.validate.phase_interval,
                shared.validate.pattern_cache,
            );
            let identity = shared.identity(ctx.me);
            Box::new(author::State::new(shared.author.clone(), identity, &shared.mesh, patterns, next))
        });
        let mut out = Outbox::new();
        // Numbers are reserved as soon as that is asked for.
        author.handle(now, author::Input::Reserved { up_to: Seq(u64::MAX) }, &mut self.rng, &mut out);
        author.handle(
            now,
            author::Input::Submit { channel, payload, ticket: Ticket(0) },
            &mut self.rng,
            &mut out,
        );
        let flush = author::Input::Flush { step: Some(step), mesh_time_us: mesh_time_ns / 1_000 };
        author.handle(now, flush, &mut self.rng, &mut out);
        self.disk.next_seq = author.next_seq().0;
        out.drain().find_map(|output| match output {
            author::Output::Sealed { envelope, .. } => Some(envelope),
            _ => None,
        })
    }

    /// Gives an envelope to the router as if it were the node's own.
    pub(in crate::model) fn publish_sealed(&mut self, envelope: Envelope, ctx: &mut Ctx<'_>) {
        if let Some(machines) = self.machines.as_mut().filter(|machines| machines.observer.is_some()) {
            machines.publishing = Some(Box::new(envelope.clone()));
        }
        self.relay(relay::Input::Publish(envelope), ctx);
    }

    /// Lets the next envelope have the sequence number of the last.
    pub(in crate::model) fn forget_last_seq(&mut self) {
        self.disk.next_seq = self.disk.next_seq.saturating_sub(1).max(1);
        if let Some(machines) = &mut self.machines {
            machines.author = None;
        }
    }
}
