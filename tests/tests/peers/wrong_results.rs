//! Workers that sign wrong results: every result is right all the same, and both are named and not asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use omnimesh_protocol::compute::job::{self, Format, Quota};
use omnimesh_protocol::compute::ledger::JobState;
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::{Mesh, NodeId};

use crate::common::{TestNode, identity, poll};
use crate::liars::{HONEST, Liar, honest_nodes, until_admitted};

const CHUNK: usize = 1024;
const TASKS: usize = 60;

/// Has each chunk of some bytes hashed by three workers.
async fn submit(node: &TestNode, bytes: &[u8], nonce: u64) -> JobId {
    let blob = node.node.blobs().unwrap().put(bytes, false).unwrap();
    let text = format!(
        "name = \"hashes\"\nredundancy = 3\n[inputs.data]\nfile = \"data\"\n[task.hash]\noperation = \"hash\"\n\
         for_each = {{ chunk_of = \"data\", bytes = {CHUNK} }}\n"
    );
    let files = BTreeMap::from([("data".to_owned(), blob)]);
    let (spec, _) = job::read("hashes", &text, Format::Toml, &files, nonce, &Quota::default()).unwrap();
    node.node.submit(spec).await.unwrap()
}

/// The outputs of a job once it has ended well, who has made them, and who has signed others.
async fn end(node: &TestNode, job: JobId) -> (Vec<BlobRef>, BTreeSet<NodeId>, BTreeSet<NodeId>) {
    poll("the job ends", async || {
        let ended = node.node.look_at_jobs(move |seen| {
            let view = seen.driver.ledger().job(&job)?;
            view.is_finished().then(|| {
                assert_eq!(view.state(), JobState::Succeeded);
                let tasks = (0..view.plan().count(0)).map(|chunk| TaskRef::new(0, chunk));
                let outputs = tasks.clone().filter_map(|task| view.output(task)).collect();
                let records = tasks.filter_map(|task| view.record(task));
                (
                    outputs,
                    records.flat_map(|record| record.commit.workers.clone()).collect(),
                    view.dissenters(),
                )
            })
        });
        ended.await.unwrap()
    })
    .await
}

#[actix::test]
async fn two_liars_of_seven_are_named_and_not_believed() {
    let mesh = Mesh::open("forgers").unwrap();
    let honest = honest_nodes(&mesh).await;
    let (mut lying, mut told, mut liars) = (Vec::new(), Vec::new(), BTreeSet::new());
    for seed in [201, 202] {
        let (liar, results) = Liar::forger(seed, &mesh, &honest).await;
        liars.insert(identity(seed).id());
        told.push(results);
        lying.push(tokio::spawn(liar.run()));
    }
    for node in &honest {
        until_admitted(node, HONEST + 1).await;
        poll("all workers are known", async || {
            let known = node.node.look_at_jobs(|seen| seen.driver.workers(seen.now).len()).await.unwrap();
            (known == 7).then_some(())
        })
        .await;
    }
    let bytes: Vec<u8> =
        (0_u32..).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).take(CHUNK * TASKS).collect();
    let right: Vec<BlobRef> =
        bytes.chunks(CHUNK).map(|chunk| BlobRef::of(blake3::hash(chunk).as_bytes())).collect();
    let job = submit(&honest[0], &bytes, 1).await;
    let (outputs, workers, dissenters) = end(&honest[0], job).await;
    assert_eq!(outputs, right, "every result is right");
    assert_eq!(dissenters, liars, "both liars are named, and nobody else");
    assert!(workers.is_disjoint(&liars));
    // They agree with each other, and are convicted by those who do not.
    for liar in &liars {
        let named = |event: &Event<_>| match event {
            Event::Found { kind: "result_mismatch", accused, .. } => {
                (*accused == liar.to_string()).then_some(())
            }
            _ => None,
        };
        honest[0].event("the liar is found", named).await;
    }
    // The next job asks them for nothing, as long as there are others.
    let before: u64 = told.iter().map(|told| told.load(Ordering::Relaxed)).sum();
    assert!(before >= 2, "they were asked");
    let job = submit(&honest[0], &bytes[..CHUNK * 8], 2).await;
    let (outputs, _, _) = end(&honest[0], job).await;
    assert_eq!(outputs, right[..8]);
    lying.iter().for_each(tokio::task::JoinHandle::abort);
}
