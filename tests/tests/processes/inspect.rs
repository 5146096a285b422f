//! What a node tells of itself, its mesh and its messages.

use omnimesh_tests::{SOON, check, lab, wait_for};
use serde_json::Value;

use crate::common::{NEWS, mesh, wait_for_recipients};

#[track_caller]
fn assert_fields(value: &Value, fields: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for field in fields {
        assert!(object.contains_key(*field), "{field} is not in {value}");
    }
}

#[test]
fn the_documents_have_their_fields() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    let (a, b) = (&nodes[0], &nodes[1]);
    let status = a.json(&["status"]);
    assert_fields(
        &status,
        &[
            "peer_id",
            "mesh_id",
            "mesh_name",
            "step",
            "phase",
            "step_interval_ms",
            "peers",
            "members",
            "uptime_s",
        ],
    );
    assert_fields(&status, &["version", "listen", "api", "ready"]);
    assert_eq!(status["peer_id"], a.peer_id());
    assert_eq!(status["mesh_name"], "test");
    assert_eq!(
        (&status["ready"], &status["members"], &status["peers"]),
        (&true.into(), &2.into(), &1.into())
    );
    assert_eq!(status["listen"][0], a.address());
    assert_eq!(status["api"], a.api().to_string());
    assert_eq!(status["mesh_id"], b.json(&["status"])["mesh_id"]);

    let member_fields = ["peer_id", "state", "step", "addresses", "last_seen_ms", "rtt_ms"];
    let members = wait_for("the other's step and round-trip time", SOON, || {
        let members = a.try_json(&["members"])?;
        let other = members.as_array().unwrap().iter().find(|member| member["peer_id"] == b.peer_id());
        let known = other.is_some_and(|other| other["rtt_ms"].is_number() && other["step"].is_u64());
        check(known, || members.to_string()).map(|()| members)
    });
    for member in members.as_array().unwrap() {
        assert_fields(member, &member_fields);
        assert_eq!(member["this_node"], member["peer_id"] == a.peer_id(), "{member}");
    }
    let lines = a.run(&["members", "--output", "ndjson"]).lines();
    assert_eq!(lines.len(), 2, "one document on each line");

    let peers = a.json(&["peers"]);
    assert_eq!(peers[0]["peer_id"], b.peer_id());
    assert_eq!((&peers[0]["member"], &peers[0]["direction"]), (&true.into(), &"inbound".into()));
    assert_eq!(b.json(&["peers"])[0]["direction"], "outbound");

    let step = a.json(&["step"]);
    assert_fields(&step, &["step", "phase", "mesh_time_ms", "offset_ms", "skew_ms", "samples"]);
    let interval = status["step_interval_ms"].as_u64().unwrap();
    assert_eq!(step["step"].as_u64().unwrap(), step["mesh_time_ms"].as_u64().unwrap() / interval);
    assert_eq!(a.json(&["anomalies"]), Value::Array(Vec::new()), "a healthy mesh has none");

    let refusals: Vec<_> = a.json(&["metrics"]).as_array().unwrap().clone();
    let reasons: Vec<_> = refusals
        .iter()
        .filter(|sample| sample["name"] == "omnimesh_messages_refused_total")
        .map(|sample| (sample["labels"]["reason"].as_str().unwrap().to_owned(), sample["value"].clone()))
        .collect();
    for reason in
        ["too_large", "bad_pattern", "bad_signature", "replay", "stale_step", "future_step", "wrong_mesh"]
    {
        assert!(reasons.contains(&(reason.to_owned(), 0.into())), "{reason} is not in {reasons:?}");
    }
}

#[test]
fn both_ends_say_what_became_of_a_message() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    let (sender, receiver) = (&nodes[0], &nodes[1]);
    let subscriber = receiver.subscribe(NEWS);
    wait_for_recipients(sender);
    let published = sender.publish(NEWS, "hello").unwrap();
    assert_fields(&published, &["id", "seq", "step", "recipients"]);
    let message = subscriber.wait_for("hello");
    assert_fields(&message, &["id", "channel", "author", "seq", "step", "data", "latency_ms"]);
    assert!(message["latency_ms"].as_f64().unwrap() >= 0.0, "{message}");

    let id = published["id"].as_str().unwrap();
    let sent = sender.json(&["why", "message", id]);
    assert_eq!((&sent["outcome"], &sent["channel"]), (&"published".into(), &NEWS.into()), "{sent}");
    let got = receiver.json(&["why", "message", id]);
    assert_eq!((&got["outcome"], &got["author"]), (&"delivered".into(), &sender.peer_id().into()), "{got}");
    assert_eq!(got["records"][0]["from"], sender.peer_id(), "{got}");
    let table = receiver.run(&["why", "message", id]);
    table.expect(0, &[]);
    assert!(table.stdout.contains(id) && table.stdout.contains("delivered"), "{table:?}");
}

#[test]
fn a_subscription_counts_and_ends() {
    let lab = lab!();
    let nodes = mesh(&lab, 2);
    let mut subscriber = nodes[1].subscribe_count(NEWS, 3);
    wait_for("three messages", SOON, || {
        nodes[0].publish(NEWS, "one of three")?;
        check(subscriber.messages().len() >= 3, || "not yet".to_owned())
    });
    let run = subscriber.wait_exit(SOON);
    run.expect(0, &[]);
    let messages = run.lines();
    assert_eq!(messages.len(), 3, "{run:?}");
    let seqs: Vec<_> = messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    nodes[1].run(&["subscribe", NEWS, "--timeout", "1"]).expect(7, &["received 0", "--timeout"]);
}

/// Who reads a node's words may go away, and the disk that they go to may be full. None of its actors ends for that.
#[test]
fn a_node_whose_words_nobody_takes_goes_on() {
    let lab = lab!();
    let spec = lab.node("mute").open("x");
    let dir = spec.data_dir().display().to_string();
    // There is always something on a disk, which is worth a word.
    let settings = [("THRESHOLDS", "disk=0:1"), ("ALERT_HOLD_MS", "200"), ("SAMPLE_INTERVAL_MS", "200")];
    let settings: Vec<_> =
        settings.iter().map(|(key, value)| format!("OMNIMESH_OBSERVER__{key}={value}")).collect();
    let script = format!("exec env {} omnimesh \"$@\" 2>/dev/full", settings.join(" "));
    let mut words = vec!["-c".to_owned(), script, "sh".to_owned()];
    words.extend(spec.command_line());
    let mut node = lab.start_program("sh", &words);
    let ask = |arguments: &[&str]| {
        let run = lab.run(&[&["--data-dir", &dir], arguments].concat());
        check(run.code == 0, || format!("{arguments:?}: {}", run.stderr))
    };
    wait_for("a node that cannot say that it is ready", SOON, || ask(&["status", "--wait"]));
    for _ in 0..2 {
        wait_for("the disk to be found in use", SOON, || {
            let run = lab.run(&["--data-dir", &dir, "alerts", "list"]);
            check(run.stdout.contains("disk in use is warning"), || format!("{run:?}"))
        });
    }
    for arguments in [
        &["log", "append", "unheard"][..],
        &["quarantine", "list"],
        &["anomalies"],
        &["log", "status"],
        &["job", "list"],
    ] {
        ask(arguments).unwrap();
    }
    node.signal("TERM");
    assert_eq!(node.wait(SOON), Some(0));
}
