//! From what nodes hold of the log at the end to facts.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
use omnimesh_protocol::log::checkpoint::{Base, Checkpoint, Cut};
use omnimesh_protocol::log::{Head, MemoryStore, Record};
use omnimesh_protocol::projection::Projection;
use omnimesh_protocol::{Hash, MessageId, NodeId};

use super::disk::Pool;
use super::link::nanos;
use super::log::data_hash;
use super::log_chains::Chains;
use super::log_checkpoint::{JumpNote, SealedNotes, merge_sealed};
use super::node::Node;
use super::record::Offences;
use super::shard::Shard;
use super::shared::Shared;
use crate::outcome::{
    Answer, Append, AuthorLog, Covered, Frozen, LogFacts, NodeLog, SealedCheckpoint, StoredRecord,
};

/// What the world has seen of the log besides.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) buffered_max: u64,
    pub(super) buffered_at: Offences,
    /// (node, since when it was away, until when).
    pub(super) away: Vec<(u32, u64, u64)>,
}

/// The facts, if nodes keep a log. What shards wrote down is taken out of them.
pub(super) fn facts(shared: &Shared, shards: &mut [Shard], seen: &Seen) -> Option<LogFacts> {
    shared.log.as_ref()?;
    let mut facts = LogFacts {
        buffered_max: seen.buffered_max,
        buffered_at: seen.buffered_at.offence(),
        ..LogFacts::default()
    };
    take_appends(shards, &mut facts);
    let mut served = Offences::default();
    for shard in &*shards {
        served.merge(shard.sink.record.served_unwritten);
        facts.forkers.extend(&shard.sink.record.forkers);
    }
    (facts.served_unwritten, facts.first_served_unwritten) = (served.count, served.offence());
    facts.forkers.sort_unstable();
    facts.forkers.dedup();
    let islands = islands(shared, shards);
    let notes = take_sealed(shards);
    let chains = Chains::new(shards);
    take_checkpoints(&notes, &chains, shared, &mut facts);
    let mut known = Known::default();
    for shard in &*shards {
        for (me, node) in (shard.first()..).zip(&shard.nodes) {
            if shared.dishonest.contains(me) {
                continue;
            }
            if let Some(mut held) = held(node, shared, &chains, &mut known, &mut facts) {
                held.node = me;
                held.island = islands.get(me as usize).copied().unwrap_or(me);
                held.up_since = up_since(me, shared, seen);
                facts.nodes.push(held);
            }
        }
    }
    drop(chains);
    facts.everywhere_us = everywhere(shared, shards, &facts);
    for shard in shards {
        for node in
            shard.nodes.iter().zip(shard.sink.nodes.0..).filter(|(_, me)| !shared.dishonest.contains(*me))
        {
            if let Some(part) = node.0.log_part() {
                shard.sink.record.add_log_stats(&part.state().stats());
            }
        }
        facts.counts += shard.sink.record.log;
    }
    Some(facts)
}

fn take_appends(shards: &mut [Shard], facts: &mut LogFacts) {
    let mut asked = Vec::new();
    let mut answers = BTreeMap::new();
    for shard in shards {
        asked.append(&mut shard.sink.record.asked);
        facts.operations.append(&mut shard.sink.record.operations);
        for answered in std::mem::take(&mut shard.sink.record.answered) {
            let answer = match answered.result {
                Ok(appended) => Answer::Acknowledged {
                    seq: appended.seq.0,
                    hash: appended.hash,
                    replicas: appended.replicas,
                    at: Duration::from_nanos(answered.at),
                },
                Err(error) => Answer::Refused(error.to_string()),
            };
            answers.insert(answered.number, answer);
        }
    }
    asked.sort_by_key(|asked| asked.number);
    facts.appends = asked
        .into_iter()
        .map(|asked| Append {
            author: asked.node,
            at: Duration::from_nanos(asked.at),
            data: asked.data,
            answer: answers.remove(&asked.number),
        })
        .collect();
}

/// Places of distinct contents, by their hash.
#[derive(Default)]
struct Known {
    logs: HashMap<Hash, u32>,
    bases: HashMap<Hash, u32>,
}

fn held(
    node: &Node,
    shared: &Shared,
    chains: &Chains<'_>,
    known: &mut Known,
    facts: &mut LogFacts,
) -> Option<NodeLog> {
    let (part, store) = (node.log_part()?, node.store()?);
    let number = |author: &NodeId| shared.find(author).unwrap_or(u32::MAX);
    let mut held = NodeLog {
        fingerprint: part.state().fingerprint(),
        registry: part.registry().hash(),
        registry_entries: part.registry().counts().entries,
        node: 0,
        up_since: Duration::ZERO,
        island: 0,
        logs: Vec::new(),
        frozen: Vec::new(),
        unnoticed: 0,
        base: None,
        dropped: store.floors().values().map(|floor| floor.head.seq.0).sum(),
    };
    if held.dropped > 0 {
        held.base = Some(base(store, shared, chains, known, facts));
    }
    let mut of_authors: Vec<(u32, u32)> = Vec::new();
    for (author, records) in store.logs() {
        // What a base stands for counts as there; whether it is right, another check says.
        let floor = store.floor(author).head;
        let is_covered = store.base().cut.head(author).seq >= floor.seq;
        let mut sound = if is_covered { chains.up_to(floor) } else { Vec::new() };
        for record in records {
            match record {
                Some(record) => sound.push(record),
                None => {
                    held.unnoticed += 1;
                    break;
                }
            }
        }
        if sound.is_empty() {
            continue;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(author.as_bytes());
        for record in &sound {
            hasher.update(record.digest().as_bytes());
        }
        let name = Hash::from_bytes(*hasher.finalize().as_bytes());
        let log = || author_log(number(author), &sound);
        let place = *known.logs.entry(name).or_insert_with(|| push(&mut facts.logs, log()));
        of_authors.push((number(author), place));
    }
    of_authors.sort_unstable();
    held.logs = of_authors.into_iter().map(|(_, place)| place).collect();
    for author in store.proofs().map(omnimesh_protocol::log::Proof::author) {
        // What the machine says, which is what peers are told.
        if let Some(proof) = part.state().proof(&author) {
            held.frozen.push(Frozen { author: number(&author), fork: proof.fork().0, proof: proof.id() });
        }
    }
    held.frozen.sort_unstable();
    Some(held)
}

fn push<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    u32::try_from(list.len() - 1).expect("fewer than 2^32")
}

fn author_log(author: u32, records: &[&Record]) -> AuthorLog {
    AuthorLog { author, records: records.iter().map(|record| stored(record)).collect() }
}

fn take_sealed(shards: &mut [Shard]) -> SealedNotes {
    let mut notes = SealedNotes::new();
    for shard in shards {
        for (id, note) in std::mem::take(&mut shard.sink.record.sealed) {
            merge_sealed(&mut notes, id, note);
        }
    }
    notes
}

/// What was sealed, and what it should be.
fn take_checkpoints(notes: &SealedNotes, chains: &Chains<'_>, shared: &Shared, facts: &mut LogFacts) {
    for note in notes.values() {
        let sealed = &note.stored.sealed;
        let Checkpoint { mesh, step, .. } = sealed.checkpoint;
        let (should_be, _) = chains.fold(&note.stored.cut).checkpoint(mesh, step);
        let cut = cut_logs(&note.stored.cut, shared, chains, facts);
        let is_good = sealed.votes.is_sorted_by(|a, b| a.signer < b.signer) && sealed.verify();
        let signers = sealed.votes.iter().filter(|_| is_good).filter_map(|vote| shared.find(&vote.signer));
        facts.checkpoints.push(SealedCheckpoint {
            step: step.0,
            node: note.first.1,
            at: Duration::from_nanos(note.first.0),
            nodes: note.nodes,
            signers: signers.collect(),
            covered: Covered { cut, is: sealed.checkpoint.id(), should_be: should_be.checkpoint.id() },
        });
    }
    facts.checkpoints.sort_by_key(|sealed| (sealed.step, sealed.covered.is));
}

/// The logs that a cut covers, by author.
fn cut_logs(cut: &Cut, shared: &Shared, chains: &Chains<'_>, facts: &mut LogFacts) -> Vec<u32> {
    let mut logs: Vec<(u32, Head)> =
        cut.0.iter().map(|(author, cut)| (shared.find(author).unwrap_or(u32::MAX), cut.head)).collect();
    logs.sort_unstable();
    let log = |(author, head)| push(&mut facts.cut_logs, author_log(author, &chains.up_to(head)));
    logs.into_iter().map(log).collect()
}

/// The place of what stands for entries that a node does not keep.
fn base(
    store: &MemoryStore,
    shared: &Shared,
    chains: &Chains<'_>,
    known: &mut Known,
    facts: &mut LogFacts,
) -> u32 {
    let id = |base: &Base| base.checkpoint(shared.mesh.id(), omnimesh_protocol::Step(0)).0.checkpoint.id();
    let is = id(store.base());
    if let Some(place) = known.bases.get(&is) {
        return *place;
    }
    let cut = &store.base().cut;
    let should_be = id(&chains.fold(cut));
    let cut = cut_logs(cut, shared, chains, facts);
    let place = push(&mut facts.bases, Covered { cut, is, should_be });
    known.bases.insert(is, place);
    place
}

fn stored(record: &Record) -> StoredRecord {
    StoredRecord {
        first: record.first().0,
        prev: record.prev(),
        digest: Hash::of(record.envelope().signed_bytes()),
        entries: record.to_entries().map(|entry| (entry.hash, data_hash(&entry.data))).collect(),
    }
}

fn up_since(me: u32, shared: &Shared, seen: &Seen) -> Duration {
    let network = &shared.scenario.network;
    let joined = nanos(network.join_over) / u64::from(network.nodes.max(1)) * u64::from(me);
    let back = seen.away.iter().filter(|(node, ..)| *node == me).map(|(_, _, back)| *back).max();
    Duration::from_nanos(joined.max(back.unwrap_or(0)))
}

/// For each node the lowest one that it is connected with through honest nodes.
fn islands(shared: &Shared, shards: &[Shard]) -> Vec<u32> {
    let nodes: Vec<&Node> = shards.iter().flat_map(|shard| &shard.nodes).collect();
    let mut island = vec![u32::MAX; nodes.len()];
    let is_in = |node: u32| {
        nodes.get(node as usize).is_some_and(|node| node.is_up()) && !shared.dishonest.contains(node)
    };
    for first in (0..).take(nodes.len()).filter(|node| is_in(*node)) {
        if island[first as usize] != u32::MAX {
            continue;
        }
        island[first as usize] = first;
        let mut queue = vec![first];
        while let Some(from) = queue.pop() {
            for end in nodes[from as usize].ends.iter().filter(|end| end.is_up && is_in(end.peer)) {
                let is_cut =
                    shared.links.cut(from, end.peer).is_some() || shared.links.cut(end.peer, from).is_some();
                if !is_cut && island[end.peer as usize] == u32::MAX {
                    island[end.peer as usize] = first;
                    queue.push(end.peer);
                }
            }
        }
    }
    island
}

/// How long entries took to be on the disks of all honest nodes that are up.
fn everywhere(shared: &Shared, shards: &[Shard], facts: &LogFacts) -> Vec<u32> {
    // Of each record: where and when it was stored.
    let mut stored: HashMap<(NodeId, u64), (u64, u32, u64)> = HashMap::new();
    let mut last: HashMap<MessageId, (u32, u64)> = HashMap::new();
    let up: super::link::NodeSet = facts.nodes.iter().map(|node| node.node).collect();
    for (id, pooled) in shards.iter().flat_map(pool) {
        let times = pooled.times.iter().filter(|(node, _)| up.contains(*node));
        let entry = last.entry(*id).or_insert((0, 0));
        for (_, at) in times {
            entry.0 += 1;
            entry.1 = entry.1.max(*at);
        }
    }
    let jumps: Vec<JumpNote> = shards.iter().flat_map(|shard| &shard.sink.record.jumps).copied().collect();
    for (id, pooled) in shards.iter().flat_map(pool) {
        let (mut count, mut at) = last.get(id).copied().unwrap_or_default();
        let record = &pooled.record;
        let mut covered = super::link::NodeSet::default();
        let of_record = |jump: &&JumpNote| jump.author == record.author() && jump.to >= record.last();
        for jump in jumps.iter().filter(of_record).filter(|jump| up.contains(jump.node)) {
            let has = shards.iter().filter_map(|shard| shard.sink.pool.get(id));
            if covered.insert(jump.node) && !has.into_iter().any(|p| p.nodes.contains(jump.node)) {
                (count, at) = (count + 1, at.max(jump.at));
            }
        }
        stored.insert((record.author(), record.first().0), (record.last().0, count, at));
    }
    let all = u32::try_from(facts.nodes.len()).unwrap_or(u32::MAX);
    let mut took = Vec::new();
    let mut firsts: HashMap<NodeId, Vec<u64>> = HashMap::new();
    for (author, first) in stored.keys() {
        firsts.entry(*author).or_default().push(*first);
    }
    firsts.values_mut().for_each(|firsts| firsts.sort_unstable());
    for append in &facts.appends {
        let Some(Answer::Acknowledged { seq, .. }) = append.answer else { continue };
        let author = shared.id(append.author);
        let Some(of_author) = firsts.get(&author) else { continue };
        let behind = of_author.partition_point(|first| *first <= seq);
        let Some(first) = behind.checked_sub(1).and_then(|place| of_author.get(place)) else { continue };
        if let Some((_, count, at)) = stored.get(&(author, *first))
            && *count >= all
        {
            let us = at.saturating_sub(nanos(append.at)) / 1_000;
            took.push(u32::try_from(us).unwrap_or(u32::MAX));
        }
    }
    took.sort_unstable();
    took
}

fn pool(shard: &Shard) -> &Pool {
    &shard.sink.pool
}
