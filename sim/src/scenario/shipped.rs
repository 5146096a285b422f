//! The scenarios that come with the program.

use crate::suggest::nearest;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Names and texts, sorted by name.
        pub const ALL: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../configs/scenarios/", $name, ".toml")))),*];
    };
}

shipped!(
    "byzantine-third",
    "churn",
    "compute",
    "compute-1000",
    "eclipse",
    "every-fault",
    "gossipsub-reference",
    "log-checkpoints",
    "log-islands",
    "log-storm",
    "mesh-100k",
    "mesh-10k",
    "mesh-1m",
    "partition-heal",
    "quickstart",
    "regions",
    "slow-links",
);

/// The text of the shipped scenario of this name.
pub fn text(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What to do if there is no scenario of this name.
pub fn hint(name: &str) -> String {
    let stem = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".toml");
    let names = || ALL.iter().map(|(known, _)| *known);
    match nearest(stem, names()) {
        Some(meant) => format!("did you mean the shipped scenario `{meant}`?"),
        None => {
            format!("name a TOML file, or a shipped scenario: {}", names().collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{AdversaryKind, Check, FaultKind, ScenarioFile, Topology};

    #[test]
    fn all_are_valid_and_named_after_their_files() {
        for (name, text) in ALL {
            let file = ScenarioFile::parse(name, text, &[]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(file.scenario.name, *name);
            assert!(!file.scenario.description.is_empty(), "{name}");
            assert!(text.starts_with("# "), "{name} says in its head what it shows");
        }
        assert!(ALL.is_sorted());
    }

    #[test]
    fn every_file_of_the_folder_is_shipped() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/scenarios");
        let stems = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut stems: Vec<_> = stems.map(|path| path.file_stem().unwrap().display().to_string()).collect();
        stems.sort();
        assert_eq!(stems, ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn every_fault_and_a_third_of_liars_are_complete() {
        let load = |name| ScenarioFile::load(name, &[]).unwrap().scenario;
        let both = [load("every-fault"), load("log-storm")];
        let faults: Vec<_> =
            both.iter().flat_map(|scenario| &scenario.faults).map(|fault| fault.kind.name()).collect();
        assert!(FaultKind::NAMES.iter().all(|name| faults.contains(name)), "{faults:?}");
        let liars = [load("byzantine-third").adversaries, load("log-storm").adversaries].concat();
        let liars: Vec<_> = liars.iter().map(|adversary| adversary.kind.name()).collect();
        assert!(AdversaryKind::NAMES.iter().all(|name| liars.contains(name)), "{liars:?}");
    }

    #[test]
    fn every_kind_has_a_row_in_the_docs() {
        let page = include_str!("../../../docs/simulator.md");
        for (title, names) in
            [("Faults", FaultKind::NAMES), ("Adversaries", AdversaryKind::NAMES), ("Checks", Check::NAMES)]
        {
            let section =
                page.split("\n## ").find(|section| section.starts_with(title)).expect("it is there");
            for name in names {
                assert!(section.contains(&format!("\n| `{name}` |")), "{name} has no row under {title}");
            }
        }
    }

    #[test]
    fn the_reference_is_what_others_can_rebuild() {
        let scenario = ScenarioFile::parse("x", text("gossipsub-reference").unwrap(), &[]).unwrap().scenario;
        let gossip = &scenario.gossip;
        assert_eq!((gossip.mesh_degree, gossip.mesh_degree_low, gossip.mesh_degree_high), (6, 4, 12));
        assert_eq!((gossip.lazy_degree, gossip.history_length, gossip.history_gossip), (6, 120, 3));
        assert!(gossip.tree.is_none() && gossip.score.is_none() && gossip.prune_backoff.is_zero());
        assert!(!gossip.flood_publish && !gossip.graft_newcomers && gossip.gossip_factor.abs() < 1e-9);
        let (network, workload) = (&scenario.network, &scenario.workload);
        assert_eq!((network.nodes, &network.topology), (250, &Topology::Random { dials: 20 }));
        assert_eq!((workload.messages, workload.authors, scenario.duration.as_secs()), (60, Some(5), 79));
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_one() {
        let error = ScenarioFile::load("quikstart", &[]).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the scenario quikstart: "), "{error}");
        assert_eq!(error.hint(), "did you mean the shipped scenario `quickstart`?");
        assert!(ScenarioFile::load("nothing.toml", &[]).unwrap_err().hint().contains("quickstart"));
    }
}
