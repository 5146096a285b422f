//! The command without a node: configuration, keys, bad use, exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{omnimesh, run, run_with_input};

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("node.toml");
    fs::write(&file, "[network]\nlissten = []\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [["start", "--config", file], ["config", "check", file]] {
        let run = run(home.path(), &arguments);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains("node.toml:2: unknown setting `network.lissten`"), "{}", run.stderr);
        assert!(run.stderr.contains("hint: did you mean `network.listen`?"), "{}", run.stderr);
        assert!(run.stdout.is_empty());
    }
    let output = omnimesh(home.path(), &["config", "show"]).env("OMNIMESH_LOG__LEVLE", "x").output().unwrap();
    let run: crate::common::Run = output.into();
    assert_eq!(run.code, 3);
    assert!(run.stderr.contains("did you mean `OMNIMESH_LOG__LEVEL`?"), "{}", run.stderr);
}

#[test]
fn a_bootstrap_address_needs_a_peer_id() {
    let home = tempfile::tempdir().unwrap();
    let flag = run(home.path(), &["start", "--bootstrap", "/ip4/127.0.0.1/tcp/7411"]);
    assert_eq!(flag.code, 2);
    assert!(flag.stderr.contains("does not end in /p2p/<peer id> (flag --bootstrap)"), "{}", flag.stderr);
    assert!(flag.stderr.contains("hint: add the peer id"), "{}", flag.stderr);

    let file = home.path().join("node.toml");
    fs::write(&file, "[network]\nbootstrap = [\"/ip4/127.0.0.1/tcp/7411\"]\n").unwrap();
    let file = run(home.path(), &["start", "--config", file.to_str().unwrap()]);
    assert_eq!(file.code, 3);
    assert!(file.stderr.contains("node.toml:2)"), "{}", file.stderr);
    // Nothing was made for a start that could not be.
    assert!(!home.path().join(".local").exists());
}

#[test]
fn an_identity_that_others_can_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let new = run(home.path(), &["key", "new", "--output", "json"]);
    assert_eq!(new.code, 0, "{}", new.stderr);
    let shown = run(home.path(), &["key", "show", "--output", "json"]);
    assert_eq!(shown.json(), new.json());
    assert!(new.json()["peer_id"].as_str().unwrap().starts_with("12D3KooW"));
    assert_eq!(run(home.path(), &["key", "new"]).code, 9);

    let identity = home.path().join(".local/share/omnimesh/identity");
    assert_eq!(fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
    let seed = fs::read_to_string(&identity).unwrap();
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o644)).unwrap();
    for arguments in [["key", "show"].as_slice(), &["start"], &["doctor"]] {
        let run = run(home.path(), arguments);
        assert_ne!(run.code, 0);
        let all = format!("{}{}", run.stdout, run.stderr);
        assert!(all.contains("is readable by others (mode 644)") && all.contains("chmod 600"), "{all}");
        assert!(!all.contains(seed.trim()));
    }
    assert_eq!(run(home.path(), &["key", "show"]).code, 9);
    assert_eq!(run(home.path(), &["doctor"]).code, 1);
}

#[test]
fn a_data_directory_has_one_user() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let _held = omnimesh_node::data_dir::DataDir::open(&data).unwrap();
    let run = run(home.path(), &["start", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(run.code, 1);
    let expected = format!("is in use by another process (pid {})", std::process::id());
    assert!(run.stderr.contains(&expected) && run.stderr.contains("hint: stop that node"), "{}", run.stderr);
}

#[test]
fn what_never_ends_is_not_read() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(run(home.path(), &["key", "new"]).code, 0);
    for arguments in [
        &["evidence", "verify", "/dev/zero"][..],
        &["config", "check", "/dev/zero"],
        &["start", "--config", "/dev/zero"],
        &["start", "--invite", "/dev/zero"],
    ] {
        let run = run(home.path(), arguments);
        assert_eq!(run.code, 9, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains("/dev/zero has more than "), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains("\nhint: "), "{arguments:?}: {}", run.stderr);
    }
    let audit = run(home.path(), &["audit", "verify", "--file", "/dev/zero"]);
    assert_eq!((audit.code, audit.stderr.contains("entry 0 at bytes 0 to 4")), (1, true), "{}", audit.stderr);
}

#[test]
fn what_is_not_there_is_not_found_and_has_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        &["evidence", "verify", "nofile"][..],
        &["config", "check", "nofile"],
        &["start", "--config", "nofile"],
        &["start", "--invite", "nofile"],
        &["audit", "verify"],
        &["job", "submit", "nofile"],
    ] {
        let run = run(home.path(), &[arguments, &["-o", "json"]].concat());
        let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
        assert_eq!((run.code, error["error"]["code"].as_str()), (6, Some("not_found")), "{arguments:?}");
        assert_ne!(error["error"]["hint"], "", "{arguments:?}");
        let names_config = error["error"]["hint"].as_str().unwrap().contains("--config");
        assert_eq!(names_config, arguments[0] == "start" && arguments[1] == "--config", "{error}");
    }
    let audit = run(home.path(), &["audit", "verify"]);
    assert!(audit.stderr.contains(".local/share/omnimesh"), "{}", audit.stderr);
}

#[test]
fn an_address_that_is_none_is_named_with_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    let run = run(home.path(), &["start", "--api", "127.0.0.1:1x"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let says = "api.listen: no IP address with a port: \"127.0.0.1:1x\" (flag --api)";
    assert!(
        run.stderr.contains(says) && run.stderr.contains("hint: write it as \"127.0.0.1:7412\""),
        "{}",
        run.stderr
    );
}

#[test]
fn binary_secrets_are_damaged_and_have_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    let secret = |name: &str| {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    secret(".local/share/omnimesh/identity");
    let identity = run(home.path(), &["key", "show"]);
    assert!(identity.stderr.contains("identity is damaged: it is binary"), "{}", identity.stderr);
    assert!(identity.code == 1 && identity.stderr.contains("hint: restore"), "{}", identity.stderr);
    let arguments = ["status", "--api-url", "127.0.0.1:1", "--token-file", &secret("token")];
    let token = run(home.path(), &arguments);
    assert!(token.code == 5 && token.stderr.contains("hint: copy the file api-token"), "{}", token.stderr);
}

#[test]
fn the_doctor_finds_damaged_files() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(run(home.path(), &["key", "new"]).code, 0);
    let data = home.path().join(".local/share/omnimesh");
    drop(omnimesh_node::store::Store::open(&data).unwrap());
    let check = |name: &str| {
        let output = omnimesh(home.path(), &["doctor", "--output", "json"])
            .env("OMNIMESH_NETWORK__LISTEN", "/ip4/127.0.0.1/tcp/0")
            .env("OMNIMESH_API__LISTEN", "127.0.0.1:0")
            .output()
            .unwrap();
        let run: crate::common::Run = output.into();
        let checks = run.json();
        let check = checks.as_array().unwrap().iter().find(|check| check["check"] == name).unwrap().clone();
        let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
        (run.code, text("verdict"), text("detail"), text("remedy"))
    };
    let whole = fs::read(data.join("node.redb")).unwrap();
    assert_eq!(check("store").1, "ok");
    assert_eq!(fs::read(data.join("node.redb")).unwrap(), whole, "only a copy was opened");
    fs::write(data.join("audit.log"), b"not a log at all").unwrap();
    let (code, verdict, detail, remedy) = check("audit log");
    assert_eq!((code, verdict.as_str()), (0, "warn"), "{detail}");
    assert!(detail.contains("audit.log") && !remedy.is_empty(), "{detail} {remedy}");
    fs::write(data.join("node.redb"), b"not a store at all").unwrap();
    let (code, verdict, detail, remedy) = check("store");
    assert_eq!((code, verdict.as_str()), (1, "fail"), "{detail}");
    let path = data.join("node.redb").display().to_string();
    assert!(
        detail.contains(&path) && remedy.contains(&path) && remedy.contains("move it away"),
        "{detail} {remedy}"
    );
    assert!(!data.join(".doctor-store").exists());
}

#[test]
fn another_mesh_than_the_stored_one_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    omnimesh_node::data_dir::DataDir::open(&data).unwrap().mesh(None, "home").unwrap();
    let run = run(home.path(), &["start", "--open", "demo", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(run.code, 3);
    assert!(
        run.stderr.contains("belongs to mesh \"home\"") && run.stderr.contains("\"demo\""),
        "{}",
        run.stderr
    );
}

#[test]
fn a_bootstrap_address_without_a_mesh_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let peer = omnimesh_protocol::Identity::from_seed(&[1; 32]).id();
    let address = format!("/ip4/127.0.0.1/tcp/7411/p2p/{peer}");
    let run = run(home.path(), &["start", "--bootstrap", &address]);
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("not said which mesh") && run.stderr.contains("--invite FILE"),
        "{}",
        run.stderr
    );
    // No mesh was founded that would be in the way of the right one.
    assert!(!home.path().join(".local/share/omnimesh/mesh.toml").exists());
}

#[test]
fn a_damaged_invite_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let run = run_with_input(home.path(), &["start", "--invite", "-"], b"omnimesh1-abc\n");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("the invite is damaged"), "{}", run.stderr);
}

#[test]
fn without_a_node_there_is_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    for command in ["status", "members", "peers", "step", "metrics", "anomalies", "invite"] {
        let run = run(home.path(), &[command]);
        assert_eq!(run.code, 4, "{command}");
        assert!(run.stderr.contains("no node runs in the data directory"), "{}", run.stderr);
        assert!(run.stderr.contains("hint: start one with `omnimesh start`"), "{}", run.stderr);
    }
    // Nobody listens at this port.
    let url = "http://127.0.0.1:1";
    let run = run(home.path(), &["publish", "news", "x", "--api-url", url, "--output", "json"]);
    assert_eq!(run.code, 4);
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["code"], "unreachable");
    assert!(error["error"]["hint"].as_str().unwrap().contains("--api-url"));
    assert!(run.stdout.is_empty());
}

#[test]
fn a_wrong_command_line_is_a_matter_of_usage() {
    let home = tempfile::tempdir().unwrap();
    for arguments in
        [["start", "--lissten"].as_slice(), &["frob"], &["publish"], &["status", "--timeout", "0"]]
    {
        assert_eq!(run(home.path(), arguments).code, 2, "{arguments:?}");
    }
    let run = run(home.path(), &["start", "--lissten", "x", "-o", "json"]);
    assert_eq!(run.code, 2);
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["code"], "usage");
    assert!(error["error"]["message"].as_str().unwrap().contains("--lissten"));
    assert!(error["error"]["hint"].as_str().unwrap().contains("--listen"), "{error}");
}

#[test]
fn config_show_names_the_origin_of_each_value() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("node.toml");
    let secret = "ab".repeat(32);
    fs::write(&file, format!("[node]\ncache_size = 7\n[mesh]\nsecret = \"{secret}\"\n")).unwrap();
    let arguments = ["config", "show", "--origin", "--log-level", "warn", "--output", "json"];
    let output = omnimesh(home.path(), &arguments)
        .env("OMNIMESH_CONFIG", &file)
        .env("OMNIMESH_NETWORK__MDNS", "true")
        .output()
        .unwrap();
    let run: crate::common::Run = output.into();
    let rows = run.json();
    let row = |key: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["key"] == key).unwrap();
        (row["value"].clone(), row["origin"].as_str().unwrap().to_owned())
    };
    assert_eq!(row("node.cache_size"), (7.into(), format!("file {}:2", file.display())));
    assert_eq!(row("network.mdns"), (true.into(), "environment OMNIMESH_NETWORK__MDNS".to_owned()));
    assert_eq!(row("log.level"), ("warn".into(), "flag --log-level".to_owned()));
    assert_eq!(row("gossip.mesh_n"), (6.into(), "built in".to_owned()));
    assert_eq!(row("mesh.secret").0, "(hidden)");

    let file = file.to_str().unwrap();
    let shown = crate::common::run(home.path(), &["config", "show", "--config", file]);
    assert!(shown.stdout.contains("cache_size = 7") && !shown.stdout.contains(&secret), "{}", shown.stdout);
    // What is shown is a configuration.
    fs::write(home.path().join("shown.toml"), shown.stdout.replace("(hidden)", &secret)).unwrap();
    let shown = home.path().join("shown.toml");
    assert_eq!(crate::common::run(home.path(), &["config", "check", shown.to_str().unwrap()]).code, 0);
    let secrets = crate::common::run(home.path(), &["config", "show", "--secrets", "--config", file]);
    assert!(secrets.stdout.contains(&secret));
}

#[test]
fn completions_and_manual_are_printed() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let run = run(home.path(), &["completions", shell]);
        assert_eq!(run.code, 0);
        assert!(run.stdout.contains("devnet"), "{shell}");
    }
    let page = run(home.path(), &["man"]);
    assert!(page.code == 0 && page.stdout.contains(".TH omnimesh 1"));
    let dir = home.path().join("man");
    assert_eq!(run(home.path(), &["man", dir.to_str().unwrap()]).code, 0);
    assert!(dir.join("omnimesh-start.1").exists());
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child = omnimesh(home.path(), &["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The script is larger than a pipe holds.
    drop(child.stdout.take());
    let run: crate::common::Run = child.wait_with_output().unwrap().into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn the_doctor_finds_a_taken_port() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let output = omnimesh(home.path(), &["doctor", "--output", "json"])
        .env("OMNIMESH_NETWORK__LISTEN", &listen)
        .env("OMNIMESH_API__LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    let run: crate::common::Run = output.into();
    assert_eq!(run.code, 1);
    let checks = run.json();
    let failed: Vec<_> =
        checks.as_array().unwrap().iter().filter(|check| check["verdict"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{checks}");
    assert!(failed[0]["detail"].as_str().unwrap().contains(&listen));
    assert!(failed[0]["remedy"].as_str().unwrap().contains("network.listen"));
}
