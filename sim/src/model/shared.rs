//! What all nodes see and none changes while a window of time goes by.

use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use omnimesh_protocol::config::{CheckpointsConfig, NodeConfig};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::gossip::Topic;
use omnimesh_protocol::{
    Hash, Identity, Mesh, MessageId, NodeId, Step, author, gossip, log, membership, replay, step, validate,
};
use smallvec::SmallVec;

use super::compute_jobs::ComputeSettings;
use super::link::{LinkModel, NodeSet, nanos};
use super::log::LogSettings;
use super::observer::ObserverSettings;
use super::person::{WALL_NS, identity, ip_of, wall_of};
use super::plan::Plan;
use crate::scenario::{AdversaryKind, Crypto, Sabotage, Scenario, Witnesses};

/// A message that somebody published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) author: u32,
    /// Its number in the workload; none for what adversaries publish besides.
    pub(super) number: Option<u32>,
}

/// All messages that were published.
pub(super) type KnownMessages = HashMap<MessageId, Known>;

/// The world.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scenario: Scenario,
    pub(super) seed: u64,
    pub(super) mesh: Mesh,
    pub(super) channel: Channel,
    pub(super) topic: Topic,
    pub(super) gossip: Arc<gossip::Config>,
    pub(super) validate: validate::Config,
    pub(super) author: author::Config,
    pub(super) step: step::Config,
    pub(super) membership: Option<membership::Config>,
    /// Nodes keep a log.
    pub(super) log: Option<LogSettings>,
    /// Nodes watch each other.
    pub(super) observer: Option<ObserverSettings>,
    /// Nodes do jobs.
    pub(super) compute: Option<ComputeSettings>,
    /// Where there are jobs: who is up, and who holds which output.
    pub(super) up: NodeSet,
    pub(super) blobs: HashMap<Hash, SmallVec<[u32; 4]>>,
    pub(super) links: LinkModel,
    pub(super) dishonest: NodeSet,
    /// Of each adversary of the scenario.
    pub(super) victims: Vec<NodeSet>,
    pub(super) known: KnownMessages,
    /// What happens from then to then, in nanoseconds, is recorded.
    pub(super) watched: Range<u64>,
    withholding: HashMap<u32, (u64, usize)>,
    ids: Vec<NodeId>,
    /// By id; only where nodes name each other by it.
    places: HashMap<NodeId, u32>,
    addresses: HashMap<u32, u32>,
}

impl Shared {
    pub(super) fn new(scenario: &Scenario, plan: &Plan, ids: Vec<NodeId>) -> Self {
        let mesh = Mesh::open("simulation").expect("a good name");
        let channel = Channel::new("sim").expect("a good name");
        let topic = Topic::new(&channel.topic(&mesh.id())).expect("short enough");
        let node = NodeConfig::default();
        let validate = validate_config(&node, scenario);
        let author = author::Config {
            message_bytes_max: validate.message_bytes_max,
            bundle_payloads_max: node.bundle_payloads_max,
            bundle_bytes_max: node.bundle_bytes_max,
            pending_max: 1024,
            pending_bytes_max: 1 << 20,
        };
        let network = &scenario.network;
        let step = step::Config {
            sample_max: network.sync_peers,
            round_interval: network.sync_interval,
            untrimmed: scenario.sabotage.untrimmed,
            ..step::Config::new(network.step_interval)
        };
        let membership = network.membership.then(|| membership::Config {
            members_max: (network.nodes as usize * 2).max(16),
            ..membership::Config::default()
        });
        let log = log_settings(scenario, &node, &validate);
        let observer = scenario.has_observer().then(|| ObserverSettings::new(&scenario.observer));
        let compute =
            scenario.compute.as_ref().map(|compute| ComputeSettings::new(scenario, compute, plan, &ids));
        let has_observer = observer.is_some();
        let named = membership.is_some() || log.is_some() || has_observer || compute.is_some();
        let places = if named { ids.iter().copied().zip(0..).collect() } else { HashMap::new() };
        Shared {
            seed: scenario.seed,
            mesh,
            channel,
            topic,
            gossip: Arc::new(scenario.gossip.clone()),
            validate,
            author,
            step,
            membership,
            log,
            observer,
            compute,
            up: NodeSet::default(),
            blobs: HashMap::new(),
            links: LinkModel::new(scenario.links.clone(), scenario.seed, plan.regions.clone()),
            dishonest: plan.dishonest.clone(),
            victims: plan.victims.clone(),
            known: HashMap::new(),
            watched: 0..0,
            withholding: if has_observer { withholding(scenario, plan) } else { HashMap::new() },
            ids,
            places,
            addresses: addresses(scenario, plan),
            scenario: scenario.clone(),
        }
    }

    /// The gates of validators that are left open.
    pub(super) fn sabotage(&self) -> validate::Sabotage {
        let Sabotage { validator, .. } = self.scenario.sabotage;
        let trust_tags = validator.trust_tags || self.scenario.crypto == Crypto::Skip;
        validate::Sabotage { trust_tags, ..validator }
    }

    pub(super) fn id(&self, node: u32) -> NodeId {
        self.ids[node as usize]
    }

    pub(super) fn identity(&self, node: u32) -> Identity {
        identity(self.seed, node)
    }

    pub(super) fn find(&self, id: &NodeId) -> Option<u32> {
        self.places.get(id).copied()
    }

    /// From when a node keeps from another what it should forward; `None`: it does not.
    pub(super) fn withholds_from(&self, node: u32, from_whom: u32) -> Option<u64> {
        let (at, number) = *self.withholding.get(&node)?;
        let is_eclipse = matches!(self.scenario.adversaries.get(number)?.kind, AdversaryKind::Eclipse { .. });
        (!is_eclipse || self.victims.get(number)?.contains(from_whom)).then_some(at)
    }

    pub(super) fn ip(&self, node: u32) -> IpAddr {
        ip_of(self.addresses.get(&node).copied().unwrap_or(node))
    }

    /// What the node's wall clock shows.
    pub(super) fn wall_ns(&self, node: u32, now: u64) -> u64 {
        wall_of(self.seed, node, self.scenario.network.clock_offset, now)
    }

    /// Mesh time where nodes do not keep it themselves.
    pub(super) fn true_time_ns(&self, now: u64) -> u64 {
        WALL_NS.saturating_add(now)
    }

    pub(super) fn true_step(&self, now: u64) -> Step {
        let interval = u64::try_from(self.scenario.network.step_interval.as_nanos()).unwrap_or(u64::MAX);
        Step(self.true_time_ns(now) / interval.max(1))
    }
}

fn validate_config(node: &NodeConfig, scenario: &Scenario) -> validate::Config {
    let count = |n: usize| NonZeroUsize::new(n.max(1)).expect("at least one");
    validate::Config {
        phase_interval: NonZeroU64::new(node.phase_interval).expect("the default is not zero"),
        // As many as the step window needs; more only cost memory here.
        pattern_cache: count(16),
        message_bytes_max: scenario.gossip.limits.frame_bytes_max.min(65_536),
        step_window_past: node.step_window_past,
        step_window_future: node.step_window_future,
        replay: replay::Config {
            // One word: authors here are far from overtaking themselves by more.
            window: replay::WINDOW_MIN,
            authors_max: count(node.authors_max.max(scenario.network.nodes as usize)),
        },
    }
}

fn log_settings(scenario: &Scenario, node: &NodeConfig, validate: &validate::Config) -> Option<LogSettings> {
    let of_scenario = scenario.log.as_ref()?;
    let checkpoints = scenario
        .checkpoints
        .clone()
        .unwrap_or_else(|| CheckpointsConfig { every_steps: 0, ..CheckpointsConfig::default() });
    Some(LogSettings::new(log::Config {
        message_bytes_max: validate.message_bytes_max,
        step_window_future: validate.step_window_future,
        bundle_payloads_max: node.bundle_payloads_max,
        bundle_bytes_max: node.bundle_bytes_max,
        authors_max: node.authors_max.max(scenario.network.nodes as usize),
        interval: of_scenario.interval,
        checkpoint_steps: checkpoints.every_steps,
        checkpoint_delay_steps: checkpoints.delay_steps,
        checkpoint_signers: checkpoints.signers,
        checkpoint_bytes_max: checkpoints.bytes_max,
        keep_steps: checkpoints.keep_steps,
        keep_bytes: checkpoints.keep_bytes,
        ..log::Config::default()
    }))
}

/// From when those who withhold do, and which adversaries of the scenario they are.
fn withholding(scenario: &Scenario, plan: &Plan) -> HashMap<u32, (u64, usize)> {
    let mut withholding = HashMap::new();
    for (number, (adversary, who)) in scenario.adversaries.iter().zip(&plan.adversaries).enumerate() {
        if matches!(adversary.kind.witnesses(), Witnesses::Neighbours(_)) {
            withholding.extend(who.iter().map(|node| (*node, (nanos(adversary.at), number))));
        }
    }
    withholding
}

/// Of those that share an address: the first of them.
fn addresses(scenario: &Scenario, plan: &Plan) -> HashMap<u32, u32> {
    let mut addresses = HashMap::new();
    for (adversary, who) in scenario.adversaries.iter().zip(&plan.adversaries) {
        if let (AdversaryKind::Sybil { .. }, Some(first)) = (&adversary.kind, who.first()) {
            addresses.extend(who.iter().map(|node| (*node, *first)));
        }
    }
    addresses
}
