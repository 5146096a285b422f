//! One scenario for each way to misbehave, of any size.

use std::time::Duration;

use omnimesh_sim::scenario::{
    Adversary, AdversaryKind, Check, Fault, FaultKind, Log, Scenario, Topology, Victims, Who,
};
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// From when adversaries misbehave that do not from the beginning.
const FROM: Duration = Duration::from_secs(20);
/// The part of the nodes that misbehaves.
const SHARE: f64 = 0.05;
/// The same of those who publish themselves: what they say goes to everybody.
const SHARE_LOUD: f64 = 0.01;
/// The part that is slow, and how much.
const SLOW_SHARE: f64 = 0.05;
const SLOW_FACTOR: f64 = 10.0;
const SLOW_FRAME: Duration = Duration::from_millis(2);
/// Messages that honest nodes publish in a second, all together, and how many take turns.
const RATE: f64 = 3.0;
const AUTHORS: u32 = 12;

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Attack {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What they do.
    pub(crate) kind: AdversaryKind,
    /// What is particular about it, for people.
    pub(crate) remark: &'static str,
    share: f64,
    at: Duration,
}

/// All that the simulator knows.
pub(crate) fn attacks() -> Vec<Attack> {
    let secs = Duration::from_secs;
    let attack = |name, kind: AdversaryKind, share, at, remark| Attack { name, kind, remark, share, at };
    let loud = SHARE_LOUD;
    let one = Victims::One;
    vec![
        attack("equivocate", AdversaryKind::Equivocate { rate_per_s: 0.2 }, loud, FROM, "a pair every 5 s"),
        attack("fork", AdversaryKind::Fork { rate_per_s: 0.2 }, loud, FROM, "a forged record every 5 s"),
        attack("slander", AdversaryKind::Slander { rate_per_s: 0.2 }, loud, FROM, "an accusation every 5 s"),
        attack("tamper", AdversaryKind::Tamper, SHARE, FROM, "a bit of each forwarded message"),
        attack("outsider", AdversaryKind::Outsider { rate_per_s: 0.5 }, SHARE, FROM, "a message every 2 s"),
        attack(
            "replay",
            AdversaryKind::Replay { after: secs(15) },
            SHARE,
            FROM,
            "15 s later; routers forget after 5 s",
        ),
        attack("rush", AdversaryKind::Rush { by: secs(30) }, SHARE, FROM, "30 s ahead"),
        attack("freeze", AdversaryKind::Freeze, SHARE, FROM, ""),
        attack("two_faced", AdversaryKind::TwoFaced { by: secs(5) }, SHARE, FROM, "within 5 s either way"),
        attack(
            "flood",
            AdversaryKind::Flood { rate_per_s: 60.0 },
            0.0,
            FROM,
            "two nodes, for 3 s; limits at 1/250",
        ),
        attack(
            "silence",
            AdversaryKind::Silence { rate_per_s: 0.9 },
            loud,
            secs(40),
            "wrote every 1.1 s until then",
        ),
        attack("never_forward", AdversaryKind::NeverForward, SHARE, FROM, ""),
        attack("covert_flash", AdversaryKind::CovertFlash, SHARE, secs(30), "all at once"),
        attack("cold_boot", AdversaryKind::ColdBoot { dials: 20 }, SHARE, secs(0), "20 dials each"),
        attack(
            "sybil",
            AdversaryKind::Sybil { dials: 20 },
            SHARE,
            secs(5),
            "20 dials each, from one address",
        ),
        attack("censor", AdversaryKind::Censor { victims: Victims::Publishers }, SHARE, FROM, "all authors"),
        attack("eclipse", AdversaryKind::Eclipse { victims: one }, 0.0, FROM, "ten nodes around one"),
    ]
}

impl Attack {
    /// The scenario, with so many nodes.
    pub(crate) fn scenario(&self, nodes: u32, seed: u64, with_slow: bool) -> Scenario {
        let mut chosen =
            index::sample(&mut ChaCha8Rng::seed_from_u64(seed), nodes as usize - 1, nodes as usize - 1)
                .into_iter()
                .filter_map(|node| u32::try_from(node + 1).ok());
        let mut some = |count: u32| Who::Nodes(chosen.by_ref().take(count as usize).collect());
        let mut scenario = Scenario { name: self.name.into(), seed, ..Scenario::default() };
        let network = &mut scenario.network;
        network.nodes = nodes;
        network.topology = Topology::Random { dials: 8.min(nodes - 1) };
        scenario.workload.start = Duration::from_secs(8);
        scenario.workload.rate_per_s = RATE;
        scenario.workload.authors = Some(AUTHORS.min(nodes / 3));
        // Somebody who falls silent is to be missed for that, and not at the end of the run.
        scenario.duration = Duration::from_secs(75);
        scenario.workload.messages = 190;
        let who = match self.kind {
            AdversaryKind::Flood { .. } => some(2),
            AdversaryKind::Eclipse { .. } => some(10.min(nodes / 5)),
            _ => some(at_least_two(self.share, nodes)),
        };
        let until =
            matches!(self.kind, AdversaryKind::Flood { .. }).then(|| self.at + Duration::from_secs(3));
        scenario.adversaries = vec![Adversary { at: self.at, until, who, kind: self.kind.clone() }];
        match self.kind {
            // A full-size flood of a thousand nodes is what the limits are there to spare.
            AdversaryKind::Flood { .. } => scenario.observer.flood_per_s = Some(20),
            AdversaryKind::Replay { .. } => scenario.gossip.seen_ttl = Duration::from_secs(5),
            // Where nobody else has written often enough to be missed, a node takes itself for deaf.
            AdversaryKind::Silence { .. } => {
                scenario.workload.rate_per_s = 3.0 * RATE;
                scenario.workload.messages *= 3;
            }
            AdversaryKind::Fork { .. } => {
                let (start, end) = (Duration::from_secs(10), Duration::from_secs(60));
                scenario.log = Some(Log { start, end, rate_per_s: 1.0, authors: Some(5), ..Log::default() });
            }
            _ => {}
        }
        if with_slow {
            // Honest ones: what somebody else is slow with is not theirs.
            let who = some(at_least_two(SLOW_SHARE, nodes));
            let fault = |kind| Fault { at: Duration::from_secs(1), until: None, who: who.clone(), kind };
            scenario.faults = vec![
                fault(FaultKind::Degrade { loss: 0.0, latency_factor: SLOW_FACTOR }),
                fault(FaultKind::Slow { frame_time: SLOW_FRAME }),
            ];
        }
        scenario.checks = vec![Check::DETECTION];
        scenario
    }
}

fn at_least_two(share: f64, nodes: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of nodes"
    )]
    let count = (share * f64::from(nodes)).round() as u32;
    count.max(2)
}
