//! The workload's messages: who publishes each, and who is to get it.

use std::time::Duration;

use super::super::link::{NodeSet, nanos};
use super::super::node::Node;
use super::super::record::Sent;
use super::super::shared::Known;
use super::World;

/// A node is in the audience of messages once it has had a step and connections for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

impl World<'_> {
    pub(super) fn publish(&mut self, number: u32, now: u64) {
        let nodes = self.shared.scenario.network.nodes;
        let candidates = self.plan.candidates(number, nodes, &mut self.rng);
        let Some(author) = candidates.into_iter().find(|node| self.can_publish(*node)) else { return };
        let most = omnimesh_protocol::envelope::payload_bytes_max(self.shared.validate.message_bytes_max);
        let payload = self.shared.scenario.workload.payload(number, most);
        let published = self.with(author, now, |node, ctx| node.publish(payload, ctx));
        let Some((id, bytes)) = published else { return };
        let number = u32::try_from(self.sent.len()).expect("fewer messages than 2^32");
        self.shared.known.insert(id, Known { author, number: Some(number) });
        let audience = self.audience(author, now);
        self.sent.push(Sent { author, at: now, bytes, audience });
    }

    pub(super) fn can_publish(&self, node: u32) -> bool {
        !self.shared.dishonest.contains(node) && self.node(node).synchronised_at.is_some()
    }

    /// Honest nodes that are settled and connected with the author through honest nodes.
    fn audience(&self, author: u32, now: u64) -> NodeSet {
        let nodes = self.shared.scenario.network.nodes;
        let settled = |node: &Node| {
            node.is_up() && node.synchronised_at.is_some_and(|at| at + nanos(SETTLED_AFTER) <= now)
        };
        let mut reached: NodeSet = [author].into_iter().collect();
        let mut queue = vec![author];
        while let Some(from) = queue.pop() {
            for end in self.node(from).ends.iter().filter(|end| end.is_up) {
                let (to, links) = (end.peer, &self.shared.links);
                if !self.shared.dishonest.contains(to)
                    && self.node(to).is_up()
                    && links.cut(from, to).is_none()
                    && reached.insert(to)
                {
                    queue.push(to);
                }
            }
        }
        (0..nodes)
            .filter(|node| *node != author && reached.contains(*node) && settled(self.node(*node)))
            .collect()
    }
}
