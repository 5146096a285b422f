//! From what shards wrote down to an outcome.

use std::time::Duration;

use omnimesh_protocol::refusal::Refusal;

use super::link::{NodeSet, nanos};
use super::log_facts::{Seen, facts};
use super::random::mix;
use super::record::{Offences, Record, Sent, tell};
use super::shard::Shard;
use super::shared::Shared;
use super::world::DUE_WITHIN;
use crate::outcome::{Convicted, Cost, DetectionFacts, Effect, Held, Outcome, Sample, Truth};
use crate::process::peak_bytes;
use crate::scenario::Witnesses;

/// Of meshes up to this size the links are told.
const MESH_LINKS_NODES_MAX: usize = 3_000;

/// What the world knows at the end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) now: u64,
    pub(super) wall: Duration,
    pub(super) bytes_per_node: u64,
    pub(super) faults: Vec<Effect>,
    pub(super) samples: Vec<Sample>,
    pub(super) checkpoints: Vec<u64>,
    pub(super) whole_at: Option<Duration>,
    pub(super) sent: Vec<Sent>,
    /// (node, since when it was away, until when).
    pub(super) away: Vec<(u32, u64, u64)>,
    pub(super) regions: Vec<u16>,
    /// Who is each adversary.
    pub(super) who: Vec<Vec<u32>>,
    /// The most that buffers of a log held.
    pub(super) buffered: (u64, Offences),
}

/// What nodes are at the end.
struct Nodes {
    record: Record,
    /// Of what each has seen.
    trace: blake3::Hasher,
    mesh_links: Vec<(u32, u32)>,
    /// How many honest nodes have so many neighbours in the mesh.
    degrees: Vec<u32>,
}

impl Nodes {
    fn read(shared: &Shared, shards: &mut [Shard]) -> Self {
        let scenario = &shared.scenario;
        let mut record = Record::new(scenario.faults.len(), scenario.adversaries.len());
        let mut trace = blake3::Hasher::new();
        let (mut mesh_links, mut degrees) = (Vec::new(), Vec::new());
        for shard in shards {
            record.merge(std::mem::take(&mut shard.sink.record));
            for (me, node) in (shard.sink.nodes.0..).zip(&shard.nodes) {
                trace.update(&mix(node.trace() ^ mix(u64::from(me))).to_le_bytes());
                let Some(relay) = node.relay_state() else { continue };
                let peers = relay.gossip().mesh_peers(&shared.topic);
                if !shared.dishonest.contains(me) {
                    record.add_stats(relay);
                    if degrees.len() <= peers.len() {
                        degrees.resize(peers.len() + 1, 0);
                    }
                    degrees[peers.len()] += 1;
                }
                if scenario.network.nodes as usize <= MESH_LINKS_NODES_MAX {
                    mesh_links.extend(peers.into_iter().map(|peer| (me, peer)));
                }
            }
        }
        Nodes { record, trace, mesh_links, degrees }
    }
}

pub(super) fn conclude(mut ended: Ended, shared: &Shared, mut shards: Vec<Shard>) -> Outcome {
    let scenario = &shared.scenario;
    let nodes = scenario.network.nodes;
    excuse(&mut ended.sent, &ended.away);
    let (buffered_max, buffered_at) = ended.buffered;
    let seen = Seen { buffered_max, buffered_at, away: ended.away.clone() };
    let log = facts(shared, &mut shards, &seen);
    let Nodes { mut record, trace: mut hasher, mesh_links, degrees } = Nodes::read(shared, &mut shards);
    let told =
        tell(std::mem::take(&mut record.deliveries), &ended.sent, &shared.dishonest, &ended.away, nodes);
    hasher.update(&record.events.to_le_bytes());
    let quarantines = Quarantines::of(shared, &record);
    let compute = super::compute_facts::facts(shared, &shards, &mut record, &ended.away);
    let detection = shared.observer.as_ref().map(|_| detection(shared, &shards, &mut record, &ended.who));
    let adversaries = scenario.adversaries.iter().enumerate().map(|(number, adversary)| Effect {
        name: format!("{}#{}", adversary.kind.name(), number + 1),
        planned: ended.who[number].len() as u64,
        effective: record.adversaries[number],
        at: adversary.at,
        until: adversary.until,
    });
    let has_membership = shared.membership.is_some();
    Outcome {
        nodes,
        ended: Duration::from_nanos(ended.now),
        messages: told.messages,
        deliveries: told.deliveries,
        copies: {
            record.copies.resize(ended.sent.len(), 0);
            record.copies
        },
        delivered_twice: told.delivered_twice.count,
        first_delivered_twice: told.delivered_twice.offence(),
        forged: record.forged.count,
        first_forged: record.forged.offence(),
        steps_fell: record.steps_fell.count,
        first_step_fell: record.steps_fell.offence(),
        false_quarantines: quarantines.wrong,
        quarantines: quarantines.right,
        gossip: record.gossip,
        traffic: record.traffic,
        refusals: Refusal::ALL.iter().map(|reason| reason.code()).zip(record.refusals).collect(),
        membership_whole: has_membership
            .then(|| ended.samples.last().is_some_and(|sample| sample.membership >= 1.0)),
        membership_whole_at: ended.whole_at.filter(|_| has_membership),
        samples: ended.samples,
        faults: ended.faults,
        adversaries: adversaries.collect(),
        adversary_nodes: (0..nodes).filter(|node| shared.dishonest.contains(*node)).collect(),
        misbehave_from: misbehave_from(shared, &ended.who),
        mesh_links,
        regions: ended.regions,
        degrees,
        log,
        compute,
        detection,
        bytes_per_node: ended.bytes_per_node,
        events: record.events,
        checkpoints: ended.checkpoints,
        trace_hash: *hasher.finalize().as_bytes(),
        cost: Cost { wall: ended.wall, peak_rss_bytes: peak_bytes(), threads: shards.len() },
    }
}

/// Who was shut out, and when.
#[derive(Default)]
struct Quarantines {
    /// Those who misbehave: when anybody did first.
    right: Vec<(u32, Duration)>,
    /// The others: by whom.
    wrong: Vec<(u32, u32, Duration)>,
}

impl Quarantines {
    fn of(shared: &Shared, record: &Record) -> Self {
        let mut told: Vec<_> = record.shut_out.iter().chain(&record.convicted).copied().collect();
        told.sort_unstable_by_key(|(who, whom, at)| (*at, *whom, *who));
        let mut quarantines = Quarantines::default();
        for (who, whom, at) in told {
            let at = Duration::from_nanos(at);
            if !shared.dishonest.contains(whom) {
                quarantines.wrong.push((who, whom, at));
            } else if quarantines.right.iter().all(|(known, _)| *known != whom) {
                quarantines.right.push((whom, at));
            }
        }
        quarantines
    }
}

/// What observers did, and what was true.
fn detection(shared: &Shared, shards: &[Shard], record: &mut Record, who: &[Vec<u32>]) -> DetectionFacts {
    record.held.sort_unstable_by_key(|(by, against, kind, at)| (*by, *against, *kind, *at));
    // What was told again was told before.
    record.held.dedup_by_key(|(by, against, kind, _)| (*by, *against, *kind));
    record.held.sort_unstable_by_key(|(by, against, kind, at)| (*at, *by, *against, *kind));
    record.convicted.sort_unstable_by_key(|(by, whom, at)| (*at, *by, *whom));
    let at = Duration::from_nanos;
    let held = |(by, against, kind, ns): &(u32, u32, _, u64)| Held {
        by: *by,
        against: *against,
        kind: *kind,
        at: at(*ns),
    };
    let convicted = |(by, whom, ns): &(u32, u32, u64)| Convicted { by: *by, whom: *whom, at: at(*ns) };
    let mischief = |node: u32| {
        let shard = shards.iter().find(|shard| (shard.sink.nodes.0..shard.sink.nodes.1).contains(&node))?;
        shard.nodes.get((node - shard.first()) as usize)?.mischief.as_ref()?.acted()
    };
    let up = shards.iter().flat_map(|shard| (shard.first()..).zip(&shard.nodes));
    let up = up.filter(|(me, node)| node.is_up() && !shared.dishonest.contains(*me));
    let honest_up = up.clone().count();
    // Who has no step can judge nothing.
    let able: Vec<u32> = up.filter(|(_, node)| node.synchronised_at.is_some()).map(|(me, _)| me).collect();
    let shown = |whom: u32, least: u64| {
        let pairs = record.shown.range((whom, 0)..=(whom, u32::MAX));
        let enough = pairs.filter(move |(_, times)| **times >= least).map(|((_, to), _)| *to);
        enough.filter(|to| able.binary_search(to).is_ok()).collect()
    };
    // Who is named twice is judged by what comes first.
    let truth = |node: u32| {
        let adversary = who.iter().position(|who| who.contains(&node))?;
        let kind = &shared.scenario.adversaries.get(adversary)?.kind;
        let from = mischief(node).map(at);
        let witnesses = match kind.witnesses() {
            Witnesses::All => able.clone(),
            Witnesses::Told(times) => shown(node, times),
            Witnesses::Neighbours(messages) => shown(node, messages),
        };
        let kinds = kind.findings().to_vec();
        Some(Truth { adversary, kinds, is_provable: kind.is_provable(), from, witnesses })
    };
    DetectionFacts {
        held: record.held.iter().map(held).collect(),
        convicted: record.convicted.iter().map(convicted).collect(),
        truth: (0..shared.scenario.network.nodes)
            .filter(|node| shared.dishonest.contains(*node))
            .filter_map(truth)
            .collect(),
        honest_up: u32::try_from(honest_up).unwrap_or(u32::MAX),
        connections_refused: record.connections_refused,
    }
}

/// From when each of those who misbehave does, in their order.
fn misbehave_from(shared: &Shared, who: &[Vec<u32>]) -> Vec<Duration> {
    let adversaries = &shared.scenario.adversaries;
    let from = |node: u32| {
        adversaries
            .iter()
            .zip(who)
            .filter(|(_, who)| who.contains(&node))
            .map(|(adversary, _)| adversary.at)
            .min()
    };
    (0..shared.scenario.network.nodes)
        .filter(|node| shared.dishonest.contains(*node))
        .filter_map(from)
        .collect()
}

/// Who was away while a message was on its way is not in its audience.
fn excuse(sent: &mut [Sent], away: &[(u32, u64, u64)]) {
    for message in sent {
        let due = message.at + nanos(DUE_WITHIN);
        let absent: NodeSet = away
            .iter()
            .filter(|(_, from, until)| *from <= due && *until >= message.at)
            .map(|(node, ..)| *node)
            .collect();
        message.audience.retain(|node| !absent.contains(node));
    }
}
