//! Frames from and to the compute actors of other nodes.

use actix::prelude::*;
use omnimesh_protocol::NodeId;
use omnimesh_protocol::compute::driver;
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::compute::wire::{Assignment, BATCH_MAX, DecodeError, Failure, Frame};
use omnimesh_protocol::compute::worker;
use omnimesh_protocol::event::Event;

use super::ComputeActor;
use crate::actors::Mailbox;
use crate::actors::swarm::Disconnect;
use crate::swarm::{Class, Inbound, peer};

/// Bytes of assignments in one frame, about: less than the longest frame, so that no stream is held up by one.
const ASSIGN_BYTES: usize = 256 << 10;

impl ComputeActor {
    /// What is shed is repeated: offers with the next heartbeat, results when the driver asks again.
    pub(super) fn send(&self, to: &NodeId, frame: &Frame) -> bool {
        self.peers.send(to, Class::Own, frame.encode())
    }

    pub(super) fn assign(&mut self, to: NodeId, assignments: Vec<Assignment>, ctx: &mut Context<Self>) {
        if to == self.me() {
            return self.give_worker(worker::Input::Assign { from: to, assignments }, ctx);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for assignment in assignments {
            let more = assignment.bytes();
            if !batch.is_empty() && (batch.len() >= BATCH_MAX || bytes + more > ASSIGN_BYTES) {
                self.send_assignments(to, std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += more;
            batch.push(assignment);
        }
        if !batch.is_empty() {
            self.send_assignments(to, batch);
        }
    }

    /// A worker that cannot be sent anything gets nothing to do.
    fn send_assignments(&mut self, to: NodeId, assignments: Vec<Assignment>) {
        let attempts: Vec<_> = assignments.iter().map(|assignment| assignment.attempt).collect();
        if self.send(&to, &Frame::Assign(assignments)) {
            return;
        }
        let failed = |attempt| Failure {
            attempt,
            reason: FailReason::Unavailable,
            detail: "it cannot be reached, or reads too slowly".to_owned(),
            missing: Vec::new(),
        };
        let failures = attempts.into_iter().map(failed).collect();
        let (now, input) = (self.common.now(), driver::Input::Failed { from: to, failures });
        self.driver.handle(now, input, &mut self.rng, &mut self.driver_out);
    }

    pub(super) fn on_inbound(&mut self, inbound: Inbound, ctx: &mut Context<Self>) {
        match inbound {
            Inbound::Frames { peer: from, frames, held: _held } => {
                if let Some(node) = self.peers.sender(self.common.now(), from, &frames) {
                    frames.iter().for_each(|frame| self.on_bytes(node, frame, ctx));
                }
            }
            Inbound::Malformed { peer: from, reason } => {
                if let Some(node) = peer::node_id(&from) {
                    self.send_away(node, reason.to_string());
                }
            }
        }
    }

    pub(super) fn on_bytes(&mut self, from: NodeId, bytes: &[u8], ctx: &mut Context<Self>) {
        match Frame::decode(bytes) {
            Ok(frame) => self.on_frame(from, frame, ctx),
            Err(DecodeError::UnknownKind(_)) => {}
            Err(error) => self.send_away(from, error.to_string()),
        }
    }

    pub(super) fn on_frame(&mut self, from: NodeId, frame: Frame, ctx: &mut Context<Self>) {
        let signed = frame.signed_results(self.settings.mesh.id(), from);
        match frame {
            Frame::Offer(offer) => self.drive(driver::Input::Offer { from, offer }, ctx),
            Frame::Assign(assignments) => self.work(worker::Input::Assign { from, assignments }, ctx),
            Frame::Started(attempts) => self.drive(driver::Input::Started { from, attempts }, ctx),
            Frame::Results { items, .. } => match signed.and_then(|signed| signed.verify()) {
                Some(signed) => self.drive(driver::Input::Results { items, signed }, ctx),
                None => self.send_away(from, "results are not signed by who sent them".to_owned()),
            },
            Frame::Failed(failures) => self.drive(driver::Input::Failed { from, failures }, ctx),
            Frame::Cancel(attempts) => self.work(worker::Input::Cancel { from, attempts }, ctx),
            Frame::Ask(jobs) => self.work(worker::Input::Ask { from, jobs }, ctx),
            Frame::Has { job, keys } => self.drive(driver::Input::Has { from, job, keys }, ctx),
            Frame::Contents(contents) => self.contents.came(contents),
        }
    }

    fn send_away(&self, from: NodeId, reason: String) {
        let from = peer::peer_id(&from);
        self.common.observe(vec![Event::BadFrame { from, stream: "compute", reason }]);
        self.common.send(Mailbox::Swarm, &self.common.links().swarm, Disconnect(from));
    }
}
