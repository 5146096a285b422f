//! The attacks.

use std::time::Duration;

use omnimesh_sim::scenario::{Adversary, AdversaryKind, Check, Scenario, Topology, Victims, Who};

/// How many there are of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Honest nodes.
    pub(crate) honest: u32,
    /// Nodes of the attacker.
    pub(crate) sybils: u32,
}

/// One attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    kind: AdversaryKind,
    at: Duration,
    /// Of the sybils so many take part, in hundredths; the others are not there.
    share: u32,
}

/// All of them, the first of which is none. Where each sybil dials particular honest nodes, it dials so many.
pub(crate) fn attacks(dials: u32) -> Vec<Attack> {
    let secs = Duration::from_secs;
    let attack = |name, text, kind, at, share| Attack { name, text, kind, at, share };
    let all = Victims::All;
    vec![
        attack("none", "nobody attacks; honest nodes alone", AdversaryKind::NeverForward, secs(0), 0),
        attack(
            "eclipse_one",
            "a tenth of the sybils connect to one node, and pass on nothing to it or from it",
            AdversaryKind::Eclipse { victims: Victims::One },
            secs(0),
            10,
        ),
        attack(
            "eclipse_publishers",
            "a tenth of the sybils connect to every author, and pass on nothing to them or from them",
            AdversaryKind::Eclipse { victims: Victims::Publishers },
            secs(0),
            10,
        ),
        attack(
            "eclipse_network",
            "a tenth of the sybils connect to every honest node, and pass on nothing",
            AdversaryKind::Eclipse { victims: all },
            secs(0),
            10,
        ),
        attack(
            "censor",
            "all sybils drop the messages of one author, and forward all others",
            AdversaryKind::Censor { victims: Victims::One },
            secs(5),
            100,
        ),
        attack(
            "degrade",
            "sybils do everything but forward messages, from the beginning",
            AdversaryKind::NeverForward,
            secs(0),
            100,
        ),
        attack(
            "cold_boot",
            "sybils graft everybody while the mesh forms, each dials some more, and forward nothing",
            AdversaryKind::ColdBoot { dials },
            secs(0),
            100,
        ),
        attack(
            "covert_flash",
            "sybils behave well for half a minute, and then all stop forwarding at once",
            AdversaryKind::CovertFlash,
            secs(30),
            100,
        ),
        attack(
            "dawn",
            "sybils behave well while the mesh forms, and stop forwarding as the first message is published: as `degrade`, for whom there is nothing to forward before",
            AdversaryKind::CovertFlash,
            secs(12),
            100,
        ),
        attack(
            "one_address",
            "sybils come from one address, dial some honest nodes each, graft them, and forward nothing",
            AdversaryKind::Sybil { dials },
            secs(5),
            100,
        ),
    ]
}

impl Attack {
    pub(crate) fn scenario(&self, sizes: Sizes, seed: u64, is_defended: bool) -> Scenario {
        let mut scenario = Scenario { name: self.name.into(), seed, ..Scenario::default() };
        let sybils = sizes.sybils * self.share / 100;
        scenario.network.nodes = sizes.honest + sybils;
        scenario.network.topology = Topology::Random { dials: 8 };
        scenario.network.sync_peers = 4;
        // Clocks are not what these attacks are about.
        scenario.network.step_sync = false;
        scenario.duration = Duration::from_secs(75);
        scenario.workload.start = Duration::from_secs(12);
        scenario.workload.messages = 120;
        scenario.workload.rate_per_s = 2.5;
        scenario.workload.authors = Some(10.min(sizes.honest / 2));
        if sybils > 0 {
            let kind = match &self.kind {
                AdversaryKind::Sybil { dials } => AdversaryKind::Sybil { dials: *dials.min(&sizes.honest) },
                AdversaryKind::ColdBoot { dials } => {
                    AdversaryKind::ColdBoot { dials: *dials.min(&sizes.honest) }
                }
                kind => kind.clone(),
            };
            scenario.adversaries =
                vec![Adversary { at: self.at, until: None, who: Who::Count(sybils), kind }];
        }
        scenario.observer.enabled = Some(is_defended);
        if !is_defended {
            let gossip = &mut scenario.gossip;
            (gossip.score, gossip.mesh_degree_out, gossip.flood_publish) = (None, 0, false);
        }
        scenario.checks = vec![Check::Monotone, Check::Authentic];
        scenario
    }
}
