//! Real nodes with data directories, over TCP on loopback: jobs are done by all of them, and end everywhere alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use omnimesh_node::MeshNode;
use omnimesh_node::job::JobError;
use omnimesh_protocol::compute::driver::Refusal;
use omnimesh_protocol::compute::job::{self, Format, JobSpec, Quota};
use omnimesh_protocol::compute::ledger::JobState;
use omnimesh_protocol::compute::{BlobRef, JobId, TaskRef};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::{Identity, NodeId};
use parquet::data_type::{DoubleType, FixedLenByteArray, FixedLenByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::common::{PATIENCE, start, until};

fn read_job(text: &str, files: &[(&str, BlobRef)]) -> JobSpec {
    let files: BTreeMap<_, _> = files.iter().map(|(name, blob)| ((*name).to_owned(), *blob)).collect();
    job::read("job.toml", text, Format::Toml, &files, 7, &Quota::default()).unwrap().0
}

/// Waits until a node sees the end of a job. Its ledger says it; nothing else tells it to a program that watches from
/// outside without a gap.
async fn ended(node: &MeshNode, job: JobId) -> JobState {
    let mut state = None;
    until("the job ends", async || {
        let look = node.look_at_jobs(move |seen| {
            let view = seen.driver.ledger().job(&job)?;
            view.is_finished().then(|| view.state())
        });
        state = look.await.unwrap();
        state.is_some()
    })
    .await;
    state.unwrap()
}

async fn outputs(node: &MeshNode, job: JobId) -> Vec<BlobRef> {
    let outputs = node.look_at_jobs(move |seen| {
        let view = seen.driver.ledger().job(&job).unwrap();
        let families = view.outputs();
        let of = |family: u16| (0..view.plan().count(family)).map(move |chunk| TaskRef::new(family, chunk));
        families.iter().flat_map(|(_, family)| of(*family)).filter_map(|task| view.output(task)).collect()
    });
    outputs.await.unwrap()
}

/// Who has done the tasks of a family.
async fn workers(node: &MeshNode, job: JobId) -> BTreeSet<NodeId> {
    let workers = node.look_at_jobs(move |seen| {
        let view = seen.driver.ledger().job(&job).unwrap();
        let records = view.plan().tasks().filter_map(|task| view.record(task));
        records.flat_map(|record| record.commit.workers.clone()).collect()
    });
    workers.await.unwrap()
}

async fn content(node: &MeshNode, blob: BlobRef) -> Vec<u8> {
    let got = tokio::time::timeout(PATIENCE, node.blob(blob.hash)).await.expect("it is fetched");
    assert_eq!(got.unwrap(), blob);
    node.blobs().unwrap().read(&blob, 0..blob.size).unwrap().unwrap().to_vec()
}

const HASHES: &str = r#"
name = "hashes"
redundancy = 2
[inputs.data]
file = "data"
[task.hash]
operation = "hash"
for_each = { chunk_of = "data", bytes = "256KiB" }
params = { hex = true }
[task.all]
operation = "concat"
inputs = ["hash"]
redundancy = 1
"#;

#[actix::test]
async fn a_job_is_done_by_all_and_ends_everywhere_alike() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let alice = start("jobs", 1, dirs[0].path(), Vec::new(), |_| ()).await;
    let bob = start("jobs", 2, dirs[1].path(), alice.bootstrap_addresses(), |_| ()).await;
    let carol = start("jobs", 3, dirs[2].path(), alice.bootstrap_addresses(), |_| ()).await;
    let data: Vec<u8> = (0..10_000_000_u32).map(|place| (place * 131 % 241) as u8).collect();
    let blob = alice.blobs().unwrap().put(&data[..], false).unwrap();
    let spec = read_job(HASHES, &[("data", blob)]);
    let job = alice.submit(spec.clone()).await.unwrap();
    assert_eq!(alice.submit(spec).await.unwrap(), job, "to submit twice is to submit once");
    let expected: String =
        data.chunks(256 << 10).map(|chunk| blake3::hash(chunk).to_hex().to_string()).collect();
    for node in [&alice, &bob, &carol] {
        assert_eq!(ended(node, job).await, JobState::Succeeded);
        let outputs = outputs(node, job).await;
        assert_eq!(outputs, [BlobRef::of(expected.as_bytes())]);
        assert!(content(node, outputs[0]).await == expected.as_bytes());
    }
    assert!(workers(&alice, job).await.len() >= 2, "the work is spread");
    // What makes no sense is refused before anything is written.
    let mut spec = read_job(HASHES, &[("data", blob)]);
    spec.tasks[0].after = vec![1];
    assert!(matches!(alice.submit(spec).await, Err(JobError::Refused(Refusal::BadJob(_)))));
    assert!(matches!(alice.retry_job(job).await, Err(JobError::Refused(Refusal::WrongState(_)))));
    let unknown = JobId::from_bytes([9; 32]);
    assert_eq!(bob.cancel_job(unknown, String::new()).await, Err(JobError::Refused(Refusal::UnknownJob)));
    for node in [alice, bob, carol] {
        node.shutdown().await;
    }
}

#[actix::test]
async fn another_node_takes_a_job_over_and_a_job_outlives_restarts() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let alice = start("take-over", 1, dirs[0].path(), Vec::new(), |config| config.compute.work = false).await;
    let bob = start("take-over", 2, dirs[1].path(), alice.bootstrap_addresses(), |_| ()).await;
    // Nobody has the label yet: the job waits.
    let text = "name = \"wait\"\n[task.one]\noperation = \"pattern\"\nparams = { from = 1, count = 3 }\n\
                needs = { labels = { site = \"lab\" } }\n";
    let job = alice.submit(read_job(text, &[])).await.unwrap();
    alice.shutdown().await;
    let carol = start("take-over", 3, dirs[2].path(), bob.bootstrap_addresses(), |config| {
        config.compute.labels = vec!["site=lab".to_owned()];
    })
    .await;
    assert_eq!(ended(&carol, job).await, JobState::Succeeded);
    assert_eq!(ended(&bob, job).await, JobState::Succeeded);
    let driver = bob.look_at_jobs(move |seen| seen.driver.ledger().job(&job).unwrap().holder().node);
    assert_ne!(driver.await.unwrap(), Identity::from_seed(&[1; 32]).id());
    for node in [bob, carol] {
        node.shutdown().await;
    }
}

#[actix::test]
async fn when_who_keeps_the_inputs_is_gone_another_does() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let one_copy = |config: &mut Config| config.compute.input_copies = 1;
    let no_worker = |config: &mut Config| config.compute.work = false;
    let alice = start("keepers", 1, dirs[0].path(), Vec::new(), no_worker).await;
    let bob = start("keepers", 2, dirs[1].path(), alice.bootstrap_addresses(), one_copy).await;
    let carol = start("keepers", 3, dirs[2].path(), alice.bootstrap_addresses(), one_copy).await;
    for node in [&alice, &bob, &carol] {
        until("all are connected", async || node.metrics().await.unwrap().peers == 2).await;
    }
    // Connected is not enough: who does not know the other as a worker keeps a copy of its own.
    for (node, other) in [(&bob, carol.peer_id()), (&carol, bob.peer_id())] {
        until("both know each other as workers", async || {
            let knows = node.look_at_jobs(move |seen| {
                seen.driver.workers(seen.now).iter().any(|worker| worker.node == other)
            });
            knows.await.unwrap()
        })
        .await;
    }
    let blob = alice.blobs().unwrap().put(&[7_u8; 100_000][..], false).unwrap();
    // Nobody has the label: nobody reads the input.
    let text = "name = \"wait\"\n[inputs.data]\nfile = \"data\"\n[task.hash]\noperation = \"hash\"\ninputs = [\"data\"]\n\
                needs = { labels = { site = \"lab\" } }\n";
    alice.submit(read_job(text, &[("data", blob)])).await.unwrap();
    let has = |node: &MeshNode| node.blobs().unwrap().whole(&blob.hash).is_some();
    until("one keeps the input", async || has(&bob) || has(&carol)).await;
    let (keeper, other) = if has(&bob) { (bob, carol) } else { (carol, bob) };
    assert!(!has(&other), "there is one copy");
    keeper.shutdown().await;
    until("the other keeps it", async || has(&other)).await;
    for node in [alice, other] {
        node.shutdown().await;
    }
}

/// More than a driver has in mind to fetch: they come with their results.
const SMALL: u16 = 5000;

#[actix::test]
async fn small_outputs_outlive_who_made_them() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let alice = start("small", 1, dirs[0].path(), Vec::new(), |config| config.compute.work = false).await;
    let bob = start("small", 2, dirs[1].path(), alice.bootstrap_addresses(), |_| ()).await;
    let data: Vec<u8> = (0..SMALL).flat_map(|place| [place; 32]).flat_map(u16::to_le_bytes).collect();
    let blob = alice.blobs().unwrap().put(&data[..], false).unwrap();
    let text = "name = \"small\"\n[inputs.data]\nfile = \"data\"\n[task.hash]\noperation = \"hash\"\n\
                for_each = { chunk_of = \"data\", bytes = 64 }\n";
    let job = alice.submit(read_job(text, &[("data", blob)])).await.unwrap();
    assert_eq!(ended(&alice, job).await, JobState::Succeeded);
    bob.shutdown().await;
    let outputs = outputs(&alice, job).await;
    assert_eq!(outputs.len(), usize::from(SMALL));
    let expected = data.chunks(64).map(|chunk| BlobRef::of(blake3::hash(chunk).as_bytes()));
    assert!(expected.eq(outputs.iter().copied()));
    let store = alice.blobs().unwrap();
    let is_here = |output: &BlobRef| store.whole(&output.hash) == Some(*output);
    until("all outputs are here", async || outputs.iter().all(is_here)).await;
    alice.shutdown().await;
}

const COLUMNS: &str = r#"
name = "columns"
[inputs.table]
file = "table"
[task.part]
operation = "analyze"
for_each = { chunk_of = "table", bytes = "512KiB", align = "row_group" }
params = { columns = ["size"] }
limits = { memory = "64MiB" }
[task.report]
operation = "analyze_merge"
inputs = ["part"]
"#;

/// A Parquet file of so many row groups of 8,192 rows: 64 KiB of numbers, and as much that is no number.
fn parquet_file(groups: u32) -> Vec<u8> {
    let schema = "message table { required fixed_len_byte_array(8) id; required double size; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for group in 0..groups {
        let sizes: Vec<f64> = (0..8192).map(|row| f64::from(group * 8192 + row)).collect();
        let id = |size: &f64| FixedLenByteArray::from(size.to_be_bytes().to_vec());
        let ids: Vec<_> = sizes.iter().map(id).collect();
        let mut rows = writer.next_row_group().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<FixedLenByteArrayType>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&sizes, None, None).unwrap();
        column.close().unwrap();
        rows.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

#[actix::test]
async fn a_parquet_file_is_split_by_its_row_groups() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // Who has the file does none of the work, and nobody keeps a copy of it.
    let alice = start("columns", 1, dirs[0].path(), Vec::new(), |config| {
        (config.compute.work, config.compute.input_copies) = (false, 0);
    })
    .await;
    let bob = start("columns", 2, dirs[1].path(), alice.bootstrap_addresses(), |_| ()).await;
    let file = parquet_file(40);
    let blob = alice.blobs().unwrap().put(&file[..], false).unwrap();
    let spec = read_job(COLUMNS, &[("table", blob)]);
    let job = alice.submit(spec.clone()).await.unwrap();
    assert_eq!(ended(&alice, job).await, JobState::Succeeded);
    let output = outputs(&alice, job).await[0];
    let report: serde_json::Value = serde_json::from_slice(&content(&alice, output).await).unwrap();
    let rows = 40 * 8192;
    assert_eq!([&report["rows"], &report["columns"][0]["count"]], [rows, rows]);
    assert_eq!(report["columns"][0]["max"], f64::from(rows - 1));
    let mean = report["columns"][0]["mean"].as_f64().unwrap();
    assert!((mean - f64::from(rows - 1) / 2.0).abs() < 1e-6, "{mean}");
    let parts = alice.look_at_jobs(move |seen| seen.driver.ledger().job(&job).unwrap().plan().count(0));
    assert!(parts.await.unwrap() > 8, "it was split");
    assert_eq!(workers(&alice, job).await, BTreeSet::from([Identity::from_seed(&[2; 32]).id()]));
    // What is no Parquet file is told as that.
    let blob = alice.blobs().unwrap().put(&vec![b'x'; 3 << 20][..], false).unwrap();
    let once = COLUMNS.replace("limits =", "retry = { max = 0 }\nlimits =");
    let job = alice.submit(read_job(&once, &[("table", blob)])).await.unwrap();
    assert_eq!(ended(&alice, job).await, JobState::Failed);
    for node in [alice, bob] {
        node.shutdown().await;
    }
}
