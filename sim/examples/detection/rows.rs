//! Each way to misbehave, and the scenarios that have them, of any size.

use std::fmt;
use std::time::Duration;

use omnimesh_sim::scenario::{
    Adversary, AdversaryKind, Check, Fault, FaultKind, Log, Scenario, Topology, Victims, Who,
};
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// From when adversaries misbehave that do not from the beginning.
const FROM: Duration = Duration::from_secs(20);
/// From when honest nodes write.
const START: Duration = Duration::from_secs(8);
/// The part of the nodes that misbehaves in one way.
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

/// Attacks in the same mesh: none has a name of another's, nor hides it.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    /// What happens in it.
    pub(crate) attacks: Vec<Attack>,
    /// How long a run takes: the slowest verdict of a second seed and half as long again, and not so long that somebody who falls
    /// silent is missed for the run's end.
    pub(crate) duration: Duration,
}

/// All that the simulator knows.
pub(crate) fn meshes() -> Vec<Mesh> {
    let secs = Duration::from_secs;
    let attack = |name, kind: AdversaryKind, share, at, remark| Attack { name, kind, remark, share, at };
    let mesh = |duration_s, attacks| Mesh { attacks, duration: secs(duration_s) };
    let (loud, one) = (SHARE_LOUD, Victims::One);
    let tamper = attack("tamper", AdversaryKind::Tamper, SHARE, FROM, "a bit of each forwarded message");
    let eclipse =
        attack("eclipse", AdversaryKind::Eclipse { victims: one }, 0.0, FROM, "ten nodes around one");
    let outsider =
        attack("outsider", AdversaryKind::Outsider { rate_per_s: 0.5 }, SHARE, FROM, "a message every 2 s");
    let cold_boot =
        attack("cold_boot", AdversaryKind::ColdBoot { dials: 20 }, SHARE, secs(0), "20 dials each");
    let replay = AdversaryKind::Replay { after: secs(15) };
    let replay = attack("replay", replay, SHARE, FROM, "15 s later; routers forget after 5 s");
    let sybil = AdversaryKind::Sybil { dials: 20 };
    let sybil = attack("sybil", sybil, SHARE, secs(5), "20 dials each, from one address");
    let rush = attack("rush", AdversaryKind::Rush { by: secs(30) }, SHARE, FROM, "30 s ahead");
    let never_forward = attack("never_forward", AdversaryKind::NeverForward, SHARE, FROM, "");
    let freeze = attack("freeze", AdversaryKind::Freeze, SHARE, FROM, "");
    let censor = AdversaryKind::Censor { victims: Victims::Publishers };
    let censor = attack("censor", censor, SHARE, FROM, "all authors");
    let two_faced = AdversaryKind::TwoFaced { by: secs(5) };
    let two_faced = attack("two_faced", two_faced, SHARE, FROM, "within 5 s either way");
    let covert_flash = attack("covert_flash", AdversaryKind::CovertFlash, SHARE, secs(30), "all at once");
    let flood = AdversaryKind::Flood { rate_per_s: 60.0 };
    let flood = attack("flood", flood, 0.0, FROM, "two nodes, for 3 s; limits at 1/250");
    let silence = AdversaryKind::Silence { rate_per_s: 0.9 };
    let silence = attack("silence", silence, loud, secs(40), "wrote every 1.1 s until then");
    let equivocate = AdversaryKind::Equivocate { rate_per_s: 0.2 };
    let equivocate = attack("equivocate", equivocate, loud, FROM, "a pair every 5 s");
    let fork =
        attack("fork", AdversaryKind::Fork { rate_per_s: 0.2 }, loud, FROM, "a forged record every 5 s");
    let slander = AdversaryKind::Slander { rate_per_s: 0.2 };
    let slander = attack("slander", slander, loud, FROM, "an accusation every 5 s");
    vec![
        mesh(60, vec![equivocate, fork, slander]),
        mesh(75, vec![silence]),
        mesh(36, vec![tamper]),
        mesh(60, vec![eclipse]),
        mesh(55, vec![replay, sybil]),
        mesh(45, vec![outsider, cold_boot]),
        mesh(60, vec![rush, never_forward]),
        mesh(60, vec![freeze, censor]),
        mesh(75, vec![two_faced, covert_flash]),
        mesh(32, vec![flood]),
    ]
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.attacks.iter().map(|attack| attack.name).collect();
        write!(f, "{} ({} s)", names.join(" + "), self.duration.as_secs())
    }
}

impl Mesh {
    /// The scenario, with so many nodes.
    pub(crate) fn scenario(&self, nodes: u32, seed: u64, with_slow: bool) -> Scenario {
        let mut chosen =
            index::sample(&mut ChaCha8Rng::seed_from_u64(seed), nodes as usize - 1, nodes as usize - 1)
                .into_iter()
                .filter_map(|node| u32::try_from(node + 1).ok());
        let mut some = |count: u32| Who::Nodes(chosen.by_ref().take(count as usize).collect());
        let mut scenario =
            Scenario { name: "detection".into(), seed, duration: self.duration, ..Scenario::default() };
        let network = &mut scenario.network;
        network.nodes = nodes;
        network.topology = Topology::Random { dials: 8.min(nodes - 1) };
        scenario.workload.start = START;
        scenario.workload.rate_per_s = RATE;
        scenario.workload.authors = Some(AUTHORS.min(nodes / 3));
        for Attack { kind, share, at, .. } in &self.attacks {
            let who = match kind {
                AdversaryKind::Flood { .. } => some(2),
                AdversaryKind::Eclipse { .. } => some(10.min(nodes / 5)),
                _ => some(at_least_two(*share, nodes)),
            };
            let until = matches!(kind, AdversaryKind::Flood { .. }).then(|| *at + Duration::from_secs(3));
            scenario.adversaries.push(Adversary { at: *at, until, who, kind: kind.clone() });
            match kind {
                // A full-size flood of a thousand nodes is what the limits are there to spare.
                AdversaryKind::Flood { .. } => scenario.observer.flood_per_s = Some(20),
                AdversaryKind::Replay { .. } => scenario.gossip.seen_ttl = Duration::from_secs(5),
                // Where nobody else has written often enough to be missed, a node takes itself for deaf.
                AdversaryKind::Silence { .. } => scenario.workload.rate_per_s = 3.0 * RATE,
                AdversaryKind::Fork { .. } => {
                    let start = Duration::from_secs(10);
                    // So early that what is forged last is found.
                    let end =
                        Duration::from_secs(60).min(self.duration.saturating_sub(Duration::from_secs(15)));
                    scenario.log =
                        Some(Log { start, end, rate_per_s: 1.0, authors: Some(5), ..Log::default() });
                }
                _ => {}
            }
        }
        // Till shortly before the end, so that what is written last arrives.
        let writes = self.duration.saturating_sub(START + Duration::from_secs(4)).as_secs_f64();
        scenario.workload.messages = count(writes * scenario.workload.rate_per_s);
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
    count(share * f64::from(nodes)).max(2)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number, rounded")]
fn count(number: f64) -> u32 {
    number.round() as u32
}
