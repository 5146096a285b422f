//! Blobs as an operator uses them.

use std::fs;

use omnimesh_tests::lab;
use serde_json::json;

use crate::common::mesh;

#[test]
fn a_file_is_put_at_one_node_and_got_at_another() {
    let lab = lab!();
    let nodes = mesh(&lab, 3);
    let content: Vec<u8> =
        (0..5_000_001_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (file, copy) = (lab.dir().join("content"), lab.dir().join("copy"));
    fs::write(&file, &content).unwrap();
    let put = nodes[0].json(&["blob", "put", file.to_str().unwrap()]);
    assert_eq!(put["size"], json!(content.len()));
    let hash = put["hash"].as_str().unwrap();
    let got = nodes[2].json(&["blob", "get", hash, "--out", copy.to_str().unwrap()]);
    assert_eq!((&got["size"], fs::read(&copy).unwrap() == content), (&put["size"], true));
    let there = nodes[2].run(&["blob", "get", hash, "--out", copy.to_str().unwrap()]);
    there.expect(9, &["is there already"]);
    // After a restart it is still there, and it can be pinned, and goes.
    let list = nodes[2].json(&["blob", "list"]);
    assert_eq!((&list[0]["hash"], &list[0]["pinned"]), (&put["hash"], &json!(false)), "{list}");
    assert_eq!(nodes[2].json(&["blob", "pin", hash])["pinned"], json!(true));
    assert_eq!(nodes[2].json(&["blob", "remove", hash])["here_bytes"], put["size"]);
    assert_eq!(nodes[2].json(&["blob", "list"]), json!([]));
    nodes[2].run(&["blob", "unpin", hash]).expect(6, &["no such blob"]);
    nodes[2].run(&["blob", "get", "abc"]).expect(2, &["64 hexadecimal digits"]);
    let nobody = "00".repeat(32);
    nodes[2].run(&["blob", "get", &nobody]).expect(6, &["no connected node has the blob"]);
    nodes[0].run(&["blob", "put", "/nowhere/at/all"]).expect(6, &["/nowhere/at/all"]);
}
