//! What follows from a scenario before anything happens: who is hit by what, who is connected to whom.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::link::NodeSet;
use super::random::mix;
use crate::scenario::{AdversaryKind, Scenario, Topology, Victims, Who};

/// Candidates for publishing a message; most often the first can.
pub(crate) const CANDIDATES: usize = 64;
/// The stream of randomness from which the authors of messages are drawn.
pub(crate) const OF_AUTHORS: u64 = 8;

/// Nodes and connections, and who is who.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The region of each node; empty if there are none.
    pub(crate) regions: Vec<u16>,
    /// (who dials, whom), each pair once.
    pub(crate) links: Vec<(u32, u32)>,
    /// Of each fault, whom it hits.
    pub(crate) faults: Vec<Vec<u32>>,
    /// Of each adversary, who it is.
    pub(crate) adversaries: Vec<Vec<u32>>,
    /// Of each adversary, its victims.
    pub(crate) victims: Vec<NodeSet>,
    /// All who misbehave.
    pub(crate) dishonest: NodeSet,
    /// Those who publish the workload; empty: anybody honest.
    pub(crate) authors: Vec<u32>,
    /// Those who append to their logs; empty: anybody honest.
    pub(crate) log_authors: Vec<u32>,
}

/// A stream of randomness of its own for each purpose, so that adding a fault does not change the topology.
pub(crate) fn stream(seed: u64, purpose: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(mix(seed ^ mix(purpose)))
}

impl Plan {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let nodes = scenario.network.nodes;
        let regions = regions(scenario);
        let seed = scenario.seed;
        let mut dishonest = NodeSet::default();
        let mut rng = stream(seed, 1);
        let mut adversaries = Vec::new();
        for adversary in &scenario.adversaries {
            // Node 0 founds the mesh, and nobody misbehaves in two ways unless a scenario names it twice.
            let free: Vec<u32> = (1..nodes).filter(|node| !dishonest.contains(*node)).collect();
            let who = choose(&adversary.who, nodes, &free, &regions, &mut rng);
            for node in &who {
                dishonest.insert(*node);
            }
            adversaries.push(who);
        }
        let honest: Vec<u32> = (0..nodes).filter(|node| !dishonest.contains(*node)).collect();
        let mut rng = stream(seed, 2);
        let authors = match scenario.workload.authors {
            Some(count) => sample(&honest, count as usize, &mut rng),
            None => Vec::new(),
        };
        let mut rng = stream(seed, 9);
        let log_authors = match scenario.log.as_ref().and_then(|log| log.authors) {
            Some(count) => sample(&honest, count as usize, &mut rng),
            None => Vec::new(),
        };
        let mut rng = stream(seed, 3);
        let all: Vec<u32> = (0..nodes).collect();
        let faults =
            scenario.faults.iter().map(|fault| choose(&fault.who, nodes, &all, &regions, &mut rng)).collect();
        let mut rng = stream(seed, 4);
        let victims = scenario
            .adversaries
            .iter()
            .map(|adversary| match adversary.kind {
                AdversaryKind::Eclipse { victims } => {
                    chosen_victims(victims, &honest, &honest, &authors, &mut rng)
                }
                // Who never says anything cannot be kept from being heard.
                AdversaryKind::Censor { victims } => {
                    let heard = if authors.is_empty() { &honest } else { &authors };
                    chosen_victims(victims, heard, &honest, &authors, &mut rng)
                }
                _ => NodeSet::default(),
            })
            .collect();
        let links = Vec::new();
        let mut plan = Plan { regions, links, faults, adversaries, victims, dishonest, authors, log_authors };
        plan.connect(scenario, &honest);
        plan
    }

    /// Who may publish a message of the workload, the first of them that can.
    pub(crate) fn candidates(&self, number: u32, nodes: u32, rng: &mut ChaCha8Rng) -> Vec<u32> {
        match self.authors.len() {
            0 => (0..CANDIDATES).map(|_| rng.random_range(0..nodes)).collect(),
            authors => vec![self.authors[number as usize % authors]],
        }
    }

    fn connect(&mut self, scenario: &Scenario, honest: &[u32]) {
        let nodes = scenario.network.nodes;
        let mut rng = stream(scenario.seed, 5);
        let mut links = Vec::new();
        match scenario.network.topology {
            Topology::Random { dials } => {
                let dials = dials.min(nodes - 1) as usize;
                for a in 0..nodes {
                    for b in index::sample(&mut rng, nodes as usize - 1, dials) {
                        let b = u32::try_from(b).expect("fewer nodes than 2^32");
                        links.push((a, if b >= a { b + 1 } else { b }));
                    }
                }
            }
            Topology::Ring { neighbours } => {
                for a in 0..nodes {
                    links.extend((1..=neighbours.min(nodes - 1)).map(|by| (a, (a + by) % nodes)));
                }
            }
            Topology::Full => links.extend((0..nodes).flat_map(|a| (0..a).map(move |b| (a, b)))),
        }
        let mut rng = stream(scenario.seed, 6);
        for ((adversary, who), victims) in
            scenario.adversaries.iter().zip(&self.adversaries).zip(&self.victims)
        {
            for node in who {
                match adversary.kind {
                    AdversaryKind::Eclipse { .. } => {
                        links.extend(
                            honest.iter().filter(|honest| victims.contains(**honest)).map(|v| (*node, *v)),
                        );
                    }
                    AdversaryKind::Sybil { dials } | AdversaryKind::ColdBoot { dials } => {
                        links
                            .extend(sample(honest, dials as usize, &mut rng).into_iter().map(|v| (*node, v)));
                    }
                    _ => {}
                }
            }
        }
        // Of two who dial each other one connection stays: that of the first to dial.
        links.sort_by_key(|(a, b)| (*a.min(b), *a.max(b), a > b));
        links.dedup_by_key(|(a, b)| (*a.min(b), *a.max(b)));
        self.links = links;
    }
}

fn regions(scenario: &Scenario) -> Vec<u16> {
    let regions = &scenario.network.regions;
    if regions.is_empty() {
        return Vec::new();
    }
    let total: f64 = regions.iter().map(|region| region.share).sum();
    let mut rng = stream(scenario.seed, 7);
    (0..scenario.network.nodes)
        .map(|_| {
            let mut at = rng.random_range(0.0..1.0) * total;
            let place = regions.iter().position(|region| {
                at -= region.share;
                at < 0.0
            });
            u16::try_from(place.unwrap_or(regions.len() - 1)).unwrap_or(u16::MAX)
        })
        .collect()
}

fn sample(from: &[u32], count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut chosen: Vec<u32> =
        index::sample(rng, from.len(), count.min(from.len())).into_iter().map(|at| from[at]).collect();
    chosen.sort_unstable();
    chosen
}

fn choose(who: &Who, nodes: u32, free: &[u32], regions: &[u16], rng: &mut ChaCha8Rng) -> Vec<u32> {
    match who {
        Who::All => free.to_vec(),
        Who::Nodes(named) => named.iter().copied().filter(|node| *node < nodes).collect(),
        Who::Count(count) => sample(free, *count as usize, rng),
        Who::Share(share) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `nodes`")]
            let count = (share.clamp(0.0, 1.0) * f64::from(nodes)).round() as usize;
            sample(free, count, rng)
        }
        Who::Regions(named) => free
            .iter()
            .copied()
            .filter(|node| regions.get(*node as usize).is_some_and(|r| named.contains(&usize::from(*r))))
            .collect(),
    }
}

fn chosen_victims(
    victims: Victims,
    any: &[u32],
    honest: &[u32],
    authors: &[u32],
    rng: &mut ChaCha8Rng,
) -> NodeSet {
    match victims {
        Victims::One => sample(any, 1, rng).into_iter().collect(),
        Victims::Publishers if !authors.is_empty() => authors.iter().copied().collect(),
        Victims::Publishers | Victims::All => honest.iter().copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scenario::Adversary;

    #[test]
    fn each_pair_is_linked_once_and_nobody_to_itself() {
        let mut scenario = Scenario::default();
        for topology in [Topology::Random { dials: 10 }, Topology::Ring { neighbours: 3 }, Topology::Full] {
            scenario.network.topology = topology.clone();
            let plan = Plan::new(&scenario);
            let mut pairs: Vec<_> = plan.links.iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            assert!(pairs.iter().all(|(a, b)| a < b), "{topology:?}");
            let count = pairs.len();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), count, "{topology:?}");
        }
    }

    #[test]
    fn adding_an_adversary_leaves_topology_and_authors_alone() {
        let mut scenario = Scenario::default();
        scenario.workload.authors = Some(5);
        let before = Plan::new(&scenario);
        scenario.faults.push(crate::scenario::Fault {
            at: Duration::ZERO,
            until: None,
            who: Who::Share(0.5),
            kind: crate::scenario::FaultKind::ClockDrift { ppm: 1.0 },
        });
        let after = Plan::new(&scenario);
        assert_eq!((before.links, before.authors), (after.links, after.authors));
        assert_eq!(after.faults[0].len(), 50);
    }

    #[test]
    fn one_who_is_censored_is_an_author_if_there_are_any() {
        let kind = AdversaryKind::Censor { victims: Victims::One };
        let censor = Adversary { at: Duration::ZERO, until: None, who: Who::Share(0.3), kind };
        let mut scenario = Scenario { adversaries: vec![censor], ..Scenario::default() };
        scenario.workload.authors = Some(3);
        for seed in 0..20 {
            scenario.seed = seed;
            let plan = Plan::new(&scenario);
            assert_eq!(
                plan.authors.iter().filter(|author| plan.victims[0].contains(**author)).count(),
                1,
                "{seed}"
            );
            assert_eq!(plan.victims[0].len(), 1, "{seed}");
        }
        scenario.workload.authors = None;
        assert_eq!(Plan::new(&scenario).victims[0].len(), 1);
    }

    #[test]
    fn adversaries_are_distinct_and_spare_the_founder() {
        let kind = AdversaryKind::Silence { rate_per_s: 0.0 };
        let one = Adversary { at: Duration::ZERO, until: None, who: Who::Share(0.3), kind };
        let scenario = Scenario { adversaries: vec![one; 3], ..Scenario::default() };
        let plan = Plan::new(&scenario);
        assert_eq!(plan.dishonest.len(), 90);
        assert!(!plan.dishonest.contains(0));
    }
}
