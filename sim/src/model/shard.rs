//! A part of the nodes, worked off by one thread in each window of time.

use hashbrown::HashMap;
use omnimesh_protocol::relay::{self, Unchecked};
use omnimesh_protocol::validate::{Unverified, Verified};
use omnimesh_protocol::{MessageId, Outbox, log, step};

use super::checked::Checked;
use super::disk::Pool;
use super::node::{Ctx, Node};
use super::queue::{Due, Event, Ring};
use super::record::Record;
use super::shared::Shared;
use crate::scenario::Crypto;

/// Events that are fetched into the cache together. (guess)
const FETCH: usize = 16;

/// Where the effects of nodes go.
#[derive(Debug)]
pub(super) struct Sink {
    ring: Ring,
    /// The shard's nodes: first, and one after the last.
    pub(super) nodes: (u32, u32),
    /// Events for nodes of other shards.
    pub(super) elsewhere: Vec<Event>,
    /// What adversaries published besides the workload in this window, and who.
    pub(super) noise: Vec<(MessageId, u32)>,
    pub(super) record: Record,
    checked: HashMap<MessageId, Checked>,
    pub(super) relay_out: Outbox<relay::Output<u32>>,
    pub(super) relay_outputs: Vec<relay::Output<u32>>,
    pub(super) step_out: Outbox<step::Output<u32>>,
    pub(super) log_out: Outbox<log::Output<u32>>,
    pub(super) pool: Pool,
    /// Nodes whose process is to die now, and the faults that want it.
    pub(super) deaths: Vec<(u32, usize)>,
    /// Outputs of tasks that nodes have made or fetched in this window.
    pub(super) blobs: Vec<(omnimesh_protocol::Hash, u32)>,
}

impl Sink {
    pub(super) fn push(&mut self, event: Event) {
        if (self.nodes.0..self.nodes.1).contains(&event.to) {
            self.ring.push(event);
        } else {
            self.elsewhere.push(event);
        }
    }

    /// Checks a signature once for all who got the same bytes: it is a function of them.
    pub(super) fn verify(
        &mut self,
        shared: &Shared,
        id: MessageId,
        message: Unverified,
    ) -> Result<Verified, Unchecked> {
        let check = || match shared.scenario.crypto {
            Crypto::Real => Checked::of(&message),
            // What somebody has published is genuine, all else is not.
            Crypto::Skip => Checked::assumed(&message, shared.known.contains_key(&id)),
        };
        self.checked.entry(id).or_insert_with(check).clone().result(message)
    }
}

/// Some nodes and their events.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) nodes: Vec<Node>,
    pub(super) sink: Sink,
}

impl Shard {
    pub(super) fn new(first: u32, nodes: Vec<Node>, window_ns: u64, record: Record) -> Self {
        let end = first + u32::try_from(nodes.len()).expect("fewer nodes than 2^32");
        let sink = Sink {
            ring: Ring::new(window_ns),
            nodes: (first, end),
            elsewhere: Vec::new(),
            noise: Vec::new(),
            record,
            checked: HashMap::new(),
            relay_out: Outbox::new(),
            relay_outputs: Vec::new(),
            step_out: Outbox::new(),
            log_out: Outbox::new(),
            pool: Pool::new(),
            deaths: Vec::new(),
            blobs: Vec::new(),
        };
        Shard { nodes, sink }
    }

    pub(super) fn first(&self) -> u32 {
        self.sink.nodes.0
    }

    /// Works off all that happens in a window before `end`.
    pub(super) fn run(&mut self, window: u64, end: u64, shared: &Shared) {
        let mut due = self.sink.ring.take(window, end);
        due.sort_unstable_by_key(Event::key);
        let mut events = Due(due.drain(..));
        // So many events are left when the next are fetched.
        let mut fetch_at = events.len();
        while let Some((me, now)) = events.peek().map(|event| (event.to, event.at)) {
            if events.len() <= fetch_at {
                self.fetch(events.ahead(FETCH));
                fetch_at = events.len().saturating_sub(FETCH);
            }
            let node = &mut self.nodes[(me - self.sink.nodes.0) as usize];
            let mut ctx = Ctx { shared, sink: &mut self.sink, me, now };
            node.run(&mut events, end, &mut ctx);
            if cfg!(debug_assertions) {
                node.check_invariants();
            }
        }
        drop(events);
        self.sink.ring.reuse(due);
    }

    /// Reads a little of what these events will need, all at once: most of it is in no cache, and the processor
    /// waits for many places of memory as long as for one.
    fn fetch(&self, events: &[Event]) {
        let node = |event: &Event| &self.nodes[(event.to - self.sink.nodes.0) as usize];
        for event in events {
            event.fetch();
            node(event).fetch();
        }
        for event in events {
            node(event).fetch_machines(event.from);
        }
    }

    /// Does something with one of its nodes.
    pub(super) fn with<T>(
        &mut self,
        me: u32,
        now: u64,
        shared: &Shared,
        work: impl FnOnce(&mut Node, &mut Ctx<'_>) -> T,
    ) -> T {
        let node = &mut self.nodes[(me - self.sink.nodes.0) as usize];
        work(node, &mut Ctx { shared, sink: &mut self.sink, me, now })
    }

    pub(super) fn pending(&self) -> usize {
        self.sink.ring.len()
    }
}
