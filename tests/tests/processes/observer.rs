//! What operators see of a node: probes, alerts, the webhook, the monitor and the audit log.

use std::fs;
use std::time::Instant;

use omnimesh_tests::{Lab, Node, Receiver, SOON, Spec, check, lab, wait_for};
use serde_json::{Value, json};

use crate::common::{NEWS, wait_all_alive, wait_all_ready};

/// Metrics that depend on what else the machine does.
const OF_THE_MACHINE: &str = "cpu=off,memory=off,disk=off,descriptors=off,network=off,latency_p99_ms=off,step_skew=off,throughput_of_usual=off";

fn settings(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let quick = [("SAMPLE_INTERVAL_MS", "200"), ("ALERT_HOLD_MS", "2000"), ("ALERT_CALM_MS", "2000")];
    let settings = quick.iter().chain([&("PROBE_INTERVAL_MS", "200")]).chain(more);
    settings.map(|(key, value)| (format!("OMNIMESH_OBSERVER__{key}"), (*value).to_owned())).collect()
}

/// Three nodes, the first with these settings beside the quick ones.
#[track_caller]
fn three<'lab>(lab: &'lab Lab, first: &[(&str, &str)]) -> Vec<Node<'lab>> {
    let spec = |number: usize| -> Spec<'lab> { lab.node(&format!("node-{number}")).open("observed") };
    let mut nodes = vec![spec(1).env(&settings(first)).start()];
    for number in 2..=3 {
        nodes.push(spec(number).env(&settings(&[])).bootstrap(&nodes[0]).start());
    }
    wait_all_ready(&mut nodes);
    wait_all_alive(&nodes);
    nodes
}

fn expect_exit(node: &mut Node<'_>) {
    node.signal("TERM");
    node.wait_exit();
}

#[test]
fn probes_say_that_all_is_delivered() {
    let lab = lab!();
    let mut nodes = three(&lab, &[]);
    for node in &nodes {
        let status = wait_for("some probes to have come", SOON, || {
            let status = node.view("status")?;
            let received = status["probes"]["received"].as_u64();
            check(received >= Some(50) && status["probes"]["origins"] == 2, || status.to_string())?;
            // One that is late counts as lost until it comes.
            check(status["verified_delivery"] == "100.00 %, 0 wrong", || status.to_string())?;
            Ok(status)
        });
        assert_eq!((&status["probes"]["lost"], &status["probes"]["wrong"]), (&json!(0), &json!(0)));
        wait_for("a person to see it", SOON, || {
            let shown = node.run(&["status"]).stdout;
            check(shown.contains("verified delivery") && shown.contains("100.00 %, 0 wrong"), || shown)
        });
        let metrics = wait_for("the metrics to say it", SOON, || {
            let metrics = node.get("/metrics")?.body;
            let is_all = metrics.lines().any(|line| line == "omnimesh_probe_delivery_ratio 1.0");
            check(is_all, || metrics.clone()).map(|()| metrics)
        });
        assert!(nodes.iter().all(|other| !metrics.contains(other.peer_id())), "no peer id is a label");
    }
    // Who goes and comes back has lost nothing of the others, nor they of it.
    let mut third = nodes.pop().unwrap();
    expect_exit(&mut third);
    third.restart();
    third.wait_ready();
    for node in nodes.iter().chain([&third]) {
        let before = node.view("status").unwrap()["probes"]["received"].as_u64().unwrap();
        wait_for("more probes", SOON, || {
            let status = node.view("status")?;
            check(status["probes"]["received"].as_u64() > Some(before + 20), || status.to_string())?;
            check(status["verified_delivery"] == "100.00 %, 0 wrong", || status.to_string())
        });
    }
}

/// The alerts of a node that a receiver took: severity and whether it is over.
fn taken(receiver: &Receiver) -> Vec<(String, bool)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    receiver
        .alerts()
        .iter()
        .map(|alert| {
            assert_eq!(alert["labels"]["mesh"], "observed", "{alert}");
            let ended = text(&alert["endsAt"]);
            // Times of one form sort as their text does. What lasts ends hours from now.
            let soon = omnimesh_node::audit::time_of(wall_ms() + 3_600_000);
            (
                format!("{} {}", text(&alert["labels"]["metric"]), text(&alert["labels"]["severity"])),
                ended < soon,
            )
        })
        .collect()
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[test]
fn one_condition_is_one_alert_and_one_resolution_and_stands_in_the_audit_log() {
    let lab = lab!();
    let receiver = Receiver::start(2);
    let thresholds = format!("{OF_THE_MACHINE},delivery=off,error_rate=off,mesh_degree=off,health=0.9:0.01");
    let more = [("WEBHOOK_URL", receiver.url()), ("THRESHOLDS", thresholds)];
    let more: Vec<(&str, &str)> = more.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut nodes = three(&lab, &more);
    wait_for("the first to find itself well", SOON, || {
        let view = nodes[0].view("monitor")?;
        check(view["health"] == 1.0 && view["alerts"] == json!([]), || view.to_string())
    });
    let (before, alerts_before) = (nodes[0].json(&["alerts", "list", "--all"]), receiver.alerts().len());

    nodes[2].kill();
    let open = wait_for("an alert", SOON, || {
        let alerts = nodes[0].try_json(&["alerts", "list"])?;
        check(alerts.as_array().map(Vec::len) == Some(1), || alerts.to_string()).map(|()| alerts[0].clone())
    });
    assert_eq!(
        (&open["metric"], &open["level"], &open["stage"]),
        (&json!("health"), &json!("warning"), &json!("open"))
    );
    let id = open["id"].to_string();
    let taken_care = nodes[0].json(&["alerts", "ack", &id, "--by", "anna"]);
    assert_eq!(
        (&taken_care["stage"], &taken_care["acknowledged_by"]),
        (&json!("acknowledged"), &json!("anna"))
    );
    nodes[0].run(&["alerts", "ack", "99"]).expect(6, &["no alert 99"]);
    let monitor =
        nodes[0].run(&["monitor", "--count", "2", "--interval", "0.1", "--output", "ndjson"]).lines();
    assert_eq!(monitor.len(), 2);
    assert_eq!(monitor[1]["alerts"][0]["acknowledged_by"], "anna");
    assert!(nodes[0].run(&["monitor", "--count", "1"]).stdout.contains("network health is warning"));
    nodes[0].run(&["monitor", "--interval", "60", "--timeout", "1"]).expect(7, &["looked 1 time in"]);

    nodes[2].restart();
    nodes[2].wait_ready();
    wait_for("the alert to be over", SOON, || {
        let alerts = nodes[0].try_json(&["alerts", "list"])?;
        check(alerts == json!([]), || alerts.to_string())
    });
    wait_for("the receiver to know", SOON, || {
        let count = receiver.alerts().len() - alerts_before;
        check(count == 2, || format!("{count} alerts came"))
    });
    let came = taken(&receiver).split_off(alerts_before);
    assert_eq!(came, [("health warning".to_owned(), false), ("health warning".to_owned(), true)]);
    assert!(receiver.attempts() >= 4, "the first two were refused, and came again: {}", receiver.attempts());
    let labels: Vec<Value> = receiver.alerts().iter().map(|alert| alert["labels"].clone()).collect();
    assert!(labels.iter().all(|label| *label == labels[0]), "one alert: {labels:?}");
    assert_eq!(labels[0]["instance"], nodes[0].peer_id());
    let all = nodes[0].json(&["alerts", "list", "--all"]);
    assert_eq!(all.as_array().unwrap().len(), before.as_array().unwrap().len() + 1);

    let mut first = nodes.remove(0);
    expect_exit(&mut first);
    check_audit(&lab, &first, &id);
}

/// An incident goes on where it was, whoever took care still does, and the receiver hears how it ends.
#[test]
fn an_alert_outlives_its_node() {
    let lab = lab!();
    let receiver = Receiver::start(0);
    // There is always something on a disk.
    let limits = |disk: &str| {
        format!("{OF_THE_MACHINE},delivery=off,error_rate=off,mesh_degree=off,health=off{disk}")
            .replace("disk=off,", "")
    };
    let with = |disk: &str| {
        let set = [("WEBHOOK_URL", receiver.url()), ("THRESHOLDS", limits(disk))];
        settings(&set.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>())
    };
    let mut node = lab.node("full").open("observed").env(&with(",disk=0:1")).start();
    node.wait_ready();
    let open = wait_for("an alert", SOON, || {
        let alerts = node.try_json(&["alerts", "list"])?;
        check(alerts[0]["metric"] == "disk", || alerts.to_string()).map(|()| alerts[0].clone())
    });
    node.run(&["alerts", "ack", "1", "--by", "anna"]).expect(0, &[]);
    let said = node.run(&["alerts", "ack", "1", "--by", "bert"]);
    said.expect(9, &["\"anna\" takes care of alert 1 already"]);
    wait_for("the receiver to know", SOON, || check(receiver.alerts().len() == 1, || "nothing came".into()));

    node.kill();
    node.restart();
    node.wait_ready();
    let still = node.json(&["alerts", "list"])[0].clone();
    for field in ["id", "level", "worst", "stage", "acknowledged_by"] {
        let expected = if field == "stage" { json!("acknowledged") } else { open[field].clone() };
        let expected = if field == "acknowledged_by" { json!("anna") } else { expected };
        assert_eq!(still[field], expected, "{field}");
    }
    let opened = |alert: &Value| alert["opened_ms"].as_i64().unwrap();
    assert!((opened(&still) - opened(&open)).abs() < 1_000, "{still} {open}");
    wait_for("the receiver to hear that it lasts", SOON, || {
        check(receiver.alerts().len() == 2, || format!("{:?}", receiver.alerts()))
    });

    node.signal("TERM");
    node.wait_exit();
    node.restart_with(|spec| spec.env(&with(",disk=off")));
    node.wait_ready();
    wait_for("the receiver to hear the end", SOON, || {
        check(receiver.alerts().len() == 3, || format!("{:?}", receiver.alerts()))
    });
    let warning = |is_over| ("disk warning".to_owned(), is_over);
    assert_eq!(taken(&receiver), [warning(false), warning(false), warning(true)]);
    let alerts = receiver.alerts();
    assert!(alerts.iter().all(|alert| alert["startsAt"] == alerts[0]["startsAt"]), "{alerts:?}");
    assert_eq!(node.json(&["alerts", "list"]), json!([]));
    expect_exit(&mut node);
    let entries = node.run(&["audit", "show", "--kind", "incident", "--output", "ndjson"]).lines();
    let said: Vec<_> =
        entries.iter().map(|entry| (entry["actor"].clone(), entry["detail"].clone())).collect();
    let begins = |(by, detail): &(Value, Value), actor: &str, words: &str| {
        assert!(by == actor && detail.as_str().unwrap().starts_with(words), "{said:?}");
    };
    assert_eq!(said.len(), 3, "{said:?}");
    begins(&said[0], "node", "incident 1 is open: ");
    begins(&said[1], "api", "incident 1 is acknowledged by anna: ");
    begins(&said[2], "node", "incident 1 is resolved: ");
}

/// A node that was set back to an old copy and signs another entry in a place that has one: it is told what it is, and says it.
#[test]
fn who_contradicts_itself_is_told() {
    let lab = lab!();
    let mut honest = lab.node("honest").open("observed").start();
    let mut carol = lab.node("carol").open("observed").bootstrap(&honest).start();
    let stop = |node: &mut Node<'_>| {
        node.signal("TERM");
        node.wait_exit();
    };
    carol.wait_ready();
    stop(&mut carol);
    let (dir, old) = (carol.data_dir(), lab.dir().join("old"));
    let copied = std::process::Command::new("cp").arg("-a").arg(&dir).arg(&old).status();
    assert!(copied.unwrap().success());
    carol.restart();
    carol.wait_ready();
    wait_for("the other to have it", SOON, || {
        carol.try_json(&["log", "append", "I owe 10", "--replicas", "1"])
    });
    stop(&mut carol);
    stop(&mut honest);
    fs::rename(&dir, lab.dir().join("new")).unwrap();
    fs::rename(&old, &dir).unwrap();
    carol.restart();
    carol.wait_ready();
    wait_for("it to write in the same place", SOON, || carol.try_json(&["log", "append", "I owe nothing"]));
    assert_eq!(carol.view("status").unwrap().get("log_trouble"), None);

    honest.restart();
    wait_for("it to be told", SOON, || {
        check(carol.log().contains("has quarantined this node"), || carol.log())
    });
    wait_for("it to say so", SOON, || {
        let status = carol.view("status")?;
        let trouble = status["log_trouble"].as_str().unwrap_or_default();
        check(trouble.contains("frozen at entry 1") && trouble.contains("quarantine"), || status.to_string())
    });
    let doctor = carol.run(&["doctor"]);
    assert!(doctor.stdout.contains("frozen at entry 1") && doctor.stdout.contains("new key"), "{doctor:?}");

    // Nobody dials it meanwhile; let in again, it is dialled at once.
    wait_for("it to be shut out", SOON, || {
        let peers = honest.view("peers")?;
        check(peers.as_array().is_some_and(Vec::is_empty), || peers.to_string())
    });
    honest.json(&["quarantine", "lift", carol.peer_id()]);
    let lifted = Instant::now();
    wait_for("it to be a peer again", SOON, || {
        let peers = honest.view("peers")?;
        check(peers[0]["peer_id"] == carol.peer_id() && peers[0]["member"] == true, || peers.to_string())
    });
    println!("a peer again {:.1} s after the lift", lifted.elapsed().as_secs_f64());
}

/// The life of the incident is written down, and a changed byte is found where it is.
#[track_caller]
fn check_audit(lab: &Lab, node: &Node<'_>, incident: &str) {
    let shown = node.run(&["audit", "show", "--output", "ndjson"]);
    let entries = shown.expect(0, &[]).lines();
    let nothing = node.run(&["audit", "show", "--kind", "incidents", "--output", "json"]);
    assert_eq!(
        nothing.expect(0, &["no entry is of kind \"incidents\"", "config, incident,"]).json(),
        json!([])
    );
    let of = |kind: &str| -> Vec<String> {
        let of_kind = entries.iter().filter(|entry| entry["kind"] == kind);
        of_kind.map(|entry| entry["detail"].as_str().unwrap().to_owned()).collect()
    };
    let life: Vec<String> = of("incident")
        .into_iter()
        .filter(|detail| detail.starts_with(&format!("incident {incident} ")))
        .collect();
    for (entry, stage) in life.iter().zip(["is open", "is acknowledged by anna", "is resolved"]) {
        assert!(entry.contains(stage), "{life:?}");
    }
    assert_eq!(life.len(), 3, "{life:?}");
    assert!(of("key")[0].contains(node.peer_id()));
    assert!(of("config")[0].contains("observer.webhook_url"), "{:?}", of("config"));
    assert_eq!((of("start").len(), of("stop").len()), (1, 1));

    node.run(&["audit", "verify"]).expect(0, &[]);
    let found = node.json(&["audit", "verify"]);
    assert_eq!((&found["verified"], &found["entries"]), (&json!(true), &json!(entries.len())));
    assert_eq!(found["ends_verified"], true);
    let log = node.data_dir().join("audit.log");
    let mut bytes = fs::read(&log).unwrap();
    let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    // In the second entry.
    bytes[4 + length + 4 + 70] ^= 1;
    let changed = lab.dir().join("changed.log");
    fs::write(&changed, bytes).unwrap();
    let verify = node.run(&["audit", "verify", "--file", changed.to_str().unwrap()]);
    verify.expect(1, &[&format!("entry 1 at bytes {}", 4 + length)]);
    let other =
        node.run(&["audit", "verify", "--peer", "12D3KooWGWhjKXzuTC9sT9FMr7STpwrvgNVk2HVgUTd9hXfUuhZq"]);
    other.expect(1, &["entry 0 at bytes 0"]);

    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[4 + length..]).unwrap();
    node.run(&["audit", "verify"]).expect(1, &["entry 0 at bytes 0 to 0: ", "is missing"]);
    fs::write(&log, []).unwrap();
    node.run(&["audit", "verify"]).expect(1, &["is missing"]);
    let copy = lab.dir().join("copy.log");
    fs::write(&copy, &whole).unwrap();
    let of_copy = node.json(&["audit", "verify", "--file", copy.to_str().unwrap()]);
    assert_eq!((&of_copy["verified"], &of_copy["ends_verified"]), (&json!(true), &json!(false)));
}

#[test]
fn why_and_config_say_what_the_observer_does() {
    let lab = lab!();
    let mut node = lab.node("lone").open("observed").env(&settings(&[])).start();
    node.wait_ready();
    let why = node.json(&["why", "step"]);
    assert_eq!(why["step"], why["current"]);
    let text = node.run(&["why", "step"]).stdout;
    assert!(text.contains("the mesh is in step") && text.contains("messages of it are taken now"), "{text}");
    let past = node.run(&["why", "step", "1"]).stdout;
    assert!(past.contains("stale") && past.contains("node.step_window_past"), "{past}");
    let published = node.publish(NEWS, "hello").unwrap();
    let why = node.json(&["why", "message", published["id"].as_str().unwrap()]);
    assert_eq!((&why["outcome"], &why["standings"]), (&json!("published"), &json!([])));
    assert_eq!(node.json(&["anomalies", "--since", "1", "--severity", "warning"]), json!([]));

    let file = lab.file("bad.toml", "[observer]\nthresholds = [\"disc=1:2\"]\nwebhook_url = \"https://x\"\n");
    let file = file.to_str().unwrap();
    lab.run(&["config", "check", file]).expect(3, &["there is no metric \"disc\"", "put a proxy before it"]);
    let file = lab.file("unknown.toml", "[observer]\nquarantine_step = 1\n");
    lab.run(&["config", "check", file.to_str().unwrap()])
        .expect(3, &["did you mean `observer.quarantine_steps`?"]);
    let shown = lab.run(&["config", "show", "--origin"]).stdout;
    assert!(shown.contains("probe_interval_ms"), "{shown}");
}
