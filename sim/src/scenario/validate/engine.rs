//! What an engine cannot do.

use super::super::{Problem, Repair, Scenario};
use super::Problems;

/// Nodes of the engine `libp2p` at most: each takes about a megabyte and a half.
const LIBP2P_NODES_MAX: u32 = 10_000;

impl Scenario {
    /// What keeps a valid scenario from being run by the engine `libp2p`.
    pub fn problems_of_libp2p(&self) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        let remedy = "leave it out, or take the engine `model`";
        let mut refuse = |is_there: bool, path: &str, what: &str| {
            problems.require(
                !is_there,
                path,
                &format!("{what}, which the engine `libp2p` does not have"),
                remedy,
            );
        };
        refuse(!self.faults.is_empty(), "faults", "there are faults");
        refuse(!self.adversaries.is_empty(), "adversaries", "there are adversaries");
        let links = &self.links;
        refuse(links.duplication > 0.0, "links.duplication", "frames come twice");
        refuse(links.reordering > 0.0, "links.reordering", "frames overtake each other");
        refuse(links.repair == Repair::None && links.loss > 0.0, "links.repair", "losses are not repaired");
        refuse(self.log.is_some(), "log", "nodes keep a log on disks that fail as planned");
        refuse(self.compute.is_some(), "compute", "there are jobs with modelled tasks");
        let network = &self.network;
        refuse(network.membership, "network.membership", "nodes know all others");
        refuse(!network.step_sync, "network.step_sync", "nodes know the true time");
        refuse(!network.join_over.is_zero(), "network.join_over_ms", "nodes join one after the other");
        if network.nodes > LIBP2P_NODES_MAX {
            let message = format!("is more than {LIBP2P_NODES_MAX} real nodes in one process");
            problems.push("network.nodes", message, "take fewer, or the engine `model`");
        }
        problems.0
    }
}
