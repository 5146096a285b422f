//! What a file may say, and what it is told when it may not.

use std::time::Duration;

use super::*;
use crate::scenario::{
    AdversaryKind, Check, Crypto, FaultKind, Latency, Links, Network, Region, Repair, Scenario, Topology,
    Victims, Who, Workload,
};

fn parse(text: &str) -> Result<ScenarioFile, ScenarioError> {
    ScenarioFile::parse("x.toml", text, &[])
}

/// Each problem with its remedy.
fn told(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ScenarioError::Invalid(problems)) => {
            problems.iter().map(|located| format!("{located} | {}", located.problem.remedy)).collect()
        }
        other => panic!("{text}\n{other:?}"),
    }
}

/// The text has this problem and no other.
#[track_caller]
fn refused(text: &str, says: &str) {
    let told = told(text);
    assert_eq!(told.len(), 1, "{text}\n{told:#?}");
    let parts: Vec<_> = says.split('…').collect();
    assert!(parts.iter().all(|part| told[0].contains(part)), "{text}\n{}\n{says}", told[0]);
}

#[test]
fn an_empty_file_is_the_default() {
    let file = parse("").unwrap();
    assert_eq!(file.scenario.name, "x");
    assert_eq!(file.scenario.network, Network::default());
    assert_eq!(file.scenario.links, Links::default());
    assert_eq!(file.scenario.gossip, omnimesh_protocol::gossip::Config::default());
    assert_eq!(file.scenario.workload, Workload::default());
    assert_eq!(file.scenario.checks, Check::all());
    assert_eq!((file.engine, file.memory_bytes), (Engine::Model, None));
}

#[test]
fn a_check_that_nobody_asked_for_can_say_something() {
    let names = |text: &str| -> Vec<&'static str> {
        parse(text).unwrap().scenario.checks.iter().map(Check::name).collect()
    };
    for (left_out, text) in [
        ("delivery", "[workload]\nmessages = 0"),
        ("bounded_memory", "[network]\nnodes = 3"),
        ("equal_registries", "[log]\nregistry_share = 0"),
    ] {
        assert!(!names(text).contains(&left_out), "{text}");
        let asked = format!("{text}\n[[checks]]\nkind = \"{left_out}\"");
        assert_eq!(names(&asked), [left_out], "whoever asks for it gets it");
    }
    assert!(names("[log]").contains(&"equal_registries"));
}

#[test]
fn every_key_of_the_network_and_its_links_is_read() {
    let file = parse(
        r#"
        name = "n"
        description = "d"
        seed = 7
        duration_ms = 60_000
        crypto = "skip"
        engine = "model"
        [limits]
        memory_bytes = 1_000_000_000
        [network]
        nodes = 50
        topology = "ring"
        neighbours = 3
        join_over_ms = 1500.5
        step_sync = false
        step_interval_ms = 500
        sync_peers = 3
        sync_interval_ms = 250
        membership = true
        clock_offset_ms = 10
        clock_drift_ppm = 5
        silence_ms = 9000
        redial_ms = 800
        regions = [{ name = "eu", share = 2 }, { name = "us" }]
        [links]
        latency = "matrix"
        latency_matrix_ms = [[5, 40], [40.5, 5]]
        latency_spread = 0.2
        jitter = 0
        loss = 0.02
        loss_burst = 2
        repair = "none"
        duplication = 0.01
        reordering = 1
        bandwidth_bps = 1_000_000
        [workload]
        start_ms = 5000
        messages = 3
        rate_per_s = 0.5
        payload_bytes = 10
        authors = 2
        "#,
    )
    .unwrap();
    let scenario = file.scenario;
    assert_eq!((scenario.name.as_str(), scenario.description.as_str(), scenario.seed), ("n", "d", 7));
    assert_eq!((scenario.crypto, file.engine), (Crypto::Skip, Engine::Model));
    assert_eq!((scenario.duration, file.memory_bytes), (Duration::from_secs(60), Some(1_000_000_000)));
    let ms = Duration::from_millis;
    let network = Network {
        nodes: 50,
        topology: Topology::Ring { neighbours: 3 },
        join_over: Duration::from_micros(1_500_500),
        step_sync: false,
        step_interval: ms(500),
        sync_peers: 3,
        sync_interval: ms(250),
        membership: true,
        clock_offset: ms(10),
        clock_drift_ppm: 5.0,
        silence: ms(9_000),
        redial: ms(800),
        regions: vec![Region { name: "eu".into(), share: 2.0 }, Region { name: "us".into(), share: 1.0 }],
    };
    assert_eq!(scenario.network, network);
    let links = Links {
        latency: Latency::Matrix { ms: vec![vec![5.0, 40.0], vec![40.5, 5.0]], spread: 0.2 },
        jitter: 0.0,
        loss: 0.02,
        loss_burst: 2.0,
        repair: Repair::None,
        duplication: 0.01,
        reordering: 1.0,
        bandwidth_bps: Some(1_000_000),
    };
    assert_eq!(scenario.links, links);
    let workload =
        Workload { start: ms(5_000), messages: 3, rate_per_s: 0.5, payload_bytes: 10, authors: Some(2) };
    assert_eq!(scenario.workload, workload);
}

#[test]
fn every_latency_is_read() {
    let latency = |text: &str| parse(&format!("[links]\n{text}")).unwrap().scenario.links.latency;
    let ms = Duration::from_millis;
    assert_eq!(latency("latency = 'constant'\nlatency_ms = 7"), Latency::Constant(ms(7)));
    assert_eq!(latency("latency_max_ms = 70"), Latency::Uniform { min: ms(10), max: ms(70) });
    assert_eq!(
        latency("latency = 'lognormal'\nlatency_median_ms = 7\nlatency_sigma = 1\nlatency_max_ms = 70"),
        Latency::LogNormal { median: ms(7), sigma: 1.0, max: ms(70) }
    );
}

#[test]
fn settings_of_the_router_are_read_and_unset_degrees_follow() {
    let text = "[gossip]\nmesh_degree = 3\nheartbeat_ms = 700\nseen_ttl_ms = 9000\nprune_backoff_ms = 0\nhistory_length = 2\n\
                flood_publish = false\nlimits = { messages_max = 9 }\nscore_parameters = { app_weight = 2, invalid_decay = 0.5 }";
    let gossip = parse(text).unwrap().scenario.gossip;
    assert_eq!((gossip.mesh_degree, gossip.mesh_degree_low, gossip.mesh_degree_high), (3, 3, 12));
    assert_eq!((gossip.mesh_degree_score, gossip.mesh_degree_out, gossip.history_gossip), (3, 1, 2));
    assert_eq!(gossip.heartbeat_interval, Duration::from_millis(700));
    assert_eq!((gossip.flood_publish, gossip.limits.messages_max), (false, 9));
    let score = gossip.score.unwrap();
    assert!((score.app_weight - 2.0).abs() < 1e-9 && (score.topic.invalid_decay - 0.5).abs() < 1e-9);
    let without = parse("[gossip]\nscore = false\ntree = false").unwrap().scenario.gossip;
    assert_eq!((without.score, without.tree), (None, None));
    let tree = parse("[gossip.tree_parameters]\nrepair_timeout_ms = 5\nper_author = false").unwrap();
    let tree = tree.scenario.gossip.tree.unwrap();
    assert_eq!((tree.repair_timeout, tree.per_author), (Duration::from_millis(5), false));
    // A mesh of three has no degree of six.
    let small = parse("[network]\nnodes = 3").unwrap().scenario;
    assert_eq!((small.gossip.mesh_degree, small.network.topology), (2, Topology::Random { dials: 2 }));
}

#[test]
fn every_fault_adversary_and_check_is_read() {
    let text = r#"
        [network]
        regions = [{ name = "eu", share = 1 }, { name = "us", share = 1 }]
        [[faults]]
        kind = "partition"
        at_ms = 1000
        until_ms = 2000
        regions = ["us"]
        one_way = true
        [[faults]]
        kind = "churn"
        at_ms = 1000
        all = true
        rate_per_s = 2
        away_ms = 100
        [[adversaries]]
        kind = "eclipse"
        count = 3
        victims = "publishers"
        [[adversaries]]
        kind = "replay"
        at_ms = 500
        until_ms = 900
        nodes = [4, 5]
        after_ms = 20
        [[checks]]
        kind = "delivery"
        ratio = 0.5
        [[checks]]
        kind = "monotone"
    "#;
    let scenario = parse(text).unwrap().scenario;
    let ms = Duration::from_millis;
    let [partition, churn] = scenario.faults.as_slice() else { panic!("two faults") };
    assert_eq!((partition.at, partition.until), (ms(1_000), Some(ms(2_000))));
    assert_eq!(
        (&partition.who, partition.kind),
        (&Who::Regions(vec![1]), FaultKind::Partition { one_way: true })
    );
    assert_eq!((&churn.who, churn.kind), (&Who::All, FaultKind::Churn { per_s: 2.0, away: ms(100) }));
    let [eclipse, replay] = scenario.adversaries.as_slice() else { panic!("two adversaries") };
    assert_eq!(eclipse.kind, AdversaryKind::Eclipse { victims: Victims::Publishers });
    assert_eq!((replay.at, &replay.who), (ms(500), &Who::Nodes(vec![4, 5])));
    assert_eq!(scenario.checks, [Check::Delivery { ratio: 0.5 }, Check::Monotone]);
    assert_eq!(parse("checks = []").unwrap().scenario.checks, []);
}

#[test]
fn every_kind_can_be_written() {
    for &kind in FaultKind::NAMES {
        let own = match kind {
            "churn" => "rate_per_s = 1\naway_ms = 10",
            "degrade" => "loss = 0.1",
            "slow" => "frame_ms = 1",
            "crash_in_write" | "lost_tail" => "restart_after_ms = 1",
            "slow_disk" => "factor = 2",
            "clock_jump" => "by_ms = 1",
            "clock_drift" => "drift_ppm = -10",
            _ => "",
        };
        let text = format!(
            "duration_ms = 90_000\n[log]\n[[faults]]\nkind = \"{kind}\"\nat_ms = 1\ncount = 3\n{own}"
        );
        assert_eq!(parse(&text).unwrap().scenario.faults[0].kind.name(), kind);
    }
    for &kind in AdversaryKind::NAMES {
        let own = match kind {
            "replay" => "after_ms = 5",
            "rush" | "two_faced" => "by_ms = 5",
            "equivocate" | "flood" | "outsider" | "fork" | "slander" => "rate_per_s = 5",
            "sybil" | "cold_boot" => "dials = 5",
            _ => "",
        };
        let text =
            format!("duration_ms = 90_000\n[log]\n[[adversaries]]\nkind = \"{kind}\"\nshare = 0.3\n{own}");
        assert_eq!(parse(&text).unwrap().scenario.adversaries[0].kind.name(), kind);
    }
    for &kind in Check::NAMES {
        // Somebody has to be there to be found.
        let liar = if kind == "detection" { "[[adversaries]]\nkind = \"silence\"\ncount = 1\n" } else { "" };
        // Jobs have no checkpoints of logs.
        let is_of_jobs = Check::of_compute().iter().any(|of_jobs| of_jobs.name() == kind);
        let sections = if is_of_jobs { "[compute]\n" } else { "[log]\n[checkpoints]\n" };
        let text = format!("duration_ms = 90_000\n{sections}{liar}[[checks]]\nkind = \"{kind}\"");
        assert_eq!(parse(&text).unwrap().scenario.checks[0].name(), kind);
    }
}

#[test]
fn messages_and_jobs_fit_into_any_run() {
    for duration in [200, 1_000, 12_000, 30_000, 90_000] {
        for rate in ["", "[workload]\nrate_per_s = 0.5", "[workload]\nrate_per_s = 1000"] {
            let file = parse(&format!("duration_ms = {duration}\n[compute]\n{rate}")).unwrap();
            let Scenario { workload, compute, duration, .. } = file.scenario;
            assert!(
                workload.messages > 0 && workload.time_of(workload.messages - 1) < duration,
                "{workload:?}"
            );
            assert!(compute.unwrap().start < duration);
        }
    }
}

#[test]
fn a_log_fits_into_any_run() {
    for duration in [1_000, 12_000, 30_000, 90_000] {
        let file = parse(&format!("duration_ms = {duration}\n[workload]\nmessages = 0\n[log]")).unwrap();
        let (log, duration) = (file.scenario.log.unwrap(), file.scenario.duration);
        assert!(log.start < log.end && log.end < duration, "{log:?}");
        let within: Vec<_> = file.scenario.checks.iter().filter_map(Check::within).collect();
        assert!(within.len() == 4 && within.iter().all(|within| log.end + *within <= duration), "{within:?}");
    }
    assert_eq!(parse("[log]").unwrap().scenario.log.unwrap().end, Duration::from_secs(20));
    let text = "[log]\n[[checks]]\nkind = \"no_lost_entry\"";
    assert_eq!(parse(text).unwrap().scenario.checks[0].within(), Some(Duration::from_secs(10)));
    refused(
        "[log]\nend_ms = 30000\n[[checks]]\nkind = \"equal_logs\"",
        "x.toml…there is from the last append",
    );
}

#[test]
fn checkpoints_have_the_keys_of_the_node() {
    let keys =
        "every_steps = 7\ndelay_steps = 2\nsigners = 3\nbytes_max = 70000\nkeep_steps = 9\nkeep_bytes = 5";
    let scenario = parse(&format!("[log]\n[checkpoints]\n{keys}")).unwrap().scenario;
    let of_node: omnimesh_protocol::config::CheckpointsConfig = toml::from_str(keys).unwrap();
    assert_eq!(scenario.checkpoints, Some(of_node));
    assert!(scenario.checks.contains(&Check::TrueCheckpoints));
    refused("[checkpoints]", "x.toml:1: checkpoints…has no effect without a log | add `[log]`, or remove it");
    refused("[log]\n[checkpoints]\nevery_steps = 0", "x.toml:3: checkpoints.every_steps = 0: must be from 1");
    refused(
        "[log]\n[checkpoints]\nsigners = 101",
        "x.toml:3: checkpoints.signers = 101: is more than the 100 nodes",
    );
    refused("[log]\n[[checks]]\nkind = \"true_checkpoints\"", "x.toml:3: checks[0].kind…nodes make none");
}

#[test]
fn unknown_keys_are_told_with_the_known_ones() {
    refused(
        "[network]\nnodes = 5\nnoeds = 5",
        "x.toml:3: network.noeds = 5: unknown key | did you mean `nodes`?",
    );
    refused("[netwrok]\nnodes = 5", "x.toml:1: netwrok: unknown key | did you mean `network`?");
    refused("\nnodes = 5", "x.toml:2: nodes = 5: unknown key | did you mean `network.nodes`?");
    refused("[links]\nmesh_degree = 5", "x.toml:2: links.mesh_degree = 5…did you mean `gossip.mesh_degree`?");
    refused("[limits]\nfoo = 5", "x.toml:2: limits.foo = 5: unknown key | known here: memory_bytes");
    refused(
        "[[checks]]\nkind = \"delivery\"\n[[checks]]\nkind = \"monotone\"\nratoi = 1",
        "x.toml:5: checks[1].ratoi = 1: unknown key | did you mean `ratio`?",
    );
}

#[test]
fn wrong_types_are_told_with_an_example() {
    refused(
        "[network]\nnodes = \"5\"",
        "x.toml:2: network.nodes = \"5\": must be a whole number, not text | write for example",
    );
    refused("[network]\nnodes = 1.5", "x.toml:2: …must be a whole number, not a number with decimals");
    refused("[network]\nnodes = -5", "x.toml:2: network.nodes = -5: must not be negative");
    refused("[network]\nnodes = 5_000_000_000", "x.toml:2: network.nodes = 5_000_000_000: is too large");
    refused("network = 5", "x.toml:1: network = 5: must be a section, not a whole number");
    refused("seed = 99999999999999999999", "x.toml:1: …must be a whole number, not one beyond 2^63");
    refused("[links]\nloss = inf", "x.toml:2: links.loss = inf: must be a number");
    refused("duration_ms = -1", "x.toml:1: duration_ms = -1: is no length of time");
    refused(
        "crypto = \"reel\"",
        "x.toml:1: crypto = \"reel\": is none of real, skip | did you mean \"real\"?",
    );
    refused("faults = 3", "x.toml:1: faults = 3: must be a list of sections");
    refused("[links]\nlatency = \"matrix\"\nlatency_matrix_ms = [1, 2]", "x.toml:3: …must be a list of rows");
}

#[test]
fn no_toml_is_told_with_its_line() {
    let told = told("[network]\nnodes = 5\nnodes = 6\n[links\n");
    assert!(told[0].starts_with("x.toml:3: ") && told[0].contains("duplicate key"), "{told:?}");
    assert!(told[1].starts_with("x.toml:4: "), "{told:?}");
}

#[test]
fn impossible_networks_are_refused() {
    refused("[network]\nnodes = 0", "x.toml:2: network.nodes = 0: 0 nodes is no mesh | set it to 2 at least");
    refused("[network]\nnodes = 1", "x.toml:2: …1 node is no mesh");
    refused(
        "[network]\nnodes = 10\ndials = 10",
        "x.toml:3: network.dials = 10: is more than the 9 others there are…lower it to 9 at most, or raise network.nodes",
    );
    refused("[network]\ntopology = 'ring'\nneighbours = 0", "x.toml:3: …nobody would be connected");
    refused(
        "[network]\ntopology = 'ring'\ndials = 2",
        "x.toml:3: network.dials = 2: does not apply to `ring` | …neighbours",
    );
    refused("[network]\nnodes = 3000\ntopology = 'full'", "x.toml:3: …refuses all above 1024");
    refused("[network]\njoin_over_ms = 30000", "x.toml:2: …is not before the end");
    refused(
        "[network]\nregions = [{ name = 'a' }, { name = 'a' }]",
        "x.toml:2: network.regions[1].name = 'a': …another region",
    );
    refused("[network]\nregions = [{ name = 'a', share = 0 }]", "x.toml:2: …share = 0: must be above 0");
    refused("[network]\nstep_interval_ms = 0", "x.toml:2: …must be above 0");
    refused("name = 'a/b'", "x.toml:1: name = 'a/b': cannot be part of a folder's name");
}

#[test]
fn impossible_degrees_are_refused() {
    refused(
        "[network]\nnodes = 10\n[gossip]\n\nmesh_degree = 12",
        "x.toml:5: gossip.mesh_degree = 12: no node has 12 peers: there are 10 nodes | lower it to 9",
    );
    refused(
        "[gossip]\nmesh_degree_low = 9",
        "x.toml:2: gossip.mesh_degree_low = 9: must be at most `mesh_degree`",
    );
    refused(
        "[gossip]\nmesh_degree_high = 4",
        "x.toml:2: gossip.mesh_degree_high = 4: must be at least `mesh_degree`",
    );
    refused("[gossip]\nheartbeat_ms = 0", "x.toml:2: gossip.heartbeat_ms = 0: must not be 0");
    refused("[gossip]\ngossip_factor = 2", "x.toml:2: gossip.gossip_factor = 2: must be between 0 and 1");
    refused(
        "[gossip.score_parameters]\ninvalid_decay = 1",
        "x.toml:2: gossip.score_parameters.invalid_decay = 1: must be between 0 and 1",
    );
    refused(
        "[gossip.tree_parameters]\nrepair_timeout_ms = 0",
        "x.toml:2: gossip.tree_parameters.repair_timeout_ms = 0: must not be 0",
    );
    refused("[gossip]\ntree = false\ntree_parameters = {}", "x.toml:3: …has no effect without trees");
    refused("[gossip]\nscore = false\nscore_parameters = {}", "x.toml:3: …has no effect without scores");
    refused(
        "[gossip.limits]\nmessages_max = 0",
        "x.toml:2: gossip.limits.messages_max = 0: must be at least 1",
    );
}

#[test]
fn impossible_links_are_refused() {
    refused(
        "[links]\nlatency_min_ms = 200",
        "x.toml:2: links.latency_min_ms = 200: is above latency_max_ms, which is 100 ms",
    );
    refused("[links]\nlatency_min_ms = 0", "x.toml:2: links.latency_min_ms = 0: is below 0.1 ms");
    refused(
        "[links]\nlatency = 'constant'\nlatency_max_ms = 5",
        "x.toml:3: …does not apply to `constant` | remove it…latency_ms",
    );
    refused("[links]\nloss = 1.5", "x.toml:2: links.loss = 1.5: must be from 0 to below 1");
    refused("[links]\nloss = 1", "x.toml:2: links.loss = 1: must be from 0 to below 1");
    refused("[links]\nduplication = -0.1", "x.toml:2: …must be from 0 to 1");
    refused("[links]\nloss_burst = 0.5", "x.toml:2: …must be at least 1");
    refused("[links]\nbandwidth_bps = 0", "x.toml:2: …too little");
    let matrix = |matrix: &str| {
        format!(
            "[network]\nregions = [{{ name = 'a' }}, {{ name = 'b' }}]\n[links]\nlatency = 'matrix'\nlatency_matrix_ms = {matrix}"
        )
    };
    refused(
        &matrix("[[1, 2], [3]]"),
        "x.toml:5: links.latency_matrix_ms = [[1, 2], [3]]: has 2 rows of [2, 1] columns",
    );
    refused(&matrix("[[1, 2], [0, 3]]"), "x.toml:5: …out of range");
    refused("[links]\nlatency = 'matrix'\nlatency_matrix_ms = [[1]]", "x.toml:3: …there are no regions");
}

#[test]
fn impossible_workloads_are_refused() {
    refused("[workload]\nstart_ms = 30000", "x.toml:2: …is not before the end of the run at 30000 ms");
    refused(
        "duration_ms = 20000\n[workload]\nmessages = 200",
        "x.toml:3: workload.messages = 200: the last of 200 messages would be published at 26567 ms, and the run ends at 20000 ms",
    );
    refused("[workload]\nrate_per_s = 0", "x.toml:2: …is no rate");
    refused("[workload]\npayload_bytes = 1000000", "x.toml:2: …more than an envelope holds");
    refused("[workload]\nauthors = 0", "x.toml:2: …nobody would publish");
    refused(
        "[workload]\nauthors = 101",
        "x.toml:2: workload.authors = 101: 101 cannot publish: there are 100 honest",
    );
}

#[test]
fn impossible_faults_are_refused() {
    let fault = |text: &str| format!("[[faults]]\nkind = 'crash'\nat_ms = 5000\n{text}");
    refused(
        &fault("nodes = [3, 100]"),
        "x.toml:4: faults[0].nodes = [3, 100]: there is no node 100 | …0 to 99",
    );
    refused(
        &fault("regions = ['eu']"),
        "x.toml:4: …there is no region \"eu\" | define regions in `[network]`",
    );
    refused(&fault("share = 1.5"), "x.toml:4: faults[0].share = 1.5: must be above 0 and at most 1");
    refused(&fault("share = 0.001"), "x.toml:4: …of 100 nodes is nobody");
    refused(&fault("count = 101"), "x.toml:4: …more than the 100 nodes there are");
    refused(&fault(""), "x.toml:1: faults[0]: `crash` does not say whom it hits | add one of");
    refused(
        &fault("count = 1\nshare = 0.1"),
        "x.toml:5: …is a second way to say whom it hits, besides `count`",
    );
    refused(&fault("count = 1\nuntil_ms = 4000"), "x.toml:5: …is not after at_ms, which is 5000 ms");
    refused(&fault("count = 1\nuntil_ms = 40000"), "x.toml:5: …is after the end of the run at 30000 ms");
    refused(&fault("count = 1\nrestart_after_ms = 26000"), "x.toml:5: …is after the end of the run");
    refused(
        &fault("count = 1\naway_ms = 5"),
        "x.toml:5: faults[0].away_ms = 5: does not apply to `crash` | …restart_after_ms",
    );
    refused(
        "[[faults]]\nkind = 'crash'\ncount = 1",
        "x.toml:1: faults[0]: `crash` needs `at_ms` | add `at_ms = …`",
    );
    refused(
        "[[faults]]\nkind = 'crash'\nat_ms = 30000\ncount = 1",
        "x.toml:3: …is not before the end of the run",
    );
    refused(
        "[[faults]]\nkind = 'crush'\nat_ms = 1",
        "x.toml:2: faults[0].kind = 'crush': is none of …did you mean \"crash\"?",
    );
    refused("[[faults]]\nat_ms = 1", "x.toml:1: faults[0]: has no kind");
    refused("[[faults]]\nkind = 'partition'\nat_ms = 1\nall = true", "x.toml:1: …has no other side");
    refused(
        "[[faults]]\nkind = 'churn'\nat_ms = 1\nall = true\nrate_per_s = 1",
        "x.toml:1: …`churn` needs `away_ms`",
    );
    refused("[[faults]]\nkind = 'degrade'\nat_ms = 1\nall = true", "x.toml:1: …changes nothing");
    refused(
        "[network]\nstep_sync = false\n[[faults]]\nkind = 'clock_jump'\nat_ms = 1\nall = true\nby_ms = 5",
        "x.toml:3: faults[0]: has no effect without step synchronisation",
    );
}

#[test]
fn impossible_adversaries_and_checks_are_refused() {
    let adversary = |text: &str| format!("[[adversaries]]\n{text}");
    refused(
        &adversary("kind = 'silence'\nall = true"),
        "x.toml:1: adversaries[0]: leaves 0 honest nodes: 100 of 100 nodes misbehave",
    );
    refused(
        "[[adversaries]]\nkind = 'silence'\nshare = 0.5\n[[adversaries]]\nkind = 'tamper'\nshare = 0.5",
        "x.toml:4: adversaries[1]: leaves 0 honest nodes",
    );
    refused(&adversary("kind = 'sybil'\ncount = 1\ndials = 100"), "x.toml:4: …more than the 99 others");
    refused(&adversary("kind = 'sybil'\ncount = 1"), "x.toml:1: adversaries[0]: `sybil` needs `dials`");
    refused(
        &adversary("kind = 'tamper'\ncount = 1\ndials = 4"),
        "x.toml:4: …does not apply to `tamper` | remove it; `tamper` takes nothing",
    );
    refused(&adversary("kind = 'flood'\ncount = 1\nrate_per_s = 0"), "x.toml:4: …is no rate");
    refused(&adversary("kind = 'censor'\ncount = 1\nvictims = 'al'"), "x.toml:4: …did you mean \"all\"?");
    refused("[[checks]]\nkind = 'delivery'\nratio = 0", "x.toml:3: checks[0].ratio = 0: must be above 0");
    refused(
        "[[checks]]\nkind = 'monotone'\n[[checks]]\nkind = 'monotone'",
        "x.toml:4: …`monotone` is there twice",
    );
}

#[test]
fn what_does_not_fit_into_memory_is_refused() {
    refused(
        "[network]\nnodes = 100_000\n[limits]\nmemory_bytes = 100_000_000",
        "x.toml:2: network.nodes = 100_000: a run takes about …limits.memory_bytes allows 95 MiB",
    );
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let told = told(
        "seed = 'x'\n[network]\nnodes = 10\ndials = 20\nx = 1\n[links]\nloss = 2\n[[faults]]\nkind = 'slow'\n",
    );
    let lines: Vec<_> = told.iter().map(|told| told.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["1", "4", "5", "7", "8", "8", "8"], "{told:#?}");
}

#[test]
fn overrides_take_the_place_of_what_is_written() {
    let text = "# Head.\n[network]\nnodes = 10 # few\n\n[[faults]]\nkind = 'crash'\nat_ms = 1\nshare = 0.1\n";
    let set = |path: &str, value: &str| Override::new(path, value, format!("--set {path}={value}"));
    let overrides = [
        set("network.nodes", "20"),
        set("faults.0.share", "0.5"),
        set("links.latency", "constant"),
        set("seed", "9"),
    ];
    let file = ScenarioFile::parse("x.toml", text, &overrides).unwrap();
    assert_eq!((file.scenario.network.nodes, file.scenario.seed), (20, 9));
    assert_eq!(file.scenario.faults[0].who, Who::Share(0.5));
    assert!(matches!(file.scenario.links.latency, Latency::Constant(_)));
    assert!(file.text.starts_with("# Head.") || file.text.contains("\n# Head."), "{}", file.text);
    assert!(file.text.contains("nodes = 20 # few"), "{}", file.text);
    // The text alone is the same scenario.
    let again = parse(&file.text).unwrap();
    assert_eq!(format!("{:?}", again.scenario), format!("{:?}", file.scenario));
    assert_eq!(again.hash(), file.hash());
}

#[test]
fn a_bad_override_is_named_and_lines_stay_those_of_the_file() {
    let set = |path: &str, value: &str| Override::new(path, value, format!("--set {path}={value}"));
    let text = "[network]\nnodes = 10\n[links]\nloss = 2\n";
    let overrides = [set("network.dials", "30"), set("faults.1.share", "0.5"), set("network.noeds", "3")];
    let told =
        |overrides: &[Override]| ScenarioFile::parse("x.toml", text, overrides).unwrap_err().to_string();
    assert!(told(&overrides[1..2]).contains("--set faults.1.share=0.5: faults[1].share = 0.5: there is no"));
    let told = told(&[overrides[0].clone(), overrides[2].clone()]);
    assert!(told.contains("--set network.dials=30: network.dials = 30: is more than the 9 others"), "{told}");
    assert!(told.contains("--set network.noeds=3: network.noeds = 3: unknown key"), "{told}");
    assert!(told.contains("x.toml:4: links.loss = 2: "), "{told}");
}

#[test]
fn observers_are_there_where_there_is_somebody_to_observe() {
    let silent = "[[adversaries]]\nkind = \"silence\"\ncount = 1\n";
    assert!(!parse("").unwrap().scenario.has_observer());
    let file = parse(silent).unwrap();
    assert!(file.scenario.has_observer());
    assert_eq!(file.scenario.adversaries[0].kind, AdversaryKind::Silence { rate_per_s: 0.0 });
    let off = parse(&format!("[observer]\nenabled = false\n{silent}")).unwrap();
    assert!(!off.scenario.has_observer());
    let file =
        parse("[observer]\nenabled = true\nignore = [\"latency\", \"flood\"]\nflood_per_s = 9\n").unwrap();
    let codes: Vec<&str> = file.scenario.observer.ignore.iter().map(|kind| kind.code()).collect();
    assert_eq!((codes, file.scenario.observer.flood_per_s), (vec!["latency", "flood"], Some(9)));
    assert!(file.scenario.has_observer());
    refused(
        "[observer]\nignore = [\"latncy\"]\n",
        "observer.ignore…there is no finding \"latncy\"…\"latency\"",
    );
}

#[test]
fn detection_is_checked_where_somebody_can_be_found() {
    let silent = "[[adversaries]]\nkind = \"silence\"\ncount = 1\n";
    let check = "[[checks]]\nkind = \"detection\"\nrecall_min = 0.5\n";
    let file = parse(&format!("{silent}{check}")).unwrap();
    let wanted = Check::Detection { precision_min: 0.95, recall_min: 0.5, false_quarantined_max: 0 };
    assert_eq!(file.scenario.checks, [wanted]);
    refused(check, "checks[0].kind…there is nobody to be found");
    refused(&format!("[observer]\nenabled = false\n{silent}{check}"), "checks[0].kind…nobody who looks");
    refused(&format!("{silent}[[checks]]\nkind = \"detection\"\nrecall_min = 2\n"), "checks[0].recall_min");
    let slander = "[[adversaries]]\nkind = \"slander\"\ncount = 1\nrate_per_s = 1\n";
    refused(&format!("[observer]\nenabled = false\n{slander}"), "adversaries[0]…nobody listens");
    refused(&format!("crypto = \"skip\"\n{slander}"), "adversaries[0]…proved by signatures");
}
